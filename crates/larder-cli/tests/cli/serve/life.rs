//! How a server starts, changes and ends: signals, documents, upstreams that die.

use super::*;
use crate::harness::{err, status};

/// An origin that answers `/slow` once it is let, and everything else at once, and that lets nobody keep anything.
fn slow(name: &'static str) -> (Origin, Arc<AtomicBool>) {
    let gate = Arc::new(AtomicBool::new(false));
    let opens = gate.clone();
    let origin = Origin::start(move |asked, stream| {
        while asked.path() == "/slow" && !opens.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        write_answer(stream, "HTTP/1.1 200 OK\nCache-Control: no-store", name.as_bytes())
    });
    (origin, gate)
}

/// A request that is on its way.
fn on_its_way(server: &Server, origin: &Origin) -> Connection {
    let mut client = Connection::open(server.address());
    client.send(&format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    until("it is at the origin", || origin.asked().iter().any(|asked| asked.path() == "/slow"));
    client
}

#[test]
fn a_hang_up_changes_routes_and_policy_and_fails_no_request() {
    let room = Room::new();
    let ((old, gate), (new, _)) = (slow("old"), slow("new"));
    let document = |origin: &Origin, status: &str| {
        format!("listen: 127.0.0.1:0\norigin: {}\ncache: {{ status: {status} }}\n", origin.url())
    };
    let server = Server::configured(&room, &document(&old, "outcome"), 1);
    assert_eq!(get(server.address(), "/x").text(), "old");
    let mut client = on_its_way(&server, &old);
    fs::write(room.path("serve.yaml"), document(&new, "off")).unwrap();
    server.signal("-HUP");
    until("it was read", || server.said().contains("the configuration was read again"));
    let answer = get(server.address(), "/x");
    assert_eq!((answer.text().as_str(), answer.field("cache-status")), ("new", None));
    gate.store(true, Ordering::Relaxed);
    assert_eq!(client.answer().text(), "old");
    // The same connection, the new configuration.
    client.send(&format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.answer().text(), "new");
}

#[test]
fn a_broken_document_changes_nothing_and_says_so() {
    let room = Room::new();
    let (origin, _) = slow("old");
    let document = format!("listen: 127.0.0.1:0\norigin: {}\n", origin.url());
    let server = Server::configured(&room, &document, 1);
    fs::write(room.path("serve.yaml"), format!("{document}cache:\n  statuss: off\n")).unwrap();
    server.signal("-HUP");
    until("it is said", || server.said().contains("the configuration stays as it was"));
    let said = server.said();
    assert!(said.contains("serve.yaml:4") && said.contains("statuss"), "{said}");
    assert_eq!(get(server.address(), "/x").text(), "old");
}

/// Writes what the cache is to do, and waits until the server goes by it.
fn change_cache(room: &Room, server: &Server, origin: &Origin, cache: &str) {
    let before = server.said().matches("the configuration was read again").count();
    fs::write(room.path("serve.yaml"), cached(origin, cache)).unwrap();
    server.signal("-HUP");
    until("it was read", || server.said().matches("the configuration was read again").count() > before);
}

fn cached(origin: &Origin, cache: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\norigin: {}\nadmin: {{ listen: 127.0.0.1:0, token: {TOKEN} }}\ncache: {{ {cache} }}\n",
        origin.url()
    )
}

