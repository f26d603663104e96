//! Each service: what it is started with, and when it is ready. All listen on 127.0.0.1 only, keep nothing, and
//! are as quick to start as they can be made.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::args::Service;
use super::batch::{Batch, Launch, Running, said};
use super::install::program;
use super::process::Ending;
use super::redis;
use super::state::Role;

const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a preparation may take.
const PATIENCE: Duration = Duration::from_secs(60);
const MEMCACHED: usize = 2;
/// The version of the server that speaks as DynamoDB does.
const DYNALITE: &str = "4.0.0";

/// A service that answers.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) version: String,
    /// Where it is, as names and values for an environment.
    pub(crate) variables: Vec<(&'static str, String)>,
}

/// Starts a service, and waits until it is ready. What has to be fetched is kept in `home`.
///
/// # Errors
/// A program is missing, ended, or does not answer.
pub(crate) fn start(service: Service, home: &Path, batch: &Batch) -> io::Result<Up> {
    match service {
        Service::Redis => redis::single(batch),
        Service::Cluster => redis::cluster(batch),
        Service::Sentinel => redis::sentinel(batch),
        Service::Memcached => memcached(batch),
        Service::Postgres => postgres(batch),
        Service::Mysql => mariadb(batch),
        Service::Dynamodb => dynalite(home, batch),
    }
}

fn memcached(batch: &Batch) -> io::Result<Up> {
    let mut urls = Vec::new();
    for number in 1..=MEMCACHED {
        let port = batch.port()?;
        let text = port.to_string();
        let args = ["-l", "127.0.0.1", "-p", &text, "-U", "0", "-m", "64", "-t", "2"];
        server(&format!("memcached-{number}"), "memcached", &args, Ending::Kill, batch)?
            .until(|| answers(port, "version\r\n", "VERSION"))?;
        urls.push(format!("memcached://127.0.0.1:{port}"));
    }
    let variables = vec![("LARDER_TEST_MEMCACHED_URLS", urls.join(","))];
    Ok(Up { version: version("memcached", "--version"), variables })
}

fn postgres(batch: &Batch) -> io::Result<Up> {
    let port = batch.port()?.to_string();
    let database = batch.folder("postgres")?.join("database").display().to_string();
    let args = ["-D", &database, "-U", "larder", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"];
    prepare("postgres-initdb", "initdb", &args, batch)?;
    let mut args = vec!["-D", &database, "-p", &port];
    for setting in [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "synchronous_commit=off",
        "full_page_writes=off",
        "max_connections=200",
        "shared_buffers=32MB",
    ] {
        args.extend(["-c", setting]);
    }
    let mut running = server("postgres", "postgres", &args, Ending::Quit, batch)?;
    let probe = program("pg_isready")?;
    running.until(|| succeeds(&probe, &["-q", "-h", "127.0.0.1", "-p", &port]))?;
    let variables =
        vec![("LARDER_TEST_POSTGRES_URL", format!("postgres://larder@127.0.0.1:{port}/postgres"))];
    Ok(Up { version: version("postgres", "--version"), variables })
}

fn mariadb(batch: &Batch) -> io::Result<Up> {
    const SETUP: &str = "CREATE DATABASE larder;
CREATE USER 'larder'@'%' IDENTIFIED BY 'larder';
GRANT ALL ON *.* TO 'larder'@'%';
";
    // For the preparation and the server alike: small files, and no wait for a disk.
    const SMALL: [&str; 3] =
        ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=4M"];
    let port = batch.port()?.to_string();
    let folder = batch.folder("mysql")?;
    let named = |option: &str, file: &str| format!("{option}={}", folder.join(file).display());
    let (database, socket) = (named("--datadir", "database"), named("--socket", "socket"));
    let args = ["--no-defaults", &database, "--auth-root-authentication-method=normal", "--skip-test-db"];
    prepare("mysql-install", "mariadb-install-db", &[&args[..], &SMALL].concat(), batch)?;
    let setup = folder.join("setup.sql");
    fs::write(&setup, SETUP).map_err(|error| said(&error, &format!("writing {}", setup.display())))?;
    let (setup, pid) = (named("--init-file", "setup.sql"), named("--pid-file", "pid"));
    let port_option = format!("--port={port}");
    let files = ["--no-defaults", &database, &socket, &setup, &pid, "--bind-address=127.0.0.1", &port_option];
    let lean = ["--skip-log-bin", "--innodb-buffer-pool-size=32M", "--performance-schema=off"];
    let args = [&files[..], &SMALL, &lean, &["--max-connections=200"]].concat();
    let mut running = server("mysql", "mariadbd", &args, Ending::Kill, batch)?;
    let probe = program("mariadb")?;
    let user = ["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", "larder", "-plarder"];
    let question = [&user[..], &["-e", "select 1", "larder"]].concat();
    running.until(|| succeeds(&probe, &question))?;
    let variables = vec![("LARDER_TEST_MYSQL_URL", format!("mysql://larder:larder@127.0.0.1:{port}/larder"))];
    Ok(Up { version: version("mariadbd", "--version"), variables })
}

fn dynalite(home: &Path, batch: &Batch) -> io::Result<Up> {
    let modules = batch.folder("dynamodb")?.join("node_modules");
    // A copy: servers may not be allowed to enter the folders that the fetched one is in.
    copy(&fetched_dynalite(home, batch)?, &modules, batch)?;
    let port = batch.port()?;
    let (text, script) = (port.to_string(), modules.join("dynalite/cli.js").display().to_string());
    let mut args = vec![script.as_str(), "--host", "127.0.0.1", "--port", &text];
    for wait in ["--createTableMs", "--deleteTableMs", "--updateTableMs"] {
        args.extend([wait, "20"]);
    }
    let question = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    server("dynamodb", "node", &args, Ending::Kill, batch)?.until(|| answers(port, question, "HTTP/1.1 "))?;
    let variables = vec![("LARDER_TEST_DYNAMODB_ENDPOINT", format!("http://127.0.0.1:{port}"))];
    Ok(Up { version: format!("dynalite {DYNALITE}"), variables })
}

/// Where dynalite is, with what it needs; it is fetched once.
fn fetched_dynalite(home: &Path, batch: &Batch) -> io::Result<PathBuf> {
    let kept = home.join(format!("dynalite-{DYNALITE}"));
    if kept.is_dir() {
        return Ok(kept);
    }
    let package = format!("dynalite@{DYNALITE}");
    // No script of a package is run: what is compiled is optional. By default npm is silent for minutes about a
    // registry that it cannot reach.
    let options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-update-notifier"];
    let network = ["--fetch-retries=1", "--fetch-timeout=20000"];
    let args = [&["install", "--prefix", ".", &package][..], &options, &network].concat();
    fetch("dynamodb-npm", "npm", &args, batch)?;
    let copied = home.join(format!("dynalite-{DYNALITE}.{}", std::process::id()));
    copy(&batch.folder("dynamodb-npm")?.join("node_modules"), &copied, batch)?;
    match fs::rename(&copied, &kept) {
        // Somebody else has fetched it meanwhile.
        Err(_) if kept.is_dir() => fs::remove_dir_all(&copied).map(|()| kept),
        outcome => outcome.map(|()| kept),
    }
}

fn copy(from: &Path, to: &Path, batch: &Batch) -> io::Result<()> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    fetch("dynamodb-copy", "cp", &["-R", &from, &to], batch)
}

