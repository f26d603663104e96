//! `larder run` with output that is old, late or cannot be had.

#![cfg(target_os = "linux")]

use std::io::Read;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::harness::{Room, err, out, status, until};

/// Keeps an old output that is stale from now on.
fn keep_old(room: &Room) {
    let output = room.run(&["--key", "k", "--grace", "1h", "--tag", "t"], "echo old; echo e >&2");
    assert_eq!((out(&output), err(&output)), ("old\n".to_owned(), "e\n".to_owned()));
    assert_eq!(status(&room.call(["invalidate", "t", "--soft"])), 0);
}

/// Waits until what runs in the background is done.
fn settled(room: &Room) {
    until("nothing runs in the background", || room.locks().is_empty());
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

#[test]
fn stale_output_is_printed_at_once_and_many_calls_start_one_refresh() {
    let room = Room::new();
    keep_old(&room);
    let script = format!("{}; echo new", room.wait_at_gate());
    let children: Vec<_> = (0..50).map(|_| room.spawn(&["--key", "k", "--grace", "1h"], &script)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!((status(&output), out(&output), err(&output)), (0, "old\n".into(), "e\n".into()));
    }
    until("the refresh runs", || room.runs() == 2);
    room.open_gate();
    settled(&room);
    assert_eq!(out(&room.run(&["--key", "k"], &script)), "new\n");
    assert_eq!(room.runs(), 2, "one refresh was enough for fifty");
}

#[test]
fn what_runs_in_the_background_keeps_no_pipe_and_no_terminal() {
    let room = Room::new();
    keep_old(&room);
    let script =
        format!("cut -d' ' -f6 /proc/self/stat > session; echo $$ > pid; {}; echo new", room.wait_at_gate());
    let mut child = room.spawn(&["--key", "k", "--grace", "1h"], &script);
    // Both pipes end although the command goes on.
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    assert_eq!(printed, "old\ne\n");
    assert!(child.wait().unwrap().success());
    until("the command runs", || std::fs::read_to_string(room.path("pid")).is_ok_and(|pid| !pid.is_empty()));
    let command = std::fs::read_to_string(room.path("pid")).unwrap();
    test_kill_process(Pid::from_raw(command.trim().parse().unwrap()).unwrap()).unwrap();
    let session = std::fs::read_to_string(room.path("session")).unwrap();
    // Read as the command reads its own: where this session began outside of a container, its number is 0.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    assert_ne!(Some(session.trim()), after_name.split(' ').nth(3), "a session has one terminal");
    room.open_gate();
    settled(&room);
    assert_eq!(out(&room.run(&["--key", "k"], &script)), "new\n");
}

#[test]
fn a_refresh_that_fails_leaves_the_old_output() {
    let room = Room::new();
    keep_old(&room);
    assert_eq!(out(&room.run(&["--key", "k", "--grace", "1h"], "exit 3")), "old\n");
    until("it has failed", || room.runs() == 2);
    settled(&room);
    assert_eq!(out(&room.run(&["--key", "k", "--grace", "1h"], "exit 3")), "old\n");
}

#[test]
fn stale_output_takes_the_place_of_a_failure() {
    let room = Room::new();
    keep_old(&room);
    let flags = ["--key", "k", "--grace", "1h", "--soft-timeout", "1m", "-v"];
    for script in ["echo bad; exit 3", "kill -SEGV $$"] {
        let output = room.run(&flags, script);
        assert_eq!((status(&output), out(&output)), (0, "old\n".to_owned()));
        assert!(err(&output).contains("because the command failed with status "), "{}", err(&output));
    }
    let missing = room.call(["run"].iter().chain(&flags).chain(&["--", "/no/such/program"]));
    assert_eq!((status(&missing), out(&missing)), (0, "old\n".to_owned()));
    assert!(err(&missing).contains("status 127"), "{}", err(&missing));
}

#[test]
fn the_status_that_was_kept_is_that_of_stale_output() {
    let room = Room::new();
    assert_eq!(
        status(&room.run(&["--key", "k", "--keep-failures", "--grace", "1h", "--tag", "t"], "exit 7")),
        7
    );
    room.call(["invalidate", "t", "--soft"]);
    assert_eq!(status(&room.run(&["--key", "k", "--grace", "1h", "--keep-failures"], "exit 0")), 7);
    settled(&room);
}

#[test]
fn within_the_soft_timeout_fresh_output_is_printed() {
    let room = Room::new();
    keep_old(&room);
    let output = room.run(&["--key", "k", "--grace", "1h", "--soft-timeout", "1m"], "echo new; echo f >&2");
    assert_eq!((out(&output), err(&output)), ("new\n".to_owned(), "f\n".to_owned()));
    assert_eq!(out(&room.run(&["--key", "k"], "echo newer")), "new\n");
}

#[test]
fn after_the_soft_timeout_stale_output_is_printed_and_the_command_goes_on() {
    let room = Room::new();
    keep_old(&room);
    let script = format!("{}; echo new", room.wait_at_gate());
    let output = room.run(&["--key", "k", "--grace", "1h", "--soft-timeout", "50ms"], &script);
    assert_eq!((status(&output), out(&output)), (0, "old\n".to_owned()));
    room.open_gate();
    settled(&room);
    assert_eq!(out(&room.run(&["--key", "k"], &script)), "new\n");
    assert_eq!(room.runs(), 2);
}

#[test]
fn after_the_hard_timeout_nothing_is_waited_for_and_the_output_is_kept() {
    let room = Room::new();
    let script = format!("{}; echo new", room.wait_at_gate());
    for timeout in ["0", "50ms"] {
        let output = room.run(&["--hard-timeout", timeout], &script);
        assert_eq!((status(&output), out(&output)), (124, String::new()));
        assert!(err(&output).contains("the command goes on in the background"), "{}", err(&output));
    }
    let waiting = room.spawn(&["--hard-timeout", "1m"], &script);
    until("it waits for the one that runs", || room.waiting() == 1);
    room.open_gate();
    assert_eq!(out(&waiting.wait_with_output().unwrap()), "new\n");
    assert_eq!(out(&room.run(&[], &script)), "new\n");
    assert_eq!(room.runs(), 1);
}

#[test]
fn within_the_hard_timeout_a_run_is_as_any_other() {
    let room = Room::new();
    let output = room.run(&["--hard-timeout", "1m"], "printf 'a\\377'; echo e >&2; exit 9");
    assert_eq!((status(&output), &output.stdout[..], err(&output)), (9, &b"a\xff"[..], "e\n".to_owned()));
    let missing = room.call(["run", "--hard-timeout", "1m", "--", "/no/such/program"]);
    assert_eq!(status(&missing), 127);
    assert!(err(&missing).starts_with("larder: cannot run /no/such/program: "), "{}", err(&missing));
    let large = room.run(&["--hard-timeout", "1m", "--max-output", "3"], "echo 12345");
    assert_eq!(status(&large), 125);
    assert!(err(&large).contains("--max-output"), "{}", err(&large));
    let args = ["run", "--stdin", "--hard-timeout", "1m", "--", "tr", "a-z", "A-Z"];
    let input = "hello\n".repeat(50_000);
    assert_eq!(out(&room.call_with_input(args, input.as_bytes())), input.to_uppercase());
    assert!(room.locks().is_empty());
}

#[test]
fn an_interrupted_caller_leaves_its_command_running_and_a_killed_run_is_taken_over() {
    let room = Room::new();
    let script = format!("echo $PPID > helper; {}; echo new", room.wait_at_gate());
    let mut caller = room.spawn(&["--hard-timeout", "1m"], &script);
    until("it runs", || std::fs::read_to_string(room.path("helper")).is_ok_and(|pid| !pid.is_empty()));
    kill_process(pid(&caller), Signal::INT).unwrap();
    caller.wait().unwrap();
    let waiting = room.spawn(&["--hard-timeout", "1m"], &script);
    until("another one waits", || room.waiting() == 1);
    let helper = std::fs::read_to_string(room.path("helper")).unwrap();
    kill_process(Pid::from_raw(helper.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    until("its command runs anew", || room.runs() == 2);
    room.open_gate();
    assert_eq!(out(&waiting.wait_with_output().unwrap()), "new\n");
    assert!(room.locks().is_empty());
}

#[test]
fn an_invalidated_tag_makes_the_next_run_a_miss() {
    let room = Room::new();
    let flags = ["--key", "k", "--grace", "1h", "--tag", "a", "--tag", "b"];
    room.run(&flags, "echo one");
    assert_eq!(out(&room.run(&flags, "echo two")), "one\n");
    assert_eq!(out(&room.call(["tags"])), "      1 a\n      1 b\n");
    room.call(["invalidate", "other"]);
    assert_eq!(out(&room.run(&flags, "echo two")), "one\n");
    room.call(["invalidate", "b"]);
    assert_eq!(out(&room.run(&flags, "echo two")), "two\n");
    assert_eq!(status(&room.run(&["--tag", ""], "true")), 2);
}

#[test]
fn a_tag_that_is_invalidated_during_a_run_is_a_miss_afterwards_too() {
    for how in [&["invalidate", "b"][..], &["invalidate", "b", "--soft"]] {
        let room = Room::new();
        let flags = ["--key", "k", "--tag", "a", "--tag", "b"];
        let script = format!("echo old; {}", room.wait_at_gate());
        let running = room.spawn(&flags, &script);
        until("it runs", || room.runs() == 1);
        assert_eq!(status(&room.call(how)), 0);
        room.open_gate();
        assert_eq!(out(&running.wait_with_output().unwrap()), "old\n");
        assert_eq!(out(&room.run(&flags, "echo new")), "new\n");
        assert_eq!(out(&room.run(&flags, "echo newer")), "new\n");
        let keys = room.call(["keys", "--namespace", "run", "--store", "sqlite:cache/larder/run.db"]);
        assert_eq!(out(&keys).lines().count(), 1, "a witness is left: {}", out(&keys));
    }
}

#[test]
fn a_hit_past_its_share_of_the_ttl_is_refreshed_behind() {
    let room = Room::new();
    room.run(&["--key", "k", "--ttl", "1h"], "echo one");
    assert_eq!(out(&room.run(&["--key", "k", "--refresh-early", "0.9"], "echo two")), "one\n");
    assert!(room.locks().is_empty());
    assert_eq!(room.runs(), 1);
    assert_eq!(
        out(&room.run(&["--key", "k", "--ttl", "1h", "--refresh-early", "0.0000001"], "echo two")),
        "one\n"
    );
    until("the refresh has run", || room.runs() == 2);
    settled(&room);
    assert_eq!(out(&room.run(&["--key", "k"], "echo three")), "two\n");
}

#[test]
fn a_dry_run_says_that_output_is_stale() {
    let room = Room::new();
    keep_old(&room);
    let output = room.run(&["--key", "k", "--grace", "1h", "--dry-run"], "true");
    assert_eq!(status(&output), 0);
    assert!(out(&output).starts_with("stale, "), "{}", out(&output));
    assert_eq!(status(&room.run(&["--key", "k", "--dry-run"], "true")), 1);
    assert_eq!(room.runs(), 1);
}

#[test]
fn output_older_than_ttl_and_grace_is_not_printed() {
    let room = Room::new();
    room.run(&["--key", "k", "--grace", "1h"], "echo old");
    std::thread::sleep(std::time::Duration::from_millis(20));
    let flags = ["--key", "k", "--ttl", "5ms", "--grace", "5ms"];
    assert_eq!(out(&room.run(&flags, "echo new")), "new\n");
}

#[test]
fn timeouts_that_make_no_sense_are_refused() {
    let room = Room::new();
    for flags in [
        &["--soft-timeout", "1s"][..],
        &["--force", "--hard-timeout", "1s"],
        &["--refresh-early", "1"],
        &["--refresh-early", "x"],
        &["--grace", "5"],
    ] {
        assert_eq!(status(&room.run(flags, "true")), 2, "{flags:?}");
    }
    assert_eq!(room.runs(), 0);
    let by_hand = room.call(["_detached", "--", "true"]);
    assert_eq!(status(&by_hand), 125);
}
