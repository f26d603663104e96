//! The programs of the servers: where they are, and how they come to a Debian that has none of them. Starts no
//! server, and sees to it that no package does.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Service;
use super::batch::{self, Batch, Launch, said};
use super::process::Ending;
use super::state::{Line, Role};

/// Begins what we write into the system, so that it is known for ours.
const MARK: &str = "# written by `cargo xtask services` while it installs packages; safe to remove\n";
/// What keeps packages from starting services, and PostgreSQL's from making a database; removed afterwards. A file,
/// the package that it is for unless it is for all, and what stands before and after the mark.
const GUARDS: [(&str, Option<&str>, &str, &str); 2] = [
    ("/usr/sbin/policy-rc.d", None, "#!/bin/sh\n", "exit 101\n"),
    (
        "/etc/postgresql-common/createcluster.d/larder.conf",
        Some("postgresql"),
        "",
        "create_main_cluster = false\n",
    ),
];
/// Packages that have a service of their own name start when the machine does: that is taken back.
const WITH_SERVICE: [&str; 3] = ["memcached", "postgresql", "redis-server"];
/// Locked by who installs, so that nobody removes another's guards.
const LOCK: &str = "/var/lib/dpkg";
const PATIENCE: Duration = Duration::from_secs(600);

/// Each program that a service needs, and the package of Debian that has it. MariaDB comes without the package
/// `mariadb-server`, which would bring a service, and with nothing that asks questions.
fn programs(service: Service) -> &'static [(&'static str, &'static str)] {
    match service {
        Service::Redis | Service::Cluster | Service::Sentinel => {
            &[("redis-server", "redis-server"), ("redis-cli", "redis-tools")]
        }
        Service::Memcached => &[("memcached", "memcached")],
        Service::Postgres => {
            &[("initdb", "postgresql"), ("postgres", "postgresql"), ("pg_isready", "postgresql")]
        }
        Service::Mysql => &[
            ("mariadbd", "mariadb-server-core"),
            ("mariadb-install-db", "mariadb-server-core"),
            ("mariadb", "mariadb-client-core"),
        ],
        Service::Dynamodb => &[("node", "nodejs"), ("npm", "npm")],
    }
}

/// The packages whose programs are missing.
pub(crate) fn missing(services: &[Service], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let needed = services.iter().flat_map(|service| programs(*service));
    let mut packages: Vec<_> =
        needed.filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs the packages whose programs are missing, if there are any and we may.
///
/// # Errors
/// They cannot be installed: how a person could.
pub(crate) fn install(services: &[Service], batch: &Batch) -> io::Result<Vec<&'static str>> {
    let is_there = |name: &str| program(name).is_ok();
    if missing(services, is_there).is_empty() {
        return Ok(Vec::new());
    }
    let Some(lock) = lock()? else {
        let packages = missing(services, is_there).join(" ");
        return Err(io::Error::other(format!(
            "some programs are missing; on Debian, install them with: apt-get install --no-install-recommends {packages}"
        )));
    };
    // Whoever had the lock before us may have installed the same.
    let packages = missing(services, is_there);
    if packages.is_empty() {
        return Ok(packages);
    }
    eprintln!("installing {}", packages.join(" "));
    let guards = set_guards(&packages, batch)?;
    // If it fails, it may still be at work: then whoever stops the batch waits for it, and removes the guards.
    apt(&packages, batch)?;
    for package in packages.iter().filter(|package| WITH_SERVICE.contains(package)) {
        system("update-rc.d", &[package, "disable"], batch)?;
    }
    guards.iter().try_for_each(|guard| remove_guard(guard))?;
    drop(lock);
    Ok(packages)
}

/// Removes guards that a batch has set, as far as they are still there.
///
/// # Errors
/// One stays.
pub(crate) fn remove_guards(guards: &[PathBuf]) -> io::Result<()> {
    if guards.is_empty() {
        return Ok(());
    }
    // They may be in the use of another batch by now.
    let _lock = lock()?;
    guards.iter().try_for_each(|guard| remove_guard(guard))
}

