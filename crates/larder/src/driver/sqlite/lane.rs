//! Lanes: queues of work on a SQLite file, each with threads that work them off, one connection a thread.
//!
//! Knows threads and transactions, and nothing of what a piece of work does.
//!
//! A read of 2 kB takes 11 µs on the caller's thread and 33 through one of these (unoptimised build; a hot
//! page). Work goes through threads nevertheless: a cold page comes from the disk, a lock may be held for
//! seconds, and a runtime's thread that sits in either runs no timers, so that no timeout of the layers above
//! would be kept. Threads start when there is work: a process that opens, reads once and closes is done in
//! less than a millisecond.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, SystemClock};

use super::table;

/// How many pieces of work may wait in a lane; more are refused.
const WAITING_MAX: usize = 65_536;
/// How many bytes of values may wait in a lane before more is refused.
const WAITING_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How many writes share a transaction at most.
const BATCH_MAX: usize = 256;

/// One piece of work with whoever waits for it.
pub(super) trait Job: Send {
    /// What it writes, in bytes, so that transactions stay of a size.
    fn bytes(&self) -> u64;
    /// Does it.
    fn run(&mut self, connection: &Connection) -> Ran;
    /// Answers: with what came of it, or with why that does not count.
    fn finish(self: Box<Self>, outcome: Result<()>);
}

/// How a piece of work went, as far as its lane has to know.
#[derive(Debug, Default)]
pub(super) struct Ran {
    pub(super) failed: Option<Error>,
    /// The connection had better be opened anew.
    pub(super) broken: bool,
}

struct Call<T, W> {
    what: &'static str,
    bytes: u64,
    work: Option<W>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T: Send, W: FnOnce(&Connection) -> rusqlite::Result<T> + Send> Job for Call<T, W> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn run(&mut self, connection: &Connection) -> Ran {
        let Some(work) = self.work.take() else { return Ran::default() };
        let (result, ran) = match work(connection) {
            Ok(value) => (Ok(value), Ran::default()),
            Err(cause) => {
                let broken = table::is_broken(&cause);
                let error = table::failed(self.what, cause);
                (Err(error.clone()), Ran { failed: Some(error), broken })
            }
        };
        self.result = Some(result);
        ran
    }

    fn finish(self: Box<Self>, outcome: Result<()>) {
        let result = match (self.result, outcome) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(result), Ok(())) => result,
            (None, Ok(())) => Err(ended(self.what)),
        };
        // Whoever gave up waiting has nothing to hear.
        let _ = self.reply.send(result);
    }
}

/// A queue and the threads that work it off.
pub(super) struct Lane {
    queue: Arc<Queue>,
    worker: Arc<dyn Fn(&Queue) + Send + Sync>,
    /// Counts the threads, by the receivers that they hold.
    running: watch::Sender<()>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("threads_max", &self.queue.threads_max).finish_non_exhaustive()
    }
}

impl Lane {
    /// A lane whose threads each run `worker`, until the queue says that it is over.
    pub(super) fn new(threads_max: usize, worker: impl Fn(&Queue) + Send + Sync + 'static) -> Self {
        let queue = Queue { state: Mutex::default(), changed: Condvar::new(), threads_max };
        Self { queue: Arc::new(queue), worker: Arc::new(worker), running: watch::Sender::new(()) }
    }

    /// Does a piece of work on one of the lane's connections. Dropping the future does not take it back.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        bytes: u64,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = Call { what, bytes, work: Some(work), result: None, reply };
        self.push(Task::Job(Box::new(job)), what)?;
        answer.await.unwrap_or_else(|_| Err(ended(what)))
    }

    /// Has the lane prune. Returns how many entries went.
    pub(super) async fn prune(&self) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.push(Task::Prune(reply), "prune")?;
        answer.await.unwrap_or_else(|_| Err(ended("prune")))
    }

    fn push(&self, task: Task, what: &'static str) -> Result<()> {
        let mut state = self.queue.state.lock();
        if state.refusing {
            return Err(Error::new(ErrorKind::Closed, format!("sqlite {what}: the driver was closed")));
        }
        if state.waiting.len() >= WAITING_MAX || state.waiting_bytes >= WAITING_BYTES_MAX {
            let message = format!("sqlite {what}: {} calls are waiting already", state.waiting.len());
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        state.waiting_bytes += task.bytes();
        state.waiting.push_back(task);
        let starts = state.waiting.len() > state.idle && state.threads < self.queue.threads_max;
        state.threads += usize::from(starts);
        drop(state);
        self.queue.changed.notify_one();
        if starts { self.start(what) } else { Ok(()) }
    }

    fn start(&self, what: &'static str) -> Result<()> {
        let (queue, worker, running) =
            (Arc::clone(&self.queue), Arc::clone(&self.worker), self.running.subscribe());
        let started = std::thread::Builder::new().name("larder-sqlite".into()).spawn(move || {
            let leaving = Leaving(&queue);
            worker(&queue);
            drop(leaving);
            drop(running);
        });
        let Err(cause) = started else { return Ok(()) };
        let mut state = self.queue.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // The others will come to it.
            return Ok(());
        }
        // Nobody will: dropping them tells whoever waits.
        state.waiting.clear();
        state.waiting_bytes = 0;
        Err(Error::from_source(ErrorKind::Unavailable, format!("sqlite {what}: starting a thread"), cause))
    }

    /// Takes no more work. What waits is still done.
    pub(super) fn refuse(&self) {
        self.queue.state.lock().refusing = true;
    }

    /// Waits until all is done that was waiting, and the lane's connections are closed.
    pub(super) async fn close(&self) {
        self.end();
        self.running.closed().await;
    }

    fn end(&self) {
        let mut state = self.queue.state.lock();
        state.refusing = true;
        state.closed = true;
        drop(state);
        self.queue.changed.notify_all();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.end();
    }
}

