//! `--explain`: the wording, with a # for each number.

use crate::harness::{Room, err, out, status, until};

/// What was said on standard error, each number as a #, and the hash of a key as KEY.
fn said(output: &std::process::Output) -> String {
    let mut words = String::new();
    let is_hash = |word: &&str| word.len() == 32 && word.chars().all(|char| char.is_ascii_hexdigit());
    let text = err(output);
    let hash = text.split_whitespace().find(is_hash).unwrap_or("no hash");
    for char in text.replace(hash, "KEY").chars() {
        match char {
            '0'..='9' if words.ends_with('#') => {}
            '0'..='9' => words.push('#'),
            // A number's own dot.
            '.' if words.ends_with('#') => {}
            other => words.push(other),
        }
    }
    words
}

#[track_caller]
fn says(output: &std::process::Output, expected: &str) {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n");
    assert_eq!(lines(&said(output)), lines(expected), "\n{}", err(output));
}

#[test]
fn run_explains_a_miss_a_hit_a_stale_hit_and_what_was_invalidated() {
    let room = Room::new();
    let flags = ["--explain", "--key", "k", "--grace", "1h", "--tag", "t"];
    let first = room.run(&flags, "echo one");
    says(
        &first,
        "larder: its key is k KEY
         larder: store: get on sqlite took # ms
         larder: store: nothing
         larder: looks again, with the lock of the key
         larder: store: get on sqlite took # ms
         larder: store: nothing
         larder: miss
         larder: store: get on sqlite took # ms
         larder: store: set on sqlite took # ms
         larder: written: fresh for # m # s
         larder: store: get on sqlite took # ms",
    );
    let second = room.run(&flags, "echo two");
    assert_eq!(out(&second), "one\n");
    says(
        &second,
        "larder: its key is k KEY
         larder: store: get on sqlite took # ms
         larder: store: fresh, with # m # s left of its TTL; # ms old
         larder: hit, #ms old, #m #s left",
    );
    room.call(["invalidate", "t", "--soft"]);
    let third = room.run(&flags, "echo three");
    assert_eq!(out(&third), "one\n");
    let words = said(&third);
    let stale = "larder: store: stale, because tag \"t\" was invalidated softly # ms ago, with # h # m left of its life; # ms old";
    assert!(words.contains(stale), "{words}");
    assert!(words.contains("larder: stale, #ms old, refreshed in the background"), "{words}");
    assert!(words.contains("larder: it is not waited for, as there is no --soft-timeout"), "{words}");
    until("nothing runs in the background", || room.locks().is_empty());
    let young = room.run(&["--explain", "--key", "k", "--ttl", "0s"], "echo young");
    let words = said(&young);
    assert!(words.contains("larder: it is older than the --ttl of this call"), "{words}");
    assert!(words.contains("larder: there is no --grace, so what is stale is not printed"), "{words}");
    room.call(["invalidate", "t"]);
    let fourth = room.run(&flags, "echo four");
    let words = said(&fourth);
    assert!(
        words.contains("larder: store: gone, because tag \"t\" was invalidated # ms ago; # ms old"),
        "{words}"
    );
    assert!(words.contains("larder: miss"), "{words}");
}

#[test]
fn commands_over_a_store_explain_what_it_did_in_words_or_json() {
    let room = Room::new();
    let set = room.call(["set", "a", "1", "--ttl", "1h", "--tag", "t", "--explain"]);
    says(
        &set,
        "larder:      # ms  store: set on sqlite took # ms\n larder:    # ms  written: fresh for # h # m",
    );
    let get = room.call(["get", "a", "--explain"]);
    assert_eq!((status(&get), out(&get)), (0, "1".to_owned()));
    says(
        &get,
        "larder:      # ms  store: get on sqlite took # ms
         larder:    # ms  store: fresh, with # m # s left of its TTL; # ms old",
    );
    room.call(["invalidate", "t"]);
    let gone = room.call(["get", "a", "--explain"]);
    assert_eq!(status(&gone), 1);
    assert!(
        said(&gone).contains("store: gone, because tag \"t\" was invalidated # ms ago"),
        "{}",
        err(&gone)
    );
    room.call(["delete", "a"]);
    let deleted = room.call(["get", "a", "--explain"]);
    assert!(said(&deleted).contains("store: deleted # ms ago"), "{}", err(&deleted));

    let json = room.call(["get", "a", "--explain", "--json"]);
    let account: serde_json::Value = serde_json::from_str(err(&json).trim()).unwrap();
    assert_eq!(account["steps"][0]["operation"], "get");
    assert_eq!(account["steps"][1]["found"]["state"], "deleted");
    let found: serde_json::Value = serde_json::from_str(out(&json).trim()).unwrap();
    assert_eq!(found["found"], false, "standard output is as without");
}

#[test]
fn what_is_explained_cannot_steer_a_terminal() {
    let room = Room::new();
    let key = "evil\u{1b}[2Jkey";
    room.call(["set", key, "1"]);
    let listed = room.call(["delete", key, "other", "--explain"]);
    assert!(!err(&listed).contains('\u{1b}'), "{}", err(&listed));
    let run = room.run(&["--explain", "--key", key], "true");
    assert!(!err(&run).contains('\u{1b}'), "{}", err(&run));
}
