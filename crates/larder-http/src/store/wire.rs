//! What is kept for a target, as bytes and back. Frozen: a change is a new version, and the old one stays readable.
//!
//! All numbers are little-endian. Text and bytes carry their length before them, in 32 bits; lists their count.
//!
//! ```text
//! version u8 = 1 · target · responses:
//!   id u128 · status u16 · flags u8 · mark u8 · requested, received, delete_at (seconds i64, nanoseconds u32)
//!   [body_bytes u64] · [message] · fields (name, value) · selecting (name, 0 | 1 value) · [range] · tags · [trailers]
//!   body: bytes | id u128, bytes u64, until u64 (milliseconds)
//! ```
//!
//! Bytes may come from anyone who can write to the store: reading them never panics, and never allocates more than they
//! warrant. Fields and bodies are handed out of them without copying.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use larder::BoxError;
use larder::time::Timestamp;

use super::{Chunked, ResponseId, StoredBody, StoredResponse, Variants};
use crate::policy::{Exchange, Kept, Mark, Policy, Selecting, Stored};

const VERSION: u8 = 1;

const MESSAGE: u8 = 1;
const RANGE: u8 = 2;
const TRAILERS: u8 = 4;
const CHUNKS: u8 = 8;
const BODY_BYTES: u8 = 16;
const KNOWN: u8 = MESSAGE | RANGE | TRAILERS | CHUNKS | BODY_BYTES;

type Result<T> = std::result::Result<T, BoxError>;

/// The bytes of what is kept for a target.
///
/// # Errors
/// A body that some other store keeps, and what has more than 2³² of something.
pub(super) fn encode(target: &str, variants: &Variants) -> Result<Bytes> {
    let inline: usize =
        variants.responses().iter().filter_map(|response| response.body.in_memory()).map(Bytes::len).sum();
    let mut out = BytesMut::with_capacity(inline + 512 * variants.responses().len() + target.len() + 16);
    out.put_u8(VERSION);
    put_bytes(&mut out, target.as_bytes())?;
    put_count(&mut out, variants.responses().len())?;
    for response in variants.responses() {
        put_response(&mut out, response)?;
    }
    Ok(out.freeze())
}

fn put_response(out: &mut BytesMut, response: &StoredResponse) -> Result<()> {
    let kept = response.stored.kept();
    let chunked = response.body.chunked();
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    out.put_u128_le(response.id.0);
    out.put_u16_le(kept.status.as_u16());
    out.put_u8(
        flag(response.message.is_some(), MESSAGE)
            | flag(kept.range.is_some(), RANGE)
            | flag(response.trailers.is_some(), TRAILERS)
            | flag(chunked.is_some(), CHUNKS)
            | flag(kept.body_bytes.is_some(), BODY_BYTES),
    );
    out.put_u8(match kept.mark {
        Mark::None => 0,
        Mark::Stale => 1,
        Mark::Invalid => 2,
    });
    for time in [kept.times.requested_at, kept.times.received_at, response.delete_at] {
        put_time(out, time);
    }
    if let Some(bytes) = kept.body_bytes {
        out.put_u64_le(bytes);
    }
    if let Some(message) = &response.message {
        put_bytes(out, message.as_bytes())?;
    }
    put_fields(out, &kept.headers)?;
    put_count(out, kept.selecting.pairs().count())?;
    for (name, value) in kept.selecting.pairs() {
        put_bytes(out, name.as_str().as_bytes())?;
        out.put_u8(u8::from(value.is_some()));
        value.map_or(Ok(()), |value| put_bytes(out, value))?;
    }
    if let Some(range) = &kept.range {
        put_bytes(out, range.as_bytes())?;
    }
    put_count(out, response.tags.len())?;
    for tag in response.tags.iter() {
        put_bytes(out, tag.as_bytes())?;
    }
    if let Some(trailers) = &response.trailers {
        put_fields(out, trailers)?;
    }
    match (chunked, response.body.in_memory()) {
        (Some(Chunked { id, until }), _) => {
            out.put_u128_le(id);
            out.put_u64_le(response.body.bytes());
            out.put_u64_le(until.as_millis());
        }
        (None, Some(body)) => put_bytes(out, body)?,
        (None, None) => return Err("the body is kept by some other store".into()),
    }
    Ok(())
}

