//! Servers that a test may break: started on a free port in a folder of their own, and gone with the test.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::driver::redis::client;
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder::time::{Clock as _, SystemClock};

const PROGRAM: &str = "redis-server";

/// Whether servers are to be started, and can be. Tests that need one end at once if not.
pub(crate) fn is_installed() -> bool {
    std::env::var_os(crate::URL).is_some() && runs(PROGRAM)
}

/// Whether a program can be started at all.
pub(crate) fn runs(program: &str) -> bool {
    let started = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok_and(|status| status.success())
}

/// A port that nobody listens on, and that no other test of this process was given. A node of a cluster takes the one
/// 10 000 above as well, which has to stay below those that outgoing connections get.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 37;
        let port = u16::try_from(11_000 + next % 10_000).unwrap();
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    args: Vec<String>,
    pub(crate) port: u16,
    pub(crate) directory: tempfile::TempDir,
}

impl Server {
    /// A server with some more arguments, unless none is installed.
    pub(crate) fn start(args: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--dir".to_owned(), directory.path().display().to_string()]);
        let port = free_port();
        let mut server = Self { child: spawn(port, &args), args, port, directory };
        server.wait();
        Some(server)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.args);
        self.wait();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn wait(&mut self) {
        let begun = SystemClock::default();
        while !answers(self.port) {
            assert!(
                begun.monotonic() < Duration::from_secs(20),
                "the server on port {} did not start",
                self.port
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "somebody else answers on port {}: {ended:?}", self.port);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions::new(&self.url()).unwrap()
    }

    pub(crate) async fn driver(&self) -> RedisDriver {
        RedisDriver::connect(self.options()).await.unwrap()
    }

    /// Runs a command over a connection of its own.
    pub(crate) async fn say(&self, words: &[&str]) {
        let client = client::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = client::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query_async::<client::Value>(&mut connection).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(port: u16, args: &[String]) -> Child {
    Command::new(PROGRAM)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Whether a server answers, be it that it wants a password first. One that only speaks TLS hangs up, which is an
/// answer as well.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0; 16];
    let read = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer));
    read.is_ok() && !answer.starts_with(b"-LOADING")
}
