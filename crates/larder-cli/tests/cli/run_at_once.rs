//! Many invocations at once: one runs, the others wait for it.

#![cfg(target_os = "linux")]

use std::process::{Child, Output};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Room, err, out, status, until};

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Starts one that runs until the gate opens, and others that wait for it.
fn one_and_waiting(room: &Room, flags: &[&str], script: &str, others: usize) -> (Child, Vec<Child>) {
    let script = format!("{}\n{script}", room.wait_at_gate());
    let first = room.spawn(flags, &script);
    until("the first one runs", || room.runs() == 1);
    let waiting: Vec<_> = (0..others).map(|_| room.spawn(flags, &script)).collect();
    until("the others wait", || room.waiting() == others);
    (first, waiting)
}

fn ends(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[test]
fn fifty_at_once_start_the_command_once() {
    let room = Room::new();
    let script = format!("{}\necho $$; echo e >&2", room.wait_at_gate());
    let children: Vec<_> = (0..50).map(|_| room.spawn(&[], &script)).collect();
    until("one runs and the others wait", || room.runs() == 1 && room.waiting() == 49);
    room.open_gate();
    let outputs = ends(children);
    for output in &outputs {
        assert_eq!(*output, outputs[0]);
    }
    assert_eq!((status(&outputs[0]), err(&outputs[0])), (0, "e\n".to_owned()));
    assert_eq!(room.runs(), 1);
    assert!(room.locks().is_empty());
}

#[test]
fn if_the_one_that_runs_is_killed_exactly_one_other_takes_over() {
    let room = Room::new();
    let (mut first, waiting) = one_and_waiting(&room, &[], "echo $$", 8);
    kill(&first, Signal::KILL);
    first.wait().unwrap();
    until("another one runs", || room.runs() == 2);
    until("the others wait for it", || room.waiting() == 7);
    room.open_gate();
    let outputs = ends(waiting);
    for output in &outputs {
        assert_eq!(*output, outputs[0]);
    }
    assert_eq!(status(&outputs[0]), 0);
    assert!(!outputs[0].stdout.is_empty());
    assert_eq!(room.runs(), 2);
    assert!(room.locks().is_empty());
}

#[test]
fn a_failure_is_shared_by_those_who_waited_and_the_next_one_runs_again() {
    let room = Room::new();
    let (first, waiting) = one_and_waiting(&room, &[], "echo $$; echo bad >&2; exit 9", 5);
    room.open_gate();
    let expected = first.wait_with_output().unwrap();
    assert_eq!((status(&expected), err(&expected)), (9, "bad\n".to_owned()));
    for output in ends(waiting) {
        assert_eq!(output, expected);
    }
    assert_eq!(room.runs(), 1);
    let script = format!("{}\necho $$; echo bad >&2; exit 9", room.wait_at_gate());
    assert_ne!(room.run(&[], &script).stdout, expected.stdout);
    assert_eq!(room.runs(), 2);
}

#[test]
fn a_crash_of_the_command_is_shared_too_and_never_kept() {
    let room = Room::new();
    let (first, waiting) = one_and_waiting(&room, &["--keep-failures"], "echo $$; kill -SEGV $$", 3);
    room.open_gate();
    let expected = first.wait_with_output().unwrap();
    assert_eq!(status(&expected), 139);
    for output in ends(waiting) {
        assert_eq!(output, expected);
    }
    assert_eq!(room.runs(), 1);
    let script = format!("{}\necho $$; kill -SEGV $$", room.wait_at_gate());
    room.run(&["--keep-failures"], &script);
    assert_eq!(room.runs(), 2);
}

#[test]
fn nothing_is_kept_with_a_ttl_of_zero_but_those_who_waited_share() {
    let room = Room::new();
    let (first, waiting) = one_and_waiting(&room, &["--ttl", "0"], "echo $$", 4);
    room.open_gate();
    let expected = first.wait_with_output().unwrap();
    for output in ends(waiting) {
        assert_eq!(output, expected);
    }
    assert_eq!(room.runs(), 1);
}

#[test]
fn those_who_waited_share_even_if_the_store_does_not_work() {
    let room = Room::new();
    std::fs::write(room.path("plain"), "").unwrap();
    let flags = ["--store", "file:plain/below"];
    let (first, waiting) = one_and_waiting(&room, &flags, "echo $$", 4);
    room.open_gate();
    let expected = first.wait_with_output().unwrap();
    for output in ends(waiting) {
        assert_eq!(output.stdout, expected.stdout);
    }
    assert_eq!(room.runs(), 1);
}

#[test]
fn output_that_is_too_large_to_share_is_made_by_each() {
    let room = Room::new();
    let (first, waiting) = one_and_waiting(&room, &["--max-output", "10"], "echo 0123456789", 3);
    room.open_gate();
    assert_eq!(out(&first.wait_with_output().unwrap()), "0123456789\n");
    for output in ends(waiting) {
        assert_eq!((status(&output), out(&output)), (0, "0123456789\n".to_owned()));
    }
    assert_eq!(room.runs(), 4);
}

#[test]
fn an_interrupted_run_is_not_shared_and_another_one_takes_over() {
    let room = Room::new();
    let (first, waiting) = one_and_waiting(&room, &[], "echo $$", 3);
    kill(&first, Signal::TERM);
    assert_eq!(status(&first.wait_with_output().unwrap()), 143);
    until("another one runs", || room.runs() == 2);
    room.open_gate();
    let outputs = ends(waiting);
    for output in &outputs {
        assert_eq!((status(output), &output.stdout), (0, &outputs[0].stdout));
    }
    assert_eq!(room.runs(), 2);
}

#[test]
fn whoever_waits_can_be_interrupted() {
    use std::os::unix::process::ExitStatusExt;
    for signal in [Signal::INT, Signal::TERM] {
        let room = Room::new();
        let (first, waiting) = one_and_waiting(&room, &[], "true", 2);
        kill(&waiting[0], signal);
        let mut waiting = waiting.into_iter();
        let killed = waiting.next().unwrap().wait_with_output().unwrap();
        assert_eq!(killed.status.signal(), Some(signal.as_raw()));
        room.open_gate();
        assert_eq!(status(&first.wait_with_output().unwrap()), 0);
        assert_eq!(status(&waiting.next().unwrap().wait_with_output().unwrap()), 0);
        assert_eq!(room.runs(), 1);
    }
}

#[test]
fn force_does_not_wait_for_anyone() {
    let room = Room::new();
    let (first, _) = one_and_waiting(&room, &[], "true", 0);
    // Same key, but the gate is still closed: it can only end because it does not wait there.
    let mut forced = room.run_command(&["--force"], &format!("{}\ntrue", room.wait_at_gate()));
    let forced = forced.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("the forced one runs too", || room.runs() == 2);
    room.open_gate();
    assert_eq!(status(&forced.wait_with_output().unwrap()), 0);
    assert_eq!(status(&first.wait_with_output().unwrap()), 0);
}

#[test]
fn different_keys_do_not_wait_for_each_other() {
    let room = Room::new();
    let (first, _) = one_and_waiting(&room, &[], "true", 0);
    assert_eq!(out(&room.run(&[], "echo other")), "other\n");
    room.open_gate();
    first.wait_with_output().unwrap();
}

#[test]
fn a_command_that_asks_for_its_own_output_fails_instead_of_waiting_for_itself() {
    let room = Room::new();
    let larder = env!("CARGO_BIN_EXE_larder");
    let script = format!("'{larder}' run --key k -- echo inner");
    let output = room.call(["run", "--key", "k", "--", "sh", "-c", &script]);
    assert_eq!(status(&output), 125);
    assert!(err(&output).contains("asks for its own output"), "{}", err(&output));
    let nested = format!("'{larder}' run --key l -- echo inner");
    assert_eq!(out(&room.call(["run", "--key", "k", "--", "sh", "-c", &nested])), "inner\n");
}

#[test]
fn a_lock_file_that_was_left_behind_is_harmless_and_goes() {
    let room = Room::new();
    let (mut first, _) = one_and_waiting(&room, &[], "true", 0);
    kill(&first, Signal::KILL);
    first.wait().unwrap();
    assert_eq!(room.locks().len(), 1);
    room.open_gate();
    let script = format!("{}\ntrue", room.wait_at_gate());
    assert_eq!(status(&room.run(&[], &script)), 0);
    assert!(room.locks().is_empty());
}

#[test]
fn whoever_gets_the_lock_of_a_killed_one_looks_again_before_it_runs() {
    let room = Room::new();
    let (mut killed, _) = one_and_waiting(&room, &[], "echo $$", 0);
    kill(&killed, Signal::KILL);
    killed.wait().unwrap();
    // The test takes the place of the killed one, and holds its lock.
    let lock = std::fs::File::open(&room.locks()[0]).unwrap();
    lock.lock().unwrap();
    let script = format!("{}\necho $$", room.wait_at_gate());
    let waiting = room.spawn(&[], &script);
    until("it waits", || room.waiting() == 1);
    room.open_gate();
    let forced = room.run(&["--force"], &script);
    drop(lock);
    assert_eq!(waiting.wait_with_output().unwrap(), forced);
    assert_eq!(room.runs(), 2);
    assert!(room.locks().is_empty());
}
