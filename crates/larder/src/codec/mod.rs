//! Codecs: values to bytes and back. Knows nothing of where the bytes go.
//!
//! [`Json`] is the default, [`MessagePack`] is smaller and faster, [`Raw`] is for values that are bytes
//! already. All of them read whatever field order and tolerate new optional fields; a value that no longer
//! decodes is a miss, never an error to whoever asked for it.

use std::any::{Any, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use crate::entry::AnyValue;
pub use crate::entry::wire::CodecId;
use crate::entry::wire::StoredEntry;
use crate::error::{BoxError, Error, ErrorKind, Result};

/// Turns values of one type into bytes and back.
///
/// ```
/// use bytes::Bytes;
/// use larder::{BoxError, codec::{Codec, CodecId}};
///
/// struct Decimal;
/// impl Codec<u64> for Decimal {
///     fn id(&self) -> CodecId { CodecId(200) }
///     fn encode(&self, value: &u64) -> Result<Bytes, BoxError> { Ok(value.to_string().into()) }
///     fn decode(&self, bytes: &Bytes) -> Result<u64, BoxError> { Ok(std::str::from_utf8(bytes)?.parse()?) }
/// }
/// assert_eq!(Decimal.decode(&Decimal.encode(&7)?)?, 7);
/// # Ok::<(), BoxError>(())
/// ```
pub trait Codec<V>: Send + Sync + 'static {
    /// Which codec this is, as stored beside the payload; one's own take an id from 128 on.
    fn id(&self) -> CodecId;

    /// The bytes of a value.
    ///
    /// # Errors
    /// Whatever the format says; the write fails with [`ErrorKind::Encode`].
    fn encode(&self, value: &V) -> Result<Bytes, BoxError>;

    /// The value of some bytes. They may come from anyone who can write to the store.
    ///
    /// # Errors
    /// Whatever the format says; the lookup becomes a miss.
    fn decode(&self, bytes: &Bytes) -> Result<V, BoxError>;
}

/// A value as it is stored, without its key and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) codec: CodecId,
    pub(crate) schema: u8,
    pub(crate) payload: Bytes,
}

/// A codec whose value type is only known at run time: what the engine, which is not generic, holds.
/// `schema` is the number that the handle was given.
pub(crate) trait AnyCodec: Send + Sync + 'static {
    fn encode(&self, value: &AnyValue, schema: u8) -> Result<Encoded>;
    fn decode(&self, stored: &StoredEntry, schema: u8) -> Result<AnyValue>;
}

/// A typed codec as an untyped one.
struct Erased<V, C> {
    codec: C,
    value: PhantomData<fn() -> V>,
}

/// Hides the value type of a codec.
pub(crate) fn erase<V: Any + Send + Sync>(codec: impl Codec<V>) -> Arc<dyn AnyCodec> {
    Arc::new(Erased { codec, value: PhantomData })
}

impl<V: Any + Send + Sync, C: Codec<V>> AnyCodec for Erased<V, C> {
    fn encode(&self, value: &AnyValue, schema: u8) -> Result<Encoded> {
        let value = value.downcast_ref::<V>().ok_or_else(type_mismatch::<V>)?;
        let payload = self.codec.encode(value).map_err(|error| {
            Error::from_source(ErrorKind::Encode, format!("a value of type {}", type_name::<V>()), error)
        })?;
        Ok(Encoded { codec: self.codec.id(), schema, payload })
    }

    fn decode(&self, stored: &StoredEntry, schema: u8) -> Result<AnyValue> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Decode, message));
        if stored.codec != self.codec.id() {
            return refuse(format!("stored as {}, read as {}", stored.codec, self.codec.id()));
        }
        if stored.schema != schema {
            return refuse(format!("stored with schema {}, read with schema {schema}", stored.schema));
        }
        match self.codec.decode(&stored.payload) {
            Ok(value) => Ok(Arc::new(value)),
            Err(error) => Err(Error::from_source(
                ErrorKind::Decode,
                format!("a value of type {}", type_name::<V>()),
                error,
            )),
        }
    }
}

