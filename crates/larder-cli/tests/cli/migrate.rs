//! `larder migrate`: what arrives, what does not, and what is said about it.

use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use larder::Stack;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::driver::{Driver as _, When};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Room, err, out, status, until};

fn parsed(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A random number, for names in servers that others use too.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "migrate")
}

fn set(room: &Room, store: &str, key: &str, value: &str, flags: &[&str]) {
    let line = [&["set", key, value, "--store", store], flags].concat();
    let output = room.call(line);
    assert_eq!(status(&output), 0, "{}", err(&output));
}

fn get(room: &Room, store: &str, key: &str, flags: &[&str]) -> Output {
    room.call([&["get", key, "--store", store], flags].concat())
}

fn migrate(room: &Room, line: &[&str]) -> Value {
    let output = room.call([&["migrate", "--json"], line].concat());
    assert_eq!((status(&output), err(&output)), (0, String::new()));
    parsed(&output)
}

/// Stores to copy to and back: files, and Redis if there is one.
fn others() -> Vec<(String, String)> {
    let mut others = vec![("file:./there".to_owned(), "app".to_owned())];
    if let Ok(url) = std::env::var("LARDER_TEST_REDIS_URL") {
        others.push((url, format!("migrate{:016x}", random())));
    }
    others
}

#[test]
fn what_is_copied_has_its_tags_its_grace_and_what_is_left_of_its_life() {
    for (there, prefix) in others() {
        let room = Room::new();
        let flags = ["--prefix", &prefix];
        let here = "sqlite:here.db";
        set(&room, here, "plain", "value", &[&["--ttl", "1h", "--grace", "2h"], &flags[..]].concat());
        set(&room, here, "forever", "\u{1}bytes", &[&["--ttl", "forever"], &flags[..]].concat());
        set(&room, here, "tagged", "v", &[&["--tag", "t", "--namespace", "a/b"], &flags[..]].concat());
        set(&room, here, "dead", "v", &[&["--tag", "gone"], &flags[..]].concat());
        set(&room, here, "deleted", "v", &flags);
        assert_eq!(status(&room.call([&["delete", "deleted", "--store", here], &flags[..]].concat())), 0);
        assert_eq!(status(&room.call([&["invalidate", "gone", "--store", here], &flags[..]].concat())), 0);

        let done = migrate(&room, &[&[here, &there], &flags[..]].concat());
        assert_eq!((&done["entries"], &done["tombstones"]), (&json!(4), &json!(1)), "{done}");
        assert!(done["marks"].as_u64().unwrap() >= 1 && done["complete"] == true, "{done}");
        let back = "sqlite:back.db";
        let done = migrate(&room, &[&[&there, back], &flags[..]].concat());
        assert_eq!(done["entries"], 4, "{done}");
        for store in [there.as_str(), back] {
            let get = |key: &str, more: &[&str]| get(&room, store, key, &[&flags[..], more].concat());
            let plain = parsed(&get("plain", &["--json"]));
            assert_eq!(plain["value"], "value");
            let left = plain["ttl_left_ms"].as_u64().unwrap();
            assert!((3_500_000..=3_600_000).contains(&left), "{plain}");
            assert_eq!(parsed(&get("forever", &["--json"]))["ttl_left_ms"], Value::Null);
            assert_eq!(out(&get("forever", &["--raw"])), "\u{1}bytes");
            assert_eq!(parsed(&get("tagged", &["--json", "--namespace", "a/b"]))["tags"], json!(["t"]));
            assert_eq!(status(&get("dead", &[])), 1, "what a tag has ended does not come back");
            assert_eq!(status(&get("deleted", &[])), 1);
            let line = [&["invalidate", "t", "--store", store], &flags[..]].concat();
            assert_eq!(status(&room.call(line)), 0);
            assert_eq!(status(&get("tagged", &["--namespace", "a/b"])), 1);
        }
        room.call([&["clear", "--yes", "--store", &there], &flags[..]].concat());
    }
}

#[test]
fn a_second_run_copies_what_is_missing_or_newer_and_nothing_else() {
    let room = Room::new();
    let (here, there) = ("sqlite:here.db", "file:./there");
    for key in ["a", "b", "c"] {
        set(&room, here, key, "old", &[]);
    }
    assert_eq!(migrate(&room, &[here, there])["entries"], 3);
    let again = migrate(&room, &[here, there]);
    assert_eq!((&again["entries"], &again["there"]), (&json!(0), &json!(3)), "{again}");
    set(&room, here, "a", "newer here", &[]);
    set(&room, there, "b", "newer there", &[]);
    set(&room, here, "d", "new", &[]);
    let again = migrate(&room, &[here, there]);
    assert_eq!((&again["entries"], &again["there"]), (&json!(2), &json!(2)), "{again}");
    for (key, value) in [("a", "newer here"), ("b", "newer there"), ("c", "old"), ("d", "new")] {
        assert_eq!(out(&get(&room, there, key, &[])), value);
    }
    let said = out(&room.call(["migrate", here, there]));
    assert_eq!(said, "0 entries copied, 0 B\n4 were there already, as new or newer\n");
}

