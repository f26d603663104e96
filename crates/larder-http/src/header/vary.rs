//! `Vary` (RFC 9110 section 12.5.5): which fields of a request took part in choosing a response.

use http::{HeaderMap, HeaderName, header};

use super::{lines, trim};

/// The most fields that a response may depend on here. One that names more is not stored.
pub const NAMES_MAX: usize = 64;

/// What the lines of `Vary` say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// These fields, sorted, each once; none if the field is absent or empty.
    Names(Vec<HeaderName>),
    /// `*` is among the members: something that is not in the request.
    Any,
    /// A member is no field name, or there are more than [`NAMES_MAX`].
    Malformed,
}

impl Vary {
    /// Reads all lines.
    pub fn parse(headers: &HeaderMap) -> Self {
        let mut names: Vec<HeaderName> = Vec::new();
        let mut is_malformed = false;
        let members = lines(headers, header::VARY).flat_map(|line| line.split(|byte| *byte == b','));
        for member in members.map(trim).filter(|member| !member.is_empty()) {
            //= https://www.rfc-editor.org/rfc/rfc9110#section-12.5.5
            //# A list containing the member "*" signals that other aspects of the
            //# request might have played a role in selecting the response
            //# representation
            if member == b"*" {
                return Self::Any;
            }
            match HeaderName::from_bytes(member) {
                Ok(name) if names.len() < NAMES_MAX => {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                _ => is_malformed = true,
            }
        }
        if is_malformed {
            return Self::Malformed;
        }
        names.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        Self::Names(names)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn parse(lines: &[&str]) -> Vary {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::VARY, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Vary::parse(&headers)
    }

    fn names(names: &[&'static str]) -> Vary {
        Vary::Names(names.iter().map(|name| HeaderName::from_static(name)).collect())
    }

    #[test]
    fn names_are_sorted_each_once_from_all_lines() {
        // U20.
        assert_eq!(parse(&["Foo,bar , FOO", "", "baz,,"]), names(&["bar", "baz", "foo"]));
        assert_eq!(parse(&[]), names(&[]));
        assert_eq!(parse(&[", ,"]), names(&[]));
    }

    //= https://www.rfc-editor.org/rfc/rfc9110#section-12.5.5
    //= type=test
    //# A list containing the member "*" signals that other aspects of the
    //# request might have played a role in selecting the response
    //# representation
    #[test]
    fn a_star_anywhere_is_any() {
        // vary-parse: vary-syntax-star, -star-star, -star-star-lines, -empty-star, -empty-star-lines, -star-foo, -foo-star.
        for lines in
            [&["*"][..], &["*, *"], &["*", "*"], &[", *"], &["", "*"], &["*, Foo"], &["Foo, *"], &["a b, *"]]
        {
            assert_eq!(parse(lines), Vary::Any, "{lines:?}");
        }
    }

    #[test]
    fn what_names_no_field_is_malformed_and_so_are_too_many() {
        for line in ["a b", "foo;bar", "\"foo\"", "f\u{e9}"] {
            assert_eq!(parse(&[line]), Vary::Malformed, "{line}");
        }
        let many: Vec<String> = (0..500).map(|number| format!("x-{number}")).collect();
        assert_eq!(parse(&[&many.join(",")]), Vary::Malformed);
        assert_eq!(parse(&[&"a,".repeat(500_000)]), names(&["a"]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_is_read_reads_the_same(line in "[ -~\\t\u{80}-\u{ff}]{0,200}") {
            if let Vary::Names(found) = parse(&[&line]) {
                let again: Vec<&str> = found.iter().map(HeaderName::as_str).collect();
                prop_assert_eq!(parse(&[&again.join(", ")]), Vary::Names(found.clone()));
            }
        }
    }
}
