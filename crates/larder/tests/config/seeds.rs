//! The words of other caches' configurations, as their documentation writes them.

use larder::config::{Config, Format, MemoryConfig, Registry, StoreConfig};
use larder::time::Ttl;

use super::{error_of, value, yaml};

#[test]
fn bentocache_words_are_understood() {
    let text = "
stacks:
  memory: {l1: {maxSize: 10mb, maxItems: 1000, maxEntrySize: 2kb}, suppressL2Errors: false}
  store: {l1: false, l2: {memory: {maxSize: 10485760, maxItems: '1000'}}, grace: false}
";
    let lines = yaml(text).explain(&Registry::compiled()).unwrap();
    let told = |stack: &str, option: &str| {
        lines.iter().find(|line| line.stack == stack && line.option == option).unwrap().value.clone()
    };
    assert_eq!(told("memory", "l1.max_bytes"), "10MiB");
    assert_eq!(told("memory", "l1.max_items"), "1000");
    assert_eq!(told("memory", "l1.max_entry_bytes"), "2KiB");
    assert_eq!(told("store", "l2.max_bytes"), "10MiB");
    assert_eq!(told("store", "l2.max_items"), "1000");
    assert_eq!(told("store", "grace"), "0");
}

#[cfg(feature = "sqlite")]
#[test]
fn bentocache_sqlite_options_are_understood() {
    let text = "
stacks:
  sqlite:
    l2:
      driver: sqlite
      connection: {filename: cache.sqlite3}
      tableName: bentocache
      autoCreateTable: true
      pruneInterval: false
";
    let lines = yaml(text).explain(&Registry::compiled()).unwrap();
    let told: Vec<String> = lines
        .iter()
        .filter(|line| line.option.starts_with("l2."))
        .map(|line| format!("{} {} {}", line.option, line.value, line.origin))
        .collect();
    assert_eq!(
        told,
        [
            "l2.driver sqlite c.yaml:5:15",
            "l2.location cache.sqlite3 c.yaml:6:30",
            "l2.table bentocache c.yaml:7:18",
            "l2.create_table true c.yaml:8:24",
            "l2.max_bytes no limit default",
            "l2.prune_interval off c.yaml:9:22",
            "l2.readers 4 default",
            "l2.busy_timeout 5s default",
            "l2.create true default",
            "l2.read_only false default",
        ]
    );
    let wrong = text.replace("filename:", "filname:");
    assert_eq!(
        error_of(&wrong, Format::Yaml, "c.yaml"),
        "c.yaml:6:20: stacks.sqlite.l2.connection: unknown option \"filname\", did you mean \"filename\"? (known: filename)"
    );
    for (options, said) in [
        (
            "table=a;b",
            "\"a;b\" cannot name a table: a letter or underscore, then up to 62 letters, digits and underscores, and not sqlite_ in front",
        ),
        ("max_bytes=1", "max_bytes of a sqlite store is less than 256 KiB"),
    ] {
        let text = format!("stacks: {{a: {{l2: 'sqlite:c.db?{options}'}}}}");
        assert_eq!(error_of(&text, Format::Yaml, "c"), format!("c:1:18: stacks.a.l2: {said}"));
    }
    assert_eq!(
        error_of("stacks: {a: {l2: 'sqlite:c.db?prune_interval=0'}}", Format::Yaml, "c"),
        "c:1:18: stacks.a.l2.prune_interval: must be longer than zero (false switches it off)"
    );
    assert_eq!(
        error_of("stacks: {a: {l2: 'sqlite:'}}", Format::Yaml, "c"),
        "c:1:18: stacks.a.l2: the sqlite driver needs the option \"location\""
    );
}

