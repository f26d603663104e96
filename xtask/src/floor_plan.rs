//! The floor plan: which room may name which, checked against the source, and the same table for
//! ARCHITECTURE.md. Everything about the plan is decided in the tables at the top.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::source;
use crate::tree::Tree;

/// A room of the crate `larder`.
struct Room {
    name: &'static str,
    /// The rooms that its code may name, besides itself.
    doors: &'static [&'static str],
}

const fn room(name: &'static str, doors: &'static [&'static str]) -> Room {
    Room { name, doors }
}

/// The rooms from the ground up. A door leads down, unless [`STAIRS`] has it.
///
/// Opening a door is a commit of its own that says why.
const ROOMS: &[Room] = &[
    room("error", &[]),
    room("time", &[]),
    room("key", &["error"]),
    room("tag", &["error"]),
    room("entry", &["error", "time", "tag"]),
    room("codec", &["error", "entry"]),
    room("options", &["error", "time", "tag", "entry"]),
    room("advisor", &["time"]),
    room("event", &["error", "entry", "advisor"]),
    room("stats", &["error", "event"]),
    room("explain", &["time", "entry", "event"]),
    room("trace", &["event"]),
    room("counter", &[]),
    room("memory", &["time", "entry", "event"]),
    room("driver", &["error", "time", "key", "entry"]),
    room(
        "stack",
        &[
            "error", "time", "key", "tag", "entry", "codec", "options", "advisor", "event", "stats",
            "explain", "trace", "memory", "driver",
        ],
    ),
    room("loaded", &["time"]),
    room("get_or_set", &["error", "time", "tag", "entry", "options", "explain", "stack", "loaded"]),
    room(
        "cache",
        &[
            "error",
            "time",
            "tag",
            "entry",
            "codec",
            "options",
            "event",
            "counter",
            "stack",
            "loaded",
            "get_or_set",
        ],
    ),
    room("source", &["error", "time", "entry", "explain", "stack", "loaded", "get_or_set", "cache"]),
    room("records", &["error", "time", "entry", "stack", "cache"]),
    room("larder", &["error", "advisor", "stack", "cache"]),
    room("expansion", &["error", "cache"]),
    room(
        "config",
        &[
            "error", "time", "key", "codec", "options", "advisor", "stats", "memory", "driver", "stack",
            "larder",
        ],
    ),
    room("testing", &["error", "time", "key", "entry", "event", "memory", "driver", "stack"]),
];

/// Doors that lead up: the two that a user's first line of code needs.
const STAIRS: &[(&str, &str, &str)] = &[
    ("stack", "cache", "`Stack::cache` hands out the typed handle, so that a program begins with one call"),
    ("get_or_set", "cache", "a request holds the handle that it was made from"),
];

/// Doors for one file of a room only.
const SIDE_DOORS: &[(&str, &str, &str)] = &[(
    "driver/memory.rs",
    "memory",
    "it is a store on the memory tier's engine: the same bounds, written once",
)];

/// What one crate of the workspace may depend on, of the others. A package may name itself for its tests.
const CRATES: &[(&str, &[&str])] = &[
    ("crates/larder", &["larder-macros"]),
    // Its decisions use nobody; its stores are stacks.
    ("crates/larder-http", &["larder"]),
    // For its examples only: what it expands to are calls of the library.
    ("crates/larder-macros", &["larder"]),
    ("crates/larder-cli", &["larder", "larder-http"]),
    // An application as anybody's: it meets the others over HTTP only.
    ("examples/shop", &[]),
    ("xtask", &[]),
    ("fuzz", &["larder", "larder-http"]),
    // The library itself, on other locks and another runtime.
    ("races", &[]),
    ("races/locks", &[]),
    ("races/runtime", &[]),
];

const SOURCE: &str = "crates/larder/src/";

/// The rooms of `larder-http` from the ground up, and those that each may name. ARCHITECTURE.md has the same table.
const HTTP_ROOMS: &[(&str, &[&str])] = &[
    ("header", &[]),
    ("policy", &["header"]),
    ("body", &[]),
    ("key", &[]),
    ("origin", &["body"]),
    ("store", &["policy"]),
    ("engine", &["header", "policy", "body", "key", "origin", "store"]),
    ("tower", &["body", "origin", "engine"]),
    ("reqwest", &["body", "origin", "engine"]),
    ("testing", &["policy", "store"]),
];

const HTTP_SOURCE: &str = "crates/larder-http/src/";

/// What is wrong with the rooms of `larder`.
pub(crate) fn rooms(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (path, text) in tree.files(SOURCE, ".rs") {
        let inner = path.strip_prefix(SOURCE).unwrap_or(path);
        let module = module_of(inner);
        let Some(name) = module.first().copied() else { continue };
        seen.insert(name.to_owned());
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            complaints.push(format!("{path}: {name} is not on the floor plan (xtask/src/floor_plan.rs)"));
            continue;
        };
        // Tests stand things up and look at them from outside: they may name any room.
        if module.last() == Some(&"tests") {
            continue;
        }
        let code = source::without_tests(&source::code(text));
        for named in source::names(&code, &module) {
            let to = named.name.as_str();
            let line = named.line;
            if to == name || (name == "testing" && to == "driver_suite") {
                continue;
            }
            if !ROOMS.iter().any(|room| room.name == to) {
                complaints
                    .push(format!("{path}:{line}: crate::{to} is not a room; name the room it lives in"));
            } else if let Some(door) = door(room, inner, to) {
                used.insert(door);
            } else {
                complaints.push(format!("{path}:{line}: {name} may not use {to}; see ARCHITECTURE.md"));
            }
        }
    }
    for room in ROOMS.iter().filter(|room| !seen.contains(room.name)) {
        complaints.push(format!("{SOURCE}{}: on the floor plan, and not there", room.name));
    }
    for door in all_doors().filter(|(from, to)| seen.contains(room_of(from)) && !used.contains(&(*from, *to)))
    {
        complaints.push(format!("{SOURCE}{}: nobody goes through its door to {}; close it", door.0, door.1));
    }
    complaints.extend(doors_that_lead_up());
    complaints
}

