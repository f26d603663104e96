//! Tags: names that entries carry, so that many can be invalidated at once. Knows keys' limits only.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;
/// The most tags that one entry may carry.
pub const TAGS_PER_ENTRY_MAX: usize = 128;

/// A validated tag, cheap to clone.
///
/// ```
/// use larder::Tag;
/// assert_eq!(Tag::new("users")?.as_str(), "users");
/// assert!(Tag::new("").is_err());
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// A tag of 1 to [`TAG_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if it is empty or too long.
    pub fn new(tag: &str) -> Result<Self> {
        match tag.len() {
            0 => Err(Error::new(ErrorKind::InvalidKey, "a tag may not be empty")),
            1..=TAG_BYTES_MAX => Ok(Self(tag.into())),
            bytes => Err(Error::new(
                ErrorKind::InvalidKey,
                format!("a tag of {bytes} bytes is longer than {TAG_BYTES_MAX}"),
            )),
        }
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks, sorts and deduplicates the tags of one entry.
pub(crate) fn tags_of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Box<[Tag]>> {
    let mut tags = tags.into_iter().map(Tag::new).collect::<Result<Vec<_>>>()?;
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > TAGS_PER_ENTRY_MAX {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("{} tags on one entry are more than {TAGS_PER_ENTRY_MAX}", tags.len()),
        ));
    }
    Ok(tags.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_unique() {
        let tags = tags_of(["b", "a", "b"]).unwrap();
        assert_eq!(tags.iter().map(Tag::as_str).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn too_long_and_too_many_are_refused() {
        assert_eq!(Tag::new(&"x".repeat(257)).unwrap_err().kind(), ErrorKind::InvalidKey);
        let many: Vec<String> = (0..129).map(|n| n.to_string()).collect();
        assert_eq!(tags_of(many.iter().map(String::as_str)).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}
