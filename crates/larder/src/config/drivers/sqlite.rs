//! The SQLite driver's options.

use super::prune_interval;
use crate::config::store::StoreOptions;
use crate::driver::sqlite::SqliteOptions;
use crate::error::Result;

pub(super) fn read(options: &mut StoreOptions) -> Result<SqliteOptions> {
    for (other, name) in [
        ("path", "location"),
        ("filename", "location"),
        ("connection.filename", "location"),
        ("tableName", "table"),
        ("autoCreateTable", "create_table"),
        ("pruneInterval", "prune_interval"),
    ] {
        options.alias(other, name)?;
    }
    let location = options.location("location")?;
    let (table, create_table) = (options.text("table")?, options.boolean("create_table")?);
    let (max_bytes, prune_interval) = (options.size("max_bytes")?, prune_interval(options)?);
    let (readers, busy_timeout) = (options.integer("readers", 1..=64)?, options.duration("busy_timeout")?);
    let (create, read_only) = (options.boolean("create")?, options.boolean("read_only")?);

    let mut sqlite = SqliteOptions::new(options.required("location", location)?);
    sqlite.table = table.unwrap_or(sqlite.table);
    sqlite.create_table = create_table.unwrap_or(sqlite.create_table);
    sqlite.max_bytes = max_bytes;
    sqlite.prune_interval = prune_interval.unwrap_or(sqlite.prune_interval);
    sqlite.readers = readers.and_then(|readers| usize::try_from(readers).ok()).unwrap_or(sqlite.readers);
    sqlite.busy_timeout = busy_timeout.unwrap_or(sqlite.busy_timeout);
    sqlite.create = create.unwrap_or(sqlite.create);
    sqlite.read_only = read_only.unwrap_or(sqlite.read_only);
    sqlite.check().map_err(|error| options.refuse(error.message()))?;
    Ok(sqlite)
}
