//! The options of the server itself: where it listens, what it tells origins, what it keeps, logs and allows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::HeaderName;
use larder::Result;
use larder::config::{Entry, Origin, Secret, StoreConfig, format_duration};

use super::reader::{Group, Reader, timeout};
use super::{
    Admin, CacheOptions, ClientLimits, ClientTimeouts, Flags, Identity, Listen, LogOptions, Status, error,
};
use crate::proxy::forward::{Forwarding, Mode, Network, Pseudonym};
use crate::proxy::http1::wire::head::FIELDS_MAX;
use crate::proxy::log::Form;
use crate::proxy::upstream::options::Reach;

/// Where the server listens unless told otherwise: for this machine alone.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The largest file that a token is read from, in bytes.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// The shortest token that keeps anybody out.
const TOKEN_BYTES_MIN: usize = 16;

/// An address to listen on: `127.0.0.1:8080`, `:8080` (everybody), `8080` (this machine), `localhost:8080`, `[::]:8080`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let not_one =
        || "is not an address such as \"127.0.0.1:8080\", or \":8080\" for all of this machine's".to_owned();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (ip, port) = match text.rsplit_once(':') {
        None => (Ipv4Addr::LOCALHOST, text),
        Some(("", port)) => (Ipv4Addr::UNSPECIFIED, port),
        Some((host, port)) if host.eq_ignore_ascii_case("localhost") => (Ipv4Addr::LOCALHOST, port),
        Some(_) => return Err(not_one()),
    };
    let port = port.parse().map_err(|_| not_one())?;
    Ok((ip, port).into())
}

fn addresses(
    reader: &mut Reader,
    name: &str,
    flags: &[String],
    flag: &str,
) -> Result<Option<Vec<SocketAddr>>> {
    let written = reader.take(name);
    let entries = match (flags, written) {
        ([], None) => return Ok(None),
        ([], Some(entry)) => entry.list(),
        (flags, _) => flags.iter().map(|text| Entry::named(text, flag)).collect(),
    };
    let all = entries.iter().map(|entry| entry.parsed(address)).collect::<Result<Vec<_>>>()?;
    let shown = all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    let origin = entries.first().map_or(Origin::Default, |entry| entry.origin().clone());
    reader.show(name, shown, origin);
    Ok(Some(all))
}

pub(super) fn listen(reader: &mut Reader, flags: &Flags) -> Result<Listen> {
    let plain = addresses(reader, "listen", &flags.listen, "--listen")?;
    let secure = addresses(reader, "listen_tls", &[], "")?.unwrap_or_default();
    let plain = match plain {
        Some(plain) => plain,
        None if secure.is_empty() => {
            reader.show("listen", LISTEN.to_string(), Origin::Default);
            vec![LISTEN]
        }
        None => Vec::new(),
    };
    let mut identities = Vec::new();
    if let Some(entry) = reader.take("tls") {
        let many = entry.is_list();
        for (at, one) in (1_usize..).zip(entry.list()) {
            let path = if many { format!("tls.{at}") } else { "tls".to_owned() };
            let mut group = reader.group_of(Some(one), &path)?;
            let (certificate, key) = (group.text("certificate")?, group.text("key")?);
            let (Some(certificate), Some(key)) = (certificate, key) else {
                return Err(group.error("needs \"certificate\" and \"key\", each a PEM file"));
            };
            identities.push(Identity { certificate: certificate.into(), key: key.into() });
            group.finish()?;
        }
    }
    if secure.is_empty() && !identities.is_empty() {
        return Err(error("tls: is for nothing without an address: \"listen_tls: 0.0.0.0:443\""));
    }
    if !secure.is_empty() && identities.is_empty() {
        return Err(error("listen_tls: needs a certificate: \"tls: { certificate: FILE, key: FILE }\""));
    }
    Ok(Listen { plain, secure, identities })
}