/// Counts a thread out however it ends, so that another one can take its place.
struct Leaving<'a>(&'a Queue);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
    }
}

/// What a lane is asked to do.
pub(super) enum Task {
    Job(Box<dyn Job>),
    Prune(oneshot::Sender<Result<u64>>),
}

impl Task {
    fn bytes(&self) -> u64 {
        match self {
            Self::Job(job) => job.bytes(),
            Self::Prune(_) => 0,
        }
    }
}

/// What a thread takes from the queue.
pub(super) enum Taken {
    Jobs(Vec<Box<dyn Job>>),
    Prune(oneshot::Sender<Result<u64>>),
    /// The time is up.
    Nothing,
    /// The lane is closed and all is done.
    Over,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Task>,
    waiting_bytes: u64,
    /// Threads that wait for work.
    idle: usize,
    threads: usize,
    /// Whether work is no longer taken.
    refusing: bool,
    /// Whether the threads end when all is done.
    closed: bool,
}

impl Queue {
    /// The next piece of work.
    pub(super) fn take_one(&self) -> Taken {
        self.take(1, u64::MAX, None)
    }

    /// What waits, up to a transaction's worth; if nothing does, waits for so long at most.
    pub(super) fn take_batch(&self, bytes_max: u64, patience: Option<Duration>) -> Taken {
        self.take(BATCH_MAX, bytes_max, patience)
    }

    fn take(&self, jobs_max: usize, bytes_max: u64, patience: Option<Duration>) -> Taken {
        let mut state = self.state.lock();
        loop {
            if let Some(taken) = state.take(jobs_max, bytes_max) {
                return taken;
            }
            if state.closed {
                return Taken::Over;
            }
            state.idle += 1;
            let timed_out = match patience {
                Some(patience) => self.changed.wait_for(&mut state, patience).timed_out(),
                None => {
                    self.changed.wait(&mut state);
                    false
                }
            };
            state.idle -= 1;
            if timed_out && state.waiting.is_empty() {
                return Taken::Nothing;
            }
        }
    }
}

impl State {
    fn take(&mut self, jobs_max: usize, bytes_max: u64) -> Option<Taken> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while jobs.len() < jobs_max {
            match self.waiting.pop_front() {
                Some(Task::Job(job)) => {
                    bytes += job.bytes();
                    self.waiting_bytes -= job.bytes();
                    jobs.push(job);
                    if bytes >= bytes_max {
                        break;
                    }
                }
                Some(Task::Prune(reply)) if jobs.is_empty() => return Some(Taken::Prune(reply)),
                Some(prune) => {
                    self.waiting.push_front(prune);
                    break;
                }
                None => break,
            }
        }
        (!jobs.is_empty()).then_some(Taken::Jobs(jobs))
    }
}

/// Tries until SQLite is not busy, for so long at most.
///
/// SQLite's own waiting backs off to 100 ms a try: with a process on the other side that writes back to back,
/// it meets the gaps between two transactions so rarely that it can run into its timeout. A try costs 5 µs.
pub(super) fn patiently<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let mut nap = Duration::from_micros(50);
    // Not the driver's clock: that may stand still. An attempt may wait by itself, and counts with that.
    let waiting = SystemClock::default();
    loop {
        match attempt() {
            Err(cause) if table::is_busy(&cause) && waiting.monotonic() < limit => {
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_millis(1));
            }
            outcome => return outcome,
        }
    }
}

/// Runs jobs in one transaction: all of them count, or none does.
pub(super) fn commit(
    connection: &Connection,
    limit: Duration,
    jobs: &mut [Box<dyn Job>],
) -> (Result<()>, bool) {
    let mut broken = false;
    let mut run = |jobs: &mut [Box<dyn Job>]| -> Result<()> {
        let statement = |sql: &str| patiently(limit, || connection.prepare_cached(sql)?.execute([]));
        let failed = |cause| table::failed("transaction", cause);
        statement("BEGIN IMMEDIATE").map_err(failed)?;
        for job in jobs {
            let ran = job.run(connection);
            broken |= ran.broken;
            // A full disk and the like undo the whole transaction, what ran before included.
            if connection.is_autocommit() {
                return Err(ran.failed.unwrap_or_else(|| ended("transaction")));
            }
        }
        statement("COMMIT").map_err(failed)?;
        Ok(())
    };
    let outcome = run(jobs);
    if outcome.is_err() && !connection.is_autocommit() {
        // If even this fails, the connection is not usable any more.
        broken |= connection.execute_batch("ROLLBACK").is_err();
    }
    (outcome, broken)
}

/// Answers all jobs alike, unless they have an error of their own.
pub(super) fn finish(jobs: Vec<Box<dyn Job>>, outcome: &Result<()>) {
    for job in jobs {
        job.finish(outcome.clone());
    }
}

/// The total that some jobs write, in bytes.
pub(super) fn bytes_of(jobs: &[Box<dyn Job>]) -> u64 {
    jobs.iter().map(|job| job.bytes()).sum()
}

fn ended(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("sqlite {what}: its thread ended before it answered"))
}

/// Forgets what a connection is, if work showed that it is broken.
pub(super) fn drop_if(broken: bool, connection: &mut Option<Connection>) {
    if broken {
        *connection = None;
    }
}
