//! What is printed about the commands. The texts are kept beside the tests, so that a change of them is seen
//! in a review; `LARDER_BLESS=1 cargo test -p larder-cli` writes them anew.

use std::fs;
use std::path::Path;

use crate::harness::{Room, err, out, status};

fn is_as_kept(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help").join(name);
    if std::env::var_os("LARDER_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} has changed; if it should have, run with LARDER_BLESS=1. Now:\n{text}");
}

const COMMANDS: [&str; 23] = [
    "run",
    "get",
    "set",
    "delete",
    "expire",
    "touch",
    "incr",
    "keys",
    "tags",
    "invalidate",
    "clear",
    "stats",
    "prune",
    "migrate",
    "serve",
    "purge",
    "explain",
    "warm",
    "drivers",
    "ping",
    "check",
    "completions",
    "man",
];

#[test]
fn help_is_short_or_long_and_as_kept() {
    let room = Room::new();
    is_as_kept("larder-short.txt", &out(&room.call(["-h"])));
    is_as_kept("larder-long.txt", &out(&room.call(["--help"])));
    for command in COMMANDS {
        let (short, long) = (room.call([command, "-h"]), room.call([command, "--help"]));
        assert_eq!((status(&short), status(&long)), (0, 0));
        assert!(!out(&short).contains("Examples:") && out(&long).contains("Examples:"), "{command}");
        is_as_kept(&format!("{command}-long.txt"), &out(&long));
    }
    is_as_kept("run-short.txt", &out(&room.call(["run", "-h"])));
}

#[test]
fn help_is_a_command_too() {
    let room = Room::new();
    assert_eq!(out(&room.call(["help"])), out(&room.call(["--help"])));
    assert_eq!(out(&room.call(["help", "run"])), out(&room.call(["run", "--help"])));
}

#[test]
fn the_version_is_that_of_the_package() {
    let room = Room::new();
    assert_eq!(out(&room.call(["--version"])), format!("larder {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nothing_at_all_shows_the_help_on_standard_error() {
    let room = Room::new();
    let output = room.call(Vec::<String>::new());
    assert_eq!((status(&output), out(&output)), (2, String::new()));
    assert!(err(&output).contains("Usage: larder"));
}

#[test]
fn the_help_shows_no_secret_of_the_environment() {
    let room = Room::new();
    let mut command = room.larder(["get", "--help"]);
    let output = command.env("LARDER_STORE", "redis://u:s3cret@h").output().unwrap();
    assert!(!out(&output).contains("s3cret"));
}

#[test]
fn completions_and_the_manual_page_name_every_command_and_flag() {
    let room = Room::new();
    let page = out(&room.call(["man"]));
    assert!(page.contains(".TH larder 1"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = out(&room.call(["completions", shell]));
        for word in COMMANDS.into_iter().chain(["keep-failures", "if-absent", "max-output"]) {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    for command in COMMANDS {
        assert!(page.contains(&format!("LARDER {}", command.to_uppercase())), "{command}");
    }
    assert!(page.contains("keep\\-failures") && page.contains("Exit status"));
    assert_eq!(status(&room.call(["completions", "tcsh"])), 2);
}
