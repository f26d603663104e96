//! A room of one's own for each test: cache folder, working directory, and a log of what really ran.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How often a test looks whether something happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// After how many looks it gives up: a minute, for machines that do much else.
const LOOKS_MAX: u32 = 12_000;

/// A folder that is cache, home and working directory.
pub(crate) struct Room {
    folder: TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call of larder that nothing in the environment of the tests can change.
    pub(crate) fn larder<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("XDG_CACHE_HOME", self.path("cache"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .args(args);
        command
    }

    pub(crate) fn call<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.larder(args).output().unwrap()
    }

    /// A call with something to read.
    pub(crate) fn call_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let mut command = self.larder(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().unwrap()
        })
    }

    /// `larder run` of a shell script that first logs that it ran.
    pub(crate) fn run(&self, flags: &[&str], script: &str) -> Output {
        self.run_command(flags, script).output().unwrap()
    }

    pub(crate) fn run_command(&self, flags: &[&str], script: &str) -> Command {
        let script = format!("echo >> '{}'\n{script}", self.path("runs").display());
        let mut args = vec!["run"];
        args.extend(flags);
        args.extend(["--", "sh", "-c", &script]);
        self.larder(args)
    }

    /// Calls larder from a shell script, as `"$0" "$@"`.
    pub(crate) fn in_shell(&self, script: &str, larder: &Command) -> Output {
        let mut shell = Command::new("sh");
        shell.env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, value) in larder.get_envs() {
            shell.env(name, value.unwrap());
        }
        shell.arg("-c").arg(script).arg(larder.get_program()).args(larder.get_args());
        shell.output().unwrap()
    }

    pub(crate) fn spawn(&self, flags: &[&str], script: &str) -> Child {
        self.run_command(flags, script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// How often a script really ran.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    /// A script that waits for [`Room::open_gate`], or until the room is gone: what a failed test leaves in the
    /// background ends, too.
    pub(crate) fn wait_at_gate(&self) -> String {
        let (gate, room) = (self.path("gate"), self.folder.path());
        format!("while [ ! -e '{}' ] && [ -d '{}' ]; do sleep 0.01; done", gate.display(), room.display())
    }

    pub(crate) fn open_gate(&self) {
        fs::write(self.path("gate"), "").unwrap();
    }

    pub(crate) fn locks(&self) -> Vec<PathBuf> {
        files_in(&self.path("cache/larder/locks"))
    }

    /// How many processes wait for a lock of this room, as the kernel says.
    #[cfg(target_os = "linux")]
    pub(crate) fn waiting(&self) -> usize {
        let inodes: Vec<u64> =
            self.locks().iter().filter_map(|path| Some(path.metadata().ok()?.ino())).collect();
        let table = fs::read_to_string("/proc/locks").unwrap();
        let waits = table.lines().filter(|line| line.contains("-> FLOCK"));
        let inode = |line: &str| line.split_whitespace().nth(6)?.rsplit(':').next()?.parse::<u64>().ok();
        waits.filter(|line| inode(line).is_some_and(|inode| inodes.contains(&inode))).count()
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until something has happened.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if happened() {
            return;
        }
        thread::sleep(LOOK_EVERY);
    }
    panic!("waited for too long until {what}");
}

pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}