#[test]
fn a_hang_up_changes_how_long_what_is_stored_is_fresh() {
    for store in ["memory:", "sqlite:s.db"] {
        let room = Room::new();
        // It says nothing of freshness but when it was last modified, which was long ago.
        let origin = Origin::start(|asked, stream| {
            let head = "HTTP/1.1 200 OK\nLast-Modified: Thu, 01 Jan 2015 00:00:00 GMT\nETag: \"a\"";
            match asked.has("\r\nif-none-match: ") {
                true => write_answer(stream, "HTTP/1.1 304 Not Modified\nETag: \"a\"", b""),
                false => write_answer(stream, head, b"page"),
            }
        });
        fs::write(room.path("serve.yaml"), cached(&origin, "heuristic_percent: 10")).unwrap();
        let server = Server::of(room.larder(["serve", "--config", "serve.yaml", "--store", store]), 2);
        assert_eq!(get(server.address(), "/a").cache(), "Larder; fwd=uri-miss; stored");
        assert_eq!(get(server.address(), "/a").cache(), "Larder; hit", "{store}");
        change_cache(&room, &server, &origin, "heuristic_percent: 0");
        assert_eq!(
            get(server.address(), "/a").cache(),
            "Larder; fwd=stale; fwd-status=304; stored",
            "{store}"
        );
        change_cache(&room, &server, &origin, "heuristic_percent: 10");
        assert_eq!(get(server.address(), "/a").cache(), "Larder; hit", "{store}");
    }
}

#[test]
fn a_hang_up_changes_what_is_for_the_cache_and_what_is_kept_without_being_told() {
    let room = Room::new();
    let origin = Origin::saying("HTTP/1.1 200 OK", "page");
    let server = Server::configured(&room, &cached(&origin, "only: /in, by_default: 1m"), 2);
    let said = |path: &str| get(server.address(), path).cache();
    let explained = |path: &str| {
        let question = format!("{{\"url\": \"http://{HOST}{path}\"}}");
        server.desk(Some(TOKEN), "/explain", Some(&question)).text()
    };
    for path in ["/in", "/in/x"] {
        assert_eq!(said(path), "Larder; fwd=uri-miss; stored");
        assert_eq!(said(path), "Larder; hit");
    }
    for path in ["/out", "/out", "/into"] {
        assert_eq!(said(path), "Larder; fwd=bypass", "{path}");
    }
    change_cache(&room, &server, &origin, "only: [/out, other.test/in], by_default: 1m");
    assert_eq!(
        (said("/in"), said("/out")),
        ("Larder; fwd=bypass".into(), "Larder; fwd=uri-miss; stored".into())
    );
    // What is stored for it stays, and is not used.
    assert!(explained("/in").contains("cache.only does not name it"), "{}", explained("/in"));
    assert!(explained("/out").contains("it is fresh"), "{}", explained("/out"));
    change_cache(&room, &server, &origin, "by_default: 1m");
    assert_eq!((said("/in"), said("/out")), ("Larder; hit".into(), "Larder; hit".into()));
    assert!(explained("/in").contains("it is fresh"), "{}", explained("/in"));
    change_cache(&room, &server, &origin, "");
    assert_eq!((said("/in"), said("/new")), ("Larder; fwd=stale".into(), "Larder; fwd=uri-miss".into()));
}

#[test]
fn flags_say_what_is_cached_and_for_how_long() {
    let room = Room::new();
    let origin = Origin::saying("HTTP/1.1 200 OK", "page");
    let (url, only) = (origin.url(), format!("{HOST}/in"));
    let args = ["--origin", &url, "--listen", "127.0.0.1:0", "--store", "memory:"];
    let more = ["--cache-only", &only, "--cache-only", "/too", "--cache-by-default", "1m"];
    let server = Server::start(&room, &[&args[..], &more[..]].concat());
    for (path, said) in [("/in/x", "Larder; hit"), ("/too", "Larder; hit"), ("/out", "Larder; fwd=bypass")] {
        get(server.address(), path);
        assert_eq!(get(server.address(), path).cache(), said, "{path}");
    }
}

#[test]
fn the_token_changes_with_the_document() {
    let room = Room::new();
    let (origin, _) = slow("old");
    let document = |token: &str| {
        let admin = format!("{{ listen: 127.0.0.1:0, token: {token} }}");
        format!("listen: 127.0.0.1:0\norigin: {}\nadmin: {admin}\n", origin.url())
    };
    let server = Server::configured(&room, &document("the-first-of-two-tokens"), 2);
    let status = |token| server.desk(Some(token), "/stats", None).status;
    assert_eq!((status("the-first-of-two-tokens"), status("the-second-of-two-tokens")), (200, 401));
    fs::write(room.path("serve.yaml"), document("the-second-of-two-tokens")).unwrap();
    server.signal("-HUP");
    until("it was read", || server.said().contains("the configuration was read again"));
    assert_eq!((status("the-first-of-two-tokens"), status("the-second-of-two-tokens")), (401, 200));
}

