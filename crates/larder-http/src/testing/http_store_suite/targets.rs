//! Targets are apart, whatever they look like.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use larder::ErrorKind;

use super::{Sample, assert_same, get, must, only, read};
use crate::store::HttpStore;

/// U2.
pub async fn other_targets_are_others(store: Arc<dyn HttpStore>) {
    Sample::new("a").put(&*store, "http://a.example/a").await;
    for other in [
        "http://a.example/A",
        "http://a.example/a/",
        "http://a.example/a?",
        "https://a.example/a",
        "http://a.example/",
    ] {
        assert!(get(&*store, other).await.is_none(), "{other:?} is another target");
    }
}

/// Long ones, those that mean something to a store, and those that differ in a byte.
pub async fn nasty_targets_do_not_meet(store: Arc<dyn HttpStore>) {
    let long = "x".repeat(15 * 1024);
    let mut targets: Vec<String> = [
        "http://a.example/%00",
        "http://a.example/../../etc/passwd",
        "http://a.example/a b",
        "http://a.example/*",
        "http://a.example/%25",
        "http://a.example/_",
        "http://a.example/\u{fc}",
        "http://a.example/u\u{308}",
        "http://a.example/'; DROP TABLE larder; --",
        "http://a.example/\n",
        "http://a.example/\0",
        "http://a.example/ ",
        "http://a.example/?a=b&c=d",
        "http://a.example/?c=d&a=b",
        "http://a.example/:",
        "http://a.example/#",
        "#",
        "",
    ]
    .map(str::to_owned)
    .into();
    for length in [399, 400, 401, 475, 476, 477, 480, 481, 700, 1_000, 1_023, 1_024, 1_025, 2_000, 15_000] {
        targets.push(format!("http://a.example/{}", &long[..length - 17]));
        targets.push(format!("http://a.example/{}y", &long[..length - 18]));
    }
    for target in &targets {
        Sample::new(target.clone()).put(&*store, target).await;
    }
    for target in &targets {
        let found = only(&*store, target).await;
        assert_same(&read(&found).await, target.as_bytes(), format_args!("the body of {:.60?}", target));
    }
    for target in &targets {
        assert!(must(store.delete(target).await, "a target is deleted"));
        assert!(get(&*store, target).await.is_none());
    }
}

/// All variants, once.
pub async fn deleting_takes_all_responses_and_says_so(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/delete";
    for language in ["de", "en"] {
        Sample::new(language).vary("accept-language", Some(language)).put(&*store, target).await;
    }
    Sample::new("other").put(&*store, "http://a.example/delete/other").await;
    assert!(must(store.delete(target).await, "a target is deleted"));
    assert!(get(&*store, target).await.is_none());
    assert!(!must(store.delete(target).await, "a target is deleted again"));
    only(&*store, "http://a.example/delete/other").await;
}

/// And what comes afterwards lives.
pub async fn clearing_takes_everything(store: Arc<dyn HttpStore>) {
    for n in 0..5 {
        Sample::new("x").put(&*store, &format!("http://a.example/clear/{n}")).await;
    }
    must(store.clear().await, "a store is cleared");
    for n in 0..5 {
        assert!(get(&*store, &format!("http://a.example/clear/{n}")).await.is_none());
    }
    must(store.clear().await, "an empty store is cleared");
    let mut after = Sample::new("after").written(&*store, "http://a.example/clear/0").await;
    after.began = store.begin();
    super::put(&*store, "http://a.example/clear/0", &Arc::new(after)).await;
    only(&*store, "http://a.example/clear/0").await;
}

/// Or the store says that it cannot.
pub async fn targets_are_listed_by_how_they_begin(store: Arc<dyn HttpStore>) {
    let long = format!("http://a.example/l/{}", "y".repeat(5_000));
    for target in ["http://a.example/l/1", "http://a.example/l/2", "http://b.example/l/1", long.as_str()] {
        Sample::new("x").put(&*store, target).await;
    }
    let targets = match store.targets("http://a.example/l/") {
        Ok(targets) => targets,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    };
    let mut targets: Vec<String> = match targets.try_collect().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        targets => must(targets, "targets are listed"),
    };
    targets.sort_unstable();
    assert_eq!(targets, ["http://a.example/l/1", "http://a.example/l/2", long.as_str()]);
}

/// As with every door.
pub async fn a_closed_store_may_be_closed_again(store: Arc<dyn HttpStore>) {
    Sample::new("x").put(&*store, "http://a.example/close").await;
    must(store.close().await, "a store is closed");
    must(store.close().await, "a store is closed again");
}
