//! What DynamoDB answers when something is wrong: it throttles, leaves keys for later, doubts credentials, breaks off.

use std::time::Duration;

use larder::ErrorKind;
use larder::driver::dynamodb::{DynamoDbDriver, DynamoDbOptions};
use larder::driver::{Driver, When, Write, Written};
use larder::time::{Clock as _, Stamp, SystemClock, seconds};

use super::server::{Answer, Scripted, refuse, say};
use super::{at, unique};
use crate::record::record;
use crate::server::free_port;

/// A driver over a server, once it answered its first ping.
async fn open(server: &Scripted) -> DynamoDbDriver {
    DynamoDbDriver::connect(hurried(&server.endpoint)).await.unwrap()
}

fn hurried(endpoint: &str) -> DynamoDbOptions {
    let mut options = at(endpoint);
    options.response_timeout = Duration::from_millis(300);
    options.connect_timeout = Duration::from_millis(300);
    options
}

/// Calls of every kind, with what they are called in errors.
async fn all_errors(driver: &DynamoDbDriver) -> Vec<larder::Error> {
    use futures_util::TryStreamExt as _;
    let write = |when| Write { key: "k".to_owned(), value: record(1, "v"), ttl: None, when };
    vec![
        driver.ping().await.unwrap_err(),
        driver.get("k").await.unwrap_err(),
        driver.get_many(&["k", "l"]).await.unwrap_err(),
        driver.set("k", record(1, "hunter2"), None, When::Newer).await.unwrap_err(),
        driver.set_many(vec![write(When::Always), write(When::Newer)]).await.unwrap_err(),
        driver.delete("k").await.unwrap_err(),
        driver.delete_many(&["k", "l"]).await.unwrap_err(),
        driver.scan("k").try_collect::<Vec<_>>().await.unwrap_err(),
        driver.clear("k", Stamp::MAX).await.unwrap_err(),
        driver.prune().await.unwrap_err(),
    ]
}