#[test]
fn a_termination_lets_requests_end() {
    let room = Room::new();
    let (origin, gate) = slow("whole");
    let mut server = Server::before(&room, &origin);
    let mut client = on_its_way(&server, &origin);
    let address = server.address();
    server.signal("-TERM");
    until("nobody else is let in", || TcpStream::connect(address).is_err());
    assert!(server.child.try_wait().unwrap().is_none());
    gate.store(true, Ordering::Relaxed);
    assert_eq!(client.answer().text(), "whole");
    assert_eq!(server.ended(), Some(0));
}

#[test]
fn one_of_two_upstreams_may_die() {
    let room = Room::new();
    let ((one, _), (other, _)) = (slow("one"), slow("other"));
    let (first, second) = (one.url(), other.url());
    let server = Server::start(
        &room,
        &["--origin", &first, "--origin", &second, "--listen", "127.0.0.1:0", "--store", "memory:"],
    );
    let mut heard: Vec<_> = (0..4).map(|_| get(server.address(), "/x").text()).collect();
    heard.sort();
    heard.dedup();
    assert_eq!(heard, ["one", "other"]);
    one.end();
    for _ in 0..8 {
        let answer = get(server.address(), "/x");
        assert_eq!((answer.status, answer.text().as_str()), (200, "other"));
    }
    other.end();
    assert_eq!(get(server.address(), "/x").status, 502);
}

#[test]
fn a_check_reads_the_files_that_a_start_would_read() {
    let room = Room::new();
    for (text, why) in [
        ("listen_tls: 127.0.0.1:0\ntls: { certificate: /nobody.pem, key: /nobody.key }", "/nobody.pem"),
        ("tls: { certificate: /nobody.pem, key: /nobody.key }", "listen_tls"),
        ("origins: { app: { upstreams: 'https://127.0.0.1:1', tls: { ca: /nobody.pem } } }", "/nobody.pem"),
    ] {
        let origin = if text.starts_with("origins") { "" } else { "origin: http://127.0.0.1:1\n" };
        fs::write(room.path("s.yaml"), format!("{origin}{text}\n")).unwrap();
        let output = room.call(["serve", "--config", "s.yaml", "--check"]);
        assert_eq!(status(&output), 2, "{text}");
        assert!(err(&output).contains(why), "{}", err(&output));
    }
}

#[test]
fn an_option_that_nobody_knows_is_named_with_its_file_and_line() {
    let room = Room::new();
    fs::write(room.path("s.yaml"), "origin: http://127.0.0.1:1\n\ncache:\n  keeep: 1d\n").unwrap();
    let output = room.call(["serve", "--config", "s.yaml", "--check"]);
    let said = err(&output);
    assert_eq!(status(&output), 2, "{said}");
    assert!(said.contains("s.yaml:4") && said.contains("keeep") && said.contains("keep"), "{said}");
}

#[test]
fn an_admin_without_a_token_or_with_a_short_one_is_refused_before_anything_listens() {
    let room = Room::new();
    let args =
        ["serve", "--origin", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let output = room.call(args);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("LARDER_ADMIN_TOKEN"), "{}", err(&output));
    let output = room.larder(args).env("LARDER_ADMIN_TOKEN", "t00-short").output().unwrap();
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("at least 16") && !err(&output).contains("t00-short"), "{}", err(&output));
    fs::write(room.path("token"), "one-from-a-file-1\n").unwrap();
    let output =
        room.call(["--admin-token-file", "token", "--check"].iter().fold(args.to_vec(), |mut all, arg| {
            all.push(arg);
            all
        }));
    assert_eq!(status(&output), 0, "{}", err(&output));
    let shown = crate::harness::out(&output);
    assert!(shown.contains("--admin-token-file") && !shown.contains("one-from"), "{shown}");
}
