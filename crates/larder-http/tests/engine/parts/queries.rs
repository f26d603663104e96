//! Parts of what is for several queries: they are kept where that is.

use http::Request;
use larder_http::Body;

use super::{SECOND, Site, TEN, whole};
use crate::scene::{Scene, get};

fn part(query: &str, range: &str) -> Request<Body> {
    get(&format!("/a?{query}"), &[("range", range)])
}

async fn store(scene: &Scene, query: &str, range: &str) {
    assert_eq!(scene.ask(part(query, range)).await.status, 206);
    scene.pass(SECOND);
}

#[tokio::test]
async fn parts_of_equivalent_queries_are_joined_and_completed() {
    let site = Site::of(TEN);
    site.set("no-vary-search", "params");
    let scene = site.scene();
    store(&scene, "1", "bytes=0-3").await;
    store(&scene, "2", "bytes=4-5").await;
    let across = scene.ask(part("3", "bytes=2-5")).await;
    assert_eq!((across.body.as_str(), across.is_hit()), ("2345", true));
    assert_eq!(whole(&scene.get("/a?4").await), (200, TEN, "10", ""));
    assert_eq!(site.last().0, Some("bytes=6-".into()));
    assert!(scene.get("/a?5").await.is_hit());
    assert_eq!(scene.store.responses(), 2, "the whole, and what the cache notes");
}

#[tokio::test]
async fn parts_that_are_kept_apart_are_not_joined() {
    let site = Site::of(TEN);
    let scene = site.scene();
    store(&scene, "1", "bytes=0-3").await;
    site.set("no-vary-search", "params");
    store(&scene, "1", "bytes=4-5").await;
    assert_eq!(scene.get("/a?1").await.body, TEN);
    assert!(scene.get("/a?1").await.is_hit(), "what came is kept, whatever it was made of");
}

#[tokio::test]
async fn a_rest_that_says_something_else_is_not_put_to_the_part() {
    let site = Site::of(TEN);
    site.set("no-vary-search", "params");
    let scene = site.scene();
    store(&scene, "1", "bytes=0-5").await;
    site.set("no-vary-search", "key-order");
    assert_eq!(scene.get("/a?1").await.body, TEN);
    assert!(scene.get("/a?1").await.is_hit());
    assert_eq!(scene.asked(), 3);
    assert!(!scene.get("/a?2").await.is_hit());
}
