//! Random operations on a stack against the reference cache, step by step, over every choice of tiers.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use larder::entry::Freshness;
use larder::testing::{Harness, Model, Tiers};
use larder::time::{Clock as _, Ttl};
use larder::{Cache, EntryOptions, ErrorKind};
use proptest::prelude::*;

use crate::flow::cache;

#[derive(Debug, Clone)]
enum Step {
    Get,
    GetMany,
    GetOrSet { value: Option<i64>, ttl: Ttl, grace: u64 },
    GetOrSetMany { value: i64, ttl: Ttl },
    Set { value: i64, ttl: Ttl, grace: u64 },
    SetMany { value: i64, ttl: Ttl },
    Add { value: i64, ttl: Ttl, grace: u64 },
    Has,
    Entry,
    Pull,
    Touch { ttl: Ttl },
    Expire,
    Delete,
    DeleteMany,
    Clear,
    ClearSoftly,
    SetTagged { value: i64, ttl: Ttl, tags: &'static [&'static str] },
    Invalidate { tag: &'static str },
    Soften { tag: &'static str },
    Prune,
    Increment { by: i64, ttl: Ttl },
    Keys,
    Advance { millis: u64 },
}

const KEYS: [&str; 3] = ["a", "b", ""];
const SPACES: [&[&str]; 4] = [&[], &["n"], &["n", "m"], &["nm"]];
/// The grace of entries that say nothing of theirs, in milliseconds.
const GRACE: u64 = 30;

fn ttl() -> impl Strategy<Value = Ttl> {
    prop_oneof![
        8 => (0_u64..60).prop_map(|millis| Ttl::For(Duration::from_millis(millis))),
        1 => Just(Ttl::Forever),
        1 => Just(Ttl::For(Duration::MAX)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let value = 0_i64..100;
    let grace = prop_oneof![Just(0_u64), 0_u64..60];
    prop_oneof![
        4 => Just(Step::Get),
        2 => Just(Step::GetMany),
        6 => (proptest::option::weighted(0.7, value.clone()), ttl(), grace.clone())
            .prop_map(|(value, ttl, grace)| Step::GetOrSet { value, ttl, grace }),
        2 => (value.clone(), ttl()).prop_map(|(value, ttl)| Step::GetOrSetMany { value, ttl }),
        4 => (value.clone(), ttl(), grace.clone()).prop_map(|(value, ttl, grace)| Step::Set { value, ttl, grace }),
        1 => (value.clone(), ttl()).prop_map(|(value, ttl)| Step::SetMany { value, ttl }),
        2 => (value, ttl(), grace).prop_map(|(value, ttl, grace)| Step::Add { value, ttl, grace }),
        1 => Just(Step::Has),
        2 => Just(Step::Entry),
        2 => Just(Step::Pull),
        2 => ttl().prop_map(|ttl| Step::Touch { ttl }),
        2 => Just(Step::Expire),
        2 => Just(Step::Delete),
        1 => Just(Step::DeleteMany),
        1 => Just(Step::Clear),
        1 => Just(Step::ClearSoftly),
        3 => (0_i64..100, ttl(), prop_oneof![Just(&["x"][..]), Just(&["y"][..]), Just(&["x", "y"][..])])
            .prop_map(|(value, ttl, tags)| Step::SetTagged { value, ttl, tags }),
        1 => prop_oneof![Just("x"), Just("y")].prop_map(|tag| Step::Invalidate { tag }),
        1 => prop_oneof![Just("x"), Just("y")].prop_map(|tag| Step::Soften { tag }),
        1 => Just(Step::Prune),
        2 => (prop_oneof![-5_i64..5, Just(i64::MAX)], ttl()).prop_map(|(by, ttl)| Step::Increment { by, ttl }),
        1 => Just(Step::Keys),
        6 => (0_u64..40).prop_map(|millis| Step::Advance { millis }),
    ]
}

struct Run {
    harness: Harness,
    spaces: Vec<Cache<i64>>,
    model: Model,
    lookups: u64,
    /// Whether a tag was invalidated. From then on a store's listing and its answer to a delete may count what
    /// only a tag has invalidated, because neither sees tags.
    tags_were_invalidated: bool,
}

impl Run {
    fn new(tiers: Tiers) -> Self {
        let harness = Harness::new(tiers);
        let options = EntryOptions::default().grace(Duration::from_millis(GRACE)).backoff(Duration::ZERO);
        let root = cache::<i64>(&harness).with_options(options);
        let at = |path: &[&str]| path.iter().fold(root.clone(), |cache, name| cache.namespace(name).unwrap());
        Self {
            spaces: SPACES.iter().map(|path| at(path)).collect(),
            harness,
            model: Model::default(),
            lookups: 0,
            tags_were_invalidated: false,
        }
    }

    async fn step(&mut self, space: usize, key: usize, step: &Step) {
        let (cache, path, key) = (&self.spaces[space], SPACES[space], KEYS[key]);
        let (model, now) = (&mut self.model, self.harness.clock.now());
        let millis = Duration::from_millis;
        let usual = millis(GRACE);
        match *step {
            Step::Get => {
                self.lookups += 1;
                let found = cache.get(key).await.unwrap().map(|n| *n);
                assert_eq!(found, model.get(path, key, now));
            }
            Step::GetMany => {
                self.lookups += KEYS.len() as u64;
                let found = cache.get_many(&KEYS).await.unwrap();
                let found: Vec<_> = found.into_iter().map(|value| value.map(|n| *n)).collect();
                assert_eq!(found, KEYS.map(|key| model.get(path, key, now)));
            }
            Step::GetOrSet { value, ttl, grace } => {
                self.lookups += 1;
                let load = move || std::future::ready(value.ok_or(std::fmt::Error));
                let found = cache.get_or_set(key, load).ttl(ttl).grace(millis(grace)).await;
                assert_eq!(
                    found.ok().map(|n| *n),
                    model.get_or_set(path, key, value, ttl, millis(grace), now)
                );
            }
            Step::GetOrSetMany { value, ttl } => {
                self.lookups += KEYS.len() as u64;
                let load = move |missing: Vec<String>| {
                    let loaded = missing.into_iter().map(move |key| match key.as_str() {
                        "b" => (key, Err(std::fmt::Error)),
                        _ => (key, Ok(value)),
                    });
                    std::future::ready(Ok(loaded))
                };
                let found = cache.get_or_set_many(&KEYS, load).ttl(ttl).await;
                let found: Vec<_> = found.into_iter().map(|value| value.ok().map(|n| *n)).collect();
                let expected = KEYS.map(|key| {
                    let value = (key != "b").then_some(value);
                    model.get_or_set(path, key, value, ttl, usual, now)
                });
                assert_eq!(found, expected);
            }
            Step::Set { value, ttl, grace } => {
                cache.set(key, value).ttl(ttl).grace(millis(grace)).await.unwrap();
                model.set(path, key, value, ttl, millis(grace), now);
            }
            Step::SetMany { value, ttl } => {
                cache.set_many(KEYS.map(|key| (key, value))).ttl(ttl).await.unwrap();
                KEYS.iter().for_each(|key| model.set(path, key, value, ttl, usual, now));
            }
            Step::Add { value, ttl, grace } => {
                let added = cache.add(key, value).ttl(ttl).grace(millis(grace)).await.unwrap();
                assert_eq!(added, model.add(path, key, value, ttl, millis(grace), now));
            }
            Step::Has => {
                assert_eq!(cache.has(key).await.unwrap(), model.get(path, key, now).is_some());
            }
            Step::Entry => {
                let found = cache.entry(key).await.unwrap();
                let found = found.map(|entry| (*entry.value, entry.state == Freshness::Fresh));
                assert_eq!(found, model.entry(path, key, now));
            }
            Step::Pull => {
                self.lookups += 1;
                assert_eq!(cache.pull(key).await.unwrap().map(|n| *n), model.pull(path, key, now));
            }
            Step::Touch { ttl } => {
                let expected = model.touch(path, key, ttl, usual, now);
                let found = cache.touch(key, ttl).await.unwrap();
                // A TTL of zero is a delete.
                let may_differ = found && ttl.is_zero() && self.tags_were_invalidated;
                assert!(found == expected || may_differ, "{found}, not {expected}");
            }
            Step::Expire => {
                assert_eq!(cache.expire(key).await.unwrap(), model.expire(path, key, usual, now));
            }
            Step::Delete => {
                let (found, expected) = (cache.delete(key).await.unwrap(), model.delete(path, key, now));
                assert!(
                    found == expected || (found && self.tags_were_invalidated),
                    "{found}, not {expected}"
                );
            }
            Step::DeleteMany => {
                let expected = KEYS.iter().filter(|key| model.delete(path, key, now)).count() as u64;
                let found = cache.delete_many(&KEYS).await.unwrap();
                assert!(found == expected || (found > expected && self.tags_were_invalidated));
            }
            Step::Clear => {
                cache.clear().await.unwrap();
                model.clear(path);
            }
            Step::ClearSoftly => {
                cache.clear().soft().await.unwrap();
                model.soften(path, None);
            }
            Step::SetTagged { value, ttl, tags } => {
                cache.set(key, value).ttl(ttl).tags(tags.iter().copied()).await.unwrap();
                model.set(path, key, value, ttl, usual, now);
                model.tag(path, key, tags);
            }
            Step::Invalidate { tag } => {
                cache.invalidate([tag]).await.unwrap();
                model.invalidate(path, tag);
                self.tags_were_invalidated = true;
            }
            Step::Soften { tag } => {
                cache.invalidate([tag]).soft().await.unwrap();
                model.soften(path, Some(tag));
                self.tags_were_invalidated = true;
            }
            Step::Prune => drop(self.harness.stack.prune().await.unwrap()),
            Step::Increment { by, ttl } => {
                let sum = cache.increment(key, by).ttl(ttl).await;
                if let Err(error) = &sum {
                    assert_eq!(error.kind(), ErrorKind::Counter);
                }
                assert_eq!(sum.ok(), model.increment(path, key, by, ttl, usual, now));
            }
            Step::Keys => {
                let mut keys: Vec<String> = cache.keys().try_collect().await.unwrap();
                keys.sort();
                let expected = model.keys(path, now);
                if self.tags_were_invalidated {
                    assert!(expected.iter().all(|key| keys.contains(key)), "{keys:?}, not {expected:?}");
                } else {
                    assert_eq!(keys, expected);
                }
            }
            Step::Advance { millis } => self.harness.clock.advance(Duration::from_millis(millis)),
        }
    }
}

fn agrees(tiers: Tiers, steps: Vec<(usize, usize, Step)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(tiers);
        for (space, key, step) in &steps {
            run.step(*space, *key, step).await;
        }
        run.harness.finish(run.lookups).await;
    });
}

fn sequences() -> impl Strategy<Value = Vec<(usize, usize, Step)>> {
    proptest::collection::vec((0..SPACES.len(), 0..KEYS.len(), step()), 1..40)
}

/// How many sequences each choice of tiers is tried with.
const SEQUENCES: u32 = 10_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: SEQUENCES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_alone_does_what_the_model_does(steps in sequences()) {
        agrees(Tiers::L1, steps);
    }

    #[test]
    fn a_store_alone_does_what_the_model_does(steps in sequences()) {
        agrees(Tiers::L2, steps);
    }

    #[test]
    fn memory_and_a_store_do_what_the_model_does(steps in sequences()) {
        agrees(Tiers::Both, steps);
    }
}
