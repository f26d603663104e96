//! Calls of the table: one request and its answer each. Holds the client until the driver is closed.
//!
//! Knows requests, and of items what `item` says; decides nothing about several.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::InterceptorContext;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use tokio::sync::{RwLock, RwLockReadGuard};

use super::failure::Place;
use super::item::{self, Expression, Item};
use crate::driver::{Write, Written, head};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, Stamp, SystemClock, Timestamp};

/// The client twice, over the same connections.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    /// As it was configured.
    pub(super) reads: Client,
    /// With [`Again::Refused`].
    writes: Client,
}

impl Clients {
    pub(super) fn new(client: Client) -> Self {
        let once = client.config().to_builder().retry_classifier(Again::Refused).build();
        Self { reads: client, writes: Client::from_conf(once) }
    }
}

/// What the client may send again, of what it would by itself.
#[derive(Debug)]
pub(super) enum Again {
    /// What failed soon: after a timeout the caller has waited enough.
    Prompt,
    /// What the server says it did not do, such as a write that it throttled. A write that landed before its answer
    /// was lost would be refused the second time, by itself, and a counter that stands on it would count twice.
    Refused,
}

impl ClassifyRetry for Again {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let timed_out = || match context.output_or_error() {
            Some(Err(error)) => {
                error.is_timeout_error() || error.as_connector_error().is_some_and(|cause| cause.is_timeout())
            }
            _ => false,
        };
        let forbidden = match self {
            Self::Prompt => timed_out(),
            Self::Refused => context.response().is_none_or(|answer| answer.status().as_u16() >= 500),
        };
        if forbidden { RetryAction::RetryForbidden } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "what may be sent again"
    }
}

/// The table, as long as the driver is open.
#[derive(Debug)]
pub(super) struct Link {
    /// Whoever makes a call holds this, so that closing waits for it.
    clients: RwLock<Option<Clients>>,
    pub(super) place: Place,
    consistent_reads: bool,
    clock: SystemClock,
}

/// A page of a listing, and where the next one begins.
pub(super) type Page = (Vec<Item>, Option<Item>);

impl Link {
    pub(super) fn new(client: Client, place: Place, consistent_reads: bool) -> Self {
        let clients = RwLock::new(Some(Clients::new(client)));
        Self { clients, place, consistent_reads, clock: SystemClock::default() }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The client, for one call. Not to be held over a wait for anything but its answer.
    pub(super) async fn held(&self) -> Result<RwLockReadGuard<'_, Clients>> {
        RwLockReadGuard::try_map(self.clients.read().await, Option::as_ref)
            .map_err(|_| Error::new(ErrorKind::Closed, "the dynamodb store is closed"))
    }

    /// Lets go of the client, once no call uses it.
    pub(super) async fn close(&self) {
        self.clients.write().await.take();
    }

    pub(super) async fn get(&self, what: &str, key: &str) -> Result<Option<Item>> {
        let held = self.held().await?;
        let call = held.reads.get_item().table_name(&self.place.table).set_key(Some(item::primary_key(key)));
        let answer = call.consistent_read(self.consistent_reads).send().await;
        Ok(answer.map_err(|cause| self.place.failed(what, cause))?.item)
    }

    /// Some of up to 100 different keys, and those that the server left for later.
    pub(super) async fn get_some(&self, keys: KeysAndAttributes) -> Result<(Vec<Item>, KeysLeft)> {
        let held = self.held().await?;
        let call = held.reads.batch_get_item().request_items(&self.place.table, keys);
        let answer = call.send().await.map_err(|cause| self.place.failed("get", cause))?;
        let left = answer.unprocessed_keys.into_iter().flatten().map(|(_, keys)| keys).next();
        let found = answer.responses.into_iter().flatten().flat_map(|(_, items)| items).collect();
        Ok((found, left.filter(|left| !left.keys.is_empty())))
    }

    /// The keys of a batch as the server wants them.
    pub(super) fn batch<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<KeysAndAttributes> {
        let keys = keys.map(|key| HashMap::from([(item::KEY.to_owned(), item::text(key))])).collect();
        let batch = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(self.consistent_reads);
        batch.build().map_err(|cause| Error::from_source(ErrorKind::Unsupported, "dynamodb get", cause))
    }

