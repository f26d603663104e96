//! What `larder run` gives back, and what counts as the same.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::{ffi::OsStr, fs};

use crate::harness::{Room, err, out, status};

#[test]
fn the_second_call_is_a_hit_with_the_same_bytes_and_does_not_run() {
    let room = Room::new();
    let script = r"printf 'a\000b\377\n'; printf 'e\033[31m' >&2; printf c";
    let first = room.run(&[], script);
    let second = room.run(&[], script);
    assert_eq!(first.stdout, b"a\0b\xff\nc");
    assert_eq!(first.stderr, b"e\x1b[31m");
    assert_eq!(first, second);
    assert_eq!(room.runs(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn the_order_of_output_and_error_is_kept() {
    let room = Room::new();
    // Both streams in one pipe show the order.
    let script = "i=0; while [ $i -lt 500 ]; do echo o$i; echo e$i >&2; echo e >&2; i=$((i+1)); done";
    let expected: String = (0..500).map(|i| format!("o{i}\ne{i}\ne\n")).collect();
    let both = |room: &Room| out(&room.in_shell("exec \"$0\" \"$@\" 2>&1", &room.run_command(&[], script)));
    assert_eq!(both(&room), expected);
    assert_eq!(both(&room), expected);
    assert_eq!(room.runs(), 1);
}

#[test]
fn output_larger_than_any_pipe_comes_back_whole() {
    let room = Room::new();
    let script = "head -c 3000000 /dev/urandom; head -c 300000 /dev/urandom >&2";
    let first = room.run(&[], script);
    assert_eq!(first.stdout.len(), 3_000_000);
    assert_eq!(first, room.run(&[], script));
}

#[test]
fn no_output_at_all_is_kept_too() {
    let room = Room::new();
    assert_eq!(room.run(&[], "true"), room.run(&[], "true"));
    assert_eq!(room.runs(), 1);
}

#[test]
fn a_failure_is_not_kept_unless_asked() {
    let room = Room::new();
    assert_eq!(status(&room.run(&[], "echo x; exit 3")), 3);
    assert_eq!(status(&room.run(&[], "echo x; exit 3")), 3);
    assert_eq!(room.runs(), 2);
    let kept = room.run(&["--keep-failures"], "echo x; exit 3");
    assert_eq!(kept, room.run(&["--keep-failures"], "echo x; exit 3"));
    assert_eq!((status(&kept), out(&kept)), (3, "x\n".to_owned()));
    assert_eq!(room.runs(), 3);
}

#[test]
fn force_runs_again_and_replaces() {
    let room = Room::new();
    let first = room.run(&[], "echo $$");
    let forced = room.run(&["--force"], "echo $$");
    assert_ne!(first, forced);
    assert_eq!(room.run(&[], "echo $$"), forced);
}

#[test]
fn dry_run_says_whether_it_would_be_a_hit() {
    let room = Room::new();
    let miss = room.run(&["--dry-run"], "echo x");
    assert_eq!((status(&miss), out(&miss)), (1, "miss\n".to_owned()));
    room.run(&[], "echo x");
    let hit = room.run(&["--dry-run"], "echo x");
    assert_eq!(status(&hit), 0);
    assert!(out(&hit).starts_with("hit, ") && out(&hit).ends_with(" left\n"), "{}", out(&hit));
    assert_eq!(room.runs(), 1);
}

#[test]
fn verbose_says_miss_and_hit_on_standard_error() {
    let room = Room::new();
    assert_eq!(err(&room.run(&["-v"], "true")), "larder: miss\n");
    let hit = err(&room.run(&["-v"], "true"));
    assert!(hit.starts_with("larder: hit, ") && hit.contains(" old, "), "{hit}");
    assert_eq!(err(&room.run(&["-v", "--force"], "true")), "larder: forced\n");
}

#[test]
fn a_ttl_of_zero_keeps_nothing_and_forever_keeps() {
    let room = Room::new();
    room.run(&["--ttl", "0"], "echo x");
    room.run(&["--ttl", "0s"], "echo x");
    assert_eq!(room.runs(), 2);
    room.run(&["--ttl", "forever"], "echo x");
    assert!(err(&room.run(&["-v", "--ttl", "forever"], "echo x")).contains("kept forever"));
    assert_eq!(room.runs(), 3);
}

#[test]
fn output_older_than_the_ttl_that_is_asked_for_is_not_used() {
    let room = Room::new();
    room.run(&["--ttl", "1h"], "echo x");
    std::thread::sleep(std::time::Duration::from_millis(50));
    room.run(&["--ttl", "10ms"], "echo x");
    assert_eq!(room.runs(), 2);
    room.run(&["--force", "--ttl", "1h"], "echo x");
    let hit = err(&room.run(&["-v", "--ttl", "30m"], "echo x"));
    assert!(hit.contains(" old, 29m "), "more is left than was asked for: {hit}");
}

#[test]
fn the_command_and_its_arguments_are_the_key() {
    let room = Room::new();
    let echo = |words: &[&OsStr]| {
        let mut args = vec![OsStr::new("run"), OsStr::new("--"), OsStr::new("printf"), OsStr::new("%s|")];
        args.extend(words);
        room.call(args).stdout
    };
    assert_eq!(echo(&["a b".as_ref()]), b"a b|");
    assert_eq!(echo(&["a".as_ref(), "b".as_ref()]), b"a|b|");
    assert_eq!(echo(&[OsStr::from_bytes(b"\xff")]), b"\xff|");
    assert_eq!(echo(&[OsStr::from_bytes(b"\xfe")]), b"\xfe|");
    assert_eq!(echo(&["\u{fffd}".as_ref()]), "\u{fffd}|".as_bytes());
}

#[test]
fn a_key_of_ones_own_stands_for_any_command() {
    let room = Room::new();
    assert_eq!(out(&room.run(&["--key", "k"], "echo a")), "a\n");
    assert_eq!(out(&room.run(&["--key", "k"], "echo b")), "a\n");
    assert_eq!(out(&room.run(&["--key", "l"], "echo b")), "b\n");
}

#[test]
fn the_working_directory_counts_if_asked() {
    let room = Room::new();
    fs::create_dir(room.path("sub")).unwrap();
    let pwd = |flags: &[&str], folder: &str| {
        let mut command = room.run_command(flags, "pwd -P");
        out(&command.current_dir(room.path(folder)).output().unwrap())
    };
    assert_eq!(pwd(&[], ""), pwd(&[], "sub"));
    let (here, below) = (pwd(&["--cwd"], ""), pwd(&["--cwd"], "sub"));
    assert_ne!(here, below);
    assert_eq!(below, pwd(&["--cwd"], "sub"));
    assert_eq!(room.runs(), 3);
}

#[test]
fn named_variables_count_and_unset_is_not_empty() {
    let room = Room::new();
    let show = |value: Option<&str>| {
        let mut command = room.run_command(&["--env", "X"], "echo ${X-unset}");
        if let Some(value) = value {
            command.env("X", value);
        }
        out(&command.output().unwrap())
    };
    for _ in 0..2 {
        assert_eq!(show(None), "unset\n");
        assert_eq!(show(Some("")), "\n");
        assert_eq!(show(Some("1")), "1\n");
    }
    assert_eq!(room.runs(), 3);
}

#[test]
fn standard_input_counts_if_asked_and_reaches_the_command() {
    let room = Room::new();
    let large: Vec<u8> = (0..1_000_000u32).flat_map(u32::to_le_bytes).collect();
    for input in [&b"a"[..], b"", b"\xff\0", &large] {
        let first = room.call_with_input(["run", "--stdin", "--", "cat"], input);
        assert_eq!(first.stdout, input);
        assert_eq!(room.call_with_input(["run", "--stdin", "-v", "--", "cat"], input).stdout, input);
    }
    let hit = room.call_with_input(["run", "--stdin", "-v", "--", "cat"], b"a");
    assert!(err(&hit).contains("hit"), "{}", err(&hit));
}

#[test]
fn a_command_that_does_not_read_its_input_is_no_failure() {
    let room = Room::new();
    let large = vec![b'x'; 1_000_000];
    let output = room.call_with_input(["run", "--stdin", "--", "echo", "done"], &large);
    assert_eq!((status(&output), out(&output)), (0, "done\n".to_owned()));
}

#[test]
fn standard_input_is_inherited_otherwise() {
    let room = Room::new();
    assert_eq!(room.call_with_input(["run", "--", "cat"], b"typed").stdout, b"typed");
}

#[test]
fn too_much_output_passes_through_whole_and_is_not_kept() {
    let room = Room::new();
    let script = "head -c 2000 /dev/zero";
    for run in 1..=2 {
        let output = room.run(&["--max-output", "1999", "-v"], script);
        assert_eq!(output.stdout.len(), 2000);
        assert!(err(&output).contains("too large"), "{}", err(&output));
        assert_eq!(room.runs(), run);
    }
    assert_eq!(err(&room.run(&["--max-output", "1999"], script)), "");
    room.run(&["--max-output", "2000"], script);
    room.run(&["--max-output", "2000"], script);
    assert_eq!(room.runs(), 4);
}

#[test]
fn a_command_that_cannot_be_started_has_the_status_of_a_shell() {
    let room = Room::new();
    let missing = room.call(["run", "--", "no-such-\x1b[31mprogram"]);
    assert_eq!(status(&missing), 127);
    assert_eq!(err(&missing).lines().count(), 1);
    assert!(
        err(&missing).starts_with("larder: cannot run no-such-\\u{1b}[31mprogram: "),
        "{}",
        err(&missing)
    );
    fs::write(room.path("text"), "").unwrap();
    assert_eq!(status(&room.call(["run", "--", "./text"])), 126);
    assert_eq!(room.locks(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_default_store_belongs_to_the_user_alone() {
    let room = Room::new();
    room.run(&[], "true");
    let mode = |name| fs::metadata(room.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("cache/larder"), 0o700);
    assert_eq!(mode("cache/larder/locks"), 0o700);
    assert!(room.path("cache/larder/run.db").exists());
}

#[test]
fn a_store_that_cannot_be_used_does_not_keep_the_command_from_running() {
    let room = Room::new();
    fs::write(room.path("file"), "").unwrap();
    let mut command = room.run_command(&[], "echo x; echo y >&2; exit 3");
    let output = command.env("XDG_CACHE_HOME", room.path("file")).output().unwrap();
    assert_eq!((status(&output), out(&output)), (3, "x\n".to_owned()));
    assert!(err(&output).contains("larder: warning: ") && err(&output).ends_with("y\n"), "{}", err(&output));

    let mut command = room.run_command(&[], "echo x");
    let output = command.env_remove("XDG_CACHE_HOME").output().unwrap();
    assert_eq!((status(&output), out(&output)), (0, "x\n".to_owned()));
    assert!(err(&output).contains("HOME"), "{}", err(&output));

    let output = room.run(&["--store", "file:file/below"], "echo x");
    assert_eq!((status(&output), out(&output)), (0, "x\n".to_owned()));
    assert!(err(&output).contains("warning"), "{}", err(&output));
}

#[test]
fn the_store_is_named_by_flag_or_variable() {
    let room = Room::new();
    let first = format!("file:{}", room.path("one").display());
    let second = format!("sqlite:{}", room.path("two.db").display());
    room.run(&["--store", &first], "echo x");
    let mut command = room.run_command(&["--store", &first], "echo x");
    command.env("LARDER_STORE", &second).output().unwrap();
    assert_eq!(room.runs(), 1);
    let mut command = room.run_command(&[], "echo x");
    command.env("LARDER_STORE", &second).output().unwrap();
    assert_eq!(room.runs(), 2);
    room.run(&["--store", &second], "echo x");
    assert_eq!(room.runs(), 2);
}

#[test]
fn what_is_stored_by_somebody_else_under_the_key_is_not_printed() {
    let room = Room::new();
    let store = format!("sqlite:{}", room.path("s.db").display());
    room.run(&["--store", &store], "echo x");
    let keys = out(&room.call(["keys", "--store", &store, "--namespace", "run"]));
    let key = keys.trim_end();
    // The key has a line feed in it, which is not printed as one.
    assert!(key.starts_with("sh -c echo >> "), "{key}");
    let exact = out(&room.call(["keys", "--json", "--store", &store, "--namespace", "run"]));
    let exact: serde_json::Value = serde_json::from_str(&exact).unwrap();
    let key = exact["key"].as_str().unwrap();
    for hostile in ["", "LrO\u{1}", "nonsense"] {
        let set = room.call(["set", key, hostile, "--store", &store, "--namespace", "run"]);
        assert_eq!(status(&set), 0);
        let again = room.run(&["--store", &store], "echo x");
        assert_eq!((out(&again), err(&again)), ("x\n".to_owned(), String::new()));
    }
    assert_eq!(room.runs(), 4);
}
