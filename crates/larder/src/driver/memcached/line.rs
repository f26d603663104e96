//! One connection: a task that writes, a task that reads, and the calls between them in their order.
//!
//! Knows nothing of what calls are for. A caller that gives up drops the end that its answers would come to; they are
//! read all the same, and thrown away. An answer that does not name what it is for ends the connection, as does one
//! that does not come.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::command::Batch;
use super::failure;
use super::reply::{Decoder, Nonsense, Refusal, Reply};
use crate::error::{Error, Result};
use crate::time::{Clock as _, SystemClock};

/// How many calls may wait to be written before the next one waits for room.
const WAITING_MAX: usize = 1_024;
/// How many calls may wait for their answers before no more are written.
const UNANSWERED_MAX: usize = 8_192;
/// How many calls are taken at once, and how many bytes of them are written at once.
const TOGETHER_CALLS: usize = 256;
const TOGETHER_BYTES: usize = 256 * 1024;
/// How much room there is for what is written, before it is needed.
const WRITE_BYTES: usize = 64 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How many times the patience of a call an answer may take that does arrive, bit by bit.
const SLOWNESS_MAX: u32 = 4;

/// A batch on its way, and where its answers go.
#[derive(Debug)]
struct Call {
    batch: Batch,
    replies: Vec<Reply>,
    /// `None` once somebody was told that it takes too long.
    answer: Option<oneshot::Sender<Result<Vec<Reply>>>>,
    /// When it was written, by the monotonic clock.
    written: Duration,
}

impl Call {
    fn is_wanted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }

    fn tell(&mut self, outcome: Result<Vec<Reply>>) {
        if let Some(answer) = self.answer.take() {
            // Whoever asked may be gone.
            let _ = answer.send(outcome);
        }
    }
}

/// What the two tasks share.
#[derive(Debug)]
struct Shared {
    server: Arc<str>,
    patience: Duration,
    clock: SystemClock,
    flow: Mutex<Flow>,
    broken: AtomicBool,
    numbers: AtomicU32,
    /// Tells the writer that there is room again.
    room: Notify,
    /// Tells the reader that somebody waits again.
    busy: Notify,
}

#[derive(Debug, Default)]
struct Flow {
    /// Written and not yet answered, oldest first.
    unanswered: VecDeque<Call>,
    /// Why no more is taken.
    ended: Option<Error>,
    writer_waits: bool,
    /// Nobody watches the time, because nobody waited.
    unwatched: bool,
}

/// One connection. It ends when this and all calls are gone.
#[derive(Clone)]
pub(super) struct Line {
    queue: mpsc::Sender<Call>,
    shared: Arc<Shared>,
    /// The largest value that the server takes, in bytes.
    pub(super) value_bytes_max: u64,
    /// What the server says of its version.
    pub(super) version: Arc<str>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("server", &self.shared.server).finish_non_exhaustive()
    }
}

/// What is known of the server by now.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// What it says of its version.
    pub(super) version: Arc<str>,
    /// The largest value that may be stored, in bytes.
    pub(super) value_bytes_max: u64,
    /// The largest that may be there already.
    pub(super) block_bytes_max: usize,
}

