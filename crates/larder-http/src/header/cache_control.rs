//! `Cache-Control` in responses (RFC 9111 section 5.2.2), read leniently: what restricts counts in any shape, what
//! permits counts only if it is well-formed.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::{Escapes, Members, is_token, lines, token_words, trim, unquote};

/// The most seconds that are told apart.
//= https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
//# If a cache receives a delta-seconds value greater than the greatest
//# integer it can represent, or if any of its subsequent calculations
//# overflows, the cache MUST consider the value to be 2147483648 (2^31)
//# or the greatest positive integer it can conveniently represent.
pub const SECONDS_MAX: u32 = 1 << 31;

/// The argument of a directive that has to be a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta {
    /// That many, at most [`SECONDS_MAX`].
    Seconds(u32),
    /// The directive is there, and says nothing that can be understood.
    Invalid,
}

impl Delta {
    /// Reads `delta-seconds`: digits and nothing else.
    pub fn parse(text: &[u8]) -> Self {
        if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
            return Self::Invalid;
        }
        let seconds = text.iter().fold(0_u32, |sum, digit| {
            sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')).min(SECONDS_MAX)
        });
        Self::Seconds(seconds)
    }

    /// As a duration; `None` if it was not understood.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
            Self::Invalid => None,
        }
    }

    /// As a duration, where what was not understood counts as none left.
    pub fn or_zero(self) -> Duration {
        self.duration().unwrap_or(Duration::ZERO)
    }

    /// The first of two, unless one of them was not understood.
    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
    //# either the first occurrence should be used or the response should be
    //# considered stale.
    pub(crate) fn and_then(earlier: Option<Self>, later: Self) -> Self {
        match (earlier, later) {
            (None, only) => only,
            (Some(_), Self::Invalid) => Self::Invalid,
            (Some(first), Self::Seconds(_)) => first,
        }
    }
}

/// What `no-cache` and `private` are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// The response.
    Whole,
    /// Only these fields of it (the qualified form).
    Fields(Vec<HeaderName>),
}

impl Extent {
    pub(crate) fn is_whole(extent: Option<&Self>) -> bool {
        extent == Some(&Self::Whole)
    }

    pub(crate) fn fields(extent: Option<&Self>) -> &[HeaderName] {
        match extent {
            Some(Self::Fields(names)) => names,
            _ => &[],
        }
    }

    /// Both: the wider one, or the fields of both.
    pub(crate) fn widen(into: &mut Option<Self>, by: Self) {
        match (into.as_mut(), by) {
            (Some(Self::Whole), _) => {}
            (Some(Self::Fields(names)), Self::Fields(more)) => names.extend(more),
            (_, by) => *into = Some(by),
        }
    }
}

/// The directives of a response that a cache obeys, from `Cache-Control` or from a targeted field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheControl {
    /// How long it is fresh.
    pub max_age: Option<Delta>,
    /// How long it is fresh in a shared cache.
    pub s_maxage: Option<Delta>,
    /// Not to be used without validation.
    pub no_cache: Option<Extent>,
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be stored by a shared cache.
    pub private: Option<Extent>,
    /// May be stored although it otherwise might not be.
    pub public: bool,
    /// Not to be used once stale.
    pub must_revalidate: bool,
    /// Not to be used once stale, by a shared cache.
    pub proxy_revalidate: bool,
    /// To be stored only by who knows what its status asks of a cache.
    pub must_understand: bool,
    /// Will not change while fresh (RFC 8246).
    pub immutable: bool,
    /// How long after it became stale it may be used while it is validated (RFC 5861).
    pub stale_while_revalidate: Option<Delta>,
    /// How long after it became stale it may be used if the origin fails (RFC 5861).
    pub stale_if_error: Option<Delta>,
    /// Part of the field was not understood. What restricts was kept; nothing out of the ordinary is permitted by it.
    pub is_garbled: bool,
}

