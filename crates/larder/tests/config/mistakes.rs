//! What is said about configurations that mean nothing, word for word.

use larder::config::Registry;

use super::{FORMATS, error_of};

/// One mistake in YAML, TOML and JSON: the text, and the place at which it is found.
type Mistake = (&'static str, [(&'static str, &'static str); 3]);

pub(crate) const KNOWN: &str = "(known: across_processes, backoff, breaker, codec, compress, deadline, encrypt, grace, groups, hard_timeout, jitter, l1, l2, memory_ttl, prefix, recover_writes, refresh, replace_after, soft_timeout, suppress_l2_errors, ttl)";

const MISTAKES: &[Mistake] = &[
    (
        "unknown setting \"stack\", did you mean \"stacks\"? (known: cache, default, defaults, stacks)",
        [("stack:\n  users: {}", "1:1"), ("[stack.users]", "1:2"), ("{\"stack\": {\"users\": {}}}", "1:2")],
    ),
    (
        "stacks.users: unknown option \"deadlin\", did you mean \"deadline\"? KNOWN",
        [
            ("stacks:\n  users:\n    ttl: 5m\n    deadlin: 1s", "4:5"),
            ("[stacks.users]\nttl = '5m'\ndeadlin = '1s'", "3:1"),
            ("{\"stacks\": {\"users\": {\n  \"ttl\": \"5m\",\n  \"deadlin\": \"1s\"}}}", "3:3"),
        ],
    ),
    (
        "stacks.users: unknown option \"bananas\" KNOWN",
        [
            ("stacks: {users: {bananas: 3}}", "1:18"),
            ("stacks.users.bananas = 3", "1:14"),
            ("{\"stacks\": {\"users\": {\"bananas\": 3}}}", "1:23"),
        ],
    ),
    (
        "stacks.users.l1: unknown option \"maxitems\", did you mean \"max_items\"? \
         (known: max_bytes, max_entry_bytes, max_items)",
        [
            ("stacks:\n  users:\n    l1:\n      maxitems: 3", "4:7"),
            ("[stacks.users.l1]\nmaxitems = 3", "2:1"),
            ("{\"stacks\": {\"users\": {\"l1\":\n {\"maxitems\": 3}}}}", "2:3"),
        ],
    ),
    (
        "stacks.users.ttl: 300 has no unit: write \"300s\" for seconds or \"300ms\" for milliseconds",
        [
            ("stacks:\n  users:\n    ttl: 300", "3:10"),
            ("[stacks.users]\nttl = 300", "2:7"),
            ("{\"stacks\": {\"users\": {\n\"ttl\": 300}}}", "2:8"),
        ],
    ),
    (
        "stacks.users.grace: \"5 minuts\" is not a duration such as \"500ms\", \"5m\" or \"1h30m\"",
        [
            ("stacks:\n  users:\n    grace: 5 minuts", "3:12"),
            ("[stacks.users]\ngrace = '5 minuts'", "2:9"),
            ("{\"stacks\": {\"users\": {\n\"grace\": \"5 minuts\"}}}", "2:10"),
        ],
    ),
    (
        "stacks.users.refresh.early: expected a share between 0 and 1, such as 0.9, found 1.5",
        [
            ("stacks:\n  users:\n    refresh: {early: 1.5}", "3:22"),
            ("[stacks.users]\nrefresh = {early = 1.5}", "2:20"),
            ("{\"stacks\": {\"users\": {\n\"refresh\": {\"early\": 1.5}}}}", "2:22"),
        ],
    ),
    (
        "stacks.users.refresh: expected one of on_demand, probabilistic, found \"on-demand\", did you mean \"on_demand\"?",
        [
            ("stacks:\n  users:\n    refresh: on-demand", "3:14"),
            ("[stacks.users]\nrefresh = 'on-demand'", "2:11"),
            ("{\"stacks\": {\"users\": {\n\"refresh\": \"on-demand\"}}}", "2:12"),
        ],
    ),
    (
        "stacks.users.hard_timeout: must be longer than zero (false switches it off)",
        [
            ("stacks:\n  users:\n    hard_timeout: 0", "3:19"),
            ("[stacks.users]\nhard_timeout = '0s'", "2:16"),
            ("{\"stacks\": {\"users\": {\n\"hard_timeout\": \"0\"}}}", "2:17"),
        ],
    ),
    (
        "stacks.users.ttl: expected a duration such as \"5m\", or \"forever\", found a list",
        [
            ("stacks:\n  users:\n    ttl: [5m]", "3:10"),
            ("[stacks.users]\nttl = ['5m']", "2:7"),
            ("{\"stacks\": {\"users\": {\n\"ttl\": [\"5m\"]}}}", "2:8"),
        ],
    ),
    (
        "stacks.users.l1.max_bytes: \"64 potatoes\" is not a size such as \"64MiB\", \"10mb\" or a number of bytes",
        [
            ("stacks:\n  users:\n    l1: {max_bytes: 64 potatoes}", "3:21"),
            ("[stacks.users]\nl1 = {max_bytes = '64 potatoes'}", "2:19"),
            ("{\"stacks\": {\"users\": {\n\"l1\": {\"max_bytes\": \"64 potatoes\"}}}}", "2:21"),
        ],
    ),
    (
        "stacks.users.compress.level: expected a whole number from 1 to 22, found 23",
        [
            ("stacks:\n  users:\n    compress: {level: 23}", "3:23"),
            ("[stacks.users]\ncompress.level = 23", "2:18"),
            ("{\"stacks\": {\"users\": {\n\"compress\": {\"level\": 23}}}}", "2:23"),
        ],
    ),
    (
        "stacks.users.suppress_l2_errors: expected true or false, found \"perhaps\"",
        [
            ("stacks:\n  users:\n    suppress_l2_errors: perhaps", "3:25"),
            ("[stacks.users]\nsuppress_l2_errors = 'perhaps'", "2:22"),
            ("{\"stacks\": {\"users\": {\n\"suppress_l2_errors\": \"perhaps\"}}}", "2:23"),
        ],
    ),
    (
        "stacks.users.codec: expected one of json, messagepack, found \"mesagepack\", did you mean \"messagepack\"?",
        [
            ("stacks:\n  users:\n    codec: mesagepack", "3:12"),
            ("[stacks.users]\ncodec = 'mesagepack'", "2:9"),
            ("{\"stacks\": {\"users\": {\n\"codec\": \"mesagepack\"}}}", "2:10"),
        ],
    ),
    (
        "stacks.users.prefix: expected text (put it in quotes), found 2024",
        [
            ("stacks:\n  users:\n    prefix: 2024", "3:13"),
            ("[stacks.users]\nprefix = 2024", "2:10"),
            ("{\"stacks\": {\"users\": {\n\"prefix\": 2024}}}", "2:11"),
        ],
    ),
    (
        "stacks.users.deadline: a deadline must be longer than zero",
        [
            ("stacks:\n  users:\n    deadline: 0", "3:15"),
            ("[stacks.users]\ndeadline = 0", "2:12"),
            ("{\"stacks\": {\"users\": {\n\"deadline\": 0}}}", "2:13"),
        ],
    ),
    (
        "defaults: unknown option \"tll\", did you mean \"ttl\"? KNOWN",
        [
            ("defaults:\n  tll: 5m\nstacks: {a: }", "2:3"),
            ("[defaults]\ntll = '5m'\n[stacks.a]", "2:1"),
            ("{\"defaults\": {\n\"tll\": \"5m\"}, \"stacks\": {\"a\": {}}}", "2:1"),
        ],
    ),
    (
        "stacks.users.l2: unknown driver \"mongodb\" (this build has: DRIVERS)",
        [
            ("stacks:\n  users:\n    l2: mongodb://:hunter2@cache:6379/0", "3:9"),
            ("[stacks.users]\nl2 = 'mongodb://:hunter2@cache:6379/0'", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": \"mongodb://:hunter2@cache:6379/0\"}}}", "2:7"),
        ],
    ),
    (
        "stacks.users.l2: unknown driver \"memroy\", did you mean \"memory\"? (this build has: DRIVERS)",
        [
            ("stacks:\n  users:\n    l2: {driver: memroy}", "3:18"),
            ("[stacks.users]\nl2.driver = 'memroy'", "2:13"),
            ("{\"stacks\": {\"users\": {\n\"l2\": {\"driver\": \"memroy\"}}}}", "2:18"),
        ],
    ),
    (
        "stacks.users.l2: a store needs \"driver\" or \"url\", did you mean \"driver\"?",
        [
            ("stacks:\n  users:\n    l2: {drivr: memory, max_items: 3}", "3:9"),
            ("[stacks.users]\nl2 = {drivr = 'memory', max_items = 3}", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": {\"drivr\": \"memory\", \"max_items\": 3}}}}", "2:7"),
        ],
    ),
    (
        "stacks.users.l2: a store has to begin with its driver, as in \"sqlite:FILE\" or \"file:DIRECTORY\"",
        [
            ("stacks:\n  users:\n    l2: ./cache.db", "3:9"),
            ("[stacks.users]\nl2 = './cache.db'", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": \"./cache.db\"}}}", "2:7"),
        ],
    ),
    (
        "stacks.users.l2: unknown option \"max_itms\", did you mean \"max_items\"? \
         (known: max_bytes, max_entry_bytes, max_items)",
        [
            ("stacks:\n  users:\n    l2: memory:?max_itms=3", "3:9"),
            ("[stacks.users]\nl2 = 'memory:?max_itms=3'", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": \"memory:?max_itms=3\"}}}", "2:7"),
        ],
    ),
    (
        "stacks.users.l2.max_items: expected a whole number from 1, found \"none\"",
        [
            ("stacks:\n  users:\n    l2:\n      memory:\n        max_items: none", "5:20"),
            ("[stacks.users.l2.memory]\nmax_items = 'none'", "2:13"),
            ("{\"stacks\": {\"users\": {\"l2\": {\"memory\": {\n\"max_items\": \"none\"}}}}}", "2:14"),
        ],
    ),
    (
        "stacks.users.l2: the memory driver takes nothing after its scheme",
        [
            ("stacks:\n  users:\n    l2: memory:here", "3:9"),
            ("[stacks.users]\nl2 = 'memory:here'", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": \"memory:here\"}}}", "2:7"),
        ],
    ),
    (
        "stacks.users.l1: \"maxItems\" and \"max_items\" are the same option, given twice",
        [
            ("stacks:\n  users:\n    l1: {maxItems: 3, max_items: 4}", "3:10"),
            ("[stacks.users.l1]\nmaxItems = 3\nmax_items = 4", "2:1"),
            ("{\"stacks\": {\"users\": {\"l1\": {\n\"maxItems\": 3, \"max_items\": 4}}}}", "2:1"),
        ],
    ),
    (
        "stacks.users: the stack has neither a memory tier (\"l1\") nor a store (\"l2\")",
        [
            ("stacks:\n  users: {l1: false}", "2:10"),
            ("[stacks.users]\nl1 = false", "1:1"),
            ("{\"stacks\": {\"users\": {\"l1\": false}}}", "1:22"),
        ],
    ),
    (
        "stacks.users.encrypt: encryption needs \"keys\", a list of ID:CIPHER:SECRET",
        [
            ("stacks:\n  users:\n    encrypt: {keys: []}", "3:14"),
            ("[stacks.users]\nencrypt = {keys = []}", "2:11"),
            ("{\"stacks\": {\"users\": {\n\"encrypt\": {\"keys\": []}}}}", "2:12"),
        ],
    ),
    (
        "stacks.users.l2: the variable CACHE_DIR is not set (\"${CACHE_DIR:-…}\" gives a default)",
        [
            ("stacks:\n  users:\n    l2: sqlite:${CACHE_DIR}/c.db", "3:9"),
            ("[stacks.users]\nl2 = 'sqlite:${CACHE_DIR}/c.db'", "2:6"),
            ("{\"stacks\": {\"users\": {\n\"l2\": \"sqlite:${CACHE_DIR}/c.db\"}}}", "2:7"),
        ],
    ),
    (
        "stacks: expected a map of stacks by name, found a list",
        [
            ("stacks:\n  - users", "2:3"),
            ("stacks = ['users']", "1:10"),
            ("{\"stacks\": [\"users\"]}", "1:12"),
        ],
    ),
];

#[test]
fn every_mistake_is_named_with_its_place_in_every_format() {
    let drivers = Registry::compiled().names().collect::<Vec<_>>().join(", ");
    let mut wrong = String::new();
    for (said, written) in MISTAKES {
        let said = said.replace("KNOWN", KNOWN).replace("DRIVERS", &drivers);
        for ((format, name), (text, place)) in FORMATS.into_iter().zip(written) {
            let (expected, found) = (format!("{name}:{place}: {said}"), error_of(text, format, name));
            if found != expected {
                wrong.push_str(&format!("  expected {expected}\n  found    {found}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn what_is_no_document_is_said_in_the_words_of_its_parser() {
    let mut said = String::new();
    for ((format, name), texts) in FORMATS.into_iter().zip([
        ["a: 1\na: 2", "stacks:\n\tusers: {}", "stacks: {a: \"x}", "- a\n--- \n- b", "a: *b"],
        ["a = 1\na = 2", "stacks = ", "a = 'x", "a = 1 b = 2", "[a\nb = 1"],
        ["{\"a\": 1,\n \"a\": 2}", "{\"stacks\": }", "{\"a\": \"x}", "{} {}", "{\"a\": 01}"],
    ]) {
        for text in texts {
            said.push_str(&error_of(text, format, name));
            said.push('\n');
        }
    }
    let expected = "\
c.yaml:2:1: duplicate key \"a\"
c.yaml:2:2: tabs disallowed within this context (block indentation)
c.yaml:1:13: unclosed quote
c.yaml:2:1: only one document is read
c.yaml:1:4: alias references unknown anchor
c.toml:2:1: duplicate key
c.toml:1:10: string values must be quoted, expected literal string
c.toml:1:7: invalid literal string, expected `'`
c.toml:1:9: unexpected key or value, expected newline, `#`
c.toml:1:3: unclosed table, expected `]`
c.json:2:2: duplicate key \"a\"
c.json:1:12: expected value
c.json:1:9: EOF while parsing a string
c.json:1:4: trailing characters
c.json:1:8: invalid number
";
    assert!(said == expected, "\n{said}");
}

#[cfg(all(feature = "encrypt", feature = "compress"))]
#[test]
fn what_is_about_a_store_needs_one_unless_it_is_meant_for_all() {
    let key = format!("1:aes-256-gcm:{}", "ab".repeat(32));
    let parse = |text: &str| larder::config::Config::parse(text, larder::config::Format::Yaml, "c.yaml");
    for (options, said) in [
        ("compress: true".to_owned(), "c.yaml:1:24: stacks.a.compress: "),
        (format!("encrypt: {{keys: ['{key}']}}"), "c.yaml:1:23: stacks.a.encrypt: "),
    ] {
        let error = parse(&format!("stacks: {{a: {{{options}}}}}")).unwrap_err();
        assert!(error.message().starts_with(said) && error.message().contains("\"l2\""), "{error}");
        parse(&format!("stacks: {{a: {{l2: 'memory:', {options}}}}}")).unwrap();
        let shared =
            parse(&format!("defaults: {{{options}}}\nstacks: {{a: {{}}, b: {{l2: 'memory:'}}}}")).unwrap();
        shared.check(&Registry::compiled()).unwrap();
    }
}

#[test]
fn explaining_refuses_what_cannot_be_built() {
    let long = "p".repeat(500);
    for (text, place) in [
        (format!("stacks: {{a: {{l2: 'memory:', prefix: {long}}}}}"), "c.yaml:1:37: stacks.a.prefix: "),
        (format!("stacks: {{{long}: {{l2: 'memory:'}}}}"), "c.yaml:1:"),
    ] {
        let config = larder::config::Config::parse(&text, larder::config::Format::Yaml, "c.yaml").unwrap();
        let error = config.describe(&Registry::compiled()).unwrap_err();
        assert!(error.message().starts_with(place), "{error}");
    }
}