/// Ends what carries the tag `t`, between two ticks of the clock, which moves in steps.
fn invalidate(room: &Room, store: &str, flags: &[&str]) {
    thread::sleep(TICK);
    let output = room.call([&["invalidate", "t", "--store", store], flags].concat());
    assert_eq!(status(&output), 0, "{}", err(&output));
    thread::sleep(TICK);
}

const TICK: Duration = Duration::from_millis(20);
const TAGGED: [&str; 6] = ["--tag", "t", "--ttl", "1h", "--grace", "1h"];

#[test]
fn what_the_other_store_has_ended_hard_a_later_soft_end_does_not_bring_back() {
    let room = Room::new();
    let (here, there) = ("sqlite:here.db", "sqlite:there.db");
    set(&room, there, "gone", "v", &TAGGED);
    invalidate(&room, there, &[]);
    set(&room, there, "stale", "v", &TAGGED);
    set(&room, here, "k", "v", &TAGGED);
    invalidate(&room, here, &["--soft"]);
    let done = migrate(&room, &[here, there]);
    assert_eq!(done["entries"], 1, "{done}");
    for _ in 0..2 {
        let look = |key| get(&room, there, key, &["--stale"]);
        assert_eq!(status(&look("gone")), 1, "{}", out(&look("gone")));
        // Both were there when the soft one came, which the other store had not heard of.
        for key in ["stale", "k"] {
            assert_eq!(status(&get(&room, there, key, &[])), 1, "{key}");
            assert_eq!(out(&look(key)), "v", "{key}");
        }
        // Once more, with nothing to do.
        let again = migrate(&room, &[here, there]);
        assert_eq!((&again["marks"], &again["entries"]), (&json!(0), &json!(0)), "{again}");
    }
}

#[test]
fn what_was_ended_hard_is_not_brought_back_by_a_later_soft_end_in_the_other_store() {
    let room = Room::new();
    let (here, there) = ("sqlite:here.db", "sqlite:there.db");
    set(&room, here, "gone", "v", &TAGGED);
    invalidate(&room, here, &[]);
    set(&room, there, "stale", "v", &TAGGED);
    invalidate(&room, there, &["--soft"]);
    set(&room, there, "fresh", "v", &TAGGED);
    let done = migrate(&room, &[here, there]);
    assert_eq!((&done["entries"], &done["marks"]), (&json!(1), &json!(1)), "{done}");
    let look = |key| get(&room, there, key, &["--stale"]);
    assert_eq!(status(&look("gone")), 1, "{}", out(&look("gone")));
    assert_eq!(status(&get(&room, there, "stale", &[])), 1);
    assert_eq!(out(&look("stale")), "v");
    assert_eq!(out(&get(&room, there, "fresh", &[])), "v", "what was born since is not meant");
    let again = migrate(&room, &[here, there]);
    assert_eq!((&again["marks"], &again["entries"]), (&json!(0), &json!(0)), "{again}");
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let room = Room::new();
    set(&room, "sqlite:here.db", "k", &"x".repeat(5_000), &[]);
    set(&room, "sqlite:here.db", "l", "v", &["--namespace", "n"]);
    let done = migrate(&room, &["sqlite:here.db", "sqlite:there.db", "--dry-run"]);
    assert_eq!((&done["entries"], &done["dry_run"]), (&json!(2), &json!(true)));
    assert!(done["bytes"].as_u64().unwrap() > 5_000);
    assert!(!room.path("there.db").exists());
    let said = out(&room.call(["migrate", "-n", "sqlite:here.db", "sqlite:there.db"]));
    assert!(said.starts_with("2 entries would be copied, "), "{said}");
}

