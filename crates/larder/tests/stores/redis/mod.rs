//! The Redis driver: over one server (`LARDER_TEST_REDIS_URL`) and over a cluster (`LARDER_TEST_REDIS_CLUSTER_URLS`, some
//! of its nodes). With a server named, tests that break one start one of their own, with the `redis-server` that is
//! installed.

mod faults;
pub(crate) mod servers;
mod tls;
mod topology;

use std::sync::Arc;

use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::driver::redis::{RedisDriver, RedisOptions};

use crate::Need;
use crate::decorated::decorated_suite;
use crate::faults::fault_suite;
use crate::outage;
use crate::stacks::stack_suite;
use crate::traffic::traffic_suite;

const URL: &str = "LARDER_TEST_REDIS_URL";
const CLUSTER_URLS: &str = "LARDER_TEST_REDIS_CLUSTER_URLS";

/// The server that tests share, if there is one.
async fn shared() -> Option<RedisDriver> {
    let url = std::env::var(URL).ok()?;
    Some(RedisDriver::connect(RedisOptions::new(&url).unwrap()).await.unwrap())
}

/// The cluster that tests share, if there is one: some of its nodes as URLs with commas between, or as one URL.
async fn shared_cluster() -> Option<RedisDriver> {
    let urls = std::env::var(CLUSTER_URLS).ok()?;
    let hosts: Vec<&str> = urls.split(',').map(|url| url.rsplit('/').next().unwrap_or(url)).collect();
    let url = format!("redis+cluster://{}", hosts.join(","));
    Some(RedisDriver::connect(RedisOptions::new(&url).unwrap()).await.unwrap())
}

/// What the suite runs over. Without a server it is the memory driver, which says nothing about Redis; see
/// `what_was_left_out`.
async fn open() -> Arc<dyn Driver> {
    match shared().await {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

async fn open_cluster() -> Arc<dyn Driver> {
    match shared_cluster().await {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

/// What these tests need.
pub(crate) fn needs() -> [Need; 3] {
    [
        Need { name: "redis", found: std::env::var(URL).is_ok(), what: URL },
        Need { name: "redis-cluster", found: std::env::var(CLUSTER_URLS).is_ok(), what: CLUSTER_URLS },
        Need { name: "redis-server", found: servers::is_installed(), what: "an installed redis-server" },
    ]
}

larder::driver_suite!(plain, open);

larder::driver_suite!(over_a_cluster, open_cluster);

traffic_suite!(traffic, shared);

stack_suite!(two_stacks, shared);

stack_suite!(two_stacks_over_a_cluster, shared_cluster);

traffic_suite!(traffic_over_a_cluster, shared_cluster);

/// Where the server is that tests share.
fn server() -> Option<std::net::SocketAddr> {
    std::env::var(URL).ok()?.strip_prefix("redis://")?.trim_end_matches('/').parse().ok()
}

fault_suite!(through_a_proxy, server, async |at: std::net::SocketAddr| {
    let mut options = RedisOptions::at("127.0.0.1", at.port());
    options.response_timeout = std::time::Duration::from_millis(300);
    options.connect_timeout = std::time::Duration::from_millis(300);
    RedisDriver::connect(options).await.unwrap()
});

mod borrowed {
    use super::*;
    use larder::driver::redis::RedisConnection;
    use larder::driver::redis::client::Client;

    async fn open_borrowed() -> Arc<dyn Driver> {
        let Ok(url) = std::env::var(URL) else { return Arc::new(MemoryDriver::default()) };
        let manager = Client::open(url).unwrap().get_connection_manager().await.unwrap();
        Arc::new(RedisDriver::with_client(RedisConnection::from(manager)))
    }

    larder::driver_suite!(suite, open_borrowed);
}

decorated_suite!(open);

#[tokio::test]
async fn a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back() {
    let Some(mut server) = servers::Server::start(&[]) else { return };
    let driver = Arc::new(server.driver().await);
    outage::a_stack_serves_stale_while_its_server_is_gone_and_goes_on_when_it_is_back(&mut server, driver)
        .await;
}
