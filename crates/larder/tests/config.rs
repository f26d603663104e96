//! Configurations as people write them: what they mean, and what is said about those that mean nothing.
#![cfg(feature = "config")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "config/freshness.rs"]
mod freshness;
#[path = "config/mistakes.rs"]
mod mistakes;
#[path = "config/reference.rs"]
mod reference;
#[path = "config/seeds.rs"]
mod seeds;
#[path = "config/shown.rs"]
mod shown;

use std::time::Duration;

use bytes::Bytes;
use larder::codec::CodecName;
use larder::config::{
    Config, Format, Loader, MemoryConfig, Registry, Secret, Setting, StackConfig, StoreConfig,
};
use larder::driver::{Driver, When, Written};
use larder::time::{Ttl, minutes};
use larder::{ErrorKind, Refresh, Result};
use mistakes::KNOWN;

const FORMATS: [(Format, &str); 3] =
    [(Format::Yaml, "c.yaml"), (Format::Toml, "c.toml"), (Format::Json, "c.json")];

/// The error that a document gives when it is read, or else when its stores are.
fn error_of(text: &str, format: Format, name: &str) -> String {
    let checked = Config::parse(text, format, name).and_then(|config| config.check(&Registry::compiled()));
    match checked {
        Ok(()) => "no error".to_owned(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            error.message().to_owned()
        }
    }
}

fn yaml(text: &str) -> Config {
    Config::parse(text, Format::Yaml, "c.yaml").unwrap()
}

fn stack(text: &str) -> StackConfig {
    yaml(text).stacks.remove("users").unwrap()
}

fn value<T>(setting: Option<Setting<T>>) -> T {
    setting.unwrap().value
}

fn loader(variables: &[(&str, &str)]) -> Loader {
    Config::with_env(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

#[test]
fn the_three_formats_mean_the_same() {
    let documents = [
        "defaults: {ttl: 10m}
stacks:
  users:
    l1: {max_items: 1_000, max_bytes: 64MiB, max_entry_bytes: 65536}
    l2: memory:?max_items=5
    prefix: app
    grace: 1h30m
    codec: messagepack
    deadline: 200ms
    suppress_l2_errors: true
    compress: {level: 3, threshold: 2kb}
    encrypt: {keys: ['1:aes-256-gcm:SECRET']}
  pages: {l1: false, l2: {memory: {max_items: 5}}, ttl: forever, compress: true}
",
        "[defaults]
ttl = '10m'
[stacks.users]
l1 = {max_items = 1_000, max_bytes = '64MiB', max_entry_bytes = 65536}
l2 = 'memory:?max_items=5'
prefix = 'app'
grace = '1h30m'
codec = 'messagepack'
deadline = '200ms'
suppress_l2_errors = true
compress = {level = 3, threshold = '2kb'}
encrypt.keys = ['1:aes-256-gcm:SECRET']
[stacks.pages]
l1 = false
ttl = 'forever'
compress = true
l2.memory.max_items = 5
",
        r#"{"defaults": {"ttl": "10m"}, "stacks": {"users": {
"l1": {"max_items": 1000, "max_bytes": "64MiB", "max_entry_bytes": 65536},
"l2": "memory:?max_items=5", "prefix": "app", "grace": "1h30m", "codec": "messagepack",
"deadline": "200ms", "suppress_l2_errors": true, "compress": {"level": 3, "threshold": "2kb"},
"encrypt": {"keys": ["1:aes-256-gcm:SECRET"]}}, "pages": {"l1": false,
"l2": {"memory": {"max_items": 5}}, "ttl": null, "compress": true}}}"#,
    ];
    for ((format, name), text) in FORMATS.into_iter().zip(documents) {
        let text = text.replace("SECRET", &"ab".repeat(32));
        let mut config = Config::parse(&text, format, name).unwrap();
        config.check(&Registry::compiled()).unwrap();
        let users = config.stacks.remove("users").unwrap();
        let MemoryConfig::On(limits) = users.l1 else { panic!("{name}: no memory tier") };
        assert_eq!(value(limits.max_items), 1_000);
        assert_eq!(value(limits.max_bytes), 64 << 20);
        assert_eq!(value(limits.max_entry_bytes), 65_536);
        assert_eq!(users.l2.unwrap().driver(), "memory");
        assert_eq!(value(users.prefix), "app");
        assert_eq!(value(users.ttl), Ttl::For(minutes(10)));
        assert_eq!(value(users.grace), minutes(90));
        assert_eq!(value(users.codec), CodecName::MessagePack);
        assert_eq!(value(users.deadline), Duration::from_millis(200));
        assert!(value(users.suppress_l2_errors));
        let compress = users.compress.unwrap();
        assert_eq!((value(compress.level), value(compress.threshold)), (3, 2_048));
        assert_eq!(users.encrypt.unwrap().keys.len(), 1);
        let pages = config.stacks.remove("pages").unwrap();
        assert!(matches!(pages.l1, MemoryConfig::Off(_)), "{name}");
        assert_eq!(value(pages.ttl), Ttl::Forever);
        assert!(pages.compress.is_some_and(|compress| compress.level.is_none()));
    }
}

