//! `larder serve` as a process: real origins, real clients, byte by byte over real sockets.

mod admin;
mod caching;
mod commands;
mod life;
mod log;
mod protocols;
mod trust;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{Room, until};

/// What every host here is called: the same after a restart, whatever the port.
const HOST: &str = "shop.test";
/// What lets operators in.
const TOKEN: &str = "only-operators-know-this";
/// How long a peer may keep silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A request that an origin got.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
}

impl Asked {
    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    fn has(&self, line: &str) -> bool {
        self.head.to_ascii_lowercase().contains(&line.to_ascii_lowercase())
    }
}

/// A server that answers as a function says.
struct Origin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Origin {
    /// Hands each request to `answer`, which writes what it wants, and says whether the connection goes on.
    fn start(answer: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, ended) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::new(AtomicBool::new(false)));
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let origin = Self { address, asked: asked.clone(), ended: ended.clone(), streams: streams.clone() };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (asked, answer) = (asked.clone(), answer.clone());
                thread::spawn(move || {
                    let kept = stream.try_clone().unwrap();
                    serve_one(stream, &asked, &*answer);
                    let _ = kept.shutdown(Shutdown::Both);
                });
            }
        });
        origin
    }

    /// Answers every request with this head, less its end, and this body.
    fn saying(head: &str, body: impl Into<Vec<u8>>) -> Self {
        let (head, body) = (head.to_owned(), body.into());
        Self::start(move |asked, stream| {
            let body = if asked.head.starts_with("HEAD ") { &[][..] } else { &body };
            write_answer(stream, &head, body)
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Closes everything: from now on nobody is there.
    fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        until("nobody listens", || TcpStream::connect(self.address).is_err());
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve_one(
    mut stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    answer: &(impl Fn(&Asked, &mut TcpStream) -> bool + ?Sized),
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
        if head.ends_with(b"\r\n\r\n") {
            let request = Asked { head: String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned() };
            asked.lock().unwrap().push(request.clone());
            if !answer(&request, &mut stream) {
                return;
            }
        }
    }
}

/// Writes a response whose length is said.
fn write_answer(stream: &mut TcpStream, head: &str, body: &[u8]) -> bool {
    let head = head.replace('\n', "\r\n");
    let length = if head.to_ascii_lowercase().contains("content-length") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let answer = [format!("{head}\r\n{length}\r\n").as_bytes(), body].concat();
    stream.write_all(&answer).is_ok()
}

/// What a client got.
#[derive(Debug)]
struct Answer {
    status: u16,
    /// Each field as `name: value`, the name in lower case.
    fields: Vec<String>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let is = |field: &&String| field.split(':').next() == Some(name);
        self.fields.iter().find(is).map(|field| field.split_once(": ").unwrap().1)
    }

    /// What `Cache-Status` says, less numbers that depend on the time.
    fn cache(&self) -> String {
        let said = self.field("cache-status").unwrap_or_default();
        let parts: Vec<_> = said.split("; ").filter(|part| !part.starts_with("ttl=")).collect();
        parts.join("; ")
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A client's connection.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn fields(&mut self) -> Vec<String> {
        let lines = std::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty()));
        let lower = |line: String| {
            let (name, value) = line.split_once(':').unwrap();
            format!("{}: {}", name.to_ascii_lowercase(), value.trim())
        };
        lines.map(lower).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Reads a response to a request that was no HEAD.
    fn answer(&mut self) -> Answer {
        let (status, fields) = self.head();
        let mut answer = Answer { status, fields, body: Vec::new(), trailers: Vec::new() };
        if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let length = usize::from_str_radix(&self.line(), 16).unwrap();
                if length == 0 {
                    answer.trailers = self.fields();
                    return answer;
                }
                answer.body.extend(self.bytes(length));
                self.line();
            }
        }
        if status != 304 && status != 204 {
            let length = answer.field("content-length").unwrap().parse().unwrap();
            answer.body = self.bytes(length);
        }
        answer
    }

    fn head(&mut self) -> (u16, Vec<String>) {
        let line = self.line();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        (status, self.fields())
    }
}

