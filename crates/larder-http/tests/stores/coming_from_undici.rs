//! `docs/coming-from/undici.md`, row by row. The names are undici's.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder_http::policy::{Policy, Selecting, Stored};
use larder_http::store::{
    CacheValue, HttpStore, MemoryStore, MemoryStoreOptions, SqliteStore, SqliteStoreOptions, StoredResponse,
};

use crate::sample::{body_of, clock, has, head, now, put, put_response, written};

const PAGE: &str = include_str!("../../../../docs/coming-from/undici.md");

#[test]
fn the_page_has_every_name_of_the_seed() {
    let names = [
        "`origins`",
        "`methods`",
        "`cacheByDefault`",
        "type: 'shared'",
        "interceptors.deduplicate",
        "maxSize",
        "maxCount",
        "maxEntrySize",
        "`size`",
        "isFull()",
        "maxSizeExceeded",
        "location",
        "`isFull`",
        "get(req)",
        "createWriteStream",
        "statusCode",
        "statusMessage",
        "rawHeaders",
        "`vary`",
        "cachedAt",
        "staleAt",
        "deleteAt",
        "CacheStoreReadable.value",
        "CacheStoreWriteable.rawTrailers",
        "{ response, body }",
    ];
    for name in names {
        assert!(PAGE.contains(name), "the page says nothing of {name}");
    }
}

fn memory(change: impl FnOnce(&mut MemoryStoreOptions)) -> MemoryStore {
    let mut options = MemoryStoreOptions::default();
    change(&mut options);
    MemoryStore::new(options).with_clock(clock())
}

async fn sqlite(change: impl FnOnce(&mut SqliteStoreOptions)) -> SqliteStore {
    let mut options = SqliteStoreOptions::default();
    options.clock = Arc::new(clock());
    change(&mut options);
    SqliteStore::open(Policy::shared(), options).await.unwrap()
}

#[tokio::test]
async fn memory_cache_store_max_size() {
    assert_eq!(MemoryStoreOptions::default().size_max, 104_857_600);
    let store = memory(|options| options.size_max = 100);
    for n in 0..5 {
        put(&store, &format!("http://a/{n}"), 40, now(&clock())).await;
        assert!(store.size() <= 100);
    }
    assert_eq!(store.size(), 80);
}

#[tokio::test]
async fn memory_cache_store_max_count() {
    assert_eq!(MemoryStoreOptions::default().count_max, 1024);
    let store = memory(|options| options.count_max = 5);
    for n in 0..20 {
        put(&store, &format!("http://a/{n}"), 1, now(&clock())).await;
    }
    assert_eq!(store.count(), 5, "undici holds 20");
}

#[tokio::test]
async fn memory_cache_store_max_entry_size() {
    assert_eq!(MemoryStoreOptions::default().entry_bytes_max, 5_242_880);
    let store = memory(|options| options.entry_bytes_max = 10);
    assert!(put(&store, "http://a/", 10, now(&clock())).await);
    assert!(!put(&store, "http://a/", 11, now(&clock())).await);
}

#[tokio::test]
async fn memory_cache_store_size() {
    let store = memory(|_| {});
    put(&store, "http://a/", 123, now(&clock())).await;
    assert_eq!(store.size(), 123);
}

#[tokio::test]
async fn memory_cache_store_is_full() {
    let store = memory(|options| options.count_max = 1);
    assert!(!store.is_full());
    put(&store, "http://a/", 1, now(&clock())).await;
    assert!(store.is_full());
}

#[tokio::test]
async fn memory_cache_store_max_size_exceeded() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let store =
        memory(|options| options.count_max = 1).on_full(move |full| listener.lock().unwrap().push(full));
    let store = store.with_clock(clock());
    put(&store, "http://a/1", 1, now(&clock())).await;
    put(&store, "http://a/2", 2, now(&clock())).await;
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    let full = told[0];
    assert_eq!((full.size, full.size_max, full.count, full.count_max), (3, 104_857_600, 2, 1));
}

#[tokio::test]
async fn sqlite_cache_store_location() {
    assert_eq!(SqliteStoreOptions::default().location, ":memory:");
    let (one, two) = (sqlite(|_| {}).await, sqlite(|_| {}).await);
    put(&one, "http://a/", 1, now(&clock())).await;
    assert!(has(&one, "http://a/").await && !has(&two, "http://a/").await, "each has a memory of its own");
}

#[tokio::test]
async fn sqlite_cache_store_max_count() {
    assert_eq!(SqliteStoreOptions::default().count_max, None);
    let store = sqlite(|options| options.count_max = Some(1)).await;
    put(&store, "http://a/1", 1, now(&clock())).await;
    put(&store, "http://a/2", 1, now(&clock())).await;
    assert!(!has(&store, "http://a/1").await && has(&store, "http://a/2").await);
}

#[tokio::test]
async fn sqlite_cache_store_max_entry_size() {
    assert_eq!(SqliteStoreOptions::default().entry_bytes_max, None);
    let store = sqlite(|options| options.entry_bytes_max = Some(300_000)).await;
    assert!(put(&store, "http://a/", 300_000, now(&clock())).await);
    assert!(!put(&store, "http://a/", 300_001, now(&clock())).await);
}

