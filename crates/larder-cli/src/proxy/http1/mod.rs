//! HTTP/1.1 as a server (RFC 9112): one connection after another request, none of which can be read in two ways.
//!
//! - [`wire`]: heads, chunks and responses as bytes; pure.
//! - `conn`: bytes in and out, and deadlines.
//! - `body`: what connection and service say to each other.
//! - `exchange`: one request and its response.
//! - `tunnel`: what follows when they agree on another protocol.
//!
//! It knows nothing of caches, upstreams or listeners. Why it is not hyper's is in decision 30.

mod body;
mod conn;
mod exchange;
mod tunnel;
pub(crate) mod wire;

#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use larder::time::{Clock as _, SystemClock};
use larder_http::Body;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::shutdown::Shutdown;
use super::{Client, Service};
use body::{Channel, Incoming};
use conn::Conn;
pub(super) use conn::{Timer, after};
use exchange::{Exchange, Outcome};
use wire::head::{HTTP2_PREFACE, Head, Length, Scan};
use wire::{Limits, Refusal, response};

/// How long a connection that was ended is read on, so that the client gets the response before it hears of that.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// A connection that can be ended so that the other side knows that something is missing.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The next drop is no orderly end.
    fn reset(&mut self);
}

/// Hears of requests that are refused before the service sees them.
pub(crate) type OnRefused = Arc<dyn Fn(&Client, &Refusal) + Send + Sync>;

/// How connections are served.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    /// From the first byte of a head to its last; for the first request, from when the connection was made.
    pub(crate) head_timeout: Duration,
    /// Between two requests.
    pub(crate) idle_timeout: Duration,
    /// Between two pieces of a request's content, while somebody waits for them.
    pub(crate) body_timeout: Duration,
    /// While the client takes nothing of what is written.
    pub(crate) write_timeout: Duration,
    /// While nothing comes from either end of a tunnel; `None`: for ever.
    pub(crate) tunnel_timeout: Option<Duration>,
    /// Hears of requests that are refused before the service sees them.
    pub(crate) on_refused: Option<OnRefused>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            tunnel_timeout: Some(Duration::from_secs(60 * 60)),
            on_refused: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How serving a connection ended.
#[derive(Debug)]
pub(crate) enum End<I> {
    Closed,
    /// The client speaks HTTP/2, and these bytes of it were read.
    Http2(I, Bytes),
}

/// Serves one connection until it ends. Dropping this ends it at once, and with it what the service does for it.
pub(crate) async fn serve_connection<I: Wire, S: Service>(
    io: I,
    client: Client,
    service: &S,
    settings: &Settings,
    shutdown: &Shutdown,
) -> End<I> {
    let mut conn = Conn::new(io);
    let mut dates = Dates::default();
    let mut stops = pin!(shutdown.clone().wait());
    let mut is_first = true;
    loop {
        let mut scan = Scan::default();
        let deadline = after(if is_first { settings.head_timeout } else { settings.idle_timeout });
        let mut wait = Wait { deadline, is_idle: true, is_first };
        let next = std::future::poll_fn(|cx| {
            poll_head(&mut conn, &mut scan, &mut wait, settings, stops.as_mut(), cx)
        });
        let head = match next.await {
            Next::Head(range) => {
                let head = wire::head::parse(
                    conn.input.get(range.clone()).unwrap_or_default(),
                    client.scheme,
                    &settings.limits,
                );
                conn.input.advance(range.end);
                head
            }
            Next::Refused(refusal) => Err(refusal),
            Next::Closed => return End::Closed,
            Next::Http2 => return End::Http2(conn.io, conn.input.split().freeze()),
        };
        let head = match head {
            Ok(head) => head,
            Err(refusal) => {
                if let Some(on_refused) = &settings.on_refused {
                    on_refused(&client, &refusal);
                }
                refuse(conn, refusal, &mut dates, settings).await;
                return End::Closed;
            }
        };
        is_first = false;
        match exchange(&mut conn, head, client, service, settings, &mut dates, shutdown).await {
            Outcome::Next => {}
            Outcome::Close => {
                close(conn).await;
                return End::Closed;
            }
            Outcome::Cut => return End::Closed,
            Outcome::Reset => {
                conn.io.reset();
                return End::Closed;
            }
            Outcome::Tunnel(upstream) => {
                // What the client sent behind its request is meant for the other end.
                let early = conn.input.split();
                tunnel::pass(&mut conn.io, &early, upstream, settings.tunnel_timeout).await;
                return End::Closed;
            }
        }
    }
}

