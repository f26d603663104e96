//! What makes two invocations of `larder run` the same, and the key that follows from it.
//!
//! The whole identity, every part with its length before it, is kept beside the output and compared on a
//! hit. The key only has a hash of it: two identities with one hash cost a hit, never a wrong output.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

/// How much of the command a person can read in a key, in bytes.
const READABLE_MAX: usize = 64;

/// What makes two invocations the same.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    whole: Bytes,
    key: String,
}

impl Identity {
    /// The user said what it is.
    pub(crate) fn of_key(key: &OsStr) -> Self {
        let mut parts = Parts::default();
        parts.push(b'k', key.as_bytes());
        parts.identity(key)
    }

    /// A command, and what else was asked to count. The order of the variables does not matter.
    pub(crate) fn of_command(
        command: &[OsString],
        cwd: Option<&Path>,
        mut env: Vec<(OsString, Option<OsString>)>,
        stdin: Option<&[u8]>,
    ) -> Self {
        let mut parts = Parts::default();
        for word in command {
            parts.push(b'c', word.as_bytes());
        }
        if let Some(cwd) = cwd {
            parts.push(b'd', cwd.as_os_str().as_bytes());
        }
        env.sort_unstable();
        env.dedup();
        for (name, value) in env {
            match value {
                Some(value) => {
                    parts.push(b'e', name.as_bytes());
                    parts.push(b'=', value.as_bytes());
                }
                None => parts.push(b'u', name.as_bytes()),
            }
        }
        if let Some(stdin) = stdin {
            parts.push(b'i', stdin);
        }
        parts.identity(&command.join(OsStr::new(" ")))
    }

    /// Everything that counts, injectively.
    pub(crate) fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The key in the store: what a person can recognise, and a hash of the whole.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }
}

#[derive(Default)]
struct Parts(Vec<u8>);

impl Parts {
    /// A part is a letter, a length and bytes.
    fn push(&mut self, kind: u8, part: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part);
    }

    fn identity(self, readable: &OsStr) -> Identity {
        let mut key = String::with_capacity(READABLE_MAX + 33);
        for char in readable.to_string_lossy().chars() {
            if key.len() + char.len_utf8() > READABLE_MAX {
                break;
            }
            key.push(if char.is_control() { '?' } else { char });
        }
        // Writing to a string cannot fail. The hash has one length, so nothing needs to part the two.
        let _ = write!(key, " {:032x}", xxh3_128(&self.0));
        Identity { whole: self.0.into(), key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn command(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    fn with_env(env: &[(&str, Option<&str>)]) -> Identity {
        let env = env.iter().map(|(name, value)| (name.into(), value.map(OsString::from))).collect();
        Identity::of_command(&command(&["ls"]), None, env, None)
    }

    #[test]
    fn different_invocations_have_different_identities_and_keys() {
        let words = |words: &[&str]| Identity::of_command(&command(words), None, Vec::new(), None);
        let invalid = vec![OsString::from("ls"), OsString::from_vec(vec![0xff])];
        let replaced = vec![OsString::from("ls"), OsString::from_vec(vec![0xfe])];
        let all = [
            words(&["a", "bc"]),
            words(&["ab", "c"]),
            words(&["a bc"]),
            words(&["a", "bc", ""]),
            Identity::of_key(OsStr::new("a bc")),
            Identity::of_command(&command(&["a"]), Some(Path::new("bc")), Vec::new(), None),
            Identity::of_command(&command(&["a"]), None, Vec::new(), Some(b"bc")),
            Identity::of_command(&command(&["a"]), None, Vec::new(), Some(b"")),
            Identity::of_command(&invalid, None, Vec::new(), None),
            Identity::of_command(&replaced, None, Vec::new(), None),
            with_env(&[("A", None)]),
            with_env(&[("A", Some(""))]),
            with_env(&[("A", Some("B"))]),
            with_env(&[("A", None), ("B", None)]),
        ];
        for (n, left) in all.iter().enumerate() {
            for right in all.iter().skip(n + 1) {
                assert_ne!(left.whole(), right.whole());
                assert_ne!(left.key(), right.key());
            }
        }
    }

    #[test]
    fn the_order_of_variables_does_not_matter() {
        let one = with_env(&[("A", Some("1")), ("B", None)]);
        let two = with_env(&[("B", None), ("A", Some("1")), ("B", None)]);
        assert_eq!(one.whole(), two.whole());
    }

    #[test]
    fn a_key_can_be_read_and_is_short() {
        let identity =
            Identity::of_command(&command(&["ls", "-l\n", &"ä".repeat(500)]), None, Vec::new(), None);
        assert!(identity.key().starts_with("ls -l? ää"), "{}", identity.key());
        assert!(identity.key().len() <= READABLE_MAX + 33);
    }
}
