//! The suite over every kind of store.

use larder::Stack;
use larder::driver::file::{FileDriver, FileOptions};
use larder::driver::memory::MemoryDriver;
use larder::driver::sqlite::{SqliteDriver, SqliteOptions};
use larder::memory::MemoryOptions;
use larder_http::http_store_suite;
use larder_http::policy::Policy;
use larder_http::store::{MemoryStore, SqliteStore, SqliteStoreOptions, StackStore};

use crate::scratch::Scratch;

fn memory() -> MemoryOptions {
    let mut options = MemoryOptions::new(10_000);
    options.max_bytes = Some(64 << 20);
    options
}

fn over(stack: larder::StackBuilder) -> StackStore {
    StackStore::new(&stack.build().unwrap(), Policy::shared()).unwrap()
}

http_store_suite!(memory_store, async || MemoryStore::default());

http_store_suite!(sqlite_store, async || {
    SqliteStore::open(Policy::shared(), SqliteStoreOptions::default()).await.unwrap()
});

http_store_suite!(stack_of_memory, async || over(Stack::builder("http").memory(memory())));

http_store_suite!(stack_of_a_store, async || over(Stack::builder("http").store(MemoryDriver::default())));

http_store_suite!(stack_of_memory_and_a_store, async || {
    over(Stack::builder("http").memory(memory()).store(MemoryDriver::default()))
});

http_store_suite!(stack_of_memory_and_files, async || {
    let driver =
        Scratch::open(async |directory| FileDriver::open(FileOptions::new(directory)).await.unwrap()).await;
    over(Stack::builder("http").memory(memory()).store(driver))
});

http_store_suite!(stack_of_sqlite, async || {
    let open = async |directory: &std::path::Path| {
        SqliteDriver::open(SqliteOptions::new(directory.join("cache.db"))).await.unwrap()
    };
    over(Stack::builder("http").store(Scratch::open(open).await))
});

http_store_suite!(stack_that_keeps_all_bodies_in_chunks, async || {
    let stack = Stack::builder("http").store(MemoryDriver::default()).build().unwrap();
    StackStore::builder(&stack, Policy::shared()).inline_bytes_max(0).build().unwrap()
});

http_store_suite!(stack_whose_long_bodies_are_elsewhere, async || {
    let driver: std::sync::Arc<dyn larder::driver::Driver> = std::sync::Arc::new(MemoryDriver::default());
    let bodies = Stack::builder("bodies").prefix("http").borrowed_store(driver.clone()).build().unwrap();
    let stack =
        Stack::builder("http").prefix("http").memory(memory()).borrowed_store(driver).build().unwrap();
    StackStore::builder(&stack, Policy::shared()).bodies(&bodies).build().unwrap()
});

#[tokio::test]
async fn long_bodies_take_no_memory_where_they_are_elsewhere_and_short_ones_do() {
    use larder_http::policy::Exchange;
    use larder_http::store::HttpStore as _;

    let driver: std::sync::Arc<dyn larder::driver::Driver> = std::sync::Arc::new(MemoryDriver::default());
    let bodies = Stack::builder("bodies").prefix("http").borrowed_store(driver.clone()).build().unwrap();
    let stack =
        Stack::builder("http").prefix("http").memory(memory()).borrowed_store(driver).build().unwrap();
    let store = StackStore::builder(&stack, Policy::shared()).bodies(&bodies).build().unwrap();
    let (request, ()) = http::Request::get("http://a/").body(()).unwrap().into_parts();
    let response = http::Response::builder().header("cache-control", "max-age=60").body(()).unwrap();
    let (response, ()) = response.into_parts();
    let head = Policy::shared().store(&request, &response, Exchange::at(std::time::UNIX_EPOCH)).unwrap();
    let used = async |bytes: usize| {
        let before = stack.memory_usage().unwrap().bytes;
        let mut writer = store.create("http://a/", &head).await.unwrap().unwrap();
        writer.write(vec![7; bytes].into()).await.unwrap();
        let body = writer.finish().await.unwrap();
        let mut at = 0;
        while let Some(piece) = body.read(at).await.unwrap() {
            at += piece.len() as u64;
        }
        assert_eq!(at, bytes as u64);
        stack.memory_usage().unwrap().bytes - before
    };
    assert!(used(100 << 10).await >= 100 << 10);
    assert_eq!(used(3 << 20).await, 0);
}
