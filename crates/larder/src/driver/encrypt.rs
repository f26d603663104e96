//! Authenticated encryption around any driver: bodies are sealed with AES-256-GCM or XChaCha20-Poly1305.
//!
//! A sealed record is the head with byte [`ENCRYPTION_AT`] set to the cipher's id, the id of the key as a
//! big-endian u32, a random nonce, and the ciphertext with its tag. The full cache key and the head are
//! authenticated with it, so that nothing can be moved to another key, dated forward or cut down.
//!
//! Knows nothing of what is inside a body. Not hidden: cache keys, and heads (stamp, times, codec), by which
//! stores order and reclaim; nor the length of a value.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::array::typenum::Unsigned;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadCore, AeadInOut, Generate, KeyInit, Nonce, Tag};
use bytes::{BufMut as _, Bytes, BytesMut};
use chacha20poly1305::XChaCha20Poly1305;

use crate::driver::Driver;
use crate::driver::body::{Transform, Transformed, transformed_driver};
use crate::entry::wire::{ENCRYPTION_AT, HEAD_BYTES};
use crate::error::{Error, ErrorKind, Result};

const KEY_ID_BYTES: usize = 4;
const SECRET_BYTES: usize = 32;

/// Which algorithm seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-256-GCM: the faster one on processors with AES instructions. Its nonces are 96 random bits, so a
    /// key has to be replaced before it has sealed 2^32 values.
    Aes256Gcm,
    /// XChaCha20-Poly1305: nonces of 192 random bits, so a key lasts for any number of values.
    XChaCha20Poly1305,
}

impl Cipher {
    fn id(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::XChaCha20Poly1305 => 2,
        }
    }
}

/// A secret with its number and its cipher.
///
/// Its `Debug` shows the number and the cipher, never the secret. What it keeps is wiped when it is dropped.
///
/// ```
/// use larder::driver::encrypt::{Cipher, EncryptionKey};
/// let key = EncryptionKey::new(1, Cipher::Aes256Gcm, [7; 32]);
/// assert!(!format!("{key:?}").contains('7'));
/// ```
#[derive(Clone)]
pub struct EncryptionKey {
    id: u32,
    cipher: Keyed,
}

/// A cipher with its secret: what is kept is the expanded key alone.
#[derive(Clone)]
enum Keyed {
    Aes(Box<Aes256Gcm>),
    XChaCha(XChaCha20Poly1305),
}

impl EncryptionKey {
    /// A key. The id is stored with every value that it seals, and is no secret; no two keys of a store may
    /// share one.
    pub fn new(id: u32, cipher: Cipher, secret: [u8; SECRET_BYTES]) -> Self {
        let cipher = match cipher {
            Cipher::Aes256Gcm => Keyed::Aes(Box::new(Aes256Gcm::new(&secret.into()))),
            Cipher::XChaCha20Poly1305 => Keyed::XChaCha(XChaCha20Poly1305::new(&secret.into())),
        };
        Self { id, cipher }
    }

    /// A key from text, as configuration has it: id, cipher, and the secret in hexadecimal.
    ///
    /// ```
    /// use larder::driver::encrypt::EncryptionKey;
    /// let secret = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    /// assert!(EncryptionKey::parse(&format!("1:aes-256-gcm:{secret}")).is_ok());
    /// assert!(EncryptionKey::parse(&format!("2:xchacha20-poly1305:{secret}")).is_ok());
    /// assert!(EncryptionKey::parse("3:rot13:00").is_err());
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with a message that repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            let form = "an encryption key reads 1:aes-256-gcm:<64 hexadecimal digits>";
            Error::new(ErrorKind::Config, format!("{form}; {what}"))
        };
        let mut parts = text.trim().splitn(3, ':');
        let (Some(id), Some(cipher), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("this one does not have three parts"));
        };
        let id = id.parse().map_err(|_| wrong("the first part is not a number below 2^32"))?;
        let cipher = match cipher {
            "aes-256-gcm" => Cipher::Aes256Gcm,
            "xchacha20-poly1305" => Cipher::XChaCha20Poly1305,
            _ => return Err(wrong("the ciphers are aes-256-gcm and xchacha20-poly1305")),
        };
        let secret = from_hex(secret).ok_or_else(|| wrong("the last part is not 64 hexadecimal digits"))?;
        Ok(Self::new(id, cipher, secret))
    }

    /// The number that is stored with every value that this key seals.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The algorithm that it seals with.
    pub fn cipher(&self) -> Cipher {
        match self.cipher {
            Keyed::Aes(_) => Cipher::Aes256Gcm,
            Keyed::XChaCha(_) => Cipher::XChaCha20Poly1305,
        }
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey")
            .field("id", &self.id)
            .field("cipher", &self.cipher())
            .finish_non_exhaustive()
    }
}

