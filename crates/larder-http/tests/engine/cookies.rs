//! Whose the cookies are that come with confirmations (RFC 9111 section 3.2).

use std::time::Duration;

use crate::scene::{Scene, get, now, request, response};

const TAG: (&str, &str) = ("etag", "\"a\"");
const FRESH: (&str, &str) = ("cache-control", "max-age=10");

#[tokio::test]
async fn a_cookie_of_a_304_goes_to_the_client_whose_request_it_answers() {
    let scene = Scene::new(|nth, request| {
        let confirmed = request.headers().contains_key("if-none-match");
        let cookie = format!("session={nth}");
        let fields = [FRESH, TAG, ("set-cookie", cookie.as_str())];
        let fields = if nth == 1 { &fields[..2] } else { &fields[..] };
        now(response(if confirmed { 304 } else { 200 }, fields, if confirmed { "" } else { "page" }))
    });
    scene.get("/a").await;
    scene.pass(Duration::from_secs(11));
    let got = scene.get("/a").await;
    assert_eq!((got.status, got.header("set-cookie"), got.body.as_str()), (200, "session=2", "page"));
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie")), (true, ""));

    // Who has it already gets a 304, and the cookie with it.
    scene.pass(Duration::from_secs(11));
    let got = scene.ask(get("/a", &[("if-none-match", TAG.1)])).await;
    assert_eq!((got.status, got.header("set-cookie")), (304, "session=3"));
    assert_eq!(scene.get("/a").await.header("set-cookie"), "");

    // So of an answer to HEAD.
    let got = scene.ask(request("HEAD", "/a", &[("cache-control", "no-cache")])).await;
    assert_eq!((got.status, got.header("set-cookie")), (200, "session=4"));
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie")), (true, ""));
    assert_eq!(scene.asked(), 4);
}
