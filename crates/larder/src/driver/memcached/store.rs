//! The conditional write: look, decide, and store if the version that was looked at is still there; again if it is not.
//!
//! Knows where a head ends. Looking and storing are two commands, and the version makes them one step: a server refuses
//! the second if anybody else wrote in between.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::client::{Servers, TOGETHER_KEYS, check_size, refused};
use super::command::{Batch, Mode, expiry};
use super::failure;
use super::keys::wire_key;
use super::reply::Reply;
use super::server::Server;
use crate::driver::{When, Write, Written, head};
use crate::error::Result;
use crate::time::{Clock as _, Timestamp};

/// A larger value is not sent on the chance that nothing is there.
const CHANCE_BYTES_MAX: usize = 16 * 1024;
/// How often a write may meet another one. Whoever is met has written, so that somebody gets on each time.
const TRIES_MAX: u32 = 200;
/// How many calls of one batch are on their way at once, and how many bytes one call brings, unless one write has more.
const CONCURRENT_MAX: usize = 16;
const TOGETHER_BYTES: usize = 1024 * 1024;

/// A write that is not settled.
#[derive(Debug)]
struct Pending {
    /// Its place among the writes.
    at: usize,
    wire: String,
    value: Bytes,
    expiry: Option<u64>,
    when: When,
    step: Step,
    tries: u32,
}

#[derive(Debug)]
enum Step {
    /// Look what is there.
    Look,
    /// Store, because nothing was there.
    Add,
    /// Store over this version.
    Swap { version: u64, previous: Option<Bytes> },
}

impl Servers {
    /// Stores several records, each on its condition, those of one key one after the other.
    pub(super) async fn store(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        let now = self.clock.now();
        let count = writes.len();
        if count < 2 {
            let mut written = Vec::with_capacity(count);
            for write in writes {
                let (place, pending) = self.pending(0, write, now);
                written
                    .extend(self.settle(place, vec![pending]).await?.into_iter().map(|(_, written)| written));
            }
            return Ok(written);
        }
        let mut rounds: Vec<Vec<(usize, Pending)>> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (at, write) in writes.into_iter().enumerate() {
            let (place, pending) = self.pending(at, write, now);
            let round = seen.entry(pending.wire.clone()).or_default();
            match rounds.get_mut(*round) {
                Some(round) => round.push((place, pending)),
                None => rounds.push(vec![(place, pending)]),
            }
            *round += 1;
        }
        let mut written = Vec::with_capacity(count);
        for round in rounds {
            let calls = portions(round).into_iter().map(|(place, some)| self.settle(place, some));
            let calls: Vec<_> = calls.collect();
            let settled: Vec<(usize, Written)> =
                stream::iter(calls).buffer_unordered(CONCURRENT_MAX).try_concat().await?;
            written.extend(settled);
        }
        written.sort_unstable_by_key(|(at, _)| *at);
        Ok(written.into_iter().map(|(_, written)| written).collect())
    }

    /// A write that nothing has been done about, and where its server is.
    fn pending(&self, at: usize, write: Write, now: Timestamp) -> (usize, Pending) {
        let Write { key, value, ttl, when } = write;
        let wire = match wire_key(&key) {
            Cow::Borrowed(_) => key,
            Cow::Owned(hashed) => hashed,
        };
        let (place, expiry) = (self.place(&wire), expiry(ttl, now));
        (place, Pending { at, wire, value, expiry, when, step: Step::Look, tries: 0 })
    }

    /// Writes of different keys to one server, until each is settled.
    async fn settle(&self, place: usize, mut left: Vec<Pending>) -> Result<Vec<(usize, Written)>> {
        let server = self.at(place)?;
        let line = server.line().await?;
        for pending in &left {
            check_size(server, &line, &pending.value)?;
        }
        let mut settled = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let mut batch = line.batch(left.len() * 2);
            for pending in &left {
                pending.ask(&mut batch);
            }
            let mut replies = line.send("set", batch).await?.into_iter();
            let mut unsettled = Vec::new();
            for mut pending in left {
                match pending.hear(server, &mut replies)? {
                    Some(written) => settled.push((pending.at, written)),
                    None if pending.tries >= TRIES_MAX => return Err(failure::contended(&server.name)),
                    None => {
                        pending.tries += 1;
                        unsettled.push(pending);
                    }
                }
            }
            left = unsettled;
        }
        Ok(settled)
    }
}

