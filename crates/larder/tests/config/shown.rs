//! What `explain` shows: what a configuration means, and no secret.

use super::{Format, loader, registry};

/// The value of an option of the stack `a`.
fn shown(store: &str, variables: &[(&str, &str)], option: &str) -> String {
    let text = format!("stacks: {{a: {{l2: {store}}}}}");
    let config = loader(variables).parse(&text, Format::Yaml, "c.yaml").unwrap();
    let lines = config.explain(&registry()).unwrap();
    let line = lines.iter().find(|line| line.option == option);
    line.unwrap().value.clone()
}

#[cfg(all(feature = "file", unix))]
#[test]
fn a_place_is_shown_as_what_it_means() {
    let place = |url: &str, variables: &[(&str, &str)]| shown(url, variables, "l2.directory");
    assert_eq!(place("'file:///tmp/x'", &[]), "/tmp/x");
    assert_eq!(place("'file:a%20b'", &[]), "a b");
    assert_eq!(place("'file:${CACHE_DIR:-.}/cache'", &[]), "./cache");
    assert_eq!(place("'file:${CACHE_DIR:-.}/cache'", &[("CACHE_DIR", "/v?a")]), "/v?a/cache");
    assert_eq!(place("'file:$${A}'", &[("A", "x")]), "${A}");
    assert_eq!(place("{file: '${DIR}/b'}", &[("DIR", "a")]), "a/b");
    assert_eq!(shown("'file:c?suffix=${S}'", &[("S", ".x")], "l2.suffix"), ".x");
}

#[test]
fn what_a_variable_puts_into_a_secret_place_is_masked() {
    let variables =
        [("PW", "hun/ter@2"), ("HOST", "db"), ("URL", "own://u:hunter@db/0?delay=1ms&token=hunter")];
    assert_eq!(shown("'own://u:${PW}@${HOST}/0?delay=1ms'", &variables, "l2.url"), "//***@db/0");
    assert_eq!(shown("'own://${HOST}?delay=1ms&token=${PW}'", &variables, "l2.token"), "***");
    assert_eq!(shown("'${URL}'", &variables, "l2.url"), "//***@db/0");
    assert_eq!(shown("'${URL}'", &variables, "l2.token"), "***");
}
