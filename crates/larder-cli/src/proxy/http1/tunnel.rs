//! What follows a 101: bytes in both directions, until either side ends them, or neither has any for too long. Knows nothing
//! of what they mean.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional};

use super::conn::{Timer, after};
use crate::proxy::Duplex;

/// Passes everything on, `early` first, which the client sent behind its request. `idle_timeout` is how long nothing may come
/// from either side; `None`: for ever.
pub(super) async fn pass<I: AsyncRead + AsyncWrite + Unpin>(
    io: &mut I,
    early: &[u8],
    mut upstream: Box<dyn Duplex>,
    idle_timeout: Option<Duration>,
) {
    let moved = Arc::<AtomicU64>::default();
    let mut client = Counted { io, moved: Arc::clone(&moved) };
    let mut passing = pin!(async {
        if upstream.write_all(early).await.is_ok() {
            // Whatever ends it ends both sides.
            let _ = copy_bidirectional(&mut client, &mut upstream).await;
        }
    });
    let Some(idle_timeout) = idle_timeout else { return passing.await };
    let (mut timer, mut seen, mut deadline) = (Timer::default(), 0, after(idle_timeout));
    std::future::poll_fn(|cx| {
        if passing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let moves = moved.load(Ordering::Relaxed);
        if std::mem::replace(&mut seen, moves) != moves {
            deadline = after(idle_timeout);
        }
        timer.poll(deadline, cx)
    })
    .await;
}

/// The client's end, which all bytes pass in either direction.
struct Counted<'a, I> {
    io: &'a mut I,
    /// How often any did.
    moved: Arc<AtomicU64>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<'_, I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut *self.io).poll_read(cx, buf))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.io).poll_write(cx, buf))?;
        self.moved.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}
