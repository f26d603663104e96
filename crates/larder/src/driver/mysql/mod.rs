//! The MySQL driver: rows of one table; also in MariaDB and what else speaks as they do. MySQL 5.7, MariaDB 10.3, or
//! later.
//!
//! MySQL cannot say what an upsert did or replaced. So a conditional write looks first, asks `When::outcome`, and
//! writes only if the head that it saw is still there, which is all that the outcome was made of; else it looks again.
//! Each of these is a statement of its own, so nothing is locked between two of them. Several writes at once, and one that
//! others came before again and again, are a transaction that locks their rows, and is done again if the server undoes it
//! in favour of another one.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqlSafeStr as _, SqlStr};

use crate::driver::sql::{
    Dialect, Page, Range, SqlDriver, SqlOptions, SqlTls, TableName, plain_statements, ttl_ms, with_options,
};
use crate::driver::{Write, Written};
use crate::entry::wire::stamp_of;
use crate::error::ErrorKind;
use crate::time::Stamp;

/// A store in a table of a MySQL or MariaDB database.
///
/// A value may be as long as the server's `max_allowed_packet` allows, less what stands around it.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::mysql::{MysqlDriver, MysqlOptions};
/// let store = MysqlDriver::connect(MysqlOptions::new("mysql://cache:secret@localhost/app")?).await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
pub type MysqlDriver = SqlDriver<Mysql>;

/// How a store in a MySQL or MariaDB database is opened.
pub type MysqlOptions = SqlOptions<Mysql>;

/// How often a write looks again because somebody came between its look and its write, before it locks the row.
const TRIES_MAX: u32 = 4;

const ALIVE: &str = "(expires_at IS NULL OR expires_at > UTC_TIMESTAMP(3))";
const ENDS: &str = "UTC_TIMESTAMP(3) + INTERVAL ? MICROSECOND";

/// MySQL, and MariaDB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mysql;

/// The statements of one table. Its name is part of every one, so they are written out once. Those with a list of keys
/// or rows have it in several lengths.
#[derive(Debug)]
pub struct Statements {
    schema: String,
    find: SqlStr,
    get: SqlStr,
    get_many: Lists,
    look: SqlStr,
    insert: SqlStr,
    replace: SqlStr,
    look_many: Lists,
    insert_many: Lists,
    replace_many: Lists,
    delete: Lists,
    page: SqlStr,
    boundary: SqlStr,
    clear: SqlStr,
    prune: SqlStr,
}

impl Statements {
    fn new(name: &TableName) -> Self {
        let (table, index) = (name.quoted('`'), name.index('`'));
        let key = "`key`";
        let range = format!("{key} >= ? AND {key} < ?");
        let insert = format!("INSERT INTO {table} ({key}, stamp, expires_at, value) VALUES ");
        let row = format!("(?, ?, {ENDS}, ?)");
        Self {
            // Comparing bytes as bytes, with no limit of a collation; 1 KiB is the longest key.
            schema: format!(
                "CREATE TABLE IF NOT EXISTS {table} ({key} VARBINARY(1024) NOT NULL PRIMARY KEY, \
                 stamp BIGINT UNSIGNED NULL, expires_at DATETIME(3) NULL, value LONGBLOB NOT NULL, \
                 INDEX {index} (expires_at)) ENGINE = InnoDB ROW_FORMAT = DYNAMIC"
            ),
            find: safe(format!("SELECT {key}, stamp, expires_at, value FROM {table} LIMIT 0")),
            get: safe(format!("SELECT value FROM {table} WHERE {key} = ? AND {ALIVE}")),
            get_many: Lists::filled(
                &format!("SELECT {key}, value FROM {table} WHERE {ALIVE} AND {key} IN ("),
                "?",
                ")",
            ),
            look: safe(format!("SELECT LEFT(value, 40), {ALIVE} FROM {table} WHERE {key} = ?")),
            insert: safe(format!("{insert}{row}")),
            replace: safe(format!(
                "UPDATE {table} SET stamp = ?, expires_at = {ENDS}, value = ? \
                 WHERE {key} = ? AND LEFT(value, 40) = ? AND {ALIVE} = ?"
            )),
            look_many: Lists::filled(
                &format!("SELECT LEFT(value, 40), {ALIVE}, {key} FROM {table} WHERE {key} IN ("),
                "?",
                &format!(") ORDER BY {key} FOR UPDATE"),
            ),
            insert_many: Lists::parted(&insert, &row, ""),
            replace_many: Lists::parted(
                &insert,
                &row,
                " ON DUPLICATE KEY UPDATE stamp = VALUES(stamp), expires_at = VALUES(expires_at), \
                 value = VALUES(value)",
            ),
            delete: Lists::filled(&format!("DELETE FROM {table} WHERE {ALIVE} AND {key} IN ("), "?", ")"),
            page: safe(format!(
                "SELECT {key}, LEFT(value, 40), {ALIVE} FROM {table} WHERE {range} ORDER BY {key} LIMIT ?"
            )),
            boundary: safe(format!(
                "SELECT {key} FROM {table} WHERE {range} ORDER BY {key} LIMIT 1 OFFSET ?"
            )),
            clear: safe(format!("DELETE FROM {table} WHERE {range} AND (stamp IS NULL OR stamp <= ?)")),
            prune: safe(format!(
                "DELETE FROM {table} WHERE expires_at <= UTC_TIMESTAMP(3) ORDER BY expires_at LIMIT ?"
            )),
        }
    }
}

