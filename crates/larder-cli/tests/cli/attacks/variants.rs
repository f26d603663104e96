//! Variants without number: a target has only so many, and what depends on everything is not kept.

use super::scene::{Origin, Serving, answer, get};

/// Answers with the field that the response depends on.
fn varying(vary: &'static str) -> Origin {
    Origin::saying(move |seen| {
        let said = seen.field("x-a").unwrap_or("none").to_owned();
        answer(200, &format!("Cache-Control: max-age=600\r\nVary: {vary}\r\n"), said)
    })
}

#[test]
fn ten_thousand_values_are_as_many_variants_as_there_may_be() {
    const VALUES: usize = 10_000;
    let origin = varying("X-A");
    let serving = Serving::with(&origin, "", "cache: { variants: 8 }");
    let mut client = serving.client();
    for at in 0..VALUES {
        client.say(get("/", &format!("X-A: {at}\r\n")));
        assert_eq!(client.hear().unwrap().text(), at.to_string());
    }
    assert_eq!(origin.asked(), VALUES);
    let mut kept = 0;
    for at in 0..VALUES {
        client.say(get("/", &format!("X-A: {at}\r\nCache-Control: only-if-cached\r\n")));
        let heard = client.hear().unwrap();
        if heard.status == 200 {
            assert_eq!(heard.text(), at.to_string());
            kept += 1;
        }
    }
    assert_eq!(kept, 8);
    assert_eq!(origin.asked(), VALUES);
}

#[test]
fn long_values_are_kept_apart_too() {
    let origin = varying("X-A");
    let serving = Serving::of(&origin);
    let long = "x".repeat(30_000);
    for last in ["a", "b"] {
        let value = format!("{long}{last}");
        assert_eq!(serving.get("/", &format!("X-A: {value}\r\n")).text(), value);
        assert_eq!(serving.hit("/", &format!("X-A: {value}\r\n")).text(), value);
    }
    assert_eq!(origin.asked(), 2);
}

#[test]
fn what_depends_on_everything_is_not_kept() {
    let names: String = (0..500).map(|at| format!("x-{at}, ")).collect();
    for vary in ["*", "*, x", "x, *", "X-A, *", "* ,", ",*", "a b", "\"x-a\"", names.leak()] {
        let origin = varying(vary);
        let serving = Serving::of(&origin);
        for _ in 0..2 {
            let heard = serving.get("/", "");
            assert!(heard.status == 200 && !heard.is_hit(), "{vary}");
        }
        assert_eq!(origin.asked(), 2, "{vary}");
    }
    // Also if it stands in a line of its own.
    let origin = varying("X-A\r\nVary: *");
    let serving = Serving::of(&origin);
    serving.get("/", "");
    assert!(!serving.get("/", "").is_hit());
}

#[test]
fn what_depends_on_the_cookie_is_for_that_cookie_alone() {
    let origin = Origin::saying(|seen| {
        let cookie = seen.field("cookie").unwrap_or("none").to_owned();
        answer(200, "Cache-Control: max-age=60\r\nVary: Accept-Encoding, Cookie\r\n", cookie)
    });
    let serving = Serving::of(&origin);
    for cookie in ["session=1", "session=2", "session=1; a=b", "Session=1", "session=1,session=2"] {
        assert_eq!(serving.get("/", &format!("Cookie: {cookie}\r\n")).text(), cookie);
    }
    assert_eq!(serving.get("/", "").text(), "none");
    assert_eq!(serving.hit("/", "Cookie: session=1\r\n").text(), "session=1");
    assert_eq!(origin.asked(), 6);
}
