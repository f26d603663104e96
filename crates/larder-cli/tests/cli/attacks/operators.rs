//! Who may purge, what is told to whom, and what is written down.

use super::scene::{Client, Origin, Serving, fresh, get};
use crate::harness::until;

const ADMIN: &str = "admin: { listen: '127.0.0.1:0', token: 'a-token-of-operators' }";

#[test]
fn clients_do_not_purge() {
    // PURGE, BAN and the like are methods like any other that nobody knows: passed on to the origin. If that says no,
    // nothing happens; if it does what was asked, what is kept of the target has changed, as RFC 9111 section 4.4 says.
    let origin = Origin::saying(|seen| match seen.method() {
        "GET" => fresh(seen.target()),
        _ => b"HTTP/1.1 405 X\r\nAllow: GET\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let serving = Serving::with(&origin, "", ADMIN);
    serving.get("/x", "");
    for method in ["PURGE", "BAN", "REFRESH", "INVALIDATE", "DELETE", "purge"] {
        for fields in [
            "",
            "X-Forwarded-For: 127.0.0.1\r\n",
            "Forwarded: for=127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n",
            "Authorization: Bearer a-token-of-operators\r\n",
            "Surrogate-Key: x\r\nX-Cache-Tags: x\r\nXKey-Purge: x\r\nCache-Control: no-cache\r\n",
        ] {
            let heard = serving.ask(format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
            assert_eq!(heard.status, 405, "{method}");
            assert!(serving.get("/x", "").is_hit(), "{method} {fields}");
        }
    }
    for target in ["/purge", "/stats", "/metrics", "/explain", "/.well-known/larder", "/souin-api/souin"] {
        assert_eq!(serving.get(target, "Authorization: Bearer a-token-of-operators\r\n").text(), target);
    }
}

#[test]
fn nobody_is_let_in_without_the_token() {
    let origin = Origin::saying(|seen| fresh(seen.target()));
    let serving = Serving::with(&origin, "", ADMIN);
    let admin = serving.place("admin on http");
    serving.get("/x", "");
    let purge = |fields: &str| {
        let body = r#"{"all": true}"#;
        let mut client = Client::to(admin);
        let length = body.len();
        client.say(format!(
            "POST /purge HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ));
        client.hear().unwrap()
    };
    for fields in [
        "",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "Authorization: Bearer \r\n",
        "Authorization: Bearer a-token-of-operator\r\n",
        "Authorization: Bearer a-token-of-operatorss\r\n",
        "Authorization: Bearer A-token-of-operators\r\n",
        "Authorization: Basic a-token-of-operators\r\n",
        "Authorization: Bearer no\r\nAuthorization: Bearer a-token-of-operators\r\n",
        "Cookie: token=a-token-of-operators\r\n",
    ] {
        let heard = purge(fields);
        assert_eq!(heard.status, 401, "{fields}");
        assert!(!heard.text().contains("a-token"), "{fields}");
        assert!(serving.get("/x", "").is_hit(), "{fields}");
    }
    for (method, target) in
        [("GET", "/stats"), ("GET", "/metrics"), ("GET", "/health"), ("POST", "/explain"), ("GET", "/x")]
    {
        let mut client = Client::to(admin);
        client.say(format!("{method} {target}?token=a-token-of-operators HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.hear().unwrap().status, 401, "{target}");
    }
    let heard = purge("Authorization: Bearer a-token-of-operators\r\n");
    assert_eq!(heard.status, 200, "{}", heard.text());
    // A browser gets no leave to read it from a page of somebody else's.
    assert!(heard.field("access-control-allow-origin").is_none());
    assert!(!serving.get("/x", "").is_hit());
    assert!(!serving.said().contains("a-token"));
}

#[test]
fn nothing_that_a_client_says_breaks_a_line_of_the_log() {
    for form in ["common", "combined", "json"] {
        let origin = Origin::saying(|_| fresh("x"));
        let serving = Serving::with(&origin, "", &format!("log: {{ access: {form}, file: access.log }}"));
        let file = serving.room.path("access.log");
        for (before, (target, agent)) in [
            ("/%0d%0a127.0.0.1%20-%20evil", "a"),
            ("/x\"%22\\", "\"evil\" \\\" x"),
            ("/", "\u{9b}31m \u{85} \u{202e} <img src=x onerror=alert(1)>"),
            ("/{\"a\":1}", "${jndi:ldap://evil/x}"),
            ("/", "caf\u{e9}\t tab"),
        ]
        .into_iter()
        .enumerate()
        {
            let heard = serving.get(target, &format!("User-Agent: {agent}\r\nReferer: {agent}\r\n"));
            until("it is written", || {
                std::fs::read_to_string(&file).is_ok_and(|all| all.lines().count() == before + 1)
            });
            assert!(heard.status == 200 || heard.status == 400, "{}", heard.status);
        }
        for line in std::fs::read_to_string(&file).unwrap().lines() {
            assert!(!line.contains(|c: char| c.is_control()), "{form}: {line:?}");
            if form == "json" {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            } else {
                assert!(line.starts_with("127.0.0.1 - "), "{line}");
            }
        }
        // What could move the cursor or end a line does not even get that far.
        assert_eq!(serving.get("/", "User-Agent: \x1b[2J\r\n").status, 400);
        assert_eq!(serving.get("/", "User-Agent: a\nb\r\n").status, 400);
    }
}

#[test]
fn responses_say_nothing_about_keys_stores_or_upstreams() {
    let origin = Origin::saying(|_| fresh("x"));
    let serving = Serving::of(&origin);
    let ask = "Pragma: akamai-x-get-cache-key, akamai-x-cache-on\r\nX-Cache-Debug: 1\r\nFastly-Debug: 1\r\n";
    let (miss, hit) =
        (serving.get("/secret?token=1", ask), serving.hit("/secret?token=1", "Fastly-Debug: 1\r\n"));
    let port = origin.address.port().to_string();
    for heard in [miss, hit] {
        let fields: Vec<&str> = heard.head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        for line in &fields {
            let value = line.split_once(':').unwrap().1;
            assert!(!value.contains("secret") && !value.contains(&port) && !value.contains("/"), "{line}");
        }
        let status = heard.field("cache-status").unwrap();
        assert!(!status.contains("key") && !status.contains("detail"), "{status}");
        for name in ["x-cache-key", "x-cache", "via", "server", "x-served-by"] {
            assert_eq!(heard.field(name), None, "{name}");
        }
    }
    let quiet = Serving::with(&origin, "", "cache: { status: off }");
    assert_eq!(quiet.get("/", "").field("cache-status"), None);
    // An error says no more.
    let gone = Serving::configured(crate::harness::Room::new(), "origin: 'http://127.0.0.1:1'");
    let heard = gone.ask(get("/secret", ""));
    assert_eq!(heard.status, 502);
    assert!(!heard.text().contains("127.0.0.1") && !heard.text().contains("secret"));
}
