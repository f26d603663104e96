//! `larder purge`.

use serde_json::{Map, Value, json};

use super::Desk;
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{ask, can_ask, escape, print_line};

/// The most URLs that one request names: what the desk reads has an end.
const URLS_AT_ONCE: usize = 200;

/// What to purge, and how.
#[derive(Debug)]
pub(crate) struct Purging {
    pub(crate) desk: Desk,
    pub(crate) urls: Vec<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) all: bool,
    pub(crate) yes: bool,
    pub(crate) soft: bool,
    pub(crate) dry_run: bool,
    pub(crate) json: bool,
}

/// Asks for all of it, and says what became of it.
pub(crate) async fn purge(purging: Purging) -> Outcome {
    if purging.all && !purging.dry_run {
        confirm(&purging)?;
    }
    let mut done = Vec::new();
    for question in purging.questions() {
        let answer = purging.desk.ask("purging", "/purge", &question).await?;
        let parts = answer.get("done").and_then(Value::as_array).cloned();
        done.extend(parts.ok_or_else(|| Failure::failed("the server did not say what it did"))?);
    }
    let is_any = done.iter().any(was_there);
    if purging.json {
        print_line(json!({ "soft": purging.soft, "dry_run": purging.dry_run, "done": done }))?;
    } else {
        for part in &done {
            say(part, &purging)?;
        }
    }
    Ok(if is_any { FOUND } else { NOT_FOUND })
}

impl Purging {
    /// One request for all, unless there are very many URLs.
    fn questions(&self) -> Vec<Value> {
        let question = || {
            let mut question = Map::new();
            if self.soft {
                question.insert("soft".into(), json!(true));
            }
            if self.dry_run {
                question.insert("dry_run".into(), json!(true));
            }
            question
        };
        let mut questions: Vec<Map<String, Value>> = Vec::new();
        for urls in self.urls.chunks(URLS_AT_ONCE) {
            let mut part = question();
            part.insert("urls".into(), json!(urls));
            questions.push(part);
        }
        let mut rest = question();
        if !self.tags.is_empty() {
            rest.insert("tags".into(), json!(self.tags));
        }
        if let Some(prefix) = &self.prefix {
            rest.insert("prefix".into(), json!(prefix));
        }
        if self.all {
            rest.insert("all".into(), json!(true));
        }
        if rest.len() > question().len() {
            match questions.last_mut() {
                Some(last) => last.append(&mut rest),
                None => questions.push(rest),
            }
        }
        questions.into_iter().map(Value::Object).collect()
    }
}

/// Whether something was purged, or would be, as far as anybody knows.
fn was_there(part: &Value) -> bool {
    let number = |name: &str| part.get(name).and_then(Value::as_u64).is_some_and(|number| number > 0);
    part.get("purged").and_then(Value::as_bool).unwrap_or(false) || number("count") || number("responses")
}

fn say(part: &Value, purging: &Purging) -> Result<(), Failure> {
    let text = |name: &str| part.get(name).and_then(Value::as_str).map(escape);
    let done = match (purging.dry_run, purging.soft) {
        (true, false) => "would be purged",
        (true, true) => "would become stale",
        (false, false) => "purged",
        (false, true) => "stale from now on",
    };
    let targets = |count: u64| if count == 1 { "1 URL".to_owned() } else { format!("{count} URLs") };
    let count = part.get("count").and_then(Value::as_u64).map(targets);
    if let Some(url) = text("url") {
        return if was_there(part) {
            print_line(format_args!("{url}: {done}"))
        } else {
            print_line(format_args!("{url}: nothing is stored"))
        };
    }
    let what = if let Some(prefix) = text("prefix") {
        format!("{prefix}*")
    } else if part.get("all").is_some() {
        "everything".to_owned()
    } else {
        let tags = part.get("tags").and_then(Value::as_array);
        let tags: Vec<_> = tags.into_iter().flatten().filter_map(Value::as_str).map(escape).collect();
        format!("tagged {}", tags.join(", "))
    };
    match count {
        Some(count) => print_line(format_args!("{what}: {count} {done}"))?,
        None => print_line(format_args!("{what}: {done}"))?,
    }
    for target in part.get("targets").and_then(Value::as_array).into_iter().flatten() {
        print_line(format_args!("  {}", escape(target.as_str().unwrap_or_default())))?;
    }
    Ok(())
}

/// Makes sure that somebody means it.
fn confirm(purging: &Purging) -> Result<(), Failure> {
    if purging.yes {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage("purge --all goes on without asking only if told so: add --yes"));
    }
    let what = if purging.soft { "Make stale" } else { "Purge" };
    let question = format!("{what} everything that {} has stored? [y/N] ", purging.desk.name());
    ask(&question, "nothing was purged")
}
