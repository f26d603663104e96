//! Servers that are being started together: a folder, ports, processes, and a file where each of them is written
//! down before it begins. Knows no particular server.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use super::process::{Ending, Process, now};
use super::state::{Line, Role, Started};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Below the ports that systems give to outgoing connections: none of them can take one between our look and the
/// server's.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How many a batch is likely to need: those who start at the same time begin this far apart.
const PORTS_EACH: u16 = 30;
/// Who the servers are if we are root: none of them needs to be, PostgreSQL and memcached refuse to be.
const SERVER_USER: &str = "nobody";
const LOG_LINES: usize = 15;

/// Servers that are being started together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where all that they write is.
    pub(crate) folder: PathBuf,
    file: File,
    /// The numbers of the user and the group that servers run as, if not as we do.
    user: Option<(u32, u32)>,
    next_port: AtomicU16,
}

/// A process to be.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Of its folder and its log.
    pub(crate) name: &'a str,
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [String],
    pub(crate) role: Role,
    pub(crate) ending: Ending,
    /// Whether it runs as whoever started us, with all rights of theirs.
    pub(crate) is_ours: bool,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Batch {
    /// A new batch that is written down in `file`, which is in nobody else's use.
    ///
    /// # Errors
    /// The folder or the file cannot be made.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let pid = std::process::id();
        let file = File::options().append(true).create_new(true).open(path);
        let file = file.map_err(|error| said(&error, &format!("making {}", path.display())))?;
        let owner = Process::of_pid(pid)?;
        (&file).write_all(Line::Owner(&owner).text().as_bytes())?;
        let user = if is_root()? { Some((number("-u")?, number("-g")?)) } else { None };
        let slots = (PORTS.end - PORTS.start) / PORTS_EACH;
        let slot = u16::try_from(pid % u32::from(slots)).unwrap_or(0);
        let folder = new_folder()?;
        let batch = Self { folder, file, user, next_port: AtomicU16::new(slot * PORTS_EACH) };
        batch.note(&Line::Folder(&batch.folder))?;
        Ok(batch)
    }

    /// Writes a line down.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn note(&self, line: &Line<'_>) -> io::Result<()> {
        // In one write, which the system appends as a whole, whoever else writes.
        (&self.file).write_all(line.text().as_bytes())
    }

    /// A port that nobody listens on.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn port(&self) -> io::Result<u16> {
        for _ in PORTS {
            let port = self.next_port.fetch_add(1, Ordering::Relaxed);
            let port = PORTS.start + port % (PORTS.end - PORTS.start);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err(io::Error::other(format!("finding a free port in {PORTS:?} failed")))
    }

    /// The folder of this name, which its server may write to.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(said(&error, &format!("making {}", folder.display())));
            }
            _ => {}
        }
        self.give(&folder)?;
        Ok(folder)
    }

    /// Gives a file to the servers.
    ///
    /// # Errors
    /// It cannot be given away.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some((user, group)) => chown(path, Some(user), Some(group)),
            None => Ok(()),
        }
    }

    /// Starts a process in a group and a folder of its own. It is written down before it begins: a child that
    /// waits for a line from us becomes it, and gives up if we die.
    ///
    /// # Errors
    /// It cannot be started or written down.
    pub(crate) fn launch(&self, launch: &Launch<'_>) -> io::Result<Running> {
        let name = launch.name;
        let folder = self.folder(name)?;
        let log = self.folder.join(format!("{name}.log"));
        let output = File::options().append(true).create(true).open(&log)?;
        let mut command = Command::new("sh");
        command
            .args(["-c", "read -r go && exec \"$@\" </dev/null", name])
            .arg(launch.program)
            .args(launch.args)
            .current_dir(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output);
        if let (false, Some((user, group))) = (launch.is_ours, self.user) {
            command.uid(user).gid(group).env("HOME", &folder);
        }
        let mut child = command.spawn().map_err(|error| {
            let folder = folder.display();
            said(&error, &format!("starting {name} in {folder}, which TMPDIR moves elsewhere,"))
        })?;
        let process = Process::of_pid(child.id())?;
        self.note(&Line::Process(&Started { role: launch.role, ending: launch.ending, process }))?;
        if let Some(mut gate) = child.stdin.take() {
            gate.write_all(b"go\n")?;
        }
        Ok(Running { name: name.to_owned(), child, log })
    }
}

