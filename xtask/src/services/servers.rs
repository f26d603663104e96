//! Each service: what it is started with, and when it is ready. All listen on 127.0.0.1 only, keep nothing, and
//! are as quick to start as they can be made.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::args::Service;
use super::batch::{Batch, Launch, Running};
use super::install::program;
use super::process::Ending;
use super::state::Role;

const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// A service that answers.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) version: String,
    /// Where it is, as names and values for an environment.
    pub(crate) variables: Vec<(String, String)>,
}

/// Starts a service, and waits until it is ready.
///
/// # Errors
/// A program is missing, ended, or does not answer.
pub(crate) fn start(service: Service, home: &Path, batch: &Batch) -> io::Result<Up> {
    match service {
        Service::Redis => redis(batch),
        _ => Err(io::Error::other(format!(
            "starting {} for {} is not written yet",
            service.name(),
            home.display()
        ))),
    }
}

fn redis(batch: &Batch) -> io::Result<Up> {
    let port = batch.port()?;
    redis_server("redis", port, &[], batch)?.until(|| answers(port, "PING\r\n", "+PONG"))?;
    Ok(Up {
        version: version("redis-server", "--version"),
        variables: vec![("LARDER_TEST_REDIS_URL".to_owned(), format!("redis://127.0.0.1:{port}"))],
    })
}

/// Starts one server of Redis, with these options more.
fn redis_server(name: &str, port: u16, options: &[&str], batch: &Batch) -> io::Result<Running> {
    let port = port.to_string();
    let mut args = vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    // Tests of failures tell a server to sleep and to die.
    args.extend(["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"]);
    args.extend(options);
    server(name, "redis-server", &args, Ending::Kill, batch)
}

fn server(name: &str, binary: &str, args: &[&str], ending: Ending, batch: &Batch) -> io::Result<Running> {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let program = program(binary)?;
    batch.launch(&Launch { name, program: &program, args: &args, role: Role::Server, ending, is_ours: false })
}

/// Whether a server's answer to a question contains this.
fn answers(port: u16, question: &str, part: &str) -> bool {
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
fn version(binary: &str, option: &str) -> String {
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
}
