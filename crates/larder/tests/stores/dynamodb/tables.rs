//! Tables: missing ones, new ones, those of others; and what an item looks like there.

use std::collections::HashMap;

use futures_util::TryStreamExt as _;
use larder::ErrorKind;
use larder::driver::dynamodb::client::primitives::Blob;
use larder::driver::dynamodb::client::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use larder::driver::dynamodb::{DynamoDbDriver, DynamoDbOptions};
use larder::driver::{Driver, When, Written};
use larder::time::{Clock as _, Stamp, SystemClock, minutes, seconds};

use super::{options, shared, table, unique};
use crate::record::record;

#[tokio::test]
async fn a_missing_table_is_named_and_created_if_that_is_asked_for() {
    let name = unique("missing");
    let Some(mut options) = options(&name) else { return };
    let error = DynamoDbDriver::connect(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let said = error.message();
    assert!(
        said.contains(&format!("no table \"{name}\" in eu-west-1")) && said.contains("create_table"),
        "{said}"
    );
    options.create_table = true;
    // Several at once, as processes of one program start.
    let opening = [1, 2, 3].map(|_| DynamoDbDriver::connect(options.clone()));
    for driver in futures_util::future::try_join_all(opening).await.unwrap() {
        driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
        assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
    }
    options.create_table = false;
    let driver = DynamoDbDriver::connect(options).await.unwrap();
    driver.client().await.unwrap().delete_table().table_name(&name).send().await.unwrap();
}

#[tokio::test]
async fn a_table_with_another_key_is_refused() {
    let Some(driver) = shared().await else { return };
    let (client, name) = (driver.client().await.unwrap(), unique("other-key"));
    let created = client.create_table().table_name(&name).billing_mode(BillingMode::PayPerRequest);
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build().unwrap();
    let attribute =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let created = created.key_schema(key).attribute_definitions(attribute.build().unwrap());
    created.send().await.unwrap();
    let begun = SystemClock::default();
    let error = loop {
        assert!(begun.monotonic() < seconds(5));
        let error = DynamoDbDriver::connect(options(&name).unwrap()).await.unwrap_err();
        // It is not there at once.
        if !error.message().contains("no table") {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("partition key \"key\""), "{error}");
    client.delete_table().table_name(&name).send().await.unwrap();
}

/// Set in a process that has nothing else in its environment.
const ALONE: &str = "LARDER_TEST_ALONE";

#[tokio::test]
async fn an_environment_without_region_and_credentials_is_told_what_to_set() {
    // What is found depends on variables and files, so this goes on in a process of its own.
    if std::env::var(ALONE).is_err() {
        let test = "dynamodb::tables::an_environment_without_region_and_credentials_is_told_what_to_set";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env_clear().env(ALONE, "1");
        child.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent");
        let ended = child.output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"));
        return;
    }
    let mut options = DynamoDbOptions::new("larder");
    let error = DynamoDbDriver::connect(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("AWS_REGION"), "{error}");
    options.region = Some("eu-west-1".to_owned());
    options.endpoint = Some("http://127.0.0.1:9".to_owned());
    let error = DynamoDbDriver::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().contains("access_key_id"), "{error}");
}

#[tokio::test]
async fn an_item_is_what_the_documents_say() {
    let Some(driver) = shared().await else { return };
    let (client, key) = (driver.client().await.unwrap(), unique("item"));
    let long = format!("{key}{}", "x".repeat(3_000));
    for (key, shown) in [(&key, true), (&long, false)] {
        driver.set(key, record(7, "v"), Some(minutes(1)), When::Newer).await.unwrap();
        assert_eq!(driver.get(key).await.unwrap(), Some(record(7, "v")));
        let stored = if shown {
            key.clone()
        } else {
            let listed: Vec<_> = driver.scan(key).try_collect().await.unwrap();
            assert_eq!(listed.len(), 1);
            assert_eq!(listed[0].key, *key, "a hashed key is listed in full");
            continue;
        };
        let item = client.get_item().table_name(table()).key("key", AttributeValue::S(stored));
        let item = item.send().await.unwrap().item.unwrap();
        assert_eq!(item["value"], AttributeValue::B(Blob::new(record(7, "v"))));
        assert_eq!(item["head"], AttributeValue::B(Blob::new(&record(7, "v")[..40])));
        assert_eq!(item["stamp"], AttributeValue::N("7".to_owned()));
        let expires: u64 = item["expires"].as_n().unwrap().parse().unwrap();
        let now = SystemClock::default().now().as_millis() / 1_000;
        assert!((now + 58..=now + 61).contains(&expires), "{expires} is a minute after {now}");
        assert_eq!(item.len(), 5);
    }
    assert_eq!(driver.clear(&key, Stamp::MAX).await.unwrap(), 2);
}

#[tokio::test]
async fn what_stands_for_a_key_is_not_listed_under_its_own_name() {
    let Some(driver) = shared().await else { return };
    let long = unique(&"y".repeat(3_000));
    driver.set(&long, record(1, "v"), None, When::Always).await.unwrap();
    driver.set("", record(1, "empty"), None, When::Always).await.unwrap();
    assert_eq!(driver.get("").await.unwrap(), Some(record(1, "empty")));
    let listed: Vec<_> = driver.scan("larder#").try_collect().await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    assert_eq!(driver.clear("larder#", Stamp::MAX).await.unwrap(), 0);
    assert!(driver.delete(&long).await.unwrap());
    assert!(driver.delete("").await.unwrap());
}

#[tokio::test]
async fn what_other_programs_keep_there_is_no_error() {
    let Some(driver) = shared().await else { return };
    let (client, prefix) = (driver.client().await.unwrap(), unique("foreign"));
    let s = |text: &str| AttributeValue::S(text.to_owned());
    for (name, value) in
        [("text", Some(s("BentoCache's"))), ("number", Some(AttributeValue::N("1".into()))), ("none", None)]
    {
        let mut item = HashMap::from([("key".to_owned(), s(&format!("{prefix}{name}")))]);
        item.extend(value.map(|value| ("value".to_owned(), value)));
        client.put_item().table_name(table()).set_item(Some(item)).send().await.unwrap();
    }
    let key = |name: &str| format!("{prefix}{name}");
    assert_eq!(driver.get(&key("text")).await.unwrap().unwrap(), "BentoCache's");
    assert_eq!(driver.get(&key("number")).await.unwrap().unwrap(), "");
    assert_eq!(driver.get(&key("none")).await.unwrap().unwrap(), "");
    let refused = driver.set(&key("text"), record(1, "v"), None, When::Unchanged(None)).await.unwrap();
    assert_eq!(refused, Written::Refused { by: None });
    let written = driver.set(&key("text"), record(1, "v"), None, When::Newer).await.unwrap();
    assert!(matches!(written, Written::Stored { previous: Some(_) }), "{written:?}");
    assert_eq!(driver.clear(&prefix, Stamp::from_bits(0)).await.unwrap(), 2, "what has no stamp is older");
    assert_eq!(driver.clear(&prefix, Stamp::MAX).await.unwrap(), 1);
}

#[tokio::test]
async fn reads_that_need_not_be_consistent_are_asked_for_so() {
    let Some(mut options) = options(&table()) else { return };
    drop(shared().await);
    options.consistent_reads = false;
    let driver = DynamoDbDriver::connect(options).await.unwrap();
    let key = unique("eventual");
    driver.set(&key, record(1, "v"), None, When::Newer).await.unwrap();
    let begun = SystemClock::default();
    while driver.get(&key).await.unwrap().is_none() {
        assert!(begun.monotonic() < seconds(5));
    }
    assert!(driver.delete(&key).await.unwrap());
}

#[tokio::test]
async fn what_expired_is_nothing_although_it_is_still_there() {
    let Some(driver) = shared().await else { return };
    let prefix = unique("expired");
    let key = |name: &str| format!("{prefix}{name}");
    let names = ["read", "newer", "older", "add", "swap", "gone", "went"];
    for name in names {
        let ttl = Some(std::time::Duration::from_millis(1));
        driver.set(&key(name), record(5, "v"), ttl, When::Always).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(2_010)).await;
    let keys = names.map(key);
    let found = driver.get_many(&keys.each_ref().map(String::as_str)).await.unwrap();
    assert!(found.iter().all(Option::is_none), "{found:?}");
    assert_eq!(driver.get(&key("read")).await.unwrap(), None);
    let listed: Vec<_> = driver.scan(&prefix).try_collect().await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    for (name, stamp, when) in
        [("newer", 6, When::Newer), ("older", 4, When::Newer), ("add", 4, When::Unchanged(None))]
    {
        let written = driver.set(&key(name), record(stamp, "w"), None, when).await.unwrap();
        assert_eq!(written, Written::Stored { previous: None }, "{name}");
    }
    let swap = When::Unchanged(Some(Stamp::from_bits(5)));
    let refused = driver.set(&key("swap"), record(6, "w"), None, swap).await.unwrap();
    assert_eq!(refused, Written::Refused { by: None });
    assert!(!driver.delete(&key("gone")).await.unwrap());
    driver.set(&key("here"), record(5, "v"), Some(minutes(1)), When::Always).await.unwrap();
    let many = [key("went"), key("here"), key("never")];
    assert_eq!(driver.delete_many(&many.each_ref().map(String::as_str)).await.unwrap(), 1);
    assert_eq!(driver.get(&key("here")).await.unwrap(), None);
    // Others prune this table too, so that nobody knows how many this one removes.
    driver.prune().await.unwrap();
    let client = driver.client().await.unwrap();
    for name in ["read", "swap", "gone", "went"] {
        let item = client.get_item().table_name(table()).key("key", AttributeValue::S(key(name)));
        let item = item.consistent_read(true).send().await.unwrap().item;
        assert!(item.is_none_or(|item| item.is_empty()), "{name} was not written again, and goes");
    }
    assert_eq!(driver.clear(&prefix, Stamp::MAX).await.unwrap(), 3);
}