impl Running {
    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ended, or it took too long: with the end of its log.
    pub(crate) fn until(&mut self, mut is_ready: impl FnMut() -> bool) -> io::Result<()> {
        let deadline = now() + PATIENCE;
        while !is_ready() {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended before it answered ({status})")));
            }
            if now() >= deadline {
                return Err(self.failed(&format!("did not answer within {PATIENCE:?}")));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it has ended well.
    ///
    /// # Errors
    /// It failed, or took too long: with the end of its log.
    pub(crate) fn finish(&mut self, patience: Duration) -> io::Result<()> {
        let deadline = now() + patience;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failed(&format!("failed ({status})"))),
                None if now() >= deadline => {
                    return Err(self.failed(&format!("did not end within {patience:?}")));
                }
                None => thread::sleep(POLL),
            }
        }
    }

    fn failed(&self, how: &str) -> io::Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = tail(&String::from_utf8_lossy(&log));
        io::Error::other(format!("starting {} failed: it {how}; the end of its log:\n{tail}", self.name))
    }
}

/// The last lines of a text, set in.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
    last.iter().map(|line| format!("    {line}\n")).collect()
}

/// Whether we may do everything.
///
/// # Errors
/// This system does not say.
pub(crate) fn is_root() -> io::Result<bool> {
    let own = fs::metadata("/proc/self").map_err(|error| said(&error, "reading /proc, which Linux has,"))?;
    Ok(own.uid() == 0)
}

/// A folder that was not there, which every user may enter.
fn new_folder() -> io::Result<PathBuf> {
    let parent = std::env::temp_dir();
    let name = format!("larder-services-{}", std::process::id());
    let mut count = 0;
    loop {
        // One of this name may be of an earlier process that had our number.
        let folder = parent.join(if count == 0 { name.clone() } else { format!("{name}-{count}") });
        match fs::create_dir(&folder) {
            Ok(()) => {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
                return Ok(folder);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && count < 100 => count += 1,
            Err(error) => return Err(said(&error, &format!("making {}", folder.display()))),
        }
    }
}

/// An error, and what failed with it.
pub(crate) fn said(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what} failed: {error}"))
}

fn number(kind: &str) -> io::Result<u32> {
    let output = Command::new("id").args([kind, SERVER_USER]).output()?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    number.ok_or_else(|| {
        io::Error::other(format!("finding user {SERVER_USER}, whom servers run as, failed: make that user"))
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::services::state::State;

    /// A batch in a file of its own, which is stopped at the end of a test.
    struct Scratch {
        path: PathBuf,
        batch: Batch,
    }

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("larder-batch-{}-{name}", std::process::id()));
            let batch = Batch::new(&path).unwrap();
            Self { path, batch }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            State::read(&self.path).unwrap().stop(&self.path).unwrap();
        }
    }

    fn shell<'a>(script: &'a [String; 2], role: Role) -> Launch<'a> {
        let program = Path::new("sh");
        Launch { name: "shell", program, args: script, role, ending: Ending::Kill, is_ours: true }
    }

    #[test]
    fn a_batch_is_found_by_what_it_wrote_down_and_leaves_nothing() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let folder;
        let process;
        {
            let scratch = Scratch::new("whole");
            let script = ["-c".to_owned(), "echo ready; exec sleep 100".to_owned()];
            let mut running = scratch.batch.launch(&shell(&script, Role::Server)).unwrap();
            running.until(|| fs::read_to_string(running_log(&scratch)).unwrap() == "ready\n").unwrap();
            let state = State::read(&scratch.path).unwrap();
            folder = state.folder.clone().unwrap();
            process = state.processes[0].process.clone();
            assert!(process.is_alive() && folder.is_dir());
            assert!(!state.is_ownerless());
            let ports = [scratch.batch.port().unwrap(), scratch.batch.port().unwrap()];
            assert_ne!(ports[0], ports[1]);
        }
        assert!(!process.is_alive() && !folder.exists());
    }

    fn running_log(scratch: &Scratch) -> PathBuf {
        scratch.batch.folder.join("shell.log")
    }

    #[test]
    fn a_server_that_ends_is_not_waited_for_and_its_log_is_shown() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let scratch = Scratch::new("ends");
        let script = ["-c".to_owned(), "echo no room >&2; exit 3".to_owned()];
        let error = scratch.batch.launch(&shell(&script, Role::Server)).unwrap().until(|| false).unwrap_err();
        let said = "starting shell failed: it ended before it answered (exit status: 3); the end of its log:";
        assert_eq!(error.to_string(), format!("{said}\n    no room\n"));
    }

    #[test]
    fn a_preparation_that_takes_too_long_is_given_up() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let scratch = Scratch::new("long");
        let script = ["-c".to_owned(), "sleep 100".to_owned()];
        let mut running = scratch.batch.launch(&shell(&script, Role::Passing)).unwrap();
        let error = running.finish(Duration::ZERO).unwrap_err().to_string();
        assert!(error.starts_with("starting shell failed: it did not end within 0ns"), "{error}");
    }

    #[test]
    fn the_end_of_a_log_is_its_last_lines() {
        let lines = (1..=20).map(|n| format!("line {n}\n")).collect::<String>();
        assert_eq!(tail(&lines).lines().next(), Some("    line 6"));
        assert_eq!(tail("one\n"), "    one\n");
        assert_eq!(tail(""), "");
    }
}