/// Starts a server.
pub(super) fn server(
    name: &str,
    binary: &str,
    args: &[&str],
    ending: Ending,
    batch: &Batch,
) -> io::Result<Running> {
    let (program, args) = (program(binary)?, owned(args));
    batch.launch(&Launch { name, program: &program, args: &args, role: Role::Server, ending, is_ours: false })
}

/// Runs a preparation to its end, as the user that the servers are.
pub(super) fn prepare(name: &str, binary: &str, args: &[&str], batch: &Batch) -> io::Result<()> {
    passing(name, binary, args, false, batch)
}

/// Runs a preparation to its end, as who we are.
fn fetch(name: &str, binary: &str, args: &[&str], batch: &Batch) -> io::Result<()> {
    passing(name, binary, args, true, batch)
}

fn passing(name: &str, binary: &str, args: &[&str], is_ours: bool, batch: &Batch) -> io::Result<()> {
    let (program, args) = (program(binary)?, owned(args));
    let (role, ending) = (Role::Passing, Ending::Kill);
    batch.launch(&Launch { name, program: &program, args: &args, role, ending, is_ours })?.finish(PATIENCE)
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|&arg| arg.to_owned()).collect()
}

fn succeeds(program: &Path, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether a server's answer to a question contains this.
pub(super) fn answers(port: u16, question: &str, part: &str) -> bool {
    ask(port, question, part).is_ok_and(|answer| answer.contains(part))
}

/// What a server answers, up to this part, or as far as it comes in time.
fn ask(port: u16, question: &str, part: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ASK_TIMEOUT)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT))?;
    stream.set_write_timeout(Some(ASK_TIMEOUT))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&answer).contains(part) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend(buffer.iter().take(read)),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The version that a program tells of itself.
pub(super) fn version(binary: &str, option: &str) -> String {
    let output = program(binary).and_then(|path| Command::new(path).arg(option).output());
    output.map_or_else(|_| String::new(), |output| version_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The first word that looks like a version: `7.0.15` in `Redis server v=7.0.15 sha=0`.
fn version_in(text: &str) -> String {
    let words = text.split_whitespace().map(|word| word.trim_start_matches("v="));
    let mut versions =
        words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    versions.next().unwrap_or("of unknown version").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        let cases = [
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", "7.0.15"),
            ("memcached 1.6.18", "1.6.18"),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
            ("mariadbd  Ver 10.11.14-MariaDB-0+deb12u2 for debian-linux-gnu", "10.11.14-MariaDB-0+deb12u2"),
            ("hello", "of unknown version"),
        ];
        for (said, expected) in cases {
            assert_eq!(version_in(said), expected);
        }
    }

    #[test]
    fn an_answer_counts_when_it_is_the_one_and_however_it_comes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            for parts in [["+PO", "NG\r\n"], ["-LOADING", "\r\n"]] {
                let (mut stream, _) = listener.accept().unwrap();
                for part in parts {
                    stream.write_all(part.as_bytes()).unwrap();
                    stream.flush().unwrap();
                }
            }
        });
        assert!(answers(port, "PING\r\n", "+PONG"));
        assert!(!answers(port, "PING\r\n", "+PONG"));
        server.join().unwrap();
        assert!(!answers(port, "PING\r\n", "+PONG"), "nobody listens any more");
    }
}
