//! `cargo xtask services`: real servers for tests and for people, on free ports of this machine, in temporary
//! folders, without containers and without touching the services of the system.
//!
//! Each `up` and each `run` starts a batch, with a file in `target/services` that says all there is to know about
//! it, and a watcher: this program once more, which waits until its starter ends, however it ends, and then stops
//! what is not to stay. So there is one way to stop, and being killed takes it too.

mod args;
mod batch;
mod install;
mod process;
mod redis;
mod servers;
mod state;

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;

use args::{Ask, Service};
use batch::Batch;
use process::{Ending, Process, now};
use state::{Line, Role, Started, State};

/// What the watcher is told by who leaves the servers running.
const STAY: &[u8] = b"stay";

type Variables = Vec<(String, String)>;

/// Does what the arguments after `services` ask for.
pub(crate) fn run(root: &Path, args: &[&str]) -> ExitCode {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let home = target.join("services");
    let outcome = match args::parse(args) {
        Err(error) => {
            eprintln!("xtask: services: {error}\n\n{}", args::USAGE);
            return ExitCode::from(2);
        }
        Ok(Ask::Up(services)) => up(&home, &services),
        Ok(Ask::Down) => down(&home),
        Ok(Ask::Env) => env(&home),
        Ok(Ask::Run(services, command)) => run_command(&home, &services, &command),
        Ok(Ask::Watch(state)) => watch(&state),
    };
    outcome.unwrap_or_else(|error| {
        // Nobody may be listening any more.
        let _ = writeln!(io::stderr(), "xtask: services: {error}");
        ExitCode::FAILURE
    })
}

fn up(home: &Path, services: &[Service]) -> io::Result<ExitCode> {
    let _lock = lock(home)?;
    sweep(home)?;
    let mut absent = services.to_vec();
    for (path, state) in states(home)? {
        if state.is_up() {
            absent.retain(|service| !state.services.contains(service));
        } else if state.owner.is_none() {
            let names: Vec<_> = state.services.iter().map(|service| service.name()).collect();
            eprintln!("a server has died: starting again what was started with it ({})", names.join(" "));
            absent.extend(state.services.iter().filter(|service| !services.contains(service)));
            state.stop(&path)?;
        }
    }
    if !absent.is_empty() {
        let (path, mut watcher) = watched(home)?;
        let started = Batch::new(&path).and_then(|batch| {
            start(home, &absent, &batch)?;
            batch.note(&Line::Kept)
        });
        let released = watcher.release(if started.is_ok() { STAY } else { b"" });
        started.and(released)?;
    }
    env(home)
}

