//! The commands over a store.

use serde_json::{Value, json};

use crate::harness::{Room, err, out, status};

fn parsed(output: &std::process::Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn what_is_set_is_got_byte_for_byte() {
    let room = Room::new();
    assert_eq!(status(&room.call(["set", "k", "hello"])), 0);
    let got = room.call(["get", "k"]);
    assert_eq!((status(&got), out(&got), err(&got)), (0, "hello".into(), String::new()));
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(status(&room.call_with_input(["set", "b", "-"], &bytes)), 0);
    assert_eq!(room.call(["get", "b"]).stdout, bytes);
    assert_eq!(status(&room.call_with_input(["set", "c"], b"from stdin")), 0);
    assert_eq!(out(&room.call(["get", "c"])), "from stdin");
}

#[test]
fn a_value_comes_from_a_file_and_an_at_sign_can_be_escaped() {
    let room = Room::new();
    std::fs::write(room.path("v"), "in a file\n").unwrap();
    room.call(["set", "k", "@v"]);
    assert_eq!(out(&room.call(["get", "k"])), "in a file\n");
    room.call(["set", "k", "@@v"]);
    assert_eq!(out(&room.call(["get", "k"])), "@v");
    let missing = room.call(["set", "k", "@missing"]);
    assert_eq!(status(&missing), 2);
    assert!(err(&missing).contains("missing") && err(&missing).contains("@@"), "{}", err(&missing));
    room.call(["set", "k", "-5"]);
    assert_eq!(out(&room.call(["get", "k"])), "-5");
    room.call(["set", "k", ""]);
    let empty = room.call(["get", "k"]);
    assert_eq!((status(&empty), out(&empty)), (0, String::new()));
}

#[test]
fn what_is_not_there_is_status_one() {
    let room = Room::new();
    for line in [
        &["get", "k"][..],
        &["delete", "k"],
        &["expire", "k"],
        &["touch", "k", "--ttl", "1m"],
        &["incr", "k", "--existing"],
    ] {
        let output = room.call(line);
        assert_eq!(
            (status(&output), out(&output), err(&output)),
            (1, String::new(), String::new()),
            "{line:?}"
        );
    }
    assert_eq!(parsed(&room.call(["get", "k", "--json"])), json!({"key": "k", "found": false}));
}

#[test]
fn deleting_says_whether_there_was_something() {
    let room = Room::new();
    room.call(["set", "a", "1"]);
    room.call(["set", "b", "1"]);
    assert_eq!(status(&room.call(["delete", "a", "c"])), 0);
    assert_eq!(status(&room.call(["get", "a"])), 1);
    let output = room.call(["delete", "b", "a", "--json"]);
    assert_eq!(parsed(&output), json!({"keys": ["b", "a"], "deleted": 1}));
}

#[test]
fn an_expired_value_is_not_got() {
    let room = Room::new();
    room.call(["set", "k", "v", "--grace", "1h"]);
    assert_eq!(status(&room.call(["expire", "k"])), 0);
    assert_eq!(status(&room.call(["get", "k"])), 1);
}

#[test]
fn touch_gives_a_new_ttl() {
    let room = Room::new();
    room.call(["set", "k", "v", "--ttl", "1m"]);
    assert_eq!(status(&room.call(["touch", "k", "--ttl", "1h"])), 0);
    let left = parsed(&room.call(["get", "k", "--json"]))["ttl_left_ms"].as_u64().unwrap();
    assert!(left > 3_000_000 && left <= 3_600_000, "{left}");
    room.call(["touch", "k", "--ttl", "forever"]);
    assert_eq!(parsed(&room.call(["get", "k", "--json"]))["ttl_left_ms"], Value::Null);
}

#[test]
fn an_entry_as_json_says_all_about_it() {
    let room = Room::new();
    room.call(["set", "k\n", "v", "--ttl", "1h", "--tag", "b", "--tag", "a"]);
    let entry = parsed(&room.call(["get", "k\n", "--json"]));
    assert_eq!(entry["key"], "k\n");
    assert_eq!(entry["found"], true);
    assert_eq!(entry["value"], "v");
    assert_eq!(entry["codec"], "bytes");
    assert_eq!(entry["tags"].as_array().unwrap().len(), 2);
    assert!(entry["age_ms"].as_u64().unwrap() < 60_000);
    assert!(entry["ttl_left_ms"].as_u64().unwrap() > 3_000_000);
    assert!(entry["stamp"].as_str().unwrap().contains('+'));
    room.call_with_input(["set", "b", "-"], b"\xff\0");
    assert_eq!(parsed(&room.call(["get", "b", "--json"]))["value"], json!({"base64": "/wA="}));
}

#[test]
fn if_absent_keeps_what_is_there() {
    let room = Room::new();
    assert_eq!(status(&room.call(["set", "k", "1", "--if-absent"])), 0);
    let second = room.call(["set", "k", "2", "--if-absent", "--json"]);
    assert_eq!((status(&second), parsed(&second)), (1, json!({"key": "k", "stored": false})));
    assert_eq!(out(&room.call(["get", "k"])), "1");
}

#[test]
fn a_counter_counts_both_ways_and_refuses_what_is_no_number() {
    let room = Room::new();
    assert_eq!(out(&room.call(["incr", "n"])), "1\n");
    assert_eq!(out(&room.call(["incr", "n", "41"])), "42\n");
    assert_eq!(out(&room.call(["incr", "n", "-50", "--existing"])), "-8\n");
    assert_eq!(parsed(&room.call(["incr", "n", "--json"])), json!({"key": "n", "value": -7}));
    assert_eq!(out(&room.call(["get", "n"])), "-7");
    let overflow = room.call(["incr", "n", &i64::MIN.to_string()]);
    assert_eq!(status(&overflow), 2);
    room.call(["set", "k", "text-of-the-value"]);
    let text = room.call(["incr", "k"]);
    assert_eq!(status(&text), 2);
    assert!(err(&text).starts_with("larder: ") && !err(&text).contains("text-of"), "{}", err(&text));
}

#[test]
fn keys_are_listed_escaped_and_exactly_as_json() {
    let room = Room::new();
    for key in ["user:1", "user:2", "x\x1b[31m\ny\\"] {
        room.call(["set", key, "v"]);
    }
    let mut lines: Vec<_> = out(&room.call(["keys"])).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["user:1", "user:2", "x\\u{1b}[31m\\ny\\\\"]);
    assert_eq!(out(&room.call(["keys", "user:"])).lines().count(), 2);
    let exact = parsed(&room.call(["keys", "x", "--json"]));
    assert_eq!(exact, json!({"key": "x\x1b[31m\ny\\"}));
}

