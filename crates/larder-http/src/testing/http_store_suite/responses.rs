//! A response that is stored comes back as it was, and not after its time.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::{
    Sample, assert_same, get, headers, must, noise, now, only, put, read, read_from, request, seconds, there,
};
use crate::policy::{Mark, Policy, Selected, Selecting, Stored};
use crate::store::{HttpStore, StoredResponse, Variants};

/// What was never stored.
pub async fn a_target_without_responses_is_nothing(store: Arc<dyn HttpStore>) {
    assert!(get(&*store, "http://a.example/nothing").await.is_none());
    assert!(store.peek("http://a.example/nothing").is_none_or(|variants| variants.is_empty()));
    assert!(!must(store.delete("http://a.example/nothing").await, "deleting nothing works"));
}

/// Every field, to the byte and to the nanosecond.
pub async fn a_response_comes_back_as_it_was_stored(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/all";
    let mut sample = Sample::new("the body").tags(&["one", "zwei 2", "três"]);
    sample.kept.status = must(StatusCode::from_u16(299), "a status");
    sample.kept.headers = headers(&[
        ("x-z", "first"),
        ("cache-control", "max-age=60"),
        ("set-cookie", "a=1"),
        ("x-a", ""),
        ("set-cookie", "b=\u{fc}"),
        ("vary", "accept, x-nothing"),
    ]);
    sample.kept.selecting = Selecting::from_pairs([
        (http::header::ACCEPT, Some(b"text/html\xff".to_vec())),
        (http::HeaderName::from_static("x-nothing"), None),
    ]);
    sample.kept.range = Some(HeaderValue::from_static("bytes=0-9"));
    sample.kept.times.requested_at = now() - Duration::from_nanos(1_234_567_891);
    sample.kept.mark = Mark::Invalid;
    let mut response = sample.written(&*store, target).await;
    response.message = Some("Fine, thanks".to_owned());
    response.trailers = Some(headers(&[("x-checksum", "abc"), ("x-more", "1"), ("x-more", "2")]));
    let response = Arc::new(response);
    put(&*store, target, &response).await;

    let found = only(&*store, target).await;
    assert_eq!(found.id, response.id);
    assert_eq!(found.stored, response.stored, "all that it is judged by");
    assert_eq!(found.stored.kept().body_bytes, Some(8));
    let order = |response: &StoredResponse| -> Vec<_> {
        let fields = response.stored.headers().iter();
        fields.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
    };
    assert_eq!(order(&found), order(&response), "the fields in their order");
    assert_eq!(found.message.as_deref(), Some("Fine, thanks"));
    assert_eq!(found.tags, response.tags);
    assert_eq!(found.trailers, response.trailers);
    assert_eq!(found.delete_at, response.delete_at);
    assert_eq!(found.value(), response.value(), "undici's CacheValue");
    assert_same(&read(&found).await, b"the body", "the body");
}

/// No message, tags, trailers, `Vary`, fields and body.
pub async fn a_response_may_have_next_to_nothing(store: Arc<dyn HttpStore>) {
    let mut sample = Sample::new("");
    sample.kept.headers.clear();
    sample.put(&*store, "http://a.example/bare").await;
    let found = only(&*store, "http://a.example/bare").await;
    assert_eq!((found.message.as_deref(), found.tags.len(), &found.trailers), (None, 0, &None));
    assert!(found.stored.headers().is_empty() && found.stored.kept().selecting.is_empty());
    assert_eq!(found.body.bytes(), 0);
    assert!(must(found.body.read(0).await, "an empty body is read").is_none());
}

/// From nothing to 4 MiB, around whatever a store may cut them at.
pub async fn bodies_of_every_size_come_back(store: Arc<dyn HttpStore>) {
    const KIB: usize = 1024;
    let sizes =
        [0, 1, 16 * KIB, 16 * KIB + 1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 512 * KIB, 1024 * KIB + 7];
    for size in sizes.into_iter().chain([4096 * KIB]) {
        let target = format!("http://a.example/size/{size}");
        let body = noise(size, size as u64);
        Sample::new(body.clone()).put(&*store, &target).await;
        let found = only(&*store, &target).await;
        assert_eq!(found.body.bytes(), size as u64);
        assert_same(&read(&found).await, &body, format_args!("a body of {size} bytes"));
    }
}

/// Ranges begin anywhere.
pub async fn a_body_is_read_from_any_position(store: Arc<dyn HttpStore>) {
    let body = noise(700_001, 3);
    Sample::new(body.clone()).put(&*store, "http://a.example/range").await;
    let found = only(&*store, "http://a.example/range").await;
    for from in [1, 65_535, 262_143, 262_144, 262_145, 524_288, 700_000] {
        assert_same(
            &read_from(&found, from as u64).await,
            &body.slice(from..),
            format_args!("what begins at {from}"),
        );
    }
    for beyond in [700_001, 786_432, u64::MAX] {
        assert!(must(found.body.read(beyond).await, "reading beyond the end works").is_none());
    }
}