/// Asks for one thing, on a connection of its own. `more` are further fields, each with its line's end.
fn ask(address: SocketAddr, method: &str, path: &str, more: &str) -> Answer {
    let mut connection = Connection::open(address);
    connection.send(&format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n"));
    connection.answer()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, "")
}

/// A server that runs. Dropping it kills it.
struct Server {
    child: Child,
    /// What it said on standard error.
    said: Arc<Mutex<String>>,
    addresses: Vec<(String, SocketAddr)>,
}

impl Server {
    /// Starts it with these arguments, and waits until it listens.
    fn start(room: &Room, args: &[&str]) -> Self {
        let mut all = vec!["serve"];
        all.extend(args);
        let mut command = room.larder(all);
        command.env("LARDER_ADMIN_TOKEN", TOKEN);
        Self::of(command, 1 + usize::from(args.contains(&"--admin")))
    }

    /// Before an origin, with nothing but memory and with a desk.
    fn before(room: &Room, origin: &Origin) -> Self {
        Self::with_store(room, origin, "memory:")
    }

    fn with_store(room: &Room, origin: &Origin, store: &str) -> Self {
        let url = origin.url();
        let local = "127.0.0.1:0";
        Self::start(room, &["--origin", &url, "--listen", local, "--admin", local, "--store", store])
    }

    /// As a document says; it listens at so many addresses.
    fn configured(room: &Room, document: &str, listeners: usize) -> Self {
        fs::write(room.path("serve.yaml"), document).unwrap();
        let mut command = room.larder(["serve", "--config", "serve.yaml", "--store", "memory:"]);
        command.env("LARDER_ADMIN_TOKEN", TOKEN);
        Self::of(command, listeners)
    }

    fn of(mut command: Command, listeners: usize) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::<Mutex<String>>::default();
        let (mut stderr, heard) = (BufReader::new(child.stderr.take().unwrap()), said.clone());
        thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                heard.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let mut server = Self { child, said, addresses: Vec::new() };
        until("it listens", || {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", server.said());
            }
            let said = server.said();
            let words = said.lines().filter_map(|line| {
                let rest = line.strip_prefix("larder: ")?;
                let (what, address) = rest.split_once("://")?;
                Some((what.to_owned(), address.parse().ok()?))
            });
            server.addresses = words.collect();
            server.addresses.len() == listeners
        });
        server
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn at(&self, what: &str) -> SocketAddr {
        self.addresses.iter().find(|(is, _)| is == what).unwrap().1
    }

    fn address(&self) -> SocketAddr {
        self.at("listening on http")
    }

    fn admin(&self) -> SocketAddr {
        self.at("admin on http")
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Its exit status, once it has ended by itself.
    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Asks the desk: a path alone is a GET.
    fn desk(&self, token: Option<&str>, path: &str, question: Option<&str>) -> Answer {
        let mut more = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        if let Some(question) = question {
            let _ = write!(more, "Content-Length: {}\r\n", question.len());
        }
        let method = if question.is_some() { "POST" } else { "GET" };
        let mut connection = Connection::open(self.admin());
        let question = question.unwrap_or_default();
        connection.send(&format!("{method} {path} HTTP/1.1\r\nHost: desk\r\n{more}\r\n{question}"));
        connection.answer()
    }

    /// Runs another command against it, as an operator.
    fn operate(&self, room: &Room, args: &[&str]) -> Output {
        self.operator(room, args).output().unwrap()
    }

    /// Another command against it, which does not run yet.
    fn operator(&self, room: &Room, args: &[&str]) -> Command {
        let mut command = room.larder(args);
        command.env("LARDER_ADMIN", format!("http://{}", self.admin())).env("LARDER_ADMIN_TOKEN", TOKEN);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response that is fresh for a minute.
const FRESH: &str = "HTTP/1.1 200 OK\nCache-Control: max-age=60";

/// A mebibyte in which no two places look alike.
fn mebibyte() -> Vec<u8> {
    (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn tls_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/proxy/listen/testdata").join(name)
}
