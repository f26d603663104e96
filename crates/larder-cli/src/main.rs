//! The command `larder`: caches what commands print, and looks into any cache.
//!
//! What was typed becomes [`LowArgs`], what it means here becomes [`HiArgs`], and one command does it. Exit
//! statuses and messages leave the process here and nowhere else.

mod args;
mod capture;
mod cmd;
mod failure;
mod lock;
mod output;
mod progress;
mod proxy;
mod store;
mod upkeep;

use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};

use args::high::HiArgs;
use args::low::LowArgs;
use failure::{FAILED, FOUND, Failure, Outcome, USAGE};

fn main() -> ExitCode {
    let status = match start() {
        Ok(status) => status,
        Err(Failure::Message { status, text }) => {
            output::note(text);
            status
        }
        // As for any filter: whoever closed the pipe has seen enough.
        Err(Failure::BrokenPipe) => FOUND,
    };
    ExitCode::from(status)
}

fn start() -> Outcome {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let lock = cmd::run::detached::begin(&mut arguments)?;
    let mut matches = match args::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let low = LowArgs::from_matches(&mut matches)
        .ok_or_else(|| Failure::usage("unknown command (try larder --help)"))?;
    match HiArgs::from_low(low)? {
        HiArgs::Run(run) => with_runtime(|runtime| match lock {
            Some(lock) => cmd::run::detached::run(run, lock, runtime),
            None => cmd::run::run(run, runtime),
        }),
        HiArgs::Store(target, operation) => {
            with_runtime(|runtime| runtime.block_on(cmd::on_store(target, operation)))
        }
        HiArgs::Check { document, connect, json } => {
            with_runtime(|runtime| runtime.block_on(cmd::check::check(&document, connect, json)))
        }
        HiArgs::Migrate(migration) => {
            with_runtime(|runtime| runtime.block_on(cmd::migrate::migrate(migration)))
        }
        HiArgs::Serve(flags) => cmd::serve::serve(flags),
        HiArgs::Purge(purging) => with_runtime(|runtime| runtime.block_on(cmd::admin::purge::purge(purging))),
        HiArgs::Explain(asked) => {
            with_runtime(|runtime| runtime.block_on(cmd::admin::explain::explain(asked)))
        }
        HiArgs::Warm(warming) => with_runtime(|runtime| runtime.block_on(cmd::warm::warm(warming))),
        HiArgs::Drivers { json } => cmd::drivers::drivers(json),
        HiArgs::Ping { asked, count, json } => {
            with_runtime(|runtime| runtime.block_on(cmd::ping::ping(asked, count, json)))
        }
        HiArgs::Completions(shell) => cmd::generate::completions(&shell),
        HiArgs::Man => cmd::generate::man(),
    }
}

/// Help and version are answers, everything else is an error; both are printed as clap has them.
fn usage(error: &clap::Error) -> Outcome {
    match error.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write the help", &error))
        }
        _ => Ok(if error.use_stderr() { USAGE } else { FOUND }),
    }
}

/// One thread: this process does one thing. What still runs in the background afterwards is not waited for.
fn with_runtime(work: impl FnOnce(&Runtime) -> Outcome) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Message { status: FAILED, text: format!("cannot start: {error}") })?;
    let outcome = work(&runtime);
    runtime.shutdown_background();
    outcome
}