fn room_of(from: &str) -> &str {
    module_of(from).first().copied().unwrap_or(from)
}

/// The door by which a file of a room may name another room.
fn door(room: &Room, file: &str, to: &str) -> Option<(&'static str, &'static str)> {
    let inside = room.doors.iter().find(|door| **door == to).map(|door| (room.name, *door));
    let stairs = || STAIRS.iter().find(|(from, door, _)| *from == room.name && *door == to);
    let side = || SIDE_DOORS.iter().find(|(from, door, _)| *from == file && *door == to);
    inside.or_else(|| stairs().or_else(side).map(|(from, door, _)| (*from, *door)))
}

fn all_doors() -> impl Iterator<Item = (&'static str, &'static str)> {
    let inside = ROOMS.iter().flat_map(|room| room.doors.iter().map(|door| (room.name, *door)));
    inside.chain(STAIRS.iter().chain(SIDE_DOORS).map(|(from, to, _)| (*from, *to)))
}

fn doors_that_lead_up() -> Vec<String> {
    let place = |name: &str| ROOMS.iter().position(|room| room.name == name);
    let up = |room: &&Room, door: &&&str| place(door) >= place(room.name);
    ROOMS
        .iter()
        .flat_map(|room| {
            room.doors.iter().filter(move |door| up(&room, door)).map(move |door| (room.name, door))
        })
        .map(|(room, door)| {
            format!("the door from {room} to {door} leads up: doors lead down, stairs are listed")
        })
        .collect()
}

/// The module path of a file of `larder`: `stack/l2.rs` is `[stack, l2]`, `stack/mod.rs` is `[stack]`.
fn module_of(inner: &str) -> Vec<&str> {
    let path = inner.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').collect() }
}

/// What is wrong with the rooms of `larder-http`.
pub(crate) fn http_rooms(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    let exports = exports(tree.text(&format!("{HTTP_SOURCE}lib.rs")));
    for (path, text) in tree.files(HTTP_SOURCE, ".rs") {
        let module = module_of(path.strip_prefix(HTTP_SOURCE).unwrap_or(path));
        let Some(name) = module.first().copied() else { continue };
        let Some((_, doors)) = HTTP_ROOMS.iter().find(|(room, _)| *room == name) else {
            complaints.push(format!("{path}: {name} is not on the floor plan (xtask/src/floor_plan.rs)"));
            continue;
        };
        let code = source::without_tests(&source::code(text));
        for named in source::names(&code, &module) {
            let export = exports.iter().find(|(exported, _)| *exported == named.name);
            let to = export.map_or(named.name.as_str(), |(_, room)| room);
            // What is exported by a macro is at the root.
            let is_own = to == name || (name == "testing" && to == "http_store_suite");
            if !is_own && !doors.contains(&to) {
                let line = named.line;
                complaints.push(format!("{path}:{line}: {name} may not use {to}; see ARCHITECTURE.md"));
            }
        }
    }
    complaints
}

