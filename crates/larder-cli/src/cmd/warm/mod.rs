//! `larder warm`: asks a cache for many URLs, so that it has them.

mod gzip;
mod sitemap;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::{CONTENT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use larder::time::{Clock as _, SystemClock};
use larder_http::Body;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::args::units::{bytes_words, words};
use crate::failure::{FOUND, Failure, NOT_FOUND, Outcome};
use crate::output::{escape, note, print_line};
use crate::progress::Progress;
use crate::proxy::client::{Address, Client, believable, drain, read};
use sitemap::Named;

/// The largest list or sitemap that is read, in bytes, compressed or not: somewhat more than a sitemap may be.
const SOURCE_BYTES_MAX: usize = 64 << 20;
/// The most URLs.
const URLS_MAX: usize = 1_000_000;
/// The most sitemaps that are read: as many as an index may name.
const SITEMAPS_MAX: usize = 50_000;
/// How deep indexes of sitemaps may be: they list no indexes, by their specification.
const DEPTH_MAX: usize = 2;
/// How many of those that failed are named.
const NAMED_MAX: usize = 100;
/// What this is called where it asks.
const AGENT: &str = concat!("larder-warm/", env!("CARGO_PKG_VERSION"));

/// What to ask for, and how.
#[derive(Debug)]
pub(crate) struct Warming {
    pub(crate) source: Source,
    /// Who is asked; `None`: whoever is at each URL.
    pub(crate) through: Option<Address>,
    /// The least time between the beginnings of two requests.
    pub(crate) every: Option<Duration>,
    pub(crate) concurrency: usize,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificates that are believed in place of the platform's.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) json: bool,
}

/// Where the URLs are.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Url(String),
    Stdin,
}

/// Asks for all of it.
pub(crate) async fn warm(warming: Warming) -> Outcome {
    if let Some(ca) = &warming.ca {
        believable(ca).map_err(|why| Failure::usage(format!("--ca: {why}")))?;
    }
    let asking = Asking::new(&warming);
    let urls = Progress::new("reading").watch(asking.urls(&warming.source)).await?;
    let clock = SystemClock::default();
    let progress = Progress::new("warming").of(urls.len() as u64);
    let (asking, shown) = (&asking, &progress);
    let each = stream::iter(urls.iter().map(|url| async move {
        let became = asking.fetch(url).await;
        shown.advance();
        (url, became)
    }));
    let mut sum = Sum::default();
    progress
        .watch(each.buffer_unordered(warming.concurrency).for_each(|(url, became)| {
            sum.add(url, became);
            std::future::ready(())
        }))
        .await;
    sum.print(urls.len(), clock.monotonic(), warming.json)?;
    Ok(if sum.failed == 0 { FOUND } else { NOT_FOUND })
}

/// What became of one request.
struct Became {
    status: StatusCode,
    cache: &'static str,
    bytes: u64,
}

/// Whoever asks: with one client for each host.
struct Asking<'a> {
    warming: &'a Warming,
    headers: HeaderMap,
    clients: Mutex<HashMap<String, Arc<Client>>>,
    turn: Option<tokio::sync::Mutex<Interval>>,
}