fn safe(statement: String) -> SqlStr {
    // Only the table's name is not written above, and it was checked.
    AssertSqlSafe(std::sync::Arc::<str>::from(statement)).into_sql_str()
}

/// A statement with a list, for some lengths of it, so that a connection need not keep one for each length.
#[derive(Debug)]
struct Lists {
    one: SqlStr,
    /// How long the list is, and the statement; the shortest first.
    longer: Vec<(usize, SqlStr)>,
}

impl Lists {
    /// For lists that are filled up: four lengths from one power of two to the next, so that at most a fifth is filling.
    fn filled(before: &str, item: &str, after: &str) -> Self {
        Self::new(before, item, after, (0..40).map(|step| ((4 + step % 4) << (step / 4)) >> 2))
    }

    /// For lists that are taken apart: a length for each power of two.
    fn parted(before: &str, item: &str, after: &str) -> Self {
        Self::new(before, item, after, (1..=10).map(|power| 1 << power))
    }

    fn new(before: &str, item: &str, after: &str, lengths: impl Iterator<Item = usize>) -> Self {
        let statement = |length| safe(format!("{before}{}{after}", vec![item; length].join(", ")));
        let mut lengths: Vec<usize> = lengths.chain([1_024]).filter(|&length| length > 1).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            one: statement(1),
            longer: lengths.into_iter().map(|length| (length, statement(length))).collect(),
        }
    }

    /// The statement for the fewest items that are no less than these, and how many it has.
    fn at_least(&self, items: usize) -> (SqlStr, usize) {
        let found = self.longer.iter().find(|(length, _)| items > 1 && *length >= items);
        found.map_or((self.one.clone(), 1), |(length, statement)| (statement.clone(), *length))
    }

    /// The statement for the most items that are no more than these, and how many it has.
    fn at_most(&self, items: usize) -> (SqlStr, usize) {
        let found = self.longer.iter().rfind(|(length, _)| *length <= items);
        found.map_or((self.one.clone(), 1), |(length, statement)| (statement.clone(), *length))
    }
}

impl Dialect for Mysql {
    type Database = sqlx::MySql;
    type Statements = Statements;

