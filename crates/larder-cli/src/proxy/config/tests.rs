//! Documents and flags, and what is said of mistakes in them.

use larder::config::{Config, Format};

use super::*;
use crate::proxy::forward::Mode;
use crate::proxy::upstream::options::{HostHeader, Protocol};

fn read(text: &str) -> Result<ServeConfig> {
    with_flags(text, &Flags::default())
}

fn with_flags(text: &str, flags: &Flags) -> Result<ServeConfig> {
    ServeConfig::read(Config::with_env([]).section(text, Format::Yaml, "s.yaml")?, flags)
}

#[test]
fn an_origin_is_all_that_has_to_be_said() {
    let flags = Flags { origin: vec!["127.0.0.1:3000".to_owned()], ..Flags::default() };
    let config = with_flags("", &flags).unwrap();
    assert_eq!(config.listen.plain, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.routing.routes.len(), 1);
    assert_eq!(config.routing.origins[0].upstreams[0].address.to_string(), "http://127.0.0.1:3000");
    assert_eq!(config.cache, CacheOptions::default());
    assert!(config.store.is_none() && config.admin.is_none() && config.log.access.is_none());
    let text = config.describe();
    for line in
        ["listen  ", "origin.timeouts.idle", "cache.memory_bytes", "forwarding.via ", "limits.head_bytes"]
    {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(read("origin: http://127.0.0.1:3000").unwrap().routing, config.routing);
}

const ALL: &str = r#"
listen: [":8080", 9090]
listen_tls: "[::1]:8443"
tls: { certificate: cert.pem, key: key.pem }
origins:
  app:
    upstreams: ["http://a:3000", { url: "http://b:3000/base", weight: 3 }]
    balance: least_requests
    host: fixed.test
    protocol: http2
    retries: 2
    upgrades: false
    eject: { failures: 5, pause: 30s }
    check: { path: /health, interval: 10s, timeout: 1s, status: 200-299, fall: 3, rise: 2, host: h.test }
    tls: { verify: true, ca: ca.pem, certificate: c.pem, key: k.pem, server_name: s.test }
    timeouts: { connect: 1s, response: 2s, body: 3s, idle: 0 }
    limits: { head_bytes: 32KiB, fields: 50, requests: 10, idle: 5 }
  api: https://api.test
routes:
  - { host: example.com, path: /api, origin: api, strip: true }
  - { host: "*.example.com", origin: app }
forward_proxy: { private: true }
forwarding:
  x_forwarded_for: append
  forwarded: off
  via_response: true
  pseudonym: edge-1
  trusted: [10.0.0.0/8, "::1"]
  allow: X-Forwarded-Prefix
cache:
  only: [static.example.com, /img]
  by_default: 1m
  heuristic_percent: 20
  heuristic_max: 1h
  stale_while_revalidate: 30s
  stale_if_error: 1h
  stale_if_disconnected: 10m
  variants: 10
  keep: 7d
  body_bytes: 10MiB
  memory_bytes: 0
  status: reasons
  name: edge
store: "redis://u:s3cret@localhost/1"
log: { access: json, file: /var/log/larder.log }
admin: { listen: "127.0.0.1:9000", token: "0123456789abcdef-s3cret" }
limits: { connections: 5, head_bytes: 8KiB, target_bytes: 4KiB, fields: 20, trailer_bytes: 0, body_bytes: 1MiB }
timeouts: { handshake: 1s, head: 2s, idle: 3s, body: 4s, write: 5s, tunnel: forever, shutdown: 0 }
"#;

#[test]
fn every_option_is_read_and_shown_without_secrets() {
    let config = read(ALL).unwrap();
    assert_eq!(config.listen.plain.len(), 2);
    assert_eq!(config.listen.plain[1].to_string(), "127.0.0.1:9090");
    let app = config.routing.origins.iter().find(|origin| &*origin.name == "app").unwrap();
    assert_eq!((app.protocol, app.retries, app.upstreams[1].weight), (Protocol::Http2, 2, 3));
    assert_eq!(app.host, HostHeader::Fixed("fixed.test".parse().unwrap()));
    assert_eq!(app.check.as_ref().unwrap().status, (200, 299));
    assert!(app.timeouts.idle.is_zero());
    assert!(config.routing.open.as_ref().unwrap().private);
    assert_eq!(config.forwarding.x_forwarded_for, Mode::Append);
    assert_eq!(config.routing.vary, ["x-forwarded-prefix"]);
    assert_eq!(config.routing.via.as_deref(), Some("1.1 edge-1"));
    assert_eq!((config.timeouts.write, config.timeouts.tunnel), (Duration::from_secs(5), None));
    assert_eq!(config.cache.stale_if_disconnected, Some(Duration::from_secs(600)));
    assert_eq!(config.cache.by_default, Duration::from_secs(60));
    assert_eq!(config.cache.only.len(), 2);
    assert_eq!(config.admin.as_ref().unwrap().token.expose(), "0123456789abcdef-s3cret");
    let text = config.describe();
    assert!(!text.contains("s3cret"), "{text}");
    assert!(!format!("{config:?}").contains("s3cret"));
    assert!(text.contains("static.example.com/, */img"), "{text}");
    assert!(text.contains("s.yaml:") && text.contains("redis://") && text.contains("***"), "{text}");
    for option in
        ["origins.app.eject.pause", "origins.app.tls.ca", "routes.1", "timeouts.shutdown", "log.file"]
    {
        assert!(text.contains(option), "{option}: {text}");
    }
}

#[test]
fn flags_win() {
    let flags = Flags {
        origin: vec!["a:1".to_owned(), "b:2".to_owned()],
        listen: vec![":80".to_owned()],
        store: Some("memory:".to_owned()),
        access_log: Some("common".to_owned()),
        cache_only: vec!["/only".to_owned()],
        cache_by_default: Some("5s".to_owned()),
        ..Flags::default()
    };
    let config = with_flags(ALL, &flags).unwrap();
    assert_eq!(config.routing.origins.len(), 1);
    assert_eq!(config.routing.origins[0].upstreams.len(), 2);
    assert_eq!(config.listen.plain, ["0.0.0.0:80".parse().unwrap()]);
    assert_eq!(config.store.unwrap().driver(), "memory");
    assert_eq!(config.log.access, Some(Form::Common));
    assert_eq!(config.cache.only.iter().map(ToString::to_string).collect::<Vec<_>>(), ["*/only"]);
    assert_eq!(config.cache.by_default, Duration::from_secs(5));
    let by_flag = config.shown.iter().find(|line| line.option == "listen").unwrap();
    assert_eq!(by_flag.origin.to_string(), "--listen");
}

#[test]
fn mistakes_say_where_and_what_was_meant() {
    let mut others = Vec::new();
    for (text, said) in [
        ("", "there is no origin: say --origin URL, or \"origin: URL\" in the configuration"),
        ("orgin: http://a", "s.yaml:1:1: unknown option \"orgin\", did you mean \"origin\"?"),
        ("origin: http://a\nlistn: 80", "s.yaml:2:1: unknown option \"listn\", did you mean \"listen\"?"),
        ("origin: ftp://a", "s.yaml:1:9: origin: \"ftp://a\" is neither an http:// nor an https:// URL"),
        (
            "origin: { url: 'http://a', retrys: 1 }",
            "s.yaml:1:28: origin: unknown option \"retrys\", did you mean \"retries\"?",
        ),
        (
            "origin: { url: a, timeouts: { conect: 1s } }",
            "origin.timeouts: unknown option \"conect\", did you mean \"connect\"?",
        ),
        ("origin: { url: a, timeouts: { connect: 5 } }", "origin.timeouts.connect: 5 has no unit"),
        ("origin: { url: a, timeouts: { connect: 0 } }", "must be longer than zero"),
        ("origin: { url: a, check: { status: 99 } }", "origin.check.status: 99 is no status"),
        ("origin: { url: a, upstreams: [b] }", "has both \"url\" and \"upstreams\""),
        ("origin: { upstreams: [] }", "has no upstream"),
        ("origin: { url: a, tls: { verify: false, ca: x } }", "to believe anybody"),
        (
            "origin: { url: a, balance: random }",
            "expected one of round_robin, least_requests, found \"random\"",
        ),
        (
            "origins: { a: 'http://a', b: 'http://b' }",
            "there are several origins, so say which requests go where",
        ),
        (
            "origins: { a: 'http://a' }\nroutes: [{ origin: b }]",
            "routes.1.origin: \"b\" is none of the origins: a",
        ),
        ("origin: a\nroutes: [{ host: 'a b' }]", "is not a host"),
        ("origin: a\nroutes: [{ path: api }]", "is not a path"),
        (
            "origin: a\nroutes: [{ path: /a }, { path: /a/ }]",
            "routes.2: another route has this host and this path",
        ),
        ("origin: a\nlisten: nowhere", "s.yaml:2:9: listen: \"nowhere\" is not an address"),
        ("origin: a\nlisten_tls: ':443'", "needs a certificate"),
        ("origin: a\nadmin: { listen: 9000 }", "needs \"token\" or \"token_file\""),
        ("origin: a\nadmin: { listen: 9000, token: short }", "at least 16 characters"),
        ("origin: a\nadmin: { listen: 9000, token_file: /nowhere/at/all }", "cannot read the token in"),
        ("origin: a\nforwarding: { trusted: [10.0.0.0/99] }", "is not a network"),
        ("origin: a\nforwarding: { allow: ['a b'] }", "is not the name of a field"),
        ("origin: a\nforwarding: { pseudonym: 'a b' }", "is not a name"),
        ("origin: a\ncache: { memory_bytes: many }", "is not a size"),
        ("origin: a\nlimits: { head_bytes: 10 }", "must be from 1KiB to 1GiB"),
        ("origin: a\nlimits: { fields: 129 }", "a whole number from 1 to 128"),
        (
            "origin: a\ncache: { only: ['http://b/img'] }",
            "s.yaml:2:17: cache.only.1: \"http://b/img\" is neither a host",
        ),
        ("origin: a\ncache: { by_default: 5 }", "cache.by_default: 5 has no unit"),
        ("origin: a\nroutes: [{ host: 'a:80' }]", "is not a host"),
        ("origin: a\ntimeouts: { tunnel: 0 }", "timeouts.tunnel: must be longer than zero"),
        ("origin: a\nlog: { access: apache }", "expected one of none, common, combined, json"),
    ] {
        let error = read(text).unwrap_err().to_string();
        if !error.contains(said) {
            others.push(format!("{text}: {error}"));
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}

#[test]
fn what_takes_a_restart_is_said() {
    let config = |text: &str| read(&format!("origin: a\n{text}")).unwrap();
    let base = config("");
    assert!(
        base.fixed_differences(&config(
            "forwarding: { via: false }\ncache: { keep: 1h, only: /x, by_default: 1m }"
        ))
        .is_empty()
    );
    for (text, name) in [
        ("listen: 81", "listen"),
        ("store: 'memory:'", "store"),
        ("admin: { listen: 9000, token: 0123456789abcdef }", "admin.listen"),
        ("cache: { memory_bytes: 1GiB }", "cache.memory_bytes"),
        ("log: { file: /x }", "log.file"),
    ] {
        assert_eq!(base.fixed_differences(&config(text)), [name]);
    }
}

#[test]
fn the_flags_are_those_of_the_table() {
    let line = |words: &[&str]| {
        let words = std::iter::once(&"serve").chain(words);
        let command = crate::args::serve::serve(clap::Command::new("serve"));
        let mut matches = command.try_get_matches_from(words).ok()?;
        Some(Flags::from_matches(&mut matches))
    };
    let flags =
        line(&["--origin", "a", "-o", "b", "--listen", ":1", "--store", "memory:", "--check", "--json"])
            .unwrap();
    assert_eq!((flags.origin.len(), flags.listen.len(), flags.check && flags.json), (2, 1, true));
    assert!(line(&["--json"]).is_none() && line(&["--access-log", "x"]).is_none());
}