fn put_count(out: &mut BytesMut, count: usize) -> Result<()> {
    out.put_u32_le(u32::try_from(count)?);
    Ok(())
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) -> Result<()> {
    put_count(out, bytes.len())?;
    out.put_slice(bytes);
    Ok(())
}

fn put_fields(out: &mut BytesMut, fields: &HeaderMap) -> Result<()> {
    put_count(out, fields.len())?;
    for (name, value) in fields {
        put_bytes(out, name.as_str().as_bytes())?;
        put_bytes(out, value.as_bytes())?;
    }
    Ok(())
}

/// Whole seconds before or after the epoch, rounded down, and what is left in nanoseconds.
fn put_time(out: &mut BytesMut, time: SystemTime) {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, i64::wrapping_neg);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds.saturating_sub(1), 1_000_000_000 - nanos),
            }
        }
    };
    out.put_i64_le(seconds);
    out.put_u32_le(nanos);
}

/// What is kept for a target, and the target. `open` says how a body in chunks is read: target, chunks, how many bytes.
///
/// # Errors
/// Bytes that [`encode`] did not make.
pub(super) fn decode(
    policy: &Policy,
    bytes: &Bytes,
    open: impl Fn(&Arc<str>, Chunked, u64) -> StoredBody,
) -> Result<(Arc<str>, Variants)> {
    let mut rest = Rest(bytes.clone());
    if rest.u8()? != VERSION {
        return Err("a version that this build does not know".into());
    }
    let target: Arc<str> = rest.text()?.into();
    let count = rest.count(MIN_RESPONSE_BYTES)?;
    let mut responses = Vec::with_capacity(count);
    for _ in 0..count {
        let response = rest.response(policy, |chunked, bytes| open(&target, chunked, bytes))?;
        responses.push(Arc::new(response));
    }
    if !rest.0.is_empty() {
        return Err("bytes are left over".into());
    }
    Ok((target, Variants::new(responses)))
}

/// Fewer bytes are no response: id, status, flags, mark, three times, three counts, and the length of a body.
const MIN_RESPONSE_BYTES: usize = 16 + 2 + 1 + 1 + 3 * 12 + 3 * 4 + 4;

/// What is still to be read.
struct Rest(Bytes);

impl Rest {
    fn need(&self, bytes: usize) -> Result<()> {
        if self.0.len() < bytes { Err("it ends too early".into()) } else { Ok(()) }
    }

