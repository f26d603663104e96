//! How a store in a database is opened: which server, as whom, which table, with how much patience.
//!
//! Connects to nothing, and never shows a password.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::dialect::{Dialect, Settings};
use super::table::TableName;
use super::url::{Taken, take_tls};
use crate::error::{Error, ErrorKind, Result};
use crate::time::seconds;

/// Whether connections are encrypted, and what is verified; each name is also what a URL or a configuration says.
///
/// ```
/// use larder::driver::sql::SqlTls;
/// assert_eq!("verify-full".parse(), Ok(SqlTls::VerifyFull));
/// assert_eq!("PREFERRED".parse(), Ok(SqlTls::Prefer));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SqlTls {
    /// Not encrypted: `disable`.
    Disable,
    /// Encrypted if the server can, and nothing is verified: `prefer`. Whoever is between can read along.
    Prefer,
    /// Encrypted, and nothing is verified: `require`.
    Require,
    /// Encrypted, and the certificate is signed by one that is trusted, whatever name it has: `verify-ca`.
    VerifyCa,
    /// Encrypted, and the certificate is the host's: `verify-full`.
    VerifyFull,
}

impl FromStr for SqlTls {
    type Err = ();

    /// The names that PostgreSQL and MySQL have for it, whatever their case, with `-` or `_`.
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disable" | "disabled" | "false" => Self::Disable,
            "prefer" | "preferred" => Self::Prefer,
            "require" | "required" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" | "verify-identity" | "true" => Self::VerifyFull,
            _ => return Err(()),
        })
    }
}

/// How a store in a database is opened.
///
/// What is `None` is as the URL says, else the client's default.
///
/// ```
/// # #[cfg(feature = "postgres")] {
/// use larder::driver::postgres::PostgresOptions;
/// let mut options = PostgresOptions::new("postgres://cache:secret@db.internal/app?sslmode=require")?;
/// options.table = "caches.pages".to_owned();
/// options.response_timeout = std::time::Duration::from_millis(300);
/// assert_eq!(options.to_string(), "postgres://cache@db.internal:5432/app");
/// # }
/// # Ok::<(), larder::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct SqlOptions<D: Dialect> {
    /// What the URL says.
    base: Settings<D>,
    /// A name or an address.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Whether connections are encrypted; [`SqlOptions::new`] has it from the URL. Default: [`SqlTls::VerifyFull`] with
    /// `ca_file`, and [`SqlTls::Prefer`] without, unless the client's environment says otherwise.
    pub tls: Option<SqlTls>,
    /// A file of certificates in PEM, one of which signed the server's; [`SqlOptions::new`] has it from the URL.
    /// Whoever names one has the server verified. Default: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate to show to the server, in PEM; with `key_file`. Default: none.
    pub cert_file: Option<PathBuf>,
    /// A file with the key of that certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The table: `NAME` or `SCHEMA.NAME`, each `[A-Za-z_][A-Za-z0-9_]{0,51}`. Default: `larder`.
    pub table: String,
    /// Whether a missing table is created, as [`SqlDriver::schema`](super::SqlDriver::schema) says. Default: yes.
    pub create_table: bool,
    /// How often the driver looks for expired entries and removes them. Default: 60 s; `None` leaves it to
    /// [`Driver::prune`](crate::driver::Driver::prune).
    pub prune_interval: Option<Duration>,
    /// How many connections there are at most. Default: 10.
    pub max_connections: u32,
    /// How long a call waits for a connection, or for making one. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long to wait for an answer. The server is told as well, so that it gives up too; and a connection that did
    /// not answer is closed. Default: 1 s.
    pub response_timeout: Duration,
    /// How many statements each connection keeps prepared. 0 is for poolers that share the server's sessions: then one is
    /// kept at a time, and the server is not told the timeout, since its session is not the driver's alone. Such a pooler
    /// has to keep track of what is prepared (PgBouncer 1.21 and later, `max_prepared_statements`); one that does not has
    /// to pool by session, where nothing needs to be told. Default: 100.
    pub statement_cache: usize,
    dialect: PhantomData<D>,
}