#[tokio::test]
async fn what_is_refused_is_an_error_that_says_what_to_do_and_no_more() {
    for (status, code, kind, advice) in [
        (400, "ProvisionedThroughputExceededException", ErrorKind::Unavailable, "is throttled"),
        (400, "ThrottlingException", ErrorKind::Unavailable, "is throttled"),
        (400, "RequestLimitExceeded", ErrorKind::Unavailable, "is throttled"),
        (500, "InternalServerError", ErrorKind::Unavailable, "cannot do it now"),
        (503, "ServiceUnavailable", ErrorKind::Unavailable, "cannot do it now"),
        (400, "UnrecognizedClientException", ErrorKind::Config, "does not accept the credentials"),
        (400, "InvalidSignatureException", ErrorKind::Config, "does not accept the credentials"),
        (400, "ExpiredTokenException", ErrorKind::Config, "does not accept the credentials"),
        (400, "AccessDeniedException", ErrorKind::Config, "BatchGetItem"),
        (400, "ResourceNotFoundException", ErrorKind::Config, "no table \"larder\" in eu-west-1"),
    ] {
        let server =
            Scripted::new(move |_, _, before| if before == 0 { say("{}") } else { refuse(status, code) });
        let driver = open(&server).await;
        let begun = SystemClock::default();
        for error in all_errors(&driver).await {
            assert_eq!(error.kind(), kind, "{code}: {error}");
            assert!(error.message().contains(advice), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(begun.monotonic() < seconds(6), "ten calls took {:?}", begun.monotonic());
    }
}

#[tokio::test]
async fn what_is_throttled_is_tried_again_a_few_times() {
    // The ping; then twice throttled and done, a write and a read.
    let server = Scripted::new(
        |_, _, before| {
            if before % 3 == 0 { say("{}") } else { refuse(400, "ThrottlingException") }
        },
    );
    let driver = open(&server).await;
    let written = driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
    assert_eq!(written, Written::Stored { previous: None });
    let puts = server.asked().iter().filter(|(operation, _)| operation == "PutItem").count();
    assert_eq!(puts, 3);
    assert_eq!(driver.get("k").await.unwrap(), None);
    assert_eq!(server.asked().len(), 7);
}

/// Another machine, whose clock is behind, would still find it.
#[tokio::test]
async fn what_has_expired_is_removed_and_not_counted() {
    for (item, requests) in [(r#"{"key":{"S":"k"},"expires":{"N":"1"}}"#, 2), ("{}", 1), ("null", 1)] {
        let refusal = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
        let refusal = format!(r#"{{"__type":"{refusal}","message":"","Item":{item}}}"#);
        let server = Scripted::new(move |_, _, before| match before {
            1 => Answer::Say(400, refusal.clone()),
            _ => say("{}"),
        });
        let driver = open(&server).await;
        assert!(!driver.delete("k").await.unwrap(), "{item}");
        let asked = server.asked();
        assert_eq!(asked.len(), 1 + requests, "{item}");
        assert!(asked[1].1.contains("#expires > :now"), "{}", asked[1].1);
        assert!(asked.get(2).is_none_or(|(_, body)| body.contains("#expires <= :now")), "{asked:?}");
    }
}

#[tokio::test]
async fn a_write_that_may_have_landed_is_not_sent_again() {
    for answer in [|| Answer::Hang, || refuse(500, "InternalServerError"), || refuse(503, "")] {
        let server = Scripted::new(move |operation, _, before| match operation {
            "GetItem" if before == 0 => say("{}"),
            _ => answer(),
        });
        let driver = open(&server).await;
        let borrowed = DynamoDbDriver::with_client(driver.client().await.unwrap(), "larder");
        for driver in [&driver, &borrowed] {
            for when in [When::Always, When::Newer, When::Unchanged(None)] {
                let before = server.asked().len();
                let error = driver.set("k", record(1, "v"), None, when).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert_eq!(server.asked().len() - before, 1, "{when:?} was sent again");
            }
            let before = server.asked().len();
            driver.delete("k").await.unwrap_err();
            assert_eq!(server.asked().len() - before, 1);
            // What reads may be.
            let before = server.asked().len();
            driver.get("k").await.unwrap_err();
            assert!(server.asked().len() - before > 1);
        }
    }
}

/// The keys that a batch of reads names.
fn named(body: &str) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let keys = body.pointer("/RequestItems/larder/Keys").unwrap().as_array().unwrap();
    keys.iter().map(|key| key.pointer("/key/S").unwrap().as_str().unwrap().to_owned()).collect()
}

/// An answer to a batch of reads that has some of its keys, and leaves the others.
fn some_of(keys: &[String], done: usize) -> Answer {
    let key = |key: &String| serde_json::json!({"key": {"S": key}, "value": {"B": "dmFsdWU="}});
    let found: Vec<_> = keys.iter().take(done).map(key).collect();
    let left: Vec<_> = keys.iter().skip(done).map(|key| serde_json::json!({"key": {"S": key}})).collect();
    let left = match left.as_slice() {
        [] => serde_json::json!({}),
        left => serde_json::json!({"larder": {"Keys": left, "ConsistentRead": true}}),
    };
    say(&serde_json::json!({"Responses": {"larder": found}, "UnprocessedKeys": left}).to_string())
}

#[tokio::test]
async fn keys_that_a_batch_leaves_are_asked_for_again() {
    let server = Scripted::new(|operation, body, before| match operation {
        "GetItem" => say("{}"),
        // Nothing at first, then a third at a time.
        _ if before == 1 => some_of(&named(body), 0),
        _ => some_of(&named(body), named(body).len() / 3 + 1),
    });
    let driver = open(&server).await;
    let keys: Vec<String> = (0..250).map(|n| format!("k{n}")).collect();
    // A batch must not name a key twice, and has room for a hundred.
    let asked: Vec<&str> = keys.iter().chain(&keys).map(String::as_str).collect();
    let found = driver.get_many(&asked).await.unwrap();
    assert!(found.len() == 500 && found.iter().all(|value| value.as_deref() == Some(b"value")));
    let batches: Vec<Vec<String>> = server.asked().iter().skip(1).map(|(_, body)| named(body)).collect();
    assert!(batches.iter().all(|keys| keys.len() <= 100));
    assert!(batches.len() > 9, "{}", batches.len());
    for mut keys in batches {
        let asked = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), asked, "a key was named twice");
    }
}

#[tokio::test]
async fn a_batch_that_nothing_is_done_of_ends_as_unavailable() {
    let server = Scripted::new(|operation, body, _| match operation {
        "GetItem" => say("{}"),
        _ => some_of(&named(body), 0),
    });
    let driver = open(&server).await;
    let begun = SystemClock::default();
    let error = driver.get_many(&["a", "b"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("throttled"), "{error}");
    assert!(begun.monotonic() < seconds(2), "{:?}", begun.monotonic());
    assert!(server.asked().len() < 12, "{}", server.asked().len());
}

#[tokio::test]
async fn a_refusal_tells_by_what_whether_or_not_the_server_says_it() {
    for says in [true, false] {
        let server = Scripted::new(move |operation, body, _| match operation {
            "PutItem" => {
                assert!(body.contains("\"ReturnValuesOnConditionCheckFailure\":\"ALL_OLD\""));
                let item = if says { r#","Item":{"key":{"S":"k"},"stamp":{"N":"7"}}"# } else { "" };
                let code = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException";
                Answer::Say(400, format!(r#"{{"__type":"{code}","message":"no"{item}}}"#))
            }
            _ if body.contains("larder:ping") => say("{}"),
            _ => say(r#"{"Item":{"stamp":{"N":"7"}}}"#),
        });
        let driver = open(&server).await;
        let refused = driver.set("k", record(6, "v"), None, When::Newer).await.unwrap();
        assert_eq!(refused, Written::Refused { by: Some(Stamp::from_bits(7)) });
        assert_eq!(server.asked().len(), if says { 2 } else { 3 });
    }
}

#[tokio::test]
async fn what_is_not_dynamodb_is_unavailable() {
    for answer in [
        || Answer::Say(200, "<html>hunter2</html>".to_owned()),
        || Answer::Say(404, "<html>hunter2</html>".to_owned()),
        || Answer::Say(200, String::new()),
        || Answer::Hang,
    ] {
        let server = Scripted::new(move |_, _, _| answer());
        match DynamoDbDriver::connect(hurried(&server.endpoint)).await {
            Ok(driver) => println!("an empty answer is an empty item: {driver:?}"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unsupported), "{error}");
                assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_dead_endpoint_is_unavailable_soon() {
    let options = hurried(&format!("http://127.0.0.1:{}", free_port()));
    let begun = SystemClock::default();
    let error = DynamoDbDriver::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("nobody listens"), "{error}");
    assert!(begun.monotonic() < seconds(1), "{:?}", begun.monotonic());

    let error = DynamoDbDriver::connect(hurried("http://no-such-host.invalid:8000")).await.unwrap_err();
    assert!(error.kind().is_transient(), "{error}");

    // Someone who listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = SystemClock::default();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let error = DynamoDbDriver::connect(hurried(&endpoint)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(begun.monotonic() < Duration::from_millis(700), "{:?}", begun.monotonic());

    // TLS where none is spoken.
    let endpoint = endpoint.replace("http:", "https:");
    let error = DynamoDbDriver::connect(hurried(&endpoint)).await.unwrap_err();
    assert!(error.kind().is_transient(), "{error}");
}

#[tokio::test]
async fn a_closed_store_is_closed_and_a_borrowed_client_stays_open() {
    let server = Scripted::new(|_, _, _| say("{}"));
    let driver = open(&server).await;
    let client = driver.client().await.unwrap();
    let borrowed = DynamoDbDriver::with_client(client.clone(), unique("other"));
    for closed in [&borrowed, &driver] {
        closed.close().await.unwrap();
        closed.close().await.unwrap();
        for error in all_errors(closed).await {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        assert_eq!(closed.client().await.unwrap_err().kind(), ErrorKind::Closed);
    }
    DynamoDbDriver::with_client(client, "larder").ping().await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_sent() {
    let server = Scripted::new(|_, _, _| say("{}"));
    let driver = open(&server).await;
    let most = usize::try_from(driver.capabilities().value_bytes_max.unwrap()).unwrap();
    driver.set("k", vec![0; most].into(), None, When::Always).await.unwrap();
    let before = server.asked().len();
    let error = driver.set("k", vec![0; most + 1].into(), None, When::Always).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(server.asked().len(), before);
}
