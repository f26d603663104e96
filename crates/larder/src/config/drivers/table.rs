//! The drivers that this crate has, whether or not this build does, and every option with its name and its default.

/// A driver that this crate has, whether or not this build does.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct DriverInfo {
    /// What it is called in a configuration, and the scheme of its URLs.
    pub name: &'static str,
    /// Further schemes and names.
    pub schemes: &'static [&'static str],
    /// The feature that brings it; `None` if it is always there.
    pub feature: Option<&'static str>,
    /// What it is, in one line.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [OptionInfo],
}

/// An option of a configuration.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct OptionInfo {
    /// Its name.
    pub name: &'static str,
    /// Other names that are taken for it.
    pub aliases: &'static [&'static str],
    /// What holds if it is not written, in words.
    pub default: &'static str,
}

const fn option(name: &'static str, aliases: &'static [&'static str], default: &'static str) -> OptionInfo {
    OptionInfo { name, aliases, default }
}

/// The drivers that this crate has, with their options.
///
/// ```
/// use larder::config::DRIVERS;
/// assert!(DRIVERS.iter().any(|driver| driver.name == "memory" && driver.feature.is_none()));
/// ```
pub const DRIVERS: &[DriverInfo] = &[
    DriverInfo {
        name: "memory",
        schemes: &[],
        feature: None,
        about: "this process's memory",
        options: &[
            option("max_items", &["maxItems"], "100000"),
            option("max_bytes", &["maxSize"], "no limit"),
            option("max_entry_bytes", &["maxEntrySize"], "4MiB"),
        ],
    },
    DriverInfo {
        name: "file",
        schemes: &["dir"],
        feature: Some("file"),
        about: "files in a directory that several processes may share",
        options: &[
            option("directory", &["path", "location"], "required"),
            option("max_bytes", &[], "no limit"),
            option("prune_interval", &["pruneInterval"], "1m"),
            option("levels", &[], "2"),
            option("suffix", &[], ".larder"),
            option("create", &[], "true"),
        ],
    },
    DriverInfo {
        name: "sqlite",
        schemes: &["sqlite3"],
        feature: Some("sqlite"),
        about: "a table in a SQLite file that several processes may share",
        options: &[
            option("location", &["path", "filename", "connection.filename"], "required"),
            option("table", &["tableName"], "larder"),
            option("create_table", &["autoCreateTable"], "true"),
            option("max_bytes", &[], "no limit"),
            option("prune_interval", &["pruneInterval"], "1m"),
            option("readers", &[], "4"),
            option("busy_timeout", &[], "5s"),
            option("create", &[], "true"),
            option("read_only", &[], "false"),
        ],
    },
    DriverInfo {
        name: "redis",
        schemes: REDIS_SCHEMES,
        feature: Some("redis"),
        about: "a Redis server, a cluster, or a primary that sentinels know",
        options: &[
            option("host", &["connection.host"], "required, unless there is a URL"),
            option("port", &["connection.port"], "6379"),
            option("tls", &[], "false"),
            option("username", &["connection.username", "redisOptions.username"], "none"),
            option("password", &["connection.password", "redisOptions.password"], "none"),
            option("db", &["connection.db"], "0"),
            option("nodes", &[], "none"),
            option("redirects_max", &["maxRedirections"], "5"),
            option("ca_file", &[], "what the system trusts"),
            option("cert_file", &[], "none"),
            option("key_file", &[], "none"),
            option("sentinel_username", &[], "none"),
            option("sentinel_password", &[], "none"),
            option("connect_timeout", &[], "1s"),
            option("response_timeout", &[], "1s"),
        ],
    },
    DriverInfo {
        name: "memcached",
        schemes: MEMCACHED_SCHEMES,
        feature: Some("memcached"),
        about: "a memcached server, or several of which each has its share of the keys",
        options: &[
            option("host", &[], "required, unless there is a URL"),
            option("port", &[], "11211"),
            option("tls", &[], "false"),
            option("username", &[], "none"),
            option("password", &[], "none"),
            option("ca_file", &[], "what the system trusts"),
            option("cert_file", &[], "none"),
            option("key_file", &[], "none"),
            option("value_bytes_max", &[], "what the servers take"),
            option("connect_timeout", &[], "1s"),
            option("response_timeout", &[], "1s"),
        ],
    },
    DriverInfo {
        name: "postgres",
        schemes: &["postgresql"],
        feature: Some("postgres"),
        about: "a table in a PostgreSQL database",
        options: &POSTGRES_OPTIONS,
    },
    DriverInfo {
        name: "mysql",
        schemes: &["mariadb"],
        feature: Some("mysql"),
        about: "a table in a MySQL or MariaDB database",
        options: &MYSQL_OPTIONS,
    },
    DriverInfo {
        name: "dynamodb",
        schemes: &[],
        feature: Some("dynamodb"),
        about: "a table in DynamoDB",
        options: &[
            option("table", &["table.name"], "required, unless there is a URL"),
            option("region", &[], "what the environment says"),
            option("endpoint", &[], "the region's own"),
            option("access_key_id", &["credentials.accessKeyId"], "what the environment says"),
            option("secret_access_key", &["credentials.secretAccessKey"], "what the environment says"),
            option("session_token", &["credentials.sessionToken"], "none"),
            option("consistent_reads", &[], "true"),
            option("create_table", &[], "false"),
            option("connect_timeout", &[], "1s"),
            option("response_timeout", &[], "1s"),
        ],
    },
];

const POSTGRES_OPTIONS: [OptionInfo; 16] = sql_options("5432");
const MYSQL_OPTIONS: [OptionInfo; 16] = sql_options("3306");

/// The options of a store in a database, whose servers listen there.
const fn sql_options(port: &'static str) -> [OptionInfo; 16] {
    [
        option("host", &["connection.host"], "required, unless there is a URL"),
        option("port", &["connection.port"], port),
        option("username", &["connection.user"], "the client's"),
        option("password", &["connection.password"], "none"),
        option("database", &["connection.database"], "the client's"),
        option("tls", &["sslmode", "ssl-mode"], "verify-full with ca_file, prefer without"),
        option("ca_file", &["sslrootcert", "ssl-ca"], "what the system trusts"),
        option("cert_file", &[], "none"),
        option("key_file", &[], "none"),
        option("table", &["tableName"], "larder"),
        option("create_table", &["autoCreateTable"], "true"),
        option("prune_interval", &["pruneInterval"], "1m"),
        option("max_connections", &[], "10"),
        option("connect_timeout", &[], "1s"),
        option("response_timeout", &[], "1s"),
        option("statement_cache", &[], "100"),
    ]
}

/// The schemes of a memcached store's URLs; see
/// [`MemcachedOptions::new`](crate::driver::memcached::MemcachedOptions::new).
pub(super) const MEMCACHED_SCHEMES: &[&str] = &["memcacheds", "memcached+unix"];

/// The schemes of a Redis store's URLs; see [`RedisOptions::new`](crate::driver::redis::RedisOptions::new).
pub(super) const REDIS_SCHEMES: &[&str] = &[
    "rediss",
    "valkey",
    "valkeys",
    "unix",
    "redis+unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
];

/// The options of a stack, by their paths; an empty default is "not there".
const STACK_OPTIONS: &[OptionInfo] = &[
    option("l1", &[], "on"),
    option("l1.max_items", &["maxItems"], "100000"),
    option("l1.max_bytes", &["maxSize"], "no limit"),
    option("l1.max_entry_bytes", &["maxEntrySize"], "4MiB"),
    option("l2", &[], "none"),
    option("prefix", &[], "the stack's name"),
    option("ttl", &[], "30m"),
    option("grace", &[], "0"),
    option("backoff", &["graceBackoff"], "10s"),
    option("soft_timeout", &["timeout"], "none"),
    option("hard_timeout", &["hardTimeout"], "none"),
    option("jitter", &[], "0"),
    option("refresh", &[], "on_demand"),
    option("refresh.early", &[], ""),
    option("refresh.sliding", &[], ""),
    option("memory_ttl", &[], "none"),
    option("across_processes", &[], "none"),
    option("replace_after", &[], "none"),
    option("codec", &[], "json"),
    option("deadline", &[], "2s"),
    option("suppress_l2_errors", &["suppressL2Errors"], "true with a memory tier, false without"),
    option("breaker", &[], "on"),
    option("breaker.failures", &[], "5"),
    option("breaker.pause", &[], "1s"),
    option("breaker.pause_max", &[], "30s"),
    option("recover_writes", &[], "true with a memory tier, false without"),
    option("recover_writes.max_writes", &[], "10000"),
    option("recover_writes.max_bytes", &[], "64MiB"),
    option("recover_writes.interval", &[], "1s"),
    option("compress", &[], "off"),
    option("compress.level", &[], "1"),
    option("compress.threshold", &[], "1KiB"),
    option("encrypt", &[], "off"),
    option("encrypt.keys", &[], ""),
    option("groups", &[], ""),
];

/// What holds for an option of a stack that is not written.
pub(crate) fn stack_default(path: &str) -> &'static str {
    STACK_OPTIONS.iter().find(|info| info.name == path).map_or("", |info| info.default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{format_duration, format_size};
    #[cfg(feature = "dynamodb")]
    use crate::driver::dynamodb::DynamoDbOptions;
    #[cfg(all(feature = "file", unix))]
    use crate::driver::file::FileOptions;
    #[cfg(feature = "memcached")]
    use crate::driver::memcached::MemcachedOptions;
    #[cfg(feature = "redis")]
    use crate::driver::redis::RedisOptions;
    #[cfg(feature = "sqlite")]
    use crate::driver::sqlite::SqliteOptions;
    use crate::memory::MemoryOptions;

    fn default_of(driver: &str, name: &str) -> &'static str {
        let info = DRIVERS.iter().find(|info| info.name == driver).unwrap();
        info.options.iter().find(|info| info.name == name).unwrap().default
    }

    #[test]
    fn the_table_says_what_the_memory_tier_does() {
        let memory = MemoryOptions::default();
        for items in [default_of("memory", "max_items"), stack_default("l1.max_items")] {
            assert_eq!(items, memory.max_items.to_string());
        }
        assert!(memory.max_bytes.is_none() && default_of("memory", "max_bytes") == "no limit");
    }

    #[test]
    fn the_table_says_what_a_stack_does() {
        assert_eq!(stack_default("ttl"), crate::config::format_ttl(crate::options::TTL_DEFAULT));
        assert_eq!(stack_default("backoff"), format_duration(crate::options::BACKOFF_DEFAULT));
        assert_eq!(stack_default("deadline"), format_duration(crate::stack::DEADLINE_DEFAULT));
        assert_eq!(stack_default("codec"), crate::codec::CodecName::default().to_string());
    }

    #[cfg(feature = "compress")]
    #[test]
    fn the_table_says_what_compression_does() {
        let compress = crate::driver::compress::CompressOptions::default();
        assert_eq!(stack_default("compress.level"), compress.level.to_string());
        assert_eq!(stack_default("compress.threshold"), format_size(compress.threshold_bytes as u64));
    }

    #[cfg(all(feature = "file", unix))]
    #[test]
    fn the_table_says_what_the_file_driver_does() {
        let file = FileOptions::new("x");
        assert_eq!(default_of("file", "levels"), file.levels.to_string());
        assert_eq!(default_of("file", "suffix"), file.suffix);
        assert_eq!(default_of("file", "create"), file.create.to_string());
        assert_eq!(default_of("file", "prune_interval"), format_duration(file.prune_interval.unwrap()));
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn the_table_says_what_the_sqlite_driver_does() {
        let sqlite = SqliteOptions::new("x");
        assert_eq!(default_of("sqlite", "table"), sqlite.table);
        assert_eq!(default_of("sqlite", "create_table"), sqlite.create_table.to_string());
        assert_eq!(default_of("sqlite", "create"), sqlite.create.to_string());
        assert_eq!(default_of("sqlite", "read_only"), sqlite.read_only.to_string());
        assert_eq!(default_of("sqlite", "readers"), sqlite.readers.to_string());
        assert_eq!(default_of("sqlite", "busy_timeout"), format_duration(sqlite.busy_timeout));
        assert_eq!(default_of("sqlite", "prune_interval"), format_duration(sqlite.prune_interval.unwrap()));
    }

    #[cfg(any(feature = "postgres", feature = "mysql"))]
    fn check_sql<D: crate::driver::sql::Dialect>() {
        let sql = crate::driver::sql::SqlOptions::<D>::default();
        let said = |name| default_of(D::NAME, name);
        assert_eq!(said("port"), D::PORT.to_string());
        assert_eq!(said("table"), sql.table);
        assert_eq!(said("create_table"), sql.create_table.to_string());
        assert_eq!(said("prune_interval"), format_duration(sql.prune_interval.unwrap()));
        assert_eq!(said("max_connections"), sql.max_connections.to_string());
        assert_eq!(said("connect_timeout"), format_duration(sql.connect_timeout));
        assert_eq!(said("response_timeout"), format_duration(sql.response_timeout));
        assert_eq!(said("statement_cache"), sql.statement_cache.to_string());
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn the_table_says_what_the_postgres_driver_does() {
        check_sql::<crate::driver::postgres::Postgres>();
    }

    #[cfg(feature = "mysql")]
    #[test]
    fn the_table_says_what_the_mysql_driver_does() {
        check_sql::<crate::driver::mysql::Mysql>();
    }

    #[cfg(feature = "redis")]
    #[test]
    fn the_table_says_what_the_redis_driver_does() {
        let redis = RedisOptions::new("redis://h").unwrap();
        assert_eq!(redis.to_string(), format!("redis://h:{}/{}", default_of("redis", "port"), redis.db));
        assert_eq!(default_of("redis", "db"), redis.db.to_string());
        assert_eq!(default_of("redis", "tls"), redis.tls.to_string());
        assert_eq!(default_of("redis", "redirects_max"), redis.redirects_max.to_string());
        assert_eq!(default_of("redis", "connect_timeout"), format_duration(redis.connect_timeout));
        assert_eq!(default_of("redis", "response_timeout"), format_duration(redis.response_timeout));
    }

    #[cfg(feature = "dynamodb")]
    #[test]
    fn the_table_says_what_the_dynamodb_driver_does() {
        let dynamodb = DynamoDbOptions::new("t");
        assert_eq!(default_of("dynamodb", "consistent_reads"), dynamodb.consistent_reads.to_string());
        assert_eq!(default_of("dynamodb", "create_table"), dynamodb.create_table.to_string());
        assert_eq!(default_of("dynamodb", "connect_timeout"), format_duration(dynamodb.connect_timeout));
        assert_eq!(default_of("dynamodb", "response_timeout"), format_duration(dynamodb.response_timeout));
    }

    #[cfg(feature = "memcached")]
    #[test]
    fn the_table_says_what_the_memcached_driver_does() {
        let memcached = MemcachedOptions::new("memcached://h").unwrap();
        assert_eq!(memcached.to_string(), format!("memcached://h:{}", default_of("memcached", "port")));
        assert_eq!(default_of("memcached", "tls"), memcached.tls.to_string());
        assert!(memcached.value_bytes_max.is_none());
        assert_eq!(default_of("memcached", "connect_timeout"), format_duration(memcached.connect_timeout));
        assert_eq!(default_of("memcached", "response_timeout"), format_duration(memcached.response_timeout));
    }
}
