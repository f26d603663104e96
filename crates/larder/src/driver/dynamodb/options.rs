//! How a store in DynamoDB is opened: which table, where, as whom, with how much patience.
//!
//! Connects to nothing, and never shows a secret.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::time::seconds;

/// The longest name of a table, which may also be its ARN.
const TABLE_BYTES_MAX: usize = 1_024;

/// How a store in DynamoDB is opened.
///
/// ```
/// use larder::driver::dynamodb::DynamoDbOptions;
/// let mut options = DynamoDbOptions::new("cache");
/// options.region = Some("eu-central-1".to_owned());
/// options.response_timeout = std::time::Duration::from_millis(300);
/// assert_eq!(options.to_string(), "dynamodb://cache?region=eu-central-1");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbOptions {
    /// The table, by its name or its ARN. Its partition key is a string called `key`, and it has no sort key.
    pub table: String,
    /// The region. Default: what the environment says (`AWS_REGION`, the profile, the machine's metadata).
    pub region: Option<String>,
    /// A URL to send everything to instead of the region's own: a stand-in for tests, a VPC endpoint. Default: none.
    pub endpoint: Option<String>,
    /// Who asks. Default: whoever the environment says (variables, profile, web identity, container, machine).
    pub credentials: Option<DynamoDbCredentials>,
    /// How long making a connection may take. Default: 1 s.
    pub connect_timeout: Duration,
    /// How long to wait for an answer. Default: 1 s.
    pub response_timeout: Duration,
    /// Whether a read sees every write that was acknowledged before it. Without, reads cost half, and what was
    /// written or deleted in the last second may not show yet. Default: yes.
    pub consistent_reads: bool,
    /// Whether a missing table is created, to be paid for by the request, with `expires` as its TTL. Default: no.
    pub create_table: bool,
}

/// The keys of a user or of a role.
///
/// ```
/// use larder::driver::dynamodb::DynamoDbCredentials;
/// let credentials = DynamoDbCredentials::new("AKIA…", "secret");
/// assert!(!format!("{credentials:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DynamoDbCredentials {
    /// The public part.
    pub access_key_id: String,
    /// The secret part.
    pub secret_access_key: String,
    /// What comes with them if they are temporary.
    pub session_token: Option<String>,
}

impl DynamoDbCredentials {
    /// Keys that do not end.
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> Self {
        Self {
            access_key_id: access_key_id.into(),
            secret_access_key: secret_access_key.into(),
            session_token: None,
        }
    }
}

impl fmt::Debug for DynamoDbCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbCredentials").finish_non_exhaustive()
    }
}

impl DynamoDbOptions {
    /// The defaults, for a table.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            region: None,
            endpoint: None,
            credentials: None,
            connect_timeout: seconds(1),
            response_timeout: seconds(1),
            consistent_reads: true,
            create_table: false,
        }
    }

    /// Whether the options make sense, without connecting to anything.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, message));
        let letter =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':' | b'/');
        if self.table.is_empty() {
            return wrong("a dynamodb store needs the name of its table");
        }
        if self.table.len() > TABLE_BYTES_MAX || !self.table.bytes().all(letter) {
            return wrong(
                "a dynamodb table is named by letters, digits, \"_\", \"-\" and \".\", or by its ARN",
            );
        }
        if self.create_table && self.table.contains('/') {
            return wrong("a dynamodb table that is named by its ARN cannot be created: name it by its name");
        }
        if self.region.as_deref().is_some_and(|region| {
            region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }) {
            return wrong("a region is a name such as eu-central-1");
        }
        if let Some(endpoint) = &self.endpoint {
            let host = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(['@', '?', '#', ' '])) {
                return wrong("the endpoint of a dynamodb store is a URL such as http://localhost:8000");
            }
        }
        if let Some(credentials) = &self.credentials
            && (credentials.access_key_id.is_empty() || credentials.secret_access_key.is_empty())
        {
            return wrong("access_key_id and secret_access_key of a dynamodb store need each other");
        }
        if self.connect_timeout.is_zero() || self.response_timeout.is_zero() {
            return wrong("a timeout of a dynamodb store is zero");
        }
        Ok(())
    }
}

/// The URL, without credentials.
impl fmt::Display for DynamoDbOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dynamodb://{}", self.table)?;
        let mut sign = '?';
        for (name, value) in [("region", &self.region), ("endpoint", &self.endpoint)] {
            if let Some(value) = value {
                write!(f, "{sign}{name}={value}")?;
                sign = '&';
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DynamoDbOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDbOptions")
            .field("url", &format_args!("{self}"))
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("consistent_reads", &self.consistent_reads)
            .field("create_table", &self.create_table)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut DynamoDbOptions)| {
            let mut options = DynamoDbOptions::new("cache");
            options.check().unwrap();
            change(&mut options);
            assert_eq!(options.check().unwrap_err().kind(), ErrorKind::Config, "{options:?}");
        };
        refused(|options| options.table.clear());
        refused(|options| options.table = "a table".to_owned());
        refused(|options| options.table = "x".repeat(1_025));
        refused(|options| options.region = Some(String::new()));
        refused(|options| options.region = Some("eu central".to_owned()));
        refused(|options| options.endpoint = Some("localhost:8000".to_owned()));
        refused(|options| options.endpoint = Some("http://user:secret@host".to_owned()));
        refused(|options| options.credentials = Some(DynamoDbCredentials::new("id", "")));
        refused(|options| options.connect_timeout = Duration::ZERO);
        refused(|options| options.response_timeout = Duration::ZERO);
        refused(|options| {
            options.create_table = true;
            options.table = "arn:aws:dynamodb:eu-west-1:123456789012:table/cache".to_owned();
        });
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = DynamoDbOptions::new("cache");
        let mut credentials = DynamoDbCredentials::new("AKIAhunter", "hunter2");
        credentials.session_token = Some("hunter3".to_owned());
        options.credentials = Some(credentials);
        options.endpoint = Some("http://localhost:8000".to_owned());
        let shown = format!("{options} {options:?} {:?}", options.credentials);
        assert!(!shown.contains("hunter"), "{shown}");
        assert!(shown.contains("dynamodb://cache?endpoint=http://localhost:8000"), "{shown}");
    }
}
