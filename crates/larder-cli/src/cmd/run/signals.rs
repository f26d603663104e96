//! Signals that larder gets while a command runs are the command's: they are passed on, so that
//! `kill LARDER` does what `kill COMMAND` would. Knows nothing of output.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::{io, process, thread};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The signals that are passed on.
const RELAYED: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Passes signals on for as long as a command runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Relay {
    running: Arc<Mutex<Option<Pid>>>,
    interrupted: Arc<AtomicBool>,
}

impl Relay {
    /// Listens from now on, in a thread of its own: the one that copies output may be blocked.
    ///
    /// # Errors
    /// There is no thread or no handler to be had; signals end larder, then, as if it had no child.
    pub(super) fn start() -> io::Result<Self> {
        let relay = Self::default();
        let (ready, started) = mpsc::channel();
        let listener = relay.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || listener.listen(&ready))?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that listens has died")))?;
        Ok(relay)
    }

    /// From now on signals go to this process.
    pub(super) fn running(&self, pid: Option<Pid>) {
        *self.lock() = pid;
    }

    /// From now on signals end larder. To be called before the process is reaped, so that no signal can
    /// reach another one that got its number.
    pub(super) fn finished(&self) {
        *self.lock() = None;
    }

    /// Whether a signal came while the command ran: what it printed may be less than all.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, ready: &mpsc::Sender<io::Result<()>>) {
        let ignored = ignored_signals();
        let runtime = match Builder::new_current_thread().enable_io().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        runtime.block_on(async {
            for kind in RELAYED {
                // What larder was told to ignore (`nohup`), the command inherits; a handler would undo that.
                if ignored & (1 << (kind.as_raw() - 1)) != 0 {
                    continue;
                }
                match signal(SignalKind::from_raw(kind.as_raw())) {
                    Ok(mut signals) => {
                        let relay = self.clone();
                        tokio::spawn(async move {
                            while signals.recv().await.is_some() {
                                relay.pass_on(kind);
                            }
                        });
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                }
            }
            let _ = ready.send(Ok(()));
            std::future::pending::<()>().await;
        });
    }

    fn pass_on(&self, signal: Signal) {
        let running = self.lock();
        let Some(pid) = *running else {
            // Nothing runs: do what the signal would have done without us.
            process::exit(signal.as_raw().saturating_add(128));
        };
        self.interrupted.store(true, Ordering::SeqCst);
        // A key on the terminal already reached the command, which is in our process group; twice is more
        // than was asked for (many programs take a second Ctrl-C for "at once").
        let from_terminal = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
        if !from_terminal {
            // It may just have died, which is as good.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Whether keys on the controlling terminal send their signals to our process group.
fn in_foreground() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

/// The signals that this process was started to ignore, as a bit mask; none where there is no way to tell.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
