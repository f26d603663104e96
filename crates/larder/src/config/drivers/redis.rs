//! The Redis driver's options.

use crate::config::store::StoreOptions;
use crate::driver::redis::{RedisAddress, RedisOptions, RedisTopology};
use crate::error::Result;

/// The most redirections that may be asked for: each may wait for up to a fifth of a second.
const REDIRECTS_MOST: i64 = 100;

/// One of the nodes of a cluster, as `nodes` has them.
struct Node {
    address: RedisAddress,
    password: Option<String>,
}

fn address(host: String, port: Option<i64>) -> RedisAddress {
    RedisAddress::new(host, port.and_then(|port| u16::try_from(port).ok()).unwrap_or(6379))
}

/// The one password that a connection to a cluster has: nodes that name none take the fallback, and all have to agree.
fn password_of_all(
    options: &StoreOptions,
    nodes: &[Node],
    fallback: Option<String>,
) -> Result<Option<String>> {
    let mut passwords = nodes.iter().map(|node| node.password.as_ref().or(fallback.as_ref()));
    let first = passwords.next().flatten();
    if let Some(other) = passwords.position(|password| password != first) {
        let what = format_args!(
            "the passwords of nodes[0] and nodes[{}] differ: the nodes of a cluster need one password, for they hand \
             over to each other",
            other + 1
        );
        return Err(options.error("nodes", what));
    }
    // Without nodes there is nothing to connect to, which is said later.
    Ok(first.cloned().or(fallback))
}

pub(super) fn read(options: &mut StoreOptions) -> Result<RedisOptions> {
    for (other, name) in [
        ("connection.host", "host"),
        ("connection.port", "port"),
        ("connection.username", "username"),
        ("connection.password", "password"),
        ("connection.db", "db"),
        ("redisOptions.username", "username"),
        ("redisOptions.password", "password"),
        ("maxRedirections", "redirects_max"),
    ] {
        options.alias(other, name)?;
    }
    let url = options.url();
    let (host, port) = (options.text("host")?, options.integer("port", 1..=i64::from(u16::MAX))?);
    let (tls, db) = (options.boolean("tls")?, options.integer("db", 0..=i64::from(i32::MAX))?);
    let (username, password) = (options.text("username")?, options.secret("password")?);
    let nodes = options.each("nodes", |node| {
        let host = node.text("host")?;
        let port = node.integer("port", 1..=i64::from(u16::MAX))?;
        let password = node.secret("password")?;
        Ok(Node { address: address(node.required("host", host)?, port), password })
    })?;
    let redirects_max = options.integer("redirects_max", 1..=REDIRECTS_MOST)?;
    let (ca_file, cert_file, key_file) =
        (options.text("ca_file")?, options.text("cert_file")?, options.text("key_file")?);
    let sentinel = (options.text("sentinel_username")?, options.secret("sentinel_password")?);
    let timeouts = (options.duration("connect_timeout")?, options.duration("response_timeout")?);

    let mut redis = match url {
        Some(_) if host.is_some() || port.is_some() || tls.is_some() => {
            return Err(options.refuse("the URL and \"host\", \"port\" or \"tls\" both say where"));
        }
        Some(_) if nodes.is_some() => {
            return Err(options.refuse("the URL and \"nodes\" both say where"));
        }
        Some(url) => RedisOptions::new(&url).map_err(|error| options.refuse(error.message()))?,
        None if nodes.is_some() && (host.is_some() || port.is_some()) => {
            return Err(options.refuse("\"nodes\" and \"host\" or \"port\" both say where"));
        }
        None => match &nodes {
            Some(nodes) => RedisOptions::cluster(nodes.iter().map(|node| node.address.clone())),
            None => {
                let RedisAddress { host, port, .. } = address(options.required("host", host)?, port);
                RedisOptions::at(host, port)
            }
        },
    };
    let password = match &nodes {
        Some(nodes) => password_of_all(options, nodes, password)?,
        None => password,
    };
    if let Some(max) = redirects_max {
        if !matches!(redis.topology, RedisTopology::Cluster(_)) {
            return Err(options.error("redirects_max", "only a cluster redirects"));
        }
        redis.redirects_max = u32::try_from(max).unwrap_or(redis.redirects_max);
    }
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
