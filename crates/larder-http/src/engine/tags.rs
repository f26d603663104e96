//! By what a response can be invalidated: what it says itself. Knows only its fields.

use http::{HeaderMap, HeaderName, Uri};

use crate::policy::Stored;

/// Names, with spaces between them.
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
/// Names, with commas between them.
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");

/// The most tags of one response: those of the library, less room for others.
const TAGS_MAX: usize = larder::tag::TAGS_PER_ENTRY_MAX;

/// More tags than can be kept, or one that is too long: it could not be invalidated as it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// The tags of a response, once each.
pub(super) fn tags_of(target: &Uri, stored: &Stored) -> Result<Vec<String>, TooMany> {
    let headers = stored.headers();
    let mut tags: Vec<String> = words(headers, &SURROGATE_KEY, |byte| byte == ' ' || byte == '\t')
        .chain(words(headers, &CACHE_TAG, |byte| byte == ','))
        .map(str::to_owned)
        .collect();
    tags.extend(stored.groups().iter().map(|group| group_tag(target, group)));
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_MAX || tags.iter().any(|tag| tag.len() > larder::tag::TAG_BYTES_MAX) {
        return Err(TooMany);
    }
    Ok(tags)
}

fn words<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    separates: impl Fn(char) -> bool + Copy + 'a,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(move |line| line.split(separates)).map(str::trim).filter(|word| !word.is_empty())
}

/// What a group is called among the tags: groups are of one origin (RFC 9875 section 2).
pub(super) fn group_tag(target: &Uri, group: &str) -> String {
    let origin = crate::key::origin(target);
    format!("group:{origin} {group}")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::policy::{Exchange, Policy};

    fn tags(fields: &[(&str, &str)]) -> Result<Vec<String>, TooMany> {
        let target: Uri = "http://Example.com:80/a".parse().unwrap();
        let (request, ()) = http::Request::get(&target).body(()).unwrap().into_parts();
        let mut response = http::Response::builder().header("cache-control", "max-age=60");
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        let (response, ()) = response.body(()).unwrap().into_parts();
        let stored = Policy::shared().store(&request, &response, Exchange::at(UNIX_EPOCH)).unwrap();
        tags_of(&target, &stored)
    }

    #[test]
    fn every_way_to_name_them_is_read() {
        let all = tags(&[
            ("surrogate-key", "a  b"),
            ("surrogate-key", "c"),
            ("cache-tag", "b, two words ,,"),
            ("cache-groups", "\"g\""),
        ]);
        assert_eq!(all.unwrap(), ["a", "b", "c", "group:http://example.com g", "two words"]);
        assert_eq!(tags(&[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_could_not_be_invalidated_by_all_its_tags_is_refused() {
        let many: Vec<String> = (0..=TAGS_MAX).map(|tag| tag.to_string()).collect();
        assert_eq!(tags(&[("surrogate-key", &many.join(" "))]), Err(TooMany));
        assert_eq!(tags(&[("cache-tag", &"x".repeat(300))]), Err(TooMany));
    }
}
