//! The server that is attacked, an origin that does what a test says, and a client that says what a test says.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{Room, until};

/// How long anybody waits for a byte before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request as an origin saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn method(&self) -> &str {
        self.line().split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.line().split(' ').nth(1).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// A server that hands each request to a script.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// Answers with these bytes, and keeps the connection.
    pub(crate) fn saying(script: impl Fn(&Seen) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::doing(move |seen, stream| stream.write_all(&script(seen)).is_ok())
    }

    /// Does what the script does; the connection is closed if that says false.
    pub(crate) fn doing(script: impl Fn(&Seen, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, all) = (Arc::new(script), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, all) = (Arc::clone(&script), Arc::clone(&all));
                thread::spawn(move || {
                    let mut incoming = BufReader::new(stream);
                    while let Some((head, body)) = message(&mut incoming, false) {
                        let seen = Seen { head, body: body.unwrap_or_default() };
                        all.lock().unwrap().push(seen.clone());
                        if !script(&seen, incoming.get_mut()) {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// All that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }
}

/// A response with its length. Each of `fields` ends with CR LF.
pub(crate) fn answer(status: u16, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut all =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).into_bytes();
    all.extend_from_slice(body);
    all
}

/// A response that anybody may keep for a minute.
pub(crate) fn fresh(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer(200, "Cache-Control: max-age=60\r\n", body)
}

/// Head and body of the next message. `None` if there is none; no body if it broke off.
fn message(
    incoming: &mut BufReader<impl Read>,
    ends_with_connection: bool,
) -> Option<(String, Option<Vec<u8>>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if incoming.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut body = Vec::new();
    let bodiless = ["HTTP/1.1 1", "HTTP/1.1 204", "HTTP/1.1 304"];
    let is_whole = if bodiless.iter().any(|begin| head.starts_with(begin)) {
        true
    } else if field(&head, "transfer-encoding").is_some() {
        chunks(incoming, &mut body).is_some()
    } else if let Some(length) = field(&head, "content-length") {
        let length: u64 = length.parse().unwrap();
        matches!(incoming.take(length).read_to_end(&mut body), Ok(read) if read as u64 == length)
    } else if ends_with_connection {
        incoming.read_to_end(&mut body).is_ok()
    } else {
        true
    };
    Some((head, is_whole.then_some(body)))
}

fn chunks(incoming: &mut BufReader<impl Read>, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        incoming.read_line(&mut line).ok()?;
        let length = u64::from_str_radix(line.trim(), 16).ok()?;
        if length == 0 {
            while !line.trim().is_empty() {
                line.clear();
                incoming.read_line(&mut line).ok().filter(|read| *read > 0)?;
            }
            return Some(());
        }
        let read = incoming.take(length).read_to_end(body).ok()?;
        incoming.read_line(&mut line).ok().filter(|_| read as u64 == length)?;
    }
}

/// A response as a client heard it.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// `None` if it broke off.
    pub(crate) body: Option<Vec<u8>>,
}

impl Heard {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone().unwrap_or_else(|| panic!("it broke off: {}", self.head))).unwrap()
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.field("cache-status").is_some_and(|status| status.starts_with("Larder; hit"))
    }
}

/// A connection of a client.
pub(crate) struct Client<S = TcpStream>(BufReader<S>);

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    /// Whether the server took it is seen by what it answers.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    /// The next response; `None` if the server closed the connection.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        let (head, body) = message(&mut self.0, true)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Heard { status, head, body })
    }

    /// The next response, of which nothing but the head comes.
    pub(crate) fn hear_head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "it broke off: {head}");
        }
        head
    }

    /// How much of so many bytes comes before the end, or before patience does.
    pub(crate) fn take(&mut self, most: u64) -> u64 {
        let (mut taken, mut piece) = (0, [0; 16 << 10]);
        while taken < most {
            let wanted = usize::try_from(most - taken).unwrap().min(piece.len());
            match piece.get_mut(..wanted).map(|piece| self.0.read(piece)) {
                Some(Ok(read)) if read > 0 => taken += read as u64,
                _ => break,
            }
        }
        taken
    }
}

/// `larder serve`, until it is dropped.
pub(crate) struct Serving {
    pub(crate) room: Room,
    pub(crate) address: SocketAddr,
    process: Child,
    said: Arc<Mutex<String>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Serving {
    pub(crate) fn of(origin: &Origin) -> Self {
        Self::with(origin, "", "")
    }

    /// Further options of the origin, each ending with a comma, and further lines of the configuration.
    pub(crate) fn with(origin: &Origin, of_origin: &str, lines: &str) -> Self {
        let address = origin.address;
        Self::configured(
            Room::new(),
            &format!("origin: {{ {of_origin} url: 'http://{address}' }}\n{lines}\n"),
        )
    }

    pub(crate) fn configured(room: Room, lines: &str) -> Self {
        let file = room.path("serve.yaml");
        let listen = if lines.contains("listen_tls:") { "" } else { "listen: '127.0.0.1:0'\n" };
        let store = if lines.contains("store:") { "" } else { "store: 'memory:'\n" };
        std::fs::write(&file, format!("{listen}{store}{lines}")).unwrap();
        let mut command = room.larder(["serve", "--config"]);
        let mut process = command.arg(file).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut stderr, all) = (BufReader::new(process.stderr.take().unwrap()), Arc::clone(&said));
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                all.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut serving = Self { room, address: ([127, 0, 0, 1], 0).into(), process, said };
        serving.address = serving.place("listening on http");
        serving
    }

    /// The address in the line that says this, up to the scheme.
    pub(crate) fn place(&self, said: &str) -> SocketAddr {
        let (said, mut found) = (format!("{said}://"), None);
        until(&said, || {
            let all = self.said();
            let mut lines = all.lines().filter_map(|line| line.split_once(&said));
            found = lines.next().and_then(|(_, address)| address.trim().parse().ok());
            // One that did not start says why.
            assert!(found.is_some() || !all.contains("error"), "{all}");
            found.is_some()
        });
        found.unwrap()
    }

    /// What it has said to whoever started it.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn client(&self) -> Client {
        Client::to(self.address)
    }

    /// One exchange on a connection of its own.
    pub(crate) fn ask(&self, bytes: impl AsRef<[u8]>) -> Heard {
        let mut client = self.client();
        client.say(bytes);
        client.hear().unwrap()
    }

    /// A GET of `a`. Each of `fields` ends with CR LF.
    pub(crate) fn get(&self, target: &str, fields: &str) -> Heard {
        self.ask(get(target, fields))
    }

    /// Waits until a target is kept, and returns the hit.
    pub(crate) fn hit(&self, target: &str, fields: &str) -> Heard {
        let mut heard = None;
        until("it is a hit", || {
            heard = Some(self.get(target, fields));
            heard.as_ref().is_some_and(Heard::is_hit)
        });
        heard.unwrap()
    }

    /// The most memory that the process ever had, in bytes, as the kernel says; `None` if `/proc` shows the processes of
    /// somebody else, as it may in a container.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        let shown = std::fs::read_link("/proc/self").unwrap();
        if shown.to_str() != Some(&std::process::id().to_string()) {
            println!("memory is not looked at: /proc shows the processes of somebody else");
            return None;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        Some(line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024)
    }
}

/// The bytes of a GET of `a`.
pub(crate) fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}