    const NAME: &'static str = "mysql";
    const SCHEMES: &'static [&'static str] = &["mysql", "mariadb"];
    const PORT: u16 = 3306;
    /// The largest packet that a server can be set to take is 1 GiB.
    const VALUE_BYTES_MAX: u64 = 1_000_000_000;

    fn statements(table: &TableName) -> Statements {
        Statements::new(table)
    }

    fn schema(statements: &Statements) -> &str {
        &statements.schema
    }

    fn parse(url: &str) -> sqlx::Result<MySqlConnectOptions> {
        url.parse()
    }

    fn defaults() -> MySqlConnectOptions {
        MySqlConnectOptions::new()
    }

    fn settings(base: MySqlConnectOptions, options: &SqlOptions<Self>) -> MySqlConnectOptions {
        let verifies = matches!(base.get_ssl_mode(), MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity);
        let tls = options.tls(verifies);
        let mut settings = with_options!(base, options);
        if let Some(tls) = tls {
            settings = settings.ssl_mode(match tls {
                SqlTls::Disable => MySqlSslMode::Disabled,
                SqlTls::Prefer => MySqlSslMode::Preferred,
                SqlTls::Require => MySqlSslMode::Required,
                SqlTls::VerifyCa => MySqlSslMode::VerifyCa,
                SqlTls::VerifyFull => MySqlSslMode::VerifyIdentity,
            });
        }
        if let Some(file) = &options.ca_file {
            settings = settings.ssl_ca(file);
        }
        settings
    }

    fn place(settings: &MySqlConnectOptions) -> String {
        let (username, database) = (settings.get_username(), settings.get_database().unwrap_or_default());
        match settings.get_socket() {
            Some(socket) => format!("{username}@{}/{database}", socket.display()),
            None => format!("{username}@{}:{}/{database}", settings.get_host(), settings.get_port()),
        }
    }

    fn is_socket(settings: &MySqlConnectOptions) -> bool {
        settings.get_socket().is_some()
    }

    fn prepare(connection: &mut MySqlConnection, patience: Duration) -> BoxFuture<'_, sqlx::Result<()>> {
        async move {
            let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut *connection).await?;
            // Only MariaDB ends what writes; what waits for a lock ends in both.
            let limit = if version.contains("MariaDB") {
                format!("max_statement_time = {:.3}", patience.as_secs_f64().max(0.001))
            } else {
                format!("max_execution_time = {}", patience.as_millis().clamp(1, u32::MAX.into()))
            };
            let wait = patience.as_secs().clamp(1, 1_000_000);
            // Without gaps being locked, new keys beside each other are not in each other's way.
            let isolation = "SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
            let limits = AssertSqlSafe(format!(
                "SET {limit}, innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}"
            ));
            sqlx::raw_sql(limits).execute(&mut *connection).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("SET {isolation}"))).execute(connection).await.map(drop)
        }
        .boxed()
    }

    fn classify(refusal: &dyn DatabaseError) -> Option<(ErrorKind, &'static str)> {
        use ErrorKind::{Config, Timeout, TooLarge, Unavailable};
        Some(match number(refusal)? {
            1045 | 1698 | 1251 | 3118 => (Config, "the server does not accept the user or the password"),
            1049 => (Config, "there is no such database"),
            1046 => (Config, "no database is named"),
            1044 | 1142 | 1143 | 1227 | 1370 => {
                (Config, "the user may not do that; it needs select, insert, update and delete on the table")
            }
            1146 => (Config, "the table is not there any more"),
            1054 | 1364 | 1366 | 1406 => (Config, "the table is not one of larder's: name another one"),
            1205 | 1969 | 3024 | 1317 => (Timeout, "no answer in time"),
            1290 | 1792 | 1836 => {
                (Unavailable, "the server takes no writes: it is a replica, or was told to be read only")
            }
            1021 | 1114 => (Unavailable, "the server's disk is full"),
            1040 | 1203 | 1226 => (Unavailable, "the server takes no more connections"),
            1053 | 1927 | 4031 | 3169 => (Unavailable, "the server is shutting down"),
            1213 | 1062 | 1020 => (Unavailable, "others were writing the same keys"),
            1153 | 1301 | 1118 => {
                (TooLarge, "more than the server takes at once; see its max_allowed_packet")
            }
            1129 | 1130 => (Config, "the server does not take connections from this host"),
            _ => return None,
        })
    }

    fn is_missing(refusal: &dyn DatabaseError) -> bool {
        number(refusal) == Some(1146)
    }

    fn is_passing(refusal: &dyn DatabaseError) -> bool {
        // A deadlock, and a row that somebody inserted first or changed meanwhile: the transaction was undone.
        matches!(number(refusal), Some(1213 | 1062 | 1020))
    }

    fn is_ended(refusal: &dyn DatabaseError) -> bool {
        // What the server says before it closes a connection that it has not heard from, or that was killed.
        matches!(number(refusal), Some(1053 | 1927 | 4031))
    }

    plain_statements!(MySqlConnection, Stamp::to_bits);

    async fn get_many(
        connection: &mut MySqlConnection,
        statements: &Statements,
        keys: &[&str],
    ) -> sqlx::Result<Vec<(Vec<u8>, Bytes)>> {
        let rows = listed(&statements.get_many, keys).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, bytes(row, 1)?))).collect()
    }

    async fn set(
        connection: &mut MySqlConnection,
        statements: &Statements,
        write: &Write,
    ) -> sqlx::Result<Option<Written>> {
        let Write { key, value, ttl, when } = write;
        let (key, stamp, ttl) = (key.as_bytes(), stamp_of(value).map(Stamp::to_bits), micros(*ttl));
        for _ in 0..TRIES_MAX {
            let look =
                sqlx::query(statements.look.clone()).bind(key).fetch_optional(&mut *connection).await?;
            let seen = look.map(|row| Seen::new(&row)).transpose()?;
            let written = when.outcome(seen.as_ref().and_then(Seen::alive), value);
            let Written::Stored { .. } = written else { return Ok(Some(written)) };
            let done = match &seen {
                None => {
                    let insert = sqlx::query(statements.insert.clone()).bind(key).bind(stamp).bind(ttl);
                    insert.bind(&value[..]).execute(&mut *connection).await
                }
                Some(seen) => {
                    let replace =
                        sqlx::query(statements.replace.clone()).bind(stamp).bind(ttl).bind(&value[..]);
                    let replace = replace.bind(key).bind(&seen.head[..]).bind(seen.is_alive);
                    replace.execute(&mut *connection).await
                }
            };
            match done {
                Ok(done) if done.rows_affected() > 0 => return Ok(Some(written)),
                Ok(_) => {}
                Err(sqlx::Error::Database(refusal)) if Self::is_passing(&*refusal) => {}
                Err(cause) => return Err(cause),
            }
        }
        // Many write this key: whoever only looks might never get through.
        Ok(Self::set_many(connection, statements, &[write]).await?.pop().flatten())
    }

    fn go_together(_: &Write, _: &Write) -> bool {
        true
    }

    async fn set_many(
        connection: &mut MySqlConnection,
        statements: &Statements,
        writes: &[&Write],
    ) -> sqlx::Result<Vec<Option<Written>>> {
        let mut transaction = connection.begin().await?;
        let keys: Vec<&str> = writes.iter().map(|write| &*write.key).collect();
        let rows = listed(&statements.look_many, &keys).fetch_all(&mut *transaction).await?;
        let mut seen = HashMap::with_capacity(rows.len());
        for row in &rows {
            seen.insert(row.try_get::<Vec<u8>, _>(2)?, Seen::new(row)?);
        }
        let (mut new, mut old, mut outcomes) = (Vec::new(), Vec::new(), Vec::with_capacity(writes.len()));
        for &write in writes {
            let seen = seen.get(write.key.as_bytes());
            let written = write.when.outcome(seen.and_then(Seen::alive), &write.value);
            if let Written::Stored { .. } = written {
                if seen.is_some() { old.push(write) } else { new.push(write) }
            }
            outcomes.push(Some(written));
        }
        // What is new is inserted without more, so that what somebody else inserted meanwhile undoes all of it.
        for (list, rows) in [(&statements.insert_many, &new), (&statements.replace_many, &old)] {
            let mut rest = &rows[..];
            while !rest.is_empty() {
                let (statement, count) = list.at_most(rest.len());
                let (some, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                let mut query = sqlx::query(statement);
                for write in some {
                    query = query.bind(write.key.as_bytes()).bind(stamp_of(&write.value).map(Stamp::to_bits));
                    query = query.bind(micros(write.ttl)).bind(&write.value[..]);
                }
                query.execute(&mut *transaction).await?;
                rest = others;
            }
        }
        transaction.commit().await?;
        Ok(outcomes)
    }

    async fn delete(
        connection: &mut MySqlConnection,
        statements: &Statements,
        keys: &[&str],
    ) -> sqlx::Result<u64> {
        Ok(listed(&statements.delete, keys).execute(connection).await?.rows_affected())
    }
}

