//! `larder check`.

use larder::config::Config;
use serde_json::json;

use super::print_json;
use crate::args::high::Document;
use crate::failure::{FAILED, FOUND, Failure, Outcome};
use crate::output::{escape, print_bytes, print_line};
use crate::progress::Progress;
use crate::store::{reach, registry};

/// Says what a configuration means and, if asked, whether its stores can be reached. Creates none.
pub(crate) async fn check(document: &Document, connect: bool, json: bool) -> Outcome {
    let config = read(document)?;
    if json {
        for line in config.explain(&registry())? {
            print_json([
                ("cache", json!(line.stack)),
                ("option", json!(line.option)),
                ("value", json!(line.value)),
                ("origin", json!(line.origin.to_string())),
            ])?;
        }
    } else {
        print_bytes(config.describe(&registry())?.as_bytes())?;
    }
    advise(&config, json)?;
    if !connect {
        return Ok(FOUND);
    }
    let mut status = FOUND;
    for (name, stack) in &config.stacks {
        let error = Progress::new("connecting").watch(reach(name, stack)).await.err();
        if error.is_some() {
            status = FAILED;
        }
        let error = error.map(|error| error.to_string());
        if json {
            print_json([
                ("cache", json!(name)),
                ("reached", json!(error.is_none())),
                ("error", json!(error)),
            ])?;
        } else {
            let outcome = error.map_or("reached".to_owned(), |error| escape(&error).into_owned());
            print_line(format_args!("{}: {outcome}", escape(name)))?;
        }
    }
    Ok(status)
}

/// The configuration that a document is, be it one of another cache.
fn read(document: &Document) -> Result<Config, Failure> {
    let mut config = Config::default();
    let (name, stack) = match document {
        Document::Config(file) => return Ok(Config::load(file)?),
        Document::Beego(adapter, file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::io(format!("read {}", escape(&file.to_string_lossy())), &error))?;
            (adapter.as_str(), Config::from_beego(adapter, &text)?)
        }
        Document::Beignet => ("beignet", Config::from_beignet_env()?),
    };
    config.stacks.insert(name.to_owned(), stack);
    Ok(config)
}

/// Says which options contradict each other. Not an error: everything would work.
fn advise(config: &Config, json: bool) -> Result<(), Failure> {
    for found in config.advise(&registry())? {
        let advice = &found.advice;
        if json {
            print_json([
                ("cache", json!(found.stack)),
                ("advice", json!(advice.id)),
                ("severity", json!(advice.severity.to_string())),
                ("what", json!(advice.what)),
                ("why", json!(advice.why)),
                ("cure", json!(advice.cure)),
            ])?;
        } else {
            let name = found.stack.as_deref().map(|name| format!("{}: ", escape(name)));
            print_line(format_args!("{}{}", name.unwrap_or_default(), escape(&advice.to_string())))?;
        }
    }
    Ok(())
}
