//! The DynamoDB driver, over a server that speaks as DynamoDB does (`LARDER_TEST_DYNAMODB_ENDPOINT`), in a table that all
//! tests of a run share; and over scripted answers, for what no such server does.

mod answers;
mod server;
mod tables;

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use larder::driver::Driver;
use larder::driver::dynamodb::{DynamoDbCredentials, DynamoDbDriver, DynamoDbOptions};
use larder::driver::memory::MemoryDriver;

use crate::Need;
use crate::decorated::decorated_suite;
use crate::faults::fault_suite;
use crate::stacks::stack_suite;
use crate::traffic::traffic_suite;

const ENDPOINT: &str = "LARDER_TEST_DYNAMODB_ENDPOINT";

/// How a store on the shared server is opened, if there is one.
fn options(table: &str) -> Option<DynamoDbOptions> {
    let mut options = at(&std::env::var(ENDPOINT).ok()?);
    options.table = table.to_owned();
    Some(options)
}

/// How a store on a server is opened.
fn at(endpoint: &str) -> DynamoDbOptions {
    let mut options = DynamoDbOptions::new("larder");
    options.region = Some("eu-west-1".to_owned());
    options.endpoint = Some(endpoint.to_owned());
    options.credentials = Some(DynamoDbCredentials::new("AKIAHUNTER", "hunter2"));
    options
}

/// A name that no other test and no other process has.
fn unique(name: &str) -> String {
    format!("{name}-{:016x}", RandomState::new().hash_one(name))
}

/// The table of this run: a test is a process, and a table for each would be slow.
fn table() -> String {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| std::process::id().to_string());
    let run: String = run.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("larder-tests-{run}")
}

/// The table that tests share, if there is a server.
async fn shared() -> Option<DynamoDbDriver> {
    let mut options = options(&table())?;
    options.create_table = true;
    Some(DynamoDbDriver::connect(options).await.unwrap())
}

/// What the suite runs over. Without a server it is the memory driver, which says nothing about DynamoDB; see
/// `what_was_left_out`.
async fn open() -> Arc<dyn Driver> {
    match shared().await {
        Some(driver) => Arc::new(driver),
        None => Arc::new(MemoryDriver::default()),
    }
}

/// What these tests need.
pub(crate) fn needs() -> [Need; 1] {
    [Need { name: "dynamodb", found: std::env::var(ENDPOINT).is_ok(), what: ENDPOINT }]
}

larder::driver_suite!(plain, open);

traffic_suite!(traffic, shared);

stack_suite!(two_stacks, shared);

/// Where the server is that tests share.
fn server_address() -> Option<std::net::SocketAddr> {
    std::env::var(ENDPOINT).ok()?.strip_prefix("http://")?.trim_end_matches('/').parse().ok()
}

fault_suite!(through_a_proxy, server_address, async |at: std::net::SocketAddr| {
    let mut options = super::at(&format!("http://{at}"));
    options.table = table();
    options.create_table = true;
    options.response_timeout = std::time::Duration::from_millis(300);
    options.connect_timeout = std::time::Duration::from_millis(300);
    DynamoDbDriver::connect(options).await.unwrap()
});

mod borrowed {
    use super::*;

    async fn open_borrowed() -> Arc<dyn Driver> {
        let Some(driver) = shared().await else { return Arc::new(MemoryDriver::default()) };
        Arc::new(DynamoDbDriver::with_client(driver.client().await.unwrap(), table()))
    }

    larder::driver_suite!(suite, open_borrowed);
}

decorated_suite!(open);