#[tokio::test]
async fn custom_is_full() {
    let full = memory(|options| options.count_max = 0);
    assert!(full.is_full() && !HttpStore::is_full(&full), "it takes what comes, and lets others go");
    assert!(!HttpStore::is_full(&sqlite(|_| {}).await));
}

#[tokio::test]
async fn custom_get() {
    let store = memory(|_| {});
    assert!(store.get("http://a/").await.unwrap().is_none());
    put(&store, "http://a/", 5, now(&clock())).await;
    let kept = store.get("http://a/").await.unwrap().unwrap();
    let (request, ()) = http::Request::get("http://a/").body(()).unwrap().into_parts();
    let (response, _) = kept.select(&Policy::shared(), &request, now(&clock()));
    assert_eq!(
        response.map(|response| (response.value().status_code, response.body.bytes())),
        Some((200, 5))
    );
}

#[tokio::test]
async fn custom_create_write_stream() {
    let store = memory(|_| {});
    let mut writer = store.create("http://a/", &head(now(&clock()))).await.unwrap().unwrap();
    writer.write("hel".into()).await.unwrap();
    writer.write("lo".into()).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().in_memory().unwrap(), "hello");
}

#[tokio::test]
async fn custom_delete() {
    let store = memory(|_| {});
    put(&store, "http://a/", 5, now(&clock())).await;
    assert!(store.delete("http://a/").await.unwrap() && !has(&store, "http://a/").await);
}

/// A response with all that a `CacheValue` has, as it comes out of a file.
async fn stored() -> StoredResponse {
    let now = now(&clock());
    let store = sqlite(|_| {}).await;
    let mut kept = head(now).into_kept();
    kept.status = StatusCode::NON_AUTHORITATIVE_INFORMATION;
    kept.headers = HeaderMap::new();
    for (name, value) in [("x-b", "1"), ("age", "10"), ("cache-control", "max-age=60"), ("x-b", "2")] {
        kept.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // The example of the seed's page.
    kept.selecting = Selecting::from_pairs([
        (HeaderName::from_static("content-encoding"), Some(b"utf8".to_vec())),
        (HeaderName::from_static("accepts"), Some(b"application/json".to_vec())),
        (HeaderName::from_static("x-missing"), None),
    ]);
    let mut response = written(&store, "http://a/", "body".into(), now).await.unwrap();
    response.stored = Stored::new(&Policy::shared(), kept).with_body_bytes(4);
    response.message = Some("Hearsay".to_owned());
    response.trailers = Some(HeaderMap::from_iter([(
        HeaderName::from_static("x-checksum"),
        HeaderValue::from_static("abc"),
    )]));
    put_response(&store, "http://a/", response, now).await;
    assert_eq!(body_of(&store, "http://a/").await.as_deref(), Some(&b"body"[..]));
    StoredResponse::clone(&store.get("http://a/").await.unwrap().unwrap().responses()[0])
}

async fn value() -> CacheValue {
    stored().await.value()
}

#[tokio::test]
async fn cache_value_status_code() {
    assert_eq!(value().await.status_code, 203);
}

#[tokio::test]
async fn cache_value_status_message() {
    assert_eq!(value().await.status_message, "Hearsay");
    let mut usual = stored().await;
    usual.message = None;
    assert_eq!(usual.value().status_message, "Non Authoritative Information");
}

#[tokio::test]
async fn cache_value_raw_headers() {
    let headers = value().await.raw_headers;
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    let expected: [(&str, &[u8]); 4] =
        [("x-b", b"1"), ("x-b", b"2"), ("age", b"10"), ("cache-control", b"max-age=60")];
    assert_eq!(headers, expected);
}

#[tokio::test]
async fn cache_value_vary() {
    let some = |text: &str| Some(text.to_owned());
    let expected = [
        ("content-encoding".to_owned(), some("utf8")),
        ("accepts".to_owned(), some("application/json")),
        ("x-missing".to_owned(), None),
    ];
    assert_eq!(value().await.vary, expected);
}

#[tokio::test]
async fn cache_value_cached_at() {
    assert_eq!(value().await.cached_at, UNIX_EPOCH + Duration::from_secs(1_800_000_000 - 10));
}

#[tokio::test]
async fn cache_value_stale_at() {
    assert_eq!(value().await.stale_at, UNIX_EPOCH + Duration::from_secs(1_800_000_000 - 10 + 60));
}

#[tokio::test]
async fn cache_value_delete_at() {
    assert_eq!(value().await.delete_at, UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 3_600));
    let (clock, mut options) = (clock(), SqliteStoreOptions::default());
    options.clock = Arc::new(clock.clone());
    let store = SqliteStore::open(Policy::shared(), options).await.unwrap();
    put(&store, "http://a/", 5, now(&clock)).await;
    clock.advance(Duration::from_secs(3_599));
    assert!(has(&store, "http://a/").await);
    clock.advance(Duration::from_secs(1));
    assert!(!has(&store, "http://a/").await);
}

#[tokio::test]
async fn cache_store_readable_value() {
    let stored = stored().await;
    assert_eq!((stored.value().status_code, stored.body.bytes()), (203, 4));
}

#[tokio::test]
async fn cache_store_writeable_raw_trailers() {
    assert_eq!(stored().await.trailers.unwrap()["x-checksum"], "abc");
}
