//! The operators' desk: who is let in, and what purges do.

use serde_json::{Value, json};

use super::*;
use crate::harness::{err, out, status};

/// An origin whose pages are tagged `all` and by their path, and may be kept for a minute.
fn tagged() -> Origin {
    Origin::start(|asked, stream| {
        let tag = asked.path().trim_start_matches('/').replace('/', "-");
        let head = format!("{FRESH}\nCache-Tag: all, {tag}");
        write_answer(stream, &head, asked.path().as_bytes())
    })
}

fn purge(server: &Server, question: &Value) -> Value {
    let answer = server.desk(Some(TOKEN), "/purge", Some(&question.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

/// Fills the cache with these, and says which of them are hits.
fn hits<'a>(server: &Server, paths: &[&'a str]) -> Vec<&'a str> {
    paths.iter().copied().filter(|path| get(server.address(), path).cache() == "Larder; hit").collect()
}

const PATHS: [&str; 4] = ["/a/1", "/a/2", "/ab", "/b"];

#[test]
fn nobody_is_let_in_without_the_token() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    for token in [None, Some(""), Some("only-operators-know-thaT"), Some("only-operators-know-this ,x")] {
        for (path, question) in [("/stats", None), ("/metrics", None), ("/purge", Some("{\"all\":true}"))] {
            let answer = server.desk(token, path, question);
            assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")), "{token:?}");
        }
    }
    assert_eq!(hits(&server, &PATHS), PATHS);
    assert_eq!(server.desk(Some(TOKEN), "/stats", None).status, 200);
    // The desk is not at the address that everybody reaches.
    assert_eq!(ask(server.address(), "GET", "/stats", "").text(), "/stats");
}

#[test]
fn a_purge_by_url_takes_that_and_nothing_else() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    let done = purge(&server, &json!({ "url": "HTTP://Shop.Test:80/a/1" }));
    assert_eq!(done["done"], json!([{ "url": "http://shop.test/a/1", "purged": true }]));
    assert_eq!(hits(&server, &PATHS), ["/a/2", "/ab", "/b"]);
    let done = purge(&server, &json!({ "urls": ["http://shop.test/b", "http://shop.test/none"] }));
    assert_eq!(done["done"][1], json!({ "url": "http://shop.test/none", "purged": false }));
    assert_eq!(hits(&server, &PATHS), ["/a/1", "/a/2", "/ab"]);
}

#[test]
fn a_purge_by_tag_takes_whatever_has_it() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    purge(&server, &json!({ "tags": ["a-1", "b"] }));
    assert_eq!(hits(&server, &PATHS), ["/a/2", "/ab"]);
    purge(&server, &json!({ "tags": ["all"] }));
    assert_eq!(hits(&server, &PATHS), [""; 0]);
}

#[test]
fn a_purge_by_prefix_takes_what_begins_so_of_that_host_alone() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    assert_eq!(purge(&server, &json!({ "prefix": "http://shop.tes" }))["done"][0]["count"], 0);
    assert_eq!(purge(&server, &json!({ "prefix": "http://shop.test/a/" }))["done"][0]["count"], 2);
    assert_eq!(hits(&server, &PATHS), ["/ab", "/b"]);
    purge(&server, &json!({ "all": true }));
    assert_eq!(hits(&server, &PATHS), [""; 0]);
}

#[test]
fn a_soft_purge_leaves_what_an_origin_that_is_gone_cannot_give() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    for question in [
        json!({ "url": "http://shop.test/b" }),
        json!({ "tags": ["b"] }),
        json!({ "prefix": "http://shop.test/b" }),
    ] {
        get(server.address(), "/b");
        let asked = origin.asked().len();
        let mut question = question;
        question["soft"] = json!(true);
        purge(&server, &question);
        // It is not fresh any more: the origin is asked.
        assert_ne!(get(server.address(), "/b").cache(), "Larder; hit");
        assert_eq!(origin.asked().len(), asked + 1, "{question}");
    }
    purge(&server, &json!({ "all": true, "soft": true }));
    origin.end();
    let stale = get(server.address(), "/b");
    assert_eq!((stale.status, stale.text().as_str()), (200, "/b"));
    purge(&server, &json!({ "all": true }));
    assert_eq!(get(server.address(), "/b").status, 502);
}

#[test]
fn what_was_purged_softly_says_that_it_is_stale() {
    let room = Room::new();
    let head = "HTTP/1.1 200 OK\nCache-Control: max-age=60, stale-while-revalidate=60";
    let answers = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |_, stream| {
        // What comes in the background would make it fresh again.
        answers.fetch_add(1, Ordering::Relaxed) == 0 && write_answer(stream, head, b"page")
    });
    let server = Server::before(&room, &origin);
    get(server.address(), "/b");
    thread::sleep(Duration::from_millis(1_100));
    purge(&server, &json!({ "url": "http://shop.test/b", "soft": true }));
    let stale = get(server.address(), "/b");
    assert_eq!((stale.cache().as_str(), stale.text().as_str()), ("Larder; hit", "page"));
    assert!(stale.field("cache-status").unwrap().contains("ttl=-"), "{stale:?}");
}

