//! The DynamoDB driver: an item for each entry, in one table.
//!
//! Conditions on writes are conditions of `PutItem`, decided beside the data by the stamp that each item carries as a
//! number. Knows nothing of what the values are, apart from where a head ends.
//!
//! Rooms: `options` has what can be said about a store, `open` makes a client and a table, `item` says what an entry
//! looks like there, `link` sends one request, `batch` several, `sweep` lists and clears, `failure` words what went
//! wrong.

mod batch;
mod failure;
mod item;
mod link;
mod open;
mod options;
mod sweep;

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};

use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written, check_prefix};
use crate::error::{Error, Result};
use crate::time::Stamp;

use failure::Place;
use link::Link;

pub use options::{DynamoDbCredentials, DynamoDbOptions};

/// The client that this driver uses, for requests of one's own over [`DynamoDbDriver::client`].
pub use aws_sdk_dynamodb as client;

/// A store in DynamoDB: a table whose partition key is a string called `key`.
///
/// Each entry is an item: `key`, `value` (binary), `head`, `stamp` and `expires`, the second at which it may go, which
/// wants to be the table's TTL attribute. DynamoDB removes items up to days after that second, so reads look at it
/// too, by this machine's clock. A key that is empty, or longer than 2048 bytes, is hashed.
///
/// A call costs as a request does: a read half a unit for each 4 KiB (one unit if it is consistent), a write one for
/// each KiB. [`Driver::scan`], [`Driver::clear`] and [`Driver::prune`] read the whole table, whatever they look
/// for, and `clear` and `prune` write as much as they remove. A delete is a write even if there is nothing.
///
/// Throttled requests are tried three times in all by the client, what reads also after a failure; then calls fail as
/// unavailable.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::dynamodb::{DynamoDbDriver, DynamoDbOptions};
/// let store = DynamoDbDriver::connect(DynamoDbOptions::new("cache")).await?;
/// // The same client, for what Larder does not do.
/// let table = store.client().await?.describe_table().table_name("cache").send().await;
/// # drop(table);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DynamoDbDriver {
    link: Link,
}

impl DynamoDbDriver {
    /// Opens a store, and makes sure that its table answers; creates it if it is missing and the options say so.
    ///
    /// Dropping the future may leave a table that is being created.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if an option makes no sense, no region or no credentials can
    /// be found, the server does not accept them, or the table is missing or has another key;
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if it cannot be reached.
    pub async fn connect(options: DynamoDbOptions) -> Result<Self> {
        let (client, place) = open::client(&options).await?;
        let create = options.create_table && !exists(&client, &place, options.consistent_reads).await?;
        if create {
            open::create_table(&client, &place).await?;
        }
        let driver = Self { link: Link::new(client, place, options.consistent_reads) };
        driver.ping().await?;
        Ok(driver)
    }

    /// A store over a client that is there already, in a table. Reads are consistent. The client's timeouts and
    /// retries are as it has them, but for one: a write is not sent again unless the server says that it did not
    /// do it.
    pub fn with_client(client: Client, table: impl Into<String>) -> Self {
        let region = client.config().region().map_or("its region", |region| region.as_ref()).to_owned();
        let place = Place { table: table.into(), region };
        Self { link: Link::new(client, place, true) }
    }

    /// The client that the driver uses, for requests of one's own.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`Driver::close`].
    pub async fn client(&self) -> Result<Client> {
        Ok(self.link.held().await?.reads.clone())
    }
}

/// Whether there is a table that answers.
async fn exists(client: &Client, place: &Place, consistent_reads: bool) -> Result<bool> {
    let call = client.get_item().table_name(&place.table).set_key(Some(item::primary_key(PING)));
    match call.consistent_read(consistent_reads).send().await {
        Ok(_) => Ok(true),
        Err(cause)
            if cause.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()) =>
        {
            Ok(false)
        }
        Err(cause) => Err(place.failed("connect", cause)),
    }
}

/// A key that nobody has.
const PING: &str = "larder:ping";

#[async_trait]
impl Driver for DynamoDbDriver {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            enumerates: true,
            shared: true,
            persistent: true,
            value_bytes_max: Some(item::VALUE_BYTES_MAX as u64),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let item = self.link.get("get", key).await?;
        Ok(item.and_then(|item| item::take_value(item, self.link.now())))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        self.link.put(&Write { key: key.to_owned(), value, ttl, when }).await
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.link.delete(key).await
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        batch::get_many(&self.link, keys).await
    }

    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        // A batch of DynamoDB's takes no conditions, so each write goes by itself.
        batch::set_many(&self.link, writes).await
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        // A batch would cost the same, and not say how many there were.
        let calls: Vec<_> = keys.iter().map(|key| self.delete(key)).collect();
        let deleted = stream::iter(calls).buffer_unordered(batch::CONCURRENT_MAX);
        deleted.try_fold(0, |sum, deleted| async move { Ok::<_, Error>(sum + u64::from(deleted)) }).await
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        sweep::scan(&self.link, prefix)
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        check_prefix(prefix)?;
        sweep::clear(&self.link, prefix, until).await
    }

    async fn prune(&self) -> Result<u64> {
        sweep::prune(&self.link).await
    }

    async fn ping(&self) -> Result<()> {
        self.link.get("ping", PING).await.map(|_| ())
    }

    async fn close(&self) -> Result<()> {
        self.link.close().await;
        Ok(())
    }
}
