//! Compression around any driver: bodies go through zstd, heads stay readable.
//!
//! A compressed record is the head with byte [`COMPRESSION_AT`] set to 1, the length of the plain body as a
//! big-endian u32, and one zstd frame. Knows nothing of what is inside a body. It never trusts a length that
//! it reads: see [`CompressOptions::value_bytes_max`].

use std::io::Read as _;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::driver::Driver;
use crate::driver::body::{Transform, Transformed, transformed_driver};
use crate::entry::wire::{COMPRESSION_AT, HEAD_BYTES};
use crate::error::{Error, ErrorKind, Result};

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
const LENGTH_BYTES: usize = 4;
/// Up to this many times the compressed size (and up to [`TRUSTED_BYTES`]), a length is allocated at once;
/// beyond it the buffer grows with what really comes out.
const TRUSTED_RATIO: usize = 32;
const TRUSTED_BYTES: usize = 64 * 1024;

/// How values are compressed.
///
/// ```
/// use larder::driver::compress::CompressOptions;
/// let mut options = CompressOptions::default();
/// options.level = 3;
/// assert_eq!(options.threshold_bytes, 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompressOptions {
    /// The zstd level, 1 to 22. Default: 1, which compresses 700 MB/s; 9 costs eleven times that for a
    /// twelfth less space.
    pub level: i32,
    /// Bodies below this many bytes are stored as they are. Default: 1024.
    pub threshold_bytes: usize,
    /// No stored value is decompressed to more bytes than this, whatever it claims. Default: 64 MiB. Larger
    /// values are stored as they are.
    pub value_bytes_max: usize,
}

impl Default for CompressOptions {
    fn default() -> Self {
        Self { level: 1, threshold_bytes: 1024, value_bytes_max: 64 * 1024 * 1024 }
    }
}

/// A driver that stores what another one stores, smaller.
///
/// What does not become smaller is stored as it is, and what was stored without compression stays readable,
/// so the decorator can be added to a store in use. A value that does not decompress to what it claims reads
/// as the empty value, which is damage to whoever decodes it.
///
/// Compression runs on the caller's thread: some 7 µs for 3 kB, 150 µs for 100 kB.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn larder::driver::Driver>) -> larder::Result<()> {
/// use larder::driver::compress::{Compress, CompressOptions};
/// let smaller = Compress::new(store, CompressOptions::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Compress<D> {
    transformed: Transformed<D, Zstd>,
}

impl<D: Driver> Compress<D> {
    /// Compression around a driver.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such level.
    pub fn new(driver: D, options: CompressOptions) -> Result<Self> {
        let levels = 1..=22;
        if !levels.contains(&options.level) {
            let message = format!("there is no zstd level {}: it is 1 to 22", options.level);
            return Err(Error::new(ErrorKind::Config, message));
        }
        Ok(Self { transformed: Transformed { inner: driver, transform: Zstd(options) } })
    }
}

transformed_driver!(Compress);

#[derive(Debug)]
struct Zstd(CompressOptions);

impl Transform for Zstd {
    const MARKER_AT: usize = COMPRESSION_AT;
    const READS_PLAIN: bool = true;
    const GROWTH_MAX: u64 = 0;

    fn seal(&self, _key: &str, plain: &Bytes) -> Result<Option<Bytes>> {
        let Some((head, body)) = plain.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let compressible = (self.0.threshold_bytes..=self.0.value_bytes_max).contains(&body.len());
        // A body that something else has compressed already is left alone.
        if !compressible || head.get(COMPRESSION_AT) != Some(&PLAIN) {
            return Ok(None);
        }
        let Ok(length) = u32::try_from(body.len()) else { return Ok(None) };
        let frame = zstd::bulk::compress(body, self.0.level).map_err(|cause| {
            Error::from_source(ErrorKind::Encode, format!("compressing a value of {length} bytes"), cause)
        })?;
        if LENGTH_BYTES + frame.len() >= body.len() {
            return Ok(None);
        }
        let mut sealed = BytesMut::with_capacity(HEAD_BYTES + LENGTH_BYTES + frame.len());
        sealed.put_slice(head);
        if let Some(marker) = sealed.get_mut(COMPRESSION_AT) {
            *marker = ZSTD;
        }
        sealed.put_u32(length);
        sealed.put_slice(&frame);
        Ok(Some(sealed.freeze()))
    }