fn from_hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut secret = [0; SECRET_BYTES];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != SECRET_BYTES || !rest.is_empty() {
        return None;
    }
    for (byte, &[high, low]) in secret.iter_mut().zip(pairs) {
        let digit = |character: u8| char::from(character).to_digit(16);
        *byte = u8::try_from(digit(high)? * 16 + digit(low)?).ok()?;
    }
    Some(secret)
}

/// The keys of a store: one that seals, and those that may still have sealed what is there.
///
/// To rotate: put the new key in front, retire the old one, and drop it when the longest TTL has passed.
///
/// ```
/// use larder::driver::encrypt::{Cipher, EncryptionKey, KeyRing};
/// let old = EncryptionKey::new(1, Cipher::Aes256Gcm, [1; 32]);
/// let new = EncryptionKey::new(2, Cipher::XChaCha20Poly1305, [2; 32]);
/// let ring = KeyRing::new(new).retired(old);
/// assert_eq!(ring.writes_with().id(), 2);
/// ```
#[derive(Debug, Clone)]
pub struct KeyRing {
    first: EncryptionKey,
    retired: Vec<EncryptionKey>,
}

impl KeyRing {
    /// A ring with the key that seals.
    pub fn new(key: EncryptionKey) -> Self {
        Self { first: key, retired: Vec::new() }
    }

    /// This ring with another key that only opens.
    #[must_use]
    pub fn retired(mut self, key: EncryptionKey) -> Self {
        self.retired.push(key);
        self
    }

    /// The key that seals.
    pub fn writes_with(&self) -> &EncryptionKey {
        &self.first
    }

    fn with_id(&self, id: u32) -> impl Iterator<Item = &EncryptionKey> {
        std::iter::once(&self.first).chain(&self.retired).filter(move |key| key.id == id)
    }
}

/// A driver that stores what another one stores, unreadable without its keys.
///
/// What cannot be opened reads as the empty value, which is damage to whoever decodes it: a value that was
/// altered, moved from another key, sealed by a key that the ring lacks, or stored without encryption. Whoever
/// can write the store can still delete a value or bring back an older one of the same key.
///
/// Compression belongs outside ([`Compress`](crate::driver::compress) around `Encrypt`): ciphertext does not
/// shrink. Where an attacker chooses part of a value and sees its size, leave compression off.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn larder::driver::Driver>) -> larder::Result<()> {
/// use larder::driver::encrypt::{Encrypt, EncryptionKey, KeyRing};
/// let key = EncryptionKey::parse(&std::env::var("CACHE_KEY").unwrap_or_default())?;
/// let sealed = Encrypt::new(store, KeyRing::new(key));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Encrypt<D> {
    transformed: Transformed<D, KeyRing>,
}

impl<D: Driver> Encrypt<D> {
    /// Encryption around a driver.
    pub fn new(driver: D, keys: KeyRing) -> Self {
        Self { transformed: Transformed { inner: driver, transform: keys } }
    }
}

transformed_driver!(Encrypt);

impl Transform for KeyRing {
    const MARKER_AT: usize = ENCRYPTION_AT;
    // Whoever can write the store could otherwise pass a record of his own off as a sealed one.
    const READS_PLAIN: bool = false;
    // The key's id, the longer nonce, the tag.
    const GROWTH_MAX: u64 = 4 + 24 + 16;

