//! The PostgreSQL driver: rows of one table; also in servers that speak as PostgreSQL 11 or later does.
//!
//! A conditional write is one statement: an upsert whose `WHERE` is the condition, which the server decides on the row
//! that is there then, whoever wrote it meanwhile. What was replaced comes back with it, because the new row has it in a
//! column of its own: before PostgreSQL 18, `RETURNING` sees only new rows, and a look before the write could see an
//! older one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqlSafeStr as _, SqlStr};

use crate::driver::sql::{
    Dialect, Page, Range, SqlDriver, SqlOptions, SqlTls, TableName, Wire, plain_statements, ttl_ms,
    with_options,
};
use crate::driver::{When, Write, Written};
use crate::entry::wire::stamp_of;
use crate::error::ErrorKind;
use crate::time::Stamp;

/// A store in a table of a PostgreSQL database.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> larder::Result<()> {
/// use larder::driver::postgres::{PostgresDriver, PostgresOptions};
/// let store = PostgresDriver::connect(PostgresOptions::new("postgres://cache@localhost/app")?).await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
pub type PostgresDriver = SqlDriver<Postgres>;

/// How a store in a PostgreSQL database is opened.
pub type PostgresOptions = SqlOptions<Postgres>;

/// How often a write that was refused by a row that is gone since is tried again.
const TRIES_MAX: u32 = 20;

/// PostgreSQL.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postgres;

/// The statements of one table. Its name is part of every one, so they are written out once.
#[derive(Debug)]
pub struct Statements {
    schema: String,
    find: SqlStr,
    get: SqlStr,
    get_many: SqlStr,
    set_always: SqlStr,
    set_newer: SqlStr,
    set_absent: SqlStr,
    swap: SqlStr,
    set_many_always: SqlStr,
    set_many_newer: SqlStr,
    set_many_absent: SqlStr,
    heads: SqlStr,
    delete: SqlStr,
    page: SqlStr,
    boundary: SqlStr,
    clear: SqlStr,
    prune: SqlStr,
}

impl Statements {
    fn new(name: &TableName) -> Self {
        let (table, index) = (name.quoted('"'), name.index('"'));
        let alive = "(t.expires_at IS NULL OR t.expires_at > now())";
        let dead = "t.expires_at <= now()";
        let newer = format!("t.stamp IS NULL OR t.stamp < excluded.stamp OR {dead}");
        // What the row was before, for whoever is told what the write replaced.
        let previous = format!("CASE WHEN {alive} THEN substring(t.value FROM 1 FOR 40) END");
        let insert = format!("INSERT INTO {table} AS t (key, stamp, expires_at, value)");
        let one = "VALUES ($1, $2, now() + $3::bigint * interval '1 millisecond', $4)";
        let many = "SELECT w.key, w.stamp, now() + w.ttl * interval '1 millisecond', w.value \
                    FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[]) AS w (key, stamp, ttl, value)";
        let replace = format!(
            "ON CONFLICT (key) DO UPDATE SET stamp = excluded.stamp, expires_at = excluded.expires_at, \
             previous = {previous}, value = excluded.value"
        );
        let back = "RETURNING t.key, t.previous";
        let upsert =
            |rows: &str, condition: &str| safe(format!("{insert} {rows} {replace} WHERE {condition} {back}"));
        let range = "t.key >= $1 AND t.key < $2";
        Self {
            schema: format!(
                "CREATE TABLE IF NOT EXISTS {table} (key bytea PRIMARY KEY, stamp bigint, expires_at timestamptz, \
                 previous bytea, value bytea NOT NULL);\n\
                 ALTER TABLE {table} ALTER COLUMN value SET STORAGE EXTERNAL;\n\
                 CREATE INDEX IF NOT EXISTS {index} ON {table} (expires_at) WHERE expires_at IS NOT NULL;"
            ),
            find: safe(format!("SELECT key, stamp, expires_at, previous, value FROM {table} LIMIT 0")),
            get: safe(format!("SELECT t.value FROM {table} t WHERE t.key = $1 AND {alive}")),
            get_many: safe(format!("SELECT t.key, t.value FROM {table} t WHERE t.key = ANY($1) AND {alive}")),
            set_always: upsert(one, "true"),
            set_newer: upsert(one, &newer),
            set_absent: upsert(one, dead),
            swap: safe(format!(
                "UPDATE {table} AS t SET stamp = $2, expires_at = now() + $3::bigint * interval '1 millisecond', \
                 previous = {previous}, value = $4 WHERE t.key = $1 AND t.stamp = $5 AND {alive} {back}"
            )),
            set_many_always: upsert(many, "true"),
            set_many_newer: upsert(many, &newer),
            set_many_absent: upsert(many, dead),
            heads: safe(format!(
                "SELECT t.key, substring(t.value FROM 1 FOR 40) FROM {table} t WHERE t.key = ANY($1) AND {alive}"
            )),
            // Rows are taken in the order of their keys, as everywhere, so that nobody waits in a circle.
            delete: safe(format!(
                "DELETE FROM {table} t USING (SELECT key FROM {table} WHERE key = ANY($1) ORDER BY key FOR UPDATE) d \
                 WHERE t.key = d.key AND {alive}"
            )),
            page: safe(format!(
                "SELECT t.key, substring(t.value FROM 1 FOR 40), {alive} FROM {table} t WHERE {range} \
                 ORDER BY t.key LIMIT $3"
            )),
            boundary: safe(format!(
                "SELECT t.key FROM {table} t WHERE {range} ORDER BY t.key LIMIT 1 OFFSET $3"
            )),
            clear: safe(format!(
                "DELETE FROM {table} t USING (SELECT t.key FROM {table} t WHERE {range} \
                 AND (t.stamp IS NULL OR t.stamp <= $3) ORDER BY t.key FOR UPDATE) d \
                 WHERE t.key = d.key AND (t.stamp IS NULL OR t.stamp <= $3)"
            )),
            prune: safe(format!(
                "DELETE FROM {table} t USING (SELECT key FROM {table} WHERE expires_at <= now() \
                 ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED) d WHERE t.key = d.key AND {dead}"
            )),
        }
    }
}