#[test]
fn what_a_stack_says_wins_over_the_defaults_option_by_option() {
    let text = "
defaults: {ttl: 10m, grace: 1h, l1: {maxItems: 5, maxSize: 1kb}, l2: {driver: memory, max_items: 9}}
stacks:
  users: {ttl: 5m, grace: false, l1: {max_items: 7}}
  pages: {l2: {driver: memory}, l1: false}
  empty:
";
    let mut config = yaml(text);
    let users = config.stacks.remove("users").unwrap();
    assert_eq!((value(users.ttl), value(users.grace)), (minutes(5).into(), Duration::ZERO));
    let MemoryConfig::On(limits) = users.l1 else { panic!("no memory tier") };
    assert_eq!((value(limits.max_items), value(limits.max_bytes)), (7, 1_024));
    assert!(config.stacks["empty"].l2.is_some());
    assert!(matches!(config.stacks["pages"].l1, MemoryConfig::Off(_)));
    let told = config.describe(&Registry::compiled()).unwrap();
    let pages = told.split("pages\n").nth(1).unwrap();
    assert!(pages.contains("100000") && !pages.contains(" 9 "), "a store is replaced as a whole:\n{told}");
}

#[test]
fn every_way_to_write_a_store_means_the_same() {
    let registry = Registry::compiled();
    for store in [
        "'memory:?max_items=5'",
        "{url: 'memory:', max_items: 5}",
        "{url: memory, max_items: '5'}",
        "{driver: memory, max_items: 5}",
        "{driver: Memory, maxItems: '5'}",
        "{memory: {max_items: 5}}",
        "{name: memory, options: {maxItems: 5}}",
    ] {
        let config = yaml(&format!("stacks: {{users: {{l2: {store}}}}}"));
        let lines = config.explain(&registry).unwrap();
        let items = lines.iter().find(|line| line.option == "l2.max_items").unwrap();
        assert_eq!(items.value, "5", "{store}");
        assert!(items.origin.to_string().starts_with("c.yaml:1:"), "{store}");
    }
}

#[test]
fn variables_are_put_in_after_parsing_so_they_cannot_add_anything() {
    let evil = "x\"\n  l1: false # }";
    let config = loader(&[("PREFIX", evil), ("N", "7")])
        .parse(
            "stacks: {users: {prefix: \"${PREFIX}\", l1: {max_items: \"${N}\"}, ttl: \"${TTL:-5m}\"}}",
            Format::Yaml,
            "c.yaml",
        )
        .unwrap();
    let users = config.stacks["users"].clone();
    assert_eq!(value(users.prefix), evil);
    assert_eq!(value(users.ttl), minutes(5).into());
    assert!(matches!(users.l1, MemoryConfig::On(limits) if value(limits.max_items.clone()) == 7));
    let escaped = stack("stacks: {users: {prefix: '$${PREFIX}'}}");
    assert_eq!(value(escaped.prefix), "${PREFIX}");
}

