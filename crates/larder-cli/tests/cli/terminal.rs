//! What is different on a terminal: questions are asked, and nothing may steer it.

#![cfg(target_os = "linux")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Command, ExitStatus};

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::{Room, out};

/// Runs a command on a terminal of its own, types something, and returns what the terminal shows.
pub(crate) fn on_terminal(mut command: Command, typed: &str) -> (ExitStatus, String) {
    let mut terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let no_control = i32::try_from(OFlags::NOCTTY.bits()).unwrap();
    let open = || {
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, no_control);
        options.read(true).write(true).open(&name).unwrap()
    };
    let mut child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
    drop(command);
    terminal.write_all(typed.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // The end of a terminal is an error, once all who had it are gone.
    let _ = terminal.read_to_end(&mut shown);
    (child.wait().unwrap(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn clear_asks_and_does_it_only_on_a_yes() {
    let room = Room::new();
    room.call(["set", "k", "v"]);
    for no in ["n\n", "\n", "yy\n", "\u{4}"] {
        let (status, shown) = on_terminal(room.larder(["clear"]), no);
        assert_eq!(status.code(), Some(1), "{shown}");
        assert!(shown.contains("Clear everything under larder in ") && shown.contains("[y/N]"), "{shown}");
        assert_eq!(out(&room.call(["get", "k"])), "v");
    }
    let (status, shown) = on_terminal(room.larder(["clear", "--namespace", "a\x1b[31m"]), "n\n");
    assert_eq!(status.code(), Some(1));
    assert!(shown.contains("the namespace a\\u{1b}[31m in "), "{shown}");
    let (status, _) = on_terminal(room.larder(["clear"]), "y\n");
    assert_eq!(status.code(), Some(0));
    assert_eq!(room.call(["get", "k"]).status.code(), Some(1));
}

#[test]
fn a_value_cannot_steer_the_terminal_unless_asked() {
    let room = Room::new();
    room.call_with_input(["set", "k", "-"], b"a\x1b]0;owned\x07\n\tb\xff");
    let (_, shown) = on_terminal(room.larder(["get", "k"]), "");
    assert_eq!(shown, "a\\u{1b}]0;owned\\u{7}\r\n\tb\\xff\r\n");
    let (_, shown) = on_terminal(room.larder(["get", "k", "--raw"]), "");
    assert!(shown.contains("\x1b]0;owned\x07"), "{shown:?}");
}

#[test]
fn the_question_shows_no_secret() {
    let room = Room::new();
    let (_, shown) =
        on_terminal(room.larder(["clear", "--store", "x://u:s3cret@h/1?password=s3cret"]), "n\n");
    assert!(shown.contains("x://h/1") && !shown.contains("s3cret"), "{shown}");
}
