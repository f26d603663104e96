//! What the DynamoDB driver adds to the bare client, as a ratio, both in one run.
//!
//! `LARDER_TEST_DYNAMODB_ENDPOINT=http://localhost:8000 cargo bench -p larder --bench dynamodb` prints one line for each
//! call and number of tasks: microseconds a call, and how many times that is what the client takes for the same
//! requests with the same settings. Most of the time is the server's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing test or benchmark ends in a panic"
)]

mod beside;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::FutureExt as _;
use larder::driver::dynamodb::client::Client;
use larder::driver::dynamodb::client::primitives::Blob;
use larder::driver::dynamodb::client::types::{AttributeValue, KeysAndAttributes, ReturnValue};
use larder::driver::dynamodb::{DynamoDbCredentials, DynamoDbDriver, DynamoDbOptions};

use beside::{Call, Plan, VALUE_BYTES, call, hundred, stamp, value};

const TABLE: &str = "larder-bench";
const PLAN: Plan = Plan { keys: 200, rounds: 9, calls: 400, tasks: &[1, 16] };

fn main() {
    let Ok(endpoint) = std::env::var("LARDER_TEST_DYNAMODB_ENDPOINT") else {
        println!("LARDER_TEST_DYNAMODB_ENDPOINT is not set: nothing to measure");
        return;
    };
    beside::block_on(run(endpoint));
}

async fn run(endpoint: String) {
    let mut options = DynamoDbOptions::new(TABLE);
    options.region = Some("eu-west-1".to_owned());
    options.endpoint = Some(endpoint);
    options.credentials = Some(DynamoDbCredentials::new("bench", "bench"));
    options.create_table = true;
    let driver = Arc::new(DynamoDbDriver::connect(options).await.unwrap());
    let bare = driver.client().await.unwrap();
    beside::compare(driver, &PLAN, async |keys| bare_calls(&bare, keys)).await;
}

fn bare_calls(bare: &Client, keys: &Arc<Vec<String>>) -> [Call; 3] {
    [
        call(bare, keys, |bare, keys, n| {
            async move {
                let call = bare.get_item().table_name(TABLE).consistent_read(true);
                let found = call.key("key", text(&keys[n % keys.len()])).send().await.unwrap().item.unwrap();
                assert_eq!(found["value"].as_b().unwrap().as_ref().len(), VALUE_BYTES);
            }
            .boxed()
        }),
        call(bare, keys, |bare, keys, n| {
            async move {
                let stamp = stamp();
                let value = value(stamp);
                let call = bare.put_item().table_name(TABLE).return_values(ReturnValue::AllOld);
                let call = call
                    .item("key", text(&keys[n % keys.len()]))
                    .item("head", AttributeValue::B(Blob::new(&value[..40])))
                    .item("value", AttributeValue::B(Blob::new(value)))
                    .item("stamp", AttributeValue::N(stamp.to_string()))
                    .item("expires", AttributeValue::N("9999999999".to_owned()))
                    .expression_attribute_values(":stamp", AttributeValue::N(stamp.to_string()))
                    .expression_attribute_names("#stamp", "stamp")
                    .condition_expression("attribute_not_exists(#stamp) OR #stamp < :stamp");
                call.send().await.unwrap();
            }
            .boxed()
        }),
        call(bare, keys, |bare, keys, n| {
            async move {
                let some = hundred(&keys, n).map(|key| HashMap::from([("key".to_owned(), text(key))]));
                let some = KeysAndAttributes::builder().set_keys(Some(some.collect())).consistent_read(true);
                let call = bare.batch_get_item().request_items(TABLE, some.build().unwrap());
                let found = call.send().await.unwrap();
                assert_eq!(found.responses.unwrap()[TABLE].len(), 100);
            }
            .boxed()
        }),
    ]
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}
