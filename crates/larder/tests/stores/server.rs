//! Servers that a test may break: started on a free port in a folder of their own, and gone with the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder::time::{Clock as _, SystemClock};

/// Whether a program can be started at all.
pub(crate) fn runs(program: &str) -> bool {
    let started = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    started.is_ok_and(|status| status.success())
}

/// A port that nobody listens on, and that no other test of this process was given. A node of a Redis cluster takes the
/// one 10 000 above as well, which has to stay below those that outgoing connections get.
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
    command: Command,
    answers: Box<dyn Fn(u16) -> bool + Send>,
    pub(crate) port: u16,
    pub(crate) directory: tempfile::TempDir,
}

impl Server {
    /// A server on a free port, with a folder of its own, once it answers. `command` makes what starts it of the
    /// port and the folder.
    pub(crate) fn start(
        command: impl FnOnce(u16, &Path) -> Command,
        answers: impl Fn(u16) -> bool + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = command(port, directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let mut server = Self { child, command, answers: Box::new(answers), port, directory };
        server.wait();
        server
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has the server end itself, and waits for that.
    pub(crate) fn end(&mut self, signal: &str) {
        self.signal(signal);
        let _ = self.child.wait();
    }

    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = self.command.spawn().unwrap();
        self.wait();
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn wait(&mut self) {
        let begun = SystemClock::default();
        let port = self.port;
        while !(self.answers)(port) {
            assert!(begun.monotonic() < Duration::from_secs(20), "the server on port {port} did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "somebody else answers on port {port}: {ended:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
