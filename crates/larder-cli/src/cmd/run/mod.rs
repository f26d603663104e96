//! `larder run`: runs a command once, and prints what it printed until the TTL is over.
//!
//! A cache costs freshness, never availability: whatever fails here, the store or the locks, the command
//! still runs.

mod child;
pub(crate) mod identity;
mod pipes;
mod signals;

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::xxh3_128;

use crate::args::high::{HiRun, Place};
use crate::args::units::words;
use crate::capture::{Ending, Recording, Stream, Tape};
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::lock::{self, Guard, Joined};
use crate::output::{note, write_all};
use crate::store::{Found, Store};
use crate::upkeep;

/// Names the keys that larders further up are running commands for: see [`Runner::check_recursion`].
const RUNNING: &str = "_LARDER_RUNNING";
/// The status of a command that was stopped because nobody reads its output any more: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

/// Runs the command, or prints what is kept.
pub(crate) fn run(args: HiRun, runtime: &Runtime) -> Outcome {
    let runner = Runner::new(args, runtime);
    let outcome = runner.run();
    runner.leave();
    outcome
}

struct Runner<'r> {
    args: HiRun,
    runtime: &'r Runtime,
    /// `None` if it could not be opened.
    store: Option<Store>,
    /// Whether something was written to it.
    wrote: Cell<bool>,
    /// Whether somebody was told that it does not work.
    warned: Cell<bool>,
}

/// What is kept, and since when.
struct Kept {
    recording: Recording,
    age: Duration,
    ttl_left: Option<Duration>,
}

impl<'r> Runner<'r> {
    fn new(args: HiRun, runtime: &'r Runtime) -> Self {
        let store = match runtime.block_on(Store::open_for_run(&args.place)) {
            Ok(store) => Some(store),
            Err(failure) => {
                warn(format_args!("the store does not work, so nothing is kept: {}", text_of(failure)));
                None
            }
        };
        Self { args, runtime, store, wrote: Cell::new(false), warned: Cell::new(false) }
    }

    fn run(&self) -> Outcome {
        if self.args.dry_run {
            return self.dry_run();
        }
        if self.args.force {
            return self.execute(None);
        }
        if let Some(kept) = self.look() {
            return self.replay_kept(&kept);
        }
        let Some(folder) = &self.args.locks else { return self.execute(None) };
        let name = self.lock_name();
        check_recursion(&name)?;
        match lock::join(folder, &name, || self.look()) {
            Ok(Joined::Held(guard)) => self.execute(Some((guard, &name))),
            Ok(Joined::Found(kept)) => self.replay_kept(&kept),
            Ok(Joined::Shared(outcome)) => match Recording::decode(outcome, self.args.identity.whole()) {
                Some(recording) if recording.ending != Ending::TooLarge => {
                    self.say(format_args!("printed by another invocation that began before"));
                    replay(&recording)
                }
                // Too large to be passed on, or another key with the same hash.
                _ => self.execute(None),
            },
            Err(error) => {
                warn(format_args!("cannot wait for others in {}: {error}", folder.display()));
                self.execute(None)
            }
        }
    }

    fn dry_run(&self) -> Outcome {
        let (text, status) = match self.look() {
            Some(kept) => (format!("{}\n", kept.words()), FOUND),
            None => ("miss\n".to_owned(), NOT_FOUND),
        };
        write_all(rustix::stdio::stdout(), text.as_bytes())
            .map_err(|error| Failure::io("write to standard output", &error))?;
        Ok(status)
    }

