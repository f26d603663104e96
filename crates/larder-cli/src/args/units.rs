//! Durations and sizes as people type them: the same as in a configuration.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use larder::config::{parse_duration, parse_size, parse_ttl};
use larder::time::Ttl;

/// A duration such as `30s`, `10m` or `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.message().to_owned())
}

/// A duration, or `forever`.
pub(crate) fn ttl(text: &str) -> Result<Ttl, String> {
    parse_ttl(text).map_err(|error| error.message().to_owned())
}

/// A number of bytes such as `500`, `500kB` or `64MiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.message().to_owned())
}

/// A share of something: more than nothing, less than all.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = text.trim().parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "expected a share between 0 and 1, such as 0.9".to_owned())
}

/// A field of a request: `Name: value`. What does not name the value says nothing of a secret one.
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| "what stands before the colon is not a name")?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| "the value has control characters")?;
    Ok((name, value))
}

/// A rate such as `20/s`, `100/m` or `5000/h`, as the time between two.
pub(crate) fn rate(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a rate such as 20/s, 100/m or 5000/h".to_owned();
    let (number, unit) = text.trim().split_once('/').ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    let period = Duration::from_secs(seconds) / number;
    if period.is_zero() { Err("is more than can be told from no limit".to_owned()) } else { Ok(period) }
}

/// A number of bytes for people: in its largest unit.
pub(crate) fn bytes_words(bytes: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1_024 {
            break;
        }
        (whole, tenths, unit) = (whole >> 10, ((whole & 1_023) * 10) >> 10, larger);
    }
    if tenths == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenths} {unit}") }
}

/// A duration for people: its two largest units.
pub(crate) fn words(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    if rest == 0 {
        return format!("{}ms", duration.as_millis());
    }
    let mut words = Vec::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if rest >= length {
            words.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    words.truncate(2);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words_that_help() {
        assert_eq!(ttl("1h30m").unwrap(), Ttl::For(Duration::from_secs(5_400)));
        assert!(ttl("10").unwrap_err().contains("10s"));
        assert!(duration("-1s").unwrap_err().contains("negative"));
        assert!(size("x").is_err());
        assert!(share("0.9").is_ok());
        for text in ["0", "1", "-0.5", "NaN", "inf", "90%", ""] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_rate_is_the_time_between_two() {
        assert_eq!(rate("20/s"), Ok(Duration::from_millis(50)));
        assert_eq!(rate("30/m"), Ok(Duration::from_secs(2)));
        for text in ["", "20", "0/s", "-1/s", "1/d", "1.5/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_is_a_name_and_a_value() {
        let (name, value) = header("Accept-Encoding:  gzip ").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("accept-encoding", &b"gzip"[..]));
        for text in ["", "a", ": b", "a b: c", "a: s3cret\r\nx: y"] {
            assert!(!header(text).unwrap_err().contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn bytes_are_said_in_their_largest_unit() {
        for (bytes, said) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1 KiB"),
            (405_504, "396 KiB"),
            (999_934_464, "953.6 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes_words(bytes), said);
        }
    }

    #[test]
    fn words_are_the_two_largest_units() {
        assert_eq!(words(Duration::from_millis(3_723_004)), "1h 2m");
        assert_eq!(words(Duration::from_millis(90_061_000)), "1d 1h");
        assert_eq!(words(Duration::from_millis(42)), "42ms");
    }
}
