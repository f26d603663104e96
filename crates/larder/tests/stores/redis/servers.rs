//! Redis servers that a test may break.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::Duration;

use larder::driver::redis::client;
use larder::driver::redis::{RedisDriver, RedisOptions};

use crate::server::{self, runs};

const PROGRAM: &str = "redis-server";

/// Whether servers are to be started, and can be. Tests that need one end at once if not.
pub(crate) fn is_installed() -> bool {
    std::env::var_os(super::URL).is_some() && runs(PROGRAM)
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
    /// A server with some more arguments, unless none is installed.
    pub(crate) fn start(args: &[&str]) -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let command = |port: u16, directory: &std::path::Path| {
            let mut command = Command::new(PROGRAM);
            command
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .args(args)
                .arg("--dir")
                .arg(directory);
            command
        };
        Some(Self(server::Server::start(command, answers)))
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

/// Whether a server answers, be it that it wants a password first. One that only speaks TLS hangs up, which is an
/// answer as well.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = [0; 16];
    let read = stream.write_all(b"PING\r\n").and_then(|()| stream.read(&mut answer));
    read.is_ok() && !answer.starts_with(b"-LOADING")
}
