//! The access log: a line for each request, and a thread that writes them.
//!
//! What a client sends cannot make lines, and cannot tell a terminal what to do. Knows nothing of what is served.

mod line;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

pub(crate) use line::{Form, Record};

/// The most lines that wait to be written. A disk that cannot follow costs lines, never requests.
const WAITING_MAX: usize = 16 * 1024;
/// How long the end of a server waits for lines to be written: a disk that hangs does not keep it from ending.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often there is another try to say that it should be told, while too many lines wait.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// What waits for whoever writes.
enum Waiting {
    Line(Vec<u8>),
    /// Whoever sent this wants to know that what came before is written.
    Told(oneshot::Sender<()>),
}

/// Where lines go.
#[derive(Clone)]
pub(crate) struct AccessLog {
    lines: SyncSender<Waiting>,
    to: Arc<Mutex<Box<dyn Write + Send>>>,
    file: Option<PathBuf>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Appends to a file, which is created for its owner alone; or writes to standard error.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn open(file: Option<&Path>) -> io::Result<Self> {
        Ok(Self::to(destination(file)?, file.map(Path::to_owned)))
    }

    fn to(to: Box<dyn Write + Send>, file: Option<PathBuf>) -> Self {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let to = Arc::new(Mutex::new(to));
        let writes_to = to.clone();
        let lost = Arc::<AtomicU64>::default();
        let loses = lost.clone();
        // It ends when the last of these has gone.
        thread::spawn(move || write_all(&waiting, &writes_to, &loses));
        Self { lines, to, file, lost }
    }

    /// Opens the file anew: it was moved away, and this is the time for another one.
    ///
    /// # Errors
    /// It cannot be opened; then the old one stays.
    pub(crate) fn reopen(&self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let fresh = destination(Some(file))?;
            *self.to.lock() = fresh;
        }
        Ok(())
    }

    /// Has a line written, soon. Never waits.
    pub(crate) fn write(&self, form: Form, record: &Record<'_>) {
        let line = record.line(form).into_bytes();
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Waiting::Line(line))
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was handed over is written, for two seconds at most.
    pub(crate) async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        let flushed = async {
            let mut message = Waiting::Told(tell);
            while let Err(error) = self.lines.try_send(message) {
                let TrySendError::Full(back) = error else { return };
                message = back;
                sleep(TRY_EVERY).await;
            }
            let _ = told.await;
        };
        let _ = timeout(FLUSH_TIMEOUT, flushed).await;
    }

    /// How many lines were not written, because too many waited or because writing failed.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("file", &self.file).finish_non_exhaustive()
    }
}

fn destination(file: Option<&Path>) -> io::Result<Box<dyn Write + Send>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    Ok(match file {
        None => Box::new(io::stderr()),
        // It has addresses of people in it.
        Some(file) => Box::new(OpenOptions::new().create(true).append(true).mode(0o600).open(file)?),
    })
}

fn write_all(waiting: &Receiver<Waiting>, to: &Mutex<Box<dyn Write + Send>>, lost: &AtomicU64) {
    while let Ok(first) = waiting.recv() {
        let (mut lines, mut count, mut tell) = (Vec::new(), 0, None);
        let mut next = Some(first);
        // What waits already goes in the same write; a line is never divided between two.
        while let Some(waits) = next.take() {
            match waits {
                Waiting::Line(line) => {
                    lines.extend_from_slice(&line);
                    count += 1;
                    if lines.len() < 64 << 10 {
                        next = waiting.try_recv().ok();
                    }
                }
                Waiting::Told(teller) => tell = Some(teller),
            }
        }
        if !lines.is_empty() && to.lock().write_all(&lines).is_err() {
            lost.fetch_add(count, Ordering::Relaxed);
        }
        if let Some(tell) = tell {
            // Who does not listen any more has waited for long enough.
            let _ = tell.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A disk that hangs.
    struct Never;
    impl Write for Never {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                thread::park();
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_appended_and_the_file_can_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let (file, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let log = AccessLog::open(Some(&file)).unwrap();
        let holds = |file: &Path, lines: usize| {
            while fs::read_to_string(file).unwrap_or_default().lines().count() != lines {
                thread::sleep(Duration::from_millis(2));
            }
        };
        for _ in 0..100 {
            log.write(Form::Common, &line::tests::record());
        }
        holds(&file, 100);
        fs::rename(&file, &moved).unwrap();
        log.reopen().unwrap();
        log.write(Form::Json, &line::tests::record());
        holds(&file, 1);
        holds(&moved, 100);
        assert_eq!(log.lost(), 0);
    }

    #[tokio::test]
    async fn what_was_handed_over_is_written_once_it_is_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let log = AccessLog::open(Some(&file)).unwrap();
        for lines in 1..100 {
            log.write(Form::Common, &line::tests::record());
            log.flush().await;
            assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), lines);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_keeps_nobody_from_ending() {
        let log = AccessLog::to(Box::new(Never), None);
        for lines in [1, WAITING_MAX * 2] {
            (0..lines).for_each(|_| log.write(Form::Common, &line::tests::record()));
            log.flush().await;
        }
    }

    #[test]
    fn a_disk_that_cannot_follow_costs_lines_and_no_time() {
        let log = AccessLog::to(Box::new(Never), None);
        for _ in 0..WAITING_MAX * 2 {
            log.write(Form::Common, &line::tests::record());
        }
        assert!(log.lost() > 0);
    }
}
