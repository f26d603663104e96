//! What is answered from what is stored.

use std::time::Duration;

use crate::scene::{Scene, down, get, now, request, response};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_fresh_response_is_served_with_its_age_and_without_the_origin() {
    let scene =
        Scene::new(|_, _| now(response(200, &[("cache-control", "max-age=60"), ("x", "y")], "hello")));
    let first = scene.get("/a").await;
    assert_eq!((first.body.as_str(), first.cache_status()), ("hello", "Larder; fwd=uri-miss; stored"));
    scene.pass(Duration::from_secs(10));
    let second = scene.get("/a").await;
    assert_eq!((second.body.as_str(), second.header("age"), second.header("x")), ("hello", "10", "y"));
    assert_eq!(second.cache_status(), "Larder; hit; ttl=50");
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn what_may_not_be_stored_is_passed_on_each_time() {
    let scene = Scene::new(|nth, _| now(response(200, &[("cache-control", "no-store")], nth.to_string())));
    assert_eq!(scene.get("/a").await.body, "1");
    assert_eq!(scene.get("/a").await.body, "2");
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn the_query_and_the_host_are_in_the_key() {
    let scene = Scene::new(|nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    assert_eq!(scene.get("/a?q=1").await.body, "1");
    assert_eq!(scene.get("/a?q=2").await.body, "2");
    assert_eq!(scene.get("/a?q=1").await.body, "1");
    let other = http::Request::get("http://other.example/a?q=1").body(larder_http::Body::empty()).unwrap();
    assert_eq!(scene.ask(other).await.body, "3");
}

#[tokio::test]
async fn head_is_answered_from_what_get_stored() {
    let scene = Scene::new(|_, _| {
        now(response(200, &[("cache-control", "max-age=60"), ("content-length", "5")], "hello"))
    });
    scene.get("/a").await;
    let head = scene.ask(request("HEAD", "/a", &[])).await;
    assert_eq!((head.body.as_str(), head.header("content-length")), ("", "5"));
    assert!(head.is_hit());
}

#[tokio::test]
async fn conditions_of_the_client_are_answered_from_what_is_stored() {
    let scene =
        Scene::new(|_, _| now(response(200, &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "hello")));
    scene.get("/a").await;
    let same = scene.ask(get("/a", &[("if-none-match", "\"b\", \"a\"")])).await;
    assert_eq!((same.status, same.header("etag"), same.body.as_str()), (304, "\"a\"", ""));
    let other = scene.ask(get("/a", &[("if-none-match", "\"b\"")])).await;
    assert_eq!((other.status, other.body.as_str()), (200, "hello"));
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn ranges_are_cut_from_what_is_stored() {
    let fields = [("cache-control", "max-age=60"), ("content-type", "text/plain")];
    let scene = Scene::new(move |_, _| now(response(200, &fields, "0123456789")));
    scene.get("/a").await;
    let one = scene.ask(get("/a", &[("range", "bytes=2-4")])).await;
    assert_eq!((one.status, one.body.as_str(), one.header("content-range")), (206, "234", "bytes 2-4/10"));
    assert_eq!(one.header("content-length"), "3");
    let last = scene.ask(get("/a", &[("range", "bytes=-3")])).await;
    assert_eq!((last.body.as_str(), last.header("content-range")), ("789", "bytes 7-9/10"));
    let none = scene.ask(get("/a", &[("range", "bytes=10-")])).await;
    assert_eq!((none.status, none.header("content-range")), (416, "bytes */10"));
    assert_eq!(scene.asked(), 1);
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-15.3.7.2
//= type=test
//# If multiple parts are being transferred, the server generating the
//# 206 response MUST generate "multipart/byteranges" content, as defined
//# in Section 14.6, and a Content-Type header field containing the
//# multipart/byteranges media type and its required boundary parameter.
#[tokio::test]
async fn several_ranges_come_as_parts() {
    let fields = [("cache-control", "max-age=60"), ("content-type", "text/plain")];
    let scene = Scene::new(move |_, _| now(response(200, &fields, "0123456789")));
    scene.get("/a").await;
    let parts = scene.ask(get("/a", &[("range", "bytes=0-1, 8-9")])).await;
    assert_eq!(parts.status, 206);
    let boundary =
        parts.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap().to_owned();
    let part = |range: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{text}\r\n"
        )
    };
    assert_eq!(parts.body, part("0-1", "01") + &part("8-9", "89") + &format!("--{boundary}--\r\n"));
    assert_eq!(parts.header("content-length"), parts.body.len().to_string());
}

#[tokio::test]
async fn variants_are_kept_side_by_side() {
    let scene = Scene::new(|_, request| {
        let language = request.headers()["accept-language"].to_str().unwrap().to_owned();
        now(response(200, &[("cache-control", "max-age=60"), ("vary", "accept-language")], language))
    });
    for _ in 0..2 {
        for language in ["de", "fr"] {
            assert_eq!(scene.ask(get("/a", &[("accept-language", language)])).await.body, language);
        }
    }
    assert_eq!(scene.asked(), 2);
}

#[tokio::test]
async fn only_if_cached_is_504_without_asking() {
    let scene = Scene::new(|_, _| down());
    let got = scene.ask(get("/a", &[("cache-control", "only-if-cached")])).await;
    assert_eq!((got.status, scene.asked()), (504, 0));
}

#[tokio::test]
async fn fields_of_the_connection_are_neither_stored_nor_passed_on() {
    let scene = Scene::new(|_, request| {
        assert!(!request.headers().contains_key("x-hop"), "{:?}", request.headers());
        now(response(200, &[("cache-control", "max-age=60"), ("connection", "x-own"), ("x-own", "1")], "a"))
    });
    for _ in 0..2 {
        let got = scene.ask(get("/a", &[("connection", "x-hop"), ("x-hop", "1")])).await;
        assert!(!got.headers.contains_key("x-own") && !got.headers.contains_key("connection"));
    }
}

#[tokio::test]
async fn a_store_that_fails_costs_hits_and_nothing_else() {
    let scene = Scene::new(|nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    scene.store.is_broken.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(scene.get("/a").await.body, "1");
    assert_eq!(scene.get("/a").await.body, "2");
    let stats = scene.cache.stats();
    assert!(stats.store_failures >= 2);
    assert!(stats.last_store_failure.unwrap().contains("the shelf is broken"));
}

#[tokio::test]
async fn an_origin_that_is_down_is_an_error_where_nothing_is_stored() {
    let scene = Scene::new(|_, _| down());
    let error = scene.send(get("/a", &[])).await.unwrap_err();
    assert_eq!(error.to_string(), "the origin cannot be reached: connection refused");
}

#[tokio::test]
async fn a_post_that_says_so_answers_later_gets() {
    // method: method-POST; the response is stored after what it invalidates.
    let scene = Scene::new(|_, _| {
        now(response(200, &[("cache-control", "max-age=60"), ("content-location", "/a")], "new"))
    });
    scene.ask(request("POST", "/a", &[])).await;
    assert_eq!((scene.get("/a").await.body.as_str(), scene.asked()), ("new", 1));
}

#[tokio::test]
async fn a_request_with_content_is_passed_on_and_its_answer_is_for_nobody_else() {
    let scene = Scene::new(|nth, _| now(response(200, &[("cache-control", "max-age=60")], nth.to_string())));
    let with_content =
        || http::Request::get(crate::scene::uri("/a")).body(larder_http::Body::from("fat")).unwrap();
    assert_eq!(scene.ask(with_content()).await.body, "1");
    assert_eq!(scene.get("/a").await.body, "2");
    assert_eq!(scene.ask(with_content()).await.body, "3");
}

#[tokio::test]
async fn a_response_is_explained_without_being_asked_for() {
    let scene = Scene::new(|_, _| {
        now(response(200, &[("cache-control", "max-age=60"), ("cache-tag", "t")], "hello"))
    });
    let (parts, _) = get("/a", &[]).into_parts();
    assert_eq!(scene.cache.explain(&parts).await.unwrap().verdict, "ask the origin");
    scene.get("/a").await;
    scene.pass(2 * MINUTE);
    let why = scene.cache.explain(&parts).await.unwrap();
    assert_eq!(why.verdict, "ask the origin whether what is stored is still right");
    assert_eq!(why.reason.to_string(), "it is stale (RFC 9111 section 4.2)");
    let variant = &why.variants[0];
    assert_eq!((variant.age, variant.lifetime, variant.is_selected), (2 * MINUTE, MINUTE, true));
    assert_eq!((variant.tags.as_slice(), variant.body_bytes), (&["t".to_owned()][..], 5));
    assert_eq!(scene.asked(), 1);
}
