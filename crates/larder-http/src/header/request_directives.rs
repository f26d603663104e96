//! `Cache-Control` and `Pragma` in requests (RFC 9111 sections 5.2.1 and 5.4).

use std::time::Duration;

use http::{HeaderMap, header};

use super::cache_control::Directive;
use super::{Delta, Escapes, Members, lines, token_words, trim};

/// How stale an answer the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxStale {
    /// Any.
    Any,
    /// At most this far past its freshness.
    For(Duration),
}

/// What the client wishes of caches.
///
/// Of a directive that is repeated, the most demanding counts. `no-store` and `no-cache` count in any shape.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestDirectives {
    /// Nothing unvalidated; also by `Pragma`, where there is no `Cache-Control`.
    pub no_cache: bool,
    /// Nothing of this exchange is to be stored.
    pub no_store: bool,
    /// Only what is stored.
    pub only_if_cached: bool,
    /// Nothing older. A number that is not understood is zero: the client wished something fresh.
    pub max_age: Option<Duration>,
    /// What will stay fresh this long.
    pub min_fresh: Option<Duration>,
    /// Stale answers are welcome.
    pub max_stale: Option<MaxStale>,
    /// Stale answers are welcome if the origin fails, up to this far past their freshness (RFC 5861 section 4).
    pub stale_if_error: Option<Duration>,
}

impl RequestDirectives {
    /// Reads a request's header fields.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut wishes = Self::default();
        if !headers.contains_key(header::CACHE_CONTROL) {
            wishes.no_cache = pragma_no_cache(headers);
            return wishes;
        }
        for line in lines(headers, header::CACHE_CONTROL) {
            for member in Members::new(line, Escapes::Yes) {
                match Directive::parse(member.text, member.is_broken) {
                    Directive::Clear(name, argument) => wishes.add(&name, argument.as_deref()),
                    Directive::Garbled(text) => {
                        for word in token_words(text) {
                            wishes.no_store |= word.eq_ignore_ascii_case(b"no-store");
                            wishes.no_cache |= word.eq_ignore_ascii_case(b"no-cache");
                        }
                    }
                }
            }
        }
        wishes
    }

    fn add(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let seconds = argument.map_or(Delta::Invalid, Delta::parse);
        match name {
            b"no-cache" => self.no_cache = true,
            b"no-store" => self.no_store = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => least(&mut self.max_age, seconds.or_zero()),
            b"min-fresh" => {
                self.min_fresh = self.min_fresh.max(seconds.duration());
            }
            //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.2
            //# If no value is assigned to max-stale, then the client will accept a
            //# stale response of any age.
            b"max-stale" => match (self.max_stale, argument, seconds.duration()) {
                (None, None, _) => self.max_stale = Some(MaxStale::Any),
                (None | Some(MaxStale::Any), _, Some(most)) => self.max_stale = Some(MaxStale::For(most)),
                (Some(MaxStale::For(other)), _, Some(most)) => {
                    self.max_stale = Some(MaxStale::For(other.min(most)));
                }
                _ => {}
            },
            b"stale-if-error" => {
                if let Some(window) = seconds.duration() {
                    least(&mut self.stale_if_error, window);
                }
            }
            _ => {}
        }
    }
}

fn least(of: &mut Option<Duration>, other: Duration) {
    *of = Some(of.map_or(other, |least| least.min(other)));
}

/// `Pragma: no-cache`, for the requests of old clients.
fn pragma_no_cache(headers: &HeaderMap) -> bool {
    lines(headers, header::PRAGMA)
        .any(|line| line.split(|byte| *byte == b',').any(|word| trim(word).eq_ignore_ascii_case(b"no-cache")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(fields: &[(&'static str, &str)]) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        RequestDirectives::parse(&headers)
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn wishes_are_read_in_any_case_and_the_most_demanding_counts() {
        // U35; cc-request: ccreq-*.
        let read = parse(&[
            ("cache-control", "nothing-to-see-here, MAX-AGE=10, max-age=5, min-fresh=1"),
            ("cache-control", "Min-Fresh=3, NO-STORE, no-store, only-if-cached, stale-if-error=60"),
        ]);
        assert_eq!(
            (read.max_age, read.min_fresh, read.stale_if_error),
            (seconds(5), seconds(3), seconds(60))
        );
        assert!(read.no_store && read.only_if_cached && !read.no_cache);
        assert_eq!(parse(&[("cache-control", "max-age=x")]).max_age, seconds(0));
        let odd = parse(&[("cache-control", "x=\"y, No-Store = 1"), ("cache-control", "max-age=1;no-cache")]);
        assert!(odd.no_store && odd.no_cache && odd.max_age.is_none());
        assert_eq!(parse(&[("cache-control", "max-age=5, max-age")]).max_age, seconds(0));
    }

    //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.1.2
    //= type=test
    //# If no value is assigned to max-stale, then the client will accept a
    //# stale response of any age.
    #[test]
    fn max_stale_without_a_value_takes_any_and_with_a_bad_one_takes_none() {
        for (line, expected) in [
            ("max-stale", Some(MaxStale::Any)),
            ("max-stale=10", Some(MaxStale::For(Duration::from_secs(10)))),
            ("max-stale=10, max-stale", Some(MaxStale::For(Duration::from_secs(10)))),
            ("max-stale, max-stale=20, max-stale=10", Some(MaxStale::For(Duration::from_secs(10)))),
            ("max-stale=x", None),
            ("max-stale=", None),
        ] {
            assert_eq!(parse(&[("cache-control", line)]).max_stale, expected, "{line}");
        }
    }

    #[test]
    fn pragma_counts_only_where_there_is_no_cache_control() {
        // RFC 9111 section 5.4; pragma: pragma-request-*.
        assert!(parse(&[("pragma", "foo, No-Cache")]).no_cache);
        assert!(!parse(&[("pragma", "no-cache=x, foo")]).no_cache);
        assert!(!parse(&[("pragma", "no-cache"), ("cache-control", "nothing-to-see-here")]).no_cache);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            let read = parse(&[("cache-control", &line)]);
            prop_assert_eq!(parse(&[("cache-control", &line)]), read);
        }
    }
}