impl<D: Dialect> SqlOptions<D> {
    /// The defaults, with what a URL says: `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE][?…]`, with the client's
    /// parameters behind it. `sslmode`, or `ssl-mode`, becomes `tls`; `sslrootcert`, `ssl-root-cert`, `sslca` or
    /// `ssl-ca` becomes `ca_file`. So naming a certificate means `verify-full` in a URL as well, and one that
    /// contradicts the mode is refused when the store is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it is none of these, or says one of them twice. The error never repeats the URL.
    pub fn new(url: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(
                ErrorKind::Config,
                format!("{} URL: {what}; expected {}://USER:PASSWORD@HOST:PORT/DATABASE", D::NAME, D::NAME),
            )
        };
        let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !scheme.is_some_and(|scheme| D::SCHEMES.contains(&scheme.as_str())) {
            return Err(wrong("it begins with another scheme"));
        }
        let Taken { url, tls, ca_file } = take_tls(url).map_err(wrong)?;
        // What the client says about it may repeat the password.
        let base = D::parse(&url).map_err(|_| {
            wrong("it cannot be read (in a password, write @, /, ? and # as %40, %2F, %3F and %23)")
        })?;
        Ok(Self { tls, ca_file, ..Self::of(base) })
    }

    /// The defaults, for the server at a host.
    pub fn at(host: impl Into<String>, port: u16) -> Self {
        Self { host: Some(host.into()), port: Some(port), ..Self::default() }
    }

    fn of(base: Settings<D>) -> Self {
        Self {
            base,
            host: None,
            port: None,
            username: None,
            password: None,
            database: None,
            tls: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            table: "larder".to_owned(),
            create_table: true,
            prune_interval: Some(seconds(60)),
            max_connections: 10,
            connect_timeout: seconds(1),
            response_timeout: seconds(1),
            statement_cache: 100,
            dialect: PhantomData,
        }
    }

    /// All of it in the client's terms.
    pub(crate) fn settings(&self) -> Settings<D> {
        D::settings(self.base.clone(), self)
    }

    /// How connections are encrypted, if that is not as the client does by itself. Whoever names a file of certificates
    /// means them to be used, which the client's default does not.
    pub(crate) fn tls(&self, client_verifies: bool) -> Option<SqlTls> {
        self.tls.or((!client_verifies && self.ca_file.is_some()).then_some(SqlTls::VerifyFull))
    }

    /// Whether the options make sense, without connecting to anything.
    pub(crate) fn check(&self) -> Result<()> {
        TableName::new(&self.table)?;
        let wrong = |what: &str| Err(Error::new(ErrorKind::Config, format!("a {} store {what}", D::NAME)));
        if self.host.as_ref().is_some_and(String::is_empty) {
            return wrong("needs a host");
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return wrong("needs cert_file and key_file, or neither");
        }
        let files = [&self.ca_file, &self.cert_file, &self.key_file];
        if self.tls == Some(SqlTls::Disable) && files.iter().any(|file| file.is_some()) {
            return wrong("has no use for certificates without TLS");
        }
        if matches!(self.tls, Some(SqlTls::Prefer | SqlTls::Require)) && self.ca_file.is_some() {
            return wrong("that does not verify has no use for ca_file: write verify-full");
        }
        if self.prune_interval.is_some_and(|interval| interval.is_zero()) {
            return wrong("cannot have a prune interval of zero");
        }
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() {
            return wrong("cannot have a timeout of zero");
        }
        if self.max_connections == 0 {
            return wrong("needs a connection");
        }
        Ok(())
    }
}

/// The client's defaults: a server on this machine, and what its environment variables say (`PGHOST` and the like).
impl<D: Dialect> Default for SqlOptions<D> {
    fn default() -> Self {
        Self::of(D::defaults())
    }
}

/// A URL with the user, without the password and without parameters.
impl<D: Dialect> fmt::Display for SqlOptions<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", D::NAME, D::place(&self.settings()))
    }
}

impl<D: Dialect> fmt::Debug for SqlOptions<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlOptions")
            .field("url", &format_args!("{self}"))
            .field("table", &self.table)
            .field("max_connections", &self.max_connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod tests {
    use sqlx::mysql::MySqlSslMode;
    use sqlx::postgres::PgSslMode;

    use super::*;
    use crate::driver::mysql::{Mysql, MysqlOptions};
    use crate::driver::postgres::{Postgres, PostgresOptions};

    fn postgres(query: &str) -> PostgresOptions {
        PostgresOptions::new(&format!("postgres://u:hunter2@h/d{query}")).unwrap()
    }

    fn mysql(query: &str) -> MysqlOptions {
        MysqlOptions::new(&format!("mysql://u:hunter2@h/d{query}")).unwrap()
    }

    #[test]
    fn a_certificate_that_is_named_anywhere_has_the_server_verified() {
        let file = Some(PathBuf::from("/c a.pem"));
        let by_code = |mut options: PostgresOptions| {
            options.ca_file.clone_from(&file);
            options
        };
        for options in
            [postgres("?sslrootcert=/c%20a.pem"), postgres("?ssl-ca=/c%20a.pem"), by_code(postgres(""))]
        {
            assert_eq!(options.ca_file, file);
            options.check().unwrap();
            assert!(matches!(options.settings().get_ssl_mode(), PgSslMode::VerifyFull), "{options:?}");
        }
        let options = mysql("?ssl-ca=/c%20a.pem");
        assert_eq!(options.ca_file, file);
        options.check().unwrap();
        assert!(matches!(options.settings().get_ssl_mode(), MySqlSslMode::VerifyIdentity), "{options:?}");
        // A mode that verifies less is still one that verifies.
        let options = by_code(postgres("?sslmode=verify-ca"));
        options.check().unwrap();
        assert!(matches!(options.settings().get_ssl_mode(), PgSslMode::VerifyCa), "{options:?}");
    }

    #[test]
    fn a_certificate_and_a_mode_that_does_not_look_at_it_are_refused_wherever_they_are_said() {
        fn refused<D: Dialect>(options: &SqlOptions<D>) {
            let error = options.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let said = error.message();
            assert!(said.contains("write verify-full") || said.contains("without TLS"), "{said}");
        }
        for mode in ["disable", "prefer", "require"] {
            refused::<Postgres>(&postgres(&format!("?sslmode={mode}&sslrootcert=/ca.pem")));
            refused::<Mysql>(&mysql(&format!("?sslca=/ca.pem&ssl-mode={}", mode.to_uppercase())));
            let mut options = postgres(&format!("?sslmode={mode}"));
            options.ca_file = Some("/ca.pem".into());
            refused(&options);
            let mut options = postgres("?sslrootcert=/ca.pem");
            options.tls = Some(mode.parse().unwrap());
            refused(&options);
        }
    }

    #[test]
    fn a_url_keeps_its_other_parameters_and_is_never_repeated() {
        let options = postgres("?sslmode=require&user=other&sslcert=/c&dbname=e");
        assert_eq!(options.to_string(), "postgres://other@h:5432/e");
        assert!(matches!(options.settings().get_ssl_mode(), PgSslMode::Require));
        for query in
            ["sslmode=hunter3", "sslmode=require&sslmode=hunter3", "sslrootcert=hunter3%", "port=hunter3"]
        {
            let error = PostgresOptions::new(&format!("postgres://u:hunter2@h/d?{query}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{query}");
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        }
    }
}
