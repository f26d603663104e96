//! HTTP responses in a stack, and so over every driver: [`StackStore`].
//!
//! What is kept for a target is one entry, its record, under the target's name in the namespace `http`: the heads of all its
//! responses with whatever bodies are small. Larger bodies are in chunks of their own, in the namespace inside it. A record
//! is changed by compare-and-swap after the chunks are there, so a crash leaves chunks that nobody names, and they end by
//! themselves. Which response is meant, and what may be done with it, is not known here.

mod chunks;
mod judging;
mod lives;
mod room;
mod uses;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use larder::codec::{Codec, CodecId, Raw};
use larder::entry::Freshness;
use larder::time::{Stamp, Timestamp, days};
use larder::{BoxError, Cache, Error, ErrorKind, Present, Result, Stack, Updated};

use self::chunks::{ChunkReader, ChunkWriter, Chunks};
use self::judging::{Judge, Judged};
use self::lives::Prolonged;
use self::room::Room;
use self::uses::Uses;
use super::wire;
use super::{Change, Chunked, HttpStore, Purge, StoredBody, StoredResponse, Variants, WriteBody};
use crate::policy::{Mark, Policy, Stored};

pub use self::chunks::CHUNK_BYTES;

/// Which codec records are of.
const CODEC: CodecId = CodecId(133);
/// Where they are, inside the stack's outermost namespace.
const NAMESPACE: &str = "http";
/// Where the chunks of their bodies are, inside that.
const CHUNKS_NAMESPACE: &str = "body";
/// Targets up to this length are keys as they are.
const PLAIN_KEY_BYTES_MAX: usize = 400;
/// How many bodies of the longest kind fit into a memory without a store.
const MEMORY_BODIES_MIN: u64 = 16;
/// What a chunk takes in memory, with its key.
const CHUNK_ENTRY_BYTES_MAX: u64 = CHUNK_BYTES as u64 + 1024;
/// The longest time that a record is kept. What ends never could not be made stale by a soft invalidation.
const LIFE_MAX: Duration = days(366 * 100);
/// What is left of an entry when it is no longer fresh. A soft invalidation makes stale what has this, and nothing else does.
const GRACE: Duration = Duration::from_millis(1);

/// Responses in a stack: in its memory, in its store, or both.
///
/// The stack is borrowed: closing this store does not close it. Give its memory tier a limit in bytes
/// ([`MemoryOptions::max_bytes`](larder::memory::MemoryOptions)), because chunks of bodies are kept there, too. Tags are the
/// stack's own: [`Cache::invalidate`] on its outermost handle drops responses as well as whatever else carries the tag, and
/// [`HttpStore::invalidate`] does the same.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use larder::{Stack, memory::MemoryOptions};
/// use larder_http::policy::Policy;
/// use larder_http::store::{HttpStore as _, StackStore};
///
/// let stack = Stack::builder("web").memory(MemoryOptions::new(10_000)).build()?;
/// let store = StackStore::new(&stack, Policy::shared())?;
/// assert!(store.get("http://example.com/").await?.is_none());
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StackStore {
    inner: Arc<Inner>,
}

impl fmt::Debug for StackStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StackStore").field("inner", &self.inner).finish()
    }
}

/// Options of a [`StackStore`].
#[derive(Debug, Clone)]
#[must_use]
pub struct StackStoreBuilder {
    stack: Stack,
    policy: Policy,
    body_bytes_max: u64,
    inline_bytes_max: u64,
    count_max: Option<u64>,
    bodies: Option<Stack>,
}

impl StackStoreBuilder {
    /// The stack that keeps bodies of more than one chunk. Give one over the same store and with the same prefix, but without
    /// memory, so that long bodies do not take the place of everything else there. Unless told, it is the same stack.
    pub fn bodies(mut self, stack: &Stack) -> Self {
        self.bodies = Some(stack.clone());
        self
    }

    /// The longest body that is kept, in bytes, inclusive. Unless told, there is no limit.
    ///
    /// Where the stack has no store, memory is all there is: a body that took much of it could lose its beginning while it is
    /// read, so nothing longer than a sixteenth of memory's bytes is kept, whatever is told here.
    pub fn body_bytes_max(mut self, bytes: u64) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// The longest body that is kept inside its target's record, in bytes, inclusive, at most [`CHUNK_BYTES`]: one read of the
    /// store then answers a hit. 16 KiB unless told. A record is written as a whole whenever one of its responses changes,
    /// and stores limit it (memcached 1 MiB, DynamoDB 400 KiB).
    pub fn inline_bytes_max(mut self, bytes: u64) -> Self {
        self.inline_bytes_max = bytes.min(CHUNK_BYTES as u64);
        self
    }