/// What a crate's root hands out of its rooms, and the room of each.
fn exports(root: &str) -> Vec<(&str, &str)> {
    let statements = root.split(';').filter_map(|statement| statement.rsplit_once("pub use "));
    let rooms = statements.filter_map(|(_, path)| path.split_once("::"));
    let is_separator = |character: char| !character.is_alphanumeric() && character != '_';
    rooms
        .flat_map(|(room, names)| {
            names.split(is_separator).filter(|name| !name.is_empty()).map(move |name| (name, room))
        })
        .collect()
}

/// What is wrong with the doors between crates.
pub(crate) fn crates(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.files("", "Cargo.toml") {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
        let Some((_, allowed)) = CRATES.iter().find(|(of, _)| *of == folder) else {
            complaints.push(format!("{path}: this crate is not on the floor plan (xtask/src/floor_plan.rs)"));
            continue;
        };
        let own = folder.rsplit('/').next().unwrap_or(folder);
        for name in dependencies(text) {
            let is_ours = CRATES.iter().any(|(of, _)| of.rsplit('/').next() == Some(name));
            if is_ours && name != own && !allowed.contains(&name) {
                complaints.push(format!("{path}: {own} may not use {name}; see ARCHITECTURE.md"));
            }
        }
    }
    complaints
}

/// The names of the dependencies in a manifest, of whatever kind.
pub(crate) fn dependencies(manifest: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            is_dependencies = section.trim_end_matches(']').ends_with("dependencies");
        } else if is_dependencies && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or("");
            found.extend((!name.is_empty()).then_some(name));
        }
    }
    // A dependency that goes on over several lines begins with a bracket or a quote on the others.
    found.retain(|name| name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_'));
    found
}

/// The table of rooms for ARCHITECTURE.md. What a room is for is what its first line says.
pub(crate) fn table(tree: &Tree) -> String {
    let mut table = String::from("| Room | What it is | May name |\n| --- | --- | --- |\n");
    for room in ROOMS.iter().rev() {
        let file = [format!("{SOURCE}{}.rs", room.name), format!("{SOURCE}{}/mod.rs", room.name)];
        let text = file.iter().map(|path| tree.text(path)).find(|text| !text.is_empty()).unwrap_or("");
        let mut doors: Vec<String> = room.doors.iter().map(|door| format!("`{door}`")).collect();
        doors.extend(
            STAIRS.iter().filter(|(from, ..)| *from == room.name).map(|(_, to, _)| format!("`{to}` ↑")),
        );
        doors.extend(
            SIDE_DOORS
                .iter()
                .filter(|(from, ..)| room_of(from) == room.name)
                .map(|(from, to, _)| format!("`{to}` (only `{from}`)")),
        );
        let doors = if doors.is_empty() { "nobody".to_owned() } else { doors.join(", ") };
        let _ = writeln!(table, "| `{}` | {} | {doors} |", room.name, first_sentence(text));
    }
    table.push_str("\nDoors that are not plain steps down, and why:\n\n");
    for (from, to, why) in STAIRS.iter().chain(SIDE_DOORS) {
        let _ = writeln!(table, "- `{from}` → `{to}`: {why}.");
    }
    table
}