pub(super) fn forwarding(reader: &mut Reader) -> Result<Forwarding> {
    let defaults = Forwarding::default();
    let mut group = reader.group("forwarding")?;
    let mode = |group: &mut Group<'_>, name: &str| {
        group.choice(name, &["set", "append", "pass", "off"]).map(|word| match word {
            "append" => Mode::Append,
            "pass" => Mode::Pass,
            "off" => Mode::Off,
            _ => Mode::Set,
        })
    };
    let options = Forwarding {
        x_forwarded_for: mode(&mut group, "x_forwarded_for")?,
        x_forwarded_proto: mode(&mut group, "x_forwarded_proto")?,
        x_forwarded_host: mode(&mut group, "x_forwarded_host")?,
        forwarded: mode(&mut group, "forwarded")?,
        via: group.boolean("via", defaults.via)?,
        via_response: group.boolean("via_response", defaults.via_response)?,
        pseudonym: match group.take("pseudonym") {
            None => {
                group.show("pseudonym", "a name of its own for each process", Origin::Default);
                defaults.pseudonym
            }
            Some(entry) => {
                let name = entry.parsed(|text| {
                    Pseudonym::new(text).ok_or_else(|| "is not a name: letters, digits, - . _ :".to_owned())
                })?;
                group.show("pseudonym", name.to_string(), entry.origin().clone());
                name
            }
        },
        trusted: group.several("trusted", Vec::new(), |text| Network::parse(text).map_err(str::to_owned))?,
        allow: group.several("allow", Vec::new(), |text| {
            HeaderName::from_bytes(text.trim().as_bytes())
                .map_err(|_| "is not the name of a field".to_owned())
        })?,
    };
    group.finish()?;
    Ok(options)
}

pub(super) fn cache(reader: &mut Reader, flags: &Flags) -> Result<CacheOptions> {
    let defaults = CacheOptions::default();
    let mut group = reader.group("cache")?;
    let only = flags.cache_only.iter().map(|text| Entry::named(text, "--cache-only")).collect();
    let by_default = flags.cache_by_default.as_ref().map(|text| Entry::named(text, "--cache-by-default"));
    let options = CacheOptions {
        only: group.several("only", only, |text| {
            Reach::parse(text).ok_or_else(|| {
                "is neither a host nor a path, such as \"example.com\", \"*.example.com/img\" or \"/img\""
                    .to_owned()
            })
        })?,
        by_default: group.flagged(
            "by_default",
            by_default,
            defaults.by_default,
            Entry::duration,
            |value| format_duration(*value),
        )?,
        heuristic_percent: group.small("heuristic_percent", defaults.heuristic_percent, 0..=100)?,
        heuristic_max: group.duration("heuristic_max", defaults.heuristic_max)?,
        stale_while_revalidate: group.duration("stale_while_revalidate", defaults.stale_while_revalidate)?,
        stale_if_error: group.duration("stale_if_error", defaults.stale_if_error)?,
        stale_if_disconnected: group.or_forever("stale_if_disconnected", None, Entry::duration)?,
        variants_max: group.number("variants", defaults.variants_max, 1..=100_000)?,
        keep: group.duration("keep", defaults.keep)?,
        body_bytes_max: group.bytes("body_bytes", defaults.body_bytes_max)?,
        memory_bytes_max: group.bytes("memory_bytes", defaults.memory_bytes_max)?,
        status: match group.choice("status", &["outcome", "off", "reasons"])? {
            "off" => Status::Off,
            "reasons" => Status::Reasons,
            _ => Status::Outcome,
        },
        name: group.option(
            "name",
            defaults.name,
            |entry| {
                entry.parsed(|text| {
                    // It is a token in a structured field, which begins with a letter.
                    let token =
                        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
                    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
                    if starts && text.bytes().all(token) {
                        Ok(text.to_owned())
                    } else {
                        Err("is not a name that begins with a letter".to_owned())
                    }
                })
            },
            String::clone,
        )?,
    };
    group.finish()?;
    Ok(options)
}

pub(super) fn store(reader: &mut Reader, flags: &Flags) -> Result<Option<StoreConfig>> {
    let written = reader.take("store");
    let store = match (&flags.store, written) {
        (Some(url), _) => StoreConfig::from_url(url, "--store")?,
        (None, Some(entry)) => entry.store()?,
        (None, None) => {
            reader.show("store", "serve.db in the user's cache folder", Origin::Default);
            return Ok(None);
        }
    };
    reader.show("store", store.to_string(), store.origin().clone());
    Ok(Some(store))
}

pub(super) fn log(reader: &mut Reader, flags: &Flags) -> Result<LogOptions> {
    let mut group = reader.group("log")?;
    let written = group.take("access");
    let entry = flags.access_log.as_ref().map(|form| Entry::named(form, "--access-log")).or(written);
    let access = match &entry {
        None => None,
        Some(entry) if entry.is_off() => None,
        Some(entry) => Some(match entry.choice(&["none", "common", "combined", "json"])? {
            "common" => Form::Common,
            "combined" => Form::Combined,
            _ => Form::Json,
        }),
    };
    let name = match access {
        None => "none",
        Some(Form::Common) => "common",
        Some(Form::Combined) => "combined",
        Some(Form::Json) => "json",
    };
    group.show("access", name, entry.map_or(Origin::Default, |entry| entry.origin().clone()));
    let file = group.text("file")?.filter(|file| file != "-").map(PathBuf::from);
    if file.is_none() {
        group.show("file", "standard error", Origin::Default);
    }
    group.finish()?;
    Ok(LogOptions { access, file })
}

