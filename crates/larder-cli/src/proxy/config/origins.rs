//! The options of origins and routes.

use std::collections::BTreeSet;

use http::HeaderValue;
use http::uri::{Authority, PathAndQuery};
use larder::Result;
use larder::config::{Entry, Origin};

use super::reader::{Group, Reader};
use super::{Flags, error};
use crate::proxy::upstream::options::{
    Address, Balance, Check, Eject, HostHeader, HostPattern, Limits, OpenProxy, OriginOptions, Protocol,
    Route, Routing, Timeouts, TlsOptions, UpstreamOptions, is_path,
};

/// What the origin of `--origin` and of `origin:` is called.
const ONLY: &str = "default";

pub(super) fn routing(reader: &mut Reader, flags: &Flags) -> Result<Routing> {
    let short = reader.take("origin");
    let named = reader.take("origins");
    let mut origins = Vec::new();
    let upstreams: Vec<Entry> = match (flags.origin.as_slice(), short) {
        ([], None) => Vec::new(),
        ([], Some(entry)) if entry.is_text() || entry.is_list() => entry.list(),
        ([], Some(entry)) => {
            origins.push(origin(reader, ONLY, "origin", Some(entry), Vec::new())?);
            Vec::new()
        }
        (urls, _) => urls.iter().map(|url| Entry::named(url, "--origin")).collect(),
    };
    if !upstreams.is_empty() {
        origins.push(origin(reader, ONLY, "origin", None, upstreams)?);
    }
    // Whoever names an origin on the command line means that one.
    let by_flag = !flags.origin.is_empty();
    if let Some(entry) = named.filter(|_| !by_flag) {
        for (name, entry) in entry.section()?.take_all() {
            if origins.iter().any(|origin| *origin.name == *name) {
                return Err(entry.error("is the name of what \"origin\" says already"));
            }
            let path = format!("origins.{name}");
            origins.push(origin(reader, &name, &path, Some(entry), Vec::new())?);
        }
    }
    let written = reader.take("routes").filter(|_| !by_flag);
    let routes = routes(reader, written, &origins)?;
    let open = open(reader)?;
    Ok(Routing { origins, routes, open, ..Routing::default() })
}

fn open(reader: &mut Reader) -> Result<Option<OpenProxy>> {
    let off = |reader: &mut Reader, origin| reader.show("forward_proxy", "off", origin);
    let Some(entry) = reader.take("forward_proxy") else {
        off(reader, Origin::Default);
        return Ok(None);
    };
    if entry.is_off() {
        off(reader, entry.origin().clone());
        return Ok(None);
    }
    let section = if entry.is_on() { None } else { Some(entry) };
    let mut group = reader.group_of(section, "forward_proxy")?;
    let private = group.boolean("private", false)?;
    let defaults = OriginOptions::new("forward_proxy", Vec::new());
    let target = OriginOptions {
        timeouts: timeouts(group.group("timeouts")?)?,
        limits: limits(group.group("limits")?)?,
        ..defaults
    };
    group.finish()?;
    Ok(Some(OpenProxy { private, target }))
}

fn routes(reader: &mut Reader, written: Option<Entry>, origins: &[OriginOptions]) -> Result<Vec<Route>> {
    let Some(written) = written else {
        let everything = |origin: &OriginOptions| Route {
            host: HostPattern::Any,
            path: "/".to_owned(),
            origin: origin.name.clone(),
            strip: false,
        };
        return match origins {
            [] => Ok(Vec::new()),
            [only] => {
                reader.show("routes.1", format!("*/ to {}", only.name), Origin::Default);
                Ok(vec![everything(only)])
            }
            _ => Err(error("routes: there are several origins, so say which requests go where")),
        };
    };
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for (at, entry) in (1_usize..).zip(written.list()) {
        let place = entry.clone();
        let route = route(entry, origins)?;
        if !seen.insert((route.host.to_string(), route.path.trim_end_matches('/').to_owned())) {
            return Err(place.error("another route has this host and this path"));
        }
        let stripped = if route.strip { ", stripped" } else { "" };
        let shown = format!("{}{} to {}{stripped}", route.host, route.path, route.origin);
        reader.show(&format!("routes.{at}"), shown, place.origin().clone());
        routes.push(route);
    }
    Ok(routes)
}