/// A row that a conditional write found.
struct Seen {
    head: Vec<u8>,
    is_alive: bool,
}

impl Seen {
    fn new(row: &MySqlRow) -> sqlx::Result<Self> {
        Ok(Self { head: row.try_get(0)?, is_alive: row.try_get(1)? })
    }

    /// What there is: a row whose time is up is nothing.
    fn alive(&self) -> Option<&[u8]> {
        self.is_alive.then_some(&self.head)
    }
}

fn number(refusal: &dyn DatabaseError) -> Option<u16> {
    refusal.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

fn micros(ttl: Option<Duration>) -> Option<i64> {
    ttl_ms(ttl).map(|ms| ms.saturating_mul(1_000))
}

fn bytes(row: &MySqlRow, column: usize) -> sqlx::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.try_get::<&[u8], _>(column)?))
}

/// A statement over a list of keys, the last of which is named again as often as it takes.
fn listed<'q>(
    lists: &Lists,
    keys: &[&'q str],
) -> sqlx::query::Query<'q, sqlx::MySql, sqlx::mysql::MySqlArguments> {
    let (statement, count) = lists.at_least(keys.len());
    let padding =
        std::iter::repeat_n(keys.last().copied().unwrap_or_default(), count.saturating_sub(keys.len()));
    keys.iter().copied().chain(padding).fold(sqlx::query(statement), |query, key| query.bind(key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_filled_up_by_a_fifth_at_most_or_parted_at_powers_of_two() {
        let (filled, parted) = (Lists::filled("(", "?", ")"), Lists::parted("(", "?", ")"));
        for items in 1..=1_024 {
            let (statement, length) = filled.at_least(items);
            assert_eq!(statement.as_str().matches('?').count(), length);
            assert!(length >= items && (length - items) * 5 <= length, "{items}: {length}");
            let (statement, length) = parted.at_most(items);
            assert_eq!(statement.as_str().matches('?').count(), length);
            assert!(length <= items && length * 2 > items && length.is_power_of_two(), "{items}: {length}");
        }
        assert!(filled.longer.len() < 40);
    }
}
