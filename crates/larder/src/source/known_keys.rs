//! A Bloom filter of the keys that a source has, so that it is not asked for others. Knows nothing of caches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastbloom::AtomicBloomFilter;
use futures_util::{Stream, StreamExt as _};
use parking_lot::RwLock;

use crate::error::{BoxError, Error, ErrorKind, Result};

/// How large a filter may be: 1 GiB, which is about 900 million keys at a false positive rate of 1 in 100.
pub const KEY_FILTER_BYTES_MAX: u64 = 1 << 30;
/// Below this, the 64 bits that are left of a key cost more false positives than the filter does.
const RATE_MIN: f64 = 1e-9;
const RATE_MAX: f64 = 0.5;

/// How large a filter of keys is made.
///
/// ```
/// use larder::source::KnownKeysOptions;
/// let options = KnownKeysOptions::new(1_000_000);
/// assert_eq!(options.false_positive_rate, 0.01);
/// assert_eq!(options.bytes()?, 1_198_136); // 9.6 bits for each key
/// assert!(KnownKeysOptions::new(1_000_000).false_positive_rate(0.0).bytes().is_err());
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct KnownKeysOptions {
    /// How many different keys the source will have.
    pub expected_keys: u64,
    /// How many of the keys that it does not have reach it all the same, once it has as many as expected: from 0.5
    /// down to 0.000000001. Default: 0.01, one in a hundred. A tenth of it costs half as many bytes again.
    pub false_positive_rate: f64,
}

impl KnownKeysOptions {
    /// For a source with so many keys.
    pub fn new(expected_keys: u64) -> Self {
        Self { expected_keys, false_positive_rate: 0.01 }
    }

    /// With this rate of false positives.
    #[must_use]
    pub fn false_positive_rate(mut self, rate: f64) -> Self {
        self.false_positive_rate = rate;
        self
    }

    /// How many bytes the filter takes, whatever it holds. While it is filled again there are two.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a number of keys or a rate that makes no sense, or more than
    /// [`KEY_FILTER_BYTES_MAX`].
    pub fn bytes(&self) -> Result<u64> {
        let Self { expected_keys, false_positive_rate: rate } = *self;
        let refuse = |message: String| Err(Error::new(ErrorKind::Config, message));
        if expected_keys == 0 {
            return refuse("a filter of known keys expects 0 keys; say how many the source will have".into());
        }
        if !(RATE_MIN..=RATE_MAX).contains(&rate) {
            return refuse(format!(
                "a false positive rate of {rate} makes no sense for a filter of known keys; it is between \
                 {RATE_MIN} and {RATE_MAX}, and 0.01 is usual"
            ));
        }
        // Checked with room to spare before the library is asked, which counts in the machine's integers.
        let bits_per_key = -rate.ln() / std::f64::consts::LN_2.powi(2);
        let bytes = expected_keys as f64 * bits_per_key / 8.0;
        if bytes > KEY_FILTER_BYTES_MAX as f64 {
            return refuse(format!(
                "a filter of {expected_keys} known keys at a false positive rate of {rate} takes {bytes:.0} bytes, \
                 and may take {KEY_FILTER_BYTES_MAX}; expect fewer keys, or raise the rate"
            ));
        }
        let bits = fastbloom::optimal_size(usize::try_from(expected_keys).unwrap_or(usize::MAX), rate) as u64;
        Ok(bits.div_ceil(64) * 8)
    }
}

/// The keys that a source has, as far as this process knows: what it rules out is certainly not there, and the rest
/// may be. Cheap to clone; clones are the same filter.
///
/// It rules nothing out before it has been filled once ([`KnownKeys::fill`]). Afterwards the handles that write the
/// source add what they write; anything else that creates keys has to be told to it ([`KnownKeys::add`]), **other
/// processes included: it belongs to one process, and what others create since it was filled it takes for absent.**
/// Fill it again, as often as that may not matter, or do not use it where others create keys.
///
/// A key cannot be taken out: one that was deleted passes the filter, and the source is asked, until it is filled
/// again. One filter is for one source.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// # use std::sync::Arc;
/// # use larder::{Stack, memory::MemoryOptions};
/// use larder::source::{KnownKeys, KnownKeysOptions};
/// # let cache = Stack::builder("demo").memory(MemoryOptions::new(1_000)).build()?.cache::<String>()?;
/// # async fn find(_: &str) -> Result<Option<String>, std::io::Error> { Ok(Some("Ada".to_owned())) }
/// # async fn save(_: &str, _: &str) -> Result<(), std::io::Error> { Ok(()) }
///
/// let known = KnownKeys::new(KnownKeysOptions::new(100_000))?;
/// let users = cache
///     .read_through(|id: String| async move { find(&id).await })
///     .known_keys(known.clone())
///     .write_through(|id: String, name: Arc<String>| async move { save(&id, &name).await });
///
/// known.fill(["42", "43"])?; // what the source has: all of it
/// assert_eq!(users.get("made up").await?, None); // nobody asked the source
/// users.set("44", "Eve".to_owned()).await?; // known from here on
/// assert!(known.may_have("44"));
/// assert_eq!(known.stats().loads_avoided, 1);
/// # Ok::<(), larder::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct KnownKeys(Arc<Inner>);