impl<'a> Asking<'a> {
    fn new(warming: &'a Warming) -> Self {
        let mut headers = HeaderMap::new();
        for (name, value) in &warming.headers {
            headers.append(name, value.clone());
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        let turn = warming.every.map(|every| {
            let mut turns = interval(every);
            // What was late is not made up for: never more than the rate.
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(turns)
        });
        Self { warming, headers, clients: Mutex::default(), turn }
    }

    /// All URLs that are named, each once, in their order.
    async fn urls(&self, source: &Source) -> Result<Vec<String>, Failure> {
        let (name, bytes) = match source {
            Source::Stdin => ("standard input".to_owned(), Some(read_whole(io::stdin().lock()))),
            Source::File(file) => (file.display().to_string(), Some(File::open(file).and_then(read_whole))),
            Source::Url(url) => (url.clone(), None),
        };
        let unreadable = |name: &str, why: &dyn fmt::Display| {
            Failure::usage(format!("cannot read {}: {why}", escape(name)))
        };
        let bytes = bytes.transpose().map_err(|error| unreadable(&name, &error))?;
        let (mut urls, mut known) = (Vec::new(), HashSet::new());
        let (mut rest, mut sitemaps_read) = (vec![(name, bytes, 1)], 0);
        while let Some((name, bytes, depth)) = rest.pop() {
            // One at a time: together they may be more than there is room for.
            let bytes = match bytes {
                Some(bytes) => bytes,
                None => self.sitemap(&name).await?,
            };
            sitemaps_read += 1;
            if sitemaps_read > SITEMAPS_MAX {
                let what = format_args!("it is one of more than {SITEMAPS_MAX} sitemaps: warm them in parts");
                return Err(unreadable(&name, &what));
            }
            let bytes = gzip::unpacked(bytes, SOURCE_BYTES_MAX).map_err(|why| unreadable(&name, &why))?;
            match sitemap::read(&bytes).map_err(|error| unreadable(&name, &error))? {
                Named::Pages(pages) => {
                    urls.extend(pages.into_iter().filter(|page| known.insert(page.clone())));
                    if urls.len() > URLS_MAX {
                        return Err(Failure::usage(format!(
                            "{} and those before name more than {URLS_MAX} URLs: warm them in parts",
                            escape(&name)
                        )));
                    }
                }
                Named::Sitemaps(_) if depth >= DEPTH_MAX => {
                    let what = "is an index of sitemaps within an index, which sitemaps do not have";
                    return Err(Failure::usage(format!("{} {what}", escape(&name))));
                }
                Named::Sitemaps(sitemaps) => {
                    // The last that goes in is the first that comes out.
                    let new: Vec<_> =
                        sitemaps.into_iter().filter(|sitemap| known.insert(sitemap.clone())).collect();
                    rest.extend(new.into_iter().rev().map(|sitemap| (sitemap, None, depth + 1)));
                }
            }
        }
        Ok(urls)
    }

    /// What a sitemap's URL is answered with.
    async fn sitemap(&self, url: &str) -> Result<Vec<u8>, Failure> {
        let failed = |why: String| Failure::failed(format!("cannot read {}: {}", escape(url), escape(&why)));
        let response = self.ask(url).await.map_err(failed)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(failed(format!("it was answered with {}", status.as_u16())));
        }
        // Of gzip, its bytes say more than the field: many a server does not know what its files are.
        let is_readable = |coding: &str| {
            ["gzip", "x-gzip", "identity", ""].iter().any(|is| coding.trim().eq_ignore_ascii_case(is))
        };
        for coding in response.headers().get_all(CONTENT_ENCODING) {
            let coding = coding.to_str().unwrap_or("something that is no text");
            if !coding.split(',').all(is_readable) {
                return Err(failed(format!("its coding is {coding}, and only gzip is read here")));
            }
        }
        read(response.into_body(), SOURCE_BYTES_MAX).await.map_err(|error| failed(error.to_string()))
    }

    async fn fetch(&self, url: &str) -> Result<Became, String> {
        if let Some(turn) = &self.turn {
            turn.lock().await.tick().await;
        }
        let response = self.ask(url).await?;
        let (parts, body) = response.into_parts();
        let mut bytes = 0;
        drain(body, |piece| {
            bytes += piece.len() as u64;
            Ok(())
        })
        .await
        .map_err(|error| format!("its answer broke off: {error}"))?;
        Ok(Became { status: parts.status, cache: cache_word(&parts.headers), bytes })
    }

    async fn ask(&self, url: &str) -> Result<Response<Body>, String> {
        let uri: Uri = url.parse().map_err(|_| "it is not a URL".to_owned())?;
        let client = self.client(&uri)?;
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        client.send(request).await.map_err(|error| error.cause().to_string())
    }

    /// Who is asked for a URL.
    fn client(&self, uri: &Uri) -> Result<Arc<Client>, String> {
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("it is not an http:// or https:// URL".to_owned());
        };
        let own = Address::parse(&format!("{scheme}://{authority}")).map_err(|why| format!("it {why}"))?;
        let mut clients = self.clients.lock();
        let name = own.to_string();
        if let Some(client) = clients.get(&name) {
            return Ok(client.clone());
        }
        let (host, ca) = (own.host.clone(), self.warming.ca.as_deref());
        let client = Arc::new(match &self.warming.through {
            Some(through) => Client::new(through.clone(), Some(host), ca)?,
            None => Client::new(own, None, ca)?,
        });
        clients.insert(name, client.clone());
        Ok(client)
    }
}