#[test]
fn a_variable_overrides_what_is_written_and_is_named_as_its_origin() {
    let text = "
stacks:
  My-Users: {ttl: 5m, l2: 'memory:?max_items=9', l1: false}
  pages: {l2: {memory: {maxItems: 9}}, l1: {maxItems: 3}}
";
    let loader = loader(&[
        ("LARDER_STACKS__MY_USERS__TTL", "10m"),
        ("larder_stacks__my_users__l1__max_items", "4"),
        ("LARDER_STACKS__MY_USERS__L2__MAX_BYTES", "1mb"),
        ("LARDER_STACKS__PAGES__L2__MAX_ITEMS", "8"),
        ("LARDER_STACKS__PAGES__L1__MAX_ITEMS", "2"),
        ("LARDER_DEFAULTS__GRACE", "1h"),
        ("LARDER_KEY", "not an override"),
    ]);
    let told = loader.parse(text, Format::Yaml, "c.yaml").unwrap();
    let lines = told.explain(&Registry::compiled()).unwrap();
    let told = |stack: &str, option: &str| {
        let line = lines.iter().find(|line| line.stack == stack && line.option == option).unwrap();
        format!("{} {}", line.value, line.origin)
    };
    assert_eq!(told("My-Users", "ttl"), "10m LARDER_STACKS__MY_USERS__TTL");
    assert_eq!(told("My-Users", "l1.max_items"), "4 larder_stacks__my_users__l1__max_items");
    assert_eq!(told("My-Users", "l2.max_items"), "9 c.yaml:3:27");
    assert_eq!(told("My-Users", "l2.max_bytes"), "1MiB LARDER_STACKS__MY_USERS__L2__MAX_BYTES");
    assert_eq!(told("My-Users", "grace"), "1h LARDER_DEFAULTS__GRACE");
    assert_eq!(told("pages", "l2.max_items"), "8 LARDER_STACKS__PAGES__L2__MAX_ITEMS");
    assert_eq!(told("pages", "l1.max_items"), "2 LARDER_STACKS__PAGES__L1__MAX_ITEMS");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_variable_overrides_a_part_of_a_url() {
    let loader = loader(&[
        ("LARDER_STACKS__USERS__L2__LOCATION", "other.db"),
        ("LARDER_STACKS__USERS__L2__TABLE", "others"),
    ]);
    let config =
        loader.parse("stacks: {users: {l2: 'sqlite:one.db?table=ones'}}", Format::Yaml, "c.yaml").unwrap();
    let told = config.describe(&Registry::compiled()).unwrap();
    assert!(told.contains("other.db") && told.contains("others"), "{told}");
    assert!(!told.contains("one.db") && !told.contains("ones"), "{told}");
}

#[test]
fn a_wrong_variable_is_named() {
    let text = "stacks: {users: {l2: 'memory:'}}";
    for (variable, given, said) in [
        (
            "TTL",
            "ten",
            "stacks.users.ttl: \"ten\" is not a duration such as \"500ms\", \"5m\" or \"1h30m\", nor \"forever\"",
        ),
        ("TLL", "5m", "stacks.users: unknown option \"tll\", did you mean \"ttl\"? KNOWN"),
        (
            "L2__MAX_ITMS",
            "5",
            "stacks.users.l2: unknown option \"max_itms\", did you mean \"max_items\"? (known: max_bytes, max_entry_bytes, max_items)",
        ),
        (
            "L2",
            "memroy:",
            "stacks.users.l2: unknown driver \"memroy\", did you mean \"memory\"? (this build has: DRIVERS)",
        ),
        ("TTL__X", "5m", "stacks.users.ttl: expected a duration such as \"5m\", or \"forever\", found a map"),
    ] {
        let variable = format!("LARDER_STACKS__USERS__{variable}");
        let registry = Registry::compiled();
        let drivers = registry.names().collect::<Vec<_>>().join(", ");
        let error = loader(&[(&variable, given)])
            .parse(text, Format::Yaml, "c.yaml")
            .and_then(|config| config.check(&registry))
            .unwrap_err();
        let said = said.replace("KNOWN", KNOWN).replace("DRIVERS", &drivers);
        assert_eq!(error.message(), format!("{variable}: {said}"));
    }
    let error =
        loader(&[("LARDER_STACKS__USRS__TTL", "5m")]).parse(text, Format::Yaml, "c.yaml").unwrap_err();
    assert_eq!(
        error.message(),
        "LARDER_STACKS__USRS__TTL: there is no stack \"usrs\", did you mean \"users\"? (known: users)"
    );
}

#[test]
fn variables_alone_can_make_a_stack() {
    let variables = [("LARDER_STACKS__JOBS__L2", "memory:"), ("LARDER_STACKS__JOBS__TTL", "forever")];
    let config = loader(&variables).environment_only().unwrap();
    assert_eq!(config.stacks["jobs"].ttl.as_ref().unwrap().value, Ttl::Forever);
    assert!(loader(&[]).environment_only().unwrap().stacks.is_empty());
}

/// A driver of one's own, which takes options of every type.
#[derive(Debug)]
struct Own {
    delay: Duration,
}

#[async_trait::async_trait]
impl Driver for Own {
    fn name(&self) -> &'static str {
        "own"
    }
    async fn get(&self, _: &str) -> Result<Option<Bytes>> {
        Ok(Some(self.delay.as_millis().to_string().into()))
    }
    async fn set(&self, _: &str, value: Bytes, _: Option<Duration>, when: When) -> Result<Written> {
        Ok(when.outcome(None, &value))
    }
    async fn delete(&self, _: &str) -> Result<bool> {
        Ok(false)
    }
}

