//! What the threads of a SQLite file do: readers one thing after the other, the writer in shared
//! transactions, with pruning in between.
//!
//! Knows connections and queues; what a piece of work does is in `table`.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::lane::{Queue, Taken, bytes_of, commit, drop_if, finish, patiently};
use super::table::{self, Opening, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Clock;

/// How many rows one transaction of pruning deletes, so that others get to write in between.
const ROWS_PER_STEP: usize = 500;
/// How many pages one transaction of pruning gives back: 1 MiB.
const PAGES_PER_STEP: usize = 256;
/// How many bytes share a transaction at most.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What every thread of a driver knows.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) opening: Opening,
    pub(super) table: Table,
    pub(super) create_table: bool,
    pub(super) prune_interval: Option<Duration>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Desk {
    fn open_reader(&self) -> Result<Connection> {
        self.opening.prepare()?;
        if self.opening.read_only {
            return table::connect_to_read(&self.opening);
        }
        table::connect(&self.opening).map_err(|cause| table::failed("open", cause))
    }

    fn open_writer(&self) -> Result<Connection> {
        if self.opening.read_only && self.opening.is_file() {
            let message = "writing to a sqlite store that was opened to be read only";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let connection = self.open_reader()?;
        let limit = self.opening.busy_timeout;
        let opened = |outcome: rusqlite::Result<()>| outcome.map_err(|cause| table::failed("open", cause));
        opened(patiently(limit, || table::prepare_writer(&connection, &self.opening)))?;
        let bounded = self.opening.max_bytes.is_some();
        let find = || table::find(&connection, &self.table).map_err(|cause| self.table.unfit(cause));
        let create = self.create_table && (bounded || !find()?);
        // From here on the writer waits for others in its own way. Until here it was SQLite's: whoever opens a new file
        // at the same time may be recovering its log, and many who try without a pause keep each other from it.
        opened(connection.busy_timeout(Duration::ZERO))?;
        if create {
            patiently(limit, || table::create(&connection, &self.table, bounded))
                .map_err(|cause| table::failed("create the table", cause))?;
        }
        Ok(connection)
    }

    /// A reader's life.
    pub(super) fn read(&self, queue: &Queue) {
        let mut connection = None;
        while let Taken::Jobs(mut jobs) = queue.take_one() {
            let opened = match connection.take() {
                Some(open) => Ok(open),
                None => self.open_reader(),
            };
            let outcome = opened.map(|open| {
                let broken = jobs.iter_mut().fold(false, |broken, job| job.run(&open).broken | broken);
                connection = Some(open);
                drop_if(broken, &mut connection);
            });
            finish(jobs, &outcome);
        }
    }

    /// The writer's life.
    pub(super) fn write(&self, queue: &Queue) {
        let mut writer = Writer { desk: self, connection: None, unmeasured: 0, upkeep: Upkeep::new(self) };
        let batch_bytes =
            self.opening.max_bytes.map_or(BATCH_BYTES_MAX, |max| (max / 16).min(BATCH_BYTES_MAX));
        loop {
            match queue.take_batch(batch_bytes, writer.upkeep.patience(self)) {
                Taken::Jobs(jobs) => writer.run(jobs),
                Taken::Prune(reply) => writer.upkeep.begin(Some(reply)),
                Taken::Nothing => {}
                Taken::Over => break,
            }
            writer.keep_up();
        }
        if let Some(connection) = writer.connection {
            // What fails here is done by whoever opens the file next.
            let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }
}

impl Opening {
    fn prepare(&self) -> Result<()> {
        match &self.location {
            super::SqliteLocation::Memory => Ok(()),
            super::SqliteLocation::File(path) if self.create => table::prepare_file(path),
            super::SqliteLocation::File(path) => table::require_file(path),
        }
    }

    fn is_file(&self) -> bool {
        matches!(self.location, super::SqliteLocation::File(_))
    }
}

struct Writer<'a> {
    desk: &'a Desk,
    connection: Option<Connection>,
    /// Bytes written since the file was measured.
    unmeasured: u64,
    upkeep: Upkeep,
}

impl Writer<'_> {
    fn connected(&mut self) -> Result<&Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.desk.open_writer()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn run(&mut self, mut jobs: Vec<Box<dyn super::lane::Job>>) {
        let bytes = bytes_of(&jobs);
        let limit = self.desk.opening.busy_timeout;
        let (outcome, broken) = match self.connected() {
            Ok(connection) => commit(connection, limit, &mut jobs),
            Err(error) => (Err(error), false),
        };
        // A database in memory is its connection: opening it anew would mend nothing and lose all.
        drop_if(broken && self.desk.opening.is_file(), &mut self.connection);
        finish(jobs, &outcome);
        self.unmeasured += bytes;
        self.hold_bound();
    }

    /// Evicts as soon as a sixty-fourth of the bound has been written since it was last looked at.
    fn hold_bound(&mut self) {
        let Some(max_bytes) = self.desk.opening.max_bytes else { return };
        if self.unmeasured < max_bytes / 64 {
            return;
        }
        self.unmeasured = 0;
        // If eviction fails, writes fail as well, and say why.
        while self
            .transaction(|connection, desk| trim(connection, desk, max_bytes))
            .is_ok_and(|gone| gone > 0)
        {}
    }

    fn transaction<T>(&mut self, work: impl FnOnce(&Connection, &Desk) -> rusqlite::Result<T>) -> Result<T> {
        let desk = self.desk;
        let limit = desk.opening.busy_timeout;
        let connection = self.connected()?;
        let run = || {
            patiently(limit, || connection.execute_batch("BEGIN IMMEDIATE"))?;
            let value = work(connection, desk)?;
            patiently(limit, || connection.execute_batch("COMMIT"))?;
            Ok(value)
        };
        run().map_err(|cause| {
            if !connection.is_autocommit() {
                // The first failure is the one to tell.
                let _ = connection.execute_batch("ROLLBACK");
            }
            table::failed("prune", cause)
        })
    }

    /// One step of pruning, if one is due.
    fn keep_up(&mut self) {
        self.upkeep.begin_if_due(self.desk);
        let Some(stage) = self.upkeep.stage else { return };
        let step = match stage {
            Stage::Expired => self.transaction(|connection, desk| {
                table::delete_expired(connection, &desk.table, desk.clock.now(), ROWS_PER_STEP)
            }),
            Stage::Bound => match self.desk.opening.max_bytes {
                Some(max_bytes) => self.transaction(|connection, desk| trim(connection, desk, max_bytes)),
                None => Ok(0),
            },
            Stage::Space => {
                self.transaction(|connection, _| table::vacuum(connection, PAGES_PER_STEP)).map(usize::from)
            }
        };
        match step {
            Ok(gone) => {
                if let Some(connection) =
                    self.upkeep.advance(stage, gone).then_some(self.connection.as_ref()).flatten()
                {
                    // The file shrinks when the log is copied back.
                    let _ = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
                }
            }
            Err(error) => self.upkeep.end(&Err(error)),
        }
        self.upkeep.schedule_if_done(self.desk);
    }
}

/// Evicts what was written longest ago if the file holds more than its bound. Returns how many entries went.
/// What was read last is not kept longer: to know it, every read would have to write.
fn trim(connection: &Connection, desk: &Desk, max_bytes: u64) -> rusqlite::Result<usize> {
    let (used, _) = table::space(connection)?;
    if used <= max_bytes {
        return Ok(0);
    }
    // A little more than needed, so that not every write has to evict.
    let target = max_bytes - max_bytes / 16;
    table::delete_oldest(connection, &desk.table, used - target, ROWS_PER_STEP)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Expired,
    Bound,
    Space,
}

/// Where pruning stands.
struct Upkeep {
    stage: Option<Stage>,
    gone: u64,
    waiting: Vec<oneshot::Sender<Result<u64>>>,
    /// When it is to begin by itself, by the monotonic clock.
    due: Option<Duration>,
}

impl Upkeep {
    fn new(desk: &Desk) -> Self {
        let mut upkeep = Self { stage: None, gone: 0, waiting: Vec::new(), due: None };
        upkeep.schedule(desk);
        upkeep
    }

    fn schedule(&mut self, desk: &Desk) {
        self.due = desk.prune_interval.map(|interval| desk.clock.monotonic() + interval);
    }

    /// How long the writer may wait for work.
    fn patience(&self, desk: &Desk) -> Option<Duration> {
        if self.stage.is_some() {
            return Some(Duration::ZERO);
        }
        self.due.map(|due| due.saturating_sub(desk.clock.monotonic()))
    }

    /// Begins, or begins again: what expired meanwhile goes as well.
    fn begin(&mut self, waiting: Option<oneshot::Sender<Result<u64>>>) {
        self.stage = Some(Stage::Expired);
        self.waiting.extend(waiting);
    }

    fn begin_if_due(&mut self, desk: &Desk) {
        if self.stage.is_none() && self.due.is_some_and(|due| due <= desk.clock.monotonic()) {
            self.begin(None);
        }
    }

    /// Notes what a step did. True if it was the last one.
    fn advance(&mut self, stage: Stage, gone: usize) -> bool {
        let more = match stage {
            Stage::Expired => gone >= ROWS_PER_STEP,
            Stage::Bound | Stage::Space => gone > 0,
        };
        if stage != Stage::Space {
            self.gone += u64::try_from(gone).unwrap_or(0);
        }
        if more {
            return false;
        }
        match stage {
            Stage::Expired => self.stage = Some(Stage::Bound),
            Stage::Bound => self.stage = Some(Stage::Space),
            Stage::Space => {
                let gone = self.gone;
                self.end(&Ok(gone));
                return true;
            }
        }
        false
    }

    fn end(&mut self, outcome: &Result<u64>) {
        self.stage = None;
        self.gone = 0;
        for reply in self.waiting.drain(..) {
            // Whoever gave up waiting has nothing to hear.
            let _ = reply.send(outcome.clone());
        }
    }

    fn schedule_if_done(&mut self, desk: &Desk) {
        if self.stage.is_none() {
            self.schedule(desk);
        }
    }
}
