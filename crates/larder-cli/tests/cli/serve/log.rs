//! The access log: its three forms, and what cannot be smuggled into it.

use serde_json::Value;

use super::*;

/// The lines that a server writes in a form, for a miss, a hit and a request that would like to write a line of its own.
fn lines(form: &str) -> Vec<Vec<u8>> {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let file = room.path("access.log");
    let document = format!(
        "listen: 127.0.0.1:0\norigin: {}\nlog: {{ access: {form}, file: {} }}\n",
        origin.url(),
        file.display()
    );
    let mut server = Server::configured(&room, &document, 1);
    get(server.address(), "/a");
    ask(server.address(), "GET", "/a", "Referer: http://x/\r\nUser-Agent: curl\r\n");
    let mut client = Connection::open(server.address());
    let mut bytes = format!("GET /%0a%22evil HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: ").into_bytes();
    bytes.extend(b"a\" 200 9 \"b\\\t\xc2\x9b31m\xff\r\nReferer: \\\"x\r\n\r\n");
    client.0.get_mut().write_all(&bytes).unwrap();
    assert_eq!(client.answer().status, 200);
    // A line's end within a field is no request at all.
    let mut client = Connection::open(server.address());
    client.send(&format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: x\n1.1.1.1 - - evil\r\n\r\n"));
    let _ = client.head();
    server.signal("-TERM");
    server.ended();
    let text = fs::read(file).unwrap();
    let lines: Vec<_> =
        text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect();
    // Also for terminals that read C1: what a client sends steers nothing.
    let steers = |char: char| char.is_control() && char != '\n';
    assert!(!std::str::from_utf8(&text).unwrap().contains(steers), "{}", String::from_utf8_lossy(&text));
    assert!(!lines.iter().any(|line| line.starts_with(b"1.1.1.1")), "{}", String::from_utf8_lossy(&text));
    lines
}

/// What stands between quotes that are not escaped, and how many such quotes there are.
fn quoted(line: &str) -> Vec<String> {
    let (mut parts, mut is_in, mut chars) = (Vec::new(), false, line.chars());
    while let Some(char) = chars.next() {
        match (char, is_in) {
            ('"', false) => parts.push(String::new()),
            ('\\', true) => {
                let part = parts.last_mut().unwrap();
                part.push(char);
                part.extend(chars.next());
                continue;
            }
            (char, true) if char != '"' => parts.last_mut().unwrap().push(char),
            _ => {}
        }
        is_in ^= char == '"';
    }
    assert!(!is_in, "{line}");
    parts
}

#[test]
fn common_and_combined_are_what_they_are_everywhere() {
    for (form, parts) in [("common", 1), ("combined", 3)] {
        let lines: Vec<_> = lines(form).into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert!(
            lines[0].starts_with("127.0.0.1 - - [") && lines[0].contains("] \"GET /a HTTP/1.1\" 200 4"),
            "{lines:?}"
        );
        for line in &lines[..3] {
            assert_eq!(quoted(line).len(), parts, "{line}");
        }
        if form == "combined" {
            assert_eq!(quoted(&lines[1])[1..], ["http://x/", "curl"]);
        }
        assert_eq!(quoted(&lines[2])[0], "GET /%0a%22evil HTTP/1.1");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let lines: Vec<Value> = lines("json").iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!((&lines[0]["cache"], &lines[1]["cache"]), (&"miss".into(), &"hit".into()));
    assert!(lines[0]["upstream"].is_string() && lines[1]["upstream"].is_null(), "{lines:?}");
    for line in &lines[..3] {
        assert_eq!(
            (&line["client"], &line["status"], &line["bytes"]),
            (&"127.0.0.1".into(), &200.into(), &4.into())
        );
        assert_eq!((&line["host"], &line["complete"]), (&HOST.into(), &true.into()));
    }
    assert_eq!(lines[2]["target"], "/%0a%22evil");
    assert!(lines[2]["user_agent"].as_str().unwrap().starts_with("a\" 200 9 \"b\\"), "{lines:?}");
}

#[test]
fn without_a_file_the_lines_are_on_standard_error() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let url = origin.url();
    let args = ["--origin", &url, "--listen", "127.0.0.1:0", "--store", "memory:", "--access-log", "common"];
    let server = Server::start(&room, &args);
    get(server.address(), "/a");
    until("it was logged", || server.said().contains("\"GET /a HTTP/1.1\" 200 4"));
}

#[test]
fn the_last_lines_are_written_before_it_ends() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let pipe = room.path("access.log");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Whoever reads the log begins when the server has been told to end: more waits than the pipe holds.
    let (begin, begins) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut pipe = fs::File::open(pipe).unwrap();
        let mut text = String::new();
        begins.recv().unwrap();
        pipe.read_to_string(&mut text).unwrap();
        text
    });
    let document = format!(
        "listen: 127.0.0.1:0\norigin: {}\nlog: {{ access: common, file: access.log }}\n",
        origin.url()
    );
    let mut server = Server::configured(&room, &document, 1);
    let path = format!("/{}", "x".repeat(4_000));
    for _ in 0..50 {
        get(server.address(), &path);
    }
    server.signal("-TERM");
    thread::sleep(Duration::from_millis(100));
    begin.send(()).unwrap();
    server.ended();
    assert_eq!(reader.join().unwrap().lines().count(), 50);
}
