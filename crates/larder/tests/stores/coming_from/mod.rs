//! What the pages in `docs/coming-from` say, over real servers: every example's document is read out of its page, so that
//! what is tested is what is shown.
//!
//! Only addresses, credentials and folders are put in, and a prefix that nobody else has.

mod beego;
mod beignet;
mod bentocache;
mod deepstream;

use std::sync::Arc;

use larder::config::{Config, Format, Registry, Setting, StackConfig};
use larder::testing::ManualClock;
use larder::time::{Clock as _, SystemClock, minutes, seconds};
use larder::{Cache, Larder, Stack, StackBuilder};

/// The document under `<!-- example: NAME -->` in a page, and its format.
fn example(page: &str, name: &str) -> (String, Format) {
    let mark = format!("<!-- example: {name} -->\n```");
    assert!(page.contains(&mark), "the page has no example {name}");
    let (_, after) = page.split_once(&mark).unwrap();
    let (language, text) = after.split_once('\n').unwrap();
    let (text, _) = text.split_once("\n```").unwrap();
    assert!(["json", "yaml"].contains(&language), "{name}: {language}");
    let format = if language == "json" { Format::Json } else { Format::Yaml };
    (format!("{text}\n"), format)
}

/// An example with these texts in place of those, each of which it has to have.
fn with(page: &str, name: &str, put: &[(&str, &str)]) -> (String, Format) {
    let (mut text, format) = example(page, name);
    for (old, new) in put {
        assert!(text.contains(old), "{name} has no {old:?}: {text}");
        text = text.replace(old, new);
    }
    (text, format)
}

/// Text that nobody else has.
fn random(what: &str) -> String {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), what);
    format!("{what}{random:016x}")
}

/// A configuration whose stacks have prefixes that nobody else has.
fn apart(text: &str, format: Format) -> Config {
    let mut config = Config::parse(text, format, "example").unwrap();
    for (name, stack) in &mut config.stacks {
        stack.prefix = Some(Setting::named(random(name), "the test"));
    }
    config
}

/// A larder from an example.
async fn open((text, format): (String, Format)) -> Larder {
    let config = apart(&text, format);
    let told = config.describe(&Registry::compiled()).unwrap();
    assert!(!told.contains("hunter2"), "{told}");
    config.build(&Registry::compiled()).await.unwrap()
}

/// A stack whose clock is moved by hand, and its hands.
async fn timed(name: &str, stack: StackConfig) -> (Stack, ManualClock) {
    let mut config = Config::default();
    config.stacks.insert(name.to_owned(), stack);
    // Later than what another stack did in the same store a moment ago, by a clock that ticks.
    let hands = ManualClock::new(SystemClock::default().now() + seconds(1));
    let clock = Arc::new(hands.clone());
    let with_clock = move |_: &str, builder: StackBuilder| builder.clock(Arc::clone(&clock) as _);
    let larder = config.build_with(&Registry::compiled(), with_clock).await.unwrap();
    (larder.default_stack().unwrap().clone(), hands)
}

/// What a variable says about a server: what follows the scheme, without what stands before the host and after it.
fn server(variable: &str) -> Option<(String, u16)> {
    let url = std::env::var(variable).ok()?;
    let first = url.split(',').next().unwrap();
    let (_, rest) = first.split_once("://").unwrap();
    let authority = rest.split(['/', '?']).next().unwrap();
    let (host, port) = authority.rsplit('@').next().unwrap().rsplit_once(':').unwrap();
    Some((host.to_owned(), port.parse().unwrap()))
}

/// What every store has to do, whatever it is: the calls that these caches have in common.
async fn works(stack: &Stack) {
    let cache: Cache<String> = stack.cache().unwrap();
    assert_eq!(cache.get("missing").await.unwrap(), None);
    cache.set("k", "v".to_owned()).ttl(minutes(5)).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().as_str(), "v");
    // Nothing is a value.
    cache.set("empty", String::new()).await.unwrap();
    assert_eq!(cache.get("empty").await.unwrap().unwrap().as_str(), "");
    let load = || async { Ok::<_, std::io::Error>("loaded".to_owned()) };
    assert_eq!(cache.get_or_set("k", load).await.unwrap().as_str(), "v");
    assert_eq!(cache.get_or_set("l", load).ttl(minutes(5)).await.unwrap().as_str(), "loaded");
    let found = cache.get_many(&["l", "missing", "k"]).await.unwrap();
    let found: Vec<Option<&str>> = found.iter().map(|value| value.as_deref().map(String::as_str)).collect();
    assert_eq!(found, [Some("loaded"), None, Some("v")]);
    assert!(cache.has("k").await.unwrap() && !cache.has("missing").await.unwrap());
    assert!(cache.delete("k").await.unwrap() && !cache.delete("k").await.unwrap());
    let users = cache.namespace("users").unwrap();
    users.set("l", "ours".to_owned()).await.unwrap();
    cache.set("usersAbc", "neighbour".to_owned()).await.unwrap();
    users.clear().await.unwrap();
    assert!(!users.has("l").await.unwrap());
    assert!(cache.has("l").await.unwrap() && cache.has("usersAbc").await.unwrap());
    let counts = stack.cache::<i64>().unwrap();
    assert_eq!(counts.increment("count", 2).await.unwrap(), 2);
    assert_eq!(counts.decrement("count", 1).await.unwrap(), 1);
    cache.clear().await.unwrap();
    assert!(!cache.has("l").await.unwrap() && !counts.has("count").await.unwrap());
}
