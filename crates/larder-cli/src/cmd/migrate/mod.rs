//! `larder migrate`: records go over as they are, byte for byte, but for marks that are there already. Knows of a
//! record what its head says.

mod mark;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use larder::driver::{Driver, When, Write, Written};
use larder::entry::wire::{Damage, Head, Kind, decode};
use larder::key::{KeySpace, is_lease};
use larder::time::{Clock, SystemClock, Timestamp};
use larder::{Error, ErrorKind};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::print_json;
use crate::args::high::PREFIX;
use crate::args::units::bytes_words;
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome, USAGE};
use crate::output::{escape, note, print_line};
use crate::progress::Progress;
use crate::store::{Access, check_url, open_url};

/// The exit status of what Ctrl-C ended, as of a shell.
const INTERRUPTED: u8 = 130;
/// How many bytes of records are in memory at once, as far as the last ones tell.
const BATCH_BYTES: usize = 16 << 20;
/// How many records at first, before anything is known of their size, and at most.
const BATCH_FIRST: usize = 1;
const BATCH_MAX: usize = 200;
/// How often a store is asked again that does not answer, and after what time at first.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });

/// What is to be copied.
#[derive(Debug)]
pub(crate) struct Migration {
    /// URLs.
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only what has this prefix; `None` is everything.
    pub(crate) prefix: Option<String>,
    /// The names of nested namespaces, outermost first.
    pub(crate) namespace: Vec<String>,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

/// What became of the records.
#[derive(Debug, Default)]
struct Counts {
    /// Entries; in a dry run, what would be.
    entries: u64,
    tombstones: u64,
    marks: u64,
    bytes: u64,
    /// The other store has the same one, or a newer one.
    there: u64,
    expired: u64,
    foreign: u64,
    damaged: u64,
    too_large: u64,
    failed: u64,
}

/// Which keys are meant.
struct Scope {
    /// What the keys of entries begin with.
    entries: Vec<String>,
    /// What the keys of marks begin with; none, if that is the same.
    marks: Vec<String>,
    space: Option<KeySpace>,
}

/// Copies, and says what became of it however it ends.
pub(crate) async fn migrate(migration: Migration) -> Outcome {
    if migration.from == migration.to {
        return Err(Failure::usage("FROM and TO are the same store"));
    }
    let scope = Scope::new(&migration)?;
    check_url(&migration.to, "TO")?;
    let from = open_url(&migration.from, "FROM", Access::Read).await?;
    if !from.capabilities().enumerates {
        return Err(Failure::usage(format!(
            "FROM: the {} driver cannot list its keys, so nothing can be copied out of it",
            from.name()
        )));
    }
    let access = if migration.dry_run { Access::Read } else { Access::Create };
    let to = match open_url(&migration.to, "TO", access).await {
        Ok(to) => Some(to),
        // In a dry run it need not be there yet.
        Err(Failure::Message { status: USAGE, .. }) if migration.dry_run => None,
        Err(failure) => return Err(failure),
    };
    let can = to.as_ref().map(|to| to.capabilities());
    if can.is_some_and(|can| !can.shared && !can.persistent) && !migration.dry_run {
        return Err(Failure::usage("TO: what is copied there is lost when this command ends"));
    }
    let copy = Copy {
        limit: to.as_ref().and_then(|to| to.capabilities().value_bytes_max),
        to: to.clone().filter(|_| !migration.dry_run),
        from: Arc::clone(&from),
        counts: RefCell::default(),
        clock: SystemClock::default(),
    };
    let ended = tokio::select! {
        ended = copy.all(&scope) => ended.map(|()| None),
        interrupted = interrupt() => interrupted.map(Some),
    };
    let counts = copy.counts.take();
    let interrupted = matches!(ended, Ok(Some(_)));
    print(&counts, &migration, interrupted, ended.is_ok())?;
    for driver in to.iter().chain([&from]) {
        // What was acknowledged is there, whether or not this works.
        if let Err(error) = driver.close().await {
            note(escape(&error.to_string()));
        }
    }
    match ended {
        Err(failure) => Err(failure),
        Ok(Some(())) => {
            note("interrupted: what was copied is there, and running it again copies the rest");
            Ok(INTERRUPTED)
        }
        Ok(None) if counts.failed + counts.too_large + counts.damaged > 0 => Ok(NOT_FOUND),
        Ok(None) => Ok(FOUND),
    }
}

/// Waits for Ctrl-C, or for whoever asks to end.
async fn interrupt() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::io("listen for signals", &error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

impl Scope {
    fn new(migration: &Migration) -> Result<Self, Failure> {
        let prefix = match &migration.prefix {
            Some(prefix) => prefix,
            None if migration.namespace.is_empty() => {
                return Ok(Self { entries: vec![String::new()], marks: Vec::new(), space: None });
            }
            None => PREFIX,
        };
        let root = KeySpace::new(prefix)?;
        let space = migration.namespace.iter().try_fold(root.clone(), |space, name| space.child(name))?;
        Ok(Self {
            entries: space.prefixes(),
            marks: vec![root.mark_key(), root.tags_key()],
            space: Some(space),
        })
    }

    /// Whether a mark can end what is meant: one of the namespace, of those around it, and of those inside it.
    fn takes_mark(&self, key: &str) -> bool {
        let Some(space) = &self.space else { return true };
        let path = space.path();
        let below = self.marks.iter().find_map(|begin| key.strip_prefix(begin.as_str()));
        let marked = below.map(|below| below.split(':').next().unwrap_or_default());
        let is_inside = |inner: &str, outer: &str| {
            outer.is_empty()
                || inner == outer
                || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        marked.is_some_and(|marked| is_inside(path, marked) || is_inside(marked, path))
    }
}

/// A copy that is under way.
struct Copy {
    from: Arc<dyn Driver>,
    /// `None` only counts.
    to: Option<Arc<dyn Driver>>,
    /// The most bytes of a record that the other store takes.
    limit: Option<u64>,
    counts: RefCell<Counts>,
    clock: SystemClock,
}

impl Copy {
    async fn all(&self, scope: &Scope) -> Result<(), Failure> {
        let listing = Progress::new("listing");
        // Marks first: an entry that a clear or a tag has ended must not come back for a moment.
        let total = listing.watch(self.marks(scope, &listing)).await?;
        let copying = Progress::new("copying").of(total);
        copying.watch(self.entries(scope, &copying)).await
    }

    /// Copies the marks, and counts everything else.
    async fn marks(&self, scope: &Scope, progress: &Progress) -> Result<u64, Failure> {
        let mut others = 0;
        let mut batch = Vec::new();
        for prefix in scope.marks.iter().chain(&scope.entries) {
            let mut scan = self.from.scan(prefix);
            while let Some(scanned) = scan.try_next().await? {
                progress.advance();
                // Whose turn it is to load is over before anybody reads it there.
                if is_lease(&scanned.key) {
                    continue;
                }
                if !Head::peek(&scanned.head).is_ok_and(|head| head.kind == Kind::Mark) {
                    others += 1;
                } else if scope.takes_mark(&scanned.key) {
                    batch.push(scanned.key);
                    if batch.len() >= BATCH_MAX {
                        self.batch(std::mem::take(&mut batch)).await?;
                    }
                }
            }
        }
        self.batch(batch).await?;
        Ok(others)
    }

    /// Copies what is no mark.
    async fn entries(&self, scope: &Scope, progress: &Progress) -> Result<(), Failure> {
        let mut batch = Vec::new();
        let (mut room, mut large) = (BATCH_FIRST, 0);
        for prefix in &scope.entries {
            let mut scan = self.from.scan(prefix);
            while let Some(scanned) = scan.try_next().await? {
                match Head::peek(&scanned.head) {
                    Ok(head) if head.kind == Kind::Mark => continue,
                    Ok(head) if has_expired(&head, self.clock.now()) => {
                        self.count(|counts| &mut counts.expired)
                    }
                    Ok(_) => batch.push(scanned.key),
                    Err(Damage::Foreign | Damage::Truncated | Damage::Version) => {
                        self.count(|counts| &mut counts.foreign);
                    }
                    Err(damage) => self.damaged(&scanned.key, damage),
                }
                progress.advance();
                if batch.len() >= room {
                    // Where there was a large one, more may follow: it is forgotten bit by bit.
                    large = self.batch(std::mem::take(&mut batch)).await?.max(large / 2);
                    room = (BATCH_BYTES / large.max(1)).clamp(1, BATCH_MAX.min(room * 4));
                }
            }
        }
        self.batch(batch).await?;
        Ok(())
    }

    /// Copies the records of some keys. Returns how large the largest is.
    async fn batch(&self, keys: Vec<String>) -> Result<usize, Failure> {
        if keys.is_empty() {
            return Ok(0);
        }
        let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
        let found = insist(async || self.from.get_many(&asked).await).await?;
        let now = self.clock.now();
        let largest = found.iter().flatten().map(Bytes::len).max().unwrap_or_default();
        let mut writes = Vec::with_capacity(keys.len());
        for (key, value) in keys.into_iter().zip(found) {
            // What has gone since it was listed is gone.
            let Some(value) = value else { continue };
            writes.extend(self.write(key, value, now));
        }
        let Some(to) = &self.to else {
            writes.iter().for_each(|write| self.copied(write));
            return Ok(largest);
        };
        let is_mark = |write: &Write| Head::peek(&write.value).is_ok_and(|head| head.kind == Kind::Mark);
        let (marks, others): (Vec<_>, Vec<_>) = writes.into_iter().partition(is_mark);
        self.raise(&**to, marks).await?;
        for (write, written) in others.iter().zip(self.store(&**to, &others).await?) {
            match written {
                Some(Written::Stored { .. }) => self.copied(write),
                Some(Written::Refused { .. }) => self.count(|counts| &mut counts.there),
                None => {}
            }
        }
        Ok(largest)
    }

    /// What is to be written of a record, or nothing and a count of why.
    fn write(&self, key: String, value: Bytes, now: Timestamp) -> Option<Write> {
        let head = match Head::peek(&value) {
            Ok(head) => head,
            Err(_) => {
                self.count(|counts| &mut counts.foreign);
                return None;
            }
        };
        if has_expired(&head, now) {
            self.count(|counts| &mut counts.expired);
            return None;
        }
        // What is compressed or encrypted can be checked by nobody who lacks what did it.
        if let Err(damage) = decode(&key, &value)
            && damage != Damage::Sealed
        {
            self.damaged(&key, damage);
            return None;
        }
        if self.limit.is_some_and(|limit| value.len() as u64 > limit) {
            self.count(|counts| &mut counts.too_large);
            let limit = self.limit.map(bytes_words).unwrap_or_default();
            let size = bytes_words(value.len() as u64);
            note(format_args!("{}: too large: it has {size}, and TO takes {limit}", escape(&key)));
            return None;
        }
        let is_forever = head.stale_until == Timestamp::FOREVER;
        let ttl = (!is_forever).then(|| head.stale_until.since(now));
        Some(Write { key, value, ttl, when: When::Newer })
    }

    /// What a store has under the keys of some writes. `None` is what it refuses, which is counted.
    async fn read(&self, to: &dyn Driver, writes: &[Write]) -> Result<Vec<Option<Option<Bytes>>>, Failure> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<&str> = writes.iter().map(|write| write.key.as_str()).collect();
        let error = match insist(async || to.get_many(&keys).await).await {
            Ok(found) => return Ok(found.into_iter().map(Some).collect()),
            Err(error) => error,
        };
        if error.kind().is_transient() {
            return Err(error.into());
        }
        // One of them is at fault: each by itself.
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.push(self.unless_refused(key, insist(async || to.get(key).await).await)?);
        }
        Ok(found)
    }

    /// Writes, and says what became of each. `None` is what the store refuses for good, which is counted.
    async fn store(&self, to: &dyn Driver, writes: &[Write]) -> Result<Vec<Option<Written>>, Failure> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let error = match insist(async || to.set_many(writes.to_vec()).await).await {
            Ok(written) => return Ok(written.into_iter().map(Some).collect()),
            Err(error) => error,
        };
        if error.kind().is_transient() {
            return Err(error.into());
        }
        // One of them is at fault: each by itself.
        let mut written = Vec::with_capacity(writes.len());
        for Write { key, value, ttl, when } in writes {
            let outcome = insist(async || to.set(key, value.clone(), *ttl, *when).await).await;
            written.push(self.unless_refused(key, outcome)?);
        }
        Ok(written)
    }