impl Line {
    /// Starts the tasks of a connection that is ready for commands.
    pub(super) fn start<R, W>(reads: R, writes: W, server: Arc<str>, patience: Duration, facts: Facts) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared {
            server,
            patience,
            clock: SystemClock::default(),
            flow: Mutex::new(Flow { unwatched: true, ..Flow::default() }),
            broken: AtomicBool::new(false),
            numbers: AtomicU32::new(0),
            room: Notify::new(),
            busy: Notify::new(),
        });
        let (queue, calls) = mpsc::channel(WAITING_MAX);
        let writer = tokio::spawn(write(calls, writes, Arc::clone(&shared)));
        let ending = Ending { shared: Arc::clone(&shared), writer: writer.abort_handle() };
        let decoder = Decoder::new(facts.block_bytes_max);
        tokio::spawn(async move {
            let shared = Arc::clone(&ending.shared);
            let mut reading = Reading { shared, decoder, current: None, heard: Duration::ZERO };
            let cause = reading.run(reads, writer).await;
            ending.shared.end(cause.clone());
            if let Some(mut call) = reading.current.take() {
                call.tell(Err(cause));
            }
        });
        Self { queue, shared, value_bytes_max: facts.value_bytes_max, version: facts.version }
    }

    /// Whether calls may still be sent.
    pub(super) fn is_good(&self) -> bool {
        !self.shared.broken.load(Ordering::Acquire) && !self.queue.is_closed()
    }

    /// Room for some commands.
    pub(super) fn batch(&self, commands: usize) -> Batch {
        let count = u32::try_from(commands).unwrap_or(u32::MAX);
        Batch::new(self.shared.numbers.fetch_add(count, Ordering::Relaxed), commands)
    }

    /// Sends commands, and waits for their answers, which are as many.
    pub(super) async fn send(&self, what: &str, batch: Batch) -> Result<Vec<Reply>> {
        self.exchange(batch).await.map_err(|error| failure::during(what, &error))
    }

    async fn exchange(&self, batch: Batch) -> Result<Vec<Reply>> {
        let (answer, answers) = oneshot::channel();
        let replies = Vec::with_capacity(batch.len());
        let call = Call { batch, replies, answer: Some(answer), written: Duration::ZERO };
        if let Err(full) = self.queue.try_send(call) {
            let mpsc::error::TrySendError::Full(call) = full else { return Err(self.shared.cause()) };
            let sent = tokio::time::timeout(self.shared.patience, self.queue.send(call)).await;
            let sent = sent.map_err(|_| failure::late(&self.shared.server))?;
            sent.map_err(|_| self.shared.cause())?;
        }
        answers.await.unwrap_or_else(|_| Err(self.shared.cause()))
    }
}

/// Whatever becomes of the reading task, nobody waits for it any more.
struct Ending {
    shared: Arc<Shared>,
    writer: tokio::task::AbortHandle,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.writer.abort();
        self.shared.end(failure::hung_up(&self.shared.server));
    }
}

impl Shared {
    /// Nothing more goes over this connection. The first cause is the one that is told.
    fn end(&self, cause: Error) {
        self.broken.store(true, Ordering::Release);
        let unanswered = {
            let mut flow = self.flow.lock();
            flow.ended.get_or_insert(cause);
            std::mem::take(&mut flow.unanswered)
        };
        for mut call in unanswered {
            call.tell(Err(self.cause()));
        }
    }

    /// Notes a call that is about to be written. True if no more may be written until there is room; `None` if the
    /// connection has ended.
    fn expect(&self, mut call: Call) -> Option<bool> {
        let mut flow = self.flow.lock();
        if let Some(cause) = flow.ended.clone() {
            drop(flow);
            call.tell(Err(cause));
            return None;
        }
        flow.unanswered.push_back(call);
        let full = flow.unanswered.len() >= UNANSWERED_MAX;
        flow.writer_waits = full;
        if std::mem::take(&mut flow.unwatched) {
            self.busy.notify_one();
        }
        Some(full)
    }

    /// The call that the next answer belongs to.
    fn next(&self) -> Option<Call> {
        let mut flow = self.flow.lock();
        let call = flow.unanswered.pop_front();
        if flow.writer_waits && flow.unanswered.len() < UNANSWERED_MAX {
            flow.writer_waits = false;
            self.room.notify_one();
        }
        call
    }

    /// Whether calls are under way.
    fn is_busy(&self) -> bool {
        !self.flow.lock().unanswered.is_empty()
    }

    fn cause(&self) -> Error {
        self.flow.lock().ended.clone().unwrap_or_else(|| failure::hung_up(&self.server))
    }
}