fn down(home: &Path) -> io::Result<ExitCode> {
    let _lock = lock(home)?;
    for (path, state) in states(home)? {
        if state.is_ownerless() {
            state.stop(&path)?;
        } else if let Some(owner) = state.owner {
            eprintln!("left to its end: what process {} runs", owner.pid);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn env(home: &Path) -> io::Result<ExitCode> {
    let states = states(home)?;
    let mut variables: Variables = states
        .into_iter()
        .filter(|(_, state)| state.is_up())
        .flat_map(|(_, state)| state.variables)
        .collect();
    variables.sort();
    if variables.is_empty() {
        return Err(io::Error::other("nothing is up; start it with: cargo xtask services up"));
    }
    io::stdout().write_all(state::exports(&variables).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn run_command(home: &Path, services: &[Service], command: &[String]) -> io::Result<ExitCode> {
    fs::create_dir_all(home)?;
    sweep(home)?;
    let (path, mut watcher) = watched(home)?;
    let outcome = Batch::new(&path).and_then(|batch| {
        let variables = start(home, services, &batch)?;
        with(&variables, command, &batch)
    });
    let stopped = watcher.release(b"");
    outcome.and_then(|code| stopped.map(|()| code))
}

/// Runs a command to its end, in this environment.
fn with(variables: &Variables, command: &[String], batch: &Batch) -> io::Result<ExitCode> {
    let [program, args @ ..] = command else { return Ok(ExitCode::SUCCESS) };
    let mut command = Command::new(program);
    crate::forget_cargo(&mut command);
    command.args(args).envs(variables.iter().map(|(name, value)| (name, value)));
    // Only the group that a terminal talks to may read from it and hears of Ctrl-C; a group of its own can be
    // stopped as a whole.
    let ending = if io::stdin().is_terminal() {
        Ending::TermAlone
    } else {
        command.process_group(0);
        Ending::Term
    };
    let mut child = command.spawn().map_err(|error| batch::said(&error, &format!("running {program}")))?;
    // One that has ended already needs nobody to stop it.
    if let Ok(process) = Process::of_pid(child.id()) {
        batch.note(&Line::Process(&Started { role: Role::Passing, ending, process }))?;
    }
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Starts services, all at the same time, and says how long each took. Returns where they are.
fn start(home: &Path, services: &[Service], batch: &Batch) -> io::Result<Variables> {
    let began = now();
    let installed = install::install(services, batch)?;
    if !installed.is_empty() {
        eprintln!("installed {} in {:.1} s", installed.join(" "), began.elapsed().as_secs_f64());
    }
    let began = now();
    let one = |service: Service| -> io::Result<Variables> {
        let began = now();
        let up = servers::start(service, home, batch)?;
        batch.note(&Line::Service(service))?;
        for (name, value) in &up.variables {
            batch.note(&Line::Variable(name, value))?;
        }
        let variables = up.variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let took = began.elapsed().as_secs_f64();
        eprintln!("{:<10} {} up in {took:.2} s", service.name(), up.version);
        Ok(variables)
    };
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = services.iter().map(|&service| scope.spawn(move || one(service))).collect();
        let lost = |_| Err(io::Error::other("a thread that started a server panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(lost)).collect()
    });
    let mut variables = Vec::new();
    let mut errors = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(more) => variables.extend(more),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if !errors.is_empty() {
        return Err(io::Error::other(errors.join("\n")));
    }
    eprintln!("all in {:.2} s", began.elapsed().as_secs_f64());
    Ok(variables)
}

/// Waits until the starter of a batch has let go of our input, and stops the batch unless it is to stay.
fn watch(path: &Path) -> io::Result<ExitCode> {
    let mut told = Vec::new();
    io::stdin().read_to_end(&mut told)?;
    if told != STAY && path.exists() {
        State::read(path)?.stop(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A watcher of a batch to be, which outlives us.
#[derive(Debug)]
struct Watcher(Child);

/// The file of a new batch, and its watcher.
fn watched(home: &Path) -> io::Result<(PathBuf, Watcher)> {
    let path = home.join(format!("{}.state", std::process::id()));
    let watcher = Command::new(std::env::current_exe()?)
        .args(["services", "watch"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C and whoever kills our group do not reach it.
        .process_group(0)
        .spawn()?;
    Ok((path, Watcher(watcher)))
}

impl Watcher {
    /// Lets go of the batch, and waits until the watcher has done its work.
    fn release(&mut self, word: &[u8]) -> io::Result<()> {
        if let Some(mut pipe) = self.0.stdin.take() {
            // One that was killed does not listen; how it ended says so.
            let _ = pipe.write_all(word);
        }
        if self.0.wait()?.success() {
            return Ok(());
        }
        let again = "try again with: cargo xtask services down";
        Err(io::Error::other(format!("stopping the servers, or leaving them to themselves, failed; {again}")))
    }
}

/// The right to change what is up, when it is our turn.
fn lock(home: &Path) -> io::Result<File> {
    fs::create_dir_all(home)?;
    let lock = File::create(home.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Every batch that is written down.
fn states(home: &Path) -> io::Result<Vec<(PathBuf, State)>> {
    let mut states = Vec::new();
    let entries = match fs::read_dir(home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(states),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "state") {
            match State::read(&path) {
                // Its watcher was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                state => states.push((path, state?)),
            }
        }
    }
    Ok(states)
}

/// Stops what nobody else will: its starter and its watcher were killed.
fn sweep(home: &Path) -> io::Result<()> {
    for (path, state) in states(home)? {
        if state.owner.is_some() && state.is_ownerless() {
            state.stop(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let home = std::env::temp_dir().join(format!("larder-services-test-{}-{name}", std::process::id()));
        fs::create_dir(&home).unwrap();
        home
    }

    #[test]
    fn a_command_is_told_where_the_servers_are_and_its_status_is_passed_on() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let home = scratch("status");
        let path = home.join("1.state");
        let batch = Batch::new(&path).unwrap();
        let variables = vec![("LARDER_TEST_X".to_owned(), "here".to_owned())];
        let status = |script: &str| {
            let command = ["sh", "-c", script].map(str::to_owned);
            format!("{:?}", with(&variables, &command, &batch).unwrap())
        };
        assert_eq!(status("test $LARDER_TEST_X = here"), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(status("exit 7"), format!("{:?}", ExitCode::from(7)));
        assert_eq!(status("kill -KILL $$"), format!("{:?}", ExitCode::from(137)));
        State::read(&path).unwrap().stop(&path).unwrap();
        fs::remove_dir(&home).unwrap();
    }

    #[test]
    fn what_a_dead_starter_left_is_stopped_and_what_a_living_one_has_is_not() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let home = scratch("sweep");
        let mut server = Command::new("sleep").arg("100").process_group(0).spawn().unwrap();
        let process = Process::of_pid(server.id()).unwrap();
        let own = Process::of_pid(std::process::id()).unwrap();
        let dead = Process { birth: own.birth - 1, ..own.clone() };
        let started = Started { role: Role::Server, ending: Ending::Kill, process: process.clone() };
        let text = [Line::Owner(&own), Line::Process(&started)].iter().map(Line::text).collect::<String>();
        fs::write(home.join("1.state"), &text).unwrap();
        sweep(&home).unwrap();
        assert!(process.is_alive() && home.join("1.state").exists());
        fs::write(home.join("2.state"), text + &Line::Owner(&dead).text()).unwrap();
        sweep(&home).unwrap();
        assert!(!process.is_alive() && !home.join("2.state").exists());
        server.wait().unwrap();
        fs::remove_dir_all(&home).unwrap();
    }
}