    /// What came out of a call for one key, or nothing and a count of why, unless no other key would fare better.
    fn unless_refused<T>(&self, key: &str, outcome: Result<T, Error>) -> Result<Option<T>, Failure> {
        match outcome {
            Ok(out) => Ok(Some(out)),
            Err(error) if error.kind().is_transient() || error.kind() == ErrorKind::Closed => {
                Err(error.into())
            }
            Err(error) => {
                if error.kind() == ErrorKind::TooLarge {
                    self.count(|counts| &mut counts.too_large);
                    note(format_args!("{}: {}", escape(key), escape(&error.to_string())));
                } else {
                    self.failed(key, &error.to_string());
                }
                Ok(None)
            }
        }
    }

    fn copied(&self, write: &Write) {
        let kind = Head::peek(&write.value).map(|head| head.kind);
        let mut counts = self.counts.borrow_mut();
        match kind {
            Ok(Kind::Tombstone) => counts.tombstones += 1,
            Ok(Kind::Mark) => counts.marks += 1,
            _ => counts.entries += 1,
        }
        counts.bytes += write.value.len() as u64;
    }

    fn damaged(&self, key: &str, damage: Damage) {
        self.count(|counts| &mut counts.damaged);
        note(format_args!("{}: damaged: {damage}", escape(key)));
    }

