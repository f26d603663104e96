//! `larder run` and the process that it starts: signals, pipes, streaming.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Room, err, out, status, until};

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

/// Starts a script that says "ready", and waits until it has.
fn ready(room: &Room, script: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = room.spawn(&[], script);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, output)
}

#[test]
fn output_streams_through_as_it_comes() {
    let room = Room::new();
    let (mut child, mut output) = ready(&room, &format!("echo ready; {}; echo end", room.wait_at_gate()));
    room.open_gate();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "end\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn signals_reach_the_command_and_what_it_printed_is_not_kept() {
    for (signal, name) in
        [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::QUIT, "QUIT")]
    {
        let room = Room::new();
        let script =
            format!("trap 'echo got {name}; exit 0' {name}; echo ready; while :; do sleep 0.01; done");
        let (mut child, mut output) = ready(&room, &script);
        kill_process(pid(&child), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("got {name}\n"));
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(status(&room.run(&["--dry-run"], &script)), 1);
    }
}

#[test]
fn a_command_that_dies_of_a_signal_gives_128_and_its_number() {
    let room = Room::new();
    let (mut child, _output) = ready(&room, "echo ready; exec sleep 1000");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_command_that_is_stopped_does_not_wait_for_what_it_left_in_the_background() {
    let room = Room::new();
    let (mut child, _output) = ready(&room, "sleep 1000 & echo $! > background; echo ready; wait");
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    let background = std::fs::read_to_string(room.path("background")).unwrap();
    kill_process(Pid::from_raw(background.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn output_of_the_background_belongs_to_the_output() {
    let room = Room::new();
    let script = "(sleep 0.2; echo late) & echo early";
    assert_eq!(out(&room.run(&[], script)), "early\nlate\n");
    assert_eq!(out(&room.run(&[], script)), "early\nlate\n");
    assert_eq!(room.runs(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn what_larder_was_told_to_ignore_the_command_ignores_too() {
    let room = Room::new();
    let command = room.larder(["run", "--", "grep", "SigIgn", "/proc/self/status"]);
    let output = room.in_shell("trap '' HUP INT; exec \"$0\" \"$@\"", &command);
    let mask = out(&output);
    let mask = u64::from_str_radix(mask.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(mask & 0b11, 0b11, "{mask:b}");
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let room = Room::new();
    let mut child = room.spawn(&[], "exec yes");
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), err(&output)), (141, String::new()));
    assert_eq!(status(&room.run(&["--dry-run"], "exec yes")), 1);
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_hit_quietly() {
    let room = Room::new();
    let script = "head -c 1000000 /dev/zero";
    room.run(&[], script);
    let mut child = room.spawn(&[], script);
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), err(&output)), (141, String::new()));
    assert_eq!(room.runs(), 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_and_nothing_is_kept() {
    let room = Room::new();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = room.run_command(&[], "echo x");
    let output = command.stdout(Stdio::from(full)).output().unwrap();
    assert_eq!(status(&output), 125);
    assert!(err(&output).starts_with("larder: cannot pass on"), "{}", err(&output));
    assert_eq!(status(&room.run(&["--dry-run"], "echo x")), 1);
}

#[test]
fn a_killed_larder_keeps_nothing() {
    let room = Room::new();
    let script = format!("echo ready; {}", room.wait_at_gate());
    let (mut child, output) = ready(&room, &script);
    kill_process(pid(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    drop(output);
    until("it is gone", || status(&room.run(&["--dry-run"], &script)) == 1);
    room.open_gate();
    assert_eq!(out(&room.run(&[], &script)), "ready\n");
}

#[test]
fn a_command_that_closes_its_output_is_still_waited_for() {
    let room = Room::new();
    let output = room.run(&[], "echo x; exec >&- 2>&-; sleep 0.2; exit 5");
    assert_eq!((status(&output), out(&output)), (5, "x\n".to_owned()));
}

#[test]
fn a_command_can_open_its_output_by_name() {
    let room = Room::new();
    let output = room.run(&[], "echo a > /dev/stdout; echo b > /dev/stderr; echo c >> /dev/stdout");
    assert_eq!((out(&output), err(&output)), ("a\nc\n".to_owned(), "b\n".to_owned()));
}

#[test]
fn writes_of_many_pages_and_of_many_processes_come_whole() {
    let room = Room::new();
    let script = "for i in 1 2 3 4; do (head -c 100001 /dev/zero; head -c 70000 /dev/zero >&2) & done; wait";
    let output = room.run(&[], script);
    assert_eq!((output.stdout.len(), output.stderr.len()), (400_004, 280_000));
    assert_eq!(output, room.run(&[], script));
}

#[test]
#[cfg(target_os = "linux")]
fn the_order_is_kept_even_if_larder_is_slow_to_read() {
    let room = Room::new();
    let log = room.path("log");
    let script =
        format!("echo ready; {}; echo 1 >&2; echo 2; echo 3 >&2; echo 4; echo 5", room.wait_at_gate());
    let file = std::fs::File::create(&log).unwrap();
    let mut command = room.run_command(&[], &script);
    let mut child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    let shown = || std::fs::read_to_string(&log).unwrap();
    until("it is ready", || shown() == "ready\n");
    kill_process(pid(&child), Signal::STOP).unwrap();
    room.open_gate();
    // Time for the command to run ahead, if it could.
    std::thread::sleep(std::time::Duration::from_millis(200));
    kill_process(pid(&child), Signal::CONT).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(shown(), "ready\n1\n2\n3\n4\n5\n");
}
