//! What is taken out: by requests that change something, by hand, by tag.

use larder_http::store::Purge;

use crate::scene::{Scene, now, request, response, uri};

fn numbered(fields: &'static [(&'static str, &'static str)]) -> Scene {
    Scene::new(move |nth, request| match request.method().as_str() {
        "GET" => now(response(200, &[&[("cache-control", "max-age=60")], fields].concat(), nth.to_string())),
        "FAIL" => now(response(500, &[], "")),
        _ => now(response(204, &[("location", "/b"), ("content-location", "http://other.example/c")], "")),
    })
}

#[tokio::test]
async fn what_may_have_changed_is_asked_for_again() {
    // invalidation: invalidate-*; unknown methods too, failures not, other origins not.
    for (method, body) in
        [("PUT", "3"), ("POST", "3"), ("DELETE", "3"), ("M-SEARCH", "3"), ("FAIL", "1"), ("OPTIONS", "1")]
    {
        let scene = numbered(&[]);
        scene.get("/a").await;
        scene.ask(request(method, "/a", &[])).await;
        assert_eq!(scene.get("/a").await.body, body, "{method}");
    }
}

#[tokio::test]
async fn the_location_of_the_same_origin_goes_too() {
    let scene = numbered(&[]);
    scene.get("/b").await;
    scene.get("/d").await;
    scene.ask(request("POST", "/a", &[])).await;
    assert_eq!(scene.get("/b").await.body, "4");
    assert_eq!(scene.get("/d").await.body, "2");
}

#[tokio::test]
async fn a_purge_takes_one_target_and_no_other() {
    let scene = numbered(&[]);
    scene.get("/a").await;
    scene.get("/ab").await;
    assert!(scene.cache.purge(&uri("/a"), Purge::Hard).await.unwrap());
    assert!(!scene.cache.purge(&uri("/a"), Purge::Hard).await.unwrap());
    assert_eq!(scene.get("/a").await.body, "3");
    assert_eq!(scene.get("/ab").await.body, "2");
}

#[tokio::test]
async fn a_soft_purge_makes_stale() {
    let scene = numbered(&[("etag", "\"a\"")]);
    scene.get("/a").await;
    assert!(scene.cache.purge(&uri("/a"), Purge::Soft).await.unwrap());
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), got.cache_status()), ("2", "Larder; fwd=stale; stored"));
}

#[tokio::test]
async fn a_tag_takes_all_that_carry_it() {
    for fields in [&[("surrogate-key", "x front")], &[("cache-tag", "front,y")]] as [&'static [_]; 2] {
        for how in [Purge::Hard, Purge::Soft] {
            let scene = numbered(fields);
            scene.get("/a").await;
            scene.get("/b").await;
            scene.cache.purge_tags(&["other"], how).await.unwrap();
            assert_eq!(scene.get("/a").await.body, "1");
            scene.cache.purge_tags(&["front"], how).await.unwrap();
            assert_eq!(
                (scene.get("/a").await.body.as_str(), scene.get("/b").await.body.as_str()),
                ("3", "4")
            );
        }
    }
}

#[tokio::test]
async fn a_group_is_invalidated_by_a_request_that_says_so() {
    let scene = Scene::new(|nth, request| match request.method().as_str() {
        "GET" => {
            now(response(200, &[("cache-control", "max-age=60"), ("cache-groups", "\"g\"")], nth.to_string()))
        }
        _ => now(response(204, &[("cache-group-invalidation", "\"g\"")], "")),
    });
    scene.get("/a").await;
    scene.ask(request("POST", "/unrelated", &[])).await;
    assert_eq!(scene.get("/a").await.body, "3");
}

#[tokio::test]
async fn a_prefix_takes_all_below_it() {
    let scene = numbered(&[]);
    for path in ["/a/1", "/a/2", "/b/1"] {
        scene.get(path).await;
    }
    assert_eq!(scene.cache.purge_prefix(&uri("/a/"), Purge::Hard).await.unwrap().targets, 2);
    assert_eq!(scene.store.responses(), 1);
    scene.cache.clear().await.unwrap();
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn a_response_with_more_tags_than_can_be_kept_is_not_stored() {
    let many: &'static str =
        Box::leak((0..200).map(|tag| format!("t{tag} ")).collect::<String>().into_boxed_str());
    let fields: &'static [_] = Box::leak(Box::new([("surrogate-key", many)]));
    let scene = numbered(fields);
    scene.get("/a").await;
    assert_eq!((scene.store.responses(), scene.cache.stats().too_many_tags), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_takes_the_place_of_another_heeds_what_is_purged_in_either() {
    let half = std::time::Duration::from_millis(500);
    let scene = Scene::new(move |nth, _| {
        crate::scene::after(half, response(200, &[("cache-control", "max-age=60")], nth.to_string()))
    });
    let newer = scene.cache.rebuild().build();
    let (got, ()) = tokio::join!(scene.get("/a"), async {
        tokio::time::sleep(half / 2).await;
        newer.purge(&uri("/a"), Purge::Hard).await.unwrap();
    });
    assert_eq!((got.body.as_str(), scene.store.responses()), ("1", 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_changed_is_invalidated_though_nobody_waits_for_the_answer() {
    let half = std::time::Duration::from_millis(500);
    let scene = Scene::new(move |nth, request| match request.method().as_str() {
        "GET" => now(response(200, &[("cache-control", "max-age=60")], nth.to_string())),
        _ => crate::scene::after(half, response(204, &[], "")),
    });
    scene.get("/a").await;
    let gone = tokio::time::timeout(half / 2, scene.ask(request("POST", "/a", &[]))).await;
    assert!(gone.is_err());
    tokio::time::sleep(half).await;
    assert_eq!(scene.get("/a").await.body, "3");
}

#[tokio::test]
async fn what_may_have_been_changed_is_invalidated_too() {
    let scene = Scene::new(|nth, request| match request.method().as_str() {
        "GET" => now(response(200, &[("cache-control", "max-age=60")], nth.to_string())),
        _ => crate::scene::down(),
    });
    scene.get("/a").await;
    assert!(scene.send(request("POST", "/a", &[])).await.is_err());
    assert_eq!(scene.get("/a").await.body, "3");
}

#[tokio::test]
async fn a_target_is_purged_however_it_is_written() {
    let scene = numbered(&[]);
    scene.get("/a").await;
    assert!(scene.cache.purge("HTTP://Example.com:80/a", Purge::Hard).await.unwrap());
    assert_eq!(scene.get("/a").await.body, "2");
}
