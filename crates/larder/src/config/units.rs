//! Durations and sizes as people write them. Knows nothing of files, options or where a text came from.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Ttl;

/// The duration that a text means: `500ms`, `5m`, `1h30m`, `2.5h`, `0`.
///
/// Units are `ns`, `us`, `ms`, `s`, `m`, `h`, `d`, `w` and their long forms (`5 minutes`). A number without a
/// unit is refused, because one half of the world would mean seconds and the other milliseconds; so is `M`,
/// which could be a month or a minute. Zero needs no unit.
///
/// # Errors
/// [`ErrorKind::Config`] says what is wrong with it.
///
/// ```
/// use std::time::Duration;
/// use larder::config::parse_duration;
/// assert_eq!(parse_duration("1h30m")?, Duration::from_secs(5_400));
/// assert_eq!(parse_duration("300").unwrap_err().message(),
///     r#""300" has no unit: write "300s" for seconds or "300ms" for milliseconds"#);
/// # Ok::<(), larder::Error>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    duration(text).map_err(|reason| mistake(text, &reason))
}

/// The TTL that a text means: a duration as [`parse_duration`] takes it, or `forever` (also `never`, `null`).
///
/// # Errors
/// [`ErrorKind::Config`] says what is wrong with it.
///
/// ```
/// use larder::{config::parse_ttl, time::Ttl};
/// assert_eq!(parse_ttl("forever")?, Ttl::Forever);
/// # Ok::<(), larder::Error>(())
/// ```
pub fn parse_ttl(text: &str) -> Result<Ttl> {
    ttl(text).map_err(|reason| mistake(text, &reason))
}

/// The number of bytes that a text means: `64MiB`, `10mb`, `1.5g`, `1_000`; a plain number is bytes.
///
/// Every unit is a power of 1024, however it is written: `kb` = `KB` = `KiB` = `k` = 1024 bytes. That is what
/// `10mb` means to the caches whose configurations are accepted here, and to most that size memory.
///
/// # Errors
/// [`ErrorKind::Config`] says what is wrong with it.
///
/// ```
/// use larder::config::parse_size;
/// assert_eq!(parse_size("10mb")?, 10 * 1024 * 1024);
/// assert_eq!(parse_size("1_000")?, 1_000);
/// # Ok::<(), larder::Error>(())
/// ```
pub fn parse_size(text: &str) -> Result<u64> {
    size(text).map_err(|reason| mistake(text, &reason))
}

/// A duration as [`parse_duration`] reads it back: `1h30m`.
///
/// ```
/// use larder::{config::format_duration, time::minutes};
/// assert_eq!(format_duration(minutes(90)), "1h30m");
/// ```
pub fn format_duration(duration: Duration) -> String {
    if duration.is_zero() {
        return "0".to_owned();
    }
    let mut text = String::new();
    let mut seconds = duration.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            text.push_str(&format!("{}{unit}", seconds / length));
            seconds %= length;
        }
    }
    let mut nanos = duration.subsec_nanos();
    for (unit, length) in [("ms", 1_000_000), ("us", 1_000), ("ns", 1)] {
        if nanos >= length {
            text.push_str(&format!("{}{unit}", nanos / length));
            nanos %= length;
        }
    }
    text
}

/// A TTL as [`parse_ttl`] reads it back.
///
/// ```
/// use larder::{config::format_ttl, time::{Ttl, seconds}};
/// assert_eq!(format_ttl(Ttl::Forever), "forever");
/// assert_eq!(format_ttl(seconds(90).into()), "1m30s");
/// ```
pub fn format_ttl(ttl: Ttl) -> String {
    match ttl {
        Ttl::For(duration) => format_duration(duration),
        Ttl::Forever => "forever".to_owned(),
    }
}

/// A number of bytes as [`parse_size`] reads it back, in the largest unit that keeps it whole.
///
/// ```
/// use larder::config::format_size;
/// assert_eq!(format_size(64 << 20), "64MiB");
/// assert_eq!(format_size(1_000), "1000");
/// ```
pub fn format_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

/// The error of a text that was typed by hand, and so may be shown.
fn mistake(text: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{text:?} {reason}"))
}