/// Takes calls from the queue, as many as there are, and writes them. Ends when nobody can call any more, or when the
/// connection broke.
async fn write<W>(mut calls: mpsc::Receiver<Call>, mut sink: W, shared: Arc<Shared>) -> std::io::Result<W>
where
    W: AsyncWrite + Send + Unpin,
{
    let mut taken = Vec::with_capacity(TOGETHER_CALLS);
    let mut out = Outgoing { text: BytesMut::with_capacity(WRITE_BYTES), large: Vec::new() };
    while calls.recv_many(&mut taken, TOGETHER_CALLS).await > 0 {
        // Where several call at once, more are about to, and what goes out together costs one system call, on both sides
        // of the connection. Whoever is alone does not wait.
        if taken.len() > 1 || shared.is_busy() {
            tokio::task::yield_now().await;
            while taken.len() < TOGETHER_CALLS
                && let Ok(call) = calls.try_recv()
            {
                taken.push(call);
            }
        }
        let now = shared.clock.monotonic();
        for mut call in taken.drain(..) {
            // Nothing of it was sent: whoever gave it up has not done it.
            if !call.is_wanted() {
                continue;
            }
            call.written = now;
            call.batch.write(&mut out.text, &mut out.large);
            // Before it is written: its answer may come at once.
            let full = match shared.expect(call) {
                Some(full) => full,
                None => return Ok(sink),
            };
            if full || out.text.len() >= TOGETHER_BYTES || !out.large.is_empty() {
                out.send(&mut sink).await?;
            }
            if full {
                sink.flush().await?;
                shared.room.notified().await;
            }
        }
        out.send(&mut sink).await?;
        sink.flush().await?;
    }
    // Not before the last answer has come: to some servers the end of the commands is that of the connection.
    Ok(sink)
}

/// What is to be written: text, and large values that belong somewhere in it.
struct Outgoing {
    text: BytesMut,
    large: Vec<(usize, Bytes)>,
}

impl Outgoing {
    async fn send<W: AsyncWrite + Unpin>(&mut self, sink: &mut W) -> std::io::Result<()> {
        let mut begin = 0;
        for (end, block) in self.large.drain(..) {
            sink.write_all(self.text.get(begin..end).unwrap_or_default()).await?;
            sink.write_all(&block).await?;
            begin = end;
        }
        sink.write_all(self.text.get(begin..).unwrap_or_default()).await?;
        self.text.clear();
        if self.text.capacity() > TOGETHER_BYTES * 2 {
            self.text = BytesMut::with_capacity(WRITE_BYTES);
        }
        Ok(())
    }
}

/// When to look again whether anybody waits for too long.
enum Watch {
    In(Duration),
    /// When somebody waits again.
    Idle,
}

/// What the reading task knows.
struct Reading {
    shared: Arc<Shared>,
    decoder: Decoder,
    /// Whose answers are arriving.
    current: Option<Call>,
    /// When something was last heard, by the monotonic clock.
    heard: Duration,
}

