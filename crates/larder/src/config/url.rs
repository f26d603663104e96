//! Store URLs: `scheme:rest?option=value`. Knows no scheme.

use super::node::Text;
use crate::driver::url::{check_query, decode};

/// A store URL's parts.
pub(crate) struct Parts {
    /// In lower case.
    pub(crate) scheme: String,
    /// What follows the scheme, percent-encoded; `None` if there was only a driver's name, without a colon.
    pub(crate) rest: Option<String>,
    /// The rest, fit to be shown.
    pub(crate) shown: String,
    /// The options, decoded.
    pub(crate) query: Vec<(String, Text)>,
}

/// Takes a store URL apart. The failure is what is wrong with it.
pub(crate) fn split(text: &Text) -> Result<Parts, String> {
    let whole = encoded(text);
    let whole = whole.trim();
    let Some((scheme, rest)) = whole.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
        if is_scheme(whole) && !whole.contains('.') {
            let (rest, shown, query) = (None, String::new(), Vec::new());
            return Ok(Parts { scheme: whole.to_ascii_lowercase(), rest, shown, query });
        }
        return Err(
            "a store has to begin with its driver, as in \"sqlite:FILE\" or \"file:DIRECTORY\"".to_owned()
        );
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if rest.starts_with("//") {
        check_query(query)?;
    }
    let shown = text.shown().split_once(':').map_or("", |(_, rest)| rest);
    let (shown, query_shown) = shown.split_once('?').unwrap_or((shown, ""));
    let mut options: Vec<(String, Text)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(match &text.template {
                Some(_) => "an option of the URL has no value".to_owned(),
                None => format!("the option {:?} of the URL has no value", decode(pair)?),
            });
        };
        let name = decode(name)?;
        if options.iter().any(|(other, _)| *other == name) {
            return Err(format!("the option \"{name}\" is given twice"));
        }
        let mut value = Text::plain(decode(value)?);
        // A pair that stands in the template as it is holds nothing of a variable's.
        if text.template.is_some() && !query_shown.split('&').any(|shown| shown == pair) {
            // Errors do not repeat it.
            value.template = Some("***".to_owned());
        }
        options.push((name, value));
    }
    Ok(Parts {
        scheme: scheme.to_ascii_lowercase(),
        rest: Some(rest.to_owned()),
        shown: masked(shown),
        query: options,
    })
}

/// The path that follows a scheme, as in `sqlite:cache.db`, `sqlite::memory:` and `file:///var/cache`.
pub(crate) fn path(scheme: &str, rest: &str) -> Result<String, String> {
    let Some(after) = rest.strip_prefix("//") else { return Ok(decode(rest)?) };
    let (host, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    if !host.is_empty() && host != "localhost" {
        return Err(format!(
            "\"{scheme}://\" is followed by a host: write \"{scheme}:PATH\" for a path from here, \
             \"{scheme}:///PATH\" for one from the root"
        ));
    }
    Ok(decode(path)?)
}

/// A letter, and then letters, digits and a few signs; two or more, because one is a Windows drive.
fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() > 1
        && bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'))
}

/// The URL, with what variables put into it encoded: a path or a password with `?` or `&` in it must not
/// become an option. A variable at the very beginning is a whole URL, and is taken as one.
fn encoded(text: &Text) -> String {
    let inside = |at: usize| text.from_variables.iter().any(|range| range.start > 0 && range.contains(&at));
    let mut encoded = String::with_capacity(text.text.len());
    for (at, letter) in text.text.char_indices() {
        match letter {
            '%' | '?' | '#' | '&' | '=' | '@' if inside(at) => {
                encoded.push_str(&format!("%{:02X}", u32::from(letter)));
            }
            _ => encoded.push(letter),
        }
    }
    encoded
}

/// What follows a scheme, without what stands before the host.
pub(crate) fn masked(rest: &str) -> String {
    let Some(after) = rest.strip_prefix("//") else { return rest.to_owned() };
    // The last `@` of all, not of the host: a password with an unescaped slash must not be shown either.
    match after.rsplit_once('@') {
        Some((_, host)) => format!("//***@{host}"),
        None => rest.to_owned(),
    }
}

/// Whether an option of this name had better not be shown.
pub(crate) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token", "credential", "auth", "key", "dsn"]
        .iter()
        .any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_people_mean() {
        for (rest, meant) in [
            ("cache.db", "cache.db"),
            ("./cache", "./cache"),
            ("/var/cache", "/var/cache"),
            ("///var/cache", "/var/cache"),
            ("//localhost/var/cache", "/var/cache"),
            (":memory:", ":memory:"),
            ("my%20cache%3F.db", "my cache?.db"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(path("file", rest), Ok(meant.to_owned()), "{rest}");
        }
        for rest in ["//cache", "//host/cache", "100%", "%zz", "%+1", "%ff"] {
            assert!(path("file", rest).is_err(), "{rest}");
        }
    }

    #[test]
    fn a_variable_cannot_add_options() {
        let mut text = Text::plain("sqlite:/home/x?table=evil&%41/c.db?max_bytes=1");
        text.from_variables.push(7..33);
        text.template = Some("sqlite:${HOME}/c.db?max_bytes=1".to_owned());
        let parts = split(&text).unwrap_or_else(|what| panic!("{what}"));
        let rest = parts.rest.unwrap_or_default();
        assert_eq!(path("sqlite", &rest).as_deref(), Ok("/home/x?table=evil&%41/c.db"));
        assert_eq!(parts.query.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["max_bytes"]);
        assert_eq!(parts.shown, "${HOME}/c.db");
    }

    #[test]
    fn a_password_that_looks_like_options_is_not_repeated() {
        for url in [
            "redis://u:hun?ter=2@h",
            "redis://u:hun?db=ter2@h",
            "redis://u:hun?ter2@h/1?db=1",
            "redis://u:hun@ter?2=3@h",
            "redis://12?hun=ter2@h",
            "postgres://u:hun?sslmode=ter2@h/d",
        ] {
            let Err(said) = split(&Text::plain(url)) else { panic!("{url}") };
            assert!(said.contains("%3F") && said.contains("%40"), "{said}");
            assert!(!said.contains("hun") && !said.contains("ter"), "{said}");
        }
        let parts = split(&Text::plain("redis://h?password=a%40b")).unwrap_or_else(|what| panic!("{what}"));
        assert_eq!(parts.query.len(), 1);
        assert!(split(&Text::plain("sqlite:c.db?x=a@b")).is_ok(), "a path has no password");
    }

    #[test]
    fn what_stands_before_a_host_is_masked() {
        for (rest, shown) in [
            ("//:secret@host:6379/0", "//***@host:6379/0"),
            ("//secret@host", "//***@host"),
            ("//user:se/cr@et@host/0", "//***@host/0"),
            ("//host/0", "//host/0"),
            ("cache@home.db", "cache@home.db"),
        ] {
            assert_eq!(masked(rest), shown);
        }
    }
}
