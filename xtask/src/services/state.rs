//! What is written down about servers that were started together, so that whoever comes later finds them: a file
//! of lines that is only ever appended to, so that a writer who is killed leaves a true one. Starts nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::args::Service;
use super::install;
use super::process::{self, Ending, Process};

/// Servers that were started together, as they stand in their file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Where all that they write is.
    pub(crate) folder: Option<PathBuf>,
    /// Who stops them; nobody once they are to stay until `down`.
    pub(crate) owner: Option<Process>,
    /// In the order in which they were started.
    pub(crate) processes: Vec<Started>,
    /// Those that answer.
    pub(crate) services: Vec<Service>,
    /// Where they are, as names and values for an environment.
    pub(crate) variables: Vec<(String, String)>,
    /// Files of the system that were there while packages were installed.
    pub(crate) guards: Vec<PathBuf>,
}

/// A process of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) role: Role,
    pub(crate) ending: Ending,
    pub(crate) process: Process,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It stays until it is stopped.
    Server,
    /// It ends by itself: an installation, or the command that the servers were started for.
    Passing,
}

/// A line of the file.
#[derive(Debug)]
pub(crate) enum Line<'a> {
    Folder(&'a Path),
    Owner(&'a Process),
    Process(&'a Started),
    Service(Service),
    Variable(&'a str, &'a str),
    Guard(&'a Path),
    Kept,
}

impl Line<'_> {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Folder(path) => format!("folder {}\n", path.display()),
            Self::Owner(Process { pid, birth }) => format!("owner {pid} {birth}\n"),
            Self::Process(Started { role, ending, process: Process { pid, birth } }) => {
                let word = match role {
                    Role::Server => "server",
                    Role::Passing => "passing",
                };
                format!("{word} {} {pid} {birth}\n", ending.name())
            }
            Self::Service(service) => format!("service {}\n", service.name()),
            Self::Variable(name, value) => format!("variable {name} {value}\n"),
            Self::Guard(path) => format!("guard {}\n", path.display()),
            Self::Kept => "kept\n".to_owned(),
        }
    }
}

impl State {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or this is not such a file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        Self::of(&text).ok_or_else(|| {
            let path = path.display();
            io::Error::other(format!("reading {path} failed: a line is not as `services` writes it; stop what it names, and remove it"))
        })
    }

    fn of(text: &str) -> Option<Self> {
        let mut state = Self::default();
        // A last line without its end is one whose writer was killed before it did what the line says.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let parts: Vec<&str> = rest.split(' ').collect();
            match (word, parts.as_slice()) {
                ("folder", _) => state.folder = Some(PathBuf::from(rest)),
                ("owner", [pid, birth]) => state.owner = Some(process_of(pid, birth)?),
                ("server" | "passing", [ending, pid, birth]) => {
                    let role = if word == "server" { Role::Server } else { Role::Passing };
                    let (ending, process) = (Ending::of_name(ending)?, process_of(pid, birth)?);
                    state.processes.push(Started { role, ending, process });
                }
                ("service", _) => state.services.push(Service::of_name(rest)?),
                ("variable", _) => {
                    let (name, value) = rest.split_once(' ')?;
                    state.variables.push((name.to_owned(), value.to_owned()));
                }
                ("guard", _) => state.guards.push(PathBuf::from(rest)),
                ("kept", _) => state.owner = None,
                _ => return None,
            }
        }
        Some(state)
    }

    /// Whether nobody but `down` stops them, or nobody any more.
    pub(crate) fn is_ownerless(&self) -> bool {
        self.owner.as_ref().is_none_or(|owner| !owner.is_alive())
    }

    /// Whether they were to stay, and every server lives.
    pub(crate) fn is_up(&self) -> bool {
        let mut servers = self.processes.iter().filter(|started| started.role == Role::Server);
        self.owner.is_none() && servers.all(|server| server.process.is_alive())
    }

    /// Stops them, removes what they wrote, and the file at `path` last: until then it can be tried again.
    ///
    /// # Errors
    /// Something is left.
    pub(crate) fn stop(&self, path: &Path) -> io::Result<()> {
        let processes: Vec<_> =
            self.processes.iter().map(|started| (started.ending, started.process.clone())).collect();
        process::end(&processes)?;
        install::remove_guards(&self.guards)?;
        if let Some(folder) = &self.folder {
            gone(folder, fs::remove_dir_all(folder))?;
        }
        gone(path, fs::remove_file(path))
    }
}