impl Reading {
    /// Reads until the connection ends, and says why.
    async fn run<R, W>(&mut self, mut reads: R, mut writer: JoinHandle<std::io::Result<W>>) -> Error
    where
        R: AsyncRead + Send + Unpin,
        W: Send,
    {
        let shared = Arc::clone(&self.shared);
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let mut alarm = pin!(tokio::time::sleep(shared.patience));
        let mut watching = false;
        let mut sink = None;
        while sink.is_none() || !self.is_idle() {
            if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
                buffer.reserve(READ_BYTES);
            }
            tokio::select! {
                read = reads.read_buf(&mut buffer) => match read {
                    Ok(0) => break,
                    Ok(_) => {
                        self.heard = shared.clock.monotonic();
                        if let Err(cause) = self.take(&mut buffer) {
                            return cause;
                        }
                    }
                    Err(cause) => return failure::lost(&shared.server, &cause),
                },
                () = &mut alarm, if watching => match self.look() {
                    Ok(Watch::In(time)) => alarm.set(tokio::time::sleep(time)),
                    Ok(Watch::Idle) => watching = false,
                    Err(cause) => return cause,
                },
                () = shared.busy.notified(), if !watching => {
                    watching = true;
                    alarm.set(tokio::time::sleep(shared.patience));
                }
                written = &mut writer, if sink.is_none() => match written {
                    Ok(Ok(written)) => sink = Some(written),
                    Ok(Err(cause)) => return failure::lost(&shared.server, &cause),
                    Err(_) => break,
                },
            }
        }
        failure::hung_up(&shared.server)
    }

    fn is_idle(&self) -> bool {
        self.current.is_none() && self.shared.flow.lock().unanswered.is_empty()
    }

    /// Hands out the answers that have arrived.
    fn take(&mut self, buffer: &mut BytesMut) -> Result<()> {
        let server = Arc::clone(&self.shared.server);
        while !buffer.is_empty() {
            if self.current.is_none() {
                self.current = self.shared.next();
            }
            // Bytes that nobody asked for.
            let foreign = || failure::nonsense(&server, Nonsense::Foreign);
            let call = self.current.as_mut().ok_or_else(foreign)?;
            let at = call.replies.len();
            let (asked, wanted) = (call.batch.asked(at).ok_or_else(foreign)?, call.is_wanted());
            let reply = self.decoder.next(buffer, asked, wanted);
            let Some(reply) = reply.map_err(|what| failure::nonsense(&server, what))? else { break };
            // What the server did not take it may have read as commands, if there was more to it than a line.
            let lost = match &reply {
                Reply::Refused(refusal @ Refusal::Unknown) => Some(refusal.clone()),
                Reply::Refused(refusal @ Refusal::Client(_)) if call.batch.has_block(at) => {
                    Some(refusal.clone())
                }
                _ => None,
            };
            call.replies.push(reply);
            if call.replies.len() == call.batch.len()
                && let Some(mut call) = self.current.take()
            {
                let replies = std::mem::take(&mut call.replies);
                call.tell(Ok(replies));
            }
            if let Some(refusal) = lost {
                return Err(failure::lost_track(&server, &refusal));
            }
        }
        Ok(())
    }

    /// Looks whether anybody waits for too long. Those who do are told; if nothing at all is heard, or one answer takes
    /// longer still, that is the end of the connection.
    fn look(&mut self) -> Result<Watch> {
        let (now, patience) = (self.shared.clock.monotonic(), self.shared.patience);
        let mut late = Vec::new();
        let mut next = self.heard + patience;
        {
            let mut flow = self.shared.flow.lock();
            let oldest = self.current.as_ref().or(flow.unanswered.front()).map(|call| call.written);
            let Some(oldest) = oldest else {
                flow.unwatched = true;
                return Ok(Watch::Idle);
            };
            let waits = now.saturating_sub(oldest);
            if waits < patience {
                return Ok(Watch::In(patience - waits));
            }
            if now.saturating_sub(self.heard) >= patience || waits >= patience * SLOWNESS_MAX {
                return Err(failure::late(&self.shared.server));
            }
            for call in self.current.iter_mut().chain(flow.unanswered.iter_mut()) {
                if now.saturating_sub(call.written) < patience {
                    next = next.min(call.written + patience);
                    break;
                }
                late.extend(call.answer.take());
            }
        }
        for answer in late {
            let _ = answer.send(Err(failure::late(&self.shared.server)));
        }
        Ok(Watch::In(next.saturating_sub(now).max(Duration::from_millis(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use tokio::io::{DuplexStream, duplex};

    const PATIENCE: Duration = Duration::from_millis(500);

    fn line() -> (Line, DuplexStream) {
        let (ours, theirs) = duplex(4_096);
        let (reads, writes) = tokio::io::split(ours);
        let facts = Facts { version: "1.6".into(), value_bytes_max: 1_000, block_bytes_max: 1_000_000 };
        (Line::start(reads, writes, "test:1".into(), PATIENCE, facts), theirs)
    }

    async fn get(line: Line, key: &'static str) -> Result<Vec<Reply>> {
        let mut batch = line.batch(1);
        batch.get(key, false);
        line.send("get", batch).await
    }

    async fn said(theirs: &mut DuplexStream, expected: &str) {
        let mut said = vec![0; expected.len()];
        theirs.read_exact(&mut said).await.unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), expected);
    }

    #[tokio::test]
    async fn a_dropped_call_takes_its_answer_with_it() {
        let (line, mut theirs) = line();
        let dropped = tokio::spawn(get(line.clone(), "a"));
        said(&mut theirs, "mg a v k O0\r\n").await;
        dropped.abort();
        assert!(dropped.await.is_err());
        let other = tokio::spawn(get(line, "b"));
        said(&mut theirs, "mg b v k O1\r\n").await;
        theirs.write_all(b"VA 2 ka O0\r\nAA\r\nVA 2 kb O1\r\nBB\r\n").await.unwrap();
        assert_eq!(other.await.unwrap().unwrap(), [Reply::Value("BB".into(), 0)]);
    }

    #[tokio::test]
    async fn what_is_given_up_before_it_is_written_is_not() {
        let (line, mut theirs) = line();
        drop(futures_util::FutureExt::now_or_never(get(line.clone(), "a")));
        let other = tokio::spawn(get(line, "b"));
        said(&mut theirs, "mg b v k O1\r\n").await;
        theirs.write_all(b"EN kb O1\r\n").await.unwrap();
        assert_eq!(other.await.unwrap().unwrap(), [Reply::Missing]);
    }

    #[tokio::test]
    async fn anything_but_the_answer_ends_the_connection() {
        for answer in [
            "VA 2 kb O0\r\nBB\r\n",
            "VA 2 ka O1\r\nAA\r\n",
            "VA 2 ka\r\nAA\r\n",
            "VA 2 ka O0\r\nAAA\r\n",
            "HD ka O0\r\n",
            "EN kb O0\r\n",
            "VA 99999999999 ka O0\r\n",
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            "\0\0\0\0\n",
        ] {
            let (line, mut theirs) = line();
            let asked = tokio::spawn(get(line.clone(), "a"));
            said(&mut theirs, "mg a v k O0\r\n").await;
            theirs.write_all(answer.as_bytes()).await.unwrap();
            let error = asked.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{answer:?}: {error}");
            assert!(!line.is_good(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_asked_for_ends_the_connection() {
        let (line, mut theirs) = line();
        theirs.write_all(b"EN\r\n").await.unwrap();
        while line.is_good() {
            tokio::task::yield_now().await;
        }
        assert_eq!(get(line, "a").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn silence_ends_the_connection_and_slowness_only_the_call() {
        let (line, mut theirs) = line();
        let (one, two) = (tokio::spawn(get(line.clone(), "a")), tokio::spawn(get(line.clone(), "b")));
        said(&mut theirs, "mg a v k O0\r\nmg b v k O1\r\n").await;
        theirs.write_all(b"VA 9 ka O0\r\n").await.unwrap();
        for byte in ["1", "2", "3"] {
            tokio::time::sleep(PATIENCE / 2).await;
            theirs.write_all(byte.as_bytes()).await.unwrap();
        }
        assert_eq!(one.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
        assert!(line.is_good(), "it is slow, and alive");
        let three = tokio::spawn(get(line.clone(), "c"));
        said(&mut theirs, "mg c v k O2\r\n").await;
        theirs.write_all(b"456789\r\nEN kb O1\r\nEN kc O2\r\n").await.unwrap();
        assert_eq!(three.await.unwrap().unwrap(), [Reply::Missing]);
        assert_eq!(two.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
        let error = get(line.clone(), "d").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(!line.is_good(), "nothing at all was heard");
    }

    #[tokio::test]
    async fn calls_wait_for_room_and_not_for_ever() {
        let (line, theirs) = line();
        let calls = (0..WAITING_MAX * 3).map(|_| get(line.clone(), "a"));
        for outcome in futures_util::future::join_all(calls).await {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
        }
        drop(theirs);
    }

    #[tokio::test]
    async fn a_line_that_nobody_holds_ends_when_the_last_answer_has_come() {
        let (line, mut theirs) = line();
        let asked = tokio::spawn(get(line, "a"));
        said(&mut theirs, "mg a v k O0\r\n").await;
        theirs.write_all(b"EN\r\n").await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap(), [Reply::Missing]);
        assert_eq!(theirs.read(&mut [0; 9]).await.unwrap(), 0);
    }
}
