//! What proxies are started with: ours, those that it is measured beside, and whatever else a command starts. Each with
//! one worker and its storage in memory or in the folder that it is given, so that they can be compared.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `larder serve`, as this program, with these arguments more.
    Larder(PathBuf, Vec<String>),
    Nginx,
    Varnish,
    /// A command of a shell, with places for `{port}`, `{origin}` (a URL), `{store}` (a file) and `{scratch}` (a folder).
    Command(String),
}

/// Where a proxy is to be.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// A folder for whatever it writes.
    pub(crate) scratch: &'a Path,
    pub(crate) port: u16,
    pub(crate) origin_port: u16,
    /// The core that it is bound to.
    pub(crate) core: Option<usize>,
    /// Whether what it stores has to outlive it.
    pub(crate) keeps: bool,
    /// Whether it sends one request for many that ask the same, where that is an option.
    pub(crate) collapses: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn new(scratch: &'a Path, port: u16, origin_port: u16) -> Self {
        Self { scratch, port, origin_port, core: None, keeps: false, collapses: false }
    }

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.origin_port)
    }

    fn store(&self) -> PathBuf {
        self.scratch.join("store.sqlite")
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Larder(..) => "larder",
            Self::Nginx => "nginx",
            Self::Varnish => "varnish",
            Self::Command(_) => "command",
        })
    }
}

impl Kind {
    /// The package of Debian that has it, if it is one of those.
    pub(crate) fn package(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nginx => Some(("nginx", "nginx-light")),
            Self::Varnish => Some(("varnishd", "varnish")),
            Self::Larder(..) | Self::Command(_) => None,
        }
    }

    /// The command that starts it there, in the foreground.
    ///
    /// # Errors
    /// What it has to read cannot be written.
    pub(crate) fn command(&self, place: &Place<'_>) -> io::Result<Command> {
        let mut words: Vec<String> = Vec::new();
        if let Some(core) = place.core {
            words.extend(["taskset", "-c", &core.to_string()].map(str::to_owned));
        }
        match self {
            Self::Larder(program, more) => {
                let store = place.store().display().to_string();
                let store = if place.keeps { format!("sqlite:{store}") } else { "memory:".to_owned() };
                words.push(program.display().to_string());
                let listen = format!("127.0.0.1:{}", place.port);
                let options = ["serve", "--origin", &place.origin(), "--listen", &listen, "--store", &store];
                words.extend(options.map(str::to_owned));
                words.extend(more.iter().cloned());
            }
            Self::Nginx => {
                let file = place.scratch.join("nginx.conf");
                fs::write(&file, nginx(place))?;
                let (file, folder) = (file.display().to_string(), place.scratch.display().to_string());
                words.extend(["nginx", "-e", "stderr", "-p", &folder, "-c", &file].map(str::to_owned));
            }
            Self::Varnish => {
                let (listen, origin) =
                    (format!("127.0.0.1:{}", place.port), format!("127.0.0.1:{}", place.origin_port));
                let folder = place.scratch.join("varnish").display().to_string();
                let fixed = ["varnishd", "-F", "-j", "none", "-n", &folder, "-a", &listen, "-b", &origin];
                words.extend(fixed.map(str::to_owned));
                words.extend(["-s", "malloc,2g"].map(str::to_owned));
                // Nothing that the origin did not say, and what can be validated is kept for it, as the suite's authors
                // set it; a thread for each connection, and all of them before the first one comes.
                for setting in [
                    "default_ttl=0",
                    "default_grace=0",
                    "default_keep=3600",
                    "thread_pools=1",
                    "thread_pool_min=300",
                    "thread_pool_max=1000",
                ] {
                    words.extend(["-p", setting].map(str::to_owned));
                }
            }
            Self::Command(line) => {
                let line = line
                    .replace("{port}", &place.port.to_string())
                    .replace("{origin}", &place.origin())
                    .replace("{store}", &place.store().display().to_string())
                    .replace("{scratch}", &place.scratch.display().to_string());
                // The shell becomes the command, so that who ends the one ends the other.
                words.extend(["sh".to_owned(), "-c".to_owned(), format!("exec {line}")]);
            }
        }
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        if matches!(self, Self::Nginx | Self::Varnish) {
            // Where Debian has daemons, which a user's path may lack.
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{path}:/usr/sbin"));
        }
        Ok(command)
    }
}

/// nginx as its documentation shows a cache. `sendfile` with `tcp_nopush` stalls on the loopback: without them, and with
/// buffers that take a whole body of 100 KiB, it is at its best there.
fn nginx(place: &Place<'_>) -> String {
    let folder = place.scratch.display();
    let user = if is_root() { "user root;\n" } else { "" };
    let temporary: String = ["client_body", "fastcgi", "uwsgi", "scgi", "proxy"]
        .map(|name| format!("  {name}_temp_path {folder}/nginx-{name};\n"))
        .concat();
    let lock = if place.collapses { "proxy_cache_lock on;" } else { "" };
    format!(
        "daemon off;
worker_processes 1;
{user}pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
{temporary}  proxy_cache_path {folder}/nginx-cache levels=1:2 keys_zone=larder:8m max_size=4g inactive=600m;
  sendfile off;
  output_buffers 2 128k;
  keepalive_requests 1000000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {origin};
      proxy_http_version 1.1;
      proxy_cache larder;
      proxy_cache_revalidate on;
      {lock}
    }}
  }}
}}
",
        port = place.port,
        origin = place.origin(),
    )
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The program `larder`, built if it is not given.
///
/// # Errors
/// It cannot be built.
pub(crate) fn larder(root: &Path, given: Option<&str>, is_release: bool) -> io::Result<PathBuf> {
    if let Some(path) = given {
        return Ok(PathBuf::from(path));
    }
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    crate::forget_cargo(&mut command);
    // Of the whole workspace in a debug build, so that nothing is built anew with other features.
    let args: &[&str] = if is_release {
        &["build", "--quiet", "--release", "--package", "larder-cli"]
    } else {
        &["build", "--quiet", "--workspace", "--all-features", "--bin", "larder"]
    };
    if !command.args(args).current_dir(root).status()?.success() {
        return Err(io::Error::other("building larder failed"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(if is_release { "release/larder" } else { "debug/larder" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: &Kind, place: &Place<'_>) -> String {
        let command = kind.command(place).unwrap();
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let program = command.get_program().to_string_lossy().into_owned();
        [program].into_iter().chain(args).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_proxy_is_told_its_port_and_its_origin() {
        let mut place = Place::new(Path::new("/tmp/x"), 1234, 5678);
        let larder = Kind::Larder(PathBuf::from("larder"), vec!["--http2".to_owned()]);
        let memory =
            "larder serve --origin http://127.0.0.1:5678 --listen 127.0.0.1:1234 --store memory: --http2";
        assert_eq!(words(&larder, &place), memory);
        (place.core, place.keeps) = (Some(0), true);
        assert!(words(&larder, &place).starts_with("taskset -c 0 larder serve "));
        assert!(words(&larder, &place).contains("--store sqlite:/tmp/x/store.sqlite"));
        let command = Kind::Command("p -l {port} -o {origin} -s {store}".to_owned());
        let line = "taskset -c 0 sh -c exec p -l 1234 -o http://127.0.0.1:5678 -s /tmp/x/store.sqlite";
        assert_eq!(words(&command, &place), line);
        assert!(nginx(&place).contains("listen 127.0.0.1:1234;"));
    }
}