    /// The most responses that are kept: the oldest go. Unless told, there is no limit but the stack's own.
    ///
    /// The store has to be able to list its keys, and is listed when so many responses may have come that the limit could be
    /// reached, however many processes write: give large stores a limit of their own instead.
    pub fn count_max(mut self, responses: u64) -> Self {
        self.count_max = Some(responses);
        self
    }

    /// Makes the store.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a limit on a stack that cannot list its keys; those of [`Cache::namespace`].
    pub fn build(self) -> Result<StackStore> {
        let Self { stack, policy, body_bytes_max, inline_bytes_max, count_max, bodies } = self;
        if count_max.is_some() && !enumerates(&stack) {
            let message = format!(
                "the store of stack {:?} cannot list what it keeps, so it cannot count it",
                stack.name()
            );
            return Err(Error::new(ErrorKind::Config, message));
        }
        let body_bytes_max = body_bytes_max.min(memory_body_bytes_max(&stack));
        let of =
            |stack: &Stack| stack.cache_with::<Bytes>(Raw).namespace(NAMESPACE)?.namespace(CHUNKS_NAMESPACE);
        let chunks = Chunks::new(of(&stack)?, of(bodies.as_ref().unwrap_or(&stack))?);
        let mut failure = None;
        let judge = Arc::new(Judge::new(policy));
        let inner = Arc::new_cyclic(|weak| {
            let uses = Arc::new(Uses::new(Weak::clone(weak)));
            let codec = RecordCodec { judge: Arc::clone(&judge), uses: Arc::clone(&uses) };
            let root =
                stack.cache_with::<Record>(codec).with_weigher(|record| weight(record.judged.variants()));
            let records = root.namespace(NAMESPACE).unwrap_or_else(|error| {
                failure = Some(error);
                root.clone()
            });
            let room = count_max.map(Room::new);
            Inner {
                this: Weak::clone(weak),
                stack,
                root,
                records,
                chunks,
                uses,
                judge,
                body_bytes_max,
                inline_bytes_max,
                room,
            }
        });
        failure.map_or(Ok(StackStore { inner }), Err)
    }
}

impl StackStore {
    /// A store with the default options.
    ///
    /// # Errors
    /// As [`StackStoreBuilder::build`].
    pub fn new(stack: &Stack, policy: Policy) -> Result<Self> {
        Self::builder(stack, policy).build()
    }

    /// Starts to make a store in this stack. The policy is the one that responses are judged by.
    pub fn builder(stack: &Stack, policy: Policy) -> StackStoreBuilder {
        StackStoreBuilder {
            stack: stack.clone(),
            policy,
            body_bytes_max: u64::MAX,
            inline_bytes_max: 16 * 1024,
            count_max: None,
            bodies: None,
        }
    }

    /// Judges responses by this policy from now on, also those that are in memory already. A cache whose policy is replaced
    /// ([`HttpCache::rebuild`](crate::HttpCache::rebuild)) goes by what its store says of freshness, so tell both.
    ///
    /// How long something is kept is not changed by it: that was decided when it was stored.
    ///
    /// ```
    /// # use larder_http::{HttpCache, policy::Policy, store::StackStore};
    /// # fn replace(cache: &HttpCache, store: &StackStore) -> HttpCache {
    /// let mut policy = Policy::shared();
    /// policy.heuristic_percent = 0;
    /// store.set_policy(policy.clone());
    /// cache.rebuild().policy(policy).build()
    /// # }
    /// ```
    pub fn set_policy(&self, policy: Policy) {
        self.inner.judge.replace(policy);
    }

    /// The stack that it is in.
    pub fn stack(&self) -> &Stack {
        &self.inner.stack
    }
}