#[test]
fn namespaces_nest_and_clear_only_themselves() {
    let room = Room::new();
    room.call(["set", "k", "root"]);
    room.call(["set", "k", "a", "--namespace", "a"]);
    room.call(["set", "k", "ab", "--namespace", "a/b"]);
    room.call(["set", "k", "abc", "--namespace", "ab"]);
    let get = |namespace: &str| out(&room.call(["get", "k", "--namespace", namespace]));
    assert_eq!((get("a"), get("a/b"), get("ab")), ("a".into(), "ab".into(), "abc".into()));
    assert_eq!(out(&room.call(["keys", "--namespace", "a"])), "k\n");
    assert_eq!(status(&room.call(["clear", "--yes", "--namespace", "a"])), 0);
    assert_eq!((get("a"), get("a/b"), get("ab")), (String::new(), String::new(), "abc".into()));
    assert_eq!(out(&room.call(["get", "k"])), "root");
    for wrong in ["", "a//b", "/a"] {
        assert_eq!(status(&room.call(["get", "k", "--namespace", wrong])), 2);
    }
}

#[test]
fn prefixes_keep_users_of_one_store_apart() {
    let room = Room::new();
    room.call(["set", "k", "1"]);
    room.call(["set", "k", "2", "--prefix", "other"]);
    assert_eq!(out(&room.call(["get", "k"])), "1");
    room.call(["clear", "--yes"]);
    assert_eq!(status(&room.call(["get", "k"])), 1);
    assert_eq!(out(&room.call(["get", "k", "--prefix", "other"])), "2");
}

#[test]
fn clear_refuses_without_a_terminal_or_a_yes() {
    let room = Room::new();
    room.call(["set", "k", "v"]);
    let refused = room.call(["clear"]);
    assert_eq!((status(&refused), out(&refused)), (2, String::new()));
    assert!(err(&refused).contains("--yes"), "{}", err(&refused));
    assert_eq!(out(&room.call(["get", "k"])), "v");
    let cleared = room.call(["clear", "--yes", "--json"]);
    assert_eq!(parsed(&cleared)["cleared"], true);
    assert_eq!(status(&room.call(["get", "k"])), 1);
}

#[test]
fn stats_count_by_state() {
    let room = Room::new();
    room.call(["set", "a", "v"]);
    room.call(["set", "b", "v"]);
    room.call(["set", "c", "v", "--grace", "1h"]);
    room.call(["expire", "c"]);
    let stats = parsed(&room.call(["stats", "--json"]));
    assert_eq!((&stats["live"], &stats["stale"], &stats["expired"]), (&json!(2), &json!(1), &Value::Null));
    assert!(stats["oldest_age_ms"].as_u64() >= stats["newest_age_ms"].as_u64());
    let text = out(&room.call(["stats"]));
    assert!(text.contains("live        2\n") && text.contains("stale       1\n"), "{text}");
    let empty = parsed(&room.call(["stats", "--json", "--namespace", "empty"]));
    assert_eq!((&empty["live"], &empty["oldest_age_ms"]), (&json!(0), &Value::Null));
}