    fn failed(&self, key: &str, why: &str) {
        self.count(|counts| &mut counts.failed);
        note(format_args!("{}: {}", escape(key), escape(why)));
    }

    fn count(&self, which: impl FnOnce(&mut Counts) -> &mut u64) {
        *which(&mut self.counts.borrow_mut()) += 1;
    }
}

fn has_expired(head: &Head, now: Timestamp) -> bool {
    head.kind != Kind::Mark && head.stale_until <= now && head.stale_until != Timestamp::FOREVER
}

/// Does what a store may be unable to do for a moment, and which does no harm twice.
async fn insist<T>(work: impl AsyncFn() -> larder::Result<T>) -> Result<T, Error> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match work().await {
            Err(error) if error.kind().is_transient() => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    work().await
}

fn print(counts: &Counts, migration: &Migration, interrupted: bool, is_whole: bool) -> Result<(), Failure> {
    if migration.json {
        return print_json([
            ("dry_run", json!(migration.dry_run)),
            ("entries", json!(counts.entries)),
            ("tombstones", json!(counts.tombstones)),
            ("marks", json!(counts.marks)),
            ("bytes", json!(counts.bytes)),
            ("there", json!(counts.there)),
            ("expired", json!(counts.expired)),
            ("foreign", json!(counts.foreign)),
            ("damaged", json!(counts.damaged)),
            ("too_large", json!(counts.too_large)),
            ("failed", json!(counts.failed)),
            ("complete", json!(is_whole && !interrupted)),
        ]);
    }
    let done = if migration.dry_run { "would be copied" } else { "copied" };
    let more = |count: u64, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    print_line(format_args!(
        "{} entries {done}, {}{}{}",
        counts.entries,
        bytes_words(counts.bytes),
        more(counts.tombstones, "tombstones"),
        more(counts.marks, "marks of clears and tags"),
    ))?;
    for (count, what) in [
        (counts.there, "were there already, as new or newer"),
        (counts.expired, "have expired"),
        (counts.foreign, "are not larder's"),
        (counts.damaged, "are damaged"),
        (counts.too_large, "are too large"),
        (counts.failed, "failed"),
    ] {
        if count > 0 {
            print_line(format_args!("{count} {what}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder::driver::memory::MemoryDriver;
    use larder::entry::Meta;
    use larder::entry::wire::{CodecId, encode_entry};
    use larder::memory::MemoryOptions;
    use larder::time::Stamp;

    #[test]
    fn the_marks_of_a_namespace_are_its_own_those_around_it_and_those_inside_it() {
        let migration = |namespace: &[&str]| Migration {
            from: "memory:".to_owned(),
            to: String::new(),
            prefix: Some("app".to_owned()),
            namespace: namespace.iter().map(|name| (*name).to_owned()).collect(),
            dry_run: false,
            json: false,
        };
        let root = KeySpace::new("app").unwrap();
        let space =
            |names: &[&str]| names.iter().fold(root.clone(), |space, name| space.child(name).unwrap());
        let scope = Scope::new(&migration(&["a", "b"])).unwrap();
        for (names, is_meant) in [
            (&[][..], true),
            (&["a"], true),
            (&["a", "b"], true),
            (&["a", "b", "c"], true),
            (&["a", "bc"], false),
            (&["b"], false),
        ] {
            let space = space(names);
            assert_eq!(scope.takes_mark(&space.mark_key()), is_meant, "{names:?}");
            assert_eq!(scope.takes_mark(&space.tag_key("t:u")), is_meant, "{names:?}");
        }
        assert!(scope.takes_mark(&root.tags_key()));
        let whole = Scope::new(&migration(&[])).unwrap();
        assert!(whole.takes_mark(&space(&["b"]).tag_key("t")));
    }

    /// A copy to a store in memory that takes a little.
    fn copy() -> Copy {
        let memory = || Arc::new(MemoryDriver::new(MemoryOptions::default()));
        Copy {
            from: memory(),
            to: Some(memory()),
            limit: Some(1_000),
            counts: RefCell::default(),
            clock: SystemClock::default(),
        }
    }

    fn record(key: &str, until: Timestamp, bytes: usize) -> Bytes {
        let stamp = Stamp::from_bits(7);
        let meta = Meta { stamp, born: stamp, fresh_until: until, stale_until: until, extras: None };
        encode_entry(key, &meta, CodecId::BYTES, 0, &vec![7; bytes]).unwrap()
    }

    #[tokio::test]
    async fn every_record_that_is_not_copied_is_counted() {
        let copy = copy();
        let later = Timestamp::from_millis(copy.clock.now().as_millis() + 60_000);
        let mut damaged = record("damaged", later, 9).to_vec();
        damaged[60] ^= 1;
        for (key, value) in [
            ("good", record("good", later, 9)),
            ("forever", record("forever", Timestamp::FOREVER, 9)),
            ("expired", record("expired", Timestamp::from_millis(1), 9)),
            ("foreign", Bytes::from_static(b"what somebody else keeps here, of some length or another")),
            ("short", Bytes::from_static(b"x")),
            ("damaged", damaged.into()),
            ("another's", record("good", later, 9)),
            ("large", record("large", later, 1_000)),
        ] {
            copy.from.set(key, value, None, When::Always).await.unwrap();
        }
        let everything = Scope { entries: vec![String::new()], marks: Vec::new(), space: None };
        copy.all(&everything).await.unwrap();
        let to = copy.to.clone().unwrap();
        assert_eq!(to.get("good").await.unwrap(), Some(record("good", later, 9)));
        assert!(to.get("forever").await.unwrap().is_some());
        for key in ["expired", "foreign", "short", "damaged", "another's", "large"] {
            assert_eq!(to.get(key).await.unwrap(), None, "{key}");
        }
        let counts = copy.counts.take();
        assert_eq!((counts.entries, counts.expired, counts.foreign), (2, 1, 2));
        assert_eq!((counts.damaged, counts.too_large, counts.failed), (2, 1, 0));
    }

    #[tokio::test]
    async fn a_store_that_comes_back_is_waited_for_and_one_that_does_not_is_an_error() {
        let calls = std::cell::Cell::new(0);
        let dead_for = |times: u32| {
            let calls = &calls;
            calls.set(0);
            insist(async move || {
                calls.set(calls.get() + 1);
                if calls.get() <= times { Err(Error::new(ErrorKind::Unavailable, "down")) } else { Ok(()) }
            })
        };
        dead_for(4).await.unwrap();
        assert_eq!(calls.get(), 5);
        assert_eq!(dead_for(5).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let refused = insist(async || Err::<(), _>(Error::new(ErrorKind::TooLarge, "no"))).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
