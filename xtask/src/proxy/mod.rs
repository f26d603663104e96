//! A proxy under test: started on a free port before an origin, waited for, measured, and ended whatever becomes of the
//! test. Knows nothing of what is asked of it.

mod known;
mod usage;

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use known::{Kind, Place, larder};
pub(crate) use usage::{is_seen, usage};

/// How long a proxy may take until it accepts a connection.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to end after it was asked.
const FAREWELL: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Below the ports that systems give to outgoing connections: none of them can take one between our look and the
/// server's.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const LOG_LINES: usize = 15;

/// A proxy that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// Starts a proxy, and waits until it accepts connections.
    ///
    /// # Errors
    /// It cannot be started, ended, or does not listen in time: with the end of what it said.
    pub(crate) fn start(kind: &Kind, place: &Place<'_>) -> io::Result<Self> {
        let mut command = kind.command(place)?;
        let log = place.scratch.join("proxy.log");
        let output = File::options().append(true).create(true).open(&log)?;
        crate::forget_cargo(&mut command);
        // It stays in our group, so that Ctrl-C reaches it too.
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn();
        let child = child.map_err(|error| io::Error::other(format!("starting {kind} failed: {error}")))?;
        let mut proxy = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, place.port)) };
        let deadline = now() + PATIENCE;
        while TcpStream::connect(proxy.address).is_err() {
            if let Some(status) = proxy.child.try_wait()? {
                return Err(failed(kind, &format!("ended before it listened ({status})"), &log));
            }
            if now() >= deadline {
                return Err(failed(kind, &format!("did not listen within {PATIENCE:?}"), &log));
            }
            thread::sleep(POLL);
        }
        Ok(proxy)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would: it hears nothing of it.
    ///
    /// # Errors
    /// It is still there.
    pub(crate) fn crash(mut self) -> io::Result<()> {
        let family = usage::family(self.pid());
        self.child.kill()?;
        self.child.wait()?;
        // What it has started would otherwise go on to listen.
        signal("KILL", family.into_iter().filter(|pid| *pid != self.child.id()));
        Ok(())
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Asks a process to end, and waits until it has; it is killed if it does not want to.
pub(crate) fn end(child: &mut Child) {
    let has_ended = |child: &mut Child| matches!(child.try_wait(), Ok(Some(_)));
    if has_ended(child) {
        return;
    }
    signal("TERM", [child.id()]);
    let deadline = now() + FAREWELL;
    while !has_ended(child) && now() < deadline {
        thread::sleep(POLL);
    }
    // It has ended already, or it is ended now.
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends a signal. That somebody is gone already is no failure.
fn signal(name: &str, pids: impl IntoIterator<Item = u32>) {
    for pid in pids {
        // The shell has `kill` built in; a bare Debian has no other.
        let args = ["-c", "kill -s \"$0\" -- \"$1\"", name, &pid.to_string()];
        let _ = Command::new("sh").args(args).stdin(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn failed(kind: &Kind, what: &str, log: &Path) -> io::Error {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    io::Error::other(format!("{kind} {what}\n{}", end.join("\n")))
}

/// A port that nobody listens on.
///
/// # Errors
/// There is none.
pub(crate) fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Who runs at the same time has a number beside ours, and begins elsewhere.
    let first = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(count)).unwrap_or(0);
    for _ in PORTS {
        let next = u32::from(first) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + u16::try_from(next % u32::from(count)).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other(format!("finding a free port in {PORTS:?} failed")))
}

/// A temporary folder, in memory where there is one. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = parent.join(format!("larder-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in a temporary folder.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[expect(clippy::disallowed_methods, reason = "real proxies take real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_given_out_twice() {
        assert_ne!(free_port().unwrap(), free_port().unwrap());
    }

    #[test]
    fn a_proxy_that_ends_at_once_is_reported_with_what_it_said() {
        let scratch = Scratch::new("test-ends").unwrap();
        let place = Place::new(scratch.path(), free_port().unwrap(), 1);
        let error = Proxy::start(&Kind::Command("sh -c 'echo no such origin; exit 3'".to_owned()), &place);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("ended before it listened") && error.contains("no such origin"), "{error}");
    }
}
