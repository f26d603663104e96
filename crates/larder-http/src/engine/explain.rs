//! What would be done with a request, and why, without doing it.

use std::time::{Duration, SystemTime};

use http::request::Parts as Request;
use larder::Result;

use super::HttpCache;
use super::parts::Together;
use super::variance::name;
use crate::header::connection;
use crate::key::target;
use crate::policy::{LifetimeSource, Mark, Reason, Verdict};
use crate::store::StoredResponse;

/// What would be done with a request, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// What its target is called in the store.
    pub target: String,
    /// What would be done, in a few words.
    pub verdict: &'static str,
    /// Why.
    pub reason: Reason,
    /// What is stored for its target.
    pub variants: Vec<VariantExplanation>,
}

/// A stored response, as it stands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VariantExplanation {
    /// Whether it is the one that is meant for the request, or one of several parts that answer it together.
    pub is_selected: bool,
    /// What it is kept under: the target, or what that shares with other targets that mean the same (`No-Vary-Search`).
    pub name: String,
    /// Its status.
    pub status: u16,
    /// How old it is.
    pub age: Duration,
    /// How long it is fresh, from when the origin generated it.
    pub lifetime: Duration,
    /// Who says so.
    pub lifetime_source: LifetimeSource,
    /// Whether it is fresh.
    pub is_fresh: bool,
    /// What was said about it since it was stored.
    pub mark: Mark,
    /// When it is deleted.
    pub delete_at: SystemTime,
    /// The request fields that it is for.
    pub vary: Vec<(String, Option<String>)>,
    /// By what it can be invalidated.
    pub tags: Vec<String>,
    /// How long its body is, in bytes.
    pub body_bytes: u64,
}

impl HttpCache {
    /// What would be done with a request now. Nothing is asked, changed or counted.
    ///
    /// # Errors
    /// The store's, and a request without an absolute URI, as [`larder::ErrorKind::InvalidKey`].
    pub async fn explain(&self, request: &Request) -> Result<Explanation> {
        let shared = &self.shared;
        let mut request = request.clone();
        connection::strip(&mut request.headers);
        let target = target(&request.uri)
            .map_err(|error| larder::Error::new(larder::ErrorKind::InvalidKey, error.to_string()))?;
        let variants = shared.look(&target).await?;
        let now = shared.now();
        let (found, selected) = variants.select(&shared.policy, &request, now);
        let verdict = shared.policy.verdict(&request, selected, now);
        let together = Together::answering(&shared.policy, &request, &variants, &verdict, now);
        let explained = variants.responses().iter().map(|response| {
            let is_selected = match &together {
                Some((together, _)) => together.has(response.id),
                None => found.is_some_and(|found| found.id == response.id),
            };
            VariantExplanation::of(&target, response, is_selected, now)
        });
        Ok(Explanation {
            verdict: match verdict {
                _ if together.is_some() => "answer from stored parts together",
                Verdict::Serve { .. } => "answer from what is stored",
                Verdict::ServeAndValidate { .. } => "answer from what is stored, and validate it meanwhile",
                Verdict::Validate { .. } => "ask the origin whether what is stored is still right",
                Verdict::Miss { .. } => "ask the origin",
                Verdict::Forward { .. } => "pass it on to the origin",
                Verdict::GatewayTimeout { .. } => "answer 504",
            },
            reason: together.as_ref().map_or(verdict.reason(), |(_, reason)| *reason),
            variants: explained.collect(),
            target: target.clone(),
        })
    }
}

impl VariantExplanation {
    fn of(target: &str, response: &StoredResponse, is_selected: bool, now: SystemTime) -> Self {
        let stored = &response.stored;
        let lifetime = stored.lifetime();
        Self {
            is_selected,
            name: name(target, stored).into_owned(),
            status: stored.status().as_u16(),
            age: stored.age(now),
            lifetime: lifetime.duration,
            lifetime_source: lifetime.source,
            is_fresh: stored.is_fresh(now),
            mark: stored.kept().mark,
            delete_at: response.delete_at,
            vary: response.value().vary,
            tags: response.tags.to_vec(),
            body_bytes: response.body.bytes(),
        }
    }
}
