//! A tour of the library: every operation once, on memory over SQLite over compression and encryption.
//!
//! `cargo run -p larder --features full --example tour`

#![allow(clippy::expect_used, reason = "an example shows the way that goes well")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use larder::codec::{CodecName, Raw};
use larder::config::{Config, Format, Registry};
use larder::driver::compress::{Compress, CompressOptions};
use larder::driver::encrypt::{Cipher, Encrypt, EncryptionKey, KeyRing};
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::entry::Freshness;
use larder::event::{Event, Observer, Tier};
use larder::memory::{MemoryCache, MemoryOptions};
use larder::time::{SystemClock, Ttl, days, hours, minutes, seconds};
use larder::{BoxError, EntryOptions, ErrorKind, Larder, Loaded, Previous, Refresh, Stack, Suppress};

/// Counts what happens.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Observer for Counter {
    fn on_event(&self, _stack: &str, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn open(events: Arc<Counter>) -> larder::Result<Stack> {
    let sqlite = SqliteDriver::open(SqliteOptions::new(":memory:")).await?;
    let key = EncryptionKey::new(1, Cipher::XChaCha20Poly1305, [7; 32]);
    let sealed = Compress::new(Encrypt::new(sqlite, KeyRing::new(key)), CompressOptions::default())?;
    let mut memory = MemoryOptions::new(10_000);
    memory.max_bytes = Some(64 << 20);
    Stack::builder("tour")
        .memory(memory)
        .store(sealed)
        .prefix("app")
        .codec(CodecName::MessagePack)
        .options(EntryOptions::default().ttl(minutes(5)).grace(hours(1)))
        .deadline(seconds(1))
        .value_bytes_max(1 << 20)
        .load_max(minutes(10))
        .loads_max(1_000)
        .clock(Arc::new(SystemClock::default()))
        .observer(events)
        .build()
}

async fn values(stack: &Stack) -> larder::Result<()> {
    let users = stack.cache::<String>()?;
    users
        .set("ada", "Ada".to_owned())
        .ttl(Ttl::Forever)
        .tags(["users"])
        .etag("v1")
        .last_modified("today")
        .await?;
    users.set_many([("bob", "Bob".to_owned()), ("eve", "Eve".to_owned())]).ttl(days(1)).await?;
    assert!(!users.add("ada", "Another".to_owned()).await?);
    assert_eq!(users.get("ada").await?.as_deref().map(String::as_str), Some("Ada"));
    let found = users.get_many(&["ada", "nobody", "bob"]).await?;
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);

    let entry = users.entry("ada").await?.expect("it was set");
    assert_eq!((entry.state, entry.tier, entry.ttl_left), (Freshness::Fresh, Tier::L1, None));
    assert!(users.touch("bob", seconds(90)).await?);
    assert!(users.expire("bob").await?);
    assert_eq!(users.get("bob").await?, None);
    assert_eq!(users.get_stale("bob").await?.as_deref().map(String::as_str), Some("Bob"));
    assert_eq!(users.pull("eve").await?.as_deref().map(String::as_str), Some("Eve"));
    assert!(users.delete("bob").await?);
    assert_eq!(users.delete_many(&["eve", "nobody"]).await?, 0);
    assert_eq!(users.keys().try_collect::<Vec<_>>().await?, ["ada"]);

    let blobs = stack.cache_with::<Bytes>(Raw).namespace("blobs")?.with_weigher(|blob| blob.len());
    blobs.set("b", Bytes::from_static(b"\x00\xff")).await?;
    let newer = stack.cache::<String>()?.namespace("blobs")?.with_schema(1);
    let error = newer.get("b").await.expect_err("memory holds bytes");
    assert_eq!(error.kind(), ErrorKind::TypeMismatch);

    users.invalidate(["users"]).soft().await?;
    users.invalidate(["users"]).await?;
    blobs.clear().soft().await?;
    assert!(!users.has("ada").await?);
    users.clear().await?;
    Ok(())
}