#[test]
fn a_prefix_and_a_namespace_limit_what_is_copied() {
    let room = Room::new();
    let here = "sqlite:here.db";
    set(&room, here, "k", "v", &[]);
    set(&room, here, "k", "v", &["--namespace", "a"]);
    set(&room, here, "k", "v", &["--namespace", "a/b"]);
    set(&room, here, "k", "v", &["--namespace", "ab"]);
    set(&room, here, "k", "v", &["--prefix", "other"]);
    for (flags, entries) in [
        (&[][..], 5),
        (&["--prefix", "other"], 1),
        (&["--prefix", "larder"], 4),
        (&["--namespace", "a"], 2),
        (&["--namespace", "a/b"], 1),
        (&["--namespace", "nobody's"], 0),
    ] {
        let done = migrate(&room, &[&[here, "memory:", "--dry-run"], flags].concat());
        assert_eq!(done["entries"], entries, "{flags:?}");
    }
    // A clear of a namespace comes along, and those of its neighbours do not.
    for namespace in ["a", "ab"] {
        set(&room, "sqlite:there.db", "mine", "v", &["--namespace", namespace]);
    }
    for namespace in ["a", "ab"] {
        let line = ["clear", "--yes", "--store", here, "--namespace", namespace];
        assert_eq!(status(&room.call(line)), 0);
    }
    migrate(&room, &[here, "sqlite:there.db", "--namespace", "a"]);
    assert_eq!(status(&get(&room, "sqlite:there.db", "mine", &["--namespace", "a"])), 1);
    assert_eq!(out(&get(&room, "sqlite:there.db", "mine", &["--namespace", "ab"])), "v");
}

#[test]
fn stores_that_cannot_be_are_refused_before_anything_is_done() {
    let room = Room::new();
    set(&room, "sqlite:here.db", "k", "v", &[]);
    for (line, code, said) in [
        (["sqlite:here.db", "sqlite:here.db"], 2, "the same store"),
        (["sqlite:typo.db", "sqlite:there.db"], 2, "FROM: cannot open the store"),
        (["sqlite:here.db", "nonsense:"], 2, "TO: unknown driver"),
        (["sqlite:here.db", "memory:"], 2, "lost when this command ends"),
        (["sqlite:here.db", "redis://u:hunter2@127.0.0.1:1"], 3, "nobody listens"),
    ] {
        let output = room.call([&["migrate"], &line[..]].concat());
        assert_eq!((status(&output), out(&output)), (code, String::new()), "{line:?}");
        assert!(err(&output).contains(said) && !err(&output).contains("hunter2"), "{}", err(&output));
    }
    assert!(!room.path("there.db").exists());
}