#[test]
fn a_dry_run_says_what_would_go_and_takes_nothing() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    let dry = |what: Value| {
        let mut what = what;
        what["dry_run"] = json!(true);
        purge(&server, &what)["done"][0].clone()
    };
    assert_eq!(dry(json!({ "url": "http://shop.test/b" }))["responses"], 1);
    assert_eq!(dry(json!({ "tags": ["all"] }))["count"], 4);
    let part = dry(json!({ "prefix": "http://shop.test/a/" }));
    let mut targets: Vec<_> = part["targets"].as_array().unwrap().clone();
    targets.sort_by_key(Value::to_string);
    assert_eq!(targets, [json!("http://shop.test/a/1"), json!("http://shop.test/a/2")]);
    assert_eq!(dry(json!({ "all": true }))["count"], 4);
    assert_eq!(hits(&server, &PATHS), PATHS);
}

#[test]
fn a_question_that_makes_no_sense_is_refused_and_purges_nothing() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &PATHS);
    for question in [
        "",
        "[]",
        "{}",
        "{\"all\":false}",
        "{\"all\":true,\"url\":\"http://shop.test/b\"}",
        "{\"url\":\"/b\"}",
        "{\"urls\":[\"http://shop.test/b\",\"/b\"]}",
        "{\"urls\":[]}",
        "{\"tags\":\"b\"}",
        "{\"tags\":[\"\"]}",
        "{\"prefix\":\"\"}",
        "{\"prefix\":\"http\"}",
        "{\"al\":true}",
        "{\"all\":true,\"dry_run\":1}",
    ] {
        let answer = server.desk(Some(TOKEN), "/purge", Some(question));
        assert_eq!(answer.status, 400, "{question}: {}", answer.text());
        assert!(serde_json::from_slice::<Value>(&answer.body).unwrap()["error"].is_string(), "{question}");
    }
    assert_eq!(hits(&server, &PATHS), PATHS);
    assert_eq!(server.desk(Some(TOKEN), "/purge", None).status, 405);
    assert_eq!(server.desk(Some(TOKEN), "/none", None).status, 404);
}

#[test]
fn the_metrics_are_a_page_that_prometheus_reads() {
    let room = Room::new();
    let origin = tagged();
    let server = Server::before(&room, &origin);
    hits(&server, &["/b", "/b", "/b"]);
    let page = server.desk(Some(TOKEN), "/metrics", None).text();
    let mut known = std::collections::HashSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(known.insert(rest.split(' ').next().unwrap().to_owned()), "{line} twice");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let name = name.split('{').next().unwrap();
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(known.contains(name) || bare.is_some_and(|bare| known.contains(bare)), "{line}");
        }
    }
    for line in ["larder_http_hits_total 2", "larder_http_misses_total 1"] {
        assert!(page.lines().any(|is| is == line), "{line} in {page}");
    }
    assert!(page.contains(&format!("upstream=\"{}\"}} 1", origin.url())), "{page}");
}

#[test]
fn what_would_be_done_is_explained_without_being_done() {
    let room = Room::new();
    let origin = Origin::saying(&format!("{FRESH}\nVary: Accept-Language\nCache-Tag: news"), "page");
    let server = Server::before(&room, &origin);
    let explain = |headers: &Value| -> Value {
        let question = json!({ "url": "http://shop.test/n", "headers": headers }).to_string();
        serde_json::from_slice(&server.desk(Some(TOKEN), "/explain", Some(&question)).body).unwrap()
    };
    assert_eq!(explain(&json!({}))["variants"], json!([]));
    ask(server.address(), "GET", "/n", "Accept-Language: de\r\n");
    let why = explain(&json!({ "accept-language": ["de"] }));
    assert_eq!(why["verdict"], "answer from what is stored");
    let variant = &why["variants"][0];
    assert_eq!((&variant["selected"], &variant["tags"][0]), (&json!(true), &json!("news")));
    assert_eq!(variant["name"], "http://shop.test/n");
    assert_eq!((&variant["lifetime_seconds"], &variant["body_bytes"]), (&json!(60.0), &json!(4)));
    assert_eq!(variant["vary"], json!({ "accept-language": "de" }));
    assert_eq!(explain(&json!({ "accept-language": "fr" }))["verdict"], "ask the origin");
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn the_token_is_never_printed() {
    let room = Room::new();
    let origin = tagged();
    let url = origin.url();
    let local = "127.0.0.1:0";
    let args =
        ["--origin", &url, "--listen", local, "--admin", local, "--store", "memory:", "--access-log", "json"];
    for more in [&["--check"][..], &["--check", "--json"]] {
        let mut all = vec!["serve"];
        all.extend(args);
        all.extend(more);
        let output = room.larder(all).env("LARDER_ADMIN_TOKEN", TOKEN).output().unwrap();
        let said = out(&output) + &err(&output);
        assert!(
            status(&output) == 0 && said.contains("LARDER_ADMIN_TOKEN") && !said.contains(TOKEN),
            "{said}"
        );
    }
    let mut server = Server::start(&room, &args);
    let mut said = String::new();
    for path in ["/stats", "/metrics", "/health", "/none"] {
        said += &server.desk(Some(TOKEN), path, None).text();
    }
    for question in ["{", "{\"url\":1}", "{\"url\":\"http://shop.test/\"}"] {
        said += &server.desk(Some(TOKEN), "/purge", Some(question)).text();
        said += &server.desk(Some(TOKEN), "/explain", Some(question)).text();
    }
    for args in
        [&["purge", "/"][..], &["purge", "--all"], &["explain", "http://shop.test/"], &["purge", "--help"]]
    {
        let output = server.operate(&room, args);
        said += &(out(&output) + &err(&output));
    }
    get(server.address(), "/b");
    server.signal("-TERM");
    server.ended();
    until("it was logged", || server.said().contains("\"/b\""));
    said += &server.said();
    assert!(!said.contains(TOKEN), "{said}");
}
