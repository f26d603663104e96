//! Asking the origin for what is not stored, once for all who wait, and keeping what comes while it is passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::request::Parts as Request;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;

use super::arriving::{Arriving, Cut, declared_bytes};
use super::flights::{Landing, Lead, Role, Since, landed};
use super::tags::tags_of;
use super::validate::Failed;
use super::variance::name;
use super::{Ask, HOLD_MAX, Handled, Shared, TRIES_MAX, ids, neutral};
use crate::Body;
use crate::header::connection;
use crate::origin::{OriginError, OriginErrorKind, Redirected, StatusMessage};
use crate::policy::{Exchange, HeadEffect, Keep, NotStorable, Reason, Selected, Stored, Verdict};
use crate::store::{ResponseId, StoredResponse, Variants, WriteBody};

/// What came of joining others.
pub(super) enum Joined {
    /// Their response answers this request too.
    Answered(Box<Response<Body>>),
    /// The origin failed them.
    Failed(Failed),
    /// Nobody asks yet: this one does, for all who come.
    Lead(Lead),
    /// There is nothing to wait for.
    Alone,
}

/// What becomes of a body that is being kept.
struct Keeping {
    ask: Arc<Ask>,
    arriving: Arc<Arriving>,
    tags: Vec<String>,
    message: Option<String>,
    since: Since,
    instead: Instead,
}

/// What a response takes the place of: stored responses that are kept under one name.
#[derive(Debug, Default)]
pub(super) struct Instead {
    /// These go, whether it is kept or not.
    pub(super) superseded: Vec<Arc<StoredResponse>>,
    /// They are in it, and go only once it is kept; it is not kept once one of them is gone, or was said to be stale.
    pub(super) is_made_of_them: bool,
    /// What the origin answered, if that is another status.
    pub(super) forward_status: Option<StatusCode>,
}

impl Instead {
    /// It is what there is now.
    pub(super) fn of(superseded: Vec<Arc<StoredResponse>>) -> Self {
        Self { superseded, ..Self::default() }
    }

    fn may_be_kept(&self, variants: &Variants) -> bool {
        let is_as_it_was = |was: &Arc<StoredResponse>| {
            let now = variants.by_id(was.id);
            now.is_some_and(|now| now.stored.kept().mark == was.stored.kept().mark)
        };
        !self.is_made_of_them || self.superseded.iter().all(is_as_it_was)
    }
}

