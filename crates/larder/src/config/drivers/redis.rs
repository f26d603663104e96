//! The Redis driver's options.

use crate::config::store::StoreOptions;
use crate::driver::redis::RedisOptions;
use crate::error::Result;

pub(super) fn read(options: &mut StoreOptions) -> Result<RedisOptions> {
    for (other, name) in [
        ("connection.host", "host"),
        ("connection.port", "port"),
        ("connection.username", "username"),
        ("connection.password", "password"),
        ("connection.db", "db"),
    ] {
        options.alias(other, name)?;
    }
    let url = options.url();
    let (host, port) = (options.text("host")?, options.integer("port", 1..=i64::from(u16::MAX))?);
    let (tls, db) = (options.boolean("tls")?, options.integer("db", 0..=i64::from(i32::MAX))?);
    let (username, password) = (options.text("username")?, options.secret("password")?);
    let (ca_file, cert_file, key_file) =
        (options.text("ca_file")?, options.text("cert_file")?, options.text("key_file")?);
    let sentinel = (options.text("sentinel_username")?, options.secret("sentinel_password")?);
    let timeouts = (options.duration("connect_timeout")?, options.duration("response_timeout")?);

    let mut redis = match url {
        Some(_) if host.is_some() || port.is_some() || tls.is_some() => {
            return Err(options.refuse("the URL and \"host\", \"port\" or \"tls\" both say where"));
        }
        Some(url) => RedisOptions::new(&url).map_err(|error| options.refuse(error.message()))?,
        None => {
            let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(6379);
            RedisOptions::at(options.required("host", host)?, port)
        }
    };
    let twice = (username.is_some() && redis.username.is_some())
        || (password.is_some() && redis.password.is_some())
        || (db.is_some() && redis.db != 0);
    if twice {
        return Err(options.refuse("the URL and the options both say as whom, or in which database"));
    }
    redis.tls |= tls.unwrap_or(false);
    redis.username = username.or(redis.username);
    redis.password = password.or(redis.password);
    redis.db = db.and_then(|db| u32::try_from(db).ok()).unwrap_or(redis.db);
    redis.ca_file = ca_file.map(Into::into);
    redis.cert_file = cert_file.map(Into::into);
    redis.key_file = key_file.map(Into::into);
    (redis.sentinel_username, redis.sentinel_password) = sentinel;
    redis.connect_timeout = timeouts.0.unwrap_or(redis.connect_timeout);
    redis.response_timeout = timeouts.1.unwrap_or(redis.response_timeout);
    redis.check().map_err(|error| options.refuse(error.message()))?;
    Ok(redis)
}
