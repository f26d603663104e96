//! A TCP proxy that fails on command, to stand between a driver and a real server.
//!
//! It runs on threads of its own, so it goes on when the runtime under test does not. It knows nothing of what is
//! said through it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What a [`Proxy`] does to the answers of the server. Requests always pass, so that a server may have done what
/// nobody heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Every connection is closed, and every new one as soon as it is made.
    Gone,
    /// Answers are held back, and arrive when this ends.
    Silent,
    /// Each piece of an answer arrives this much later.
    Late(Duration),
    /// Each connection is closed after so many more bytes of answers.
    CutAfter(usize),
    /// In each connection one bit of one byte of the answers is turned, after so many that are left alone.
    Corrupt(usize),
}

/// A TCP proxy before a server, on a port of its own. Told nothing, it is transparent. Dropping it closes every
/// connection through it.
///
/// ```
/// use larder::testing::{Fault, Proxy};
/// # let server = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let proxy = Proxy::before(server.local_addr()?)?;
/// let _connected = std::net::TcpStream::connect(proxy.address())?;
/// proxy.set(Fault::Gone); // from here on the server is not there
/// proxy.set(Fault::None); // and now it is back
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    /// How often the fault was set; what is counted in bytes begins anew each time.
    epoch: u64,
    is_closed: bool,
    /// Both ends of each connection that may be open, so that it can be closed from here.
    open: Vec<(u64, TcpStream, TcpStream)>,
    accepted: u64,
}

impl Proxy {
    /// A proxy on a free port of this machine.
    ///
    /// # Errors
    /// No port can be had.
    pub fn before(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { server, state: Mutex::default(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.state().is_closed {
                    return;
                }
                // A client that has gone already, or a server that is not there: nothing to stand between.
                let _ = client.and_then(|client| accepting.connect(client));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does from now on, to the connections that are open as well.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state();
        state.fault = fault;
        state.epoch += 1;
        if fault == Fault::Gone {
            state.close_all();
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// How many connections were made to it.
    pub fn accepted(&self) -> u64 {
        self.shared.state().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        state.close_all();
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn close_all(&mut self) {
        for (_, client, server) in self.open.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let id = {
            let mut state = self.state();
            state.accepted += 1;
            if state.fault == Fault::Gone {
                return Ok(());
            }
            state.accepted
        };
        let server = TcpStream::connect(self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        let ends = (client.try_clone()?, server.try_clone()?);
        {
            let mut state = self.state();
            if state.fault == Fault::Gone || state.is_closed {
                return Ok(());
            }
            state.open.push((id, ends.0, ends.1));
        }
        let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let _ = io::copy(&mut &requests, &mut &to_server);
            let _ = to_server.shutdown(Shutdown::Write);
            drop(shared);
        });
        let shared = Arc::clone(self);
        thread::spawn(move || {
            // Whatever ends it, the other side has to hear of it.
            let _ = shared.answers(&server, &client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
            shared.state().open.retain(|(open, ..)| *open != id);
        });
        Ok(())
    }

    /// Carries answers until either side ends, doing to them what the fault of the moment says.
    fn answers(&self, mut server: &TcpStream, mut client: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        let (mut epoch, mut passed) = (self.state().epoch, 0_usize);
        loop {
            let read = server.read(&mut buffer)?;
            let Some(piece) = buffer.get_mut(..read).filter(|piece| !piece.is_empty()) else { return Ok(()) };
            let (fault, now) = self.fault_now();
            if now != epoch {
                (epoch, passed) = (now, 0);
            }
            let before = passed;
            passed = before.saturating_add(read);
            match fault {
                Fault::None | Fault::Silent | Fault::Gone => {}
                Fault::Late(by) => thread::sleep(by),
                Fault::CutAfter(bytes) => {
                    if passed > bytes {
                        let rest = bytes.saturating_sub(before);
                        return client.write_all(piece.get(..rest).unwrap_or_default());
                    }
                }
                Fault::Corrupt(after) => {
                    if let Some(byte) = after.checked_sub(before).and_then(|at| piece.get_mut(at)) {
                        *byte ^= 1 << (after % 8);
                    }
                }
            }
            client.write_all(piece)?;
        }
    }

    /// The fault of the moment, once it is not silence.
    fn fault_now(&self) -> (Fault, u64) {
        let silent = |state: &mut State| state.fault == Fault::Silent && !state.is_closed;
        let state = self.changed.wait_while(self.state(), silent).unwrap_or_else(PoisonError::into_inner);
        (state.fault, state.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says back what it hears.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                thread::spawn(move || io::copy(&mut &client, &mut &client));
            }
        });
        address
    }

    fn said_back(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(text)?;
        let mut heard = vec![0; text.len()];
        let mut got = 0;
        while let Some(rest) = heard.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match stream.read(rest)? {
                0 => break,
                read => got += read,
            }
        }
        heard.truncate(got);
        Ok(heard)
    }

    #[test]
    fn each_fault_does_what_it_says_and_ends() {
        let proxy = Proxy::before(echo()).unwrap();
        let connect = || TcpStream::connect(proxy.address()).unwrap();
        let mut stream = connect();
        assert_eq!(said_back(&mut stream, b"hello").unwrap(), b"hello");

        proxy.set(Fault::Corrupt(2));
        assert_eq!(said_back(&mut stream, b"hello").unwrap(), b"hehlo");
        assert_eq!(said_back(&mut stream, b"hello").unwrap(), b"hello", "one bit, once");

        proxy.set(Fault::Silent);
        assert!(said_back(&mut stream, b"late").is_err());
        proxy.set(Fault::None);
        assert_eq!(said_back(&mut stream, b"next").unwrap(), b"late", "what was held arrives first");

        proxy.set(Fault::Late(Duration::from_millis(300)));
        assert!(said_back(&mut connect(), b"hello").is_err());

        proxy.set(Fault::CutAfter(3));
        assert_eq!(said_back(&mut connect(), b"hello").unwrap(), b"hel");

        proxy.set(Fault::Gone);
        assert!(said_back(&mut connect(), b"hello").unwrap_or_default().is_empty());
        proxy.set(Fault::None);
        assert_eq!(said_back(&mut connect(), b"hello").unwrap(), b"hello");
    }
}
