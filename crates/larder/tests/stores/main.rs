//! Drivers over real servers: the compliance suite, what they do under faults, and stacks that share a store.
//!
//! `LARDER_TEST_…` variables say where the servers are, as `cargo xtask services run` sets them. What is missing is not
//! tested: its suites run over the memory driver instead, other tests end at once, and `what_was_left_out` says so.
//! `LARDER_TEST_REQUIRE=redis,memcached` makes that a failure for what it names.

#![expect(clippy::unwrap_used, reason = "what cannot be opened fails its test")]

#[cfg(any(feature = "redis", feature = "memcached"))]
mod certificate;
#[cfg(all(feature = "config", feature = "file", feature = "redis", feature = "testing", unix))]
mod coming_from;
#[cfg(all(feature = "compress", feature = "encrypt"))]
mod decorated;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod faults;
#[cfg(feature = "memcached")]
mod memcached;
#[cfg(any(feature = "redis", feature = "memcached", feature = "postgres", feature = "mysql"))]
mod outage;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod server;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;
mod stacks;
mod traffic;

/// A server or a program that tests here need.
struct Need {
    /// What `LARDER_TEST_REQUIRE` calls it.
    name: &'static str,
    found: bool,
    /// What is missing if it was not found.
    what: &'static str,
}

fn needs() -> Vec<Need> {
    let mut needs = Vec::new();
    #[cfg(feature = "dynamodb")]
    needs.extend(dynamodb::needs());
    #[cfg(feature = "memcached")]
    needs.extend(memcached::needs());
    #[cfg(feature = "redis")]
    needs.extend(redis::needs());
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    needs.extend(sql::needs());
    needs
}

#[test]
fn what_was_left_out() {
    let required = std::env::var("LARDER_TEST_REQUIRE").unwrap_or_default();
    let required: Vec<&str> = required.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let needs = needs();
    for Need { name, what, .. } in needs.iter().filter(|need| !need.found) {
        println!("NOT TESTED: {name}, for lack of {what}; its suites ran over the memory driver");
    }
    let found = |name: &str| needs.iter().any(|need| need.name == name && need.found);
    let missing: Vec<&&str> = required.iter().filter(|name| !found(name)).collect();
    assert!(missing.is_empty(), "LARDER_TEST_REQUIRE names what is not there: {missing:?}");
}
