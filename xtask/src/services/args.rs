//! What `cargo xtask services` is asked to do. Starts nothing.

use std::path::PathBuf;

pub(crate) const USAGE: &str = "usage: cargo xtask services up [NAME…]
       cargo xtask services down
       cargo xtask services env
       cargo xtask services run [NAME…] -- COMMAND [ARGUMENT…]

  up      start servers that stay until `down`, and print where they are; what runs already is left as it is
  down    stop them, and remove what they wrote
  env     print where they are: eval \"$(cargo xtask services env)\"
  run     start servers of its own, run a command that is told where they are, stop them; ends as the command did

names: redis cluster sentinel memcached postgres mysql dynamodb (all, if none is given)";

/// A server, or several that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Redis,
    Cluster,
    Sentinel,
    Memcached,
    Postgres,
    Mysql,
    Dynamodb,
}

impl Service {
    pub(crate) const ALL: [Self; 7] = [
        Self::Redis,
        Self::Cluster,
        Self::Sentinel,
        Self::Memcached,
        Self::Postgres,
        Self::Mysql,
        Self::Dynamodb,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Cluster => "cluster",
            Self::Sentinel => "sentinel",
            Self::Memcached => "memcached",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Dynamodb => "dynamodb",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Up(Vec<Service>),
    Down,
    Env,
    Run(Vec<Service>, Vec<String>),
    /// Of nobody but this tool itself: wait until whoever started a batch has ended, then stop the batch.
    Watch(PathBuf),
}

/// Reads the arguments after `services`.
///
/// # Errors
/// What is wrong with them, for a person.
pub(crate) fn parse(args: &[&str]) -> Result<Ask, String> {
    match args {
        ["up", names @ ..] => services(names).map(Ask::Up),
        ["down"] => Ok(Ask::Down),
        ["env"] => Ok(Ask::Env),
        ["run", rest @ ..] => {
            let mut parts = rest.splitn(2, |arg| *arg == "--");
            let names = services(parts.next().unwrap_or_default())?;
            match parts.next() {
                None | Some([]) => Err("run needs a command after --".to_owned()),
                Some(command) => Ok(Ask::Run(names, command.iter().map(|&arg| arg.to_owned()).collect())),
            }
        }
        ["watch", state] => Ok(Ask::Watch(PathBuf::from(state))),
        ["down" | "env", extra, ..] => Err(format!("takes no argument, and was given {extra:?}")),
        [unknown, ..] => Err(format!("there is no command {unknown:?}")),
        [] => Err("a command is missing".to_owned()),
    }
}

/// The services of these names, each once, in the order in which they are told about.
fn services(names: &[&str]) -> Result<Vec<Service>, String> {
    for name in names {
        if Service::of_name(name).is_none() {
            return Err(format!("there is no service {name:?}"));
        }
    }
    let is_asked = |service: &Service| names.is_empty() || names.contains(&service.name());
    Ok(Service::ALL.into_iter().filter(is_asked).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_means_all_of_them() {
        assert_eq!(parse(&["up"]), Ok(Ask::Up(Service::ALL.to_vec())));
    }

    #[test]
    fn a_name_that_is_given_twice_counts_once() {
        let asked = parse(&["up", "postgres", "redis", "postgres"]);
        assert_eq!(asked, Ok(Ask::Up(vec![Service::Redis, Service::Postgres])));
    }

    #[test]
    fn what_follows_the_dashes_is_the_command_as_it_is() {
        let asked = parse(&["run", "redis", "--", "sh", "-c", "a -- b", "--", "up"]);
        let command = ["sh", "-c", "a -- b", "--", "up"].map(str::to_owned).to_vec();
        assert_eq!(asked, Ok(Ask::Run(vec![Service::Redis], command)));
        let asked = parse(&["run", "--", "true"]);
        assert_eq!(asked, Ok(Ask::Run(Service::ALL.to_vec(), vec!["true".to_owned()])));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        assert_eq!(parse(&[]), Err("a command is missing".to_owned()));
        assert_eq!(parse(&["stop"]), Err("there is no command \"stop\"".to_owned()));
        assert_eq!(parse(&["up", "oracle"]), Err("there is no service \"oracle\"".to_owned()));
        assert_eq!(parse(&["run", "redis"]), Err("run needs a command after --".to_owned()));
        assert_eq!(parse(&["run", "redis", "--"]), Err("run needs a command after --".to_owned()));
        assert_eq!(parse(&["down", "redis"]), Err("takes no argument, and was given \"redis\"".to_owned()));
    }

    #[test]
    fn every_service_is_in_the_usage() {
        let names = USAGE.lines().last().unwrap();
        assert!(Service::ALL.iter().all(|service| names.contains(service.name())), "{names}");
    }
}
