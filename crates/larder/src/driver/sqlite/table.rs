//! One table of one SQLite file: how it is opened, and every statement that is ever run on it.
//!
//! Knows SQL and nothing of threads: each function takes a connection and does one thing on it.
//!
//! A record lies in two columns, its head and the rest, so that a conditional write and a scan read the head
//! without the pages of a large value behind it. Which of two writes wins is not said again in SQL: a write
//! reads the stored head and asks [`When::outcome`], inside one `IMMEDIATE` transaction, which no other
//! process can come between.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row, params};

use crate::driver::{Scanned, When, Write, Written};
use crate::entry::wire::HEAD_BYTES;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Stamp, Timestamp};

use super::SqliteLocation;

/// What a table holds at most in one row, less what a row needs beside its value: SQLite's own limit.
pub(super) const VALUE_BYTES_MAX: u64 = 1_000_000_000 - 64 * 1024;

/// The statements of one table. Its name is part of every one, so they are written out once.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    get: String,
    head: String,
    put: String,
    delete: String,
    page: String,
    boundary: String,
    delete_range: String,
    delete_expired: String,
    oldest: String,
}

impl Table {
    /// # Errors
    /// [`ErrorKind::Config`] for a name that is not `[A-Za-z_][A-Za-z0-9_]{0,62}`: it becomes part of every
    /// statement, and nothing that needs escaping is worth the risk.
    pub(super) fn new(name: &str) -> Result<Self> {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let plain = name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        if !plain || name.len() > 63 || name.to_ascii_lowercase().starts_with("sqlite_") {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "{name:?} cannot name a table: a letter or underscore, then up to 62 letters, digits and \
                     underscores, and not sqlite_ in front"
                ),
            ));
        }
        let alive = "(expires_at IS NULL OR expires_at > ?2)";
        Ok(Self {
            get: format!("SELECT head, body FROM \"{name}\" WHERE key = ?1 AND {alive}"),
            head: format!("SELECT head FROM \"{name}\" WHERE key = ?1 AND {alive}"),
            put: format!(
                "INSERT INTO \"{name}\" (key, expires_at, written_at, head, body) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (key) DO UPDATE SET expires_at = excluded.expires_at, \
                 written_at = excluded.written_at, head = excluded.head, body = excluded.body"
            ),
            delete: format!("DELETE FROM \"{name}\" WHERE key = ?1 RETURNING {alive}"),
            page: format!(
                "SELECT key, head FROM \"{name}\" WHERE key >= ?1 AND key < ?3 AND {alive} ORDER BY key LIMIT ?4"
            ),
            boundary: format!(
                "SELECT key FROM \"{name}\" WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT 1 OFFSET ?3"
            ),
            // The stamp, as `wire::stamp_of` finds it: blobs compare as unsigned bytes, which are big-endian.
            delete_range: format!(
                "DELETE FROM \"{name}\" WHERE key >= ?1 AND key < ?2 \
                 AND (length(head) < 12 OR substr(head, 5, 8) <= ?3)"
            ),
            delete_expired: format!(
                "DELETE FROM \"{name}\" WHERE key IN \
                 (SELECT key FROM \"{name}\" WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)"
            ),
            oldest: format!("SELECT key, length(body) FROM \"{name}\" ORDER BY written_at, key LIMIT ?1"),
            name: name.to_owned(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What kept [`find`] from its answer: [`ErrorKind::Config`] if the table lacks the columns that it has to
    /// have, what [`failed`] makes of anything else.
    pub(super) fn unfit(&self, cause: rusqlite::Error) -> Error {
        match code_of(&cause) {
            Some(ErrorCode::Unknown) => {
                let what = format!("the table {:?} is not one of larder's: name another one", self.name);
                Error::from_source(ErrorKind::Config, what, cause)
            }
            _ => failed("open", cause),
        }
    }

    /// What creates the table.
    ///
    /// Keys are blobs: a text that contains NUL is cut there by half of SQLite's functions, and blobs compare
    /// byte for byte whatever the collation. The row is its own index (`WITHOUT ROWID`), and the small columns
    /// come first, so that they can be read without a large value's pages.
    pub(super) fn schema(&self) -> String {
        let name = &self.name;
        format!(
            "CREATE TABLE IF NOT EXISTS \"{name}\" (key BLOB NOT NULL PRIMARY KEY, expires_at INTEGER, \
             written_at INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;\n\
             CREATE INDEX IF NOT EXISTS \"{name}_expires_at\" ON \"{name}\" (expires_at) \
             WHERE expires_at IS NOT NULL;"
        )
    }

    /// What creates the index that a bound on bytes needs, and nothing else does.
    fn schema_of_bound(&self) -> String {
        format!("CREATE INDEX IF NOT EXISTS \"{0}_written_at\" ON \"{0}\" (written_at)", self.name)
    }
}

/// How a connection is opened.
#[derive(Debug, Clone)]
pub(super) struct Opening {
    pub(super) location: SqliteLocation,
    /// Whether a missing file is created.
    pub(super) create: bool,
    /// Whether nothing is ever written.
    pub(super) read_only: bool,
    pub(super) busy_timeout: Duration,
    pub(super) max_bytes: Option<u64>,
}

/// Makes sure that the file and its directory are there, readable by nobody else if this makes them.
///
/// # Errors
/// [`ErrorKind::Unavailable`] with what the file system says, or that a folder has the name.
pub(super) fn prepare_file(path: &Path) -> Result<()> {
    let failed = |cause: io::Error| {
        Error::from_source(
            ErrorKind::Unavailable,
            format!("opening the sqlite file {}", path.display()),
            cause,
        )
    };
    if is_there(path)? {
        return Ok(());
    }
    let mut directory = DirBuilder::new();
    let mut file = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        directory.mode(0o700);
        // SQLite gives the files beside it the same mode.
        file.mode(0o600);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory.recursive(true).create(parent).map_err(failed)?;
    }
    file.append(true).create(true).open(path).map(drop).map_err(failed)
}

/// Whether there is something by this name that SQLite may try to open, which says little about a folder.
fn is_there(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let message = format!(
                "{} is a folder, and a sqlite store is one file: name a file, or move the folder away",
                path.display()
            );
            Err(Error::new(ErrorKind::Unavailable, message))
        }
        Ok(_) => Ok(true),
        Err(_) => Ok(false),
    }
}

