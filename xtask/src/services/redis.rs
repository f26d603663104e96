//! Redis three ways: one server, a cluster, and a server with a replica under sentinels.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use super::batch::{Batch, Running, said};
use super::install::program;
use super::process::Ending;
use super::servers::{Up, answers, prepare, server, version};

const MASTERS: usize = 3;
/// What sentinels call the server that they watch.
const MASTER_NAME: &str = "larder";
const SENTINELS: usize = 3;

/// One server, reached in plain text, and under TLS if this machine can make certificates.
pub(super) fn single(batch: &Batch) -> io::Result<Up> {
    let port = batch.port()?;
    let mut variables = vec![("LARDER_TEST_REDIS_URL", url("redis", port))];
    let mut options = Vec::new();
    if has_tls() {
        let tls_port = batch.port()?;
        let folder = batch.folder("redis-tls")?;
        certificates(&folder, batch)?;
        let file = |name: &str| folder.join(name).display().to_string();
        let pairs = [
            ("--tls-port", tls_port.to_string()),
            ("--tls-cert-file", file("server.pem")),
            ("--tls-key-file", file("server.key")),
            ("--tls-ca-cert-file", file("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        options.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        variables.push(("LARDER_TEST_REDIS_TLS_URL", url("rediss", tls_port)));
        variables.push(("LARDER_TEST_REDIS_TLS_CA", file("ca.pem")));
    } else {
        eprintln!("redis      without TLS: that takes openssl, and a Redis that was built with it");
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    redis_server("redis", port, &options, batch)?.until(|| is_answering(port))?;
    Ok(up(variables))
}

/// Three masters that share the slots, each with a replica.
pub(super) fn cluster(batch: &Batch) -> io::Result<Up> {
    let mut nodes = Vec::new();
    for number in 1..=MASTERS * 2 {
        let (port, bus) = (batch.port()?, batch.port()?.to_string());
        // A replica takes over two seconds after its master has died.
        let timeout = ["--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1"];
        let options = [&["--cluster-enabled", "yes", "--cluster-port", &bus][..], &timeout].concat();
        nodes.push((port, redis_server(&format!("cluster-{number}"), port, &options, batch)?));
    }
    for (port, node) in &mut nodes {
        node.until(|| is_answering(*port))?;
    }
    let addresses: Vec<String> = nodes.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
    let mut args = vec!["--cluster", "create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    prepare("cluster-create", "redis-cli", &args, batch)?;
    for (port, node) in &mut nodes {
        node.until(|| {
            // A replica is ready when it has copied its master; masters, when one has copied them.
            answers(*port, "CLUSTER INFO\r\n", "cluster_state:ok")
                && answers(*port, "CLUSTER INFO\r\n", "cluster_known_nodes:6")
                && (answers(*port, "INFO replication\r\n", "master_link_status:up")
                    || answers(*port, "INFO replication\r\n", "state=online"))
        })?;
    }
    let urls: Vec<String> = nodes.iter().map(|(port, _)| url("redis", *port)).collect();
    Ok(up(vec![("LARDER_TEST_REDIS_CLUSTER_URLS", urls.join(","))]))
}

/// A server, its replica, and three sentinels of whom two have to agree.
pub(super) fn sentinel(batch: &Batch) -> io::Result<Up> {
    let (primary, replica) = (batch.port()?, batch.port()?);
    redis_server("sentinel-primary", primary, &[], batch)?.until(|| is_answering(primary))?;
    let of = format!("127.0.0.1 {primary}");
    // The replica before the sentinels: they look for replicas when they start, and then every ten seconds.
    redis_server("sentinel-replica", replica, &["--replicaof", &of], batch)?
        .until(|| answers(primary, "INFO replication\r\n", "state=online"))?;
    let mut sentinels = Vec::new();
    for number in 1..=SENTINELS {
        let port = batch.port()?;
        let name = format!("sentinel-{number}");
        let folder = batch.folder(&name)?;
        let config = folder.join("sentinel.conf");
        fs::write(&config, sentinel_config(port, primary, &folder))?;
        batch.give(&config)?;
        let args = [&config.display().to_string(), "--sentinel"];
        sentinels.push((port, server(&name, "redis-server", &args, Ending::Kill, batch)?));
    }
    let question = format!("SENTINEL master {MASTER_NAME}\r\n");
    for (port, running) in &mut sentinels {
        running.until(|| {
            let others = format!("num-other-sentinels\r\n$1\r\n{}\r\n", SENTINELS - 1);
            answers(*port, &question, "num-slaves\r\n$1\r\n1\r\n") && answers(*port, &question, &others)
        })?;
    }
    let urls: Vec<String> = sentinels.iter().map(|(port, _)| url("redis", *port)).collect();
    Ok(up(vec![
        ("LARDER_TEST_SENTINEL_URLS", urls.join(",")),
        ("LARDER_TEST_SENTINEL_MASTER", MASTER_NAME.to_owned()),
    ]))
}

/// The replica takes over about two seconds after its master has died.
fn sentinel_config(port: u16, primary: u16, folder: &Path) -> String {
    let folder = folder.display();
    let quorum = SENTINELS / 2 + 1;
    format!(
        "port {port}
bind 127.0.0.1
dir {folder}
logfile \"\"
sentinel monitor {MASTER_NAME} 127.0.0.1 {primary} {quorum}
sentinel down-after-milliseconds {MASTER_NAME} 1000
sentinel failover-timeout {MASTER_NAME} 3000
sentinel parallel-syncs {MASTER_NAME} 1
"
    )
}

/// Starts one server, with these options more.
fn redis_server(name: &str, port: u16, options: &[&str], batch: &Batch) -> io::Result<Running> {
    let port = port.to_string();
    let mut args = vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    // Tests of failures tell a server to sleep and to die. A replica gets its copy without waiting for a second.
    args.extend(["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"]);
    args.extend(options);
    server(name, "redis-server", &args, Ending::Kill, batch)
}

fn is_answering(port: u16) -> bool {
    answers(port, "PING\r\n", "+PONG")
}

fn up(variables: Vec<(&'static str, String)>) -> Up {
    Up { version: version("redis-server", "--version"), variables }
}

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

/// Whether there can be certificates, and Redis was built to use them.
fn has_tls() -> bool {
    // Only one that was built so tells of the option, and some builds tell of it on the other stream.
    let help = program("redis-cli").and_then(|path| Command::new(path).arg("--help").output());
    let tells = |output: &std::process::Output| {
        [&output.stdout, &output.stderr].iter().any(|text| String::from_utf8_lossy(text).contains("--tls"))
    };
    program("openssl").is_ok() && help.is_ok_and(|output| tells(&output))
}

/// Makes `ca.pem`, and `server.pem` with `server.key`, for 127.0.0.1 and localhost, for a week.
fn certificates(folder: &Path, batch: &Batch) -> io::Result<()> {
    const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let extensions =
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n";
    let path = folder.join("extensions");
    fs::write(&path, extensions).map_err(|error| said(&error, &format!("writing {}", path.display())))?;
    let authority = [
        &["req", "-x509", "-days", "7", "-subj", "/CN=larder test authority"][..],
        &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"],
        &["-keyout", "ca.key", "-out", "ca.pem"],
        &NEW_KEY,
    ];
    let request =
        [&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"][..], &NEW_KEY];
    let signature = [
        &["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"][..],
        &["-days", "7", "-extfile", "extensions", "-out", "server.pem"],
    ];
    for args in [authority.concat(), request.concat(), signature.concat()] {
        prepare("redis-tls", "openssl", &args, batch)?;
    }
    Ok(())
}