/// A value as its bytes, whatever codec and schema made them: for tools that move or show entries without
/// knowing their type. See [`Stack::opaque_cache`](crate::Stack::opaque_cache).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opaque {
    /// Which codec made the payload.
    pub codec: CodecId,
    /// The schema number that it was stored with.
    pub schema: u8,
    /// The encoded value.
    pub payload: Bytes,
}

/// The codec of [`Opaque`] values: reads whatever is there and writes it as it was.
pub(crate) struct OpaqueCodec;

impl AnyCodec for OpaqueCodec {
    fn encode(&self, value: &AnyValue, _schema: u8) -> Result<Encoded> {
        let Opaque { codec, schema, payload } =
            value.downcast_ref::<Opaque>().ok_or_else(type_mismatch::<Opaque>)?.clone();
        Ok(Encoded { codec, schema, payload })
    }

    fn decode(&self, stored: &StoredEntry, _schema: u8) -> Result<AnyValue> {
        let StoredEntry { codec, schema, payload, .. } = stored.clone();
        Ok(Arc::new(Opaque { codec, schema, payload }))
    }
}

/// The error of a value that is not a `V`.
#[cold]
pub(crate) fn type_mismatch<V>() -> Error {
    Error::new(
        ErrorKind::TypeMismatch,
        format!("the entry holds a value of another type than {}", type_name::<V>()),
    )
}

/// JSON text, through serde.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for Json {
    fn id(&self) -> CodecId {
        CodecId::JSON
    }

    fn encode(&self, value: &V) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<V, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// MessagePack with field names, through serde: about a third smaller than JSON and twice as fast.
#[cfg(feature = "messagepack")]
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

#[cfg(feature = "messagepack")]
impl<V: serde::Serialize + serde::de::DeserializeOwned> Codec<V> for MessagePack {
    fn id(&self) -> CodecId {
        CodecId::MESSAGEPACK
    }

    fn encode(&self, value: &V) -> Result<Bytes, BoxError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<V, BoxError> {
        // The reader stops at the end of the value; what follows it would be somebody else's bytes.
        let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes.as_ref()));
        reader.set_max_depth(128);
        let value = V::deserialize(&mut reader)?;
        if reader.position() != bytes.len() as u64 {
            return Err("bytes are left over after the value".into());
        }
        Ok(value)
    }
}

/// Values that are bytes or text already, stored as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn id(&self) -> CodecId {
        CodecId::BYTES
    }

    fn encode(&self, value: &Bytes) -> Result<Bytes, BoxError> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, BoxError> {
        Ok(bytes.clone())
    }
}

impl Codec<Vec<u8>> for Raw {
    fn id(&self) -> CodecId {
        CodecId::BYTES
    }

    fn encode(&self, value: &Vec<u8>) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Raw {
    fn id(&self) -> CodecId {
        CodecId::BYTES
    }

    fn encode(&self, value: &String) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, BoxError> {
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

/// Which serde codec a stack uses where the value type leaves the choice open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CodecName {
    /// JSON text (feature `json`).
    #[default]
    Json,
    /// MessagePack with field names (feature `messagepack`).
    MessagePack,
}

impl fmt::Display for CodecName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::MessagePack => "messagepack",
        })
    }
}

#[cfg(any(feature = "json", feature = "messagepack"))]
impl CodecName {
    /// The codec of this name for a type.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if this build lacks its feature.
    pub(crate) fn codec<V>(self) -> Result<Arc<dyn AnyCodec>>
    where
        V: serde::Serialize + serde::de::DeserializeOwned + Any + Send + Sync,
    {
        match self {
            #[cfg(feature = "json")]
            Self::Json => Ok(erase::<V>(Json)),
            #[cfg(feature = "messagepack")]
            Self::MessagePack => Ok(erase::<V>(MessagePack)),
            #[allow(unreachable_patterns)]
            name => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the {name} codec needs the feature \"{name}\", which this build lacks"),
            )),
        }
    }
}