/// Makes sure that the file is there, where none is to be created.
///
/// # Errors
/// [`ErrorKind::Config`] if it is not; [`ErrorKind::Unavailable`] if a folder has the name.
pub(super) fn require_file(path: &Path) -> Result<()> {
    if is_there(path)? {
        return Ok(());
    }
    let message = format!("there is no store at {}, and none is to be created", path.display());
    Err(Error::new(ErrorKind::Config, message))
}

/// Opens a connection that is only read from, in a folder that may not be written to as well.
///
/// A database with a log needs files beside it, even to be read. Where they cannot be made, nobody has it open
/// as far as can be told if there is no log, and it is read as something that does not change.
///
/// # Errors
/// [`ErrorKind::Unavailable`], with what to do if there is a log that cannot be read.
pub(super) fn connect_to_read(opening: &Opening) -> Result<Connection> {
    let probe = |connection: Connection| {
        connection.query_row("SELECT 1 FROM sqlite_master LIMIT 1", [], |_| Ok(())).optional()?;
        Ok(connection)
    };
    // Writable as far as the system allows: the last one that reads then leaves nothing beside the file.
    let refused = match (connect(opening).and_then(probe), &opening.location) {
        (Ok(connection), _) => return Ok(connection),
        (Err(cause), SqliteLocation::File(path)) if is_refused(&cause) => (cause, path),
        (Err(cause), _) => return Err(failed("open", cause)),
    };
    let (cause, path) = refused;
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    if std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        let message = format!(
            "{} cannot be read without writing to its folder, because it has a log beside it (-wal): read it as \
             a user who may write there, or read a copy of both",
            path.display()
        );
        return Err(Error::from_source(ErrorKind::Unavailable, message, cause));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable_uri(path), flags)
        .and_then(probe)
        .map_err(|cause| failed("open", cause))
}

/// A path as a URI that has SQLite take the file for one that does not change. Everything that could mean
/// something in a URI is encoded.
pub(super) fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(byte.into()),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

/// Whether the file, or those beside it, may not be opened or written.
fn is_refused(cause: &rusqlite::Error) -> bool {
    matches!(code_of(cause), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// Opens a connection. No statement is run, nothing is read: what costs time is left to who needs it.
pub(super) fn connect(opening: &Opening) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread, so it needs no lock of its own; and names are names, not URIs.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match &opening.location {
        SqliteLocation::Memory => {
            Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_MEMORY)?
        }
        SqliteLocation::File(path) => Connection::open_with_flags(path, flags)?,
    };
    connection.busy_timeout(opening.busy_timeout)?;
    Ok(connection)
}

