//! The command as a process: started, listened to, and waited for. What it prints goes on at once and is
//! recorded on the way. Knows nothing of stores and locks.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use bytes::Bytes;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::pipes::{Pipes, Ready};
use super::signals::Relay;
use crate::capture::{Ending, Stream, Tape};
use crate::output::write_all;

/// How much is read at once, in bytes: what a pipe holds at most.
const BUFFER_BYTES: usize = 64 << 10;
/// How often a child is looked after where its exit cannot be waited for beside its pipes.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What a command came to.
#[derive(Debug)]
pub(super) struct Finished {
    /// How it ended.
    pub(super) ending: Ending,
    /// What it printed, as far as it is kept.
    pub(super) tape: Tape,
    /// Whether that is all: nobody interrupted it, and all that it printed went where it should.
    pub(super) whole: bool,
    /// Why what it printed could not all be passed on.
    pub(super) unwritten: Option<io::Error>,
}

/// Runs a command to its end. It inherits standard input unless `stdin` is given.
///
/// # Errors
/// The command cannot be started.
pub(super) fn run(mut command: Command, stdin: Option<Bytes>, tape: Tape) -> io::Result<Finished> {
    // Without a relay larder dies of its signals and the command of its broken pipes: less, but enough.
    let relay = Relay::start().unwrap_or_default();
    let (pipes, ends) = Pipes::open()?;
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::inherit() });
    let mut child = command.stdout(ends.output).stderr(ends.error).spawn()?;
    // It holds the writing ends; as long as it does, the pipes have no end.
    drop(command);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    relay.running(pid);
    feed(&mut child, stdin);

    let mut copy = Copy { pipes, tape, buffer: vec![0; BUFFER_BYTES], unwritten: None };
    let copied = copy.until_the_end(pid, &relay);
    wait_unreaped(pid);
    relay.finished();
    let status = child.wait()?;
    Ok(Finished {
        ending: ending(status),
        tape: copy.tape,
        whole: copied.is_ok() && copy.unwritten.is_none() && !relay.interrupted(),
        unwritten: copy.unwritten.or(copied.err()),
    })
}

/// Writes standard input from a thread of its own: the command may print before it has read all.
fn feed(child: &mut Child, stdin: Option<Bytes>) {
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), stdin) {
        // A command that does not read its input is none of our business; nor is a thread that cannot be had,
        // for then the pipe is closed, and the command reads nothing.
        let _ = thread::Builder::new().spawn(move || {
            let _ = pipe.write_all(&input);
        });
    }
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Exit(i32::from(crate::failure::RUN_FAILED)),
    }
}

/// The copying of two pipes.
struct Copy {
    pipes: Pipes,
    tape: Tape,
    buffer: Vec<u8>,
    unwritten: Option<io::Error>,
}

impl Copy {
    /// Copies until both pipes are closed by all who can write to them; or, once a signal came, until the
    /// command has ended, for what it leaves behind in the background may live on for long.
    fn until_the_end(&mut self, pid: Option<Pid>, relay: &Relay) -> io::Result<()> {
        let watches_exit = pid.is_some_and(|pid| self.pipes.watch_exit(pid));
        let mut ended = false;
        while self.pipes.is_open() {
            let timeout = (!watches_exit && !ended).then_some(&LOOK_EVERY);
            let mut exited = false;
            for ready in self.pipes.wait(timeout)? {
                match ready {
                    Ready::Readable { stream, last } => while self.copy_once(stream)? && last {},
                    Ready::Exited => exited = true,
                }
            }
            if !ended && (exited || (!watches_exit && has_exited(pid))) {
                ended = true;
                // A signal from here on ends us: there is nobody left to pass it on to.
                relay.finished();
                if relay.interrupted() {
                    return self.drain();
                }
            }
        }
        Ok(())
    }

    /// Reads a pipe once and passes on what came; false if nothing did. Closes it at its end, or when nobody
    /// wants it any more: the command then gets the broken pipe that it would have got without us.
    fn copy_once(&mut self, stream: Stream) -> io::Result<bool> {
        let Some(read) = self.pipes.read(stream, &mut self.buffer)? else { return Ok(false) };
        let bytes = self.buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            self.pipes.close(stream);
            return Ok(false);
        }
        self.tape.record(stream, bytes);
        if let Err(error) = write_all(ours(stream), bytes) {
            self.unwritten = Some(error);
            self.pipes.close(stream);
            return Ok(false);
        }
        Ok(true)
    }

    /// Copies what is there already.
    fn drain(&mut self) -> io::Result<()> {
        while self.copy_once(Stream::Output)? || self.copy_once(Stream::Error)? {}
        Ok(())
    }
}

/// Our own stream of that name.
pub(super) fn ours(stream: Stream) -> BorrowedFd<'static> {
    match stream {
        Stream::Output => rustix::stdio::stdout(),
        Stream::Error => rustix::stdio::stderr(),
    }
}

/// Whether a child has exited. It is not reaped.
fn has_exited(pid: Option<Pid>) -> bool {
    let Some(pid) = pid else { return false };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}

/// Waits until a child has exited. It is not reaped.
fn wait_unreaped(pid: Option<Pid>) {
    let Some(pid) = pid else { return };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}
