//! `Range` and `Content-Range` in bytes (RFC 9110 section 14).

use http::{HeaderMap, HeaderValue, header};

use super::trim;

/// The most ranges of one request. One that asks for more is answered as if it asked for none.
//= https://www.rfc-editor.org/rfc/rfc9110#section-14.2
//# A server that supports range requests MAY ignore or reject a Range
//# header field that contains an invalid ranges-specifier
//# (Section 14.1.1), a ranges-specifier with more than two overlapping
//# ranges, or a set of many small ranges that are not listed in
//# ascending order
pub const RANGES_MAX: usize = 64;

/// The bytes from `first` to `last`, both counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Where it begins, from 0.
    pub first: u64,
    /// Where it ends; never less than `first`.
    pub last: u64,
}

impl Span {
    /// From one byte to another; `None` if that is backwards.
    pub fn new(first: u64, last: u64) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// This many bytes from the beginning on; `None` for none.
    pub fn whole(length: u64) -> Option<Self> {
        Some(Self { first: 0, last: length.checked_sub(1)? })
    }

    /// How many bytes it is.
    pub fn bytes(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether all of another is in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// One range that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-b`, both counted in.
    Between(u64, u64),
    /// `a-`.
    From(u64),
    /// `-n`: the last bytes.
    Last(u64),
}

impl ByteRange {
    fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|byte| *byte == b'-')?;
        let (first, last) = (text.get(..dash)?, text.get(dash + 1..)?);
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Self::Last(number(last)?)),
            (false, true) => Some(Self::From(number(first)?)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Between(first, last))
            }
        }
    }

    /// The bytes it means of so many; `None` if there are none of them.
    pub fn of(&self, length: u64) -> Option<Span> {
        let end = length.checked_sub(1)?;
        match *self {
            Self::Between(first, last) => (first <= end).then_some(Span { first, last: last.min(end) }),
            Self::From(first) => (first <= end).then_some(Span { first, last: end }),
            Self::Last(0) => None,
            Self::Last(count) => Some(Span { first: length.saturating_sub(count), last: end }),
        }
    }
}

/// Digits. More than can be counted is the most that can.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add((digit - b'0').into())))
}

/// The ranges of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges(Vec<ByteRange>);

impl Ranges {
    /// Reads `Range`. `None` if it is absent, in another unit, malformed, or asks for more than [`RANGES_MAX`]: then
    /// the whole is asked for.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::RANGE).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        Self::parse_value(value)
    }

    fn parse_value(value: &HeaderValue) -> Option<Self> {
        let (unit, set) = value.as_bytes().split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes=") {
            return None;
        }
        let mut ranges = Vec::new();
        for member in set.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
            if ranges.len() == RANGES_MAX {
                return None;
            }
            ranges.push(ByteRange::parse(member)?);
        }
        (!ranges.is_empty()).then_some(Self(ranges))
    }

    /// As they were asked for.
    pub fn as_slice(&self) -> &[ByteRange] {
        &self.0
    }

    /// The bytes they mean of so many, in the order asked for; empty if none can be satisfied. `None` if they are not
    /// worth answering: more than two of them overlap, or together they are more than the whole.
    pub fn of(&self, length: u64) -> Option<Vec<Span>> {
        let spans: Vec<Span> = self.0.iter().filter_map(|range| range.of(length)).collect();
        //= https://www.rfc-editor.org/rfc/rfc9110#section-14.2
        //# a ranges-specifier with more than two overlapping ranges
        let overlapping = spans
            .iter()
            .enumerate()
            .flat_map(|(at, span)| spans.iter().skip(at + 1).filter(|other| span.overlaps(other)));
        // Two that overlap could still be twice the whole.
        let bytes = spans.iter().fold(0_u64, |sum, span| sum.saturating_add(span.bytes()));
        (overlapping.count() < 2 && bytes <= length).then_some(spans)
    }
}

/// `Content-Range` of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// What the content is; `None` for `*`, where no range could be satisfied.
    pub span: Option<Span>,
    /// How long the whole is; `None` if the sender did not know.
    pub complete_bytes: Option<u64>,
}

