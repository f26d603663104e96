//! `larder set`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use serde_json::json;

use super::{found, print_json};
use crate::args::low::Source;
use crate::failure::{Failure, Outcome};
use crate::output::escape;
use crate::store::{Store, Writing};

/// The value that was meant.
pub(super) fn read(source: &Source) -> Result<Bytes, Failure> {
    match source {
        Source::Typed(typed) => Ok(Bytes::copy_from_slice(typed.as_bytes())),
        Source::File(path) => match fs::read(path) {
            Ok(value) => Ok(value.into()),
            Err(error) => Err(Failure::usage(format!(
                "cannot read the value from {}: {error} (a value that begins with @ is written @@)",
                escape(&path.to_string_lossy()),
            ))),
        },
        Source::Stdin => {
            let mut value = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut value);
            read.map_err(|error| Failure::io("read the value from standard input", &error))?;
            Ok(value.into())
        }
    }
}

/// Stores a value; with `if_absent`, only where there is none. Found if it is stored, which a TTL of zero never
/// is.
pub(super) async fn set(
    store: &Store,
    key: &str,
    value: Bytes,
    writing: Writing,
    if_absent: bool,
    json: bool,
) -> Outcome {
    let stored = if if_absent {
        store.add(key, value, &writing).await?
    } else {
        store.set(key, value, &writing).await?
    };
    if json {
        print_json([("key", json!(key)), ("stored", json!(stored))])?;
    }
    Ok(found(stored))
}