struct Inner {
    state: RwLock<State>,
    loads_avoided: AtomicU64,
    loads_in_vain: AtomicU64,
}

struct State {
    /// For the next filling.
    options: KnownKeysOptions,
    /// Absent until it has been filled.
    current: Option<Arc<Filter>>,
    /// Being filled; what is written goes here too.
    next: Option<Arc<Filter>>,
}

struct Filter {
    options: KnownKeysOptions,
    bloom: AtomicBloomFilter,
}

impl Filter {
    fn new(options: KnownKeysOptions) -> Result<Self> {
        options.bytes()?;
        let expected = usize::try_from(options.expected_keys).unwrap_or(usize::MAX);
        // Its hash is seeded anew for each filter, so what passes one does not pass another.
        let bloom = AtomicBloomFilter::with_false_pos(options.false_positive_rate).expected_items(expected);
        Ok(Self { options, bloom })
    }

    fn bytes(&self) -> u64 {
        self.bloom.num_bits() as u64 / 8
    }

    /// The share of its bits that are set. What was added tells less: a key that passes already may be a new one.
    fn density(&self) -> f64 {
        let set: u64 = self.bloom.iter().map(|word| u64::from(word.count_ones())).sum();
        set as f64 / self.bloom.num_bits() as f64
    }

    /// How many different keys make it as dense as that: Swamidass and Baldi, *Mathematical Correction for
    /// Fingerprint Similarity Measures*, 2007.
    fn keys(&self, density: f64) -> u64 {
        let (bits, hashes) = (self.bloom.num_bits() as f64, f64::from(self.bloom.num_hashes()));
        (-bits / hashes * (1.0 - density).ln()).round() as u64
    }
}

impl KnownKeys {
    /// A filter that has not been filled, and takes next to no space until then.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], as [`KnownKeysOptions::bytes`].
    pub fn new(options: KnownKeysOptions) -> Result<Self> {
        options.bytes()?;
        let state = State { options, current: None, next: None };
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner {
            state: RwLock::new(state),
            loads_avoided: counts.0,
            loads_in_vain: counts.1,
        })))
    }

    /// Fills the filter with the keys that the source has, all of them, in place of those that it held. What is
    /// added meanwhile is kept. Returns how many were given.
    ///
    /// Until it returns, the filter answers from what it held before, or rules nothing out if that was nothing. For
    /// a source that is empty so far, no keys are the right ones.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] while it is being filled already.
    ///
    /// # Panics
    /// If the iterator does; the filter is then as it was.
    pub fn fill<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Result<u64> {
        let filling = self.begin()?;
        let mut count = 0;
        for key in keys {
            filling.next.bloom.insert(key.as_ref());
            count += 1;
        }
        filling.finish();
        Ok(count)
    }

    /// As [`KnownKeys::fill`], from a stream, as clients of databases have them. Dropping the future leaves the filter
    /// as it was.
    ///
    /// # Errors
    /// [`ErrorKind::Load`] with the stream's first error inside, the filter being as it was;
    /// [`ErrorKind::Overloaded`] while it is being filled already.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// use futures_util::stream;
    /// use larder::source::{KnownKeys, KnownKeysOptions};
    /// let known = KnownKeys::new(KnownKeysOptions::new(1_000))?;
    /// let rows = stream::iter(["42", "43"].map(Ok::<_, std::io::Error>)); // SELECT id FROM users
    /// assert_eq!(known.fill_from(rows).await?, 2);
    /// assert!(known.may_have("42") && !known.may_have("made up"));
    /// # Ok::<(), larder::Error>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn fill_from<K, E>(&self, keys: impl Stream<Item = std::result::Result<K, E>>) -> Result<u64>
    where
        K: AsRef<str>,
        E: Into<BoxError>,
    {
        let filling = self.begin()?;
        let mut keys = std::pin::pin!(keys);
        let mut count = 0;
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| {
                let message =
                    format!("listing the keys of the source failed after {count}; the filter is as it was");
                Error::from_source(ErrorKind::Load, message, error)
            })?;
            filling.next.bloom.insert(key.as_ref());
            count += 1;
        }
        filling.finish();
        Ok(count)
    }

    /// Sizes the filter anew, from the next filling on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], as [`KnownKeysOptions::bytes`].
    pub fn resize(&self, options: KnownKeysOptions) -> Result<()> {
        options.bytes()?;
        self.0.state.write().options = options;
        Ok(())
    }

    /// Adds a key: before the source has it, so that nobody is told that it has not, and once more after that if
    /// the filter may be being filled again meanwhile. The handles that write the source do both.
    pub fn add(&self, key: &str) {
        // Held while both are told, so that a filling does not end between them.
        let state = self.0.state.read();
        for filter in state.current.iter().chain(&state.next) {
            filter.bloom.insert(key);
        }
    }

    /// Whether the source may have a key. `false` is certain, as far as the filter was told of everything.
    pub fn may_have(&self, key: &str) -> bool {
        self.0.state.read().current.as_ref().is_none_or(|filter| filter.bloom.contains(key))
    }

    /// What it holds, what it takes, and what it has been good for. It counts its bits, which takes a moment if it is
    /// large: not something to do for each request.
    pub fn stats(&self) -> KnownKeysStats {
        let (current, next, options) = {
            let state = self.0.state.read();
            (state.current.clone(), state.next.clone(), state.options)
        };
        let density = current.as_ref().map_or(0.0, |filter| filter.density());
        let options = current.as_ref().map_or(options, |filter| filter.options);
        KnownKeysStats {
            is_filled: current.is_some(),
            keys: current.as_ref().map_or(0, |filter| filter.keys(density)),
            expected_keys: options.expected_keys,
            bytes: current.iter().chain(&next).map(|filter| filter.bytes()).sum(),
            false_positive_rate: current
                .as_ref()
                .map_or(1.0, |filter| fastbloom::expected_false_pos(filter.bloom.num_hashes(), density)),
            false_positive_rate_wanted: options.false_positive_rate,
            loads_avoided: self.0.loads_avoided.load(Ordering::Relaxed),
            loads_in_vain: self.0.loads_in_vain.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_avoided(&self) {
        self.0.loads_avoided.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_found_nothing(&self) {
        self.0.loads_in_vain.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&self) -> Result<Filling<'_>> {
        let options = self.0.state.read().options;
        // Made outside the lock: it may be large.
        let next = Arc::new(Filter::new(options)?);
        let mut state = self.0.state.write();
        if state.next.is_some() {
            let message = "the filter of known keys is being filled already; wait for that to end";
            return Err(Error::new(ErrorKind::Overloaded, message));
        }
        state.next = Some(Arc::clone(&next));
        Ok(Filling { known: self, next })
    }
}

impl fmt::Debug for KnownKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.read();
        f.debug_struct("KnownKeys")
            .field("options", &state.options)
            .field("is_filled", &state.current.is_some())
            .finish_non_exhaustive()
    }
}

