//! Deception: somebody is led to a target under which a cache keeps a page that is for them alone.

use super::scene::{Origin, Serving, answer, get};

/// Targets that look like a file to one and like `/account` to another.
const TARGETS: [&str; 20] = [
    "/account",
    "/account/x.css",
    "/account;x.css",
    "/account%3bx.css",
    "/account%3fx.css",
    "/account%23x.css",
    "/account%00.js",
    "/account%0a.js",
    "/account%0d%0aX:y.js",
    "/account%2ejs",
    "/account.js",
    "/static/..%2faccount",
    "/static/..%2Faccount",
    "/static/%2e%2e/account",
    "/static/../account",
    "/static/..%5caccount",
    "//account",
    "/a/./b",
    "/Account",
    "/account/",
];

fn page(fields: &'static str) -> (Origin, Serving) {
    let origin = Origin::saying(move |seen| answer(200, fields, seen.target()));
    let serving = Serving::of(&origin);
    (origin, serving)
}

#[test]
fn a_target_is_the_bytes_that_the_origin_sees() {
    let (origin, serving) = page("Cache-Control: max-age=60\r\n");
    for target in TARGETS {
        let heard = serving.get(target, "");
        assert!(!heard.is_hit(), "{target}");
        assert_eq!(heard.text(), target);
    }
    for target in TARGETS {
        assert_eq!(serving.hit(target, "").text(), target);
    }
    assert_eq!(origin.asked(), TARGETS.len());
}

#[test]
fn targets_that_are_none_reach_nobody() {
    let (origin, serving) = page("Cache-Control: max-age=60\r\n");
    for target in
        ["/account#x.js", "\\account", "account", "/account\0.js", "/account\t.js", "/account\x7f.js"]
    {
        assert_eq!(serving.get(target, "").status, 400, "{target:?}");
    }
    assert_eq!(origin.asked(), 0);
}

#[test]
fn nothing_is_kept_because_of_its_name() {
    // No rule goes by extension or type: a page that says nothing is not kept, whatever it is called.
    for fields in ["", "Content-Type: text/css\r\n", "ETag: \"1\"\r\nSet-Cookie: session=1\r\n"] {
        let (origin, serving) = page(fields);
        for target in TARGETS {
            assert_eq!(serving.get(target, "Cookie: session=1\r\n").text(), target);
            let heard = serving.get(target, "");
            assert!(!heard.is_hit(), "{target} {fields}");
        }
        assert_eq!(origin.asked(), 2 * TARGETS.len());
    }
}

#[test]
fn what_is_private_is_kept_for_nobody() {
    for fields in [
        "Cache-Control: private, max-age=60\r\n",
        "Cache-Control: no-store\r\n",
        "Cache-Control: no-store, public, max-age=60\r\n",
        "Cache-Control: max-age=60\r\nVary: *\r\n",
        // Nobody says that it may be kept, and a cookie makes a guess too dangerous.
        "Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\nSet-Cookie: session=1\r\n",
    ] {
        let (origin, serving) = page(fields);
        for _ in 0..2 {
            assert!(!serving.get("/account/x.css", "Cookie: session=1\r\n").is_hit(), "{fields}");
        }
        assert_eq!(origin.asked(), 2, "{fields}");
    }
}

#[test]
fn answers_to_authorized_requests_are_kept_only_if_they_say_that_they_are_for_all() {
    for (fields, is_kept) in [
        ("Cache-Control: max-age=60\r\n", false),
        ("Expires: Fri, 01 Jan 2100 00:00:00 GMT\r\n", false),
        ("Last-Modified: Wed, 01 Jan 2020 00:00:00 GMT\r\n", false),
        ("Cache-Control: public, max-age=60\r\n", true),
        ("Cache-Control: s-maxage=60\r\n", true),
    ] {
        let (_, serving) = page(fields);
        serving.get("/account.js", "Authorization: Bearer 1\r\n");
        // The second request, of somebody else, would be a hit.
        let mut client = serving.client();
        client.say(get("/account.js", ""));
        assert_eq!(client.hear().unwrap().is_hit(), is_kept, "{fields}");
    }
}

#[test]
fn a_cookie_in_what_says_that_it_may_be_kept_is_kept_with_it() {
    // RFC 9111 section 7.3: `Set-Cookie` does not inhibit caching. Who does not want that says `no-cache="set-cookie"`
    // or `private="set-cookie"`; then the field is confirmed, or left out.
    for (directives, is_kept) in [("max-age=60", true), ("max-age=60, private=\"set-cookie\"", false)] {
        let origin = Origin::saying(move |_| {
            answer(200, &format!("Cache-Control: {directives}\r\nSet-Cookie: theme=dark\r\n"), "x")
        });
        let serving = Serving::of(&origin);
        assert_eq!(serving.get("/x", "").field("set-cookie"), Some("theme=dark"));
        assert_eq!(serving.hit("/x", "").field("set-cookie").is_some(), is_kept, "{directives}");
    }
}
