//! memcached servers that a test may break.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::Duration;

use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};

use crate::server::{self, runs};

const PROGRAM: &str = "memcached";

/// Whether servers are to be started, and can be. Tests that need one end at once if not.
pub(crate) fn is_installed() -> bool {
    std::env::var_os(super::URLS).is_some() && runs(PROGRAM)
}

/// A running server.
pub(crate) struct Server(server::Server);

impl Deref for Server {
    type Target = server::Server;

    fn deref(&self) -> &server::Server {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut server::Server {
        &mut self.0
    }
}

impl Server {
    /// A server with some more arguments, unless none is installed. `{}` in them is its folder.
    pub(crate) fn start(args: &[&str]) -> Option<Self> {
        Self::start_with(args, answers)
    }

    pub(crate) fn start_with(args: &[&str], answers: impl Fn(u16) -> bool + Send + 'static) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let command = |port: u16, directory: &std::path::Path| {
            let mut command = Command::new(PROGRAM);
            // It refuses to be root without being told who else to be; to anybody else the option means nothing.
            command.args(["-u", "root", "-U", "0", "-p", &port.to_string(), "-l", "127.0.0.1"]);
            command.args(args.iter().map(|arg| arg.replace("{}", &directory.display().to_string())));
            command
        };
        Some(Self(server::Server::start(command, answers)))
    }

    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// With little patience.
    pub(crate) fn options(&self) -> MemcachedOptions {
        let mut options = MemcachedOptions::new(&format!("memcached://{}", self.host())).unwrap();
        options.connect_timeout = Duration::from_millis(300);
        options.response_timeout = Duration::from_millis(300);
        options
    }

    pub(crate) async fn driver(&self) -> MemcachedDriver {
        MemcachedDriver::connect(self.options()).await.unwrap()
    }

    /// What the server answers to some lines, over a connection of its own.
    pub(crate) fn say(&self, lines: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(lines).unwrap();
        stream.write_all(b"quit\r\n").unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    }
}

/// Whether a server answers, be it that it wants a password first.
pub(crate) fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.write_all(b"version\r\n").and_then(|()| stream.read(&mut [0; 16])).is_ok_and(|read| read > 0)
}