async fn loads(stack: &Stack) -> larder::Result<()> {
    let often = EntryOptions::default().refresh(Refresh::Early { share: 0.9 }).jitter(seconds(5));
    let prices = stack.cache::<u64>()?.namespace("prices")?.with_options(often);
    let load = || async { Ok::<_, std::io::Error>(4) };
    assert_eq!(*prices.get_or_set("tea", load).ttl(minutes(1)).hard_timeout(seconds(9)).await?, 4);

    prices.expire("tea").await?;
    let down = || async { Err::<u64, _>(std::io::Error::other("the shop is down")) };
    let patient = prices.get_or_set("tea", down).soft_timeout(seconds(1)).backoff(seconds(30));
    assert_eq!(*patient.suppress_l2_errors(Suppress::Yes).await?, 4, "stale, but there");
    let error = prices.get_or_set("milk", down).await.expect_err("there is nothing stale");
    assert_eq!(
        error.load_error::<std::io::Error>().expect("the loader's own").to_string(),
        "the shop is down"
    );
    assert_eq!(*prices.get_or_set("milk", down).fallback(1).await?, 1);

    let speaking = |previous: Option<Previous<u64>>| async move {
        Ok::<_, BoxError>(match previous {
            Some(_) => Loaded::unchanged(),
            None => Loaded::new(7).ttl(minutes(2)).grace(hours(1)).tags(["hot"]),
        })
    };
    assert_eq!(*prices.get_or_set_with("coffee", speaking).await?, 7);
    let many = |missing: Vec<String>| async move {
        Ok::<_, std::io::Error>(missing.into_iter().map(|key| {
            let n = key.len() as u64;
            (key, Ok(n))
        }))
    };
    let found = prices.get_or_set_many(&["coffee", "cocoa"], many).ttl(minutes(1)).await;
    let found: Vec<u64> = found.into_iter().map(|price| price.map(|p| *p)).collect::<Result<_, _>>()?;
    assert_eq!(found, [7, 5]);

    assert_eq!(prices.increment("sold", 3).ttl(hours(24)).await?, 3);
    assert_eq!(prices.decrement("sold", 1).existing().await?, 2);
    Ok(())
}

fn alone() {
    let squares: MemoryCache<u32, u64> = MemoryCache::new(100);
    assert_eq!(*squares.get_or_insert_with(12, || 144), 144);
    assert_eq!(squares.get(&12).as_deref(), Some(&144));
}

async fn by_name() -> larder::Result<()> {
    let text = "stacks: { pages: { l2: 'memory:', ttl: 5m }, users: {} }";
    let larder: Larder = Config::parse(text, Format::Yaml, "tour")?.build(&Registry::compiled()).await?;
    larder.cache::<String>("pages")?.set("home", "hello".to_owned()).await?;
    larder.memory_cache::<Duration>("users")?.set("uptime", seconds(1)).await?;
    assert_eq!(larder.stacks().map(Stack::name).collect::<Vec<_>>(), ["pages", "users"]);
    let moved = larder.stack("pages")?.store().expect("it has one").name();
    assert_eq!(moved, "memory");
    larder.close().await
}

/// The tour.
///
/// # Errors
/// None, or the library is broken.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> larder::Result<()> {
    let events = Arc::new(Counter::default());
    let stack = open(Arc::clone(&events)).await?;
    stack.ping().await?;
    values(&stack).await?;
    loads(&stack).await?;
    alone();
    by_name().await?;
    stack.prune().await?;
    let (stats, usage) = (stack.stats(), stack.memory_usage().expect("it has a memory tier"));
    assert!(stats.lookups() == stats.hits() + stats.misses && stats.hit_ratio().is_some());
    assert!(usage.items > 0 && events.0.load(Ordering::Relaxed) > 0);
    stack.close().await?;
    println!("{stats:#?}");
    Ok(())
}
