//! Fields of the connection, and requests whose end is in doubt: neither decides what is kept, or for whom.

use std::io::Write as _;

use super::scene::{Origin, Serving, answer, fresh, get};

#[test]
fn a_client_cannot_take_fields_away_that_are_not_its_own() {
    let origin = Origin::saying(|seen| {
        let said = |name| seen.field(name).unwrap_or("none").to_owned();
        let body =
            ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via"].map(said).join(" ");
        fresh(body)
    });
    let serving = Serving::with(&origin, "", "forwarding: { pseudonym: larder }");
    let names = "cookie, authorization, x-forwarded-for, x-forwarded-host, x-forwarded-proto, via, host, \
                 cache-control, x-real-ip, close-to";
    let heard = serving.get("/", &format!("Connection: {names}\r\nCookie: a=b\r\nAuthorization: c\r\n"));
    assert_eq!(heard.text(), "a 127.0.0.1 a http 1.1 larder");
    // What a response depends on is for everybody on the way, whatever a client lists.
    let seen = origin.last();
    assert_eq!((seen.field("cookie"), seen.field("authorization")), (Some("a=b"), Some("c")));
    // So this was an answer to somebody, and is for nobody else.
    assert!(!serving.get("/", "").is_hit());
}

#[test]
fn the_key_is_what_the_origin_saw() {
    let origin = Origin::saying(|seen| {
        let cookie = seen.field("cookie").unwrap_or("none").to_owned();
        answer(200, "Cache-Control: max-age=60\r\nVary: Cookie\r\n", cookie)
    });
    let serving = Serving::of(&origin);
    assert_eq!(serving.get("/", "Connection: cookie\r\nCookie: a\r\n").text(), "a");
    let others = serving.get("/", "");
    assert!(!others.is_hit());
    assert_eq!(others.text(), "none");
    assert_eq!(serving.hit("/", "Cookie: a\r\n").text(), "a");
}

#[test]
fn a_client_cannot_hide_what_it_says_about_storing_behind_its_connection() {
    let origin = Origin::saying(|_| fresh("x"));
    let serving = Serving::of(&origin);
    serving.get("/", "Connection: cache-control\r\nCache-Control: no-store\r\n");
    assert_eq!(origin.last().field("cache-control"), Some("no-store"));
    assert!(!serving.get("/", "").is_hit());
}

#[test]
fn fields_of_the_origins_connection_are_not_in_hits_and_restrict_all_the_same() {
    let origin = Origin::saying(|seen| match seen.target() {
        "/private" => answer(
            200,
            "Connection: cache-control\r\nCache-Control: private\r\nLast-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\n",
            "x",
        ),
        _ => answer(
            200,
            "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
             Proxy-Authenticate: Basic\r\nTE: trailers\r\nUpgrade: h2c\r\nCache-Control: max-age=60\r\n",
            "x",
        ),
    });
    let serving = Serving::of(&origin);
    let (first, hit) = (serving.get("/", ""), serving.hit("/", ""));
    for name in ["x-hop", "keep-alive", "proxy-connection", "te", "upgrade", "proxy-authenticate"] {
        assert_eq!(hit.field(name), None, "{name}");
        assert!(first.field(name).is_none() || name == "proxy-authenticate", "{name}");
    }
    for _ in 0..2 {
        assert!(!serving.get("/private", "").is_hit());
    }
}

#[test]
fn a_body_after_what_is_stored_is_not_the_next_request() {
    let origin = Origin::saying(|seen| fresh(seen.target()));
    let serving = Serving::of(&origin);
    serving.get("/x", "");
    serving.hit("/x", "");
    let evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        format!("Content-Length: {}\r\n\r\n{evil}", evil.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{evil}\r\n0\r\n\r\n", evil.len()),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let mut client = serving.client();
            client.say(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{head}{}", get("/y", "")));
            if method == "HEAD" {
                client.hear_head();
            } else {
                client.hear().unwrap();
            }
            if let Some(second) = client.hear() {
                assert_eq!(second.text(), "/y", "{method}");
            }
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.target() != "/evil"));
    assert_eq!(serving.get("/evil", "").text(), "/evil");
    assert_eq!(serving.get("/y", "").text(), "/y");
}

#[test]
fn requests_whose_end_is_in_doubt_reach_nobody() {
    let origin = Origin::saying(|seen| fresh(seen.target()));
    let serving = Serving::of(&origin);
    serving.get("/x", "");
    let asked = origin.asked();
    let evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    for (version, doubt) in [
        ("1.1", format!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Content-Length: 0\r\nContent-Length: 44\r\n\r\n{evil}")),
        ("1.1", format!("Content-Length: 0, 44\r\n\r\n{evil}")),
        ("1.1", format!("Content-Length: +0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.0", format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: chunked\r\n\r\n5;\nxx\r\nabcde\r\n0\r\n\r\n{evil}")),
        ("1.1", format!("Transfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n{evil}")),
    ] {
        let mut client = serving.client();
        client.say(format!("GET /x HTTP/{version}\r\nHost: a\r\n{doubt}"));
        let heard = client.hear().unwrap();
        // 501 for codings that nobody here knows.
        assert!(heard.status == 400 || heard.status == 501, "{doubt}: {}", heard.status);
        assert!(client.hear().is_none(), "{doubt}");
    }
    assert!(origin.seen().iter().skip(asked).all(|seen| seen.target() != "/evil"));
    assert_eq!(serving.hit("/x", "").text(), "/x");
}

#[test]
fn an_upgrade_that_was_not_granted_is_followed_by_requests() {
    let origin = Origin::saying(|seen| fresh(seen.target()));
    let serving = Serving::of(&origin);
    for protocol in ["websocket", "h2c", "TLS/1.0", "evil"] {
        let mut client = serving.client();
        client.say(format!(
            "GET /up HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\n\r\n{}",
            get("/next", "")
        ));
        assert_eq!(client.hear().unwrap().status, 200, "{protocol}");
        if let Some(next) = client.hear() {
            assert_eq!(next.text(), "/next", "{protocol}");
        }
    }
    // What came of an upgrade is for nobody else.
    let all = origin.seen();
    let ups = all.iter().filter(|seen| seen.target() == "/up" && seen.field("upgrade").is_some());
    assert!(ups.count() >= 2, "{all:?}");
}

#[test]
fn what_an_origin_says_too_much_is_the_answer_to_nothing() {
    let origin = Origin::doing(|seen, stream| {
        let mut all = fresh(seen.target());
        if seen.target() == "/first" {
            all.extend_from_slice(&fresh("evil"));
        }
        stream.write_all(&all).is_ok()
    });
    let serving = Serving::of(&origin);
    assert_eq!(serving.get("/first", "").text(), "/first");
    for target in ["/second", "/third"] {
        assert_eq!(serving.get(target, "").text(), target);
        assert_eq!(serving.hit(target, "").text(), target);
    }
}

#[test]
fn a_response_whose_end_is_in_doubt_is_not_kept() {
    // A coding that nobody knows has an end: that of the connection.
    for doubt in [
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nContent-Length: x\r\n\r\nevil",
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n",
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.0 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nevil",
    ] {
        let origin = Origin::doing(move |_, stream| {
            let _ = stream.write_all(doubt.as_bytes());
            false
        });
        let serving = Serving::of(&origin);
        serving.get("/", "");
        assert!(!serving.get("/", "").is_hit(), "{doubt}");
    }
}