fn route(entry: Entry, origins: &[OriginOptions]) -> Result<Route> {
    let mut section = entry.section()?;
    let host = match section.take("host") {
        None => HostPattern::Any,
        Some(entry) => entry.parsed(|text| {
            HostPattern::parse(text)
                .ok_or_else(|| "is not a host such as \"example.com\", \"*.example.com\" or \"*\"".to_owned())
        })?,
    };
    let path = match section.take("path") {
        None => "/".to_owned(),
        Some(entry) => entry.parsed(|text| match is_path(text) {
            true => Ok(text.to_owned()),
            false => Err("is not a path such as \"/api\"".to_owned()),
        })?,
    };
    let origin = match (section.take("origin"), origins) {
        (None, [only]) => only.name.clone(),
        (None, _) => return Err(section.error("needs \"origin\": the name of one")),
        (Some(entry), _) => entry.parsed(|text| {
            let found = origins.iter().find(|origin| *origin.name == *text).map(|origin| origin.name.clone());
            let known: Vec<&str> = origins.iter().map(|origin| &*origin.name).collect();
            found.ok_or_else(|| format!("is none of the origins: {}", known.join(", ")))
        })?,
    };
    let strip = section.take("strip").map_or(Ok(false), |entry| entry.boolean())?;
    section.finish()?;
    Ok(Route { host, path, origin, strip })
}

fn origin(
    reader: &mut Reader,
    name: &str,
    path: &str,
    entry: Option<Entry>,
    upstreams: Vec<Entry>,
) -> Result<OriginOptions> {
    // An origin of which nothing is said but its address.
    let (entry, upstreams) = match entry {
        Some(entry) if entry.is_text() || entry.is_list() => (None, entry.list()),
        entry => (entry, upstreams),
    };
    let mut group = reader.group_of(entry, path)?;
    let upstreams = match (upstreams, group.take("url"), group.take("upstreams")) {
        (upstreams, None, None) if !upstreams.is_empty() => upstreams,
        (_, Some(url), None) => vec![url],
        (_, None, Some(list)) => list.list(),
        (_, None, None) => return Err(group.error("needs \"url\", or \"upstreams\", a list of URLs")),
        _ => return Err(group.error("has both \"url\" and \"upstreams\": say one of them")),
    };
    let upstreams = upstreams.into_iter().zip(1_usize..).map(|(entry, at)| upstream(&mut group, entry, at));
    let upstreams = upstreams.collect::<Result<Vec<_>>>()?;
    if upstreams.is_empty() {
        return Err(group.error("has no upstream"));
    }
    let defaults = OriginOptions::new(name, upstreams);
    let balance = match group.choice("balance", &["round_robin", "least_requests"])? {
        "least_requests" => Balance::LeastRequests,
        _ => Balance::RoundRobin,
    };
    let protocol = match group.choice("protocol", &["auto", "http1", "http2"])? {
        "http1" => Protocol::Http1,
        "http2" => Protocol::Http2,
        _ => Protocol::Auto,
    };
    let options = OriginOptions {
        balance,
        protocol,
        host: group.option("host", HostHeader::Auto, read_host, show_host)?,
        retries: group.small("retries", defaults.retries, 0..=16)?,
        upgrades: group.boolean("upgrades", defaults.upgrades)?,
        eject: eject(&mut group)?,
        check: check(&mut group)?,
        tls: tls(group.group("tls")?)?,
        timeouts: timeouts(group.group("timeouts")?)?,
        limits: limits(group.group("limits")?)?,
        ..defaults
    };
    group.finish()?;
    Ok(options)
}

fn upstream(group: &mut Group<'_>, entry: Entry, at: usize) -> Result<UpstreamOptions> {
    let parse = |entry: &Entry| entry.parsed(|text| Address::parse(text).map_err(str::to_owned));
    let origin = entry.origin().clone();
    let (address, weight) = if entry.is_text() {
        (parse(&entry)?, 1)
    } else {
        let mut section = entry.section()?;
        let url = section.take("url").ok_or_else(|| section.error("an upstream needs \"url\""))?;
        let weight = section.take("weight").map_or(Ok(1), |entry| entry.integer(1..=1_000))?;
        section.finish()?;
        (parse(&url)?, u32::try_from(weight).unwrap_or(1))
    };
    let shown = if weight == 1 { address.to_string() } else { format!("{address}, weight {weight}") };
    group.show(&format!("upstreams.{at}"), shown, origin);
    Ok(UpstreamOptions { address, weight })
}

fn read_host(entry: &Entry) -> Result<HostHeader> {
    entry.parsed(|text| match text {
        "auto" => Ok(HostHeader::Auto),
        "pass" => Ok(HostHeader::Pass),
        "upstream" => Ok(HostHeader::Upstream),
        text => {
            let authority = Authority::try_from(text).ok().filter(|host| !host.as_str().contains('@'));
            authority
                .and_then(|host| HeaderValue::from_str(host.as_str()).ok())
                .map(HostHeader::Fixed)
                .ok_or_else(|| "is none of auto, pass and upstream, and no host either".to_owned())
        }
    })
}

