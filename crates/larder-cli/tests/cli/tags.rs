//! Tags, soft ends, and what a dry run says.

use serde_json::{Value, json};

use crate::harness::{Room, err, out, status};

/// Two entries in the outermost namespace and two in others.
fn stocked() -> Room {
    let room = Room::new();
    for (key, namespace, tags) in
        [("a", "", &["x", "y"][..]), ("b", "", &["y"]), ("c", "in/side", &["x"]), ("d", "o:u%t", &["z\n"])]
    {
        let mut args = vec!["set", key, "v", "--grace", "1h"];
        tags.iter().for_each(|tag| args.extend(["--tag", tag]));
        if !namespace.is_empty() {
            args.extend(["--namespace", namespace]);
        }
        assert_eq!(status(&room.call(args)), 0);
    }
    room
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn tags_are_listed_with_their_numbers_namespaces_included() {
    let room = stocked();
    assert_eq!(out(&room.call(["tags"])), "      2 x\n      2 y\n      1 z\\n\n");
    assert_eq!(out(&room.call(["tags", "x"])), "      2 x\n");
    assert_eq!(out(&room.call(["tags", "--namespace", "in"])), "      1 x\n");
    let exact = lines(&out(&room.call(["tags", "z", "--json"])));
    assert_eq!(exact, [json!({"tag": "z\n", "entries": 1})]);
    let none = room.call(["tags", "nothing"]);
    assert_eq!((status(&none), out(&none)), (1, String::new()));
}

#[test]
fn tags_work_over_a_folder_of_files_too() {
    let room = Room::new();
    let store = ["--store", "file:files"];
    room.call(["set", "a", "v", "--tag", "t"].iter().chain(&store));
    room.call(["set", "b", "v", "--tag", "t", "--namespace", "n"].iter().chain(&store));
    assert_eq!(out(&room.call(["tags"].iter().chain(&store))), "      2 t\n");
    assert_eq!(status(&room.call(["invalidate", "t"].iter().chain(&store))), 0);
    assert_eq!(status(&room.call(["tags"].iter().chain(&store))), 1);
}

#[test]
fn what_carries_an_invalidated_tag_is_gone_and_nothing_else() {
    let room = stocked();
    let output = room.call(["invalidate", "x", "z\n", "--json"]);
    assert_eq!(lines(&out(&output)), [json!({"tags": ["x", "z\n"], "invalidated": true, "soft": false})]);
    for (key, namespace, left) in [("a", "n", 1), ("c", "in/side", 1), ("d", "o:u%t", 1)] {
        let args: &[&str] = if key == "a" { &["get", key] } else { &["get", key, "--namespace", namespace] };
        assert_eq!(status(&room.call(args)), left, "{key}");
    }
    assert_eq!(out(&room.call(["get", "b"])), "v");
    assert_eq!(out(&room.call(["tags"])), "      1 y\n");
    assert_eq!(status(&room.call(["invalidate", ""])), 2);
    assert_eq!(status(&room.call(["invalidate"])), 2);
}

#[test]
fn an_invalidation_of_a_namespace_leaves_its_neighbours() {
    let room = stocked();
    room.call(["invalidate", "x", "--namespace", "in"]);
    assert_eq!(out(&room.call(["get", "a"])), "v");
    assert_eq!(status(&room.call(["get", "c", "--namespace", "in/side"])), 1);
}

#[test]
fn a_soft_end_leaves_what_has_a_grace_to_those_who_ask_for_stale() {
    for line in [&["invalidate", "x", "--soft"][..], &["clear", "--soft", "--yes"]] {
        let room = stocked();
        assert_eq!(status(&room.call(line)), 0);
        assert_eq!(status(&room.call(["get", "a"])), 1, "{line:?}");
        assert_eq!(out(&room.call(["get", "a", "--stale"])), "v");
        let entry = &lines(&out(&room.call(["get", "a", "--stale", "--json"])))[0];
        assert_eq!(entry["stale"], json!(true));
    }
}

#[test]
fn a_dry_run_says_how_many_would_go_and_changes_nothing() {
    let room = stocked();
    for (line, said) in [
        (&["invalidate", "x", "-n"][..], "2 of 4 entries would go (all were looked at)\n"),
        (&["invalidate", "x", "z\n", "--dry-run"], "3 of 4 entries would go (all were looked at)\n"),
        (&["invalidate", "x", "-n", "--namespace", "in"], "1 of 1 entries would go (all were looked at)\n"),
        (&["invalidate", "x", "-n", "--soft"], "2 of 4 entries would become stale (all were looked at)\n"),
        (&["clear", "-n"], "4 of 4 entries would go (all were looked at)\n"),
        (&["clear", "-n", "--namespace", "in"], "1 of 1 entries would go (all were looked at)\n"),
    ] {
        let output = room.call(line);
        assert_eq!(
            (status(&output), out(&output), err(&output)),
            (0, said.into(), String::new()),
            "{line:?}"
        );
    }
    assert_eq!(status(&room.call(["invalidate", "nothing", "--dry-run"])), 1);
    let counted = lines(&out(&room.call(["invalidate", "y", "--dry-run", "--json"])));
    assert_eq!(
        counted,
        [json!({"would_end": 2, "would_go": 2, "looked_at": 4, "sampled": false, "soft": false})]
    );
    room.call(["set", "mortal", "v", "--tag", "x"]);
    let soft = room.call(["invalidate", "x", "-n", "--soft"]);
    let said =
        "3 of 5 entries would become stale, 1 of them would go, having no grace (all were looked at)\n";
    assert_eq!(out(&soft), said);
    room.call(["delete", "mortal"]);
    room.call(["invalidate", "x", "--soft"]);
    assert!(out(&room.call(["invalidate", "x", "-n", "--soft"])).starts_with("0 of 4 "));
    assert_eq!(out(&room.call(["get", "a", "--stale"])), "v");
}