fn process_of(pid: &str, birth: &str) -> Option<Process> {
    Some(Process { pid: pid.parse().ok()?, birth: birth.parse().ok()? })
}

/// That it was gone already is as good.
fn gone(path: &Path, outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("removing {} failed: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// What a shell reads to know where the servers are.
pub(crate) fn exports(variables: &[(String, String)]) -> String {
    variables
        .iter()
        .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(role: Role, ending: Ending, pid: u32) -> Started {
        Started { role, ending, process: Process { pid, birth: 7 } }
    }

    #[test]
    fn what_is_written_is_read() {
        let owner = Process { pid: 1, birth: 2 };
        let server = started(Role::Server, Ending::Quit, 3);
        let passing = started(Role::Passing, Ending::Wait, 4);
        let text: String = [
            Line::Folder(Path::new("/tmp/a folder")),
            Line::Owner(&owner),
            Line::Process(&passing),
            Line::Guard(Path::new("/etc/guard")),
            Line::Process(&server),
            Line::Service(Service::Mysql),
            Line::Variable("A_URL", "mysql://a:b@c/d e"),
        ]
        .iter()
        .map(Line::text)
        .collect();
        let mut expected = State {
            folder: Some(PathBuf::from("/tmp/a folder")),
            owner: Some(owner),
            processes: vec![passing, server],
            services: vec![Service::Mysql],
            variables: vec![("A_URL".to_owned(), "mysql://a:b@c/d e".to_owned())],
            guards: vec![PathBuf::from("/etc/guard")],
        };
        assert_eq!(State::of(&text).as_ref(), Some(&expected));
        expected.owner = None;
        assert_eq!(State::of(&(text + &Line::Kept.text())), Some(expected));
    }

    #[test]
    fn half_a_last_line_is_passed_over_and_a_strange_line_is_not() {
        assert_eq!(State::of("kept\nserver kill 1"), Some(State::default()));
        assert_eq!(State::of("server kill 1\n"), None);
        assert_eq!(State::of("server shoot 1 2\n"), None);
        assert_eq!(State::of("kept\nhello\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn servers_are_up_when_they_were_to_stay_and_all_of_them_live() {
        if !crate::services::process::sees_itself() {
            return;
        }
        let own = Process::of_pid(std::process::id()).unwrap();
        let mut live = started(Role::Server, Ending::Kill, 0);
        live.process = own.clone();
        let passed = started(Role::Passing, Ending::Kill, own.pid);
        let mut state = State { processes: vec![live, passed], ..State::default() };
        assert!(state.is_up() && state.is_ownerless());
        state.owner = Some(own.clone());
        assert!(!state.is_up() && !state.is_ownerless());
        state.owner = Some(Process { birth: 7, ..own.clone() });
        assert!(!state.is_up() && state.is_ownerless());
        state.owner = None;
        state.processes.push(started(Role::Server, Ending::Kill, own.pid));
        assert!(!state.is_up(), "one of another birth has died");
    }

    #[test]
    fn stopping_removes_the_folder_and_the_file() {
        let scratch = std::env::temp_dir().join(format!("larder-state-{}", std::process::id()));
        let (folder, path) = (scratch.join("folder"), scratch.join("state"));
        fs::create_dir_all(folder.join("inner")).unwrap();
        let state = State { folder: Some(folder), ..State::default() };
        fs::write(&path, "").unwrap();
        state.stop(&path).unwrap();
        // Fails if anything is left in it.
        fs::remove_dir(&scratch).unwrap();
    }

    #[test]
    fn a_shell_takes_values_as_they_are() {
        let variables = [("A".to_owned(), "a b$c".to_owned()), ("B".to_owned(), "it's".to_owned())];
        assert_eq!(exports(&variables), "export A='a b$c'\nexport B='it'\\''s'\n");
    }
}
