//! What the decorators that rewrite a record's body have in common: the head stays, its marker says what
//! became of the body, and the body is put back before anyone above sees it.
//!
//! Knows the layout of a record's head and nothing of how a body is transformed. A body that cannot be put
//! back becomes the empty value, which every reader takes for damage: a decorator may not decide more.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::driver::{Capabilities, Driver, Scanned, When, Write, Written};
use crate::entry::wire::HEAD_BYTES;
use crate::error::Result;
use crate::time::Stamp;

/// One transformation of bodies and its way back.
pub(crate) trait Transform: fmt::Debug + Send + Sync + 'static {
    /// The index of the head's byte that this transformation owns; 0 there is a plain body.
    const MARKER_AT: usize;

    /// Whether a record that was stored as it is may be read. If not, it is damage.
    const READS_PLAIN: bool;

    /// By how much a value may grow, in bytes.
    const GROWTH_MAX: u64;

    /// The record to store for a plain one, which is at least [`HEAD_BYTES`] long, with the marker set.
    /// `None` stores it as it is.
    fn seal(&self, key: &str, plain: &Bytes) -> Result<Option<Bytes>>;

    /// The plain record, apart from the marker, which the caller resets. `None` is damage. Not asked about
    /// records whose marker is 0.
    fn open(&self, key: &str, head: &[u8; HEAD_BYTES], body: &[u8]) -> Option<BytesMut>;
}

/// A driver whose values' bodies are transformed on their way in and out.
#[derive(Debug)]
pub(crate) struct Transformed<D, T> {
    pub(crate) inner: D,
    pub(crate) transform: T,
}

impl<D, T: Transform> Transformed<D, T> {
    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes> {
        // Nothing shorter than a head is a record; it has no marker to set, and nothing to hide.
        if value.len() < HEAD_BYTES {
            return Ok(value);
        }
        Ok(self.transform.seal(key, &value)?.unwrap_or(value))
    }

    fn open(&self, key: &str, stored: Bytes) -> Bytes {
        let Some((head, body)) = stored.split_first_chunk::<HEAD_BYTES>() else { return stored };
        if T::READS_PLAIN && head.get(T::MARKER_AT) == Some(&0) {
            return stored;
        }
        match self.transform.open(key, head, body) {
            Some(mut plain) => {
                reset_marker::<T>(&mut plain);
                plain.freeze()
            }
            None => Bytes::new(),
        }
    }
}

fn reset_marker<T: Transform>(record: &mut [u8]) {
    if let Some(marker) = record.get_mut(T::MARKER_AT) {
        *marker = 0;
    }
}

/// A head as the layers above know it: they have never heard of this transformation.
fn plain_head<T: Transform>(head: Bytes) -> Bytes {
    if head.get(T::MARKER_AT).is_none_or(|&marker| marker == 0) {
        return head;
    }
    let mut head = BytesMut::from(head);
    reset_marker::<T>(&mut head);
    head.freeze()
}

fn plain_written<T: Transform>(written: Written) -> Written {
    match written {
        Written::Stored { previous } => Written::Stored { previous: previous.map(plain_head::<T>) },
        refused @ Written::Refused { .. } => refused,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Driver, T: Transform> Driver for Transformed<D, T> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        let value_bytes_max = inner.value_bytes_max.map(|max| max.saturating_sub(T::GROWTH_MAX));
        Capabilities { value_bytes_max, ..inner }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.inner.get(key).await?.map(|stored| self.open(key, stored)))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, when: When) -> Result<Written> {
        let sealed = self.seal(key, value)?;
        self.inner.set(key, sealed, ttl, when).await.map(plain_written::<T>)
    }

    async fn delete(&self, key: &str) -> Result<bool> {
        self.inner.delete(key).await
    }

    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let found = self.inner.get_many(keys).await?;
        let opened = keys.iter().zip(found).map(|(key, stored)| Some(self.open(key, stored?)));
        Ok(opened.collect())
    }

    async fn set_many(&self, mut writes: Vec<Write>) -> Result<Vec<Written>> {
        for write in &mut writes {
            write.value = self.seal(&write.key, std::mem::take(&mut write.value))?;
        }
        let written = self.inner.set_many(writes).await?;
        Ok(written.into_iter().map(plain_written::<T>).collect())
    }

    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        self.inner.delete_many(keys).await
    }

    fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
        let plain = |scanned: Scanned| Scanned { head: plain_head::<T>(scanned.head), ..scanned };
        Box::pin(self.inner.scan(prefix).map(move |scanned| scanned.map(plain)))
    }

    async fn clear(&self, prefix: &str, until: Stamp) -> Result<u64> {
        self.inner.clear(prefix, until).await
    }

    async fn prune(&self) -> Result<u64> {
        self.inner.prune().await
    }

    async fn version(&self) -> Result<Option<String>> {
        self.inner.version().await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Makes a decorator with a field `transformed` a driver, every method included.
macro_rules! transformed_driver {
    ($decorator:ident) => {
        #[async_trait::async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<D: $crate::driver::Driver> $crate::driver::Driver for $decorator<D> {
            fn name(&self) -> &'static str {
                self.transformed.name()
            }
            fn capabilities(&self) -> $crate::driver::Capabilities {
                self.transformed.capabilities()
            }
            async fn get(&self, key: &str) -> Result<Option<Bytes>> {
                self.transformed.get(key).await
            }
            async fn set(
                &self,
                key: &str,
                value: Bytes,
                ttl: Option<std::time::Duration>,
                when: $crate::driver::When,
            ) -> Result<$crate::driver::Written> {
                self.transformed.set(key, value, ttl, when).await
            }
            async fn delete(&self, key: &str) -> Result<bool> {
                self.transformed.delete(key).await
            }
            async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
                self.transformed.get_many(keys).await
            }
            async fn set_many(
                &self,
                writes: Vec<$crate::driver::Write>,
            ) -> Result<Vec<$crate::driver::Written>> {
                self.transformed.set_many(writes).await
            }
            async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
                self.transformed.delete_many(keys).await
            }
            fn scan<'a>(
                &'a self,
                prefix: &'a str,
            ) -> futures_util::stream::BoxStream<'a, Result<$crate::driver::Scanned>> {
                self.transformed.scan(prefix)
            }
            async fn clear(&self, prefix: &str, until: $crate::time::Stamp) -> Result<u64> {
                self.transformed.clear(prefix, until).await
            }
            async fn prune(&self) -> Result<u64> {
                self.transformed.prune().await
            }
            async fn version(&self) -> Result<Option<String>> {
                self.transformed.version().await
            }
            async fn ping(&self) -> Result<()> {
                self.transformed.ping().await
            }
            async fn close(&self) -> Result<()> {
                self.transformed.close().await
            }
        }
    };
}
pub(crate) use transformed_driver;

