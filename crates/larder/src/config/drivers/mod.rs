//! The drivers that this crate has, and their options; and the table of all options, for whoever explains them.
//!
//! Each file reads the options of one driver.

#[cfg(feature = "dynamodb")]
mod dynamodb;
#[cfg(all(feature = "file", unix))]
mod file;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", all(feature = "file", unix)))]
use std::time::Duration;

use super::registry::Registry;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", all(feature = "file", unix)))]
use super::store::StoreOptions;
#[cfg(feature = "dynamodb")]
use crate::driver::dynamodb::DynamoDbDriver;
#[cfg(all(feature = "file", unix))]
use crate::driver::file::FileDriver;
#[cfg(feature = "memcached")]
use crate::driver::memcached::MemcachedDriver;
use crate::driver::memory::MemoryDriver;
#[cfg(feature = "mysql")]
use crate::driver::mysql::MysqlDriver;
#[cfg(feature = "postgres")]
use crate::driver::postgres::PostgresDriver;
#[cfg(feature = "redis")]
use crate::driver::redis::RedisDriver;
#[cfg(feature = "sqlite")]
use crate::driver::sqlite::SqliteDriver;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", all(feature = "file", unix)))]
use crate::error::Result;
#[cfg(feature = "memcached")]
use table::MEMCACHED_SCHEMES;
#[cfg(feature = "redis")]
use table::REDIS_SCHEMES;
pub(crate) use table::stack_default;
pub use table::{DRIVERS, DriverInfo, OptionInfo};

/// The drivers of this build.
pub(crate) fn compiled() -> Registry {
    let registry = Registry::empty().driver("memory", &[], |options| {
        let memory = memory::read(options)?;
        Ok(async move { Ok(MemoryDriver::new(memory)) })
    });
    #[cfg(all(feature = "file", unix))]
    let registry = registry.driver("file", &["dir"], |options| {
        let file = file::read(options)?;
        Ok(FileDriver::open(file))
    });
    #[cfg(feature = "sqlite")]
    let registry = registry.driver("sqlite", &["sqlite3"], |options| {
        let sqlite = sqlite::read(options)?;
        Ok(SqliteDriver::open(sqlite))
    });
    #[cfg(feature = "redis")]
    let registry = registry.driver("redis", REDIS_SCHEMES, |options| {
        let redis = redis::read(options)?;
        Ok(RedisDriver::connect(redis))
    });
    #[cfg(feature = "dynamodb")]
    let registry = registry.driver("dynamodb", &[], |options| {
        let dynamodb = dynamodb::read(options)?;
        Ok(DynamoDbDriver::connect(dynamodb))
    });
    #[cfg(feature = "postgres")]
    let registry = registry.driver("postgres", &["postgresql"], |options| {
        let postgres = sql::read(options)?;
        Ok(PostgresDriver::connect(postgres))
    });
    #[cfg(feature = "mysql")]
    let registry = registry.driver("mysql", &["mariadb"], |options| {
        let mysql = sql::read(options)?;
        Ok(MysqlDriver::connect(mysql))
    });
    #[cfg(feature = "memcached")]
    let registry = registry.driver("memcached", MEMCACHED_SCHEMES, |options| {
        let memcached = memcached::read(options)?;
        Ok(MemcachedDriver::connect(memcached))
    });
    registry
}

/// How often a driver prunes by itself: a time, or `Some(None)` for never.
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql", all(feature = "file", unix)))]
fn prune_interval(options: &mut StoreOptions) -> Result<Option<Option<Duration>>> {
    let interval = options.duration_or_off("prune_interval")?;
    if interval.flatten().is_some_and(|interval| interval.is_zero()) {
        return Err(options.error("prune_interval", "must be longer than zero (false switches it off)"));
    }
    Ok(interval)
}
