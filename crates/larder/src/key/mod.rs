//! Keys: what a user calls an entry, and what that is called in a store.
//!
//! A key in a store reads `prefix:1:namespace/namespace:key`. Prefix and namespaces are escaped so that the
//! first unescaped separators are always ours: no two different (prefix, namespace, key) meet, and clearing
//! `users` cannot touch `usersAbc`. The mark of a clear lives at `prefix:1!namespace/namespace`, that of a tag at
//! `prefix:1#namespace/namespace:tag`, and a lease at `prefix:1@namespace/namespace:key`, all beside the entries
//! and outside every entry prefix.

mod part;

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

pub use part::{KeyPart, call_key};

/// The longest key in a store, in bytes: prefix, namespaces and the user's key together.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest prefix, and the longest path of nested namespaces, each in bytes after escaping.
pub const PATH_BYTES_MAX: usize = 256;
/// The longest key that [`compose_bounded`] and [`call_key`] make, in bytes. It fits under the longest prefix
/// and namespace.
pub const BOUNDED_KEY_BYTES_MAX: usize = 480;

/// The version of the layout of keys; a new one leaves the entries of the old one alone.
const LAYOUT: &str = "1";

/// The names under which one namespace's entries live in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace {
    root: String,
    path: String,
    entries: String,
}

impl KeySpace {
    /// The outermost namespace under a prefix.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the prefix is longer than [`PATH_BYTES_MAX`].
    pub fn new(prefix: &str) -> Result<Self> {
        let mut root = String::new();
        escape(prefix, &mut root);
        check_path("prefix", &root)?;
        root.push(':');
        root.push_str(LAYOUT);
        let entries = format!("{root}::");
        Ok(Self { root, path: String::new(), entries })
    }

    /// A namespace inside this one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the name is empty or the path grows longer than [`PATH_BYTES_MAX`].
    pub fn child(&self, name: &str) -> Result<Self> {
        if name.is_empty() {
            return Err(Error::new(ErrorKind::InvalidKey, "a namespace may not be empty"));
        }
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push('/');
        }
        escape(name, &mut path);
        check_path("namespace", &path)?;
        let entries = format!("{}:{path}:", self.root);
        Ok(Self { root: self.root.clone(), path, entries })
    }

    /// The escaped names from the outermost namespace to this one, joined by `/`; empty for the outermost.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The full key of a user's key in this namespace.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] if the whole is longer than [`KEY_BYTES_MAX`].
    pub fn full(&self, key: &str) -> Result<String> {
        self.check(key)?;
        let mut full = String::with_capacity(self.entries.len() + key.len());
        full.push_str(&self.entries);
        full.push_str(key);
        Ok(full)
    }

    /// Whether [`KeySpace::full`] would succeed, without building the key.
    ///
    /// # Errors
    /// As [`KeySpace::full`].
    #[inline]
    pub fn check(&self, key: &str) -> Result<()> {
        if self.entries.len() + key.len() > KEY_BYTES_MAX {
            return Err(self.too_long(key));
        }
        Ok(())
    }

    #[cold]
    fn too_long(&self, key: &str) -> Error {
        Error::new(
            ErrorKind::InvalidKey,
            format!(
                "a key of {} bytes is too long: {} are left in this namespace, of {KEY_BYTES_MAX} \
                 (hash long keys, or shorten the prefix or namespace)",
                key.len(),
                KEY_BYTES_MAX.saturating_sub(self.entries.len()),
            ),
        )
    }

    /// The user's key in a full key of this very namespace; `None` for any other key.
    pub fn user_key<'k>(&self, full: &'k str) -> Option<&'k str> {
        full.strip_prefix(self.entries.as_str())
    }

    /// The names of the namespaces under this prefix that a full key of an entry lies in, outermost first, and
    /// the user's key; `None` for a key of anything else.
    ///
    /// ```
    /// use larder::key::KeySpace;
    /// let root = KeySpace::new("app")?;
    /// let full = root.child("a/b")?.child("c")?.full("k:1")?;
    /// assert_eq!(root.take_apart(&full), Some((vec!["a/b".to_owned(), "c".to_owned()], "k:1")));
    /// # Ok::<(), larder::Error>(())
    /// ```
    pub fn take_apart<'k>(&self, full: &'k str) -> Option<(Vec<String>, &'k str)> {
        let below = full.strip_prefix(self.root.as_str())?.strip_prefix(':')?;
        let (path, key) = below.split_once(':')?;
        if path.is_empty() {
            return Some((Vec::new(), key));
        }
        Some((path.split('/').map(unescape).collect::<Option<_>>()?, key))
    }

    /// What the full keys of this namespace's own entries begin with.
    pub fn own_prefix(&self) -> &str {
        &self.entries
    }

    /// What the full keys of this namespace and of those inside it begin with: together they cover exactly
    /// these, and nothing else does.
    pub fn prefixes(&self) -> Vec<String> {
        if self.path.is_empty() {
            return vec![format!("{}:", self.root)];
        }
        vec![self.entries.clone(), format!("{}:{}/", self.root, self.path)]
    }

    /// The key of the lease of a user's key in this namespace: whoever holds it loads that key. It is no longer than the
    /// key of the entry.
    pub fn lease_key(&self, key: &str) -> String {
        format!("{}@{}:{key}", self.root, self.path)
    }

    /// The key of this namespace's clear mark.
    pub fn mark_key(&self) -> String {
        format!("{}!{}", self.root, self.path)
    }

    /// The key of the mark that a tag has in this namespace.
    pub fn tag_key(&self, tag: &str) -> String {
        format!("{}#{}:{tag}", self.root, self.path)
    }

    /// The key of the mark that is newer than every tag's under this prefix.
    pub fn tags_key(&self) -> String {
        format!("{}#", self.root)
    }
}

