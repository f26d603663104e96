//! Poisoning by errors (CPDoS): an answer to a request that was wrong is not kept for those that are right.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use super::scene::{Client, Origin, Serving, answer, fresh, get};
use crate::harness::until;

#[test]
fn requests_that_are_too_large_or_not_clean_leave_nothing() {
    let origin = Origin::saying(|_| fresh("good"));
    let serving = Serving::of(&origin);
    for (status, fields) in [
        (431, format!("X: {}\r\n", "x".repeat(64 << 10))),
        (431, format!("{}: x\r\n", "x".repeat(64 << 10))),
        (431, "X: y\r\n".repeat(200)),
        (400, "X: \x07\r\n".to_owned()),
        (400, "X: a\0b\r\n".to_owned()),
        (400, "X: a\rb\r\n".to_owned()),
        (400, "X\x07: a\r\n".to_owned()),
        (400, " X: a\r\n".to_owned()),
        (400, ": a\r\n".to_owned()),
    ] {
        assert_eq!(serving.get("/", &fields).status, status, "{fields:?}");
    }
    assert_eq!(origin.asked(), 0);
    let heard = serving.get("/", "");
    assert!(!heard.is_hit() && heard.text() == "good");
}

#[test]
fn an_origin_that_refuses_what_we_let_pass_is_not_kept_by_default() {
    // It takes less than we do, and says nothing about caching, or as much as a guess needs.
    for of_error in ["", "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\n", "ETag: \"e\"\r\n"] {
        for status in [400, 403, 411, 413, 415, 417, 431, 500, 502, 503, 504] {
            let origin = Origin::saying(move |seen| match seen.field("x-bad") {
                Some(_) => answer(status, of_error, "bad"),
                None => fresh("good"),
            });
            let serving = Serving::of(&origin);
            assert_eq!(serving.get("/", "X-Bad: 1\r\n").status, status);
            let heard = serving.get("/", "");
            assert!(!heard.is_hit() && heard.text() == "good", "{status} {of_error}");
            // Nor does it take away what is kept.
            serving.hit("/", "");
            assert!(serving.get("/", "X-Bad: 1\r\n").is_hit(), "{status}");
        }
    }
}

#[test]
fn what_is_about_one_request_is_not_kept_even_if_it_says_so() {
    for status in [304, 412, 416, 428, 429, 431, 511] {
        let origin = Origin::saying(move |seen| match seen.field("x-bad") {
            Some(_) => answer(status, "Cache-Control: public, max-age=60\r\n", ""),
            None => fresh("good"),
        });
        let serving = Serving::of(&origin);
        assert_eq!(serving.get("/", "X-Bad: 1\r\n").status, status);
        let heard = serving.get("/", "");
        assert!(!heard.is_hit() && heard.text() == "good", "{status}");
    }
}

#[test]
fn conditions_that_fail_are_answered_to_whoever_made_them() {
    let origin = Origin::saying(|seen| {
        let said = |name| seen.field(name).is_some();
        if said("if-match") || said("if-unmodified-since") {
            return answer(412, "Cache-Control: max-age=60\r\n", "no");
        }
        if said("range") {
            return answer(416, "Cache-Control: max-age=60\r\nContent-Range: bytes */4\r\n", "no");
        }
        answer(200, "Cache-Control: max-age=60\r\nETag: \"1\"\r\n", "good")
    });
    let serving = Serving::of(&origin);
    let all = [
        ("If-Match: \"never\"\r\n", 412),
        ("If-Unmodified-Since: Wed, 01 Jan 2020 00:00:00 GMT\r\n", 412),
        ("Range: bytes=1000-\r\n", 416),
    ];
    for round in ["nothing is kept", "the good one is kept"] {
        for (fields, status) in all {
            assert_eq!(serving.get("/", fields).status, status, "{fields} {round}");
        }
        let heard = serving.get("/", "");
        assert_eq!((heard.status, heard.is_hit(), &*heard.text()), (200, round.starts_with("the"), "good"));
    }
}

