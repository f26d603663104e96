//! The compliance suite over SQLite and over the decorators, alone and on top of each other.

use std::sync::Arc;

use larder::driver::compress::{Compress, CompressOptions};
use larder::driver::encrypt::{Cipher, Encrypt, EncryptionKey, KeyRing};
use larder::driver::sqlite::{SqliteDriver, SqliteLocation, SqliteOptions};
use larder::driver::{Driver, Scanned, When, Write, Written};
use larder::{Error, Result};

/// A driver with the directory that its file is in.
#[derive(Debug)]
struct InDirectory(SqliteDriver, #[expect(dead_code, reason = "held for its drop")] tempfile::TempDir);

async fn file() -> InDirectory {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(directory.path().join("made/for/it/cache.db"));
    InDirectory(SqliteDriver::open(options).await.unwrap(), directory)
}

async fn bounded() -> InDirectory {
    let directory = tempfile::tempdir().unwrap();
    let mut options = SqliteOptions::new(directory.path().join("cache.db"));
    options.max_bytes = Some(64 * 1024 * 1024);
    options.readers = 1;
    InDirectory(SqliteDriver::open(options).await.unwrap(), directory)
}

async fn memory() -> SqliteDriver {
    SqliteDriver::open(SqliteOptions::new(SqliteLocation::Memory)).await.unwrap()
}

fn keys(cipher: Cipher) -> KeyRing {
    KeyRing::new(EncryptionKey::new(7, cipher, [42; 32]))
}

fn compress<D: Driver>(driver: D) -> Compress<D> {
    let mut options = CompressOptions::default();
    // Everything that can shrink does, so that the suite's small values are compressed as well.
    options.threshold_bytes = 0;
    Compress::new(driver, options).unwrap()
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl Driver for InDirectory {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn capabilities(&self) -> larder::driver::Capabilities {
        self.0.capabilities()
    }
    async fn get(&self, key: &str) -> Result<Option<bytes::Bytes>> {
        self.0.get(key).await
    }
    async fn set(
        &self,
        key: &str,
        value: bytes::Bytes,
        ttl: Option<std::time::Duration>,
        when: When,
    ) -> Result<Written> {
        self.0.set(key, value, ttl, when).await
    }
    async fn delete(&self, key: &str) -> Result<bool> {
        self.0.delete(key).await
    }
    async fn get_many(&self, keys: &[&str]) -> Result<Vec<Option<bytes::Bytes>>> {
        self.0.get_many(keys).await
    }
    async fn set_many(&self, writes: Vec<Write>) -> Result<Vec<Written>> {
        self.0.set_many(writes).await
    }
    async fn delete_many(&self, keys: &[&str]) -> Result<u64> {
        self.0.delete_many(keys).await
    }
    fn scan<'a>(&'a self, prefix: &'a str) -> futures_util::stream::BoxStream<'a, Result<Scanned, Error>> {
        self.0.scan(prefix)
    }
    async fn clear(&self, prefix: &str) -> Result<u64> {
        self.0.clear(prefix).await
    }
    async fn prune(&self) -> Result<u64> {
        self.0.prune().await
    }
    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

larder::driver_suite!(sqlite_file, async || file().await);
larder::driver_suite!(sqlite_bounded, async || bounded().await);
larder::driver_suite!(sqlite_memory, async || memory().await);
larder::driver_suite!(compressed, async || compress(memory().await));
larder::driver_suite!(encrypted_aes, async || Encrypt::new(memory().await, keys(Cipher::Aes256Gcm)));
larder::driver_suite!(encrypted_xchacha, async || {
    Encrypt::new(memory().await, keys(Cipher::XChaCha20Poly1305))
});
larder::driver_suite!(compressed_then_encrypted, async || {
    compress(Encrypt::new(file().await, keys(Cipher::Aes256Gcm)))
});
larder::driver_suite!(encrypted_then_compressed, async || {
    Encrypt::new(compress(Arc::new(memory().await) as Arc<dyn Driver>), keys(Cipher::XChaCha20Poly1305))
});