/// Makes a connection ready to write. Asking for what is so already costs microseconds.
pub(super) fn prepare_writer(connection: &Connection, opening: &Opening) -> rusqlite::Result<()> {
    // Takes effect only in a file without tables, and only before WAL.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // Enough to keep the file whole whatever dies; a power failure may take the last writes, as a cache may.
    connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    if let Some(max_bytes) = opening.max_bytes {
        // The log counts as disk as well: it is copied back before it is a quarter of the bound.
        let pages = (max_bytes / 4 / 4096).clamp(64, 1000);
        connection.query_row(&format!("PRAGMA wal_autocheckpoint = {pages}"), [], |_| Ok(()))?;
        connection.query_row(&format!("PRAGMA journal_size_limit = {}", pages * 4096), [], |_| Ok(()))?;
    }
    Ok(())
}

/// Whether the table is there. What goes wrong is for [`Table::unfit`] to say.
pub(super) fn find(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    // SQLite takes names that differ by case for one.
    let there = "SELECT 1 FROM sqlite_master WHERE name = ?1 COLLATE NOCASE";
    if connection.query_row(there, [table.name()], |_| Ok(())).optional()?.is_none() {
        return Ok(false);
    }
    for statement in [&table.get, &table.put] {
        connection.prepare_cached(statement)?;
    }
    Ok(true)
}

/// Creates the table and its indexes, unless they are there.
pub(super) fn create(connection: &Connection, table: &Table, bounded: bool) -> rusqlite::Result<()> {
    connection.execute_batch(&table.schema())?;
    if bounded {
        connection.execute_batch(&table.schema_of_bound())?;
    }
    Ok(())
}

pub(super) fn get(
    connection: &Connection,
    table: &Table,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Bytes>> {
    let mut statement = connection.prepare_cached(&table.get)?;
    statement.query_row(params![key.as_bytes(), millis(now)], record_of).optional()
}

/// Several keys in one snapshot. Nothing travels between the statements of an embedded database, so a loop
/// over one prepared statement costs what one statement with many parameters does (both seek once a key),
/// answers in order, and needs no statement for each size.
pub(super) fn get_many(
    connection: &Connection,
    table: &Table,
    keys: &[String],
    now: Timestamp,
) -> rusqlite::Result<Vec<Option<Bytes>>> {
    let snapshot = connection.is_autocommit();
    if snapshot {
        connection.prepare_cached("BEGIN")?.execute([])?;
    }
    let found = keys.iter().map(|key| get(connection, table, key, now)).collect();
    if snapshot {
        // Nothing was written: there is nothing that ending it could lose.
        connection.prepare_cached("ROLLBACK")?.execute([])?;
    }
    found
}

/// Stores a value if its condition holds. Runs inside the writer's transaction, which makes it atomic.
/// A row whose time is up counts as nothing, as it does for [`get`].
pub(super) fn set(
    connection: &Connection,
    table: &Table,
    write: &Write,
    now: Timestamp,
) -> rusqlite::Result<Written> {
    let Write { key, value, ttl, when } = write;
    let key = key.as_bytes();
    let stored = connection
        .prepare_cached(&table.head)?
        .query_row(params![key, millis(now)], |row| Ok(column(row, 0)?.to_vec()))
        .optional()?;
    let written = When::outcome(*when, stored.as_deref(), value);
    if matches!(written, Written::Stored { .. }) {
        let expires_at = ttl.map(|ttl| now + ttl).and_then(|until| i64::try_from(until.as_millis()).ok());
        let (head, body) = value.split_at_checked(HEAD_BYTES).unwrap_or((value, &[]));
        connection.prepare_cached(&table.put)?.execute(params![key, expires_at, millis(now), head, body])?;
    }
    Ok(written)
}

pub(super) fn delete(
    connection: &Connection,
    table: &Table,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached(&table.delete)?;
    let alive = statement.query_row(params![key.as_bytes(), millis(now)], |row| row.get(0)).optional()?;
    Ok(alive.unwrap_or(false))
}

/// The first so many living keys from `from` on that are below `below`, with their heads; and where the rest
/// begins, if there may be one.
pub(super) fn page(
    connection: &Connection,
    table: &Table,
    (from, below): (&[u8], &[u8]),
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<(Vec<Scanned>, Option<Vec<u8>>)> {
    let mut statement = connection.prepare_cached(&table.page)?;
    let mut rows =
        statement.query(params![from, millis(now), below, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let (mut page, mut count, mut last) = (Vec::new(), 0, Vec::new());
    while let Some(row) = rows.next()? {
        count += 1;
        last.clear();
        last.extend_from_slice(column(row, 0)?);
        // A key that is no text was put there by someone else, and is not one of ours to list.
        if let Ok(key) = std::str::from_utf8(&last) {
            page.push(Scanned { key: key.to_owned(), head: Bytes::copy_from_slice(column(row, 1)?) });
        }
    }
    // Nothing lies between a key and the same key with a zero byte behind it.
    last.push(0);
    Ok((page, (count == limit).then_some(last)))
}

/// Deletes, of the first so many keys of a range, those that are no newer than `until`. Returns how many, and
/// where the rest begins.
pub(super) fn clear(
    connection: &Connection,
    table: &Table,
    (from, below): (&[u8], &[u8]),
    until: Stamp,
    limit: usize,
) -> rusqlite::Result<(u64, Option<Vec<u8>>)> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rest: Option<Vec<u8>> = connection
        .prepare_cached(&table.boundary)?
        .query_row(params![from, below, limit], |row| Ok(column(row, 0)?.to_vec()))
        .optional()?;
    let end = rest.as_deref().unwrap_or(below);
    let until = until.to_bits().to_be_bytes();
    let deleted = connection.prepare_cached(&table.delete_range)?.execute(params![from, end, until])?;
    Ok((u64::try_from(deleted).unwrap_or(u64::MAX), rest))
}

/// Deletes so many rows whose time is up. Returns how many.
pub(super) fn delete_expired(
    connection: &Connection,
    table: &Table,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection.prepare_cached(&table.delete_expired)?.execute(params![millis(now), limit])
}

/// Deletes what was written longest ago until about `bytes` are free, or so many rows. Returns how many.
pub(super) fn delete_oldest(
    connection: &Connection,
    table: &Table,
    bytes: u64,
    limit: usize,
) -> rusqlite::Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut oldest = Vec::new();
    let mut freed = 0;
    {
        let mut statement = connection.prepare_cached(&table.oldest)?;
        let mut rows = statement.query([limit])?;
        while freed < bytes
            && let Some(row) = rows.next()?
        {
            let body: i64 = row.get(1).unwrap_or(0);
            let key = column(row, 0)?.to_vec();
            freed += u64::try_from(body).unwrap_or(0) + u64::try_from(key.len() + HEAD_BYTES).unwrap_or(0);
            oldest.push(key);
        }
    }
    let mut statement = connection.prepare_cached(&table.delete)?;
    for key in &oldest {
        statement.query_row(params![key, 0], |_| Ok(())).optional()?;
    }
    Ok(oldest.len())
}

/// How much of the file holds something, and how much is free, in bytes.
pub(super) fn space(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let pragma = |name: &str| -> rusqlite::Result<u64> {
        let value: i64 =
            connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(value).unwrap_or(0))
    };
    let (pages, free, page_bytes) = (pragma("page_count")?, pragma("freelist_count")?, pragma("page_size")?);
    Ok((pages.saturating_sub(free) * page_bytes, free * page_bytes))
}

/// Gives so many free pages back to the file system. True if there may be more.
pub(super) fn vacuum(connection: &Connection, pages: usize) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    let mut stepped = 0;
    // One page goes for each row: who does not ask for the next one frees no more.
    while rows.next()?.is_some() {
        stepped += 1;
    }
    Ok(stepped >= pages)
}

