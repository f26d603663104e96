//! The memcached driver: over several servers and over one of them (`LARDER_TEST_MEMCACHED_URLS`). With servers named,
//! tests that break one start one of their own, with the `memcached` that is installed.

mod faults;
mod hostile;
mod servers;
mod traffic;

use std::sync::Arc;

use larder::driver::Driver;
use larder::driver::memcached::{MemcachedDriver, MemcachedOptions};
use larder::driver::memory::MemoryDriver;

use crate::Need;
use crate::decorated::decorated_suite;
use crate::faults::fault_suite;
use crate::outage;
use crate::stacks::stack_suite;
use crate::traffic::{prefix, traffic_suite};

const URLS: &str = "LARDER_TEST_MEMCACHED_URLS";

/// The servers that tests share, if there are any.
fn hosts() -> Option<Vec<String>> {
    let urls = std::env::var(URLS).ok()?;
    Some(urls.split(',').map(|url| url.trim().rsplit('/').next().unwrap_or(url).to_owned()).collect())
}

/// All servers that tests share as one store, if there are any.
async fn shared() -> Option<MemcachedDriver> {
    Some(connect(&format!("memcached://{}", hosts()?.join(","))).await)
}

/// One of them.
async fn shared_single() -> Option<MemcachedDriver> {
    Some(connect(&format!("memcached://{}", hosts()?.first()?)).await)
}

async fn connect(url: &str) -> MemcachedDriver {
    MemcachedDriver::connect(MemcachedOptions::new(url).unwrap()).await.unwrap()
}

/// What the suite runs over. Without a server it is the memory driver, which says nothing about memcached; see
/// `what_was_left_out`.
async fn open() -> Arc<dyn Driver> {
    match shared().await {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

async fn open_single() -> Arc<dyn Driver> {
    match shared_single().await {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

/// What these tests need.
pub(crate) fn needs() -> [Need; 2] {
    [
        Need { name: "memcached", found: std::env::var(URLS).is_ok(), what: URLS },
        Need { name: "memcached-server", found: servers::is_installed(), what: "an installed memcached" },
    ]
}

larder::driver_suite!(plain, open);

larder::driver_suite!(single, open_single);

traffic_suite!(traffic_over_all, shared);

traffic_suite!(traffic_over_one, shared_single);

stack_suite!(two_stacks, shared);

stack_suite!(two_stacks_over_one, shared_single);

/// Where the first of the servers is that tests share.
fn server() -> Option<std::net::SocketAddr> {
    hosts()?.first()?.parse().ok()
}

fault_suite!(through_a_proxy, server, async |at: std::net::SocketAddr| {
    let mut options = MemcachedOptions::at("127.0.0.1", at.port());
    options.response_timeout = std::time::Duration::from_millis(300);
    options.connect_timeout = std::time::Duration::from_millis(300);
    MemcachedDriver::connect(options).await.unwrap()
});

async fn open_borrowed() -> Arc<dyn Driver> {
    match shared().await {
        Some(driver) => Arc::new(MemcachedDriver::with_client(driver.client())),
        None => Arc::new(MemoryDriver::default()),
    }
}

larder::driver_suite!(borrowed, open_borrowed);

decorated_suite!(open);

#[tokio::test]
async fn a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back() {
    let Some(mut server) = servers::Server::start(&[]) else { return };
    let driver = Arc::new(server.driver().await);
    outage::a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back(&mut server, driver)
        .await;
}
