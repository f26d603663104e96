//! Database servers that a test may break, each with a user `larder` whose password is `larder`.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder::driver::sql::{SqlDriver, SqlOptions};
use larder::time::{Clock as _, SystemClock, seconds};

use super::Subject;
use crate::server;

/// Prepares a folder for a server that listens on a port, and says what starts it.
pub(crate) type Make = fn(u16, &Path) -> Command;

/// Whether servers are to be started, and can be. Tests that need one end at once if not.
pub(crate) fn is_installed<D: Subject>() -> bool {
    std::env::var_os(D::URL).is_some() && program(D::PROGRAM).is_some()
}

/// Where a program is. Debian keeps some out of everyone's way.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = std::env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .chain(versions.map(|version| version.path().join("bin")));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A command in a folder, as somebody who may run a database server: not as root.
fn command(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name).unwrap());
    command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let nobody = users.lines().find(|line| line.starts_with("nobody:")).unwrap();
        let mut numbers = nobody.split(':').skip(2).map(|number| number.parse::<u32>().unwrap());
        let (user, group) = (numbers.next().unwrap(), numbers.next().unwrap());
        chown(folder, Some(user), Some(group)).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            chown(entry.unwrap().path(), Some(user), Some(group)).unwrap();
        }
        command.uid(user).gid(group);
    }
    command
}

fn run(mut command: Command) {
    let output = command.stderr(Stdio::piped()).stdout(Stdio::piped()).output().unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

/// A certificate of an authority (`ca.pem`), and one for `db.example` alone, with its key.
fn certificates(folder: &Path) {
    let request = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args(arguments);
        openssl.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        run(openssl);
    };
    request(&["-subj", "/CN=larder tests", "-keyout", "ca.key", "-out", "ca.pem"]);
    let leaf = ["-subj", "/CN=db.example", "-addext", "subjectAltName=DNS:db.example"];
    let signed = ["-addext", "basicConstraints=critical,CA:FALSE", "-CA", "ca.pem", "-CAkey", "ca.key"];
    request(&[&leaf[..], &signed, &["-keyout", "db.key", "-out", "db.pem"]].concat());
}

#[cfg(feature = "postgres")]
pub(crate) fn postgres(port: u16, folder: &Path) -> Command {
    certificates(folder);
    fs::write(folder.join("password"), "larder").unwrap();
    let mut initdb = command("initdb", folder);
    initdb.args(["-D", "database", "-U", "larder", "-A", "scram-sha-256", "--pwfile", "password"]);
    initdb.args(["-E", "UTF8", "--no-locale", "--no-sync"]);
    run(initdb);
    let mut postgres = command("postgres", folder);
    postgres.args(["-D", "database", "-p", &port.to_string()]);
    postgres.args(["-c", &format!("unix_socket_directories={}", folder.display())]);
    for setting in [
        "listen_addresses=127.0.0.1",
        "fsync=off",
        "max_connections=30",
        "shared_buffers=16MB",
        "ssl=on",
        "ssl_cert_file=../db.pem",
        "ssl_key_file=../db.key",
    ] {
        postgres.args(["-c", setting]);
    }
    postgres
}

#[cfg(feature = "mysql")]
pub(crate) fn mariadb(port: u16, folder: &Path) -> Command {
    const SETUP: &str = "CREATE DATABASE IF NOT EXISTS larder;
CREATE USER IF NOT EXISTS 'larder'@'%' IDENTIFIED BY 'larder';
GRANT ALL ON *.* TO 'larder'@'%' WITH GRANT OPTION;
";
    const SMALL: [&str; 3] =
        ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=4M"];
    certificates(folder);
    fs::write(folder.join("setup.sql"), SETUP).unwrap();
    let named = |option: &str, file: &str| format!("{option}={}", folder.join(file).display());
    let database = named("--datadir", "database");
    let mut install = command("mariadb-install-db", folder);
    install.args(["--no-defaults", &database, "--auth-root-authentication-method=normal", "--skip-test-db"]);
    install.args(SMALL);
    run(install);
    let mut mariadbd = command("mariadbd", folder);
    mariadbd.args(["--no-defaults", &database, &named("--socket", "socket"), &named("--pid-file", "pid")]);
    mariadbd.args([
        &named("--init-file", "setup.sql"),
        "--bind-address=127.0.0.1",
        &format!("--port={port}"),
    ]);
    mariadbd
        .args(["--skip-log-bin", "--innodb-buffer-pool-size=16M", "--performance-schema=off"])
        .args(SMALL);
    mariadbd.args([named("--ssl-cert", "db.pem"), named("--ssl-key", "db.key")]);
    mariadbd
}

/// A running server.
pub(crate) struct Server<D: Subject> {
    server: server::Server,
    /// As the user who may do everything.
    pub(crate) options: SqlOptions<D>,
}

impl<D: Subject> Deref for Server<D> {
    type Target = server::Server;

    fn deref(&self) -> &server::Server {
        &self.server
    }
}

impl<D: Subject> DerefMut for Server<D> {
    fn deref_mut(&mut self) -> &mut server::Server {
        &mut self.server
    }
}

impl<D: Subject> Server<D> {
    /// A server, unless none is installed.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed::<D>() {
            return None;
        }
        let server = server::Server::start(D::MAKE, answers);
        let mut options = SqlOptions::<D>::at("127.0.0.1", server.port);
        options.username = Some("larder".to_owned());
        options.password = Some("larder".to_owned());
        options.database = Some(if D::NAME == "mysql" { "larder" } else { "postgres" }.to_owned());
        let server = Self { server, options };
        server.driver().await.close_gently().await;
        Some(server)
    }

    /// The same by the socket in the server's folder.
    pub(crate) fn by_socket(&self) -> SqlOptions<D> {
        let folder = self.directory.path().display();
        let said = match D::NAME {
            "mysql" => format!("mysql://h/larder?socket={folder}/socket"),
            _ => format!("postgres://h:{}/postgres?host={folder}", self.port),
        };
        let mut options = SqlOptions::<D>::new(&said).unwrap();
        options.username = Some("larder".to_owned());
        options.password = Some("larder".to_owned());
        options
    }

    /// A driver with a pool of its own, once the server takes connections.
    pub(crate) async fn driver(&self) -> SqlDriver<D> {
        let begun = SystemClock::default();
        loop {
            match SqlDriver::connect(self.options.clone()).await {
                Ok(driver) => return driver,
                Err(error) => assert!(begun.monotonic() < seconds(20), "{error}"),
            }
        }
    }
}

trait CloseGently {
    async fn close_gently(self);
}

impl<D: Subject> CloseGently for SqlDriver<D> {
    async fn close_gently(self) {
        larder::driver::Driver::close(&self).await.unwrap();
    }
}

fn answers(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}
