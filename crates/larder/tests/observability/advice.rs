//! What the advisor says, where it says it, and that its page says the same.

use std::sync::{Arc, Mutex};

use larder::advisor::checks;
use larder::config::{Config, Format, Registry};
use larder::driver::Driver;
use larder::driver::memory::MemoryDriver;
use larder::event::{Event, Observer};
use larder::memory::MemoryOptions;
use larder::time::{hours, seconds};
use larder::{EntryOptions, Larder, Stack};

const PAGE: &str = include_str!("../../../../docs/advisor.md");

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn on_event(&self, stack: &str, event: &Event<'_>) {
        if let Event::Advised { advice } = event {
            self.0.lock().unwrap().push(format!("{stack} {}", advice.id));
        }
    }
}

#[test]
fn observers_hear_when_a_stack_is_built_what_it_says_when_asked() {
    let heard = Arc::new(Heard::default());
    let options = EntryOptions::default().ttl(hours(1)).grace(seconds(1));
    let builder = Stack::builder("users").memory(MemoryOptions::new(10)).store(MemoryDriver::default());
    let stack = builder.options(options).observer(Arc::clone(&heard) as Arc<dyn Observer>).build().unwrap();
    assert_eq!(*heard.0.lock().unwrap(), ["users grace-too-short", "users store-in-own-memory"]);
    let said: Vec<_> = stack.advice().iter().map(|advice| advice.id).collect();
    assert_eq!(said, ["grace-too-short", "store-in-own-memory"]);
}

#[test]
fn a_plain_stack_hears_nothing() {
    let stack = Stack::builder("users").memory(MemoryOptions::new(10)).build().unwrap();
    assert_eq!(stack.advice(), []);
    let stack = Stack::builder("users").store(MemoryDriver::default()).build().unwrap();
    assert_eq!(stack.advice(), []);
}

#[test]
fn stacks_on_one_store_with_one_prefix_are_noticed_together() {
    let store: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
    let stack = |name: &str, prefix: Option<&str>| {
        let mut builder = Stack::builder(name).borrowed_store(Arc::clone(&store));
        if let Some(prefix) = prefix {
            builder = builder.prefix(prefix);
        }
        builder.build().unwrap()
    };
    let larder = Larder::new([stack("a", Some("x")), stack("b", Some("x")), stack("c", None)]).unwrap();
    let advice = larder.advice();
    assert_eq!(advice.iter().map(|advice| advice.id).collect::<Vec<_>>(), ["shared-entries"]);
}

/// The ids that a configuration hears, each with its stack.
fn heard(text: &str) -> Vec<String> {
    let config = Config::parse(text, Format::Yaml, "c.yaml").unwrap();
    let advice = config.advise(&Registry::compiled()).unwrap();
    advice
        .iter()
        .map(|found| format!("{} {}", found.stack.as_deref().unwrap_or("-"), found.advice.id))
        .collect()
}

#[test]
fn a_configuration_says_what_a_built_stack_cannot_know() {
    for (stack, expected) in [
        ("l2: 'sqlite:/var/cache/c.db'", &[][..]),
        ("l2: 'file:///tmp/c'", &["volatile-path"]),
        ("l2: { driver: file, path: /tmp/c }", &["volatile-path"]),
        ("l2: 'sqlite:c.db?prune_interval=off'", &["never-reclaimed"]),
        ("l2: 'sqlite:c.db?prune_interval=off&max_bytes=1gb'", &[]),
        ("l2: 'sqlite:c.db', ttl: forever", &["forever-unbounded"]),
        ("l2: 'sqlite::memory:'", &["store-in-own-memory"]),
        ("l2: 'memory:'", &["store-in-own-memory"]),
        ("l1: false, l2: 'memory:'", &[]),
        ("l1: false, l2: 'sqlite:c.db', suppress_l2_errors: true", &["suppress-without-memory"]),
        ("deadline: 1s", &["store-options-without-store"]),
        ("l1: { max_bytes: 1MiB }", &["items-out-of-reach"]),
        ("l1: { max_items: 10, max_bytes: 1MiB, max_entry_bytes: 2MiB }", &["entry-above-memory"]),
        ("groups: ['all=*', 'users=user:*']", &["group-shadowed"]),
        ("groups: 'users=user:*,pages=page:*'", &[]),
    ] {
        let expected: Vec<String> = expected.iter().map(|id| format!("a {id}")).collect();
        assert_eq!(heard(&format!("stacks: {{ a: {{ {stack} }} }}")), expected, "{stack}");
    }
    let two = "stacks: { a: { l2: 'sqlite:c.db', prefix: x }, b: { l2: 'sqlite:c.db', prefix: x } }";
    assert_eq!(heard(two), ["- shared-entries"]);
    let apart =
        "stacks: { a: { l2: 'sqlite:c.db?table=a', prefix: x }, b: { l2: 'sqlite:c.db', prefix: x } }";
    assert_eq!(heard(apart), [""; 0]);
}

#[tokio::test]
async fn a_stack_built_from_a_configuration_knows_as_much() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("c.db");
    let text = format!(
        "stacks: {{ a: {{ l2: {{ driver: sqlite, path: {}, prune_interval: off }}, groups: ['u=user:*'] }} }}",
        place.display()
    );
    let config = Config::parse(&text, Format::Yaml, "c.yaml").unwrap();
    let larder = config.build(&Registry::compiled()).await.unwrap();
    let ids: Vec<_> = larder.advice().iter().map(|advice| advice.id).collect();
    assert!(ids.contains(&"never-reclaimed"), "{ids:?}");
    assert_eq!(larder.stack("a").unwrap().stats().groups.len(), 2, "u and the others");
    larder.close().await.unwrap();
}

#[test]
fn a_group_that_makes_no_sense_is_an_error_with_its_place() {
    for (groups, said) in
        [("['users']", "NAME=PATTERN"), ("['a=x', 'a=y']", "two key groups"), ("['other=x']", "other")]
    {
        let text = format!("stacks: {{ a: {{ groups: {groups} }} }}");
        let error = Config::parse(&text, Format::Yaml, "c.yaml")
            .and_then(|config| config.check(&Registry::compiled()))
            .unwrap_err();
        assert!(error.message().starts_with("c.yaml:1:") && error.message().contains(said), "{error}");
    }
}

#[test]
fn the_page_lists_every_check_with_its_reason_and_cure_and_no_other() {
    let rows: Vec<Vec<&str>> = PAGE
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut expected: Vec<_> = checks().collect();
    assert!(expected.len() >= 12);
    assert_eq!(rows.len(), expected.len());
    expected.sort_by_key(|(id, ..)| *id);
    for (row, (id, severity, why, cure)) in rows.iter().zip(expected) {
        assert_eq!(row, &[format!("`{id}`"), severity.to_string(), why.to_owned(), cure.to_owned()]);
    }
}