/// What the tests of both decorators need: a store whose bytes they can look at and change.
#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::entry::Meta;
    use crate::entry::wire::{CodecId, encode_entry};
    use crate::time::{Timestamp, Ttl, minutes};

    /// A map under a lock, shared with the test.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Shelf(pub(crate) Arc<Mutex<BTreeMap<String, Bytes>>>);

    #[async_trait]
    impl Driver for Shelf {
        fn name(&self) -> &'static str {
            "shelf"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities { enumerates: true, value_bytes_max: Some(1 << 30), ..Capabilities::default() }
        }

        async fn get(&self, key: &str) -> Result<Option<Bytes>> {
            Ok(self.0.lock().get(key).cloned())
        }

        async fn set(&self, key: &str, value: Bytes, _: Option<Duration>, when: When) -> Result<Written> {
            let mut map = self.0.lock();
            let written = when.outcome(map.get(key).map(|stored| &stored[..]), &value);
            if matches!(written, Written::Stored { .. }) {
                map.insert(key.into(), value);
            }
            Ok(written)
        }

        async fn delete(&self, key: &str) -> Result<bool> {
            Ok(self.0.lock().remove(key).is_some())
        }

        fn scan<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Scanned>> {
            let map = self.0.lock();
            let found: Vec<_> = map
                .iter()
                .filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| Ok(Scanned { key: key.clone(), head: crate::driver::head(value) }))
                .collect();
            Box::pin(futures_util::stream::iter(found))
        }
    }

    impl Shelf {
        pub(crate) fn stored(&self, key: &str) -> Bytes {
            self.0.lock()[key].clone()
        }

        pub(crate) fn replace(&self, key: &str, stored: impl Into<Bytes>) {
            self.0.lock().insert(key.into(), stored.into());
        }
    }

    /// An entry stamped at `millis`.
    pub(crate) fn record(key: &str, millis: u64, payload: &[u8]) -> Bytes {
        let now = Timestamp::from_millis(millis);
        let meta = Meta::new(Stamp::at(now), now, Ttl::For(minutes(5)), minutes(5));
        encode_entry(key, &meta, CodecId::JSON, 7, payload).unwrap()
    }

    /// What both decorators owe the layers above.
    pub(crate) async fn heads_look_untouched<D: Driver>(driver: D) {
        let payload = vec![b'x'; 5_000];
        let (old, new) = (record("k", 10, &payload), record("k", 20, &payload));
        let written = driver.set("k", old.clone(), None, When::Newer).await.unwrap();
        assert_eq!(written, Written::Stored { previous: None });
        let written = driver.set("k", old.clone(), None, When::Newer).await.unwrap();
        assert_eq!(written, Written::Refused { by: Some(Stamp::at(Timestamp::from_millis(10))) });
        let writes = vec![Write { key: "k".into(), value: new.clone(), ttl: None, when: When::Newer }];
        let written = driver.set_many(writes).await.unwrap();
        assert_eq!(written, [Written::Stored { previous: Some(crate::driver::head(&old)) }]);
        let unchanged = When::Unchanged(Some(Stamp::at(Timestamp::from_millis(20))));
        let written = driver.set("k", new.clone(), None, unchanged).await.unwrap();
        assert_eq!(written, Written::Stored { previous: Some(crate::driver::head(&new)) });
        let scanned: Vec<_> = driver.scan("").collect().await;
        assert_eq!(scanned[0].as_ref().unwrap().head, crate::driver::head(&new));
        assert_eq!(driver.get_many(&["k", "none"]).await.unwrap(), [Some(new), None]);
        driver.set("short", Bytes::from_static(b"no record"), None, When::Always).await.unwrap();
        assert_eq!(driver.get("short").await.unwrap().unwrap(), "no record");
    }
}
