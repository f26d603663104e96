//! What the commands for operators have in common: asking the admin listener of a server that runs. Knows nothing of what
//! is asked.

pub(crate) mod explain;
pub(crate) mod purge;

use std::path::PathBuf;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use larder::config::Secret;
use larder::time::minutes;
use larder_http::{Body, OriginErrorKind};
use serde_json::Value;

use crate::failure::{Failure, USAGE};
use crate::output::escape;
use crate::progress::Progress;
use crate::proxy::client::{Address, Client, read};

/// How long an answer is waited for: a prefix of many responses takes its time.
const PATIENCE: Duration = minutes(10);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where operators are let in, and by what.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) address: Address,
    pub(crate) token: Secret,
    /// Certificates that are believed in place of the platform's.
    pub(crate) ca: Option<PathBuf>,
}

impl Desk {
    /// Posts a question and reads the answer.
    async fn ask(&self, what: &str, path: &str, question: &Value) -> Result<Value, Failure> {
        let asking = tokio::time::timeout(PATIENCE, self.exchange(path, question));
        let answer = Progress::new(what).watch(asking).await;
        answer.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(Failure::failed(format!("{} did not answer in {seconds} s", self.name())))
        })
    }

    async fn exchange(&self, path: &str, question: &Value) -> Result<Value, Failure> {
        let (status, text) = self.post(path, question).await?;
        let answer: Option<Value> = serde_json::from_slice(&text).ok();
        let why = answer.as_ref().and_then(|answer| answer.get("error")?.as_str()).map(escape);
        let name = self.name();
        match (status, answer.as_ref(), why) {
            (StatusCode::OK, Some(_), None) => answer.ok_or_else(|| Failure::failed("there is no answer")),
            (StatusCode::UNAUTHORIZED, ..) => Err(Failure::usage(format!(
                "{name} does not accept the token: give the server's own in --token-file or LARDER_ADMIN_TOKEN"
            ))),
            (status, _, Some(why)) if status.is_client_error() => {
                Err(Failure::Message { status: USAGE, text: format!("{name} refused: {why}") })
            }
            (_, _, Some(why)) => Err(Failure::failed(format!("{name} failed: {why}"))),
            (status, ..) => Err(Failure::failed(format!(
                "{name} answered {} and nothing that larder serve says: is this its admin address?",
                status.as_u16()
            ))),
        }
    }

    async fn post(&self, path: &str, question: &Value) -> Result<(StatusCode, Vec<u8>), Failure> {
        let name = self.name();
        let uri = format!("{}://{}{path}", self.address.scheme(), self.address.authority());
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.token.expose()))
            .map_err(|_| Failure::usage("the token cannot be one: it has control characters"))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Body::from(question.to_string()))
            .map_err(|error| Failure::failed(format!("cannot ask {name}: {error}")))?;
        let client = Client::new(self.address.clone(), None, self.ca.as_deref()).map_err(Failure::usage)?;
        let response = client.send(request).await.map_err(|error| match error.kind() {
            OriginErrorKind::Disconnected => Failure::failed(format!(
                "{}: is larder serve running there, with --admin or \"admin: …\" in its configuration?",
                escape(&error.cause().to_string())
            )),
            _ => Failure::failed(escape(&error.cause().to_string())),
        })?;
        let (parts, body) = response.into_parts();
        let text = read(body, ANSWER_BYTES_MAX).await;
        let text =
            text.map_err(|error| Failure::failed(format!("the answer of {name} broke off: {error}")))?;
        Ok((parts.status, text))
    }

    fn name(&self) -> String {
        escape(&self.address.to_string()).into_owned()
    }
}
