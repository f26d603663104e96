//! A server that answers as a test says: what no stand-in for DynamoDB does by itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is said to a request.
pub(super) enum Answer {
    /// A status and a body.
    Say(u16, String),
    /// The connection is closed without a word.
    Hang,
}

/// A refusal as DynamoDB writes it.
pub(super) fn refuse(status: u16, code: &str) -> Answer {
    let words = "words of the server: hunter2";
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"{words}"}}"#);
    Answer::Say(status, body)
}

pub(super) fn say(body: &str) -> Answer {
    Answer::Say(200, body.to_owned())
}

/// A server on a port of its own, which goes on as long as the process.
pub(super) struct Scripted {
    pub(super) endpoint: String,
    /// What was asked for, in order: the operation and the body.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Scripted {
    /// A server whose answers are made of the operation, the body of the request and how many came before.
    pub(super) fn new(answer: impl Fn(&str, &str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<(String, String)>>>::default();
        let (answer, shared) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, shared) = (Arc::clone(&answer), Arc::clone(&shared));
                std::thread::spawn(move || {
                    let _ = serve(&stream.unwrap(), |operation, body| {
                        let mut asked = shared.lock().unwrap();
                        let before = asked.len();
                        asked.push((operation.to_owned(), body.to_owned()));
                        drop(asked);
                        answer(operation, body, before)
                    });
                });
            }
        });
        Self { endpoint, asked }
    }

    pub(super) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, answer: impl Fn(&str, &str) -> Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut operation, mut bytes) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => operation = value.rsplit('.').next().unwrap_or_default().to_owned(),
                "content-length" => bytes = value.parse().unwrap(),
                _ => {}
            }
        }
        let mut body = vec![0; bytes];
        reader.read_exact(&mut body)?;
        let Answer::Say(status, said) = answer(&operation, &String::from_utf8(body).unwrap()) else {
            return stream.shutdown(std::net::Shutdown::Both);
        };
        let head = format!(
            "HTTP/1.1 {status} OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n",
            said.len()
        );
        (&*stream).write_all(format!("{head}{said}").as_bytes())?;
    }
}
