//! A line of the access log. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use larder::time::Timestamp;
use serde_json::{Map, Value, json};

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The Common Log Format.
    Common,
    /// The same with `Referer` and `User-Agent`.
    Combined,
    /// One JSON object on a line, with what the others have no place for.
    Json,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) client: IpAddr,
    /// When it came.
    pub(crate) at: Timestamp,
    pub(crate) method: &'a Method,
    pub(crate) scheme: &'a str,
    pub(crate) host: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) version: Version,
    pub(crate) status: StatusCode,
    /// Of the body, as it was sent.
    pub(crate) bytes: u64,
    /// From the head of the request to the end of the response.
    pub(crate) took: Duration,
    /// From the head of the request to the head of the response.
    pub(crate) first: Duration,
    pub(crate) referer: Option<&'a [u8]>,
    pub(crate) agent: Option<&'a [u8]>,
    /// What the cache did: `hit`, `miss`, `stale`, or in more words.
    pub(crate) cache: Option<&'a str>,
    /// Which upstream answered, if one did.
    pub(crate) upstream: Option<&'a str>,
    /// Whether all of the response was sent.
    pub(crate) complete: bool,
}

impl Record<'_> {
    /// The line, with its end.
    pub(super) fn line(&self, form: Form) -> String {
        let mut line = match form {
            Form::Common => self.common(),
            Form::Combined => {
                format!("{} \"{}\" \"{}\"", self.common(), escaped(self.referer), escaped(self.agent))
            }
            Form::Json => self.json(),
        };
        line.push('\n');
        line
    }

    fn common(&self) -> String {
        let target = escaped(Some(self.target.as_bytes()));
        let method = escaped(Some(self.method.as_str().as_bytes()));
        let (version, status, bytes) = (version(self.version), self.status.as_u16(), self.bytes);
        let at = Civil::of(self.at).common();
        format!("{} - - [{at}] \"{method} {target} {version}\" {status} {bytes}", self.client)
    }

    fn json(&self) -> String {
        let text =
            |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| json!(String::from_utf8_lossy(bytes)));
        let micros = |duration: Duration| json!(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        let fields = [
            ("time", json!(Civil::of(self.at).iso())),
            ("client", json!(self.client.to_string())),
            ("method", json!(self.method.as_str())),
            ("scheme", json!(self.scheme)),
            ("host", json!(self.host)),
            ("target", json!(self.target)),
            ("protocol", json!(version(self.version))),
            ("status", json!(self.status.as_u16())),
            ("bytes", json!(self.bytes)),
            ("complete", json!(self.complete)),
            ("cache", json!(self.cache)),
            ("upstream", json!(self.upstream)),
            ("first_byte_us", micros(self.first)),
            ("duration_us", micros(self.took)),
            ("referer", text(self.referer)),
            ("user_agent", text(self.agent)),
        ];
        let object: Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        without_steering(&Value::Object(object).to_string()).into_owned()
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP/1.1",
    }
}

/// Bytes between quotes: whatever could end them, make a line or reach a terminal is `\xHH`.
fn escaped(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "-".to_owned() };
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            0x20..=0x7e => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text
}

/// JSON without the characters that it allows and terminals obey: DEL, C1, and what turns the direction of writing.
fn without_steering(json: &str) -> Cow<'_, str> {
    let steers = |letter: char| matches!(letter, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 8);
    for letter in json.chars() {
        if steers(letter) {
            let _ = write!(text, "\\u{:04x}", u32::from(letter));
        } else {
            text.push(letter);
        }
    }
    Cow::Owned(text)
}

/// A moment in the calendar, in UTC.
struct Civil {
    year: u64,
    month: usize,
    day: u64,
    second: u64,
    millis: u64,
}

impl Civil {
    /// By the days of the era of 400 years that begins on the first of March (Hinnant, *chrono-Compatible Low-Level Date
    /// Algorithms*).
    fn of(at: Timestamp) -> Self {
        let millis = at.as_millis();
        let (days, second) = (millis / 86_400_000, millis / 1_000 % 86_400);
        let days = days + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self { year, month: usize::try_from(month).unwrap_or(1), day, second, millis: millis % 1_000 }
    }

    /// `20/Nov/2026:17:05:52 +0000`.
    fn common(&self) -> String {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS.get(self.month.wrapping_sub(1)).copied().unwrap_or("Jan");
        format!("{:02}/{month}/{:04}:{} +0000", self.day, self.year, self.time())
    }

    /// `2026-11-20T17:05:52.000Z`.
    fn iso(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}.{:03}Z", self.year, self.month, self.day, self.time(), self.millis)
    }

    fn time(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.second / 3_600, self.second / 60 % 60, self.second % 60)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record() -> Record<'static> {
        Record {
            client: "192.0.2.1".parse().unwrap(),
            at: Timestamp::from_millis(1_795_194_352_007),
            method: &Method::GET,
            scheme: "https",
            host: "shop.test",
            target: "/a?b=c",
            version: Version::HTTP_2,
            status: StatusCode::OK,
            bytes: 1234,
            took: Duration::from_millis(12),
            first: Duration::from_micros(1_500),
            referer: Some(b"https://shop.test/"),
            agent: None,
            cache: Some("hit"),
            upstream: None,
            complete: true,
        }
    }

    #[test]
    fn lines_look_as_those_who_read_logs_expect() {
        let common = "192.0.2.1 - - [20/Nov/2026:17:05:52 +0000] \"GET /a?b=c HTTP/2.0\" 200 1234";
        assert_eq!(record().line(Form::Common), format!("{common}\n"));
        assert_eq!(record().line(Form::Combined), format!("{common} \"https://shop.test/\" \"-\"\n"));
        let json: Value = serde_json::from_str(&record().line(Form::Json)).unwrap();
        assert_eq!(json["time"], "2026-11-20T17:05:52.007Z");
        assert_eq!((&json["cache"], &json["upstream"]), (&json!("hit"), &Value::Null));
        assert_eq!((&json["first_byte_us"], &json["duration_us"]), (&json!(1_500), &json!(12_000)));
    }

    #[test]
    fn no_client_makes_lines_or_steers_a_terminal() {
        let hostile: Vec<u8> =
            (0..=255).chain(*b"\r\n192.0.2.9 - - \x1b[2J\xc2\x9b31m\xe2\x80\xae\" \\\"").collect();
        let text = String::from_utf8_lossy(&hostile).into_owned();
        let method = Method::from_bytes(b"GET|~").unwrap();
        let record = Record {
            method: &method,
            host: &text,
            target: &text,
            referer: Some(&hostile),
            agent: Some(&hostile),
            cache: Some(&text),
            upstream: Some(&text),
            ..record()
        };
        for form in [Form::Common, Form::Combined, Form::Json] {
            let line = record.line(form);
            let line = line.strip_suffix('\n').unwrap();
            assert!(
                !line.chars().any(|c| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)),
                "{line}"
            );
            if form == Form::Json {
                let json: Value = serde_json::from_str(line).unwrap();
                assert_eq!(json["target"], text);
            } else {
                let open = line.replace("\\\\", "").replace("\\\"", "").matches('"').count();
                assert_eq!(open, if form == Form::Common { 2 } else { 6 });
            }
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (millis, iso) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(Civil::of(Timestamp::from_millis(millis)).iso(), iso);
        }
    }
}