impl CacheControl {
    /// Reads all lines of `Cache-Control`. Without the field, nothing is said.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in lines(headers, http::header::CACHE_CONTROL) {
            for member in Members::new(line, Escapes::Yes) {
                directives.add(&Directive::parse(member.text, member.is_broken));
            }
        }
        directives
    }

    fn add(&mut self, directive: &Directive<'_>) {
        match directive {
            Directive::Clear(name, argument) => self.add_clear(name, argument.as_deref()),
            Directive::Garbled(text) => {
                self.is_garbled = true;
                for word in token_words(text) {
                    self.restrict(&word.to_ascii_lowercase());
                }
            }
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2
    //# Cache directives are identified by a token, to be compared case-
    //# insensitively, and have an optional argument that can use both token
    //# and quoted-string syntax.
    fn add_clear(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let seconds = Delta::parse(argument.unwrap_or_default());
        match name {
            b"max-age" => self.max_age = Some(Delta::and_then(self.max_age, seconds)),
            b"s-maxage" => self.s_maxage = Some(Delta::and_then(self.s_maxage, seconds)),
            b"stale-while-revalidate" => {
                self.stale_while_revalidate = Some(Delta::and_then(self.stale_while_revalidate, seconds));
            }
            b"stale-if-error" => {
                self.stale_if_error = Some(Delta::and_then(self.stale_if_error, seconds));
            }
            b"no-cache" => Extent::widen(&mut self.no_cache, extent(argument)),
            b"private" => Extent::widen(&mut self.private, extent(argument)),
            b"no-store" | b"must-revalidate" | b"proxy-revalidate" => {
                self.is_garbled |= argument.is_some();
                self.restrict(name);
            }
            // An argument that nobody defined: it does not say what it would say without.
            b"public" | b"must-understand" if argument.is_some() => self.is_garbled = true,
            b"public" => self.public = true,
            //= https://www.rfc-editor.org/rfc/rfc8246#section-2
            //# The immutable extension takes no arguments.  If any arguments are
            //# present, they have no meaning and MUST be ignored.
            b"immutable" => self.immutable = true,
            b"must-understand" => self.must_understand = true,
            //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.3
            //# A cache MUST ignore unrecognized cache directives.
            _ => {}
        }
    }

    /// What a name restricts, wherever it stands.
    fn restrict(&mut self, name: &[u8]) {
        match name {
            b"no-store" => self.no_store = true,
            b"no-cache" => self.no_cache = Some(Extent::Whole),
            b"private" => self.private = Some(Extent::Whole),
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"max-age" => self.max_age = Some(Delta::Invalid),
            b"s-maxage" => self.s_maxage = Some(Delta::Invalid),
            _ => {}
        }
    }
}

/// The names in the argument of a qualified directive. What is no list of names is about everything.
fn extent(argument: Option<&[u8]>) -> Extent {
    let Some(argument) = argument else { return Extent::Whole };
    let names = argument.split(|byte| *byte == b',').map(trim).filter(|name| !name.is_empty());
    match names.map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>() {
        Ok(names) if !names.is_empty() => Extent::Fields(names),
        _ => Extent::Whole,
    }
}

/// One member of the field.
pub(crate) enum Directive<'a> {
    /// Its name in lower case, and its argument without quotes.
    Clear(Cow<'a, [u8]>, Option<Cow<'a, [u8]>>),
    /// Not of the form of a directive.
    Garbled(&'a [u8]),
}

impl<'a> Directive<'a> {
    pub(crate) fn parse(text: &'a [u8], is_broken: bool) -> Self {
        if is_broken {
            return Self::Garbled(text);
        }
        let equals = text.iter().position(|byte| *byte == b'=');
        let (name, argument) = match equals {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
            None => (text, None),
        };
        if !is_token(name) {
            return Self::Garbled(text);
        }
        let argument = match argument {
            None => None,
            Some(argument) if is_token(argument) => Some(argument.into()),
            Some(argument) => match unquote(argument) {
                Some(plain) => Some(plain),
                None => return Self::Garbled(text),
            },
        };
        let is_lower = !name.iter().any(u8::is_ascii_uppercase);
        // A request's directives are read on the way of a hit, where nothing should be allocated.
        let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
        Self::Clear(name, argument)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse_lines(lines: &[&str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("cache-control", HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        CacheControl::parse(&headers)
    }

    fn parse(line: &str) -> CacheControl {
        parse_lines(&[line])
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2
    //= type=test
    //# the cache MUST consider the value to be 2147483648 (2^31)
    #[test]
    fn seconds_are_digits_and_never_wrap() {
        // cc-freshness: freshness-max-age-max*, cc-parse: freshness-max-age-leading-zero, -single-quoted, -decimal-*, -a100, -100a.
        let max = Delta::Seconds(SECONDS_MAX);
        for (text, expected) in [
            ("0", Delta::Seconds(0)),
            ("003600", Delta::Seconds(3600)),
            ("2147483647", Delta::Seconds(SECONDS_MAX - 1)),
            ("2147483648", max),
            ("4294967297", max),
            ("99999999999", max),
            ("99999999999999999999999999", max),
            ("-1", Delta::Invalid),
            ("+1", Delta::Invalid),
            ("1.5", Delta::Invalid),
            ("'3600'", Delta::Invalid),
            ("3600a", Delta::Invalid),
            ("a3600", Delta::Invalid),
            (" 1", Delta::Invalid),
            ("", Delta::Invalid),
        ] {
            assert_eq!(Delta::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn names_are_read_in_any_case_and_unknown_ones_are_skipped() {
        // cc-response: cc-resp-*-case-insensitive; cc-freshness: freshness-max-age-case-insenstive, freshness-max-age-extension.
        let read = parse("Foo, MAX-age=10, bar=\"baz\", No-Store, PRIVATE, nothing-to-see-here");
        assert_eq!(read.max_age, Some(Delta::Seconds(10)));
        assert!(read.no_store && !read.is_garbled);
        assert_eq!(read.private, Some(Extent::Whole));
    }

    #[test]
    fn what_stands_in_a_quoted_string_is_no_directive() {
        // cc-parse: freshness-max-age-ignore-quoted, freshness-max-age-ignore-quoted-rev, freshness-max-age-quoted.
        for line in [r#"extension="max-age=3600", max-age=1"#, r#"max-age=1, extension="max-age=3600""#] {
            assert_eq!(parse(line).max_age, Some(Delta::Seconds(1)), "{line}");
        }
        assert_eq!(parse(r#"ext="a, no-store, b", max-age="60""#).max_age, Some(Delta::Seconds(60)));
        assert!(!parse(r#"ext="a, no-store, b""#).no_store);
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.1
    //= type=test
    //# either the first occurrence should be used or the response should be
    //# considered stale.
    #[test]
    fn the_first_of_two_counts_unless_one_is_not_understood() {
        // cc-parse: freshness-max-age-two-fresh-stale-sameline, -sepline, -two-stale-fresh-sameline, -sepline.
        assert_eq!(parse("max-age=1800, max-age=1").max_age, Some(Delta::Seconds(1800)));
        assert_eq!(parse_lines(&["max-age=1", "max-age=1800"]).max_age, Some(Delta::Seconds(1)));
        assert_eq!(parse("max-age=1800, max-age=x").max_age, Some(Delta::Invalid));
        assert_eq!(parse_lines(&["max-age=x", "max-age=1"]).max_age, Some(Delta::Invalid));
    }

    #[test]
    fn a_number_in_the_wrong_shape_is_there_and_is_not_a_number() {
        // cc-parse: freshness-max-age-space-before-equals, -space-after-equals, -single-quoted; U19.
        for line in [
            "max-age =3600",
            "max-age= 3600",
            "max-age",
            "max-age=",
            "max-age='3600'",
            "max-age=60;private",
            "max-age=\"60",
            "max-age=6\"0\"",
            "max-age: 60",
            "no-transform max-age=60",
        ] {
            assert_eq!(parse(line).max_age, Some(Delta::Invalid), "{line}");
        }
    }

    #[test]
    fn what_restricts_counts_in_any_shape() {
        // U19, U31, and the attacks on directive parsing.
        for line in [
            "no-store",
            "no-store=x",
            "no-store = x",
            "max-age=60;no-store",
            "public no-store",
            "\u{a0}no-store\u{a0}",
            r#"no-cache="a, no-store"#,
            r#"x="y, max-age=60, no-store"#,
            r#"no-store""#,
            ",,,,no-store,,",
            "\tno-store\t",
        ] {
            assert!(parse(line).no_store, "{line}");
        }
        assert_eq!(parse("max-age=60;private").private, Some(Extent::Whole));
        assert!(!parse("no-storex, xno-store, no-store-x").no_store);
    }

    #[test]
    fn what_permits_counts_only_if_it_is_well_formed() {
        // U42, and quotes that never end.
        for line in ["public=x", "public public", r#"x="y, public"#, "\u{a0}public"] {
            let read = parse(line);
            assert!(!read.public && read.is_garbled, "{line}");
        }
        let read = parse(r#"x="y, max-age=60, immutable, stale-if-error=60"#);
        assert_eq!((read.max_age, read.immutable, read.stale_if_error), (Some(Delta::Invalid), false, None));
    }

    //= https://www.rfc-editor.org/rfc/rfc8246#section-2
    //= type=test
    //# If any arguments are
    //# present, they have no meaning and MUST be ignored.
    #[test]
    fn immutable_is_itself_whatever_is_behind_it() {
        for line in ["immutable", "immutable=x", "immutable=\"a\", immutable"] {
            let read = parse(line);
            assert!(read.immutable && !read.is_garbled, "{line}");
        }
    }

    #[test]
    fn qualified_directives_name_fields_and_the_unqualified_form_wins() {
        // U30; cc-response: cc-resp-no-cache-*.
        let fields = |names: &[&'static str]| {
            Some(Extent::Fields(names.iter().map(|name| HeaderName::from_static(name)).collect()))
        };
        for (line, expected) in [
            (r#"no-cache="a""#, fields(&["a"])),
            (r#"no-cache=" A , b,""#, fields(&["a", "b"])),
            ("no-cache=foo", fields(&["foo"])),
            (r#"no-cache="a", no-cache="b""#, fields(&["a", "b"])),
            (r#"no-cache="a", no-cache"#, Some(Extent::Whole)),
            (r#"no-cache, no-cache="a""#, Some(Extent::Whole)),
            ("no-cache=", Some(Extent::Whole)),
            (r#"no-cache="""#, Some(Extent::Whole)),
            (r#"no-cache="a b""#, Some(Extent::Whole)),
            (r#"no-cache="a, b"#, Some(Extent::Whole)),
        ] {
            assert_eq!(parse(line).no_cache, expected, "{line}");
            assert_eq!(parse(&line.replace("no-cache", "private")).private, expected, "{line}");
        }
    }

    #[test]
    fn hostile_fields_cost_what_they_are_long() {
        let spaces = format!("max-age=1{}", " ".repeat(64 * 1024));
        assert_eq!(parse(&spaces).max_age, Some(Delta::Seconds(1)));
        let many = "max-age=5,".repeat(100_000);
        assert_eq!(parse(&many).max_age, Some(Delta::Seconds(5)));
        assert_eq!(parse(&",".repeat(1_000_000)), CacheControl::default());
        assert!(parse(&format!("x={},no-store", "\"a\\".repeat(300_000))).no_store);
        assert!(parse(&format!("{},no-store", "a=\",".repeat(200_001))).no_store);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_adding_no_store_always_shows(
            parts in prop::collection::vec("[ -~\\t\u{80}-\u{ff}]{0,40}", 0..4)
        ) {
            let lines: Vec<&str> = parts.iter().map(String::as_str).collect();
            let first = parse_lines(&lines);
            prop_assert_eq!(&parse_lines(&lines), &first);
            let with: Vec<&str> = lines.iter().copied().chain(["no-store"]).collect();
            prop_assert!(parse_lines(&with).no_store);
        }

        #[test]
        fn what_is_written_is_read(seconds in 0..SECONDS_MAX, shared in any::<bool>(), strict in any::<bool>()) {
            let line = format!(
                "max-age={seconds}{}{}",
                if shared { ", s-maxage=7" } else { "" },
                if strict { ", must-revalidate" } else { "" },
            );
            let read = parse(&line);
            prop_assert_eq!(read.max_age, Some(Delta::Seconds(seconds)));
            prop_assert_eq!(read.s_maxage, shared.then_some(Delta::Seconds(7)));
            prop_assert_eq!(read.must_revalidate, strict);
            prop_assert!(!read.is_garbled);
        }
    }
}
