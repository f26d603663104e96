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
const SLOTS: usize = 16_384;
/// What sentinels call the server that they watch.
const MASTER_NAME: &str = "larder";

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
    let mut ports = Vec::new();
    for _ in 0..MASTERS * 2 {
        ports.push((batch.port()?, batch.port()?));
    }
    let mut nodes = Vec::new();
    for (index, (port, bus)) in ports.iter().enumerate() {
        let name = format!("cluster-{}", index + 1);
        // They begin as a cluster that has been one before: making one of strangers takes twice as long.
        let config = batch.folder(&name)?.join("nodes.conf");
        write(&config, &cluster_config(&ports, index), batch)?;
        let bus = bus.to_string();
        // A replica takes over two seconds after its master has died.
        let timeout = ["--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1"];
        let options = [&["--cluster-enabled", "yes", "--cluster-port", &bus][..], &timeout].concat();
        nodes.push((*port, redis_server(&name, *port, &options, batch)?));
    }
    for (index, (port, node)) in nodes.iter_mut().enumerate() {
        // A replica is ready when it has copied its master, and a master when one has copied it.
        let link = if index < MASTERS { "state=online" } else { "master_link_status:up" };
        node.until(|| {
            answers(*port, "CLUSTER INFO\r\n", "cluster_state:ok")
                && answers(*port, "INFO replication\r\n", link)
        })?;
    }
    let urls: Vec<String> = nodes.iter().map(|(port, _)| url("redis", *port)).collect();
    Ok(up(vec![("LARDER_TEST_REDIS_CLUSTER_URLS", urls.join(","))]))
}

/// What the node of this index remembers of the cluster: the masters first, then a replica of each.
fn cluster_config(ports: &[(u16, u16)], own: usize) -> String {
    let mut config = String::new();
    for (index, (port, bus)) in ports.iter().enumerate() {
        let myself = if index == own { "myself," } else { "" };
        let (of, master) = (id(index), index % MASTERS);
        let (from, to) = (SLOTS * master / MASTERS, SLOTS * (master + 1) / MASTERS - 1);
        let role = if index < MASTERS {
            format!("master - 0 0 {} connected {from}-{to}", index + 1)
        } else {
            format!("slave {} 0 0 {} connected", id(master), master + 1)
        };
        config += &format!("{of} 127.0.0.1:{port}@{bus} {myself}{role}\n");
    }
    config + &format!("vars currentEpoch {MASTERS} lastVoteEpoch 0\n")
}

/// A server, its replica, and three sentinels of whom two have to agree.
pub(super) fn sentinel(batch: &Batch) -> io::Result<Up> {
    let (primary, replica) = (batch.port()?, batch.port()?);
    redis_server("sentinel-primary", primary, &[], batch)?.until(|| is_answering(primary))?;
    let of = format!("127.0.0.1 {primary}");
    // The replica before the sentinels: they look for replicas when they start, and then every ten seconds.
    redis_server("sentinel-replica", replica, &["--replicaof", &of], batch)?
        .until(|| answers(primary, "INFO replication\r\n", "state=online"))?;
    let ports = [batch.port()?, batch.port()?, batch.port()?];
    let mut sentinels = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let name = format!("sentinel-{}", index + 1);
        let config = batch.folder(&name)?.join("sentinel.conf");
        write(&config, &sentinel_config(primary, &ports, index), batch)?;
        let args = [&config.display().to_string(), "--sentinel"];
        sentinels.push((port, server(&name, "redis-server", &args, Ending::Kill, batch)?));
    }
    let replicas = format!("SENTINEL master {MASTER_NAME}\r\n");
    let quorum = format!("SENTINEL ckquorum {MASTER_NAME}\r\n");
    for (port, running) in &mut sentinels {
        running.until(|| {
            answers(*port, &replicas, "num-slaves\r\n$1\r\n1\r\n") && answers(*port, &quorum, "+OK 3 usable")
        })?;
    }
    Ok(up(vec![
        ("LARDER_TEST_SENTINEL_URLS", ports.map(|port| url("redis", port)).join(",")),
        ("LARDER_TEST_SENTINEL_MASTER", MASTER_NAME.to_owned()),
    ]))
}

/// What the sentinel of this index is told. It knows the others, which it would need two seconds to find. The
/// replica takes over about two seconds after its master has died.
fn sentinel_config(primary: u16, ports: &[u16; 3], own: usize) -> String {
    let mut config = String::from("bind 127.0.0.1\nlogfile \"\"\n");
    config += &format!("sentinel myid {}\n", id(own));
    config += &format!("sentinel monitor {MASTER_NAME} 127.0.0.1 {primary} 2\n");
    for (option, value) in
        [("down-after-milliseconds", 1000), ("failover-timeout", 3000), ("parallel-syncs", 1)]
    {
        config += &format!("sentinel {option} {MASTER_NAME} {value}\n");
    }
    for (index, port) in ports.iter().enumerate() {
        config += &if index == own {
            format!("port {port}\n")
        } else {
            format!("sentinel known-sentinel {MASTER_NAME} 127.0.0.1 {port} {}\n", id(index))
        };
    }
    config
}

/// What Redis calls a node or a sentinel, which chooses at random elsewhere.
fn id(index: usize) -> String {
    format!("{:040x}", index + 1)
}

fn write(path: &Path, text: &str, batch: &Batch) -> io::Result<()> {
    fs::write(path, text).map_err(|error| said(&error, &format!("writing {}", path.display())))?;
    batch.give(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_masters_share_all_slots_and_each_has_a_replica() {
        let ports = [(1, 11), (2, 12), (3, 13), (4, 14), (5, 15), (6, 16)];
        let config = cluster_config(&ports, 4);
        let lines: Vec<&str> = config.lines().collect();
        assert!(lines[0].ends_with("1 127.0.0.1:1@11 master - 0 0 1 connected 0-5460"), "{config}");
        assert!(lines[1].ends_with("2 127.0.0.1:2@12 master - 0 0 2 connected 5461-10921"), "{config}");
        assert!(lines[2].ends_with("3 127.0.0.1:3@13 master - 0 0 3 connected 10922-16383"), "{config}");
        let replica = format!("{} 127.0.0.1:5@15 myself,slave {} 0 0 2 connected", id(4), id(1));
        assert_eq!(lines[4], replica);
        assert_eq!(lines[6..], ["vars currentEpoch 3 lastVoteEpoch 0"]);
    }

    #[test]
    fn a_sentinel_knows_the_others_and_not_itself() {
        let config = sentinel_config(5, &[7, 8, 9], 1);
        assert!(config.contains("\nport 8\n") && config.contains(&format!("myid {}\n", id(1))), "{config}");
        assert_eq!(config.matches("known-sentinel").count(), 2);
        assert!(!config.contains("127.0.0.1 8"), "{config}");
    }
}
