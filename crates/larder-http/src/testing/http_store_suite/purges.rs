//! Purges by tag, hard and soft.

use std::sync::Arc;

use super::{Sample, get, must, now, only, put, seconds, there};
use crate::policy::Mark;
use crate::store::{HttpStore, Purge};

async fn purge(store: &dyn HttpStore, tags: &[&str], how: Purge) {
    must(store.invalidate(tags, how).await, "tags are invalidated");
}

/// It is gone, for `get` and for `peek`.
pub async fn a_hard_purge_takes_what_has_the_tag(store: Arc<dyn HttpStore>) {
    for (n, tags) in [["news", "sport"], ["news", "politics"]].iter().enumerate() {
        Sample::new("x").tags(tags).put(&*store, &format!("http://a.example/hard/{n}")).await;
    }
    purge(&*store, &["nothing", "sport"], Purge::Hard).await;
    assert!(get(&*store, "http://a.example/hard/0").await.is_none());
    assert!(store.peek("http://a.example/hard/0").is_none_or(|variants| variants.is_empty()));
    only(&*store, "http://a.example/hard/1").await;
    purge(&*store, &["news"], Purge::Hard).await;
    assert!(get(&*store, "http://a.example/hard/1").await.is_none());
}

/// It is there, and says that it is stale; a second purge does not take it.
pub async fn a_soft_purge_makes_stale_what_has_the_tag(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/soft";
    let id = Sample::new("x").tags(&["soft"]).put(&*store, target).await;
    assert!(only(&*store, target).await.stored.is_fresh(now()));
    for _ in 0..2 {
        purge(&*store, &["soft"], Purge::Soft).await;
        let found = only(&*store, target).await;
        assert_eq!((found.id, found.stored.kept().mark), (id, Mark::Stale));
        assert!(!found.stored.is_fresh(now()));
        let seen = store.peek(target).and_then(|variants| variants.by_id(id).cloned());
        assert!(seen.is_none_or(|seen| seen.stored.kept().mark == Mark::Stale));
    }
    purge(&*store, &["soft"], Purge::Hard).await;
    assert!(get(&*store, target).await.is_none());
}

/// Those without the tag, and those without any.
pub async fn a_purge_spares_other_targets(store: Arc<dyn HttpStore>) {
    Sample::new("x").tags(&["ab"]).put(&*store, "http://a.example/spare/0").await;
    Sample::new("x").tags(&["A"]).put(&*store, "http://a.example/spare/1").await;
    Sample::new("x").put(&*store, "http://a.example/spare/2").await;
    for how in [Purge::Soft, Purge::Hard] {
        purge(&*store, &["a"], how).await;
        for n in 0..3 {
            let found = only(&*store, &format!("http://a.example/spare/{n}")).await;
            assert!(found.stored.is_fresh(now()), "target {n} after a {how:?} purge of another tag");
        }
    }
}

/// A tag that was purged is not poisoned.
pub async fn what_is_stored_after_a_purge_lives(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/after";
    for how in [Purge::Hard, Purge::Soft, Purge::Hard] {
        Sample::new("before").tags(&["again"]).put(&*store, target).await;
        purge(&*store, &["again"], how).await;
        let began = store.begin();
        let mut after = Sample::new("after").tags(&["again"]).written(&*store, target).await;
        after.began = began;
        let after = Arc::new(after);
        put(&*store, target, &after).await;
        let found = only(&*store, target).await;
        assert_eq!(found.id, after.id);
        assert!(found.stored.is_fresh(now()), "what was stored after a {how:?} purge");
    }
}

/// And does not become fresh by that.
pub async fn what_was_made_stale_stays_beside_what_is_new(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/beside";
    let old = Sample::new("old").tags(&["beside"]).vary("accept", Some("a")).put(&*store, target).await;
    purge(&*store, &["beside"], Purge::Soft).await;
    let began = store.begin();
    let mut new =
        Sample::new("new").tags(&["beside"]).vary("accept", Some("b")).written(&*store, target).await;
    new.began = began;
    let new = Arc::new(new);
    put(&*store, target, &new).await;
    let variants = there(get(&*store, target).await, "two responses");
    let is_fresh = |id| variants.by_id(id).map(|response| response.stored.is_fresh(now()));
    assert_eq!((is_fresh(old), is_fresh(new.id)), (Some(false), Some(true)));
}

/// A request that was under way when its answer was purged.
pub async fn what_was_asked_for_before_a_purge_does_not_survive_it(store: Arc<dyn HttpStore>) {
    // A store without an order of its own leaves this to the engine.
    let Some(began) = store.begin() else { return };
    let target = "http://a.example/overtaken";
    let mut late = Sample::new("late")
        .tags(&["overtaken"])
        .asked_for_at(now() - seconds(1))
        .written(&*store, target)
        .await;
    purge(&*store, &["overtaken"], Purge::Hard).await;
    put(&*store, target, &Arc::new(late.clone())).await;
    assert!(get(&*store, target).await.is_none(), "by when it was asked for");
    late.began = Some(began);
    put(&*store, target, &Arc::new(late)).await;
    assert!(get(&*store, target).await.is_none(), "by the store's own order");
}

/// No tags, and the empty tag.
pub async fn a_purge_by_nothing_is_nothing(store: Arc<dyn HttpStore>) {
    Sample::new("x").tags(&["a"]).put(&*store, "http://a.example/nothing").await;
    purge(&*store, &[], Purge::Hard).await;
    purge(&*store, &["b"], Purge::Hard).await;
    only(&*store, "http://a.example/nothing").await;
}