    fn seal(&self, key: &str, plain: &Bytes) -> Result<Option<Bytes>> {
        let Some((head, body)) = plain.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let mut head = *head;
        let Some(marker) = head.get_mut(ENCRYPTION_AT).filter(|marker| **marker == 0) else {
            // Its marker would be lost, and it could not be told from a plain record when it is opened.
            return Err(Error::new(ErrorKind::Encode, "encrypting a record that is encrypted already"));
        };
        *marker = self.first.cipher().id();
        let sealed = match &self.first.cipher {
            Keyed::Aes(cipher) => seal(&**cipher, self.first.id, key, &head, body),
            Keyed::XChaCha(cipher) => seal(cipher, self.first.id, key, &head, body),
        };
        sealed.map(Some)
    }

    fn open(&self, key: &str, head: &[u8; HEAD_BYTES], body: &[u8]) -> Option<BytesMut> {
        let marker = *head.get(ENCRYPTION_AT)?;
        let (id, sealed) = body.split_first_chunk::<KEY_ID_BYTES>()?;
        self.with_id(u32::from_be_bytes(*id)).filter(|with| with.cipher().id() == marker).find_map(|with| {
            match &with.cipher {
                Keyed::Aes(cipher) => open(&**cipher, key, head, sealed),
                Keyed::XChaCha(cipher) => open(cipher, key, head, sealed),
            }
        })
    }
}

/// What is authenticated beside the body. The length in front keeps a key's end apart from the head.
fn associated(key: &str, head: &[u8; HEAD_BYTES]) -> Vec<u8> {
    let mut associated = Vec::with_capacity(8 + key.len() + HEAD_BYTES);
    associated.extend_from_slice(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_be_bytes());
    associated.extend_from_slice(key.as_bytes());
    associated.extend_from_slice(head);
    associated
}

fn seal<C: AeadInOut>(cipher: &C, id: u32, key: &str, head: &[u8; HEAD_BYTES], body: &[u8]) -> Result<Bytes> {
    let nonce = Nonce::<C>::try_generate().map_err(|cause| {
        Error::from_source(ErrorKind::Unavailable, "asking the system for randomness", cause)
    })?;
    let before = HEAD_BYTES + KEY_ID_BYTES + nonce.len();
    let mut sealed = BytesMut::with_capacity(before + body.len() + <C as AeadCore>::TagSize::to_usize());
    sealed.put_slice(head);
    sealed.put_u32(id);
    sealed.put_slice(&nonce);
    let mut text = sealed.split_off(before);
    text.put_slice(body);
    let tag = cipher
        .encrypt_inout_detached(&nonce, &associated(key, head), InOutBuf::from(&mut text[..]))
        .map_err(|_| Error::new(ErrorKind::TooLarge, "encrypting a value that the cipher cannot take"))?;
    text.put_slice(&tag);
    // Both halves are one allocation, so this puts them together without a copy.
    sealed.unsplit(text);
    Ok(sealed.freeze())
}

