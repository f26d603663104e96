//! Asking the origin whether what is stored is still right, once for all who wait (RFC 9111 section 4.3).

use std::sync::Arc;

use http::request::Parts as Request;
use http::{HeaderMap, Method, Response, StatusCode, header};

use super::fetch::{Instead, Joined};
use super::flights::{Landing, Lead, Since};
use super::variance::name;
use super::{Ask, Handled, Shared, neutral};
use crate::header::connection;
use crate::origin::OriginError;
use crate::policy::{Exchange, Failure, Freshened, Keep, Outcome, Reason, Stored, Verdict};
use crate::store::{StoredResponse, Variants};
use crate::{Body, OriginErrorKind};

/// How the origin failed those who wait.
#[derive(Debug, Clone)]
pub(super) enum Failed {
    /// There was no answer.
    Origin(OriginError),
    /// It answered with this.
    Status(StatusCode),
}

impl Failed {
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Origin(_) => Failure::Disconnected,
            Self::Status(status) => Failure::Status(*status),
        }
    }
}

/// A stored response that has to be confirmed.
#[derive(Debug, Clone)]
pub(super) struct Doubt {
    pub(super) current: Arc<StoredResponse>,
    /// The fields to ask with.
    pub(super) validation: HeaderMap,
    pub(super) reason: Reason,
}

impl Shared {
    /// Answers a request for which what is stored has to be confirmed first.
    pub(super) async fn validate(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        doubt: Doubt,
    ) -> Result<Response<Body>, OriginError> {
        let lead = match self.join(ask).await {
            Joined::Answered(response) => return Ok(*response),
            Joined::Failed(failed) => match self.despite(ask, &doubt.current, &failed).await {
                Some(response) => return Ok(response),
                None => None,
            },
            Joined::Alone => None,
            Joined::Lead(lead) => Some(lead),
        };
        if lead.is_none() {
            return self.revalidate(ask, &doubt, None).await;
        }
        let (shared, ask) = (Arc::clone(self), Arc::clone(ask));
        self.detached(async move { shared.revalidate(&ask, &doubt, lead).await }).await
    }

    /// Confirms what is stored meanwhile, unless somebody does already.
    pub(super) fn validate_meanwhile(self: &Arc<Self>, ask: &Ask, doubt: Doubt) {
        let Some(lead) = self.flights.lead(ask.name()) else { return };
        let shared = Arc::clone(self);
        let ask = Arc::new(ask.in_background());
        let mut doubt = doubt;
        doubt.validation.remove(header::CACHE_CONTROL);
        doubt.validation.remove(header::PRAGMA);
        tokio::spawn(async move {
            // Whatever comes of it is for those who ask later; a failure leaves what is stored as it is.
            let _ = shared.revalidate(&ask, &doubt, Some(lead)).await;
        });
    }

    async fn revalidate(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        doubt: &Doubt,
        lead: Option<Lead>,
    ) -> Result<Response<Body>, OriginError> {
        let since = self.since();
        let requested_at = self.now();
        let sent = ask.send(Some(&doubt.validation)).await;
        let times = Exchange { requested_at, received_at: self.now() };
        let (mut head, body) = match sent {
            Ok(response) => response.into_parts(),
            Err(error) => return self.unreachable(ask, doubt, lead, error).await,
        };
        connection::strip(&mut head.headers);
        let current = &doubt.current;
        match self.policy.after_validation(&ask.request, &current.stored, &head, times) {
            Outcome::Freshened(freshened) => {
                drop(body);
                let Freshened { stored, for_client, keep } = *freshened;
                if name(&ask.target, &stored) != name(&ask.target, &current.stored) {
                    // By what it says now, it is to be found elsewhere.
                    self.forget_soon(ask, std::slice::from_ref(current)).await;
                    return self.ask_again(ask, &doubt.validation, lead, doubt.reason).await;
                }
                let mut newer = self.renewed(current, stored);
                newer.began = since.began;
                let newer = Arc::new(newer);
                let is_for_others = keep == Keep::Updated && self.is_for_others(&ask.request, &newer.stored);
                if lead.is_some() && !is_for_others {
                    self.flights.remember_loner(&ask.flight_key(ask.name()), self.clock.monotonic());
                } else if is_for_others {
                    self.flights.forget_loner(&ask.flight_key(ask.name()));
                }
                let (shared, asked, kept) = (Arc::clone(self), Arc::clone(ask), Arc::clone(&newer));
                self.settle(async move {
                    shared.update(&asked, &kept, keep, since).await;
                    if let Some(lead) = lead {
                        lead.land(if is_for_others { Landing::Settled } else { Landing::Alone });
                    }
                })
                .await;
                self.counts.validated.add();
                let handled = Handled {
                    forward_status: Some(StatusCode::NOT_MODIFIED),
                    stored: keep == Keep::Updated,
                    ..Handled::forwarded(doubt.reason)
                };
                match self.respond(&ask.request, &newer, handled, true).await {
                    Ok(mut response) => {
                        Freshened::put_in(response.headers_mut(), &for_client);
                        Ok(response)
                    }
                    Err(_) => self.ask_again(ask, &doubt.validation, None, doubt.reason).await,
                }
            }
            Outcome::Refetch(_) => {
                drop(body);
                self.ask_again(ask, &doubt.validation, lead, doubt.reason).await
            }
            Outcome::Serve(reason) => {
                drop(body);
                if let Some(lead) = lead {
                    lead.land(Landing::Failed(Failed::Status(head.status)));
                }
                self.counts.stale_on_failure.add();
                let handled = Handled { forward_status: Some(head.status), ..Handled::forwarded(reason) };
                match self.respond(&ask.request, current, handled, false).await {
                    Ok(response) => Ok(response),
                    Err(_) => self.ask_again(ask, &doubt.validation, None, doubt.reason).await,
                }
            }
            Outcome::Replace { reason: _, is_superseded } => {
                if ask.request.method == Method::HEAD {
                    self.after_head(ask, &head, times, since).await;
                }
                let instead = is_superseded.then(|| Instead::of(vec![Arc::clone(current)]));
                let response = Response::from_parts(head, body);
                Ok(self.conclude(ask, response, times, since, lead, doubt.reason, instead).await)
            }
        }
    }