fn remove_guard(guard: &Path) -> io::Result<()> {
    if !is_ours(guard) {
        return Ok(());
    }
    fs::remove_file(guard).map_err(|error| said(&error, &format!("removing {}", guard.display())))
}

fn is_ours(guard: &Path) -> bool {
    fs::read_to_string(guard).is_ok_and(|text| text.contains(MARK))
}

/// The right to install, when it is our turn; `None` if we never may.
fn lock() -> io::Result<Option<File>> {
    if !batch::is_root()? || program("apt-get").is_err() {
        return Ok(None);
    }
    let lock = File::open(LOCK)?;
    lock.lock()?;
    Ok(Some(lock))
}

/// Sets the guards that these packages call for, and that nobody else has set.
fn set_guards(packages: &[&str], batch: &Batch) -> io::Result<Vec<PathBuf>> {
    let mut set = Vec::new();
    for (path, package, first, last) in GUARDS {
        let path = Path::new(path);
        let is_wanted = package.is_none_or(|package| packages.contains(&package));
        if !is_wanted || path.exists() && !is_ours(path) {
            continue;
        }
        // Written down first: a guard that stays would keep every later package from starting its service.
        batch.note(&Line::Guard(path))?;
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(path, format!("{first}{MARK}{last}")))
            .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
            .map_err(|error| said(&error, &format!("writing {}", path.display())))?;
        set.push(path.to_owned());
    }
    Ok(set)
}

fn apt(packages: &[&str], batch: &Batch) -> io::Result<()> {
    const OPTIONS: [&str; 5] =
        ["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"];
    let install =
        [&OPTIONS, &["install", "-y", "--no-install-recommends", "--no-remove"][..], packages].concat();
    if system("env", &install, batch).is_ok() {
        return Ok(());
    }
    // The lists of packages are missing from a fresh image, and name what is gone in an old one.
    system("env", &[&OPTIONS, &["update"][..]].concat(), batch)?;
    system("env", &install, batch)
}

/// Runs what changes the system to its end: it is not broken off, whatever becomes of us.
fn system(binary: &str, args: &[&str], batch: &Batch) -> io::Result<()> {
    let program = program(binary)?;
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let (role, ending) = (Role::Passing, Ending::Wait);
    let launch = Launch { name: "install", program: &program, args: &args, role, ending, is_ours: true };
    batch.launch(&launch)?.finish(PATIENCE)
}

/// Where a program is: on the path, where daemons are, or where Debian has PostgreSQL's, the newest first.
///
/// # Errors
/// It is nowhere there.
pub(crate) fn program(name: &str) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/sbin"));
    folders.extend(postgres_folders());
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| io::Error::other(format!("finding the program {name} on the path failed")))
}

fn postgres_folders() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let versions = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut versions: Vec<u32> = versions.collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_installed_and_nothing_twice() {
        let all = [Service::Redis, Service::Sentinel, Service::Mysql];
        assert_eq!(missing(&all, |_| true), Vec::<&str>::new());
        let has = |name: &str| name.starts_with("redis");
        assert_eq!(missing(&all, has), ["mariadb-client-core", "mariadb-server-core"]);
        assert_eq!(missing(&all[..2], |_| false), ["redis-server", "redis-tools"]);
    }

    #[test]
    fn only_guards_of_ours_are_removed() {
        let folder = std::env::temp_dir().join(format!("larder-guards-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let guards = ["ours", "theirs", "gone"].map(|name| folder.join(name));
        fs::write(&guards[0], format!("#!/bin/sh\n{MARK}exit 101\n")).unwrap();
        fs::write(&guards[1], "#!/bin/sh\nexit 101\n").unwrap();
        guards.iter().try_for_each(|guard| remove_guard(guard)).unwrap();
        let left: Vec<bool> = guards.iter().map(|guard| guard.exists()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, [false, true, false]);
    }

    #[test]
    fn a_program_that_is_nowhere_is_named() {
        assert!(program("sh").is_ok());
        let error = program("larder-no-such-program").unwrap_err().to_string();
        assert_eq!(error, "finding the program larder-no-such-program on the path failed");
    }
}