    fn open(&self, _key: &str, head: &[u8; HEAD_BYTES], body: &[u8]) -> Option<BytesMut> {
        if head.get(COMPRESSION_AT) != Some(&ZSTD) {
            return None;
        }
        let (length, frame) = body.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        // The frame has a length of its own, by which the decoder allocates: one lie is not better than two.
        let claimed = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
        if length > self.0.value_bytes_max || u64::try_from(length).ok()? != claimed {
            return None;
        }
        let plausible = length <= TRUSTED_BYTES || length / TRUSTED_RATIO <= frame.len();
        let opened = if plausible { decompress(head, frame, length) } else { stream(head, frame, length) };
        opened.map(BytesMut::from)
    }
}

/// Decompresses into a buffer of the claimed length, which is a modest multiple of the frame's.
fn decompress(head: &[u8; HEAD_BYTES], frame: &[u8], length: usize) -> Option<Bytes> {
    let mut plain = vec![0; HEAD_BYTES + length];
    let (to_head, to_body) = plain.split_first_chunk_mut::<HEAD_BYTES>()?;
    to_head.copy_from_slice(head);
    let written = zstd::bulk::decompress_to_buffer(frame, to_body).ok()?;
    (written == length).then(|| Bytes::from(plain))
}

/// Decompresses into a buffer that grows with what comes out, and stops one byte beyond the claim.
fn stream(head: &[u8; HEAD_BYTES], frame: &[u8], length: usize) -> Option<Bytes> {
    let mut rest = frame;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut rest).ok()?.single_frame();
    let mut plain = Vec::with_capacity(HEAD_BYTES + TRUSTED_BYTES);
    plain.extend_from_slice(head);
    let limit = u64::try_from(length).ok()?.saturating_add(1);
    let written = decoder.by_ref().take(limit).read_to_end(&mut plain).ok()?;
    drop(decoder);
    (written == length && rest.is_empty()).then(|| Bytes::from(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::body::tests::{Shelf, heads_look_untouched, record};
    use crate::driver::{Capabilities, When};
    use crate::entry::wire::{Damage, decode};

    fn compress(shelf: &Shelf) -> Compress<Shelf> {
        Compress::new(shelf.clone(), CompressOptions::default()).unwrap()
    }

    fn json(items: usize) -> Vec<u8> {
        let item = |n| format!(r#"{{"id":{n},"name":"product {n}","price":{}.99,"in_stock":true}}"#, n * 7);
        format!("[{}]", (0..items).map(item).collect::<Vec<_>>().join(",")).into_bytes()
    }

    async fn stored(payload: &[u8]) -> (Shelf, Compress<Shelf>, Bytes) {
        let shelf = Shelf::default();
        let driver = compress(&shelf);
        let plain = record("k", 10, payload);
        driver.set("k", plain.clone(), None, When::Always).await.unwrap();
        (shelf, driver, plain)
    }

    /// A record that claims `length` bytes of body and holds `frame`.
    fn forged(length: u32, frame: &[u8]) -> Vec<u8> {
        let mut forged = record("k", 10, b"")[..HEAD_BYTES].to_vec();
        forged[COMPRESSION_AT] = ZSTD;
        forged.extend_from_slice(&length.to_be_bytes());
        forged.extend_from_slice(frame);
        forged
    }

    #[tokio::test]
    async fn json_takes_a_third_of_its_space_and_reads_back_as_it_was() {
        let (shelf, driver, plain) = stored(&json(100)).await;
        assert!(shelf.stored("k").len() * 3 < plain.len(), "{} of {}", shelf.stored("k").len(), plain.len());
        assert_eq!(shelf.stored("k")[COMPRESSION_AT], ZSTD);
        assert_eq!(driver.get("k").await.unwrap().unwrap(), plain);
    }

    #[tokio::test]
    async fn the_head_looks_untouched_from_above() {
        heads_look_untouched(compress(&Shelf::default())).await;
    }

    #[tokio::test]
    async fn what_does_not_shrink_or_is_small_is_stored_as_it_is() {
        let mut noise = vec![0u8; 4_000];
        let mut state = 1u32;
        for byte in &mut noise {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = state.to_be_bytes()[0];
        }
        for payload in [&noise[..], &[b'x'; 500]] {
            let (shelf, driver, plain) = stored(payload).await;
            assert_eq!(shelf.stored("k"), plain);
            assert_eq!(driver.get("k").await.unwrap().unwrap(), plain);
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_bound_is_stored_as_it_is() {
        let shelf = Shelf::default();
        let options = CompressOptions { value_bytes_max: 2_000, ..CompressOptions::default() };
        let driver = Compress::new(shelf.clone(), options).unwrap();
        let plain = record("k", 10, &[b'x'; 3_000]);
        driver.set("k", plain.clone(), None, When::Always).await.unwrap();
        assert_eq!(shelf.stored("k"), plain);
        assert_eq!(driver.get("k").await.unwrap().unwrap(), plain);
    }

    #[tokio::test]
    async fn a_very_compressible_value_within_the_bound_reads_back() {
        let (shelf, driver, plain) = stored(&vec![0; 8 * 1024 * 1024]).await;
        assert!(shelf.stored("k").len() < 4_000);
        assert_eq!(driver.get("k").await.unwrap().unwrap(), plain);
    }

    #[tokio::test]
    async fn a_bomb_is_damage() {
        let shelf = Shelf::default();
        let driver = compress(&shelf);
        let zeros = vec![0; 64 * 1024 * 1024 + 1];
        let frame = zstd::bulk::compress(&zeros, 1).unwrap();
        // The same bytes without a length in the frame, as a streaming encoder writes them.
        let unsized_frame = zstd::stream::encode_all(&zeros[..], 1).unwrap();
        for frame in [&frame, &unsized_frame] {
            for claim in [0, 1, 100, 64 * 1024 * 1024, 64 * 1024 * 1024 + 1, u32::MAX] {
                shelf.replace("k", forged(claim, frame));
                assert_eq!(driver.get("k").await.unwrap().unwrap(), "", "claim {claim}");
            }
        }
    }

    #[tokio::test]
    async fn a_lying_length_is_damage() {
        let shelf = Shelf::default();
        let driver = compress(&shelf);
        for claimed in [0u32, 99, 101, 60 * 1024 * 1024, u32::MAX] {
            shelf.replace("k", forged(claimed, &zstd::bulk::compress(&[1; 100], 1).unwrap()));
            assert_eq!(driver.get("k").await.unwrap().unwrap(), "");
        }
        // Frame and field tell the same lie: a single-segment frame of 60 MiB with nothing inside.
        let lie = 60u32 * 1024 * 1024;
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
        frame.extend_from_slice(&lie.to_le_bytes());
        frame.extend_from_slice(&[1, 0, 0]);
        assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).unwrap(), Some(u64::from(lie)));
        shelf.replace("k", forged(lie, &frame));
        assert_eq!(driver.get("k").await.unwrap().unwrap(), "");
    }

    #[tokio::test]
    async fn every_truncation_and_every_trailing_byte_is_damage() {
        for payload in [json(40), vec![0; 300_000]] {
            let (shelf, driver, _) = stored(&payload).await;
            let whole = shelf.stored("k");
            for length in HEAD_BYTES..whole.len() {
                shelf.replace("k", whole.slice(..length));
                assert_eq!(driver.get("k").await.unwrap().unwrap(), "", "cut to {length}");
            }
            shelf.replace("k", [&whole[..], b"\0"].concat());
            assert_eq!(driver.get("k").await.unwrap().unwrap(), "");
        }
    }

    #[tokio::test]
    async fn every_flipped_bit_is_damage_or_changes_nothing() {
        let (shelf, driver, plain) = stored(&json(40)).await;
        let whole = shelf.stored("k");
        let original = decode("k", &plain);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            shelf.replace("k", flipped);
            let read = decode("k", &driver.get("k").await.unwrap().unwrap());
            assert!(read.is_err() || read == original, "bit {bit}");
        }
    }

    #[tokio::test]
    async fn without_the_decorator_a_compressed_value_is_sealed() {
        let (shelf, ..) = stored(&json(40)).await;
        assert_eq!(decode("k", &shelf.stored("k")), Err(Damage::Sealed));
    }

    #[test]
    fn it_can_do_what_the_driver_inside_can() {
        assert_eq!(compress(&Shelf::default()).capabilities(), Shelf::default().capabilities());
        assert_ne!(Shelf::default().capabilities(), Capabilities::default());
    }

    #[test]
    fn a_level_that_zstd_lacks_is_refused() {
        let options = CompressOptions { level: 23, ..CompressOptions::default() };
        assert_eq!(Compress::new(Shelf::default(), options).unwrap_err().kind(), ErrorKind::Config);
    }
}
