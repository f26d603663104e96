//! The suite of HTTP stores over real servers, as `cargo xtask services run` says where they are. What is missing is not
//! tested: its suite runs over the memory driver instead. Here, because the command is built with every driver anyway.

#![expect(clippy::unwrap_used, reason = "what cannot be opened fails its test")]

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use larder::Stack;
use larder::driver::Driver;
use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use larder::driver::memory::MemoryDriver;
use larder::driver::postgres::{PostgresDriver, PostgresOptions};
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder_http::http_store_suite;
use larder_http::policy::Policy;
use larder_http::store::StackStore;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A store under a prefix that nobody else has.
fn over(driver: Option<Arc<dyn Driver>>) -> StackStore {
    let driver = driver.unwrap_or_else(|| Arc::new(MemoryDriver::default()));
    let prefix = format!("http{:016x}", RandomState::new().hash_one(0));
    let stack = Stack::builder("http").prefix(prefix).store(driver).build().unwrap();
    StackStore::new(&stack, Policy::shared()).unwrap()
}

http_store_suite!(redis, async || {
    let Some(url) = variable("LARDER_TEST_REDIS_URL") else { return over(None) };
    over(Some(Arc::new(RedisDriver::connect(RedisOptions::new(&url).unwrap()).await.unwrap())))
});

http_store_suite!(memcached, async || {
    let Some(hosts) = variable("LARDER_TEST_MEMCACHED_URLS") else { return over(None) };
    let hosts: Vec<&str> = hosts.split(',').map(|url| url.trim_start_matches("memcached://")).collect();
    let options = MemcachedOptions::new(&format!("memcached://{}", hosts.join(","))).unwrap();
    over(Some(Arc::new(MemcachedDriver::connect(options).await.unwrap())))
});

http_store_suite!(postgres, async || {
    let Some(url) = variable("LARDER_TEST_POSTGRES_URL") else { return over(None) };
    over(Some(Arc::new(PostgresDriver::connect(PostgresOptions::new(&url).unwrap()).await.unwrap())))
});