    fn u8(&mut self) -> Result<u8> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u64(&mut self) -> Result<u64> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }

    fn u128(&mut self) -> Result<u128> {
        self.need(16)?;
        Ok(self.0.get_u128_le())
    }

    /// A count of things that take at least so many bytes each.
    fn count(&mut self, bytes_each: usize) -> Result<usize> {
        self.need(4)?;
        let count = usize::try_from(self.0.get_u32_le())?;
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.0.len()) {
            return Err("it counts more than there is".into());
        }
        Ok(count)
    }

    fn bytes(&mut self) -> Result<Bytes> {
        let count = self.count(1)?;
        Ok(self.0.split_to(count))
    }

    fn text(&mut self) -> Result<String> {
        Ok(std::str::from_utf8(&self.bytes()?)?.to_owned())
    }

    fn name(&mut self) -> Result<HeaderName> {
        Ok(HeaderName::from_bytes(&self.bytes()?)?)
    }

    fn value(&mut self) -> Result<HeaderValue> {
        Ok(HeaderValue::from_maybe_shared(self.bytes()?)?)
    }

    fn time(&mut self) -> Result<SystemTime> {
        self.need(12)?;
        let (seconds, nanos) = (self.0.get_i64_le(), self.0.get_u32_le());
        if nanos >= 1_000_000_000 {
            return Err("a time with more than a second of nanoseconds".into());
        }
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let time = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        let time = time.and_then(|time| time.checked_add(Duration::from_nanos(u64::from(nanos))));
        time.ok_or_else(|| "a time that cannot be".into())
    }

    fn fields(&mut self) -> Result<HeaderMap> {
        // A name has a byte at least.
        let count = self.count(9)?;
        let mut fields = HeaderMap::try_with_capacity(count)?;
        for _ in 0..count {
            let (name, value) = (self.name()?, self.value()?);
            fields.try_append(name, value)?;
        }
        Ok(fields)
    }

    fn selecting(&mut self) -> Result<Selecting> {
        let count = self.count(6)?;
        let mut pairs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.name()?;
            let value = match self.u8()? {
                0 => None,
                1 => Some(self.bytes()?.to_vec()),
                _ => return Err("neither there nor not there".into()),
            };
            pairs.push((name, value));
        }
        Ok(Selecting::from_pairs(pairs))
    }

    fn tags(&mut self) -> Result<Arc<[String]>> {
        let count = self.count(4)?;
        let mut tags = Vec::with_capacity(count);
        for _ in 0..count {
            tags.push(self.text()?);
        }
        Ok(tags.into())
    }

    fn response(
        &mut self,
        policy: &Policy,
        open: impl Fn(Chunked, u64) -> StoredBody,
    ) -> Result<StoredResponse> {
        let id = ResponseId(self.u128()?);
        self.need(2)?;
        let status = StatusCode::from_u16(self.0.get_u16_le())?;
        let flags = self.u8()?;
        if flags & !KNOWN != 0 {
            return Err("flags that this build does not know".into());
        }
        let mark = match self.u8()? {
            0 => Mark::None,
            1 => Mark::Stale,
            2 => Mark::Invalid,
            _ => return Err("a mark that this build does not know".into()),
        };
        let times = Exchange { requested_at: self.time()?, received_at: self.time()? };
        let delete_at = self.time()?;
        let has = |flag: u8| flags & flag != 0;
        let body_bytes = if has(BODY_BYTES) { Some(self.u64()?) } else { None };
        let message = if has(MESSAGE) { Some(self.text()?) } else { None };
        let headers = self.fields()?;
        let selecting = self.selecting()?;
        let range = if has(RANGE) { Some(self.value()?) } else { None };
        let tags = self.tags()?;
        let trailers = if has(TRAILERS) { Some(self.fields()?) } else { None };
        let body = if has(CHUNKS) {
            let id = self.u128()?;
            let (bytes, until) = (self.u64()?, Timestamp::from_millis(self.u64()?));
            open(Chunked { id, until }, bytes)
        } else {
            StoredBody::from_bytes(self.bytes()?)
        };
        let kept = Kept { status, headers, selecting, range, times, body_bytes, mark };
        Ok(StoredResponse {
            id,
            stored: Stored::new(policy, kept),
            message,
            tags,
            trailers,
            delete_at,
            body,
            began: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use proptest::prelude::*;

    use super::*;

    /// A response with everything in it.
    fn full(seed: u64, body: StoredBody) -> StoredResponse {
        let mut headers = HeaderMap::new();
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        headers.append(header::SET_COOKIE, HeaderValue::from_static("a=1"));
        headers.append(header::SET_COOKIE, HeaderValue::from_bytes(b"b=\xfc").unwrap());
        let at = UNIX_EPOCH + Duration::new(1_800_000_000, 123_456_789);
        let selecting = Selecting::from_pairs([
            (header::ACCEPT, Some(b"text/html".to_vec())),
            (header::ACCEPT_LANGUAGE, None),
        ]);
        let kept = Kept {
            status: StatusCode::PARTIAL_CONTENT,
            headers,
            selecting,
            range: Some(HeaderValue::from_static("bytes=0-4")),
            times: Exchange { requested_at: at - Duration::from_millis(1), received_at: at },
            body_bytes: None,
            mark: Mark::Stale,
        };
        let stored = Stored::new(&Policy::shared(), kept);
        let id = ResponseId(0x0123_4567_89ab_cdef_0011_2233_4455_6677 ^ u128::from(seed));
        let mut response = StoredResponse::new(id, stored, at + Duration::from_secs(60), body);
        response.message = Some("Partial".to_owned());
        response.tags = ["news".to_owned(), "três".to_owned()].into();
        response.trailers = Some(response.stored.headers().clone());
        response
    }

    fn open(_: &Arc<str>, chunked: Chunked, bytes: u64) -> StoredBody {
        StoredBody::from_chunks(bytes, chunked, Arc::new(super::super::pieces::Pieces::default()))
    }

    fn samples() -> Variants {
        let chunked = Chunked { id: 7 << 100, until: Timestamp::from_millis(1_800_000_100_000) };
        Variants::new([
            Arc::new(full(0, StoredBody::from_bytes(Bytes::from_static(b"hello")))),
            Arc::new(full(1, open(&"".into(), chunked, 1 << 33))),
        ])
    }

    fn shown(variants: &Variants) -> String {
        format!("{:?}", variants.responses().iter().map(|r| (&**r, r.body.in_memory())).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_kept_comes_back() {
        let bytes = encode("http://example.com/", &samples()).unwrap();
        let (target, variants) = decode(&Policy::shared(), &bytes, open).unwrap();
        assert_eq!(&*target, "http://example.com/");
        assert_eq!(shown(&variants), shown(&samples()));
        assert_eq!(encode(&target, &variants).unwrap(), bytes);
    }

    /// A change that makes this fail needs a new version: stores out there have these bytes.
    #[test]
    fn the_bytes_of_version_one_are_frozen() {
        let golden = Bytes::from_static(include_bytes!("../../tests/golden/record.bin"));
        assert_eq!(encode("http://example.com/", &samples()).unwrap(), golden);
        let (_, variants) = decode(&Policy::shared(), &golden, open).unwrap();
        assert_eq!(shown(&variants), shown(&samples()));
    }

    #[test]
    fn times_before_the_epoch_and_far_ones_come_back() {
        let far = UNIX_EPOCH + Duration::from_secs(i64::MAX as u64 / 2);
        for time in [UNIX_EPOCH, UNIX_EPOCH - Duration::new(1, 1), UNIX_EPOCH - Duration::from_secs(5), far] {
            let mut out = BytesMut::new();
            put_time(&mut out, time);
            assert_eq!(Rest(out.freeze()).time().unwrap(), time);
        }
    }

    #[test]
    fn what_is_cut_off_or_goes_on_is_refused() {
        let bytes = encode("http://example.com/", &samples()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode(&Policy::shared(), &bytes.slice(..end), open).is_err(), "cut at {end}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode(&Policy::shared(), &longer.into(), open).is_err());
        assert!(decode(&Policy::shared(), &Bytes::from_static(b"\x02"), open).is_err(), "another version");
    }

    #[test]
    fn counts_are_not_believed() {
        let bytes = encode("http://example.com/", &samples()).unwrap();
        for at in 0..bytes.len() - 4 {
            let mut hostile = bytes.to_vec();
            hostile[at..at + 4].copy_from_slice(&[0xff; 4]);
            // Whatever comes of it, it is no larger than what was there.
            let measured =
                allocation_counter::measure(|| drop(decode(&Policy::shared(), &hostile.into(), open)));
            assert!(measured.bytes_max < 200_000, "{} bytes for what is hostile at {at}", measured.bytes_max);
        }
    }

    #[test]
    fn a_body_of_another_store_is_refused() {
        let elsewhere = StoredBody::from_reader(3, Arc::new(super::super::pieces::Pieces::default()));
        assert!(encode("http://example.com/", &Variants::new([Arc::new(full(0, elsewhere))])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&Policy::shared(), &bytes.into(), open);
        }

        #[test]
        fn nearly_right_bytes_are_refused_or_mean_themselves(at in 0_usize..900, byte in any::<u8>()) {
            let mut bytes = encode("http://example.com/", &samples()).unwrap().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok((target, variants)) = decode(&Policy::shared(), &bytes.clone().into(), open) {
                // Names are read in whatever case, and written in one.
                prop_assert_eq!(encode(&target, &variants).unwrap().len(), bytes.len());
            }
        }
    }
}