/// What a store shares with its readers and writers.
pub(super) struct Inner {
    this: Weak<Inner>,
    stack: Stack,
    /// The outermost namespace, in which tags are invalidated.
    root: Cache<Record>,
    records: Cache<Record>,
    chunks: Chunks,
    uses: Arc<Uses>,
    judge: Arc<Judge>,
    body_bytes_max: u64,
    inline_bytes_max: u64,
    room: Option<Room>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("stack", &self.stack)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("inline_bytes_max", &self.inline_bytes_max)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

/// What is kept for a target, and which.
struct Record {
    target: Arc<str>,
    judged: Judged,
}

/// Records as bytes.
struct RecordCodec {
    judge: Arc<Judge>,
    uses: Arc<Uses>,
}

impl Codec<Record> for RecordCodec {
    fn id(&self) -> CodecId {
        CODEC
    }

    fn encode(&self, record: &Record) -> std::result::Result<Bytes, BoxError> {
        wire::encode(&record.target, record.judged.variants())
    }

    fn decode(&self, bytes: &Bytes) -> std::result::Result<Record, BoxError> {
        let open = |target: &Arc<str>, chunked: Chunked, bytes| {
            let reader = ChunkReader::new(&self.uses, target, chunked.id, bytes);
            StoredBody::from_chunks(bytes, chunked, Arc::new(reader))
        };
        let (target, judged) = self.judge.read(|policy| wire::decode(policy, bytes, open))?;
        Ok(Record { target, judged })
    }
}

/// What a record weighs in memory, in bytes: without the bodies that are somewhere else.
fn weight(variants: &Variants) -> usize {
    let elsewhere = |response: &StoredResponse| response.body.chunked().map_or(0, |_| response.body.bytes());
    let bytes: u64 = variants
        .responses()
        .iter()
        .map(|response| response.weight().saturating_sub(elsewhere(response)))
        .sum();
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The longest body that can be kept in memory alone without being let go of while it is read: what is read is used, and
/// for it to go, nearly all the rest has to have been used meanwhile.
fn memory_body_bytes_max(stack: &Stack) -> u64 {
    let (None, Some(memory)) = (stack.store(), &stack.facts().memory) else { return u64::MAX };
    let part = memory.bytes_max.map_or(u64::MAX, |bytes| bytes / MEMORY_BODIES_MIN);
    match memory.entry_bytes_max {
        // No chunk would be taken.
        Some(bytes) if bytes < CHUNK_ENTRY_BYTES_MAX => part.min(bytes / 2),
        _ => part,
    }
}

/// The bodies that are in chunks, and how long they are.
fn bodies_in_chunks(variants: &Variants) -> impl Iterator<Item = (u128, u64)> + '_ {
    let responses = variants.responses().iter();
    responses.filter_map(|response| Some((response.body.chunked()?.id, response.body.bytes())))
}

fn enumerates(stack: &Stack) -> bool {
    stack.store().is_none_or(|driver| driver.capabilities().enumerates)
}

/// The key of a target's record. One that is too long is shortened; the record says which target it is of.
fn key_of(target: &str) -> Cow<'_, str> {
    if target.len() <= PLAIN_KEY_BYTES_MAX {
        Cow::Borrowed(target)
    } else {
        Cow::Owned(larder::key::compose_bounded([target]))
    }
}

/// A tag as the stack takes it. One that is too long is shortened.
fn tag_of(tag: &str) -> Cow<'_, str> {
    if tag.len() <= larder::tag::TAG_BYTES_MAX {
        Cow::Borrowed(tag)
    } else {
        let key = larder::key::compose_bounded([
            "larder-http",
            tag,
            &"-".repeat(larder::key::BOUNDED_KEY_BYTES_MAX),
        ]);
        let end = key.floor_char_boundary(larder::tag::TAG_BYTES_MAX);
        Cow::Owned(key.get(..end).unwrap_or_default().to_owned())
    }
}

