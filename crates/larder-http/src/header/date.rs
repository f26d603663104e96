//! HTTP dates (RFC 9110 section 5.6.7), by hand: general parsers take what must be refused (`UTC`, two spaces, two-digit
//! years) and refuse what must be taken (a wrong weekday, `gMT`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
const DAYS: [&[u8]; 7] =
    [b"sunday", b"monday", b"tuesday", b"wednesday", b"thursday", b"friday", b"saturday"];

const SECONDS_OF_A_DAY: i64 = 86_400;

/// Reads a date in any of the three forms. `now` decides the century of two-digit years.
///
/// Letters may be of any case, and the weekday may be any: nothing else is forgiven.
//= https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
//# A recipient that parses a timestamp value in an HTTP field MUST
//# accept all three HTTP-date formats.
pub fn parse(text: &[u8], now: SystemTime) -> Option<SystemTime> {
    let seconds = fixdate(text).or_else(|| asctime(text)).or_else(|| rfc850(text, now))?;
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// Writes a date as `Sun, 06 Nov 1994 08:49:37 GMT`, without parts of a second. Before the year 0 and after 9999 the
/// nearest that can be written.
pub fn format(time: SystemTime) -> String {
    let seconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
    };
    let seconds = seconds.clamp(days(0, 1, 1) * SECONDS_OF_A_DAY, days(10_000, 1, 1) * SECONDS_OF_A_DAY - 1);
    let (day, of_day) = (seconds.div_euclid(SECONDS_OF_A_DAY), seconds.rem_euclid(SECONDS_OF_A_DAY));
    let (year, month, day_of_month) = civil(day);
    let name = |names: &[u8]| {
        let mut letters = names.iter().take(3).map(|letter| char::from(*letter));
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    // The first of January 1970 was a Thursday.
    let weekday = usize::try_from((day + 4).rem_euclid(7)).ok().and_then(|at| DAYS.get(at));
    let month = usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at));
    format!(
        "{}, {day_of_month:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        weekday.map(|names| name(names)).unwrap_or_default(),
        month.map(|names| name(&names[..])).unwrap_or_default(),
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
    )
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn fixdate(text: &[u8]) -> Option<i64> {
    let mut text = Cursor(text);
    text.word(|word| DAYS.iter().any(|day| day.get(..3) == Some(word)))?;
    text.exactly(b", ")?;
    let day = text.number(2)?;
    text.exactly(b" ")?;
    let month = text.month()?;
    text.exactly(b" ")?;
    let year = text.number(4)?;
    text.exactly(b" ")?;
    let time = text.time_of_day()?;
    text.gmt()?;
    instant(year, month, day, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: SystemTime) -> Option<i64> {
    let mut text = Cursor(text);
    text.word(|word| DAYS.contains(&word))?;
    text.exactly(b", ")?;
    let day = text.number(2)?;
    text.exactly(b"-")?;
    let month = text.month()?;
    text.exactly(b"-")?;
    let short = text.number(2)?;
    text.exactly(b" ")?;
    let time = text.time_of_day()?;
    text.gmt()?;
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let (this_year, ..) = civil(now.div_euclid(SECONDS_OF_A_DAY));
    //= https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
    //# Recipients of a timestamp value in rfc850-date format, which uses a
    //# two-digit year, MUST interpret a timestamp that appears to be more
    //# than 50 years in the future as representing the most recent year in
    //# the past that had the same last two digits.
    let in_this_century = this_year - this_year.rem_euclid(100) + short;
    let year = if in_this_century > this_year + 50 { in_this_century - 100 } else { in_this_century };
    instant(year, month, day, time)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<i64> {
    let mut text = Cursor(text);
    text.word(|word| DAYS.iter().any(|day| day.get(..3) == Some(word)))?;
    text.exactly(b" ")?;
    let month = text.month()?;
    text.exactly(b" ")?;
    let day = if text.exactly(b" ").is_some() { text.number(1)? } else { text.number(2)? };
    text.exactly(b" ")?;
    let time = text.time_of_day()?;
    text.exactly(b" ")?;
    let year = text.number(4)?;
    text.end()?;
    instant(year, month, day, time)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn exactly(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// Letters, as far as they go, in lower case.
    fn word(&mut self, is_right: impl Fn(&[u8]) -> bool) -> Option<()> {
        let length = self.0.iter().take(10).take_while(|byte| byte.is_ascii_alphabetic()).count();
        let (word, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        is_right(&word.to_ascii_lowercase()).then_some(())
    }

    fn month(&mut self) -> Option<i64> {
        let (name, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        let at = MONTHS.iter().position(|month| name.eq_ignore_ascii_case(&month[..]))?;
        i64::try_from(at + 1).ok()
    }

    fn number(&mut self, digits: usize) -> Option<i64> {
        let (text, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        text.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    }

    /// `08:49:37`, in seconds. A leap second may be written, and is the next one.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.number(2)?;
        self.exactly(b":")?;
        let minute = self.number(2)?;
        self.exactly(b":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3600 + minute * 60 + second)
    }

    fn gmt(&mut self) -> Option<()> {
        self.0.eq_ignore_ascii_case(b" gmt").then_some(())
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn instant(year: i64, month: i64, day: i64, seconds: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    (1..=length).contains(&day).then(|| days(year, month, day) * SECONDS_OF_A_DAY + seconds)
}

/// Days since 1970-01-01, by Howard Hinnant's `days_from_civil`.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01: the inverse of [`days`].
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// In November 2026.
    fn now() -> SystemTime {
        at(1_795_000_000)
    }

    #[test]
    fn all_three_forms_are_read() {
        // The examples of RFC 9110 section 5.6.7; conditional-lm: conditional-lm-fresh-rfc850.
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(parse(text.as_bytes(), now()), Some(at(784_111_777)), "{text}");
        }
    }

    #[test]
    fn what_old_and_careless_senders_write_is_read() {
        // expires-parse: freshness-expires-32bit, -far-future, -rfc850, -ansi-c, -wrong-case-weekday, -wrong-case-month, -wrong-case-tz.
        for (text, expected) in [
            ("Tue, 19 Jan 2038 14:14:08 GMT", 2_147_523_248),
            ("Sun, 21 Nov 2286 04:46:39 GMT", 10_000_039_599),
            ("Thursday, 18-Aug-50 02:01:18 GMT", 2_544_400_878),
            // A Monday.
            ("Thu Aug  8 02:01:18 2050", 2_543_536_878),
            ("THU, 18 Aug 2050 02:01:18 GMT", 2_544_400_878),
            ("Thu, 18 AUG 2050 02:01:18 GMT", 2_544_400_878),
            ("Thu, 18 Aug 2050 02:01:18 gMT", 2_544_400_878),
            ("Thu, 29 Feb 2024 23:59:60 GMT", 1_709_251_200),
        ] {
            assert_eq!(parse(text.as_bytes(), now()), Some(at(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        // expires-parse: freshness-expires-invalid-utc, -aest, -2-digit-year, -no-comma, -multiple-spaces, -date-dashes,
        // -time-periods, -1-digit-hour; expires: freshness-expires-invalid.
        for text in [
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 2050 02:01:18 GMT+1",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu,18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 8 Aug 2050 02:01:18 GMT",
            "Tue, 29 Feb 2050 02:01:18 GMT",
            "Fri, 30 Feb 2024 02:01:18 GMT",
            "Mon, 29 Feb 2100 02:01:18 GMT",
            "Thu, 31 Apr 2050 02:01:18 GMT",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:60:18 GMT",
            "Thu, 18 Aug 2050 02:01:61 GMT",
            "Xxx, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18 Xxx 2050 02:01:18 GMT",
            "Thursday, 18 Aug 2050 02:01:18 GMT",
            "Thu, 18-Aug-50 02:01:18 GMT",
            "Thu Aug 8 02:01:18 2050",
            "Thu Aug  8 02:01:18 2050 GMT",
            " Thu, 18 Aug 2050 02:01:18 GMT",
            "0",
            "",
            "-1",
            "2050-08-18T02:01:18Z",
        ] {
            assert_eq!(parse(text.as_bytes(), now()), None, "{text}");
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
    //= type=test
    //# MUST interpret a timestamp that appears to be more
    //# than 50 years in the future as representing the most recent year in
    //# the past that had the same last two digits.
    #[test]
    fn two_digits_of_a_year_mean_at_most_fifty_years_ahead() {
        let year = |text: &str, now| format(parse(text.as_bytes(), now).unwrap())[12..16].to_owned();
        assert_eq!(year("Sunday, 06-Nov-76 08:49:37 GMT", now()), "2076");
        assert_eq!(year("Sunday, 06-Nov-77 08:49:37 GMT", now()), "1977");
        assert_eq!(year("Sunday, 06-Nov-00 08:49:37 GMT", now()), "2000");
        // In 2080, 99 is still to come.
        assert_eq!(year("Sunday, 06-Nov-99 08:49:37 GMT", at(3_480_000_000)), "2099");
    }

    #[test]
    fn times_that_cannot_be_written_become_the_nearest_that_can() {
        assert_eq!(format(UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
        let far = UNIX_EPOCH + Duration::from_secs(1 << 60);
        assert_eq!(&format(far)[8..], "Dec 9999 23:59:59 GMT");
        let before = UNIX_EPOCH - Duration::from_secs(1 << 60);
        assert_eq!(&format(before)[8..], "Jan 0000 00:00:00 GMT");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..253_402_300_800) {
            prop_assert_eq!(parse(format(at(seconds)).as_bytes(), now()), Some(at(seconds)));
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..40), seconds in 0_u64..1 << 40) {
            let read = parse(&text, at(seconds));
            prop_assert_eq!(parse(&text, at(seconds)), read);
        }

        #[test]
        fn nor_do_dates_that_are_nearly_right(
            text in "(Sun|sunday|Xyz)(,| ) ?[0-9]{0,4}[ -](Nov|Feb)[ -][0-9]{0,5} [0-9]{1,3}:[0-9]{2}:[0-9]{2} (GMT|gmt|UTC)?"
        ) {
            let read = parse(text.as_bytes(), now());
            // What is read can be written and is read again.
            if let Some(time) = read {
                prop_assert_eq!(parse(format(time).as_bytes(), now()), Some(time));
            }
        }
    }
}
