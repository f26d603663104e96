//! Processes that outlive whoever started them: who they are, whether they live, and their end. Knows no server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At once, with its group: what it wrote is thrown away.
    Kill,
    /// With its group, and it has to clean up: PostgreSQL holds shared memory.
    Quit,
    /// It is asked, with its group.
    Term,
    /// It is asked, alone: it is in the group of the terminal.
    TermAlone,
    /// It is waited for: an installation that is broken off leaves the system broken.
    Wait,
}

impl Ending {
    const ALL: [Self; 5] = [Self::Kill, Self::Quit, Self::Term, Self::TermAlone, Self::Wait];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Quit => "quit",
            Self::Term => "term",
            Self::TermAlone => "term-alone",
            Self::Wait => "wait",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == name)
    }

    fn signal(self) -> Option<&'static str> {
        match self {
            Self::Kill => Some("KILL"),
            Self::Quit => Some("QUIT"),
            Self::Term | Self::TermAlone => Some("TERM"),
            Self::Wait => None,
        }
    }

    /// How long to wait before more is done.
    fn patience(self) -> Duration {
        match self {
            Self::Wait => Duration::from_secs(600),
            _ => Duration::from_secs(5),
        }
    }
}

/// A process, told apart from a later one of the same number by when it was born.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// In ticks of the kernel since it booted.
    pub(crate) birth: u64,
}

impl Process {
    /// The process that has this number now.
    ///
    /// # Errors
    /// There is none, or this system does not say.
    pub(crate) fn of_pid(pid: u32) -> io::Result<Self> {
        let birth = birth(pid).ok_or_else(|| {
            io::Error::other(format!("finding process {pid} in /proc failed: it ended, or this is not Linux"))
        })?;
        Ok(Self { pid, birth })
    }

    pub(crate) fn is_alive(&self) -> bool {
        birth(self.pid) == Some(self.birth)
    }

    fn signal(&self, signal: &str, ending: Ending) {
        let target =
            if ending == Ending::TermAlone { self.pid.to_string() } else { format!("-{}", self.pid) };
        // The shell has `kill` built in; a bare Debian has no other. That it is gone already is no failure.
        let _ = Command::new("sh")
            .args(["-c", "kill -s \"$0\" -- \"$1\"", signal, &target])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Ends all of them, and returns when they are gone.
///
/// # Errors
/// Some are still there.
pub(crate) fn end(processes: &[(Ending, Process)]) -> io::Result<()> {
    for (ending, process) in processes {
        if let (true, Some(signal)) = (process.is_alive(), ending.signal()) {
            process.signal(signal, *ending);
        }
    }
    let started = now();
    for (ending, process) in processes {
        if !wait(process, started + ending.patience()) && *ending != Ending::Wait {
            process.signal("KILL", *ending);
        }
    }
    let deadline = now() + Duration::from_secs(5);
    let left = processes.iter().filter(|(_, process)| !wait(process, deadline));
    let left: Vec<String> = left.map(|(_, process)| process.pid.to_string()).collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("stopping failed: still there are processes {}", left.join(", "))))
}

/// Whether the process is gone before the deadline.
fn wait(process: &Process, deadline: Instant) -> bool {
    while process.is_alive() {
        if now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

#[expect(clippy::disallowed_methods, reason = "real servers take real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// When a process was born; `None` if there is none. One that only waits to be buried is none.
fn birth(pid: u32) -> Option<u64> {
    born_in(&fs::read_to_string(folder(pid)?.join("stat")).ok()?)
}

/// What `/proc` has of a process. In a container it may be that of the host, where processes have other numbers.
fn folder(pid: u32) -> Option<PathBuf> {
    let own = fs::read_link("/proc/self").ok()?;
    if own.to_str() == Some(&std::process::id().to_string()) {
        return Some(PathBuf::from(format!("/proc/{pid}")));
    }
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    let here = |folder: &Path| {
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let is_it = numbers.split_whitespace().next_back() == Some(&pid.to_string());
        (is_it && fs::read_link(folder.join("ns/pid")).ok()? == space).then_some(())
    };
    let folders = fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    folders.into_iter().find(|folder| here(folder).is_some())
}

/// Fields 3 and 22 of proc(5)'s `stat`. The second is the name in parentheses, and may contain anything.
fn born_in(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether processes can be told apart here at all.
#[cfg(test)]
pub(crate) fn sees_itself() -> bool {
    birth(std::process::id()).is_some()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    const STAT: &str =
        "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 112233 9 9 184467 1 1 0 0 0 0 0 0 0";

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_birth() {
        assert_eq!(born_in(STAT), Some(112_233));
    }

    #[test]
    fn a_process_that_waits_to_be_buried_is_dead() {
        assert_eq!(born_in(&STAT.replace(") S", ") Z")), None);
    }

    #[test]
    fn a_later_process_of_the_same_number_is_another_one() {
        if !sees_itself() {
            return;
        }
        let own = Process::of_pid(std::process::id()).unwrap();
        assert!(own.is_alive());
        let earlier = Process { birth: own.birth - 1, ..own };
        assert!(!earlier.is_alive());
        // Had it been taken for this process, this test would end here.
        end(&[(Ending::Kill, earlier)]).unwrap();
    }

    #[test]
    fn what_a_process_has_started_ends_with_it() {
        if !sees_itself() {
            return;
        }
        let mut parent = Command::new("sh")
            .args(["-c", "sleep 100 & echo $!; wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut pipe = io::BufReader::new(parent.stdout.take().unwrap());
        let mut line = String::new();
        io::BufRead::read_line(&mut pipe, &mut line).unwrap();
        let child = Process::of_pid(line.trim().parse().unwrap()).unwrap();
        let process = Process::of_pid(parent.id()).unwrap();
        end(&[(Ending::Term, process), (Ending::Wait, child.clone())]).unwrap();
        assert!(!child.is_alive());
        parent.wait().unwrap();
    }

    #[test]
    fn endings_have_names_that_lead_back() {
        assert!(Ending::ALL.into_iter().all(|ending| Ending::of_name(ending.name()) == Some(ending)));
    }
}
