//! How freshness ends, as configured.

use std::time::Duration;

use larder::Refresh;
use larder::config::{Format, Registry};
use larder::time::minutes;

use crate::loader;

#[test]
fn how_freshness_ends_is_configured_and_told() {
    let text = "
defaults: {memory_ttl: 5s, replace_after: 2s}
stacks:
  sessions: {refresh: {sliding: 15m}}
  pages: {refresh: probabilistic, memory_ttl: off, replace_after: false}
";
    let config = loader(&[]).parse(text, Format::Yaml, "c.yaml").unwrap();
    let options = |stack: &str| config.stacks[stack].entry_options();
    assert_eq!(options("sessions").refresh, Some(Refresh::Sliding { idle: minutes(15) }));
    assert_eq!(options("sessions").memory_ttl, Some(Duration::from_secs(5)));
    assert_eq!(options("sessions").replace_after, Some(Duration::from_secs(2)));
    assert_eq!(options("pages").refresh, Some(Refresh::Probabilistic));
    assert_eq!((options("pages").memory_ttl, options("pages").replace_after), (None, None));
    let nearer = "
defaults: {refresh: {sliding: 15m}}
stacks: {users: {refresh: {early: 0.9}}, other: {}}
";
    let env = [("LARDER_STACKS__OTHER__REFRESH__EARLY", "0.5")];
    let nearer = loader(&env).parse(nearer, Format::Yaml, "c.yaml").unwrap();
    assert_eq!(nearer.stacks["users"].entry_options().refresh, Some(Refresh::Early { share: 0.9 }));
    assert_eq!(nearer.stacks["other"].entry_options().refresh, Some(Refresh::Early { share: 0.5 }));
    let file = "stacks: {users: {refresh: {early: 0.9}}}";
    let env = [("LARDER_STACKS__USERS__REFRESH__SLIDING", "5m")];
    let overridden = loader(&env).parse(file, Format::Yaml, "c.yaml").unwrap();
    assert_eq!(
        overridden.stacks["users"].entry_options().refresh,
        Some(Refresh::Sliding { idle: minutes(5) })
    );
    let told = config.explain(&Registry::compiled()).unwrap();
    let told: Vec<String> =
        told.iter().map(|line| format!("{}.{} {}", line.stack, line.option, line.value)).collect();
    for expected in ["pages.refresh probabilistic", "sessions.refresh.sliding 15m", "sessions.memory_ttl 5s"]
    {
        assert!(told.iter().any(|line| line == expected), "{expected} in {told:?}");
    }
    for (wrong, expected) in [
        ("refresh: sliding", "\"sliding\" needs a value: refresh: { sliding: 15m }"),
        ("refresh: {sliding: 0}", "must be longer than zero"),
        ("refresh: {sliding: 1m, early: 0.5}", "say one of \"early\" and \"sliding\""),
        ("refresh: probabilistc", "did you mean \"probabilistic\""),
        ("replace_after: 0", "must be longer than zero"),
    ] {
        let text = format!("stacks: {{a: {{{wrong}}}}}");
        let error = loader(&[]).parse(&text, Format::Yaml, "c.yaml").unwrap_err().to_string();
        assert!(error.contains("c.yaml:1:") && error.contains(expected), "{wrong}: {error}");
    }
}
