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