fn system_time(now: Timestamp) -> SystemTime {
    now.to_system_time().unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What may be handed out of what is kept: what lives, and as stale what a soft invalidation reached.
fn judged(variants: &Arc<Variants>, freshness: Freshness, now: SystemTime) -> Arc<Variants> {
    let lives = |response: &Arc<StoredResponse>| response.delete_at > now;
    if freshness == Freshness::Fresh && variants.responses().iter().all(lives) {
        return Arc::clone(variants);
    }
    let living = Variants::new(variants.responses().iter().filter(|response| lives(response)).cloned());
    if freshness == Freshness::Fresh {
        return Arc::new(living);
    }
    Arc::new(
        living.purged(Purge::Soft, |response| response.stored.kept().mark == Mark::None).unwrap_or(living),
    )
}

/// When a response began to be what it is, in the order of the stack's writes.
fn born(response: &StoredResponse) -> Stamp {
    response.began.unwrap_or_else(|| {
        let requested_at = response.stored.kept().times.requested_at;
        let since_epoch = requested_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        // What came in the same millisecond counts as later: a purge takes the last stamp of its own.
        Stamp::at(Timestamp::from_millis(millis.saturating_add(1)))
    })
}

/// What a change comes to, beside the new record.
#[derive(Default)]
struct Effects {
    /// Bodies that were named, and how long they are.
    before: Vec<(u128, u64)>,
    /// Bodies that are named from now on.
    named: Vec<(u128, u64)>,
    /// Bodies that nobody names any more.
    gone: Vec<(u128, u64)>,
    /// Bodies that have to be kept longer than their chunks are.
    prolonged: Vec<Prolonged>,
    /// How many responses are new.
    added: u64,
}

impl Inner {
    /// Changes a record. True if anything changed.
    async fn change(&self, target: &str, change: Change<'_>) -> Result<bool> {
        let key = key_of(target);
        let mut effects = Effects::default();
        // Bodies that no record named before. Until it is known which one does, all of them may be named: a store that
        // does not answer may have taken the record.
        let mut taken = BTreeMap::new();
        let changed = self
            .records
            .update(&key, |present| {
                let (updated, and) = self.changed(target, present, change);
                taken.extend(and.named.iter().copied().filter(|(id, _)| self.uses.take(*id)));
                effects = and;
                updated
            })
            .await?;
        for (id, bytes) in taken {
            let is_named = |ids: &[(u128, u64)]| ids.iter().any(|(named, _)| *named == id);
            if !is_named(if changed { &effects.named } else { &effects.before }) {
                self.uses.made(id, bytes);
            }
        }
        if !changed {
            return Ok(false);
        }
        let Effects { gone, prolonged, added, .. } = effects;
        self.give_back(gone);
        self.prolong(target, prolonged).await?;
        if let Some(room) = &self.room {
            room.make(self, target, added).await?;
        }
        Ok(true)
    }

    fn changed(
        &self,
        target: &str,
        present: Option<Present<Record>>,
        change: Change<'_>,
    ) -> (Updated<Record>, Effects) {
        let mut effects = Effects::default();
        let now = system_time(self.stack.now());
        let present = present.filter(|present| *present.value.target == *target);
        let before = match &present {
            Some(present) => judged(&self.judge.now(&present.value.judged), present.freshness, now),
            None => Arc::default(),
        };
        if let Some(present) = &present {
            effects.before = bodies_in_chunks(present.value.judged.variants()).collect();
        }
        let Some(after) = change(&before) else { return (Updated::keep(), effects) };
        let is_kept = |response: &StoredResponse| {
            let times = |response: &StoredResponse| response.stored.kept().times;
            before.by_id(response.id).is_some_and(|before| times(before) == times(response))
        };
        let fresh_births =
            after.responses().iter().filter(|response| !is_kept(response)).map(|response| born(response));
        let kept_birth = match &present {
            Some(present) if after.responses().iter().any(|response| is_kept(response)) => {
                // What a soft invalidation reached says so itself from now on.
                let after =
                    present.invalidated.map(|soft| Stamp::from_bits(soft.to_bits().saturating_add(1)));
                Some(after.map_or(present.born, |after| after.max(present.born)))
            }
            _ => None,
        };
        let birth = fresh_births.chain(kept_birth).min();
        let named: Vec<_> = bodies_in_chunks(&after).collect();
        effects.gone = effects.before.iter().filter(|body| !named.contains(body)).copied().collect();
        effects.added =
            after.responses().iter().filter(|response| before.by_id(response.id).is_none()).count() as u64;
        let life = after.life_left(now).min(LIFE_MAX);
        if after.is_empty() || life.is_zero() {
            return (Updated::delete(), effects);
        }
        effects.named = named;
        let target: Arc<str> = target.into();
        let after = self.with_chunks_for_life(&target, &after, now, &mut effects);
        let tags: Vec<String> = after
            .tags()
            .into_iter()
            .filter(|tag| !tag.is_empty())
            .map(|tag| tag_of(tag).into_owned())
            .collect();
        let record = Record { target, judged: self.judge.keep(after) };
        let updated = Updated::put(record).ttl(life).grace(GRACE).tags(tags);
        (birth.into_iter().fold(updated, Updated::born), effects)
    }

    fn mine(&self, target: &str, record: &Record) -> bool {
        *record.target == *target
    }
}

#[async_trait]
impl HttpStore for StackStore {
    fn name(&self) -> &'static str {
        "stack"
    }

    fn begin(&self) -> Option<Stamp> {
        Some(self.inner.stack.stamp())
    }

    fn peek(&self, target: &str) -> Option<Arc<Variants>> {
        let record = self.inner.records.peek(&key_of(target))?;
        let now = system_time(self.inner.stack.now());
        let lives = |response: &Arc<StoredResponse>| response.delete_at > now;
        let all_live = record.judged.variants().responses().iter().all(lives);
        (all_live && self.inner.mine(target, &record)).then(|| self.inner.judge.now(&record.judged))
    }

    async fn get(&self, target: &str) -> Result<Option<Arc<Variants>>> {
        let Some((record, freshness)) = self.inner.records.get_judged(&key_of(target)).await? else {
            return Ok(None);
        };
        if !self.inner.mine(target, &record) {
            return Ok(None);
        }
        let variants = self.inner.judge.now(&record.judged);
        let judged = judged(&variants, freshness, system_time(self.inner.stack.now()));
        Ok((!judged.is_empty()).then_some(judged))
    }

    async fn change(&self, target: &str, change: Change<'_>) -> Result<()> {
        self.inner.change(target, change).await.map(drop)
    }

    async fn create(&self, target: &str, head: &Stored) -> Result<Option<Box<dyn WriteBody>>> {
        let announced = head.headers().get(http::header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > self.inner.body_bytes_max) {
            return Ok(None);
        }
        Ok(Some(Box::new(ChunkWriter::new(Arc::clone(&self.inner), target, head))))
    }

    async fn invalidate(&self, tags: &[&str], how: Purge) -> Result<()> {
        let tags: Vec<Cow<'_, str>> =
            tags.iter().filter(|tag| !tag.is_empty()).map(|tag| tag_of(tag)).collect();
        let invalidation = self.inner.root.invalidate(tags.iter().map(|tag| &**tag));
        match how {
            Purge::Hard => invalidation.await,
            Purge::Soft => invalidation.soft().await,
        }
    }

    /// The record goes whether or not it can be read; a delete that fails is tried again by the stack.
    async fn delete(&self, target: &str) -> Result<bool> {
        let key = key_of(target);
        // Only to give the chunks back: they end by themselves where this fails.
        let found = self.inner.records.get_judged(&key).await.ok().flatten();
        let outcome = self.inner.records.delete(&key).await;
        if outcome.is_ok()
            && let Some((record, _)) = found
            && self.inner.mine(target, &record)
        {
            self.inner.give_back(bodies_in_chunks(record.judged.variants()).collect());
        }
        outcome
    }

    fn targets(&self, prefix: &str) -> Result<BoxStream<'_, Result<String>>> {
        if !enumerates(&self.inner.stack) {
            let message =
                format!("the store of stack {:?} cannot list what it keeps", self.inner.stack.name());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let prefix = prefix.to_owned();
        let targets = self.inner.targets().filter(move |target| {
            let is_meant = target.as_ref().map_or(true, |target| target.starts_with(&prefix));
            std::future::ready(is_meant)
        });
        Ok(targets.boxed())
    }

    /// Chunks go as well, at once: a large body that is being read from the store ends there, without its end.
    async fn clear(&self) -> Result<()> {
        self.inner.records.clear().await.map(drop)
    }
}

impl Inner {
    /// All targets.
    fn targets(&self) -> BoxStream<'_, Result<String>> {
        let whole = |key: Result<String>| async {
            match key {
                Ok(key) if key.len() > PLAIN_KEY_BYTES_MAX => match self.records.entry(&key).await {
                    Ok(entry) => entry.map(|entry| Ok(entry.value.target.as_ref().to_owned())),
                    Err(error) => Some(Err(error)),
                },
                key => Some(key),
            }
        };
        self.records.keys().filter_map(whole).boxed()
    }
}