/// Whether a full key is that of a lease: see [`KeySpace::lease_key`]. Whoever copies a store leaves these out.
///
/// ```
/// use larder::key::{KeySpace, is_lease};
/// let users = KeySpace::new("app")?.child("users")?;
/// assert!(is_lease(&users.lease_key("42")) && !is_lease(&users.full("1@42:")?));
/// # Ok::<(), larder::Error>(())
/// ```
pub fn is_lease(full: &str) -> bool {
    // In a prefix, a colon is escaped.
    let layout = full.split_once(':').and_then(|(_, rest)| rest.strip_prefix(LAYOUT));
    layout.is_some_and(|rest| rest.starts_with('@'))
}

fn check_path(what: &str, path: &str) -> Result<()> {
    if path.len() > PATH_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::InvalidKey,
            format!("a {what} of {} bytes is longer than {PATH_BYTES_MAX}", path.len()),
        ));
    }
    Ok(())
}

/// Percent-escapes the characters that separate parts, and control characters.
fn escape(part: &str, out: &mut String) {
    for char in part.chars() {
        match char {
            '%' | ':' | '/' | '!' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{:02X}", u32::from(char));
            }
            char if char.is_ascii_control() => {
                let _ = write!(out, "%{:02X}", u32::from(char));
            }
            char => out.push(char),
        }
    }
}

/// Undoes [`escape`]; `None` for what it does not make.
fn unescape(part: &str) -> Option<String> {
    let mut pieces = part.split('%');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        out.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        out.push_str(rest);
    }
    Some(out)
}

/// One key from several parts, each with its length before it, so that `["a", "bc"]` and `["ab", "c"]`
/// differ whatever the parts contain.
///
/// ```
/// assert_eq!(larder::key::compose(["user", "42"]), "4:user2:42");
/// ```
pub fn compose<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut key = String::new();
    for part in parts {
        push_part(&mut key, part.as_ref());
    }
    key
}

/// As [`compose`], but never longer than [`BOUNDED_KEY_BYTES_MAX`]: of a longer key the beginning is kept,
/// behind 128 bits of the SHA-256 of the whole.
///
/// Nobody can choose parts so that two keys meet: the hash is cryptographic, and a shortened key begins with
/// `#`, which no whole one does.
///
/// ```
/// use larder::key::compose_bounded;
/// assert_eq!(compose_bounded(["user", "42"]), "4:user2:42");
/// let long = compose_bounded(["page", &"x".repeat(1_000)]);
/// assert!(long.starts_with('#') && long.contains(":4:page1000:xxx"));
/// assert_eq!(long.len(), 480);
/// ```
pub fn compose_bounded<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> String {
    shorten(compose(parts))
}

fn push_part(key: &mut String, part: &str) {
    // Writing to a string cannot fail.
    let _ = write!(key, "{}:{part}", part.len());
}