    /// What is kept for this very identity, and is young enough.
    fn look(&self) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let found = match self.runtime.block_on(store.get(self.args.identity.key())) {
            Ok(found) => found?,
            Err(error) => {
                if !self.warned.replace(true) {
                    warn(format_args!("cannot read what is kept: {error}"));
                }
                return None;
            }
        };
        let Found { value, age, ttl_left, .. } = found;
        if self.args.age_max.is_some_and(|age_max| age >= age_max) {
            return None;
        }
        let recording = Recording::decode(value, self.args.identity.whole())?;
        // The next call like this one looks at both.
        let asked = self.args.age_max.map(|age_max| age_max.saturating_sub(age));
        let ttl_left = ttl_left.into_iter().chain(asked).min();
        Some(Kept { recording, age, ttl_left })
    }

    fn replay_kept(&self, kept: &Kept) -> Outcome {
        self.say(format_args!("{}", kept.words()));
        replay(&kept.recording)
    }

    /// Runs the command; keeps what it printed, and gives it to those who wait.
    fn execute(&self, held: Option<(Guard, &str)>) -> Outcome {
        self.say(format_args!("{}", if self.args.force { "forced" } else { "miss" }));
        let args = &self.args;
        let Some((program, rest)) = args.command.split_first() else {
            return Err(Failure::usage("there is no command to run"));
        };
        let mut command = Command::new(program);
        command.args(rest);
        if let Some((_, name)) = &held {
            command.env(RUNNING, running_with(name));
        }
        let identity = args.identity.whole();
        let room = args.output_max.checked_sub(args.stdin.as_ref().map_or(0, |stdin| stdin.len() as u64));
        let finished = child::run(command, args.stdin.clone(), Tape::new(room))
            .map_err(|error| cannot_start(program, &error))?;
        let status = finished.ending.status();
        if finished.whole {
            let (ending, outcome) = finished.tape.finish(identity, finished.ending);
            self.keep(ending, &outcome);
            if let Some((guard, _)) = held
                && let Err(error) = guard.share(&outcome)
            {
                warn(format_args!("cannot pass on the output to those who wait: {error}"));
            }
            return Ok(status);
        }
        // Incomplete: whoever waits does it again.
        drop(held);
        match finished.unwritten {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(if status == 0 { BROKEN_PIPE } else { status })
            }
            Some(error) => Err(Failure::run(format!("cannot pass on what the command printed: {error}"))),
            None => Ok(status),
        }
    }

    /// Stores the outcome of a command, if it is one to be kept.
    fn keep(&self, ending: Ending, outcome: &Bytes) {
        match ending {
            Ending::Exit(0) => {}
            Ending::Exit(_) if self.args.keep_failures => {}
            Ending::TooLarge => {
                return self.say(format_args!("too large to be kept (see --max-output)"));
            }
            Ending::Exit(_) => {
                return self.say(format_args!("not kept: the command failed (see --keep-failures)"));
            }
            Ending::Signal(signal) => {
                return self.say(format_args!("not kept: the command died of signal {signal}"));
            }
        }
        if self.args.ttl.is_zero() {
            return;
        }
        let Some(store) = &self.store else { return };
        self.wrote.set(true);
        if let Err(error) =
            self.runtime.block_on(store.keep(self.args.identity.key(), outcome.clone(), self.args.ttl))
        {
            warn(format_args!("cannot keep the output: {error}"));
        }
    }

    /// Lets go of the store. One that was only read is left as it is, as if the process had been killed: to
    /// close it in order would be the larger part of a hit.
    fn leave(self) {
        let Some(store) = self.store else { return };
        if !self.wrote.get() {
            std::mem::forget(store);
            return;
        }
        let closed = self.runtime.block_on(async {
            upkeep::keep_up(&store, self.args.pruned.as_deref()).await;
            store.close().await
        });
        if let Err(error) = closed {
            warn(format_args!("cannot close the store: {error}"));
        }
    }

    /// The name of the lock of this key in this store.
    fn lock_name(&self) -> String {
        let place = match &self.args.place {
            Place::Url(url) => url.as_bytes(),
            _ => b"",
        };
        let key = self.args.identity.key();
        format!("{:032x}", xxh3_128(&[place, b"\0", key.as_bytes()].concat()))
    }

    fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.args.verbose {
            note(text);
        }
    }
}

impl Kept {
    fn words(&self) -> String {
        let age = words(self.age);
        match self.ttl_left {
            Some(left) => format!("hit, {age} old, {} left", words(left)),
            None => format!("hit, {age} old, kept forever"),
        }
    }
}

/// Prints a recording, each part to the stream that it came from.
fn replay(recording: &Recording) -> Outcome {
    for (stream, chunk) in &recording.chunks {
        if let Err(error) = write_all(child::ours(*stream), chunk) {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Ok(BROKEN_PIPE);
            }
            let name = match stream {
                Stream::Output => "output",
                Stream::Error => "error",
            };
            return Err(Failure::run(format!("cannot write to standard {name}: {error}")));
        }
    }
    Ok(recording.ending.status())
}

/// Refuses to wait for a command that waits for us: a wrapper called `ls` that runs `larder run -- ls`.
fn check_recursion(name: &str) -> Result<(), Failure> {
    let above = env::var(RUNNING).unwrap_or_default();
    if above.split(',').any(|running| running == name) {
        return Err(Failure::run(
            "the command asks for its own output: it runs larder with the same key (give the full path of the \
             program that is meant)",
        ));
    }
    Ok(())
}

/// The keys that are being run for, this one included.
fn running_with(name: &str) -> OsString {
    let mut running = env::var_os(RUNNING).unwrap_or_default();
    if !running.is_empty() {
        running.push(",");
    }
    running.push(name);
    running
}

/// The failure of a command that cannot be started, with the status that a shell gives it.
fn cannot_start(program: &std::ffi::OsStr, error: &io::Error) -> Failure {
    let status = match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        // "Exec format error", a directory, and the like.
        _ => 126,
    };
    let program = match program.to_string_lossy() {
        program if program.is_empty() => "\"\"".to_owned(),
        program => crate::output::escape(&program).into_owned(),
    };
    Failure::Message { status, text: format!("cannot run {program}: {error}") }
}

fn warn(text: std::fmt::Arguments<'_>) {
    note(format_args!("warning: {text}"));
}

fn text_of(failure: Failure) -> String {
    match failure {
        Failure::Message { text, .. } => text,
        Failure::BrokenPipe => "broken pipe".to_owned(),
    }
}