/// What SQLite's error is to a caller.
pub(super) fn failed(what: &'static str, cause: rusqlite::Error) -> Error {
    let (kind, message) = match code_of(&cause) {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Timeout, format!("sqlite {what}: other processes kept the file locked"))
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Unavailable,
            format!(
                "sqlite {what}: the file is damaged or is no database; move it away to start with an empty one"
            ),
        ),
        Some(ErrorCode::TooBig) => (ErrorKind::TooLarge, format!("sqlite {what}: more than a row can hold")),
        _ => (ErrorKind::Unavailable, format!("sqlite {what}")),
    };
    Error::from_source(kind, message, cause)
}

fn code_of(cause: &rusqlite::Error) -> Option<ErrorCode> {
    match cause {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            Some(error.code)
        }
        _ => None,
    }
}

/// Whether an error says that the connection, or the file behind it, had better be opened anew.
pub(super) fn is_broken(cause: &rusqlite::Error) -> bool {
    use ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, ReadOnly, SystemIoFailure};
    let code = code_of(cause);
    matches!(code, Some(CannotOpen | DatabaseCorrupt | NotADatabase | ReadOnly | SystemIoFailure))
}

pub(super) fn is_busy(cause: &rusqlite::Error) -> bool {
    matches!(code_of(cause), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The bytes of a column; none if another hand has put something else there, which decodes as damage.
fn column<'r>(row: &'r Row<'_>, index: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(index)?.as_bytes().unwrap_or_default())
}

fn record_of(row: &Row<'_>) -> rusqlite::Result<Bytes> {
    let (head, body) = (column(row, 0)?, column(row, 1)?);
    let mut record = BytesMut::with_capacity(head.len() + body.len());
    record.extend_from_slice(head);
    record.extend_from_slice(body);
    Ok(record.freeze())
}