/// The first sentence of a file's `//!`, without links.
fn first_sentence(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ");
    let sentence = paragraph.split_once(". ").map_or(paragraph.as_str(), |(sentence, _)| sentence);
    let mut pieces = sentence.trim_end_matches('.').split("`](");
    let mut plain = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        plain.push('`');
        plain.push_str(piece.split_once(')').map_or("", |(_, after)| after));
    }
    plain.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints_about(file: &str, source: &str) -> Vec<String> {
        let path = format!("{SOURCE}{file}");
        let found = rooms(&Tree::of(&[(&path, source)]));
        // A tree of one file lacks the other rooms and uses few doors.
        found.into_iter().filter(|c| !c.contains("and not there") && !c.contains("close it")).collect()
    }

    #[test]
    fn a_driver_that_uses_the_stack_is_refused() {
        let source = "//! x\n\nuse crate::error::Result;\nuse crate::stack::Stack;\n";
        assert_eq!(
            complaints_about("driver/redis/mod.rs", source),
            ["crates/larder/src/driver/redis/mod.rs:4: driver may not use stack; see ARCHITECTURE.md"]
        );
    }

    #[test]
    fn a_path_in_the_middle_of_code_counts_and_test_code_does_not() {
        assert_eq!(complaints_about("driver/x.rs", "fn f() { crate::stack::go() }").len(), 1);
        assert_eq!(complaints_about("entry/wire.rs", "fn f(x: super::super::codec::Y) {}").len(), 1);
        assert!(
            complaints_about("driver/x.rs", "#[cfg(test)]\nmod tests { use crate::stack::Stack; }")
                .is_empty()
        );
        assert!(complaints_about("driver/sqlite/tests.rs", "use crate::testing::ManualClock;").is_empty());
    }

    #[test]
    fn a_side_door_is_for_its_file_only() {
        let source = "use crate::memory::Engine;";
        assert!(complaints_about("driver/memory.rs", source).is_empty());
        assert_eq!(complaints_about("driver/file/mod.rs", source).len(), 1);
    }

    #[test]
    fn a_name_that_is_re_exported_at_the_root_is_refused_inside() {
        let found = complaints_about("stack/mod.rs", "use crate::Error;");
        assert!(found[0].ends_with("crate::Error is not a room; name the room it lives in"), "{found:?}");
    }

    #[test]
    fn a_room_without_a_row_a_row_without_a_room_and_an_unused_door_are_complained_about() {
        let found = rooms(&Tree::of(&[
            ("crates/larder/src/util.rs", "//! x"),
            ("crates/larder/src/key.rs", "//! x"),
        ]));
        assert!(found.iter().any(|c| c.contains("util is not on the floor plan")), "{found:?}");
        assert!(found.iter().any(|c| c.contains("src/stack: on the floor plan, and not there")), "{found:?}");
        assert!(
            found.iter().any(|c| c.contains("src/key: nobody goes through its door to error")),
            "{found:?}"
        );
    }

    #[test]
    fn doors_of_the_plan_lead_down() {
        assert_eq!(doors_that_lead_up(), Vec::<String>::new());
    }

    #[test]
    fn the_parsers_of_http_know_no_policy_and_the_policy_knows_them() {
        let about =
            |file: &str, source: &str| http_rooms(&Tree::of(&[(&format!("{HTTP_SOURCE}{file}"), source)]));
        assert_eq!(
            about("header/date.rs", "//! x\nuse crate::policy::Policy;\n"),
            ["crates/larder-http/src/header/date.rs:2: header may not use policy; see ARCHITECTURE.md"]
        );
        assert!(about("policy/mod.rs", "use crate::header::date;").is_empty());
        assert!(about("header/mod.rs", "#[cfg(test)]\nmod tests { use crate::policy::Policy; }").is_empty());
        assert_eq!(about("attic.rs", "//! x").len(), 1);
        let root = "pub mod policy;\n\npub use engine::{\n    Cache, Other,\n};\npub use body::Body;\n";
        assert_eq!(exports(root), [("Cache", "engine"), ("Other", "engine"), ("Body", "body")]);
        let tree = Tree::of(&[
            (&format!("{HTTP_SOURCE}lib.rs"), root),
            (&format!("{HTTP_SOURCE}origin.rs"), "use crate::{Body, Cache};"),
        ]);
        let complaint = "crates/larder-http/src/origin.rs:1: origin may not use engine; see ARCHITECTURE.md";
        assert_eq!(http_rooms(&tree), [complaint]);
    }

    #[test]
    fn a_crate_that_depends_upward_is_refused() {
        let found = crates(&Tree::of(&[
            ("crates/larder/Cargo.toml", "[dependencies]\nlarder-cli.workspace = true\n"),
            ("crates/larder-cli/Cargo.toml", "[dependencies]\nlarder = { workspace = true }\n"),
            ("crates/larder-new/Cargo.toml", ""),
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            found[0],
            "crates/larder-new/Cargo.toml: this crate is not on the floor plan (xtask/src/floor_plan.rs)"
        );
        assert_eq!(found[1], "crates/larder/Cargo.toml: larder may not use larder-cli; see ARCHITECTURE.md");
    }

    #[test]
    fn the_table_has_every_room_and_what_it_is() {
        let tree = Tree::of(&[(
            "crates/larder/src/tag.rs",
            "//! [`Tags`](crate::tag): names for\n//! [`many`]. More.\n",
        )]);
        let table = table(&tree);
        assert!(table.contains("| `tag` | `Tags`: names for `many` | `error` |"), "{table}");
        assert!(ROOMS.iter().all(|room| table.contains(&format!("| `{}` |", room.name))));
    }
}