impl ContentRange {
    /// Reads the field; `None` if it is absent, repeated, in another unit or contradicts itself.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_RANGE).iter();
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        let (unit, rest) = value.as_bytes().split_at_checked(6)?;
        if !unit.eq_ignore_ascii_case(b"bytes ") {
            return None;
        }
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        let (range, complete) = (trim(rest.get(..slash)?), trim(rest.get(slash + 1..)?));
        let complete_bytes = if complete == b"*" { None } else { Some(number(complete)?) };
        if range == b"*" {
            return complete_bytes.map(|_| Self { span: None, complete_bytes });
        }
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let span = Span::new(number(range.get(..dash)?)?, number(range.get(dash + 1..)?)?)?;
        // A number that cannot be counted is no position in anything.
        let is_inside = complete_bytes.is_none_or(|length| span.last < length) && span.last < u64::MAX;
        is_inside.then_some(Self { span: Some(span), complete_bytes })
    }

    /// As the field has it.
    pub fn to_value(&self) -> HeaderValue {
        let span = self.span.map_or("*".to_owned(), |span| format!("{}-{}", span.first, span.last));
        let complete = self.complete_bytes.map_or("*".to_owned(), |bytes| bytes.to_string());
        HeaderValue::try_from(format!("bytes {span}/{complete}"))
            .unwrap_or(HeaderValue::from_static("bytes */*"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    fn ranges(value: &str) -> Option<Ranges> {
        Ranges::parse(&headers(header::RANGE, value))
    }

    fn spans(value: &str, length: u64) -> Option<Vec<(u64, u64)>> {
        let spans = ranges(value)?.of(length)?;
        Some(spans.iter().map(|span| (span.first, span.last)).collect())
    }

    #[test]
    fn ranges_mean_what_the_examples_of_the_rfc_say() {
        // RFC 9110 section 14.1.2, of 10000 bytes; partial: partial-store-complete-reuse-partial, -no-last, -suffix.
        assert_eq!(spans("bytes=0-499", 10_000), Some(vec![(0, 499)]));
        assert_eq!(spans("bytes=500-999", 10_000), Some(vec![(500, 999)]));
        assert_eq!(spans("bytes=-500", 10_000), Some(vec![(9500, 9999)]));
        assert_eq!(spans("bytes=9500-", 10_000), Some(vec![(9500, 9999)]));
        assert_eq!(spans("bytes=0-0,-1", 10_000), Some(vec![(0, 0), (9999, 9999)]));
        assert_eq!(
            spans("Bytes= 0-999, 4500-5499, -1000", 10_000),
            Some(vec![(0, 999), (4500, 5499), (9000, 9999)])
        );
        assert_eq!(spans("bytes=-20000", 10_000), Some(vec![(0, 9999)]));
        assert_eq!(spans("bytes=0-1", 11), Some(vec![(0, 1)]));
        assert_eq!(spans("bytes=1-", 11), Some(vec![(1, 10)]));
        assert_eq!(spans("bytes=-1", 11), Some(vec![(10, 10)]));
    }

    #[test]
    fn what_cannot_be_satisfied_is_nothing_and_what_is_malformed_is_ignored() {
        assert_eq!(spans("bytes=10-", 10), Some(vec![]));
        assert_eq!(spans("bytes=-0", 10), Some(vec![]));
        assert_eq!(spans("bytes=0-", 0), Some(vec![]));
        assert_eq!(spans("bytes=-5", 0), Some(vec![]));
        assert_eq!(spans("bytes=20-30, 0-1", 10), Some(vec![(0, 1)]));
        for line in [
            "bytes=",
            "bytes=5-1",
            "bytes=a-b",
            "bytes=1",
            "bytes=-",
            "bytes",
            "items=0-1",
            "bytes=0-1;2",
            "",
            "bytes=1-2-3",
        ] {
            assert_eq!(ranges(line), None, "{line}");
        }
    }

    #[test]
    fn hostile_ranges_are_bounded() {
        // The attacks on ranges: numbers that overflow, a thousand parts, parts that overlap.
        assert_eq!(spans("bytes=-9223372036854775808", 10), Some(vec![(0, 9)]));
        assert_eq!(spans("bytes=0-18446744073709551616", 10), Some(vec![(0, 9)]));
        assert_eq!(spans("bytes=18446744073709551615-", 10), Some(vec![]));
        assert_eq!(spans("bytes=-17208,-9223372036854758792", 100), None);
        assert_eq!(spans("bytes=0-,1-", 100), None);
        assert_eq!(spans("bytes=0-49,40-89", 100), Some(vec![(0, 49), (40, 89)]));
        assert_eq!(spans("bytes=0-,0-,0-", 100), None);
        assert_eq!(ranges(&format!("bytes={}", "0-0,".repeat(RANGES_MAX + 1))), None);
        assert_eq!(ranges(&format!("bytes={}", ",".repeat(100_000))), None);
        let mut two = headers(header::RANGE, "bytes=0-1");
        two.append(header::RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(Ranges::parse(&two), None);
    }

    fn content_range(value: &str) -> Option<ContentRange> {
        ContentRange::parse(&headers(header::CONTENT_RANGE, value))
    }

    #[test]
    fn a_content_range_that_contradicts_itself_is_none() {
        let span = Span { first: 4, last: 9 };
        assert_eq!(
            content_range("bytes 4-9/10"),
            Some(ContentRange { span: Some(span), complete_bytes: Some(10) })
        );
        assert_eq!(
            content_range("bytes 4-9/*"),
            Some(ContentRange { span: Some(span), complete_bytes: None })
        );
        assert_eq!(content_range("bytes */10"), Some(ContentRange { span: None, complete_bytes: Some(10) }));
        for line in [
            "bytes 4-10/10",
            "bytes 9-4/10",
            "bytes */*",
            "bytes 4-9",
            "bytes=4-9/10",
            "items 4-9/10",
            "bytes -9/10",
            "bytes 0-18446744073709551615/*",
            "",
        ] {
            assert_eq!(content_range(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn spans_stay_inside_are_never_backwards_and_never_more_than_the_whole(line in "bytes=[0-9,-]{0,60}", length in any::<u64>()) {
            let mut left = length;
            for span in ranges(&line).and_then(|ranges| ranges.of(length)).unwrap_or_default() {
                prop_assert!(span.first <= span.last && span.last < length && span.bytes() <= left);
                left -= span.bytes();
            }
        }

        #[test]
        fn what_is_written_is_read(first in 0_u64..1 << 62, more in 0_u64..1 << 30, rest in prop::option::of(1_u64..1 << 30)) {
            let span = Span { first, last: first + more };
            let range = ContentRange { span: Some(span), complete_bytes: rest.map(|rest| span.last + rest) };
            prop_assert_eq!(content_range(range.to_value().to_str().unwrap()), Some(range));
        }

        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,80}") {
            let _ = ranges(&line).and_then(|ranges| ranges.of(100));
            let _ = content_range(&line);
        }
    }
}
