//! The compliance suite over every driver, every decorator, and a chaos driver that is told nothing.
//!
//! A new driver gets a module here; whatever configurations change how it works get a suite each.

#![expect(clippy::unwrap_used, reason = "what cannot be opened fails its test")]

mod scratch;

#[cfg(all(feature = "file", unix))]
mod file {
    use std::time::Duration;

    use larder::driver::file::{FileDriver, FileOptions};
    use larder::testing::Chaos;

    use crate::scratch::Scratch;

    async fn open_with(change: impl FnOnce(&mut FileOptions)) -> Scratch<FileDriver> {
        Scratch::open(async |directory| {
            let mut options = FileOptions::new(directory);
            change(&mut options);
            FileDriver::open(options).await.unwrap()
        })
        .await
    }

    larder::driver_suite!(plain, async || open_with(|_| {}).await);

    larder::driver_suite!(chaos_that_is_told_nothing, async || Chaos::new(open_with(|_| {}).await));

    larder::driver_suite!(without_levels, async || {
        open_with(|options| {
            options.levels = 0;
            options.suffix = String::new();
        })
        .await
    });

    larder::driver_suite!(that_prunes_all_the_time, async || {
        open_with(|options| {
            options.prune_interval = Some(Duration::from_millis(10));
            options.max_bytes = Some(1 << 40);
        })
        .await
    });
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::time::Duration;

    use larder::driver::sqlite::{SqliteDriver, SqliteLocation, SqliteOptions};

    use crate::scratch::Scratch;

    pub(crate) async fn open_with(change: impl FnOnce(&mut SqliteOptions)) -> Scratch<SqliteDriver> {
        Scratch::open(async |directory| {
            let mut options = SqliteOptions::new(directory.join("made/for/it/cache.db"));
            change(&mut options);
            SqliteDriver::open(options).await.unwrap()
        })
        .await
    }

    pub(crate) async fn in_memory() -> SqliteDriver {
        SqliteDriver::open(SqliteOptions::new(SqliteLocation::Memory)).await.unwrap()
    }

    larder::driver_suite!(plain, async || open_with(|_| {}).await);

    larder::driver_suite!(memory, async || in_memory().await);

    larder::driver_suite!(bounded_and_pruned_all_the_time, async || {
        open_with(|options| {
            options.max_bytes = Some(64 * 1024 * 1024);
            options.prune_interval = Some(Duration::from_millis(10));
            options.readers = 1;
        })
        .await
    });
}

#[cfg(all(feature = "compress", feature = "encrypt", feature = "sqlite"))]
mod decorators {
    use std::sync::Arc;

    use larder::driver::Driver;
    use larder::driver::compress::{Compress, CompressOptions};
    use larder::driver::encrypt::{Cipher, Encrypt, EncryptionKey, KeyRing};

    use crate::sqlite::{in_memory, open_with};

    fn compress<D: Driver>(driver: D) -> Compress<D> {
        let mut options = CompressOptions::default();
        // Everything that can shrink does, so that the suite's small values are compressed as well.
        options.threshold_bytes = 0;
        Compress::new(driver, options).unwrap()
    }

    fn encrypt<D: Driver>(driver: D, cipher: Cipher) -> Encrypt<D> {
        Encrypt::new(driver, KeyRing::new(EncryptionKey::new(7, cipher, [42; 32])))
    }

    larder::driver_suite!(compressed, async || compress(in_memory().await));

    larder::driver_suite!(encrypted_by_aes, async || encrypt(in_memory().await, Cipher::Aes256Gcm));

    larder::driver_suite!(encrypted_by_xchacha, async || {
        encrypt(in_memory().await, Cipher::XChaCha20Poly1305)
    });

    larder::driver_suite!(compressed_then_encrypted, async || {
        compress(encrypt(open_with(|_| {}).await, Cipher::Aes256Gcm))
    });

    larder::driver_suite!(encrypted_then_compressed, async || {
        encrypt(compress(Arc::new(in_memory().await) as Arc<dyn Driver>), Cipher::XChaCha20Poly1305)
    });
}