/// As [`parse_duration`]; the failure is what is wrong, without the text.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err("is negative".to_owned());
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'_')) {
        if text.bytes().all(|byte| matches!(byte, b'0' | b'.')) && text.contains('0') {
            return Ok(Duration::ZERO);
        }
        return Err(format!("has no unit: write \"{text}s\" for seconds or \"{text}ms\" for milliseconds"));
    }
    if text.contains('M') {
        return Err(
            "has the unit \"M\", which could be months or minutes: write \"m\" for minutes".to_owned()
        );
    }
    humantime::parse_duration(text)
        .map_err(|_| "is not a duration such as \"500ms\", \"5m\" or \"1h30m\"".to_owned())
}

/// As [`parse_ttl`]; the failure is what is wrong, without the text.
pub(crate) fn ttl(text: &str) -> Result<Ttl, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "forever" | "never" | "null" => Ok(Ttl::Forever),
        _ => duration(text)
            .map(Ttl::For)
            .map_err(|reason| reason.replace("or \"1h30m\"", "or \"1h30m\", nor \"forever\"")),
    }
}

/// As [`parse_size`]; the failure is what is wrong, without the text.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let not_a_size = || "is not a size such as \"64MiB\", \"10mb\" or a number of bytes".to_owned();
    let text = text.trim();
    if text.starts_with('-') {
        return Err("is negative".to_owned());
    }
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(not_a_size()),
    };
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || fraction.len() > 9 || (fraction.is_empty() && number.contains('.')) {
        return Err(not_a_size());
    }
    let whole: u64 = whole.parse().map_err(|_| not_a_size())?;
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| not_a_size())? };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let bytes = (u128::from(whole) << shift) + (u128::from(part) << shift) / scale;
    u64::try_from(bytes).map_err(|_| "is more bytes than 64 bits can count".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{hours, minutes, seconds};

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, meant) in [
            ("5m", minutes(5)),
            ("1h30m", minutes(90)),
            ("1h 30m", minutes(90)),
            ("500ms", Duration::from_millis(500)),
            ("2.5h", minutes(150)),
            ("30s", seconds(30)),
            ("5 minutes", minutes(5)),
            ("2d", hours(48)),
            ("0", Duration::ZERO),
            ("0ms", Duration::ZERO),
            (" 0 ", Duration::ZERO),
        ] {
            assert_eq!(duration(text), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_could_mean_two_durations_is_refused() {
        for (text, reason) in [
            ("300", "has no unit: write \"300s\" for seconds or \"300ms\" for milliseconds"),
            ("1.5", "has no unit: write \"1.5s\" for seconds or \"1.5ms\" for milliseconds"),
            ("5M", "has the unit \"M\", which could be months or minutes: write \"m\" for minutes"),
            ("-5m", "is negative"),
            ("", "is not a duration such as \"500ms\", \"5m\" or \"1h30m\""),
            (".", "has no unit: write \".s\" for seconds or \".ms\" for milliseconds"),
            ("5 minuts", "is not a duration such as \"500ms\", \"5m\" or \"1h30m\""),
            ("99999999999999999999h", "is not a duration such as \"500ms\", \"5m\" or \"1h30m\""),
        ] {
            assert_eq!(duration(text), Err(reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn zero_is_not_forever() {
        assert_eq!(ttl("0"), Ok(Ttl::For(Duration::ZERO)));
        for text in ["forever", "Forever", "never", "null"] {
            assert_eq!(ttl(text), Ok(Ttl::Forever), "{text}");
        }
        assert!(ttl("forevr").is_err_and(|reason| reason.contains("forever")));
    }

    #[test]
    fn sizes_are_powers_of_1024_however_they_are_written() {
        for (text, meant) in [
            ("0", 0),
            ("1_000", 1_000),
            ("17", 17),
            ("17b", 17),
            ("64MiB", 64 << 20),
            ("10mb", 10 << 20),
            ("10MB", 10 << 20),
            ("10 m", 10 << 20),
            ("1.5g", 3 << 29),
            ("2tb", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(meant), "{text}");
        }
        for text in ["", "mb", "10mbit", "-1", "1.", ".5m", "1..5k", "1.5.5k", "0x10", "99999999999999999999"]
        {
            assert!(size(text).is_err(), "{text}");
        }
        assert!(size("99999999t").is_err_and(|reason| reason.contains("64 bits")));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for duration_meant in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::new(90_061, 1_002_003),
            Duration::from_millis(1_500),
        ] {
            assert_eq!(duration(&format_duration(duration_meant)), Ok(duration_meant));
        }
        for bytes in [0, 1, 1_000, 1 << 10, 3 << 29, u64::MAX] {
            assert_eq!(size(&format_size(bytes)), Ok(bytes));
        }
    }
}