    /// One conditional write.
    pub(super) async fn put(&self, write: &Write) -> Result<Written> {
        let now = self.now();
        let item = item::encode(write, now)?;
        let held = self.held().await?;
        let mut call = held.writes.put_item().table_name(&self.place.table).set_item(Some(item));
        call = call.return_values(ReturnValue::AllOld);
        if let Some(condition) = item::condition(write, now) {
            call = call
                .condition_expression(condition.text)
                .set_expression_attribute_names(Some(condition.names))
                .set_expression_attribute_values(Some(condition.values))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        }
        let cause = match call.send().await {
            Ok(answer) => {
                let previous = answer.attributes.and_then(|item| item::take_value(item, now));
                return Ok(Written::Stored { previous: previous.map(|value| head(&value)) });
            }
            Err(cause) => cause,
        };
        match cause.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(refusal)) => {
                let by = match &refusal.item {
                    Some(item) if !item.is_empty() => item::stamp_in(item, now),
                    // Nothing there, or a server that does not say what is there.
                    _ => {
                        drop(held);
                        self.stamp(&write.key).await?
                    }
                };
                Ok(Written::Refused { by })
            }
            _ => Err(self.place.failed("set", cause)),
        }
    }

    /// The stamp that is stored under a key.
    async fn stamp(&self, key: &str) -> Result<Option<Stamp>> {
        let held = self.held().await?;
        let wanted = Expression::of("#stamp, #expires");
        let call = held.reads.get_item().table_name(&self.place.table).set_key(Some(item::primary_key(key)));
        let call = call.projection_expression(wanted.text).set_expression_attribute_names(Some(wanted.names));
        let answer = call.consistent_read(true).send().await;
        let found = answer.map_err(|cause| self.place.failed("set", cause))?.item;
        Ok(found.and_then(|item| item::stamp_in(&item, self.now())))
    }

    /// Removes an item. `false` if there was none, or one that has expired.
    pub(super) async fn delete(&self, key: &str) -> Result<bool> {
        let (key, now) = (item::primary_key(key), self.now());
        // A condition instead of asking for what there was, which would send it over here.
        let tell = Some(ReturnValuesOnConditionCheckFailure::AllOld);
        let (gone, left) = self.remove("delete", key.clone(), item::exists(now), tell).await?;
        if left.is_some_and(|item| !item.is_empty()) {
            // By a clock that is behind this one it has not expired yet, and it is not to be found there either.
            self.delete_if("delete", key, item::expired(now)).await?;
        }
        Ok(gone)
    }

    /// Removes an item if a condition holds. `key` is its primary key.
    pub(super) async fn delete_if(&self, what: &str, key: Item, condition: Expression) -> Result<bool> {
        self.remove(what, key, condition, None).await.map(|(gone, _)| gone)
    }

    /// As [`Link::delete_if`]; with what is there if the condition does not hold, if the server is to tell.
    async fn remove(
        &self,
        what: &str,
        key: Item,
        condition: Expression,
        tell: Option<ReturnValuesOnConditionCheckFailure>,
    ) -> Result<(bool, Option<Item>)> {
        let held = self.held().await?;
        let values = Some(condition.values).filter(|values| !values.is_empty());
        let call = held.writes.delete_item().table_name(&self.place.table).set_key(Some(key));
        let call = call
            .condition_expression(condition.text)
            .set_expression_attribute_names(Some(condition.names))
            .set_expression_attribute_values(values)
            .set_return_values_on_condition_check_failure(tell);
        match call.send().await {
            Ok(_) => Ok((true, None)),
            Err(cause) => match cause.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok((false, refusal.item.clone()))
                }
                _ => Err(self.place.failed(what, cause)),
            },
        }
    }

    /// A page of all items that a filter lets through, with some of their attributes.
    pub(super) async fn page(
        &self,
        what: &str,
        wanted: &str,
        filter: Option<(&str, &HashMap<String, AttributeValue>)>,
        from: Option<Item>,
    ) -> Result<Page> {
        let held = self.held().await?;
        let filter_text = filter.map(|(text, _)| text);
        let names = Expression::of(&format!("{wanted} {}", filter_text.unwrap_or_default())).names;
        let call = held.reads.scan().table_name(&self.place.table).consistent_read(self.consistent_reads);
        let call = call
            .projection_expression(wanted)
            .set_filter_expression(filter_text.map(str::to_owned))
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(filter.map(|(_, values)| values.clone()))
            .set_exclusive_start_key(from);
        let answer = call.send().await.map_err(|cause| self.place.failed(what, cause))?;
        let next = answer.last_evaluated_key.filter(|next| !next.is_empty());
        Ok((answer.items.unwrap_or_default(), next))
    }
}

/// What a batch has left.
pub(super) type KeysLeft = Option<KeysAndAttributes>;
