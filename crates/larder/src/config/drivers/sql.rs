//! The options of the PostgreSQL and the MySQL driver, which have the same ones.

use super::prune_interval;
use crate::config::store::StoreOptions;
use crate::driver::sql::{Dialect, SqlOptions, SqlTls};
use crate::error::Result;

pub(super) fn read<D: Dialect>(options: &mut StoreOptions) -> Result<SqlOptions<D>> {
    for (other, name) in [
        ("connection.host", "host"),
        ("connection.port", "port"),
        ("connection.user", "username"),
        ("connection.password", "password"),
        ("connection.database", "database"),
        ("sslmode", "tls"),
        ("ssl-mode", "tls"),
        ("sslrootcert", "ca_file"),
        ("ssl-ca", "ca_file"),
        ("tableName", "table"),
        ("autoCreateTable", "create_table"),
        ("pruneInterval", "prune_interval"),
    ] {
        options.alias(other, name)?;
    }
    let url = options.url();
    let (host, port) = (options.text("host")?, options.integer("port", 1..=i64::from(u16::MAX))?);
    let (username, password) = (options.text("username")?, options.secret("password")?);
    let (database, tls) = (options.text("database")?, options.text("tls")?);
    let (ca_file, cert_file, key_file) =
        (options.text("ca_file")?, options.text("cert_file")?, options.text("key_file")?);
    let (table, create_table) = (options.text("table")?, options.boolean("create_table")?);
    let prune_interval = prune_interval(options)?;
    let max_connections = options.integer("max_connections", 1..=10_000)?;
    let timeouts = (options.duration("connect_timeout")?, options.duration("response_timeout")?);
    let statement_cache = options.integer("statement_cache", 0..=100_000)?;

    let mut sql = match url {
        Some(_) if host.is_some() || port.is_some() => {
            return Err(options.refuse("the URL and \"host\" or \"port\" both say where"));
        }
        Some(url) => SqlOptions::<D>::new(&url).map_err(|error| options.refuse(error.message()))?,
        None => {
            // Who says anything else about the server and no host means this machine, as for the databases' own clients.
            let says_more = port.is_some() || username.is_some() || database.is_some();
            let host = host.or_else(|| says_more.then(|| "localhost".to_owned()));
            let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(D::PORT);
            SqlOptions::at(options.required("host", host)?, port)
        }
    };
    if let Some(tls) = tls {
        let known = tls.parse::<SqlTls>().map_err(|()| {
            options.error("tls", "expected disable, prefer, require, verify-ca or verify-full")
        })?;
        sql.tls = Some(known);
    }
    (sql.username, sql.password, sql.database) = (username, password, database);
    sql.ca_file = ca_file.map(Into::into);
    sql.cert_file = cert_file.map(Into::into);
    sql.key_file = key_file.map(Into::into);
    sql.table = table.unwrap_or(sql.table);
    sql.create_table = create_table.unwrap_or(sql.create_table);
    sql.prune_interval = prune_interval.unwrap_or(sql.prune_interval);
    sql.max_connections =
        max_connections.and_then(|max| u32::try_from(max).ok()).unwrap_or(sql.max_connections);
    sql.connect_timeout = timeouts.0.unwrap_or(sql.connect_timeout);
    sql.response_timeout = timeouts.1.unwrap_or(sql.response_timeout);
    sql.statement_cache =
        statement_cache.and_then(|size| usize::try_from(size).ok()).unwrap_or(sql.statement_cache);
    sql.check().map_err(|error| options.refuse(error.message()))?;
    Ok(sql)
}