/// A composed key, or what stands for it if it is too long.
fn shorten(key: String) -> String {
    if key.len() <= BOUNDED_KEY_BYTES_MAX {
        return key;
    }
    let digest = Sha256::digest(key.as_bytes());
    let half = digest.iter().take(16).fold(0_u128, |half, byte| half << 8 | u128::from(*byte));
    let mut short = format!("#{half:032x}:");
    let head = key.floor_char_boundary(BOUNDED_KEY_BYTES_MAX - short.len());
    short.push_str(key.get(..head).unwrap_or_default());
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn space(prefix: &str, names: &[&str]) -> KeySpace {
        names.iter().fold(KeySpace::new(prefix).unwrap(), |space, name| space.child(name).unwrap())
    }

    #[test]
    fn a_full_key_can_be_read_by_a_person() {
        assert_eq!(space("app", &[]).full("42").unwrap(), "app:1::42");
        assert_eq!(space("app", &["users", "posts"]).full("42").unwrap(), "app:1:users/posts:42");
        assert_eq!(space("app", &["users"]).mark_key(), "app:1!users");
    }

    #[test]
    fn the_prefixes_of_a_namespace_cover_its_children_and_no_neighbour() {
        let users = space("app", &["users"]).prefixes();
        let covers = |full: &str| users.iter().any(|prefix| full.starts_with(prefix.as_str()));
        assert!(covers(&space("app", &["users"]).full("k").unwrap()));
        assert!(covers(&space("app", &["users", "posts"]).full("k").unwrap()));
        assert!(!covers(&space("app", &["usersAbc"]).full("k").unwrap()));
        assert!(!covers(&space("app", &[]).full("users:k").unwrap()));
        assert!(!covers(&space("app", &[]).full("users/x").unwrap()));
        assert!(!covers(&space("app2", &["users"]).full("k").unwrap()));
        let root = space("app", &[]).prefixes();
        assert!(!space("app", &[]).mark_key().starts_with(&root[0]));
    }

    #[test]
    fn limits_are_errors_that_say_the_sizes() {
        let error = space("app", &[]).full(&"x".repeat(1_100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert!(
            error.message().contains("1100 bytes") && error.message().contains("1017 are left"),
            "{error}"
        );
        assert!(KeySpace::new(&"x".repeat(300)).is_err());
        assert!(space("app", &[]).child("").is_err());
    }

    #[test]
    fn a_bounded_key_fits_in_every_namespace_and_keeps_long_ones_apart() {
        let deepest = space(&"p".repeat(PATH_BYTES_MAX), &[&"n".repeat(PATH_BYTES_MAX)]);
        let long = |last: char| compose_bounded(["f".to_owned(), "é".repeat(500) + &last.to_string()]);
        assert!(long('a').len() <= BOUNDED_KEY_BYTES_MAX && long('a').len() > BOUNDED_KEY_BYTES_MAX - 4);
        assert!(deepest.full(&long('a')).is_ok());
        assert_ne!(long('a'), long('b'));
        assert_eq!(long('a'), long('a'));
    }

    #[test]
    fn a_key_is_whole_up_to_the_limit_and_shortened_from_there() {
        // "476:" and the part, then one more.
        let whole = compose_bounded(["x".repeat(476)]);
        assert_eq!((whole.len(), whole.as_str()), (480, compose(["x".repeat(476)]).as_str()));
        assert!(compose_bounded(["x".repeat(477)]).starts_with('#'));
    }

    proptest! {
        #[test]
        fn different_places_never_share_a_full_key(
            a in proptest::collection::vec("[a:/%! ]{1,3}", 0..3), key_a in "[a:/%! ]{0,3}", prefix_a in "[a:%]{0,2}",
            b in proptest::collection::vec("[a:/%! ]{1,3}", 0..3), key_b in "[a:/%! ]{0,3}", prefix_b in "[a:%]{0,2}",
        ) {
            let names = |v: &Vec<String>| v.iter().map(String::clone).collect::<Vec<_>>();
            let at = |prefix: &str, names: &[String]| {
                names.iter().fold(KeySpace::new(prefix).unwrap(), |space, name| space.child(name).unwrap())
            };
            let (left, right) = (at(&prefix_a, &names(&a)), at(&prefix_b, &names(&b)));
            let same = (&prefix_a, &a, &key_a) == (&prefix_b, &b, &key_b);
            prop_assert_eq!(left.full(&key_a).unwrap() == right.full(&key_b).unwrap(), same);
            prop_assert_ne!(left.full(&key_a).unwrap(), right.mark_key());
            prop_assert_ne!(left.full(&key_a).unwrap(), right.tag_key(&key_b));
            prop_assert_eq!(left.tag_key(&key_a) == right.tag_key(&key_b), same);
            prop_assert_ne!(left.tag_key(&key_a), right.tags_key());
            prop_assert_ne!(left.tag_key(&key_a), right.mark_key());
        }

        #[test]
        fn composed_keys_are_injective(a in proptest::collection::vec(".{0,4}", 0..4), b in proptest::collection::vec(".{0,4}", 0..4)) {
            prop_assert_eq!(compose(&a) == compose(&b), a == b);
        }
    }
}