fn safe(statement: String) -> SqlStr {
    // Only the table's name is not written above, and it was checked.
    AssertSqlSafe(std::sync::Arc::<str>::from(statement)).into_sql_str()
}

/// Stamps are unsigned, and the column's numbers are not: the lowest one becomes the lowest one.
fn signed(stamp: Stamp) -> i64 {
    (stamp.to_bits() ^ (1 << 63)).cast_signed()
}

impl Dialect for Postgres {
    type Database = sqlx::Postgres;
    type Statements = Statements;

    const NAME: &'static str = "postgres";
    const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];
    const PORT: u16 = 5432;
    /// A row's limit is 1 GiB, and a parameter is copied into a message of at most that.
    const VALUE_BYTES_MAX: u64 = 1_000_000_000;

    fn statements(table: &TableName) -> Statements {
        Statements::new(table)
    }

    fn schema(statements: &Statements) -> &str {
        &statements.schema
    }

    fn parse(url: &str) -> sqlx::Result<PgConnectOptions> {
        url.parse()
    }

    fn defaults() -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
    }

    fn settings(base: PgConnectOptions, options: &SqlOptions<Self>) -> PgConnectOptions {
        let tls = options.tls(matches!(base.get_ssl_mode(), PgSslMode::VerifyCa | PgSslMode::VerifyFull));
        let mut settings = with_options!(base, options);
        if let Some(tls) = tls {
            settings = settings.ssl_mode(match tls {
                SqlTls::Disable => PgSslMode::Disable,
                SqlTls::Prefer => PgSslMode::Prefer,
                SqlTls::Require => PgSslMode::Require,
                SqlTls::VerifyCa => PgSslMode::VerifyCa,
                SqlTls::VerifyFull => PgSslMode::VerifyFull,
            });
        }
        if let Some(file) = &options.ca_file {
            settings = settings.ssl_root_cert(file);
        }
        settings
    }

    fn place(settings: &PgConnectOptions) -> String {
        let (username, database) = (settings.get_username(), settings.get_database());
        let database = database.unwrap_or(username);
        match settings.get_socket() {
            Some(socket) => format!("{username}@{}/{database}", socket.display()),
            None => format!("{username}@{}:{}/{database}", settings.get_host(), settings.get_port()),
        }
    }

    fn is_socket(settings: &PgConnectOptions) -> bool {
        settings.get_socket().is_some() || settings.get_host().starts_with('/')
    }

    fn prepare(connection: &mut PgConnection, patience: Duration) -> BoxFuture<'_, sqlx::Result<()>> {
        let ms = patience.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
        let statement = AssertSqlSafe(format!("SET statement_timeout = {ms}"));
        async move { sqlx::raw_sql(statement).execute(connection).await.map(drop) }.boxed()
    }

    fn classify(refusal: &dyn DatabaseError) -> Option<(ErrorKind, &'static str)> {
        use ErrorKind::{Config, Timeout, TooLarge, Unavailable};
        let code = refusal.code()?;
        Some(match &*code {
            "28P01" | "28000" => (Config, "the server does not accept the user or the password"),
            "3D000" => (Config, "there is no such database"),
            "3F000" => (Config, "there is no such schema"),
            "42501" => {
                (Config, "the user may not do that; it needs select, insert, update and delete on the table")
            }
            "42P01" => (Config, "the table is not there any more"),
            "42P05" | "26000" => (
                Config,
                "what stands before the server hands statements of one connection to another; let PgBouncer pool by \
                 session, or prepare statements itself (1.21 and later, max_prepared_statements)",
            ),
            "42703" | "42804" | "42883" | "42P10" | "42809" => {
                (Config, "the table is not one of larder's: name another one")
            }
            "57014" | "55P03" => (Timeout, "no answer in time"),
            "25006" => {
                (Unavailable, "the server takes no writes: it is a standby, or was told to be read only")
            }
            "53100" => (Unavailable, "the server's disk is full"),
            "53300" => (Unavailable, "the server takes no more connections"),
            "57P01" | "57P02" | "57P03" | "57P05" => {
                (Unavailable, "the server is shutting down or starting up")
            }
            "40001" | "40P01" => (Unavailable, "others were writing the same keys"),
            "54000" => (TooLarge, "more than a row can hold"),
            code => match code.get(..2)? {
                "08" | "53" | "57" | "58" => (Unavailable, "the server cannot do it now"),
                _ => return None,
            },
        })
    }

    fn is_missing(refusal: &dyn DatabaseError) -> bool {
        refusal.code().is_some_and(|code| code == "42P01" || code == "3F000")
    }

    fn is_passing(refusal: &dyn DatabaseError) -> bool {
        refusal.code().is_some_and(|code| code == "40001" || code == "40P01")
    }

    fn is_ended(refusal: &dyn DatabaseError) -> bool {
        refusal.code().is_some_and(|code| matches!(&*code, "57P01" | "57P02" | "57P05"))
    }

    plain_statements!(PgConnection, signed);

    async fn get_many(
        connection: &mut PgConnection,
        statements: &Statements,
        keys: &[&str],
    ) -> sqlx::Result<Vec<(Vec<u8>, Bytes)>> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let rows = sqlx::query(statements.get_many.clone()).bind(keys).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, bytes(row, 1)?))).collect()
    }

    async fn set(
        connection: &mut PgConnection,
        statements: &Statements,
        write: &Write,
    ) -> sqlx::Result<Option<Written>> {
        let Write { key, value, ttl, when } = write;
        let statement = match when {
            When::Always => &statements.set_always,
            When::Newer => &statements.set_newer,
            When::Unchanged(None) => &statements.set_absent,
            When::Unchanged(Some(_)) => &statements.swap,
        };
        for _ in 0..TRIES_MAX {
            let mut query = sqlx::query(statement.clone())
                .bind(key.as_bytes())
                .bind(stamp_of(value).map(signed))
                .bind(ttl_ms(*ttl))
                .bind(&value[..]);
            if let When::Unchanged(Some(expected)) = when {
                query = query.bind(signed(*expected));
            }
            if let Some(row) = query.fetch_optional(&mut *connection).await? {
                return Ok(Some(Written::Stored { previous: previous(&row)? }));
            }
            // The row that refused may be gone by now. What is there decides again, and if it would have allowed the
            // write, it gets the chance.
            let stored = heads(connection, statements, &[key]).await?;
            let head = stored.first().map(|(_, head)| &head[..]);
            if let refused @ Written::Refused { .. } = when.outcome(head, value) {
                return Ok(Some(refused));
            }
        }
        Ok(None)
    }

    fn go_together(one: &Write, other: &Write) -> bool {
        // A swap names the stamp that it expects, and stands alone.
        one.when == other.when && !matches!(one.when, When::Unchanged(Some(_)))
    }

    async fn set_many(
        connection: &mut PgConnection,
        statements: &Statements,
        writes: &[&Write],
    ) -> sqlx::Result<Vec<Option<Written>>> {
        let statement = match writes.first().map(|write| write.when) {
            Some(When::Always) => &statements.set_many_always,
            Some(When::Newer) => &statements.set_many_newer,
            Some(When::Unchanged(None)) => &statements.set_many_absent,
            Some(When::Unchanged(Some(_))) | None => return Ok(writes.iter().map(|_| None).collect()),
        };
        let keys: Vec<&[u8]> = writes.iter().map(|write| write.key.as_bytes()).collect();
        let stamps: Vec<Option<i64>> =
            writes.iter().map(|write| stamp_of(&write.value).map(signed)).collect();
        let ttls: Vec<Option<i64>> = writes.iter().map(|write| ttl_ms(write.ttl)).collect();
        let values: Vec<&[u8]> = writes.iter().map(|write| &write.value[..]).collect();
        let query = sqlx::query(statement.clone()).bind(keys).bind(stamps).bind(ttls).bind(values);
        let mut stored = std::collections::HashMap::with_capacity(writes.len());
        for row in query.fetch_all(&mut *connection).await? {
            stored.insert(row.try_get::<Vec<u8>, _>(0)?, previous(&row)?);
        }
        let mut outcomes: Vec<Option<Written>> = writes
            .iter()
            .map(|write| Some(Written::Stored { previous: stored.remove(write.key.as_bytes())? }))
            .collect();
        // The others were refused, unless what refused them is gone by now.
        let refused: Vec<&str> = writes
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| outcome.is_none())
            .map(|(write, _)| &*write.key)
            .collect();
        if refused.is_empty() {
            return Ok(outcomes);
        }
        let heads = heads(connection, statements, &refused).await?;
        let heads: std::collections::HashMap<Vec<u8>, Vec<u8>> = heads.into_iter().collect();
        for (write, outcome) in writes.iter().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
            let head = heads.get(write.key.as_bytes()).map(|head| &head[..]);
            *outcome = Some(write.when.outcome(head, &write.value))
                .filter(|outcome| matches!(outcome, Written::Refused { .. }));
        }
        Ok(outcomes)
    }

    async fn delete(
        connection: &mut PgConnection,
        statements: &Statements,
        keys: &[&str],
    ) -> sqlx::Result<u64> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let done = sqlx::query(statements.delete.clone()).bind(keys).execute(connection).await?;
        Ok(done.rows_affected())
    }
}

/// The heads of what is there under some keys.
async fn heads(
    connection: &mut Wire<Postgres>,
    statements: &Statements,
    keys: &[&str],
) -> sqlx::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let rows = sqlx::query(statements.heads.clone()).bind(keys).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.try_get::<&[u8], _>(column)?))
}

fn previous(row: &PgRow) -> sqlx::Result<Option<Bytes>> {
    Ok(row.try_get::<Option<&[u8]>, _>(1)?.map(Bytes::copy_from_slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_their_order_in_a_signed_column() {
        let stamps = [0, 1, 1 << 62, (1 << 63) - 1, 1 << 63, u64::MAX].map(Stamp::from_bits);
        assert!(stamps.map(signed).is_sorted());
        assert_eq!((signed(Stamp::ZERO), signed(Stamp::MAX)), (i64::MIN, i64::MAX));
    }
}