#[tokio::test]
async fn what_ctrl_c_broke_off_is_finished_by_the_next_run() {
    const KEYS: usize = 2_000;
    let room = Room::new();
    let driver = SqliteDriver::open(SqliteOptions::new(room.path("here.db"))).await.unwrap();
    let stack = Stack::builder("here").prefix("larder").store(driver).build().unwrap();
    let cache = stack.cache::<String>().unwrap();
    cache.set_many((0..KEYS).map(|n| (n.to_string(), "v".repeat(n % 100)))).await.unwrap();
    stack.close().await.unwrap();

    let mut command = room.larder(["migrate", "--json", "sqlite:here.db", "file:./there"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let written = || std::fs::read_dir(room.path("there")).is_ok_and(|folder| folder.count() > 2);
    until("something is copied", written);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let broken = child.wait_with_output().unwrap();
    assert_eq!(status(&broken), 130, "{broken:?}");
    assert!(err(&broken).contains("running it again copies the rest"), "{}", err(&broken));
    let copied = parsed(&broken);
    assert_eq!(copied["complete"], false);
    let again = migrate(&room, &["sqlite:here.db", "file:./there"]);
    let counts = ["entries", "there"].map(|name| again[name].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), KEYS as u64, "{again}");
    assert!(counts.iter().all(|count| *count > 0), "it broke off in the middle: {copied}, {again}");
    assert_eq!(again["complete"], true);
}

#[test]
fn what_is_not_larders_is_skipped_and_counted() {
    let Ok(url) = std::env::var("LARDER_TEST_REDIS_URL") else { return };
    let room = Room::new();
    let prefix = format!("foreign{:016x}", random());
    set(&room, &url, "k", "v", &["--prefix", &prefix]);
    // Whoever else writes into the same Redis, in keys that look like ours.
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let mut redis = std::net::TcpStream::connect(address).unwrap();
    let foreign = format!("{prefix}:1::foreign");
    std::io::Write::write_all(&mut redis, format!("SET {foreign} hello EX 60\r\n").as_bytes()).unwrap();
    std::io::Read::read_exact(&mut redis, &mut [0; 5]).unwrap();
    let done = migrate(&room, &[&url, "sqlite:there.db", "--prefix", &prefix]);
    assert_eq!((&done["entries"], &done["foreign"]), (&json!(1), &json!(1)), "{done}");
    room.call(["clear", "--yes", "--store", &url, "--prefix", &prefix]);
}

#[test]
fn what_is_too_large_for_the_other_store_is_named_and_the_rest_is_copied() {
    let Ok(endpoint) = std::env::var("LARDER_TEST_DYNAMODB_ENDPOINT") else { return };
    let room = Room::new();
    std::fs::write(room.path("large"), "x".repeat(500_000)).unwrap();
    set(&room, "sqlite:here.db", "large", "@large", &[]);
    set(&room, "sqlite:here.db", "small", "v", &[]);
    let there = format!(
        "dynamodb://larder-cli-{:016x}?region=eu-west-1&endpoint={endpoint}\
         &access_key_id=id&secret_access_key=hunter2",
        random()
    );
    // Only what stores something creates the table, and it does so unasked.
    let missing = get(&room, &there, "small", &[]);
    assert_eq!(status(&missing), 2, "{missing:?}");
    assert_eq!(status(&room.call(["migrate", "--dry-run", "sqlite:here.db", &there])), 0);
    assert_eq!(status(&get(&room, &there, "small", &[])), 2);
    let output = room.call(["migrate", "--json", "sqlite:here.db", &there]);
    assert_eq!(status(&output), 1, "{output:?}");
    let done = parsed(&output);
    assert_eq!((&done["entries"], &done["too_large"]), (&json!(1), &json!(1)), "{done}");
    let said = err(&output);
    assert!(said.contains("larder:1::large: too large") && said.contains("396 KiB"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(out(&get(&room, &there, "small", &[])), "v");
}

#[test]
fn what_cannot_be_listed_can_be_copied_to_and_not_from() {
    let Ok(urls) = std::env::var("LARDER_TEST_MEMCACHED_URLS") else { return };
    let url = urls.split(',').next().unwrap();
    let room = Room::new();
    let (here, prefix) = ("sqlite:here.db", format!("migrate{:016x}", random()));
    set(&room, here, "k", "v", &["--prefix", &prefix, "--ttl", "1m"]);
    let done = migrate(&room, &[here, url, "--prefix", &prefix]);
    assert_eq!(done["entries"], 1, "{done}");
    assert_eq!(out(&get(&room, url, "k", &["--prefix", &prefix])), "v");
    let output = room.call(["migrate", url, "sqlite:there.db"]);
    assert_eq!((status(&output), out(&output)), (2, String::new()));
    assert!(err(&output).contains("memcached driver cannot list its keys"), "{}", err(&output));
    assert!(!room.path("there.db").exists());
}

#[test]
fn the_other_store_is_told_when_it_may_forget() {
    let Ok(url) = std::env::var("LARDER_TEST_REDIS_URL") else { return };
    let room = Room::new();
    let (here, prefix) = ("sqlite:here.db", format!("life{:016x}", random()));
    set(&room, here, "k", "v", &["--prefix", &prefix, "--ttl", "1h", "--grace", "2h"]);
    set(&room, here, "l", "v", &["--prefix", &prefix, "--ttl", "forever"]);
    migrate(&room, &[here, &url, "--prefix", &prefix]);
    let address = url.trim_start_matches("redis://").trim_end_matches('/');
    let life = |key: &str| {
        let mut redis = std::net::TcpStream::connect(address).unwrap();
        let ask = format!("TTL {prefix}:1::{key}\r\n");
        std::io::Write::write_all(&mut redis, ask.as_bytes()).unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(redis), &mut line).unwrap();
        line.trim_start_matches(':').trim().parse::<i64>().unwrap()
    };
    assert!((3 * 3_600 - 60..=3 * 3_600).contains(&life("k")), "{}", life("k"));
    assert_eq!(life("l"), -1, "forever is forever");
    room.call(["clear", "--yes", "--store", &url, "--prefix", &prefix]);
}

#[tokio::test]
async fn whose_turn_it_is_to_load_is_not_copied() {
    let room = Room::new();
    set(&room, "sqlite:here.db", "k", "v", &[]);
    let lease = larder::key::KeySpace::new("larder").unwrap().lease_key("k");
    let stamp = larder::time::Stamp::from_bits(1 << 40);
    let record = larder::entry::wire::encode_mark(&lease, stamp, stamp).unwrap();
    let driver = SqliteDriver::open(SqliteOptions::new(room.path("here.db"))).await.unwrap();
    driver.set(&lease, record, None, When::Always).await.unwrap();
    driver.close().await.unwrap();
    let told = migrate(&room, &["sqlite:here.db", "sqlite:there.db"]);
    let there = SqliteDriver::open(SqliteOptions::new(room.path("there.db"))).await.unwrap();
    assert_eq!(there.get(&lease).await.unwrap(), None, "{told}");
    assert_eq!(told["marks"], 0, "{told}");
    there.close().await.unwrap();
}
