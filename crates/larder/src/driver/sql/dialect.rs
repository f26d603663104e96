//! What differs between databases: their names, their settings, and the statements.
//!
//! Everything here takes a connection and does one thing on it; when, how often and for how long is decided in `link`
//! and `mod`. Which of two writes wins is said once in each database's own terms, and nowhere else.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;
use sqlx::{Connection, Database};

use super::options::SqlOptions;
use super::table::TableName;
use crate::driver::{Scanned, Write, Written};
use crate::error::ErrorKind;
use crate::time::Stamp;

/// How a database is connected to, in the client's terms.
pub type Settings<D> = <<<D as Dialect>::Database as Database>::Connection as Connection>::Options;

/// A connection of a database.
pub type Wire<D> = <<D as Dialect>::Database as Database>::Connection;

/// A page of a listing: what was found, and where the rest begins, if there may be one.
pub type Page = (Vec<Scanned>, Option<Vec<u8>>);

/// Keys from one (inclusive) to another one (exclusive), byte for byte.
pub type Range<'a> = (&'a [u8], &'a [u8]);

/// A kind of database, and how records lie in it.
///
/// Rows whose time is up by the database's clock count as nothing, in every statement.
pub trait Dialect: fmt::Debug + Copy + Default + Send + Sync + 'static {
    /// The client's database.
    type Database: Database;
    /// The statements of one table.
    type Statements: fmt::Debug + Send + Sync;

    /// What the driver is called.
    const NAME: &'static str;
    /// The schemes of its URLs, its own one first.
    const SCHEMES: &'static [&'static str];
    /// Where servers listen.
    const PORT: u16;
    /// The largest value.
    const VALUE_BYTES_MAX: u64;

    /// Writes the statements of a table out.
    fn statements(table: &TableName) -> Self::Statements;

    /// What creates the table and its index.
    fn schema(statements: &Self::Statements) -> &str;

    /// What a URL says. The error may repeat the URL, and must not be shown.
    fn parse(url: &str) -> sqlx::Result<Settings<Self>>;

    /// What the client does without being told: a server on this machine.
    fn defaults() -> Settings<Self>;

    /// As [`Dialect::parse`], with what the options say beside it.
    fn settings(base: Settings<Self>, options: &SqlOptions<Self>) -> Settings<Self>;

    /// User, host, port and database, for messages; without the password.
    fn place(settings: &Settings<Self>) -> String;

    /// Whether the server is behind a Unix socket: a file, which is not there while the server is not.
    fn is_socket(settings: &Settings<Self>) -> bool;

    /// Prepares a new connection: the server gives up on a statement after so long.
    fn prepare(connection: &mut Wire<Self>, patience: Duration) -> BoxFuture<'_, sqlx::Result<()>>;

    /// What a refusal of the database means, and what to do about it.
    fn classify(refusal: &dyn DatabaseError) -> Option<(ErrorKind, &'static str)>;

    /// Whether a refusal says that there is no such table.
    fn is_missing(refusal: &dyn DatabaseError) -> bool;

    /// Whether a refusal says that nothing was done, and the same would be done if it were asked for again.
    fn is_passing(refusal: &dyn DatabaseError) -> bool;

    /// Whether a refusal says that the server ended the connection, and did nothing.
    fn is_ended(refusal: &dyn DatabaseError) -> bool;

    /// Fails unless the table is there with the columns that it has to have.
    fn find(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Creates the table, unless it is there.
    fn create(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// What the server says it is.
    fn version(connection: &mut Wire<Self>) -> impl Future<Output = sqlx::Result<String>> + Send;

    /// The value of a key.
    fn get(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        key: &str,
    ) -> impl Future<Output = sqlx::Result<Option<Bytes>>> + Send;

    /// Keys and values of those that are there, in any order.
    fn get_many(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        keys: &[&str],
    ) -> impl Future<Output = sqlx::Result<Vec<(Vec<u8>, Bytes)>>> + Send;

    /// Stores a value if its condition holds. `None` if others came between so often that nothing was done.
    fn set(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        write: &Write,
    ) -> impl Future<Output = sqlx::Result<Option<Written>>> + Send;

    /// Whether two writes may be part of one [`Dialect::set_many`].
    fn go_together(one: &Write, other: &Write) -> bool;

    /// Stores values of different keys. `None` for each that has to be set by itself.
    fn set_many(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        writes: &[&Write],
    ) -> impl Future<Output = sqlx::Result<Vec<Option<Written>>>> + Send;

    /// Removes keys. Returns how many there were.
    fn delete(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        keys: &[&str],
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// The first so many keys of a range, with their heads.
    fn page(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        range: Range<'_>,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<Page>> + Send;

    /// Removes, of the first so many keys of a range, those that are no newer than a stamp. Returns how many, and where
    /// the rest begins.
    fn clear(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        range: Range<'_>,
        until: Stamp,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<(u64, Option<Vec<u8>>)>> + Send;

    /// Removes so many rows whose time is up. Returns how many.
    fn prune(
        connection: &mut Wire<Self>,
        statements: &Self::Statements,
        limit: i64,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;
}

/// How long a row is kept, in milliseconds, rounded up; `None` is until it is deleted, which a century is as well.
pub(crate) fn ttl_ms(ttl: Option<Duration>) -> Option<i64> {
    const CENTURY_MS: u128 = 100 * 366 * 24 * 3_600_000;
    let ms = ttl?.as_nanos().div_ceil(1_000_000);
    i64::try_from(ms).ok().filter(|_| ms < CENTURY_MS)
}

/// What stands behind a page: nothing lies between a key and the same key with a zero byte after it.
pub(crate) fn rest_of(last: Option<&[u8]>, is_full: bool) -> Option<Vec<u8>> {
    last.filter(|_| is_full).map(|last| [last, &[0]].concat())
}

/// A row of a listing. A key that is no text was put there by someone else, and is not one of ours to list.
pub(crate) fn scanned(key: Vec<u8>, head: Vec<u8>) -> Option<Scanned> {
    Some(Scanned { key: String::from_utf8(key).ok()?, head: head.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{days, seconds};

    #[test]
    fn lifetimes_are_rounded_up_and_a_century_is_for_ever() {
        assert_eq!(ttl_ms(None), None);
        assert_eq!(ttl_ms(Some(Duration::from_nanos(1))), Some(1));
        assert_eq!(ttl_ms(Some(seconds(1))), Some(1_000));
        assert_eq!(ttl_ms(Some(Duration::new(1, 1))), Some(1_001));
        assert_eq!(ttl_ms(Some(days(36_600))), None);
        assert_eq!(ttl_ms(Some(Duration::MAX)), None);
    }

    #[test]
    fn the_rest_of_a_full_page_begins_behind_its_last_key() {
        assert_eq!(rest_of(Some(b"ab"), true), Some(b"ab\0".to_vec()));
        assert_eq!(rest_of(Some(b"ab"), false), None);
        assert_eq!(rest_of(None, true), None);
    }
}
