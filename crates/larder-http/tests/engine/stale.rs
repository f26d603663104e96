//! What is stale: confirmed, served meanwhile, served instead, or not.

use std::time::Duration;

use crate::scene::{Scene, down, get, now, private, request, response, timers};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_304_makes_it_fresh_again_with_new_fields() {
    let scene = Scene::new(|nth, request| {
        let base = [("cache-control", "max-age=10"), ("etag", "\"a\"")];
        if nth == 1 {
            return now(response(200, &[&base[..], &[("x", "old"), ("y", "old")]].concat(), "hello"));
        }
        assert_eq!(request.headers()["if-none-match"], "\"a\"");
        now(response(304, &[&base[..], &[("x", "new")]].concat(), ""))
    });
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    let got = scene.get("/a").await;
    assert_eq!(
        (got.status, got.body.as_str(), got.header("x"), got.header("y")),
        (200, "hello", "new", "old")
    );
    assert_eq!(got.cache_status(), "Larder; fwd=stale; fwd-status=304; ttl=10; stored");
    assert!(scene.get("/a").await.is_hit());
    assert_eq!((scene.asked(), scene.store.responses()), (2, 1));
}

#[tokio::test]
async fn another_representation_replaces_it() {
    let scene = Scene::new(|nth, _| {
        now(response(
            200,
            &[("cache-control", "max-age=10"), ("etag", &format!("\"{nth}\""))],
            nth.to_string(),
        ))
    });
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    assert_eq!(scene.get("/a").await.body, "2");
    assert_eq!(scene.get("/a").await.body, "2");
    assert_eq!(scene.store.responses(), 1);
}

#[tokio::test]
async fn the_clients_condition_is_judged_against_what_was_confirmed() {
    let scene = Scene::new(|nth, _| match nth {
        1 => now(response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "hello")),
        _ => now(response(304, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "")),
    });
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    let got = scene.ask(get("/a", &[("if-none-match", "\"other\"")])).await;
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
    scene.pass(11 * SECOND);
    assert_eq!(scene.ask(get("/a", &[("if-none-match", "\"a\"")])).await.status, 304);
}

#[tokio::test]
async fn a_304_about_something_else_is_asked_again_without_conditions() {
    let scene = Scene::new(|nth, request| match nth {
        1 => now(response(200, &[("cache-control", "max-age=10"), ("etag", "\"a\"")], "old")),
        2 => now(response(304, &[("etag", "\"b\"")], "")),
        _ => {
            assert!(!request.headers().contains_key("if-none-match"));
            now(response(200, &[("cache-control", "max-age=10"), ("etag", "\"b\"")], "new"))
        }
    });
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    assert_eq!(scene.get("/a").await.body, "new");
    assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("new", 3));
}

//= https://www.rfc-editor.org/rfc/rfc9111#section-4.2.4
//= type=test
//# A cache MUST NOT generate a stale response unless it is disconnected
//# or doing so is explicitly permitted by the client or origin server
#[tokio::test]
async fn a_dead_origin_costs_freshness_except_where_that_is_forbidden() {
    for (control, status) in [
        ("max-age=10", 200),
        ("max-age=10, must-revalidate", 504),
        ("max-age=10, proxy-revalidate", 504),
        ("s-maxage=10", 504),
        ("max-age=10, no-cache", 504),
    ] {
        let scene = Scene::new(move |nth, _| match nth {
            1 => now(response(200, &[("cache-control", control), ("etag", "\"a\"")], "hello")),
            _ => down(),
        });
        scene.get("/a").await;
        scene.pass(11 * SECOND);
        let got = scene.get("/a").await;
        assert_eq!(got.status, status, "{control}");
    }
}

#[tokio::test]
async fn an_error_is_passed_on_unless_stale_if_error_hides_it() {
    for (control, body) in [("max-age=10", "broken"), ("max-age=10, stale-if-error=60", "hello")] {
        let scene = Scene::new(move |nth, _| match nth {
            1 => now(response(200, &[("cache-control", control)], "hello")),
            _ => now(response(503, &[], "broken")),
        });
        scene.get("/a").await;
        scene.pass(11 * SECOND);
        assert_eq!(scene.get("/a").await.body, body, "{control}");
        // What is stored is still there.
        assert_eq!(scene.store.responses(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn stale_while_revalidate_answers_at_once_and_confirms_meanwhile() {
    let scene = Scene::new(|nth, _| {
        let fields = [("cache-control", "max-age=10, stale-while-revalidate=60")];
        crate::scene::after(SECOND, response(200, &fields, nth.to_string()))
    });
    scene.get("/a").await;
    scene.pass(11 * SECOND);
    let began = timers();
    for _ in 0..20 {
        assert_eq!(scene.get("/a").await.body, "1");
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("2", 2));
}

#[tokio::test]
async fn no_cache_is_confirmed_each_time() {
    let scene = Scene::new(|nth, _| match nth {
        1 => now(response(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], "hello")),
        _ => now(response(304, &[("etag", "\"a\"")], "")),
    });
    for nth in 1..=3 {
        assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("hello", nth));
    }
}

#[tokio::test]
async fn a_head_that_shows_another_representation_makes_what_is_stored_stale() {
    let scene = Scene::new(|nth, _| match nth {
        1 => now(response(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "old")),
        2 => now(response(200, &[("cache-control", "max-age=60"), ("etag", "\"b\"")], "")),
        _ => now(response(200, &[("cache-control", "max-age=60"), ("etag", "\"b\"")], "new")),
    });
    scene.get("/a").await;
    scene.ask(request("HEAD", "/a", &[("cache-control", "no-cache")])).await;
    assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("new", 3));
}

#[tokio::test]
async fn what_is_private_is_kept_by_a_private_cache_alone() {
    let answer =
        |nth: usize, _| now(response(200, &[("cache-control", "private, max-age=60")], nth.to_string()));
    let shared = Scene::new(answer);
    let own = Scene::with(|builder| builder.policy(private()), answer);
    for scene in [&shared, &own] {
        scene.get("/a").await;
        scene.get("/a").await;
    }
    assert_eq!((shared.asked(), own.asked()), (2, 1));
}