fn open<C: AeadInOut>(cipher: &C, key: &str, head: &[u8; HEAD_BYTES], sealed: &[u8]) -> Option<BytesMut> {
    let (nonce, sealed) = sealed.split_at_checked(<C as AeadCore>::NonceSize::to_usize())?;
    let text_bytes = sealed.len().checked_sub(<C as AeadCore>::TagSize::to_usize())?;
    let (text, tag) = sealed.split_at_checked(text_bytes)?;
    let nonce = Nonce::<C>::try_from(nonce).ok()?;
    let tag = Tag::<C>::try_from(tag).ok()?;
    let mut plain = BytesMut::with_capacity(HEAD_BYTES + text.len());
    plain.put_slice(head);
    plain.put_slice(text);
    let body = plain.get_mut(HEAD_BYTES..)?;
    cipher.decrypt_inout_detached(&nonce, &associated(key, head), InOutBuf::from(body), &tag).ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::When;
    use crate::driver::body::tests::{Shelf, heads_look_untouched, record};
    use crate::driver::compress::{Compress, CompressOptions};
    use crate::entry::wire::{Damage, decode, encode_tombstone};
    use crate::time::{Stamp, Timestamp};

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::XChaCha20Poly1305];

    fn ring(cipher: Cipher) -> KeyRing {
        KeyRing::new(EncryptionKey::new(1, cipher, [7; 32]))
    }

    async fn sealed(cipher: Cipher) -> (Shelf, Encrypt<Shelf>, Bytes) {
        let shelf = Shelf::default();
        let driver = Encrypt::new(shelf.clone(), ring(cipher));
        let plain = record("k", 10, b"the secret of the larder");
        driver.set("k", plain.clone(), None, When::Always).await.unwrap();
        (shelf, driver, plain)
    }

    async fn refused<D: Driver>(driver: &D, key: &str) -> bool {
        driver.get(key).await.unwrap().unwrap().is_empty()
    }

    #[tokio::test]
    async fn what_is_stored_shows_nothing_of_the_value_and_reads_back_as_it_was() {
        for cipher in CIPHERS {
            let (shelf, driver, plain) = sealed(cipher).await;
            let stored = shelf.stored("k");
            assert!(!stored.windows(6).any(|window| window == b"secret"));
            assert_eq!(stored[..ENCRYPTION_AT], plain[..ENCRYPTION_AT]);
            assert_eq!(stored[ENCRYPTION_AT], cipher.id());
            assert_eq!(decode("k", &stored), Err(Damage::Sealed));
            assert_eq!(driver.get("k").await.unwrap().unwrap(), plain);
            assert!(u64::try_from(stored.len() - plain.len()).unwrap() <= KeyRing::GROWTH_MAX);
        }
    }

    #[tokio::test]
    async fn the_head_looks_untouched_from_above() {
        for cipher in CIPHERS {
            heads_look_untouched(Encrypt::new(Shelf::default(), ring(cipher))).await;
            let sealed = Encrypt::new(Shelf::default(), ring(cipher));
            heads_look_untouched(Compress::new(sealed, CompressOptions::default()).unwrap()).await;
            let smaller = Compress::new(Shelf::default(), CompressOptions::default()).unwrap();
            heads_look_untouched(Encrypt::new(smaller, ring(cipher))).await;
        }
    }

    #[tokio::test]
    async fn the_same_value_is_never_sealed_alike() {
        for cipher in CIPHERS {
            let (shelf, driver, plain) = sealed(cipher).await;
            let first = shelf.stored("k");
            driver.set("k", plain, None, When::Always).await.unwrap();
            assert_ne!(shelf.stored("k"), first);
        }
    }

    #[tokio::test]
    async fn a_value_copied_to_another_key_is_refused() {
        for cipher in CIPHERS {
            let (shelf, driver, _) = sealed(cipher).await;
            shelf.replace("l", shelf.stored("k"));
            assert!(refused(&driver, "l").await);
            assert!(!refused(&driver, "k").await);
        }
    }

    #[tokio::test]
    async fn a_head_that_was_altered_is_refused() {
        for cipher in CIPHERS {
            let (shelf, driver, _) = sealed(cipher).await;
            let whole = shelf.stored("k");
            // Stamp, fresh until, stale until, codec, compression, schema.
            for at in [11, 27, 35, 36, 37, 39] {
                let mut altered = whole.to_vec();
                altered[at] += 1;
                shelf.replace("k", altered);
                assert!(refused(&driver, "k").await, "byte {at}");
            }
        }
    }

    #[tokio::test]
    async fn a_tombstone_cannot_be_dated_forward() {
        let shelf = Shelf::default();
        let driver = Encrypt::new(shelf.clone(), ring(Cipher::Aes256Gcm));
        let at = Timestamp::from_millis(10);
        let tombstone = encode_tombstone(Stamp::at(at), at);
        driver.set("k", tombstone.clone(), None, When::Newer).await.unwrap();
        assert_eq!(driver.get("k").await.unwrap().unwrap(), tombstone);
        let mut altered = shelf.stored("k").to_vec();
        altered[4] = 0xff;
        shelf.replace("k", altered);
        assert!(refused(&driver, "k").await);
    }

    #[tokio::test]
    async fn every_flipped_bit_and_every_truncation_is_refused() {
        for cipher in CIPHERS {
            let (shelf, driver, _) = sealed(cipher).await;
            let whole = shelf.stored("k");
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                shelf.replace("k", flipped);
                assert!(refused(&driver, "k").await, "bit {bit}");
            }
            for length in HEAD_BYTES..whole.len() {
                shelf.replace("k", whole.slice(..length));
                assert!(refused(&driver, "k").await, "cut to {length}");
            }
        }
    }

    #[tokio::test]
    async fn what_was_stored_without_encryption_is_refused() {
        let (shelf, driver, plain) = sealed(Cipher::Aes256Gcm).await;
        shelf.replace("k", plain);
        assert!(refused(&driver, "k").await);
    }

    #[tokio::test]
    async fn a_retired_key_reads_and_the_new_one_writes() {
        let (shelf, _, plain) = sealed(Cipher::Aes256Gcm).await;
        let new = EncryptionKey::new(2, Cipher::XChaCha20Poly1305, [9; 32]);
        let old = EncryptionKey::new(1, Cipher::Aes256Gcm, [7; 32]);
        let rotated = Encrypt::new(shelf.clone(), KeyRing::new(new.clone()).retired(old));
        assert_eq!(rotated.get("k").await.unwrap().unwrap(), plain);
        rotated.set("k", plain.clone(), None, When::Always).await.unwrap();
        let only_new = Encrypt::new(shelf, KeyRing::new(new));
        assert_eq!(only_new.get("k").await.unwrap().unwrap(), plain);
    }

    #[tokio::test]
    async fn an_unknown_key_and_a_wrong_secret_are_refused() {
        let (shelf, ..) = sealed(Cipher::Aes256Gcm).await;
        for (id, cipher, secret) in
            [(2, CIPHERS[0], 7), (1, CIPHERS[0], 8), (1, CIPHERS[1], 7), (0, CIPHERS[0], 7)]
        {
            let key = EncryptionKey::new(id, cipher, [secret; 32]);
            assert!(refused(&Encrypt::new(shelf.clone(), KeyRing::new(key)), "k").await);
        }
    }

    #[tokio::test]
    async fn a_record_that_is_sealed_already_is_not_sealed_again() {
        let (shelf, driver, _) = sealed(Cipher::Aes256Gcm).await;
        let error = driver.set("k", shelf.stored("k"), None, When::Always).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Encode);
    }

    #[test]
    fn no_secret_is_printed() {
        let secret = "c0ffee".repeat(10) + "c0ff";
        let key = EncryptionKey::parse(&format!(" 1:aes-256-gcm:{secret}\n")).unwrap();
        let driver = Encrypt::new(Shelf::default(), KeyRing::new(key.clone()).retired(key));
        let shown = format!("{driver:?}");
        assert!(shown.contains("id: 1"), "{shown}");
        assert!(!shown.contains("192") && !shown.contains("c0"), "{shown}");
        for wrong in [
            format!("1:aes-256-gcm:{secret}0"),
            format!("1:rot13:{secret}"),
            format!("x:aes-256-gcm:{secret}"),
            format!("aes-256-gcm:{secret}"),
            format!("1:aes-256-gcm:{}", "zz".repeat(32)),
            secret.clone(),
        ] {
            let error = EncryptionKey::parse(&wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.to_string().contains(&secret[..6]));
        }
    }

    #[test]
    fn the_room_that_sealing_takes_is_taken_off_the_limit() {
        let driver = Encrypt::new(Shelf::default(), ring(Cipher::XChaCha20Poly1305));
        assert_eq!(driver.capabilities().value_bytes_max, Some((1 << 30) - KeyRing::GROWTH_MAX));
    }
}