/// Where a token comes from, if nothing else says one.
const TOKEN_VARIABLE: &str = "LARDER_ADMIN_TOKEN";

pub(super) fn admin(reader: &mut Reader, flags: &Flags) -> Result<Option<Admin>> {
    let entry = reader.take("admin").filter(|entry| !entry.is_off());
    let flag = flags.admin.as_ref().map(|listen| Entry::named(listen, "--admin"));
    if entry.is_none() && flag.is_none() {
        if flags.admin_token_file.is_some() {
            return Err(error("--admin-token-file is of no use without --admin ADDRESS"));
        }
        reader.show("admin", "off", Origin::Default);
        return Ok(None);
    }
    let mut group = reader.group_of(entry, "admin")?;
    let written = group.take("listen");
    let Some(listen) = flag.or(written) else {
        return Err(group.error("needs \"listen\", an address of its own"));
    };
    let origin = listen.origin().clone();
    let listen = listen.parsed(address)?;
    group.show("listen", listen.to_string(), origin);
    let file = flags.admin_token_file.as_ref().map(|file| Entry::named(file, "--admin-token-file"));
    let token = match (file, group.take("token"), group.take("token_file")) {
        (None, Some(_), Some(_)) => {
            return Err(group.error("has both \"token\" and \"token_file\": say one of them"));
        }
        (None, Some(entry), None) => {
            group.show("token", "***", entry.origin().clone());
            let token = entry.secret()?;
            long_enough(&entry, token.expose())?;
            token
        }
        (Some(entry), ..) | (None, None, Some(entry)) => {
            let file = entry.text()?;
            let token = read_token(&file)
                .map_err(|error| entry.error(format_args!("cannot read the token in {file}: {error}")))?;
            group.show("token_file", file, entry.origin().clone());
            long_enough(&entry, &token)?;
            Secret::new(token)
        }
        (None, None, None) => {
            let Some(token) = flags.admin_token.clone() else {
                return Err(group.error(
                    "needs \"token\" or \"token_file\", or --admin-token-file FILE, or the variable \
                     LARDER_ADMIN_TOKEN: nobody is let in without",
                ));
            };
            let entry = Entry::named("", TOKEN_VARIABLE);
            group.show("token", "***", entry.origin().clone());
            long_enough(&entry, token.expose())?;
            token
        }
    };
    group.finish()?;
    Ok(Some(Admin { listen, token }))
}

fn long_enough(entry: &Entry, token: &str) -> Result<()> {
    if token.len() < TOKEN_BYTES_MIN || token.chars().any(|letter| letter.is_control() || letter == ' ') {
        return Err(
            entry.error(format_args!("a token has at least {TOKEN_BYTES_MIN} characters, and no spaces"))
        );
    }
    Ok(())
}

fn read_token(file: &str) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut token = String::new();
    std::fs::File::open(file)?.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut token)?;
    Ok(token.trim().to_owned())
}

pub(super) fn limits(reader: &mut Reader) -> Result<ClientLimits> {
    let defaults = ClientLimits::default();
    let mut group = reader.group("limits")?;
    let limits = ClientLimits {
        connections: group.number("connections", defaults.connections, 1..=1_000_000)?,
        head_bytes: group.buffer("head_bytes", defaults.head_bytes, 1 << 10)?,
        target_bytes: group.buffer("target_bytes", defaults.target_bytes, 256)?,
        fields: group.number("fields", defaults.fields, 1..=i64::try_from(FIELDS_MAX).unwrap_or(i64::MAX))?,
        trailer_bytes: group.buffer("trailer_bytes", defaults.trailer_bytes, 0)?,
        body_bytes: group.bytes("body_bytes", defaults.body_bytes)?,
    };
    group.finish()?;
    Ok(limits)
}

pub(super) fn timeouts(reader: &mut Reader) -> Result<ClientTimeouts> {
    let defaults = ClientTimeouts::default();
    let mut group = reader.group("timeouts")?;
    let timeouts = ClientTimeouts {
        handshake: group.timeout("handshake", defaults.handshake)?,
        head: group.timeout("head", defaults.head)?,
        idle: group.timeout("idle", defaults.idle)?,
        body: group.timeout("body", defaults.body)?,
        write: group.timeout("write", defaults.write)?,
        tunnel: group.or_forever("tunnel", defaults.tunnel, timeout)?,
        shutdown: group.duration("shutdown", defaults.shutdown)?,
    };
    group.finish()?;
    Ok(timeouts)
}