#[cfg(feature = "redis")]
#[test]
fn redis_stores_are_understood_as_others_write_them() {
    let told = |store: &str| {
        let lines = yaml(&format!("stacks: {{a: {{l2: {store}}}}}")).explain(&Registry::compiled()).unwrap();
        let told = lines.iter().filter(|line| line.option.starts_with("l2.") && !line.value.is_empty());
        told.map(|line| format!("{} {}", line.option.trim_start_matches("l2."), line.value))
            .filter(|line| !line.ends_with(" none"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (store, expected) in [
        // BentoCache, deepstream, Beignet.
        (
            "{driver: redis, connection: {host: h, port: 7, username: u, password: hunter2, db: 3}}",
            vec!["host h", "port 7", "username u", "password ***", "db 3"],
        ),
        ("{name: redis, options: {host: h, port: '7', password: hunter2}}", vec!["host h", "port 7"]),
        ("'redis://u:hunter2@h:7/3?response_timeout=300ms'", vec!["//***@h:7/3", "response_timeout 300ms"]),
        ("{driver: redis, url: 'rediss://u:hunter2@h', db: 3, ca_file: ca.pem}", vec!["//***@h", "ca.pem"]),
        ("'redis+cluster://:hunter2@a:7000,b:7001'", vec!["//***@a:7000,b:7001"]),
        ("'redis+sentinel://a,b/main/2?sentinel_password=hunter2'", vec!["sentinel_password ***"]),
    ] {
        let told = told(store);
        assert!(expected.iter().all(|part| told.contains(part)), "{store}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    for (store, said) in [
        ("{driver: redis}", "the redis driver needs the option \"host\""),
        (
            "{driver: redis, url: 'redis://h', host: i}",
            "the URL and \"host\", \"port\" or \"tls\" both say where",
        ),
        ("'redis://h/1?db=2'", "the URL and the options both say as whom, or in which database"),
        // A URL's scheme counts, not the driver's name beside it: it says whether there is TLS.
        (
            "{driver: redis, url: 'redis://h', ca_file: x}",
            "certificates are of no use to a redis store without TLS",
        ),
        ("'redis+sentinel://h'", "needs the primary's name"),
        ("'redis:h'", "redis URL: expected redis://HOST:PORT/DB"),
    ] {
        let error = error_of(&format!("stacks: {{a: {{l2: {store}}}}}"), Format::Yaml, "c");
        assert!(error.contains(said), "{store}: {error}");
    }
    let checked = |url: &str| Registry::compiled().check(&StoreConfig::from_url(url, "--store").unwrap());
    checked("rediss://h?ca_file=x").unwrap();
    checked("valkeys://h?ca_file=x").unwrap();
}

#[cfg(feature = "dynamodb")]
#[test]
fn dynamodb_stores_are_understood_as_others_write_them() {
    let told = |store: &str| {
        let lines = yaml(&format!("stacks: {{a: {{l2: {store}}}}}")).explain(&Registry::compiled()).unwrap();
        let told = lines.iter().filter(|line| line.option.starts_with("l2.") && !line.value.is_empty());
        told.map(|line| format!("{} {}", line.option.trim_start_matches("l2."), line.value))
            .collect::<Vec<_>>()
            .join(", ")
    };
    for (store, expected) in [
        // BentoCache.
        (
            "{driver: dynamodb, endpoint: 'http://localhost:8000', region: eu-west-1, table: {name: cache}, \
             credentials: {accessKeyId: AKIAhunter2, secretAccessKey: hunter2, sessionToken: hunter2}}",
            vec![
                "table cache",
                "region eu-west-1",
                "endpoint http://localhost:8000",
                "secret_access_key ***",
            ],
        ),
        (
            "'dynamodb://cache?region=eu-west-1&endpoint=http%3A%2F%2Flocalhost%3A8000'",
            vec!["//cache", "region eu-west-1", "endpoint http://localhost:8000"],
        ),
        ("'dynamodb:cache?endpoint=http://localhost:8000&create_table=true'", vec!["create_table true"]),
        (
            "{driver: dynamodb, table: 'arn:aws:dynamodb:eu-west-1:123456789012:table/cache'}",
            vec!["table arn:aws:dynamodb:eu-west-1:123456789012:table/cache"],
        ),
        ("{dynamodb: {table: cache, access_key_id: a, secret_access_key: hunter2}}", vec!["table cache"]),
    ] {
        let told = told(store);
        assert!(expected.iter().all(|part| told.contains(part)), "{store}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
    for (store, said) in [
        ("{driver: dynamodb}", "the dynamodb driver needs the option \"table\""),
        ("'dynamodb:'", "the dynamodb driver needs the option \"table\""),
        ("'dynamodb://a?table=b'", "both say which table"),
        ("'dynamodb://a?access_key_id=b'", "access_key_id and secret_access_key need each other"),
        ("'dynamodb://a?session_token=b'", "session_token needs both"),
        ("'dynamodb://a?endpoint=localhost:8000'", "is a URL such as http://localhost:8000"),
        ("'dynamodb://a/b?create_table=true'", "cannot be created"),
    ] {
        let error = error_of(&format!("stacks: {{a: {{l2: {store}}}}}"), Format::Yaml, "c");
        assert!(error.contains(said), "{store}: {error}");
    }
}

#[test]
fn beego_memory_strings_are_understood() {
    for json in [r#"{"interval":60}"#, r#"{"interval":"60"}"#, "{}"] {
        let stack = Config::from_beego("memory", json).unwrap();
        stack.check("old", &Registry::compiled()).unwrap();
        assert_eq!(value(stack.ttl), Ttl::Forever);
        assert!(matches!(stack.l1, MemoryConfig::Off(_)));
        assert_eq!(stack.l2.unwrap().driver(), "memory");
    }
    for (name, json, said) in [
        (
            "memory",
            r#"{"intervall":60}"#,
            "beego's memory cache:1:2: unknown option \"intervall\", did you mean \"interval\"? (known: interval)",
        ),
        ("memory", "[]", "beego's memory cache:1:1: expected a map of options, found a list"),
        (
            "memory",
            r#"{"interval":"x"}"#,
            "beego's memory cache:1:13: interval: expected a whole number from -4294967295 to 4294967295, found \"x\"",
        ),
        (
            "ssdb",
            r#"{"conn":":8888"}"#,
            "beego: cannot take over beego's adapter \"ssdb\" (known: file, memcache, memory, redis)",
        ),
    ] {
        let error = Config::from_beego(name, json).unwrap_err();
        assert_eq!(error.message(), said);
    }
}

#[cfg(all(feature = "file", unix))]
#[test]
fn beego_file_strings_are_understood() {
    let numbers = r#"{"CachePath":"./cache","FileSuffix":".cache","DirectoryLevel":2,"EmbedExpiry":120}"#;
    let texts = r#"{"CachePath":"./cache","FileSuffix":".cache","DirectoryLevel":"2","EmbedExpiry":"120"}"#;
    let told = |json: &str| {
        let mut config = Config::default();
        config.stacks.insert("old".to_owned(), Config::from_beego("file", json).unwrap());
        let lines = config.explain(&Registry::compiled()).unwrap();
        let told = |option: &str| lines.iter().find(|line| line.option == option).unwrap().value.clone();
        ["ttl", "l2.directory", "l2.suffix", "l2.levels", "l2.prune_interval"].map(told).join(" ")
    };
    assert_eq!(told(numbers), "2m ./cache .cache 2 1m");
    assert_eq!(told(texts), "2m ./cache .cache 2 1m");
    assert_eq!(told("{}"), "forever cache .bin 2 1m");
    assert_eq!(told(r#"{"DirectoryLevel":"5","EmbedExpiry":0,"interval":"0"}"#), "forever cache .bin 0 off");
    assert_eq!(told(r#"{"interval":90}"#), "forever cache .bin 2 1m30s");
}

#[cfg(all(feature = "file", unix))]
#[test]
fn bentocache_file_options_and_urls_are_understood() {
    for store in
        ["{file: {directory: ./cache}}", "'file:./cache'", "{file: ./cache}", "{driver: file, path: ./cache}"]
    {
        let config = yaml(&format!("stacks: {{users: {{l2: {store}}}}}"));
        let lines = config.explain(&Registry::compiled()).unwrap();
        let directory = lines.iter().find(|line| line.option == "l2.directory").unwrap();
        assert_eq!(directory.value, "./cache", "{store}");
    }
    for (url, said) in [
        (
            "file://cache",
            "\"file://\" is followed by a host: write \"file:PATH\" for a path from here, \"file:///PATH\" for one from the root",
        ),
        ("file:", "the file driver needs the option \"directory\""),
        ("file:c?levels=9", "levels: expected a whole number from 0 to 4, found \"9\""),
        ("file:c?suffix=%2F", "the suffix \"/\" is not one of file names that are safe everywhere"),
        ("file:c?directory=d", "the URL and the option \"directory\" both say where"),
        (
            "file:?directry=d",
            "unknown option \"directry\", did you mean \"directory\"? (known: create, directory, levels, max_bytes, prune_interval, suffix)",
        ),
        (
            "file:c%",
            "a \"%\" in a URL needs two hexadecimal digits after it (\"%25\" is the character itself)",
        ),
    ] {
        let store = StoreConfig::from_url(url, "--store").unwrap();
        let error = Registry::compiled().check(&store).unwrap_err();
        assert_eq!(error.message(), format!("--store: {said}"));
    }
}

#[cfg(feature = "memcached")]
#[test]
fn memcached_stores_are_checked_before_anything_is_connected_to() {
    for (store, said) in [
        ("{driver: memcached}", "the memcached driver needs the option \"host\""),
        (
            "{driver: memcached, url: 'memcached://h', port: 1}",
            "the URL and \"host\", \"port\" or \"tls\" both say where",
        ),
        ("'memcached://u:hunter2@h?password=hunter2'", "the URL and the options both say as whom"),
        (
            "{driver: memcached, host: h, username: u}",
            "the user and the password of a memcached store need each other",
        ),
        ("{driver: memcached, url: 'memcached://h', ca_file: x}", "without TLS: write memcacheds://"),
        ("'memcached://h,h'", "names a server twice"),
        ("'memcached:h'", "memcached URL: expected memcached://HOST:PORT"),
    ] {
        let error = error_of(&format!("stacks: {{a: {{l2: {store}}}}}"), Format::Yaml, "c");
        assert!(error.contains(said) && !error.contains("hunter2"), "{store}: {error}");
    }
    let checked = |url: &str| Registry::compiled().check(&StoreConfig::from_url(url, "--store").unwrap());
    checked("memcacheds://u:p@one,two:5?ca_file=x&value_bytes_max=2MiB").unwrap();
    checked("memcached+unix:///run/memcached.sock?response_timeout=300ms").unwrap();
}