impl Pending {
    /// Whether the value is sent together with the look: always if nothing can be against it, and if it is not large on
    /// the chance that nothing is there, as after most loads.
    fn is_sent_at_once(&self) -> bool {
        match self.when {
            When::Always => true,
            When::Newer | When::Unchanged(None) => self.tries == 0 && self.value.len() <= CHANCE_BYTES_MAX,
            When::Unchanged(Some(_)) => false,
        }
    }

    fn ask(&self, batch: &mut Batch) {
        let mut store = |mode| batch.set(&self.wire, self.value.clone(), self.expiry, mode);
        match self.step {
            Step::Add => store(Mode::Add),
            Step::Swap { version, .. } => store(Mode::Swap(version)),
            Step::Look => {
                batch.get(&self.wire, true);
                if self.is_sent_at_once() {
                    let mode = if self.when == When::Always { Mode::Always } else { Mode::Add };
                    batch.set(&self.wire, self.value.clone(), self.expiry, mode);
                }
            }
        }
    }

    /// What the answers come to; `None` if it goes on.
    fn hear(
        &mut self,
        server: &Server,
        replies: &mut impl Iterator<Item = Reply>,
    ) -> Result<Option<Written>> {
        let mut next = || replies.next().ok_or_else(|| failure::unexpected("set", &server.name));
        let previous = match &mut self.step {
            Step::Look => {
                let found = next()?;
                let stored = if self.is_sent_at_once() { Some(next()?) } else { None };
                return self.decide(server, found, stored);
            }
            Step::Add => None,
            Step::Swap { previous, .. } => previous.take(),
        };
        match next()? {
            Reply::Done => Ok(Some(Written::Stored { previous })),
            Reply::Exists | Reply::Missing | Reply::NotStored => {
                self.step = Step::Look;
                Ok(None)
            }
            other => Err(refused("set", server, &other)),
        }
    }

    /// What to do about what was found, given what became of the value if it was sent along.
    fn decide(&mut self, server: &Server, found: Reply, stored: Option<Reply>) -> Result<Option<Written>> {
        let found = match found {
            Reply::Value(bytes, version) => Some((bytes, version)),
            Reply::Missing => None,
            other => return Err(refused("set", server, &other)),
        };
        let sent = stored.is_some();
        match stored {
            Some(Reply::Done) => {
                // Added, so that nothing was there any more, whatever was found before.
                let found = found.filter(|_| self.when == When::Always);
                return Ok(Some(Written::Stored { previous: found.map(|(bytes, _)| head(&bytes)) }));
            }
            Some(Reply::NotStored) | None => {}
            Some(other) => return Err(refused("set", server, &other)),
        }
        let outcome = self.when.outcome(found.as_ref().map(|(bytes, _)| &bytes[..]), &self.value);
        let Written::Stored { previous } = outcome else { return Ok(Some(outcome)) };
        self.step = match found {
            // No version is zero: the server does not keep any.
            Some((_, 0)) => return Err(failure::without_versions(&server.name)),
            Some((_, version)) => Step::Swap { version, previous },
            // It was written between the look and the attempt.
            None if sent => Step::Look,
            None => Step::Add,
        };
        Ok(None)
    }
}

/// Writes in portions of one server each, none of which has too many or too much; a large one may stand alone.
fn portions(mut writes: Vec<(usize, Pending)>) -> Vec<(usize, Vec<Pending>)> {
    writes.sort_by_key(|(place, _)| *place);
    let mut portions: Vec<(usize, Vec<Pending>)> = Vec::new();
    let mut bytes = 0;
    for (place, pending) in writes {
        bytes += pending.value.len();
        match portions.last_mut() {
            Some((same, some)) if *same == place && some.len() < TOGETHER_KEYS && bytes <= TOGETHER_BYTES => {
                some.push(pending);
            }
            _ => {
                bytes = pending.value.len();
                portions.push((place, vec![pending]));
            }
        }
    }
    portions
}