fn read_whole(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > SOURCE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {SOURCE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// What the cache that was asked says that it did (RFC 9211: the last of those on the way), in a word.
fn cache_word(headers: &HeaderMap) -> &'static str {
    let last = headers.get_all("cache-status").iter().next_back().and_then(|value| value.to_str().ok());
    // No name or detail of ours has a comma in it; in one that has, the word may be wrong and nothing else is.
    let Some(last) = last.and_then(|value| value.rsplit(',').next()) else { return "not said" };
    let parameter = |name: &str| {
        last.split(';').skip(1).map(str::trim).find_map(|part| match part.split_once('=') {
            Some((is, value)) if is == name => Some(value),
            None if part == name => Some(""),
            _ => None,
        })
    };
    match (parameter("hit"), parameter("ttl"), parameter("fwd"), parameter("stored")) {
        (Some(_), Some(ttl), ..) if ttl.starts_with('-') => "stale",
        (Some(_), ..) => "hit",
        (.., Some(_)) => "stored",
        (_, _, Some("stale"), _) => "validated",
        (_, _, Some(_), _) => "not stored",
        _ => "not said",
    }
}

/// What became of all.
#[derive(Default)]
struct Sum {
    cache: BTreeMap<&'static str, u64>,
    status: BTreeMap<u16, u64>,
    bytes: u64,
    failed: u64,
    unanswered: u64,
    failures: Vec<(String, String)>,
}

impl Sum {
    fn add(&mut self, url: &str, became: Result<Became, String>) {
        let why = match became {
            Ok(became) => {
                *self.cache.entry(became.cache).or_default() += 1;
                *self.status.entry(became.status.as_u16()).or_default() += 1;
                self.bytes += became.bytes;
                if became.status.as_u16() < 400 {
                    return;
                }
                format!("it was answered with {}", became.status.as_u16())
            }
            Err(why) => {
                self.unanswered += 1;
                why
            }
        };
        self.failed += 1;
        if self.failures.len() < NAMED_MAX {
            self.failures.push((url.to_owned(), why));
        }
    }

    fn print(&self, urls: usize, took: Duration, as_json: bool) -> Result<(), Failure> {
        if as_json {
            let counts = |counts: &mut dyn Iterator<Item = (String, u64)>| -> Value {
                counts.map(|(name, count)| (name, json!(count))).collect::<Map<_, _>>().into()
            };
            let failures = self.failures.iter().map(|(url, why)| json!({ "url": url, "why": why }));
            return print_line(json!({
                "urls": urls,
                "failed": self.failed,
                "unanswered": self.unanswered,
                "bytes": self.bytes,
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "cache": counts(&mut self.cache.iter().map(|(word, count)| ((*word).to_owned(), *count))),
                "status": counts(&mut self.status.iter().map(|(status, count)| (status.to_string(), *count))),
                "failures": failures.collect::<Vec<_>>(),
            }));
        }
        for (url, why) in &self.failures {
            note(format_args!("{}: {}", escape(url), escape(why)));
        }
        if self.failed > self.failures.len() as u64 {
            note(format_args!("and {} more failed", self.failed - self.failures.len() as u64));
        }
        let list = |parts: Vec<String>| parts.join(", ");
        let plural = if urls == 1 { "" } else { "s" };
        let (bytes, took) = (bytes_words(self.bytes), words(took));
        print_line(format_args!("{urls} URL{plural}, {bytes}, in {took}; {} failed", self.failed))?;
        if !self.cache.is_empty() {
            let cache = self.cache.iter().map(|(word, count)| format!("{word} {count}")).collect();
            print_line(format_args!("cache   {}", list(cache)))?;
        }
        let mut status: Vec<String> =
            self.status.iter().map(|(status, count)| format!("{status} {count}")).collect();
        if self.unanswered > 0 {
            status.push(format!("none {}", self.unanswered));
        }
        if !status.is_empty() {
            print_line(format_args!("status  {}", list(status)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_last_cache_did_is_said_in_a_word() {
        for (fields, word) in [
            (&[][..], "not said"),
            (&["Larder; hit; ttl=59"], "hit"),
            (&["Larder; hit; ttl=-3"], "stale"),
            (&["Larder; fwd=uri-miss; stored"], "stored"),
            (&["Larder; fwd=uri-miss"], "not stored"),
            (&["Larder; fwd=stale; fwd-status=304"], "validated"),
            (&["Origin; hit, Larder; fwd=uri-miss; stored"], "stored"),
            (&["Origin; hit", "Larder; fwd=uri-miss"], "not stored"),
            (&["hit"], "not said"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("cache-status", HeaderValue::from_static(field));
            }
            assert_eq!(cache_word(&headers), word, "{fields:?}");
        }
    }
}
