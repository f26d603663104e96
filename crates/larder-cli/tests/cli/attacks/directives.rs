//! Directives that somebody reads otherwise: what restricts counts however it is written, what permits only as it should be.

use super::scene::{Origin, Serving, answer};

/// What becomes of a response with a validator.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// It answers the next request.
    Fresh,
    /// It is kept, and confirmed by the origin each time.
    Confirmed,
    /// The next request goes to the origin as if there had been none.
    Not,
}

fn kept(serving: &Serving, origin: &Origin, target: &str) -> Kept {
    let (first, asked) = (serving.get(target, ""), origin.asked());
    if first.field("cache-status").is_some_and(|status| status.contains("stored")) {
        // What is said to be stored is there when the response has ended.
        let second = serving.get(target, "");
        assert_eq!(second.status, 200, "{target}");
        if second.is_hit() {
            return Kept::Fresh;
        }
    } else {
        serving.get(target, "");
    }
    assert_eq!(origin.asked(), asked + 1, "{target}");
    if origin.last().field("if-none-match").is_some() { Kept::Confirmed } else { Kept::Not }
}

#[test]
fn directives_are_read_so_that_nothing_private_is_kept() {
    let all: &[(&str, Kept)] = &[
        ("Cache-Control: max-age=60\r\n", Kept::Fresh),
        ("Cache-Control: max-age=60\r\nCache-Control: private\r\n", Kept::Not),
        ("Cache-Control: max-age=60\r\nCache-Control: no-store\r\n", Kept::Not),
        ("Cache-Control: private\r\nCache-Control: max-age=60\r\n", Kept::Not),
        ("Cache-Control: Private, Max-Age=60\r\n", Kept::Not),
        ("Cache-Control: MAX-AGE=60\r\n", Kept::Fresh),
        ("Cache-Control: \"private\", max-age=60\r\n", Kept::Not),
        ("Cache-Control: private=\"set-cookie\", max-age=60\r\n", Kept::Fresh),
        ("Cache-Control: private=, max-age=60\r\n", Kept::Not),
        ("Cache-Control: private=\"\", max-age=60\r\n", Kept::Not),
        ("Cache-Control: private, private=\"x\", max-age=60\r\n", Kept::Not),
        ("Cache-Control: private=\"x\", private, max-age=60\r\n", Kept::Not),
        ("Cache-Control: no-cache, max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: no-cache=, max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: no-cache, no-cache=\"x\", max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=-1\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=1.5\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=1e9\r\n", Kept::Confirmed),
        ("Cache-Control: max-age = 60\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=\"60\"\r\n", Kept::Fresh),
        ("Cache-Control: max-age='60'\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=99999999999999999999\r\n", Kept::Fresh),
        ("Cache-Control: max-age=0, max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=60, max-age=x\r\n", Kept::Confirmed),
        ("Cache-Control: s-maxage=0, max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: s-maxage=60, max-age=0\r\n", Kept::Fresh),
        ("Cache-Control: s-maxage=x, max-age=60\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=60;private\r\n", Kept::Not),
        ("Cache-Control: max-age=60 private\r\n", Kept::Not),
        ("Cache-Control: max-age=60,\tprivate\r\n", Kept::Not),
        ("Cache-Control: max-age=60,private,\r\n", Kept::Not),
        ("Cache-Control: ,,,,max-age=60,,,,\r\n", Kept::Fresh),
        ("Cache-Control: foo=\"a, private\", max-age=60\r\n", Kept::Fresh),
        ("Cache-Control: foo=\"a, \\\", private\", max-age=60\r\n", Kept::Fresh),
        ("Cache-Control: foo=\"max-age=60\"\r\n", Kept::Confirmed),
        ("Cache-Control: max-age=60, foo=\"no-store\r\n", Kept::Not),
        ("Cache-Control: max-age=60, no-cache=\"foo\r\n", Kept::Confirmed),
        ("Cache-Control: no-store=1, max-age=60\r\n", Kept::Not),
        ("Cache-Control: no-storee, max-age=60\r\n", Kept::Fresh),
    ];
    let fields: Vec<&'static str> = all.iter().map(|(fields, _)| *fields).collect();
    let origin = Origin::saying(move |seen| {
        let at: usize = seen.target().trim_start_matches('/').parse().unwrap();
        match seen.field("if-none-match") {
            Some("\"1\"") => answer(304, "ETag: \"1\"\r\n", ""),
            _ => answer(200, &format!("ETag: \"1\"\r\n{}", fields.get(at).unwrap()), "x"),
        }
    });
    let serving = Serving::of(&origin);
    for (at, (fields, expected)) in all.iter().enumerate() {
        assert_eq!(kept(&serving, &origin, &format!("/{at}")), *expected, "{fields}");
    }
}

#[test]
fn a_folded_line_is_not_half_read() {
    // The codec of the origin's side may refuse it; what it must not do is to read `max-age` alone.
    let origin =
        Origin::saying(|_| answer(200, "ETag: \"1\"\r\nCache-Control: max-age=60,\r\n private\r\n", "x"));
    let serving = Serving::of(&origin);
    for _ in 0..2 {
        assert!(!serving.get("/", "").is_hit());
    }
    assert_eq!(origin.asked(), 2);
}

#[test]
fn fields_that_are_private_or_not_to_be_reused_are_not_in_hits() {
    let origin = Origin::saying(|seen| {
        let directive = seen.target().trim_start_matches('/');
        let fields = format!(
            "Cache-Control: max-age=60, {directive}=\"x-mine, set-cookie\"\r\nX-Mine: 1\r\nSet-Cookie: a=b\r\nX-All: 1\r\n"
        );
        answer(200, &fields, "x")
    });
    let serving = Serving::of(&origin);
    let first = serving.get("/private", "");
    assert!(first.field("x-mine").is_some() && first.field("set-cookie").is_some());
    let hit = serving.hit("/private", "");
    assert!(
        hit.field("x-mine").is_none() && hit.field("set-cookie").is_none() && hit.field("x-all").is_some()
    );
    // Those that `no-cache` names come with what the origin has confirmed, and never without.
    serving.get("/no-cache", "");
    let second = serving.get("/no-cache", "");
    assert!(!second.is_hit() || second.field("x-mine").is_none() && second.field("set-cookie").is_none());
}

#[test]
fn what_a_client_says_restricts_too() {
    for (fields, is_kept) in [
        ("Cache-Control: no-store\r\n", false),
        ("Cache-Control: max-age=60\r\nCache-Control: No-Store\r\n", false),
        ("Cache-Control: foo=\"no-store\"\r\n", true),
        ("Cache-Control: private\r\n", true),
    ] {
        let origin = Origin::saying(|_| super::scene::fresh("x"));
        let serving = Serving::of(&origin);
        serving.get("/", fields);
        assert_eq!(serving.get("/", "").is_hit(), is_kept, "{fields}");
    }
}
