//! Bytes for tests that ask a driver about stamps. They are no entries: nothing but the stamp is where a record has it.

use bytes::Bytes;

/// Bytes that carry a stamp where a record has it.
pub(crate) fn record(stamp: u64, payload: &str) -> Bytes {
    let mut record = vec![0; 40];
    record.splice(4..12, stamp.to_be_bytes());
    record.extend(payload.as_bytes());
    record.into()
}