#[test]
fn stats_prometheus_prints_a_page_of_every_store() {
    let room = Room::new();
    let config = "stacks: { a: { l2: 'sqlite:a.db' }, b: { l2: 'sqlite:b.db' }, c: {} }";
    std::fs::write(room.path("larder.yaml"), config).unwrap();
    room.call(["set", "k", "1", "--config", "larder.yaml", "--cache", "a"]);
    room.call(["set", "k", "1", "--config", "larder.yaml", "--cache", "b"]);
    room.call(["delete", "k", "--config", "larder.yaml", "--cache", "b"]);
    let output = room.call(["stats", "--prometheus", "--config", "larder.yaml"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    let page = out(&output);
    assert!(page.starts_with("# HELP larder_store_up "), "{page}");
    for line in [
        "larder_store_up{cache=\"a\"} 1",
        "larder_store_up{cache=\"b\"} 1",
        "larder_store_entries{cache=\"a\",state=\"live\"} 1",
        "larder_store_entries{cache=\"b\",state=\"live\"} 0",
        "# TYPE larder_store_oldest_entry_age_seconds gauge",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    assert!(!page.contains("cache=\"c\""), "{page}");
    let only = room.call(["stats", "--prometheus", "--config", "larder.yaml", "--cache", "b"]);
    assert!(!out(&only).contains("cache=\"a\""));
}

#[test]
fn stats_prometheus_says_which_store_does_not_answer() {
    let room = Room::new();
    std::fs::write(room.path("plain"), "").unwrap();
    let config = "stacks: { a: { l2: 'file:plain/below' }, b: { l2: 'sqlite:b.db' } }";
    std::fs::write(room.path("larder.yaml"), config).unwrap();
    room.call(["set", "k", "1", "--config", "larder.yaml", "--cache", "b"]);
    let output = room.call(["stats", "--prometheus", "--config", "larder.yaml"]);
    assert_eq!(status(&output), 3);
    assert!(out(&output).contains("larder_store_up{cache=\"a\"} 0\nlarder_store_up{cache=\"b\"} 1\n"));
    assert!(err(&output).contains("a: "), "{}", err(&output));
}

#[test]
fn prune_gives_back_what_has_expired() {
    let room = Room::new();
    // The first write prunes of its own accord, and would take what has expired by then.
    room.call(["set", "b", "v"]);
    room.call(["set", "a", "v", "--ttl", "1ms"]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(parsed(&room.call(["prune", "--json"])), json!({"pruned": 1}));
    assert_eq!(out(&room.call(["prune"])), "0 pruned\n");
    assert_eq!(out(&room.call(["get", "b"])), "v");
}

#[test]
fn every_store_is_the_same_to_them() {
    let room = Room::new();
    for store in ["file:folder", "sqlite:base.db"] {
        let call = |line: &[&str]| room.call([line, &["--store", store]].concat());
        assert_eq!(status(&call(&["set", "k", "v", "--ttl", "1h"])), 0, "{store}");
        assert_eq!(out(&call(&["get", "k"])), "v", "{store}");
        assert_eq!(out(&call(&["incr", "n", "2"])), "2\n", "{store}");
        assert_eq!(out(&call(&["keys"])).lines().count(), 2, "{store}");
        assert_eq!(status(&call(&["clear", "--yes"])), 0, "{store}");
        let none = call(&["keys"]);
        assert_eq!((status(&none), out(&none), err(&none)), (0, String::new(), String::new()), "{store}");
    }
    assert!(room.path("folder").is_dir());
    assert!(room.path("base.db").exists());
    assert!(!room.path("cache/larder/store.db").exists(), "the default store was touched");
}

#[test]
fn a_store_that_fails_is_status_two_or_three_and_says_what_without_secrets() {
    let room = Room::new();
    std::fs::write(room.path("plain"), "").unwrap();
    let output = room.call(["set", "k", "v", "--store", "file:plain/below"]);
    assert_eq!(status(&output), 3);
    assert!(err(&output).starts_with("larder: "), "{}", err(&output));
    let output = room.call(["get", "k", "--store", "nonsense://user:s3cret@host/1"]);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("nonsense") && !err(&output).contains("s3cret"), "{}", err(&output));
}

#[test]
fn a_key_that_is_too_long_is_a_usage_error_that_says_the_sizes() {
    let room = Room::new();
    let output = room.call(["get", &"k".repeat(2_000)]);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("2000 bytes"), "{}", err(&output));
}

#[test]
fn flags_that_contradict_each_other_are_usage_errors() {
    let room = Room::new();
    for line in [
        &["get", "k", "--store", "file:x", "--config", "y"][..],
        &["get"],
        &["get", "k", "--nope"],
        &["touch", "k"],
        &["set", "k", "v", "--ttl", "10"],
        &["incr", "k", "many"],
        &["get", "k", "--cache", "users"],
        &[],
    ] {
        let output = room.call(line);
        assert_eq!((status(&output), out(&output)), (2, String::new()), "{line:?}");
    }
}
