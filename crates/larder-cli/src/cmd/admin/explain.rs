//! `larder explain`.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::Desk;
use crate::args::units::{bytes_words, words};
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{escape, print_bytes, print_line};

/// Which request is explained.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) desk: Desk,
    pub(crate) url: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) json: bool,
}

/// Asks, and says the answer as people read it.
pub(crate) async fn explain(asked: Asked) -> Outcome {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &asked.headers {
        let value = value.to_str().map_err(|_| {
            Failure::usage(format!("the value of --header '{name}: …' is not printable ASCII"))
        })?;
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(value));
        }
    }
    let question = json!({ "url": asked.url, "headers": headers });
    let answer = asked.desk.ask("asking", "/explain", &question).await?;
    let variants = answer.get("variants").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let status = if variants.is_empty() { NOT_FOUND } else { FOUND };
    if asked.json {
        print_line(&answer)?;
    } else {
        print_bytes(page(&answer, variants).as_bytes())?;
    }
    Ok(status)
}

fn page(answer: &Value, variants: &[Value]) -> String {
    let text = |name: &str| escape(answer.get(name).and_then(Value::as_str).unwrap_or_default());
    let mut page = format!("{}\nverdict  {}\nreason   {}\n", text("target"), text("verdict"), text("reason"));
    match variants.len() {
        0 => page.push_str("stored   nothing\n"),
        1 => page.push_str("stored   1 response\n"),
        many => {
            let _ = writeln!(page, "stored   {many} responses; * is for this request");
        }
    }
    let target = answer.get("target").and_then(Value::as_str).unwrap_or_default();
    variants.iter().for_each(|variant| say(&mut page, target, variant));
    page
}

/// One stored response.
fn say(page: &mut String, target: &str, variant: &Value) {
    let number = |name: &str| variant.get(name).and_then(Value::as_u64).unwrap_or_default();
    let flag = |name: &str| variant.get(name).and_then(Value::as_bool).unwrap_or_default();
    let seconds = |name: &str| {
        let seconds = variant.get(name).and_then(Value::as_f64).unwrap_or_default();
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    };
    let text = |name: &str| variant.get(name).and_then(Value::as_str).unwrap_or_default();
    let (age, lifetime) = (seconds("age_seconds"), seconds("lifetime_seconds"));
    let state = match (text("mark"), flag("fresh")) {
        ("stale", _) => "stale: a purge or its origin says so".to_owned(),
        ("invalid", _) => "to be validated: a request has changed its target".to_owned(),
        (_, true) => format!("fresh, {} left", words(lifetime.saturating_sub(age))),
        (_, false) => format!("stale since {}", words(age.saturating_sub(lifetime))),
    };
    let mark = if flag("selected") { '*' } else { ' ' };
    let size = bytes_words(number("body_bytes"));
    let _ = writeln!(page, "\n{mark} {}, {size}, {state}", number("status"));
    let source = text("lifetime_source");
    let source = source.split_once(" (").map_or(source, |(source, _)| source);
    let _ = writeln!(page, "  age       {}", words(age));
    let _ = writeln!(page, "  lifetime  {}: {}", words(lifetime), escape(source));
    if text("name") != target {
        let _ = writeln!(page, "  kept as   {}, for all queries that mean the same", escape(text("name")));
    }
    let tags = variant.get("tags").and_then(Value::as_array);
    let tags: Vec<_> = tags.into_iter().flatten().filter_map(Value::as_str).map(escape).collect();
    if !tags.is_empty() {
        let _ = writeln!(page, "  tags      {}", tags.join(", "));
    }
    for (name, value) in variant.get("vary").and_then(Value::as_object).into_iter().flatten() {
        let name = escape(name);
        let _ = match value.as_str() {
            Some(value) => writeln!(page, "  varies on {name}: {}", escape(value)),
            None => writeln!(page, "  varies on {name}, which was not sent"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_said_as_people_read_it() {
        let variant = json!({
            "selected": true, "status": 200, "age_seconds": 12.2, "lifetime_seconds": 60.0, "fresh": true,
            "lifetime_source": "max-age says how long it is fresh (RFC 9111 section 5.2.2.1)", "mark": "none",
            "name": "http://a/?#x",
            "tags": ["items", "\u{1b}[31m"], "vary": { "accept-encoding": "gzip", "x": null }, "body_bytes": 2048,
        });
        let answer = json!({ "target": "http://a/", "verdict": "ask\nit", "reason": "so" });
        assert_eq!(
            page(&answer, &[variant]),
            "http://a/\nverdict  ask\\nit\nreason   so\nstored   1 response\n\n* 200, 2 KiB, fresh, 47s left\n  \
             age       12s\n  lifetime  1m: max-age says how long it is fresh\n  \
             kept as   http://a/?#x, for all queries that mean the same\n  tags      items, \\u{1b}[31m\n  \
             varies on accept-encoding: gzip\n  varies on x, which was not sent\n"
        );
        let stale = json!({ "name": "http://a/", "fresh": false, "age_seconds": 65, "lifetime_seconds": 5 });
        assert!(page(&answer, &[stale]).contains(" stale since 1m\n"));
    }
}
