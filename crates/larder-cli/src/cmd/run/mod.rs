//! `larder run`: runs a command once, and prints what it printed until the TTL is over.
//!
//! A cache costs freshness, never availability: whatever fails here, the store or the locks, the command
//! still runs.
//!
//! Without a timeout the command is larder's child, and what it prints streams through. With one it may have to
//! outlive whoever asked for it, and belongs to a process of its own from the start: see `renew` and `detached`.

mod child;
pub(crate) mod detached;
pub(crate) mod identity;
mod pipes;
mod renew;
mod signals;
mod witness;

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::Path;
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
use crate::output::{escape, note, write_all};
use crate::store::{Found, Store, Writing};
use crate::upkeep;
use witness::Witness;

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
    /// Whether it is fresh; else its grace is not over.
    fresh: bool,
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
        if self.args.explain {
            note(format_args!("its key is {}", escape(self.args.identity.key())));
        }
        if self.args.dry_run {
            return self.dry_run();
        }
        if self.args.force {
            return self.execute(None);
        }
        match self.look() {
            Some(kept) if kept.fresh => {
                if self.is_due(&kept) {
                    self.refresh_behind();
                }
                self.replay_kept(&kept)
            }
            stale => self.renew(stale),
        }
    }

    /// Runs the command as a child, unless somebody else does.
    fn join(&self, folder: &Path, name: &str) -> Outcome {
        match lock::join(folder, name, || self.look_fresh()) {
            Ok(Joined::Held(guard)) => self.execute(Some((guard, name))),
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

    /// What is kept for this very identity, and is fresh: asked again by whoever has the lock.
    fn look_fresh(&self) -> Option<Kept> {
        self.tell(format_args!("looks again, with the lock of the key"));
        self.look().filter(|kept| kept.fresh)
    }

    /// What is kept for this very identity, and is fresh or, if that is good enough, within its grace.
    fn look(&self) -> Option<Kept> {
        let store = self.store.as_ref()?;
        let found = match self.block_on(store.entry(self.args.identity.key())) {
            Ok(found) => found?,
            Err(error) => {
                if !self.warned.replace(true) {
                    warn(format_args!("cannot read what is kept: {error}"));
                }
                return None;
            }
        };
        let Found { value, age, ttl_left, fresh, .. } = found;
        let older_than =
            |most: Duration| self.args.age_max.is_some_and(|max| age >= max.saturating_add(most));
        let is_too_old = older_than(Duration::ZERO);
        if is_too_old {
            self.tell(format_args!("it is older than the --ttl of this call"));
        }
        let fresh = fresh && !is_too_old;
        if !fresh && self.args.grace.is_none_or(older_than) {
            self.tell(match self.args.grace {
                None => format_args!("there is no --grace, so what is stale is not printed"),
                Some(_) => format_args!("it is older than the --ttl and --grace of this call together"),
            });
            return None;
        }
        let Some(recording) = Recording::decode(value, self.args.identity.whole()) else {
            self.tell(format_args!("it is not the output of this very command"));
            return None;
        };
        // The next call like this one looks at both.
        let asked = self.args.age_max.map(|age_max| age_max.saturating_sub(age));
        let ttl_left = ttl_left.into_iter().chain(asked).min();
        Some(Kept { recording, age, ttl_left, fresh })
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
        let witness = self.call_witness();
        let finished = match child::run(command, args.stdin.clone(), Tape::new(room)) {
            Ok(finished) => finished,
            Err(error) => {
                self.dismiss(witness);
                let (status, text) = cannot_start(program, &error);
                if let Some((guard, _)) = held {
                    share(guard, &self.told(&text, status));
                }
                return Err(Failure::Message { status, text });
            }
        };
        let status = finished.ending.status();
        if finished.whole {
            let (ending, outcome) = finished.tape.finish(identity, finished.ending);
            self.keep(ending, &outcome, witness.as_ref());
            self.dismiss(witness);
            if let Some((guard, _)) = held {
                share(guard, &outcome);
            }
            return Ok(status);
        }
        // Incomplete: whoever waits does it again.
        drop(held);
        self.dismiss(witness);
        match finished.unwritten {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(if status == 0 { BROKEN_PIPE } else { status })
            }
            Some(error) => Err(Failure::run(format!("cannot pass on what the command printed: {error}"))),
            None => Ok(status),
        }
    }

    /// Stores the outcome of a command, if it is one to be kept.
    fn keep(&self, ending: Ending, outcome: &Bytes, witness: Option<&Witness>) {
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
        let (ttl, grace, tags) = (Some(self.args.ttl), self.args.grace, self.args.tags.clone());
        let writing = Writing { ttl, grace, tags };
        let keep = witness::keep(store, self.args.identity.key(), outcome, &writing, witness);
        match self.block_on(keep) {
            Ok(true) => {}
            Ok(false) => self.say(format_args!("not kept: a tag of it was invalidated meanwhile")),
            Err(error) => warn(format_args!("cannot keep the output: {error}")),
        }
    }

    /// Stores a witness of a run that may be invalidated while it goes on. Without one, what is kept can be older
    /// than an invalidation.
    fn call_witness(&self) -> Option<Witness> {
        let store = self.store.as_ref().filter(|_| !self.args.tags.is_empty() && !self.args.ttl.is_zero())?;
        self.wrote.set(true);
        let call = Witness::call(store, self.args.identity.key(), &self.args.tags);
        match self.runtime.block_on(call) {
            Ok(witness) => Some(witness),
            Err(error) => {
                warn(format_args!("cannot tell invalidations during the run: {error}"));
                None
            }
        }
    }

    fn dismiss(&self, witness: Option<Witness>) {
        if let (Some(store), Some(witness)) = (&self.store, witness)
            && let Err(error) = self.runtime.block_on(witness.dismiss(store))
        {
            warn(format_args!("cannot clean up after the run: {error}"));
        }
    }

    /// What those who wait for a command that could not be started are to print.
    fn told(&self, text: &str, status: u8) -> Bytes {
        let mut tape = Tape::new(Some(u64::MAX));
        tape.record(Stream::Error, format!("larder: {text}\n").as_bytes());
        tape.finish(self.args.identity.whole(), Ending::Exit(status.into())).1
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

    /// Does something with the store, and says what that did if it is asked for.
    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        if !self.args.explain {
            return self.runtime.block_on(work);
        }
        let (outcome, account) = self.runtime.block_on(larder::explain(work));
        // Of this key alone: a witness is nobody's business.
        let key = self.args.identity.key();
        let steps = account.steps.iter().filter(|step| step.key.as_deref().is_none_or(|of| of == key));
        steps.for_each(|step| note(escape(&step.what.to_string())));
        outcome
    }

    /// Says what only an explanation has room for.
    fn tell(&self, text: std::fmt::Arguments<'_>) {
        if self.args.explain {
            note(text);
        }
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
        if !self.fresh {
            return format!("stale, {age} old");
        }
        match self.ttl_left {
            Some(left) => format!("hit, {age} old, {} left", words(left)),
            None => format!("hit, {age} old, kept forever"),
        }
    }
}

/// Gives an outcome to those who wait.
fn share(guard: Guard, outcome: &[u8]) {
    if let Err(error) = guard.share(outcome) {
        warn(format_args!("cannot pass on the output to those who wait: {error}"));
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
fn cannot_start(program: &std::ffi::OsStr, error: &io::Error) -> (u8, String) {
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
    (status, format!("cannot run {program}: {error}"))
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