impl Shared {
    /// Answers a request for which nothing that is stored will do.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        reason: Reason,
    ) -> Result<Response<Body>, OriginError> {
        let lead = match self.join(ask).await {
            Joined::Answered(response) => return Ok(*response),
            // What was wrong with the request of another need not be with this one.
            Joined::Failed(Failed::Origin(error)) if error.kind() != OriginErrorKind::Refused => {
                return Err(error);
            }
            Joined::Alone | Joined::Failed(_) => None,
            Joined::Lead(lead) => match self.at_once(&ask.request, &ask.target).await {
                // It was kept since it was looked for: those who asked before were just done.
                Some(response) => {
                    lead.land(Landing::Settled);
                    return Ok(response);
                }
                None => Some(lead),
            },
        };
        if lead.is_none() {
            return self.ask_origin(ask, None, reason).await;
        }
        let (shared, ask) = (Arc::clone(self), Arc::clone(ask));
        self.detached(async move { shared.ask_origin(&ask, lead, reason).await }).await
    }

    /// Joins those who want the same, if somebody asks already.
    pub(super) async fn join(self: &Arc<Self>, ask: &Arc<Ask>) -> Joined {
        if !ask.is_shareable {
            return Joined::Alone;
        }
        let mut key = ask.flight_key(ask.name());
        for _ in 0..TRIES_MAX {
            let flight = match self.flights.join(&key, self.clock.monotonic()) {
                Role::Alone => return Joined::Alone,
                Role::Lead(lead) => return Joined::Lead(lead),
                Role::Wait(flight) => flight,
            };
            let answer = match landed(flight).await {
                Landing::Pending | Landing::Again => continue,
                Landing::Alone => None,
                Landing::Failed(failed) => return Joined::Failed(failed),
                Landing::Settled => self.look_again(ask).await,
                // It turned out that they are not equivalent. Others may ask for the very same.
                Landing::Arriving(arriving) if name(&ask.target, &arriving.stored) != arriving.name => {
                    key = ask.flight_key(&ask.target);
                    continue;
                }
                Landing::Arriving(arriving) => match self.joined(ask, &arriving) {
                    None if arriving.is_superseded(self, &ask.target) => continue,
                    answer => answer,
                },
            };
            return answer.map_or(Joined::Alone, |response| Joined::Answered(Box::new(response)));
        }
        Joined::Alone
    }

    /// Asks the origin, and keeps what may be kept.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        fields: Option<&HeaderMap>,
        lead: Option<Lead>,
        reason: Reason,
    ) -> Result<Response<Body>, OriginError> {
        let since = self.since();
        let (times, head, body, lead) = self.send(ask, fields, lead).await?;
        if ask.request.method == Method::HEAD {
            self.after_head(ask, &head, times, since).await;
        }
        let response = Response::from_parts(head, body);
        Ok(self.conclude(ask, response, times, since, lead, reason, None).await)
    }

    /// Sends a request, and takes out of what comes what is of the origin's connection. Those who wait are told if nothing
    /// does.
    pub(super) async fn send(
        &self,
        ask: &Ask,
        fields: Option<&HeaderMap>,
        lead: Option<Lead>,
    ) -> Result<(Exchange, http::response::Parts, Body, Option<Lead>), OriginError> {
        let requested_at = self.now();
        let response = match ask.send(fields).await {
            Ok(response) => response,
            Err(error) => {
                self.counts.failed.add();
                if let Some(lead) = lead {
                    lead.land(Landing::Failed(Failed::Origin(error.clone())));
                }
                return Err(error);
            }
        };
        let times = Exchange { requested_at, received_at: self.now() };
        let (mut head, body) = response.into_parts();
        connection::strip(&mut head.headers);
        Ok((times, head, body, lead))
    }

    /// Passes a response on, and keeps it meanwhile if it may be kept.
    #[expect(clippy::too_many_arguments, reason = "it is all that is known of an exchange")]
    pub(super) async fn conclude(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        response: Response<Body>,
        times: Exchange,
        since: Since,
        lead: Option<Lead>,
        reason: Reason,
        instead: Option<Instead>,
    ) -> Response<Body> {
        let (head, body) = response.into_parts();
        self.counts.forwarded.add();
        let instead = instead.unwrap_or_default();
        let mut handled = Handled { forward_status: instead.forward_status, ..Handled::forwarded(reason) };
        let stored = if ask.has_content {
            Err(NotStorable::RequestContent)
        } else if head.extensions.get::<Redirected>().is_some() {
            Err(NotStorable::OtherTarget)
        } else {
            self.policy.store(&ask.request, &head, times)
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(why) => {
                handled.not_stored = Some(why);
                // What may not be kept now may not with what is stored of it, either.
                if !instead.is_made_of_them || !why.is_of_request() {
                    self.forget_soon(ask, &instead.superseded).await;
                }
                self.land_alone(ask, lead, head.status);
                return self.finish(Response::from_parts(head, body), handled);
            }
        };
        let name = name(&ask.target, &stored).into_owned();
        if self.is_of_unknown(ask, &name, &stored, since) {
            // Those who wait ask again, and find out.
            drop(lead);
            self.forget_superseded(ask, &instead).await;
            return self.finish(Response::from_parts(head, body), handled);
        }
        let Some((writer, tags)) = self.writer(ask, &name, &stored).await else {
            self.forget_superseded(ask, &instead).await;
            self.land_alone(ask, lead, head.status);
            return self.finish(Response::from_parts(head, body), handled);
        };
        handled.stored = true;
        let message = head.extensions.get::<StatusMessage>().map(|message| message.0.as_ref().to_owned());
        let has_tags = !tags.is_empty();
        let arriving = Arc::new(Arriving::new(stored, &head, name, since, has_tags, writer.reader()));
        // Before anybody else, so that nothing of it is let go of.
        let own = arriving.read().unwrap_or_default();
        if self.is_joinable(ask, &arriving) {
            self.flights.forget_loner(&ask.flight_key(ask.name()));
        } else if lead.is_some() {
            self.flights.remember_loner(&ask.flight_key(ask.name()), self.clock.monotonic());
        }
        let lead = lead.map(|lead| lead.arrive(Arc::clone(&arriving)));
        let keeping = Keeping { ask: Arc::clone(ask), arriving, tags, message, since, instead };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            shared.keep(keeping, body, writer).await;
            drop(lead);
        });
        self.finish(Response::from_parts(head, own), handled)
    }

    /// What is superseded goes, also if what supersedes it is not kept; but not what that is made of.
    async fn forget_superseded(self: &Arc<Self>, ask: &Ask, instead: &Instead) {
        if !instead.is_made_of_them {
            self.forget_soon(ask, &instead.superseded).await;
        }
    }

    /// Remembers what a response says about its query. True if something was invalidated since it was asked for, and before
    /// that was known: it may have been equivalent to this.
    fn is_of_unknown(&self, ask: &Ask, name: &str, stored: &Stored, since: Since) -> bool {
        let Some(search) = stored.no_vary_search().filter(|_| name != ask.target) else { return false };
        let asked_at = stored.kept().times.requested_at;
        since.nth < self.variances.learn(&ask.target, search, asked_at, &self.flights)
    }

    /// Tells those who wait that the response is not for them. It is remembered, so that nobody waits in vain again; but
    /// not of an origin in trouble, whose next response may be for all.
    fn land_alone(&self, ask: &Ask, lead: Option<Lead>, status: StatusCode) {
        let Some(lead) = lead else { return };
        if !status.is_server_error() {
            self.flights.remember_loner(&ask.flight_key(ask.name()), self.clock.monotonic());
        }
        lead.land(Landing::Alone);
    }

    /// Where the body goes; `None` if it is not kept.
    async fn writer(
        &self,
        ask: &Ask,
        name: &str,
        stored: &Stored,
    ) -> Option<(Box<dyn WriteBody>, Vec<String>)> {
        if self.store.is_full() || self.delete_at(stored) <= self.now() {
            return None;
        }
        let Ok(tags) = tags_of(&ask.request.uri, stored) else {
            self.counts.too_many_tags.add();
            return None;
        };
        match self.store.create(name, stored).await {
            Ok(writer) => Some((writer?, tags)),
            Err(error) => {
                self.note::<()>(Err(error));
                None
            }
        }
    }

    /// Whether others may have what is arriving.
    fn is_joinable(&self, ask: &Ask, arriving: &Arriving) -> bool {
        let selected = Selected::One(&arriving.stored);
        matches!(self.policy.verdict(&neutral(&ask.request), selected, self.now()), Verdict::Serve { .. })
    }

    /// The response of another request that is still arriving, if it answers this one too.
    pub(super) fn joined(self: &Arc<Self>, ask: &Ask, arriving: &Arc<Arriving>) -> Option<Response<Body>> {
        let now = self.now();
        let selected = self.policy.select(&ask.request, [&arriving.stored]);
        let Verdict::Serve { .. } = self.policy.verdict(&ask.request, selected, now) else { return None };
        if arriving.is_superseded(self, &ask.target) {
            return None;
        }
        let answer = arriving.stored.answer(&ask.request)?;
        let outgoing = arriving.stored.respond(&answer, false, now);
        let body = match answer {
            crate::policy::Answer::Whole if ask.request.method != Method::HEAD => arriving.read()?,
            crate::policy::Answer::Whole | crate::policy::Answer::NotModified => Body::empty(),
            _ => return None,
        };
        let mut response = Response::new(body);
        *response.status_mut() = outgoing.status;
        *response.headers_mut() = outgoing.headers;
        self.counts.collapsed.add();
        let handled = Handled { collapsed: true, ..Handled::forwarded(Reason::NothingStored) };
        Some(self.finish(response, handled))
    }

    /// Reads a body to its end, for all who read it too, and for the store.
    async fn keep(&self, keeping: Keeping, mut body: Body, writer: Box<dyn WriteBody>) {
        let arriving = Arc::clone(&keeping.arriving);
        let declared = declared_bytes(&arriving.headers);
        let mut writer = Some(writer);
        let mut received = 0_u64;
        let mut trailers = None;
        let mut held = None;
        let last = loop {
            let mut next =
                std::pin::pin!(std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)));
            let frame = match held.take() {
                None => next.await,
                Some(piece) => match tokio::time::timeout(HOLD_MAX, &mut next).await {
                    Ok(frame) => {
                        held = Some(piece);
                        frame
                    }
                    // All of it is here, and its end is not: the client need not wait for that.
                    Err(_) => {
                        if !self.take(&arriving, &mut writer, piece).await {
                            return arriving.end(Err(Cut::new("nobody reads it and nothing keeps it")), None);
                        }
                        next.await
                    }
                },
            };
            let frame = match frame {
                None => break held,
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.counts.cut.add();
                    return arriving.end(Err(Cut::new(error)), None);
                }
            };
            match frame.into_data() {
                Ok(piece) => {
                    received += piece.len() as u64;
                    if held.is_some() {
                        // It is longer than it says.
                        break None;
                    }
                    // The last piece is shown once the store has the whole.
                    if writer.is_some() && body.is_end_stream() {
                        break Some(piece);
                    }
                    if writer.is_some() && declared == Some(received) {
                        held = Some(piece);
                        continue;
                    }
                    if !self.take(&arriving, &mut writer, piece).await {
                        return arriving.end(Err(Cut::new("nobody reads it and nothing keeps it")), None);
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        };
        if let Some(declared) = declared.filter(|declared| *declared != received) {
            self.counts.cut.add();
            let cut = Cut::new(format!("{received} of {declared} bytes came"));
            return arriving.end(Err(cut), None);
        }
        self.end(keeping, writer, last, trailers).await;
    }

    /// Hands a piece on, and writes it. False if nobody wants more.
    async fn take(&self, arriving: &Arriving, writer: &mut Option<Box<dyn WriteBody>>, piece: Bytes) -> bool {
        let readable = writer.as_ref().map(|writer| writer.readable_bytes());
        arriving.push(piece.clone(), readable);
        if let Some(open) = writer
            && let Err(error) = open.write(piece).await
        {
            self.note::<()>(Err(error));
            *writer = None;
        }
        arriving.stored_until(writer.as_ref().map(|writer| writer.readable_bytes()));
        arriving.has_room().await
    }

    /// Keeps the whole of it, then lets the readers see its end.
    async fn end(
        &self,
        keeping: Keeping,
        writer: Option<Box<dyn WriteBody>>,
        last: Option<Bytes>,
        trailers: Option<HeaderMap>,
    ) {
        let arriving = Arc::clone(&keeping.arriving);
        let show_end = |trailers| {
            arriving.end_with(last.clone(), Ok(trailers), None);
        };
        let Some(mut writer) = writer else { return show_end(trailers) };
        let of_all = trailers.clone();
        let keep = async {
            if let Some(last) = last.clone() {
                writer.write(last).await?;
            }
            let body = writer.finish().await?;
            self.commit(&keeping, body, of_all).await
        };
        let mut keep = std::pin::pin!(keep);
        if let Ok(kept) = tokio::time::timeout(HOLD_MAX, &mut keep).await {
            self.note(kept);
            return show_end(trailers);
        }
        show_end(trailers);
        self.note(keep.await);
    }

    async fn commit(
        &self,
        keeping: &Keeping,
        body: crate::store::StoredBody,
        trailers: Option<HeaderMap>,
    ) -> larder::Result<()> {
        let stored = keeping.arriving.stored.clone();
        let delete_at = self.delete_at(&stored);
        let mut response = StoredResponse::new(ResponseId::random(), stored, delete_at, body);
        response.tags = keeping.tags.clone().into();
        response.began = keeping.since.began;
        response.trailers = trailers;
        response.message.clone_from(&keeping.message);
        let response = Arc::new(response);
        let (target, name) = (&keeping.ask.target, &keeping.arriving.name);
        let now = self.now();
        let is_valid = || self.is_valid(keeping.since, target, name, !keeping.tags.is_empty());
        let is_kept = AtomicBool::new(false);
        // What cannot be looked for yet need not be there yet.
        self.note_variance(target, &response.stored).await;
        self.store
            .change(name, &|variants: &Variants| {
                is_kept.store(false, Ordering::Relaxed);
                // What was invalidated since it was asked for may be what this is.
                if !is_valid() || is_late(&response, variants) || !keeping.instead.may_be_kept(variants) {
                    return None;
                }
                is_kept.store(true, Ordering::Relaxed);
                let left = variants.without_all(&ids(&keeping.instead.superseded));
                Some(left.as_ref().unwrap_or(variants).with(&self.policy, Arc::clone(&response), now))
            })
            .await?;
        if !is_valid() {
            // It was invalidated just then, and the store may have looked before and changed after.
            self.forget(name, &[response.id]).await;
        } else if is_kept.into_inner() {
            self.counts.stored.add();
            let superseded = &keeping.instead.superseded;
            let elsewhere = superseded.first().map(|one| self::name(target, &one.stored));
            if let Some(elsewhere) = elsewhere.filter(|elsewhere| elsewhere != name) {
                self.forget(&elsewhere, &ids(superseded)).await;
            }
        }
        Ok(())
    }

    /// What an answer to HEAD says about the responses that are stored for GET (RFC 9111 section 4.3.5).
    pub(super) async fn after_head(
        self: &Arc<Self>,
        ask: &Arc<Ask>,
        head: &http::response::Parts,
        times: Exchange,
        since: Since,
    ) {
        let (shared, ask, head) = (Arc::clone(self), Arc::clone(ask), head.clone());
        self.settle(async move { shared.update_by_head(&ask, &head, times, since).await }).await;
    }

    async fn update_by_head(&self, ask: &Ask, head: &http::response::Parts, times: Exchange, since: Since) {
        let update = |response: &Arc<StoredResponse>| -> Option<Option<Arc<StoredResponse>>> {
            let with = |stored: Stored| {
                let delete_at = self.delete_at(&stored);
                Some(Arc::new(StoredResponse { stored, delete_at, ..StoredResponse::clone(response) }))
            };
            match self.policy.head(&ask.request, &response.stored, head, times) {
                HeadEffect::None => None,
                HeadEffect::Stale(stale) => Some(with(*stale)),
                HeadEffect::Updated(freshened) => match freshened.keep {
                    Keep::Updated => Some(with(freshened.stored)),
                    Keep::AsItWas(_) => None,
                    Keep::Nothing(_) => Some(None),
                },
            }
        };
        let change = |name: &str, variants: &Variants| {
            let effects: Vec<_> =
                variants.responses().iter().map(|response| (response, update(response))).collect();
            let is_touched = effects.iter().any(|(_, effect)| effect.is_some());
            let has_tags = variants.responses().iter().any(|response| !response.tags.is_empty());
            if !is_touched || !self.is_valid(since, &ask.target, name, has_tags) {
                return None;
            }
            let left = effects.into_iter().filter_map(|(response, effect)| match effect {
                None => Some(Arc::clone(response)),
                // By what it says now, it may be to be found elsewhere.
                Some(newer) => newer.filter(|newer| self::name(&ask.target, &newer.stored) == name),
            });
            Some(Variants::new(left))
        };
        let places = self.places(&ask.target).await;
        for name in places.iter().map(|place| &place.name).chain([&ask.target]) {
            self.note(self.store.change(name, &|variants: &Variants| change(name, variants)).await);
        }
    }
}

/// Whether a response that was asked for later is stored already in the place of this one.
fn is_late(response: &StoredResponse, variants: &Variants) -> bool {
    let own = response.stored.kept();
    variants.responses().iter().any(|other| {
        let other = other.stored.kept();
        let is_same = other.selecting == own.selecting && other.range == own.range;
        is_same && other.times.requested_at > own.times.requested_at
    })
}

/// Whether a request may be answered together with others at all.
pub(super) fn is_shareable(request: &Request) -> bool {
    request.method == Method::GET && !crate::header::RequestDirectives::parse(&request.headers).no_store
}