async fn exchange<I: Wire, S: Service>(
    conn: &mut Conn<I>,
    head: Head,
    client: Client,
    service: &S,
    settings: &Settings,
    dates: &mut Dates,
    shutdown: &Shutdown,
) -> Outcome {
    let channel = Arc::new(Channel::default());
    let mut exchange = Exchange::new(&head, Arc::clone(&channel), settings, dates, shutdown);
    let body = match head.length {
        Length::Exact(0) => Body::empty(),
        Length::Exact(length) => match usize::try_from(length) {
            Ok(length) if length <= conn.input.len() => {
                exchange.has_all();
                Body::from(conn.input.split_to(length).freeze())
            }
            _ => Body::stream(Incoming::new(Arc::clone(&channel), Some(length))),
        },
        Length::Chunked => Body::stream(Incoming::new(Arc::clone(&channel), None)),
    };
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    request.extensions_mut().insert(client);
    //= https://www.rfc-editor.org/rfc/rfc9110#section-15.2
    //# Since HTTP/1.0 did not define any 1xx status codes, a server MUST NOT
    //# send a 1xx response to an HTTP/1.0 client.
    if head.version == http::Version::HTTP_11 {
        request.extensions_mut().insert(channel.on_interim());
    }
    let mut answer = pin!(service.call(request));
    std::future::poll_fn(|cx| exchange.poll(conn, answer.as_mut(), cx)).await
}

/// What comes next on a connection that waits for a request.
enum Next {
    Head(std::ops::Range<usize>),
    Refused(Refusal),
    Http2,
    Closed,
}

struct Wait {
    deadline: tokio::time::Instant,
    is_idle: bool,
    is_first: bool,
}

fn poll_head<I: Wire>(
    conn: &mut Conn<I>,
    scan: &mut Scan,
    wait: &mut Wait,
    settings: &Settings,
    stops: Pin<&mut impl Future<Output = ()>>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    loop {
        if wait.is_first && conn.input.starts_with(HTTP2_PREFACE) {
            return Poll::Ready(Next::Http2);
        }
        let may_be_http2 = wait.is_first && !conn.input.is_empty() && HTTP2_PREFACE.starts_with(&conn.input);
        if !may_be_http2 {
            match scan.find(&conn.input, &settings.limits) {
                Ok(Some(range)) => return Poll::Ready(Next::Head(range)),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Next::Refused(refusal)),
            }
        }
        if wait.is_idle && !scan.is_idle() {
            wait.is_idle = false;
            if !wait.is_first {
                wait.deadline = after(settings.head_timeout);
            }
        }
        match conn.poll_fill(cx) {
            Poll::Ready(Ok(read)) if read > 0 => {}
            Poll::Ready(_) => return Poll::Ready(Next::Closed),
            Poll::Pending => break,
        }
    }
    if wait.is_idle && stops.poll(cx).is_ready() {
        return Poll::Ready(Next::Closed);
    }
    if conn.timer.poll(wait.deadline, cx).is_pending() {
        return Poll::Pending;
    }
    Poll::Ready(if wait.is_idle {
        Next::Closed
    } else {
        Next::Refused(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the head of the request did not come in time",
        ))
    })
}

/// What a client is told whose request is refused.
pub(super) fn refused(refusal: Refusal) -> Response<Body> {
    let reason = refusal.status.canonical_reason().unwrap_or("Refused");
    let text = format!("{} {reason}: {}\n", refusal.status.as_u16(), refusal.why);
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = refusal.status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Answers what cannot be understood. Nothing that follows it can be, either.
async fn refuse<I: Wire>(mut conn: Conn<I>, refusal: Refusal, dates: &mut Dates, settings: &Settings) {
    let (parts, body) = refused(refusal).into_parts();
    let around = response::Around {
        framing: response::Framing::Exact(body.size_hint().exact().unwrap_or(0)),
        connection: Some("close"),
        date: dates.now(),
        message: None,
    };
    response::write_head(&mut conn.out, &parts, false, around);
    conn.pieces.extend(body.as_bytes().cloned());
    let written = std::future::poll_fn(|cx| {
        while conn.has_output() {
            std::task::ready!(conn.poll_write(cx))?;
        }
        conn.poll_flush(cx)
    });
    if let Ok(Ok(())) = timeout(settings.write_timeout, written).await {
        close(conn).await;
    }
}

//= https://www.rfc-editor.org/rfc/rfc9112#section-9.6
//# To avoid the TCP reset problem, servers typically close a connection
//# in stages.  First, the server performs a half-close by closing only
//# the write side of the read/write connection.  The server then
//# continues to read from the connection until it receives a
//# corresponding close by the client, or until the server is reasonably
//# certain that its own TCP stack has received the client's
//# acknowledgement of the packet(s) containing the server's last
//# response.
async fn close<I: Wire>(mut conn: Conn<I>) {
    let lingering = async {
        if conn.io.shutdown().await.is_err() || conn.ended {
            return;
        }
        let mut scrap = [0; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(read) = conn.io.read(&mut scrap).await {
            left = left.saturating_sub(read);
            if read == 0 || left == 0 {
                return;
            }
        }
    };
    let _ = timeout(LINGER, lingering).await;
}

/// The value of `Date`, formatted once a second.
#[derive(Debug, Default)]
struct Dates {
    clock: SystemClock,
    second: Option<u64>,
    text: Vec<u8>,
}

impl Dates {
    fn now(&mut self) -> &[u8] {
        let second = self.clock.now().as_millis() / 1_000;
        if self.second.replace(second) != Some(second) {
            self.text = response::http_date(second);
        }
        &self.text
    }
}