/// A filter that is being filled, and thrown away unless it is finished.
struct Filling<'a> {
    known: &'a KnownKeys,
    next: Arc<Filter>,
}

impl Filling<'_> {
    fn finish(self) {
        let before = {
            let mut state = self.known.0.state.write();
            let next = state.next.take();
            std::mem::replace(&mut state.current, next)
        };
        drop(before);
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let mut state = self.known.0.state.write();
        // After it was finished, that may be another one's.
        if state.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, &self.next)) {
            state.next = None;
        }
    }
}

/// What a filter of keys holds, and what it has been good for: see [`KnownKeys::stats`].
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "json", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KnownKeysStats {
    /// Whether it has been filled: before, it rules nothing out.
    pub is_filled: bool,
    /// How many different keys it holds, as estimated from its bits: to within a percent or so, unless it is far too
    /// full.
    pub keys: u64,
    /// How many it was made for.
    pub expected_keys: u64,
    /// How much memory it takes, in bytes: twice as much while it is being filled again.
    pub bytes: u64,
    /// The share of unknown keys that pass it now, as it follows from its bits; 1 before it was filled.
    pub false_positive_rate: f64,
    /// The share that it was made for.
    pub false_positive_rate_wanted: f64,
    /// How many lookups found nothing in the cache and were spared the source.
    pub loads_avoided: u64,
    /// How many loads were let through and found nothing in the source: false positives, deleted keys, and
    /// everything before it was filled.
    pub loads_in_vain: u64,
}

impl KnownKeysStats {
    /// What should be done about it, if anything: it was never filled, or holds more than it was made for.
    ///
    /// ```
    /// use larder::source::{KnownKeys, KnownKeysOptions};
    /// let known = KnownKeys::new(KnownKeysOptions::new(100))?;
    /// known.fill((0..1_000).map(|id| id.to_string()))?;
    /// let advice = known.stats().advice().unwrap();
    /// assert!(advice.contains("made for 100") && advice.contains("resize"), "{advice}");
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn advice(&self) -> Option<String> {
        let Self { keys, expected_keys, .. } = self;
        if !self.is_filled {
            let what = "the filter of known keys was never filled, so it spares the source nothing: \
                        call `fill` with the keys that the source has";
            return Some(what.to_owned());
        }
        // A tenth more changes little.
        if *keys <= expected_keys.saturating_add(expected_keys / 10) {
            return None;
        }
        Some(format!(
            "the filter of known keys holds {keys} and was made for {expected_keys}: of the keys that the source does \
             not have, {:.1} % reach it in place of {:.1} %; call `resize`, and `fill` it again",
            self.false_positive_rate * 100.0,
            self.false_positive_rate_wanted * 100.0,
        ))
    }
}
