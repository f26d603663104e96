//! `larder drivers` and `larder ping`.

use serde_json::Value;

use crate::harness::{Room, err, out, status};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn drivers_are_listed_with_their_urls_and_their_options() {
    let room = Room::new();
    let text = room.call(["drivers"]);
    assert_eq!(status(&text), 0);
    for part in [
        "sqlite: a table in a SQLite file",
        "  URLs  sqlite: sqlite3:\n",
        "busy_timeout    5s\n",
        "redis+cluster:",
        "dynamodb: a table in DynamoDB\n",
    ] {
        assert!(out(&text).contains(part), "{part}: {}", out(&text));
    }
    let drivers = lines(&out(&room.call(["drivers", "--json"])));
    let names: Vec<&str> = drivers.iter().map(|driver| driver["driver"].as_str().unwrap()).collect();
    let known: Vec<&str> = larder::config::DRIVERS.iter().map(|info| info.name).collect();
    assert_eq!(names, known);
    for driver in drivers {
        assert!(driver["here"].is_boolean() && !driver["options"].as_array().unwrap().is_empty(), "{driver}");
    }
}

#[test]
fn a_ping_says_what_answers_and_how_fast() {
    let room = Room::new();
    assert_eq!(status(&room.call(["set", "k", "v", "--store", "sqlite:a.db"])), 0);
    let output = room.call(["ping", "sqlite:a.db", "memory:"]);
    assert_eq!((status(&output), err(&output)), (0, String::new()));
    let said = out(&output);
    assert!(said.starts_with("sqlite:a.db: reached in "), "{said}");
    assert!(said.contains(", shared, persistent, can be listed, values up to "), "{said}");
    assert!(said.contains("  sqlite, SQLite 3."), "{said}");
    assert!(said.contains("  ping    20 times  min ") && said.contains("p99"), "{said}");
    assert!(said.contains("memory:: reached in "), "{said}");

    let said = lines(&out(&room.call(["ping", "--json", "--count", "3", "sqlite:a.db"])));
    let answer = said.first().unwrap();
    assert_eq!((&answer["reached"], &answer["count"]), (&Value::from(true), &Value::from(3)), "{answer}");
    for times in [&answer["ping_us"], &answer["get_us"]] {
        let rank = ["min", "p50", "p99", "max"].map(|name| times[name].as_u64().unwrap());
        assert!(rank.is_sorted(), "{answer}");
    }
    // Nothing was said, and nothing is there yet but the other commands' default.
    assert_eq!(status(&room.call(["ping"])), 0);
    assert_eq!(status(&room.call(["ping", "--count", "0", "memory:"])), 2);
}

#[test]
fn what_does_not_answer_is_named_beside_what_does() {
    let room = Room::new();
    let output =
        room.call(["ping", "redis://u:hunter2@127.0.0.1:1/0", "sqlite:typo.db", "nonsense:", "memory:"]);
    assert_eq!(status(&output), 1);
    let said = out(&output);
    for part in [
        "redis://127.0.0.1:1/0: not reached: ",
        "nobody listens there",
        "sqlite:typo.db: not reached: ",
        "there is no store at ",
        "nonsense:: not reached: ",
        "unknown driver",
        "memory:: reached in ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("hunter2") && !room.path("typo.db").exists(), "{said}");
    let said = lines(&out(&room.call(["ping", "--json", "redis://127.0.0.1:1"])));
    assert_eq!(said.first().unwrap()["reached"], false);
}

#[test]
fn a_password_that_is_not_encoded_is_not_printed() {
    let room = Room::new();
    for url in [
        "redis://u:hun?ter2@127.0.0.1:1",
        "redis://u:hun#ter2@127.0.0.1:1",
        "redis://u:hun?ter2=x@127.0.0.1:1",
        "redis://u:x?db=hunter2@127.0.0.1:1",
        "postgres://u:hun?ter2@127.0.0.1:1/d",
        "redis://127.0.0.1:1?password=hun@ter2",
    ] {
        let output = room.call(["ping", url]);
        assert_eq!(status(&output), 1, "{output:?}");
        let said = out(&output) + &err(&output);
        assert!(said.contains("not reached: ") && !said.contains("hun") && !said.contains("ter2"), "{said}");
    }
}

#[test]
fn every_cache_of_a_configuration_is_asked_that_has_a_store() {
    let room = Room::new();
    let config = "stacks:\n  one: {l2: 'sqlite:one.db', compress: true}\n  two: {l2: 'redis://127.0.0.1:1'}\n  three: {}\n";
    std::fs::write(room.path("larder.yaml"), config).unwrap();
    let set = ["set", "k", "\"v\"", "--config", "larder.yaml", "--cache", "one"];
    assert_eq!(status(&room.call(set)), 0);
    let output = room.call(["ping", "--config", "larder.yaml"]);
    assert_eq!(status(&output), 1);
    let said = out(&output);
    assert!(said.contains("one: reached in ") && said.contains("two: not reached: "), "{said}");
    assert!(!said.contains("three"), "{said}");
    let output = room.call(["ping", "--config", "larder.yaml", "--cache", "one"]);
    assert_eq!(status(&output), 0, "{output:?}");
    assert!(!out(&output).contains("two"));
}
