//! Making a client of the options, and a table where there is none.
//!
//! Knows the client's settings, and nothing of items.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{self, Credentials, StalledStreamProtectionConfig};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableStatus,
    TimeToLiveSpecification,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, tls};

use super::failure::Place;
use super::item;
use super::link::Again;
use super::options::DynamoDbOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock as _, SystemClock, seconds};

/// How often the client sends a request in all, and what it waits for at first and at most: a deadline of two seconds
/// has room for it.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a new table may take until it can be used; DynamoDB takes some seconds.
const CREATE_MAX: Duration = seconds(60);
const CREATE_POLL: Duration = Duration::from_millis(200);

/// The client that some options mean, and where it leads. Sends nothing but what finding credentials takes.
pub(super) async fn client(options: &DynamoDbOptions) -> Result<(Client, Place)> {
    options.check()?;
    // TLS is rustls with `ring`, given by name: it does not depend on what else the process links.
    let http = Builder::new().tls_provider(tls::Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.response_timeout)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(PAUSE)
        .with_max_backoff(PAUSE_MAX);
    // An answer that has begun and does not go on.
    let stalled = StalledStreamProtectionConfig::enabled().grace_period(options.response_timeout).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .retry_config(retries)
        .stalled_stream_protection(stalled);
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(given) = &options.credentials {
        loader = loader.credentials_provider(Credentials::new(
            &given.access_key_id,
            &given.secret_access_key,
            given.session_token.clone(),
            None,
            "larder",
        ));
    }
    let config = loader.load().await;
    let Some(region) = config.region().map(ToString::to_string) else {
        return Err(Error::new(
            ErrorKind::Config,
            "a dynamodb store needs a region: set its option region, or AWS_REGION, or one in the profile",
        ));
    };
    let config = config::Builder::from(&config).retry_classifier(Again::Prompt).build();
    Ok((Client::from_conf(config), Place::new(options, &region)))
}

/// Creates the table, unless somebody else does, and waits until it can be used.
pub(super) async fn create_table(client: &Client, place: &Place) -> Result<()> {
    let malformed = |cause| Error::from_source(ErrorKind::Unsupported, "dynamodb create_table", cause);
    let key = KeySchemaElement::builder().attribute_name(item::KEY).key_type(KeyType::Hash);
    let attribute =
        AttributeDefinition::builder().attribute_name(item::KEY).attribute_type(ScalarAttributeType::S);
    let created = client
        .create_table()
        .table_name(&place.table)
        .key_schema(key.build().map_err(malformed)?)
        .attribute_definitions(attribute.build().map_err(malformed)?)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await;
    match created {
        Ok(_) => {}
        // Somebody else was faster.
        Err(SdkError::ServiceError(answer))
            if matches!(answer.err(), CreateTableError::ResourceInUseException(_)) => {}
        Err(cause) => return Err(place.failed("create_table", cause)),
    }
    wait_until_active(client, place).await?;
    let ttl = TimeToLiveSpecification::builder().attribute_name(item::EXPIRES).enabled(true);
    let ttl = ttl.build().map_err(malformed)?;
    let set = client.update_time_to_live().table_name(&place.table).time_to_live_specification(ttl);
    match set.send().await {
        Ok(_) => Ok(()),
        // A stand-in that has no TTL, or somebody else was faster. Nothing but space depends on it.
        Err(SdkError::ServiceError(answer))
            if matches!(
                answer.err().code().map(|code| code.rsplit('#').next().unwrap_or(code)),
                Some("UnknownOperationException" | "ValidationException" | "ResourceInUseException")
            ) =>
        {
            Ok(())
        }
        Err(cause) => Err(place.failed("create_table", cause)),
    }
}

async fn wait_until_active(client: &Client, place: &Place) -> Result<()> {
    let begun = SystemClock::default();
    while begun.monotonic() < CREATE_MAX {
        let described = client.describe_table().table_name(&place.table).send().await;
        let table = match described {
            Ok(answer) => answer.table,
            // Who has just asked for it may be told that it does not exist.
            Err(SdkError::ServiceError(answer)) if answer.err().is_resource_not_found_exception() => None,
            Err(cause) => return Err(place.failed("create_table", cause)),
        };
        if table.is_some_and(|table| table.table_status == Some(TableStatus::Active)) {
            return Ok(());
        }
        tokio::time::sleep(CREATE_POLL).await;
    }
    let message =
        format!("dynamodb create_table: \"{}\" is not there {} s later", place.table, CREATE_MAX.as_secs());
    Err(Error::new(ErrorKind::Timeout, message))
}