#[test]
fn a_method_override_overrides_nothing() {
    let origin = Origin::saying(|seen| {
        let method = seen.field("x-http-method-override").or(seen.field("x-http-method"));
        match method.or(seen.field("x-method-override")) {
            Some(method) => answer(405, "Cache-Control: max-age=60\r\n", method),
            None => fresh("good"),
        }
    });
    let serving = Serving::of(&origin);
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_HTTP_Method_Override"] {
        assert_eq!(serving.get("/", &format!("{name}: DELETE\r\n")).text(), "good", "{name}");
    }
}

/// An origin that says half of a body, and the rest when it is told to.
fn in_halves() -> (Origin, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::doing(move |_, stream| {
        let mut all = answer(200, "Cache-Control: max-age=60\r\n", "firsthalf");
        let half = all.split_off(all.len() - 4);
        stream.write_all(&all).unwrap();
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(&half).is_ok()
    });
    (origin, go)
}

#[test]
fn a_client_that_goes_leaves_the_whole_or_nothing() {
    let (origin, go) = in_halves();
    let serving = Serving::of(&origin);
    let mut client = serving.client();
    client.say(get("/", ""));
    client.hear_head();
    assert_eq!(client.take(5), 5);
    drop(client);
    go.send(()).unwrap();
    assert_eq!(serving.hit("/", "").text(), "firsthalf");
    assert_eq!(origin.asked(), 1);
}

#[test]
fn what_broke_off_at_the_origin_breaks_off_at_the_client_and_is_not_kept() {
    let cut: [&[u8]; 4] = [
        b"HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nContent-Length: 9\r\n\r\nfirst",
        b"HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        b"HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfirst",
        b"HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n",
    ];
    for cut in cut {
        let is_well = Arc::new(AtomicBool::new(false));
        let well = Arc::clone(&is_well);
        let origin = Origin::doing(move |_, stream| {
            let is_well = well.load(Ordering::SeqCst);
            let _ = stream.write_all(&if is_well { fresh("firsthalf") } else { cut.to_vec() });
            is_well
        });
        let serving = Serving::of(&origin);
        for _ in 0..2 {
            let heard = serving.get("/", "");
            assert!(heard.body.is_none() && !heard.is_hit(), "{heard:?}");
        }
        is_well.store(true, Ordering::SeqCst);
        let heard = serving.get("/", "");
        assert!(!heard.is_hit() && heard.text() == "firsthalf");
        assert_eq!(serving.hit("/", "").text(), "firsthalf");
    }
}

#[test]
fn our_own_failures_are_not_kept() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let origin = Origin::doing(move |_, stream| match well.load(Ordering::SeqCst) {
        true => stream.write_all(&fresh("good")).is_ok(),
        false => false,
    });
    // One failure does not make it rest.
    let serving = Serving::of(&origin);
    assert_eq!(serving.get("/", "").status, 502);
    assert_eq!(serving.get("/", "Cache-Control: only-if-cached\r\n").status, 504);
    is_well.store(true, Ordering::SeqCst);
    assert_eq!(serving.get("/", "").text(), "good");
    assert!(serving.hit("/", "").is_hit());
}

#[test]
fn a_head_or_options_poisons_no_get() {
    let origin = Origin::saying(|seen| match seen.method() {
        "GET" => fresh("good"),
        "HEAD" => b"HTTP/1.1 200 X\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => answer(200, "Cache-Control: max-age=60\r\n", "bad"),
    });
    let serving = Serving::of(&origin);
    for method in ["HEAD", "OPTIONS", "TRACE", "FOO", "get", "POST", "PROPFIND"] {
        let mut client: Client = serving.client();
        client.say(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.hear_head();
    }
    let heard = serving.get("/", "");
    assert!(!heard.is_hit() && heard.text() == "good");
    until("it is kept", || serving.get("/", "").is_hit());
}
