//! A run in a process of its own, with nobody at its standard streams: it outlives whoever asked for it, and
//! keeps none of the caller's pipes and terminals open.
//!
//! The caller takes the lock of the key, and starts larder anew with the same arguments and the locked file in
//! place of standard output: the lock has a holder without a gap, and of many callers one starts one.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::{Command, Stdio};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::setsid;
use rustix::stdio::{dup2_stdout, stdout};
use tokio::runtime::Runtime;

use super::Runner;
use crate::args::high::HiRun;
use crate::failure::{Failure, Outcome};
use crate::lock;

/// What stands in place of `run` on the command line of such a process. No user types it.
const SUBCOMMAND: &str = "_detached";

/// The locked file that this process was started with, if it was started by [`Runner::detach`]. The arguments
/// are then those of `larder run`, as which they go on.
///
/// # Errors
/// There are no descriptors left.
pub(crate) fn begin(arguments: &mut [OsString]) -> Result<Option<File>, Failure> {
    let Some(word) = arguments.get_mut(1).filter(|word| *word == SUBCOMMAND) else { return Ok(None) };
    *word = "run".into();
    let detach = || -> io::Result<File> {
        // A session of its own has no terminal, and gets none of its signals. Whoever leads one already has none
        // to leave.
        let _ = setsid();
        let lock = fcntl_dupfd_cloexec(stdout(), 3)?;
        // What is printed from here on is nobody's.
        dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
        Ok(lock.into())
    };
    detach().map(Some).map_err(|error| Failure::run(format!("cannot detach: {error}")))
}

/// Runs the command for those who wait, and for the store.
pub(crate) fn run(args: HiRun, lock: File, runtime: &Runtime) -> Outcome {
    let runner = Runner::new(args, runtime);
    let outcome = runner.run_held(lock);
    runner.leave();
    outcome
}

impl Runner<'_> {
    fn run_held(&self, lock: File) -> Outcome {
        let name = self.lock_name();
        let held = self.args.locks.as_ref().and_then(|folder| lock::take_over(lock, folder, &name));
        match held {
            Some(guard) => self.execute(Some((guard, &name))),
            None => Err(Failure::run("the lock that was handed over is not that of this command")),
        }
    }

    /// Starts a process that runs the command, and that holds this lock until it has.
    pub(super) fn detach(&self, lock: File) -> io::Result<()> {
        let mut helper = Command::new(env::current_exe()?);
        helper.arg(SUBCOMMAND).args(env::args_os().skip(2));
        helper.stdin(if self.args.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        // Not waited for: it is there to outlive this process.
        let mut helper = helper.stdout(lock).stderr(Stdio::null()).spawn()?;
        if let (Some(mut pipe), Some(input)) = (helper.stdin.take(), &self.args.stdin) {
            // It reads all of it before anything else. If it dies instead, the lock says so.
            let _ = pipe.write_all(input);
        }
        Ok(())
    }
}