fn registry() -> Registry {
    Registry::compiled().driver("own", &["mine"], |options| {
        let url = options.url();
        let delay = options.duration("delay")?;
        let token = options.secret("token")?;
        let mode = options.choice("mode", &["fast", "slow"])?;
        let delay = options.required("delay", delay)?;
        if mode == Some("slow") && token.is_none() {
            return Err(options.error("mode", "slow needs a token"));
        }
        let _ = url;
        Ok(async move { Ok(Own { delay }) })
    })
}

#[tokio::test]
async fn ones_own_driver_gets_the_same_precision() {
    let registry = registry();
    let store = StoreConfig::from_url("mine://:hunter2@host/0?delay=7ms&mode=FAST", "--store").unwrap();
    let driver = registry.open(&store).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap().as_deref(), Some(&b"7"[..]));
    for (url, said) in [
        (
            "own:?delay=7",
            "--store: delay: \"7\" has no unit: write \"7s\" for seconds or \"7ms\" for milliseconds",
        ),
        (
            "own:?delai=7ms&delay=7ms",
            "--store: unknown option \"delai\", did you mean \"delay\"? (known: delay, mode, token)",
        ),
        ("own:", "--store: the own driver needs the option \"delay\""),
        ("own:?delay=7ms&mode=slow", "--store: mode: slow needs a token"),
        ("own:?delay=7ms&delay=8ms", "--store: the option \"delay\" is given twice"),
        ("own:?delay", "--store: the option \"delay\" of the URL has no value"),
    ] {
        let error =
            StoreConfig::from_url(url, "--store").and_then(|store| registry.check(&store)).unwrap_err();
        assert_eq!(error.message(), said, "{url}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let key = "5ec2e7".repeat(10) + "5ec2";
    let text = format!(
        "stacks:
  users:
    l2: {{url: 'own://user:hunter2@host/0', delay: 5ms, token: hunter2}}
    encrypt: {{keys: ['1:aes-256-gcm:{key}', '${{OLD}}']}}
  pages: {{l2: 'own://${{PW}}@host?delay=5ms&token=${{PW}}'}}
"
    );
    let old = format!("2:aes-256-gcm:{key}");
    let loader = loader(&[("OLD", &old), ("PW", "hunter2"), ("LARDER_STACKS__PAGES__L2__TOKEN", "hunter2")]);
    let config = loader.parse(&text, Format::Yaml, "c.yaml").unwrap();
    let told = config.describe(&registry()).unwrap();
    assert!(told.contains("1:aes-256-gcm:***") && told.contains("//***@host/0"), "{told}");
    let printed = format!("{config:?} {config:#?} {loader:?} {told} {:?}", Secret::new("hunter2"));
    assert!(!printed.contains("hunter2") && !printed.contains("5ec2"), "{printed}");
    let store = StoreConfig::from_url("own://hunter2@host?token=hunter2", "--store").unwrap();
    let wrong = registry().check(&store).unwrap_err();
    assert!(!format!("{store} {store:?} {wrong} {wrong:?}").contains("hunter2"));
    for key in [old.replace("5e", "zz"), old.replace("2:aes", "2:ads"), "hunter2".to_owned()] {
        let text = format!("stacks: {{users: {{l2: 'memory:', encrypt: {{keys: '{key}'}}}}}}");
        let said = error_of(&text, Format::Yaml, "c.yaml");
        assert!(said.starts_with("c.yaml:1:49: stacks.users.encrypt.keys: "), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("c2e7"), "{said}");
    }
}

#[test]
fn keys_without_the_shape_of_one_are_refused_before_anything_is_opened() {
    let key = "ab".repeat(32);
    let twice = format!("1:aes-256-gcm:{key},1:xchacha20-poly1305:{key}");
    let said = error_of(
        &format!("stacks: {{users: {{l2: 'memory:', encrypt: {{keys: '{twice}'}}}}}}"),
        Format::Yaml,
        "c.yaml",
    );
    assert_eq!(said, "c.yaml:1:49: stacks.users.encrypt.keys: two keys have the id 1");
}

#[test]
fn a_driver_whose_feature_is_off_says_which() {
    for (url, said) in [
        (
            "sqlite:c.db",
            "the driver \"sqlite\" needs the feature \"sqlite\", which this build lacks (it has: none)",
        ),
        ("dir:c", "the driver \"file\" needs the feature \"file\", which this build lacks (it has: none)"),
        ("mongodb://x", "unknown driver \"mongodb\" (this build has: none)"),
    ] {
        let store = StoreConfig::from_url(url, "--store").unwrap();
        let error = Registry::empty().check(&store).unwrap_err();
        assert_eq!(error.message(), format!("--store: {said}"));
    }
}

#[test]
fn a_terminal_is_told_nothing_that_it_would_obey() {
    let told = yaml("stacks: {users: {l2: 'memory:', prefix: \"a\\e[2Jb\"}}")
        .describe(&Registry::compiled())
        .unwrap();
    assert!(told.contains("a\\u{1b}[2Jb"), "{told}");
}

#[test]
fn what_a_configuration_means_is_told_with_its_origins() {
    let text = "stacks:\n  users: {l1: {max_items: 10}, l2: 'memory:?max_bytes=1mb', ttl: 5m}\n  tiny: {}\n";
    let told = yaml(text).describe(&Registry::compiled()).unwrap();
    let expected = "\
tiny
  l1.max_items             100000     default
  l1.max_bytes             no limit   default
  l1.max_entry_bytes       4MiB       default
  ttl                      30m        default
  grace                    0          default
  backoff                  10s        default
  soft_timeout             none       default
  hard_timeout             none       default
  jitter                   0          default
  refresh                  on_demand  default
  memory_ttl               none       default
  across_processes         none       default
  replace_after            none       default
  l2                       none       default
users
  l1.max_items             10         c.yaml:2:27
  l1.max_bytes             no limit   default
  l1.max_entry_bytes       4MiB       default
  ttl                      5m         c.yaml:2:66
  grace                    0          default
  backoff                  10s        default
  soft_timeout             none       default
  hard_timeout             none       default
  jitter                   0          default
  refresh                  on_demand  default
  memory_ttl               none       default
  across_processes         none       default
  replace_after            none       default
  l2.driver                memory     c.yaml:2:36
  l2.max_items             100000     default
  l2.max_bytes             1MiB       c.yaml:2:36
  l2.max_entry_bytes       4MiB       default
  prefix                   users      default
  codec                    json       default
  deadline                 2s         default
  suppress_l2_errors       true       default
  breaker.failures         5          default
  breaker.pause            1s         default
  breaker.pause_max        30s        default
  recover_writes           true       default
  compress                 off        default
  encrypt                  off        default
";
    assert!(told == expected, "\n{told}");
}

#[test]
fn how_slow_and_dead_sources_are_survived_is_configured_and_told() {
    let text = "
defaults: {backoff: 20s, soft_timeout: 100ms, hard_timeout: 5s, jitter: 10s, refresh: {early: 0.5}}
stacks:
  users: {backoff: 1m, soft_timeout: 0, jitter: off}
  other: {backoff: false, soft_timeout: false, hard_timeout: false, refresh: on_demand}
";
    let override_early = [("LARDER_STACKS__USERS__REFRESH__EARLY", "0.75")];
    let config = loader(&override_early).parse(text, Format::Yaml, "c.yaml").unwrap();
    let users = config.stacks["users"].entry_options();
    assert_eq!((users.backoff, users.soft_timeout), (Some(minutes(1)), Some(Duration::ZERO)));
    assert_eq!((users.hard_timeout, users.jitter), (Some(Duration::from_secs(5)), Some(Duration::ZERO)));
    assert_eq!(users.refresh, Some(Refresh::Early { share: 0.75 }));
    let other = config.stacks["other"].entry_options();
    assert_eq!((other.backoff, other.soft_timeout, other.hard_timeout), (Some(Duration::ZERO), None, None));
    assert_eq!(other.refresh, Some(Refresh::OnDemand));

    let told = config.explain(&Registry::compiled()).unwrap();
    let told = |stack: &str, option: &str| {
        let line = told.iter().find(|line| line.stack == stack && line.option == option).unwrap();
        format!("{} {}", line.value, line.origin)
    };
    assert_eq!(told("users", "refresh.early"), "0.75 LARDER_STACKS__USERS__REFRESH__EARLY");
    assert_eq!(told("users", "soft_timeout"), "0 c.yaml:4:38");
    assert_eq!(told("users", "hard_timeout"), "5s c.yaml:2:61");
    assert_eq!(told("other", "soft_timeout"), "none default");
    assert_eq!(told("other", "refresh"), "on_demand c.yaml:5:78");
}

#[tokio::test]
async fn a_configuration_becomes_stacks_that_work() {
    let key = "5ec2e7".repeat(10) + "5ec2";
    let text = format!(
        "defaults: {{l2: 'memory:', compress: true, encrypt: {{keys: ['1:xchacha20-poly1305:{key}']}}}}
stacks: {{users: {{ttl: 5m}}, pages: {{l1: false, codec: messagepack}}}}"
    );
    let larder = yaml(&text).build(&Registry::compiled()).await.unwrap();
    for name in ["users", "pages"] {
        let cache = larder.cache::<String>(name).unwrap();
        cache.set("42", "Ada".repeat(1_000)).await.unwrap();
        assert_eq!(cache.get("42").await.unwrap().map(|value| value.len()), Some(3_000), "{name}");
    }
    larder.close().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn nothing_is_opened_for_a_configuration_that_is_wrong_further_down() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.db");
    let text = format!("stacks: {{a: {{l2: 'sqlite:{}'}}, b: {{l2: 'nosuch:'}}}}", file.display());
    assert!(yaml(&text).build(&Registry::compiled()).await.is_err());
    assert!(!file.exists());
}

#[tokio::test]
async fn a_driver_that_cannot_open_is_named_with_its_place() {
    let registry = Registry::empty().driver("broken", &[], |_| {
        Ok(async move { Err::<Own, _>(larder::Error::new(ErrorKind::Unavailable, "no route")) })
    });
    let config = yaml("stacks: {users: {l2: 'broken:'}}");
    config.check(&registry).unwrap();
    let error = config.build(&registry).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.message(), "c.yaml:1:22: stacks.users.l2: cannot open the store");
    assert!(error.to_string().ends_with("cannot open the store: no route"), "{error}");
}

