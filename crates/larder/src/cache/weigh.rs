//! How large values are in memory, where nobody says.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::AnyCodec;
use crate::entry::AnyValue;

/// Text and bytes by their length; others by their encoded form, if sizes are wanted, or their type.
pub(super) fn default_weigh<V: Any + Send + Sync>(
    weighs: bool,
    codec: Option<Arc<dyn AnyCodec>>,
) -> Arc<dyn Fn(&AnyValue) -> usize + Send + Sync> {
    Arc::new(move |value| {
        if let Some(text) = value.downcast_ref::<String>() {
            return text.len();
        }
        if let Some(bytes) = value.downcast_ref::<Bytes>() {
            return bytes.len();
        }
        if let Some(bytes) = value.downcast_ref::<Vec<u8>>() {
            return bytes.len();
        }
        let encoded = codec.as_ref().filter(|_| weighs).and_then(|codec| codec.encode(value, 0).ok());
        encoded.map_or(size_of::<V>(), |encoded| encoded.payload.len())
    })
}