/// U4.
pub async fn what_is_stale_is_kept_until_it_is_to_be_deleted(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/stale";
    let mut sample = Sample::new("stale").asked_for_at(now() - seconds(120));
    sample.life = Duration::from_millis(900);
    let response = Arc::new(sample.written(&*store, target).await);
    put(&*store, target, &response).await;
    let found = get(&*store, target).await;
    if now() < response.delete_at {
        let found = there(found, "a stale response before it is to be deleted");
        assert!(found.responses().iter().all(|response| !response.stored.is_fresh(now())));
    }
    while now() < response.delete_at {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(get(&*store, target).await.is_none(), "it is past the time when it was to be deleted");
    assert!(store.peek(target).is_none_or(|variants| variants.is_empty()));
}

/// Not even right after it was stored.
pub async fn what_is_to_be_deleted_is_not_handed_out(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/late";
    let mut response = Sample::new("late").written(&*store, target).await;
    response.delete_at = now() - seconds(1);
    put(&*store, target, &Arc::new(response)).await;
    assert!(get(&*store, target).await.is_none());
}

/// U17.
pub async fn an_expired_response_does_not_hide_a_living_one(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/two";
    let mut expired = Sample::new("expired").written(&*store, target).await;
    expired.delete_at = now() - seconds(1);
    let living = Arc::new(Sample::new("living").written(&*store, target).await);
    let both = [Arc::new(expired), Arc::clone(&living)];
    must(store.change(target, &|_| Some(Variants::new(both.clone()))).await, "both are stored");
    assert_eq!(only(&*store, target).await.id, living.id);
}

/// U5 and U14.
pub async fn a_newer_response_replaces_an_older_one(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/new";
    for (round, size) in [5, 600_000, 300_000, 3, 0].into_iter().enumerate() {
        let body = noise(size, round as u64);
        let id = Sample::new(body.clone()).put(&*store, target).await;
        let found = only(&*store, target).await;
        assert_eq!(found.id, id);
        assert_same(&read(&found).await, &body, format_args!("the body of round {round}"));
    }
}

/// U6.
pub async fn responses_for_other_fields_stand_beside_each_other(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/vary";
    let de = Sample::new("hallo").vary("accept-language", Some("de")).put(&*store, target).await;
    let en = Sample::new("hello").vary("accept-language", Some("en")).put(&*store, target).await;
    let none = Sample::new("...").vary("accept-language", None).put(&*store, target).await;
    let variants = there(get(&*store, target).await, "three responses");
    assert_eq!(variants.responses().len(), 3);
    let selected = |fields: &[(&'static str, &str)]| {
        let request = request(target, fields);
        variants.select(&Policy::shared(), &request, now()).0.map(|response| response.id)
    };
    assert_eq!(selected(&[("accept-language", "de")]), Some(de));
    assert_eq!(selected(&[("accept-language", "en")]), Some(en));
    assert_eq!(selected(&[]), Some(none));
    assert_eq!(selected(&[("accept-language", "fr")]), None);
}

/// U18.
pub async fn what_replaces_a_response_is_selected_by_its_own_fields(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/vary-anew";
    let older = Sample::new("old").vary("accept", Some("a/b")).put(&*store, target).await;
    let newer =
        Arc::new(Sample::new("new").vary("accept-encoding", Some("gzip")).written(&*store, target).await);
    let replace = |variants: &Variants| {
        Some(variants.without(older)?.with(&Policy::shared(), Arc::clone(&newer), now()))
    };
    must(store.change(target, &replace).await, "the older one is replaced");
    let variants = there(get(&*store, target).await, "the newer one");
    let select = |fields: &[(&'static str, &str)]| {
        let request = request(target, fields);
        matches!(variants.select(&Policy::shared(), &request, now()).1, Selected::One(_))
    };
    assert!(select(&[("accept-encoding", "gzip")]) && !select(&[("accept", "a/b")]));
}

/// What a 304 does.
pub async fn new_fields_leave_the_body_where_it_is(store: Arc<dyn HttpStore>) {
    for size in [10, 600_000] {
        let target = format!("http://a.example/fresh/{size}");
        let body = noise(size, 9);
        let id = Sample::new(body.clone()).put(&*store, &target).await;
        let found = only(&*store, &target).await;
        let mut kept = found.stored.kept().clone();
        kept.headers.insert("x-renewed", HeaderValue::from_static("yes"));
        kept.times.received_at = now() + seconds(1);
        let mut renewed = StoredResponse::clone(&found);
        renewed.stored = Stored::new(&Policy::shared(), kept);
        renewed.delete_at = now() + seconds(400 * 24 * 3_600);
        let renewed = Arc::new(renewed);
        must(store.change(&target, &|variants| variants.updated(&renewed)).await, "the fields are renewed");
        let found = only(&*store, &target).await;
        assert_eq!((found.id, found.delete_at), (id, renewed.delete_at));
        assert_eq!(found.stored, renewed.stored);
        assert_same(&read(&found).await, &body, "the body after its fields were renewed");
    }
}

/// What a store knows at once is what it knows.
pub async fn a_look_says_the_same_or_nothing(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/look";
    let id = Sample::new("seen").put(&*store, target).await;
    for _ in 0..3 {
        if let Some(seen) = store.peek(target).filter(|seen| !seen.is_empty()) {
            assert_eq!(seen.responses().iter().map(|response| response.id).collect::<Vec<_>>(), [id]);
        }
        assert_eq!(only(&*store, target).await.id, id);
    }
}