    /// The origin did not answer: what is stored, if it may be used, else 504.
    async fn unreachable(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        doubt: &Doubt,
        lead: Option<Lead>,
        error: OriginError,
    ) -> Result<Response<Body>, OriginError> {
        let failed = Failed::Origin(error);
        if let Some(lead) = lead {
            lead.land(Landing::Failed(failed.clone()));
        }
        if let Failed::Origin(error) = &failed
            && error.kind() == OriginErrorKind::Refused
        {
            return Err(error.clone());
        }
        match self.despite(ask, &doubt.current, &failed).await {
            Some(response) => Ok(response),
            None => Err(match failed {
                Failed::Origin(error) => error,
                Failed::Status(_) => {
                    OriginError::new(OriginErrorKind::Disconnected, "the stored response is gone")
                }
            }),
        }
    }

    /// What is stored, although the origin failed; 504 if it may not be used. `None` if it has to be asked again.
    async fn despite(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        current: &Arc<StoredResponse>,
        failed: &Failed,
    ) -> Option<Response<Body>> {
        match self.policy.on_failure(&ask.request, &current.stored, failed.failure(), self.now()) {
            Ok(reason) => {
                self.counts.stale_on_failure.add();
                self.respond(&ask.request, current, Handled::hit(reason), false).await.ok()
            }
            //= https://www.rfc-editor.org/rfc/rfc9111#section-5.2.2.2
            //# The must-revalidate directive ought to be used by servers if and only
            //# if failure to validate a request could cause incorrect operation
            Err(reason) if matches!(failed, Failed::Origin(_)) => {
                Some(self.generated(StatusCode::GATEWAY_TIMEOUT, reason))
            }
            Err(_) => None,
        }
    }

    /// Asks without conditions: the origin's 304 was about something else, or the stored body is gone.
    async fn ask_again(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        validation: &HeaderMap,
        lead: Option<Lead>,
        reason: Reason,
    ) -> Result<Response<Body>, OriginError> {
        let mut fields = validation.clone();
        fields.remove(header::IF_NONE_MATCH);
        fields.remove(header::IF_MODIFIED_SINCE);
        self.exchange(ask, Some(&fields), lead, reason).await
    }

    /// Brings what is stored up to date, unless it was invalidated since it was asked about.
    async fn update(&self, ask: &Ask, newer: &Arc<StoredResponse>, keep: Keep, since: Since) {
        let name = name(&ask.target, &newer.stored);
        let is_valid = || self.is_valid(since, &ask.target, &name, !newer.tags.is_empty());
        let change = |variants: &Variants| match keep {
            Keep::Updated if is_valid() => variants.updated(newer),
            Keep::Updated | Keep::AsItWas(_) => None,
            Keep::Nothing(_) => variants.without(newer.id),
        };
        self.note(self.store.change(&name, &change).await);
    }

    /// A stored response with other fields.
    fn renewed(&self, current: &StoredResponse, stored: Stored) -> StoredResponse {
        let delete_at = self.delete_at(&stored);
        StoredResponse { stored, delete_at, ..current.clone() }
    }

    /// Whether a response answers another request like this one, without being validated again.
    fn is_for_others(&self, request: &Request, stored: &Stored) -> bool {
        let selected = crate::policy::Selected::One(stored);
        matches!(
            self.policy.verdict(&neutral(request), selected, self.now()),
            Verdict::Serve { .. } | Verdict::ServeAndValidate { .. }
        )
    }
}
