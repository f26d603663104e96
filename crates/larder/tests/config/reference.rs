//! `docs/configuration.md` and the readers say the same: every option, its default, its other names.

use std::collections::{BTreeMap, BTreeSet};

use larder::config::{Config, DRIVERS, Format, Registry};

const REFERENCE: &str = include_str!("../../../../docs/configuration.md");

/// A row of one of the reference's tables: option, default, other names.
struct Row {
    option: String,
    default: String,
    others: BTreeSet<String>,
}

/// The rows of the tables of options, by the heading above them.
fn tables() -> BTreeMap<String, Vec<Row>> {
    let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut heading = String::new();
    for line in REFERENCE.lines() {
        if let Some(text) = line.strip_prefix("##") {
            heading = text.trim_matches(['#', ' ', '`']).to_owned();
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, option, default, others, _, _] = cells.as_slice() else { continue };
        if let Some(option) = option.strip_prefix('`') {
            let others = others.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            let option = option.trim_end_matches('`').to_owned();
            let default = default.replace('`', "");
            tables.entry(heading.clone()).or_default().push(Row { option, default, others });
        }
    }
    tables
}

/// The names that a reader says it knows, once it is given one that it does not.
fn known(document: &str) -> BTreeSet<String> {
    let error = Config::parse(document, Format::Yaml, "c.yaml")
        .and_then(|config| config.check(&Registry::compiled()))
        .unwrap_err();
    let names = error.message().rsplit_once("(known: ").unwrap().1;
    names.trim_end_matches(')').split(", ").map(str::to_owned).collect()
}

fn options(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(|row| row.option.clone()).collect()
}

#[test]
fn the_reference_names_every_option_of_a_document_and_no_other() {
    let tables = tables();
    for (heading, document) in [
        ("The document", "nonsense: 1"),
        ("A stack", "stacks: {a: {nonsense: 1}}"),
        ("refresh", "stacks: {a: {refresh: {nonsense: 1}}}"),
        ("l1", "stacks: {a: {l1: {nonsense: 1}}}"),
        ("breaker", "stacks: {a: {breaker: {nonsense: 1}}}"),
        ("recover_writes", "stacks: {a: {recover_writes: {nonsense: 1}}}"),
        ("compress", "stacks: {a: {compress: {nonsense: 1}}}"),
        ("encrypt", "stacks: {a: {encrypt: {nonsense: 1}}}"),
    ] {
        assert_eq!(options(&tables[heading]), known(document), "{heading}");
    }
}

#[test]
fn the_reference_names_every_driver_and_its_options_and_no_other() {
    let tables = tables();
    for info in DRIVERS {
        let rows = &tables[info.name];
        assert!(REFERENCE.contains(info.about), "{}: {}", info.name, info.about);
        if Registry::compiled().names().any(|name| name == info.name) {
            let place = match info.name {
                "memory" => "",
                "redis" | "memcached" | "postgres" | "mysql" => "//place",
                _ => "place",
            };
            assert_eq!(
                options(rows),
                known(&format!("stacks: {{a: {{l2: '{}:{place}?nonsense=1'}}}}", info.name)),
                "{}",
                info.name
            );
        }
        assert_eq!(info.options.len(), rows.len(), "{}", info.name);
        for (option, row) in info.options.iter().zip(rows) {
            assert_eq!(option.name, row.option, "{}", info.name);
            assert_eq!(option.default, row.default, "{} {}", info.name, option.name);
            let aliases: BTreeSet<String> = option.aliases.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(aliases, row.others, "{} {}", info.name, option.name);
        }
    }
}

#[test]
fn the_reference_gives_the_defaults_that_take_effect() {
    let tables = tables();
    let text = "stacks: {a: {l2: 'memory:', compress: true}}";
    let explain = |text| Config::parse(text, Format::Yaml, "c.yaml")?.explain(&Registry::compiled());
    let mut lines = explain(text).unwrap();
    lines.extend(explain("stacks: {a: {l2: 'memory:', recover_writes: true}}").unwrap());
    for (heading, prefix) in [
        ("A stack", ""),
        ("l1", "l1."),
        ("breaker", "breaker."),
        ("recover_writes", "recover_writes."),
        ("compress", "compress."),
    ] {
        for row in &tables[heading] {
            let option = format!("{prefix}{}", row.option);
            let Some(line) = lines.iter().find(|line| line.option == option) else { continue };
            let default = row.default.replace("the stack's name", "a");
            assert!(default.starts_with(&line.value), "{option}: {default}, {}", line.value);
        }
    }
}

#[test]
fn every_other_name_is_taken() {
    for info in DRIVERS.iter().filter(|info| Registry::compiled().names().any(|name| name == info.name)) {
        for (option, other) in info.options.iter().flat_map(|o| o.aliases.iter().map(move |other| (o, other)))
        {
            let value = if option.default == "true" { "true" } else { "5m" };
            let given = match other.split_once('.') {
                Some((outer, inner)) => format!("{outer}: {{{inner}: {value}}}"),
                None => format!("{other}: {value}"),
            };
            let text = format!("stacks: {{a: {{l2: {{driver: {}, {given}}}}}}}", info.name);
            let checked = Config::parse(&text, Format::Yaml, "c.yaml")
                .and_then(|config| config.check(&Registry::compiled()));
            let said = checked.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.contains("unknown option"), "{text}: {said}");
        }
    }
    for row in tables().remove("l1").unwrap() {
        for other in row.others {
            let text = format!("stacks: {{a: {{l1: {{{other}: 5}}}}}}");
            Config::parse(&text, Format::Yaml, "c.yaml").unwrap();
        }
    }
}

#[test]
fn every_example_of_the_reference_is_right() {
    let mut count = 0;
    for block in REFERENCE.split("```").skip(1).step_by(2) {
        let Some((language, text)) = block.split_once('\n') else { continue };
        let format = match language {
            "yaml" => Format::Yaml,
            "toml" => Format::Toml,
            "json" => Format::Json,
            _ => continue,
        };
        let key = "0f".repeat(32);
        let variables = [("LARDER_KEY", key.as_str()), ("CACHE_DIR", "/var/cache/app")];
        let loader = Config::with_env(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let config = loader.parse(text, format, "docs/configuration.md").unwrap();
        config.check(&Registry::compiled()).unwrap();
        count += 1;
    }
    assert!(count >= 3, "{count} examples");
}
