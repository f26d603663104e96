//! What is read by everybody and replaced as a whole. Knows nothing of what it is.

use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use larder_http::Body;
use parking_lot::RwLock;

use crate::proxy::Service;

/// A value that can be replaced while others use it: they keep what they have got.
pub(crate) struct Swap<T: ?Sized>(Arc<RwLock<Arc<T>>>);

impl<T: ?Sized> Swap<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self(Arc::new(RwLock::new(value)))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    pub(crate) fn set(&self, value: Arc<T>) {
        // Dropped outside the lock: it may be the last of its kind, and large.
        let before = std::mem::replace(&mut *self.0.write(), value);
        drop(before);
    }
}

impl<T: ?Sized> Clone for Swap<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> fmt::Debug for Swap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Swap")
    }
}

/// Each request goes to whoever serves when it comes.
impl<S: Service> Service for Swap<S> {
    async fn call(&self, request: Request<Body>) -> Response<Body> {
        self.get().call(request).await
    }
}