fn show_host(host: &HostHeader) -> String {
    match host {
        HostHeader::Auto => "auto".to_owned(),
        HostHeader::Pass => "pass".to_owned(),
        HostHeader::Upstream => "upstream".to_owned(),
        HostHeader::Fixed(host) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
    }
}

fn eject(group: &mut Group<'_>) -> Result<Option<Eject>> {
    let defaults = Eject::default();
    let entry = match group.take("eject") {
        Some(entry) if entry.is_off() => {
            group.show("eject", "off", entry.origin().clone());
            return Ok(None);
        }
        entry => entry.filter(|entry| !entry.is_on()),
    };
    let mut group = group.group_of(entry, "eject")?;
    let eject = Eject {
        failures: group.small("failures", defaults.failures, 1..=1_000)?,
        pause: group.timeout("pause", defaults.pause)?,
    };
    group.finish()?;
    Ok(Some(eject))
}

fn check(group: &mut Group<'_>) -> Result<Option<Check>> {
    let defaults = Check::default();
    let Some(entry) = group.take("check").filter(|entry| !entry.is_off()) else {
        group.show("check", "off", Origin::Default);
        return Ok(None);
    };
    let path = |entry: &Entry| {
        entry.parsed(|text| match PathAndQuery::try_from(text) {
            Ok(path) if text.starts_with('/') => Ok(path),
            _ => Err("is not a path such as \"/health\"".to_owned()),
        })
    };
    if entry.is_text() {
        let path = path(&entry)?;
        group.show("check.path", path.to_string(), entry.origin().clone());
        return Ok(Some(Check { path, ..defaults }));
    }
    let entry = Some(entry).filter(|entry| !entry.is_on());
    let mut group = group.group_of(entry, "check")?;
    let check = Check {
        path: group.option("path", defaults.path, path, PathAndQuery::to_string)?,
        host: group
            .text("host")?
            .map(|host| Authority::try_from(host).map_err(|_| group.error("has a \"host\" that is none")))
            .transpose()?,
        interval: group.timeout("interval", defaults.interval)?,
        timeout: group.timeout("timeout", defaults.timeout)?,
        status: group.option(
            "status",
            defaults.status,
            |entry| entry.parsed(statuses),
            |(least, most)| {
                if least == most { least.to_string() } else { format!("{least}-{most}") }
            },
        )?,
        fall: group.small("fall", defaults.fall, 1..=1_000)?,
        rise: group.small("rise", defaults.rise, 1..=1_000)?,
    };
    group.finish()?;
    Ok(Some(check))
}

/// `200`, or `200-399`.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse().ok().filter(|status| (200..=599).contains(status));
    match (status(least), status(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err("is no status such as 200, and no range such as \"200-399\"".to_owned()),
    }
}

fn tls(mut group: Group<'_>) -> Result<TlsOptions> {
    let verify = group.boolean("verify", true)?;
    let ca = group.text("ca")?.map(Into::into);
    let identity = match (group.text("certificate")?, group.text("key")?) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(group.error("\"certificate\" and \"key\" go together")),
    };
    let server_name = group.text("server_name")?;
    if !verify && ca.is_some() {
        return Err(group.error("says whom to believe (\"ca\") and to believe anybody (\"verify: false\")"));
    }
    group.finish()?;
    Ok(TlsOptions { verify, ca, identity, server_name })
}

fn timeouts(mut group: Group<'_>) -> Result<Timeouts> {
    let defaults = Timeouts::default();
    let timeouts = Timeouts {
        connect: group.timeout("connect", defaults.connect)?,
        response: group.timeout("response", defaults.response)?,
        body: group.timeout("body", defaults.body)?,
        idle: group.duration("idle", defaults.idle)?,
    };
    group.finish()?;
    Ok(timeouts)
}

fn limits(mut group: Group<'_>) -> Result<Limits> {
    let defaults = Limits::default();
    let limits = Limits {
        head_bytes: group.buffer("head_bytes", defaults.head_bytes, 16 << 10)?,
        fields: group.number("fields", defaults.fields, 1..=10_000)?,
        requests: group.number("requests", defaults.requests, 1..=1_000_000)?,
        idle: group.number("idle", defaults.idle, 0..=100_000)?,
    };
    group.finish()?;
    Ok(limits)
}
