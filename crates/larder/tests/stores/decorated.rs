//! The compliance suite over a driver under `compress` and under `encrypt`.

use std::sync::Arc;

use larder::driver::Driver;
use larder::driver::compress::{Compress, CompressOptions};
use larder::driver::encrypt::{Cipher, Encrypt, EncryptionKey, KeyRing};

/// Runs both suites over what `open` gives, in a module `decorated`.
macro_rules! decorated_suite {
    ($open:expr) => {
        #[cfg(all(feature = "compress", feature = "encrypt"))]
        mod decorated {
            use super::*;

            larder::driver_suite!(compressed, async || $crate::decorated::compressed($open().await));
            larder::driver_suite!(encrypted, async || $crate::decorated::encrypted($open().await));
        }
    };
}
pub(crate) use decorated_suite;

/// Whatever its size, a value is compressed.
pub(crate) fn compressed(driver: Arc<dyn Driver>) -> Compress<Arc<dyn Driver>> {
    let mut options = CompressOptions::default();
    options.threshold_bytes = 0;
    Compress::new(driver, options).unwrap()
}

pub(crate) fn encrypted(driver: Arc<dyn Driver>) -> Encrypt<Arc<dyn Driver>> {
    Encrypt::new(driver, KeyRing::new(EncryptionKey::new(7, Cipher::Aes256Gcm, [42; 32])))
}