#[test]
fn a_file_is_read_by_its_extension() {
    let directory = tempfile::tempdir().unwrap();
    for (extension, text) in
        [("yml", "stacks: {a: {}}"), ("TOML", "[stacks.a]"), ("json", "{\"stacks\": {\"a\": {}}}")]
    {
        let path = directory.path().join(format!("c.{extension}"));
        std::fs::write(&path, text).unwrap();
        assert!(loader(&[]).load(&path).unwrap().stacks.contains_key("a"));
    }
    let missing = loader(&[]).load(directory.path().join("none.yaml")).unwrap_err();
    assert!(missing.kind() == ErrorKind::Config && missing.to_string().contains("none.yaml"), "{missing}");
    let format = loader(&[]).load("larder.ini").unwrap_err();
    assert!(format.message().starts_with("larder.ini: cannot tell the format"), "{format}");
    std::fs::write(directory.path().join("big.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    let big = loader(&[]).load(directory.path().join("big.json")).unwrap_err();
    assert!(big.message().ends_with("the document is larger than 1048576 bytes"), "{big}");
}

#[cfg(all(feature = "file", feature = "sqlite", unix))]
#[tokio::test]
async fn checking_and_explaining_create_nothing_and_building_does() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let text = "stacks: {a: {l2: 'sqlite:${DIR}/c.db'}, b: {l1: false, l2: 'file:${DIR}/files'}}";
    let config = loader(&[("DIR", place)]).parse(text, Format::Yaml, "c.yaml").unwrap();
    config.check(&Registry::compiled()).unwrap();
    let told = config.describe(&Registry::compiled()).unwrap();
    assert!(told.contains(&format!("{place}/files")) && !told.contains("${"), "{told}");
    assert_eq!(std::fs::read_dir(place).unwrap().count(), 0);
    let larder = config.build(&Registry::compiled()).await.unwrap();
    for name in ["a", "b"] {
        let cache = larder.cache::<u32>(name).unwrap();
        cache.set("k", 7).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&7));
    }
    larder.close().await.unwrap();
    assert!(directory.path().join("c.db").is_file() && directory.path().join("files").is_dir());
}
