//! Parts that are stored: together they answer what none of them does, and only the rest of them is asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use larder::Stack;
use larder::driver::memory::MemoryDriver;
use larder::testing::ManualClock;
use larder_http::Body;
use larder_http::store::{HttpStore, MemoryStore, MemoryStoreOptions, Purge, StackStore, Variants};
use parking_lot::Mutex;

use crate::scene::{Answer, Got, Scene, Shelf, after, fed, get, now, read, request, uri};

const SECOND: Duration = Duration::from_secs(1);
const TEN: &str = "0123456789";

/// What an origin has, and what it was asked for.
#[derive(Clone)]
struct Site(Arc<Mutex<State>>);

struct State {
    content: String,
    fields: Vec<(&'static str, String)>,
    asked: Vec<(Option<String>, Option<String>)>,
}

impl Site {
    fn of(content: &str) -> Self {
        let state = State {
            content: content.to_owned(),
            fields: vec![("etag", "\"a\"".into()), ("cache-control", "max-age=60".into())],
            asked: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn set(&self, name: &'static str, value: &str) {
        self.unset(name);
        self.0.lock().fields.push((name, value.to_owned()));
    }

    fn unset(&self, name: &'static str) {
        self.0.lock().fields.retain(|(other, _)| *other != name);
    }

    fn change(&self, content: &str, tag: &str) {
        self.0.lock().content = content.to_owned();
        self.set("etag", tag);
    }

    /// `Range` and `If-Range` of the last request.
    fn last(&self) -> (Option<String>, Option<String>) {
        self.0.lock().asked.last().cloned().unwrap_or_default()
    }

    /// As an origin that knows ranges answers.
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let mut state = self.0.lock();
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (range, condition) = (field("range"), field("if-range"));
        state.asked.push((range.clone(), condition.clone()));
        let tag = state.fields.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone());
        let range = range.filter(|_| condition.is_none() || condition == tag);
        let length = state.content.len();
        let span = range.as_ref().and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(match (first.parse::<usize>(), last.parse::<usize>()) {
                (Err(_), Ok(count)) => (length - count, length - 1),
                (Ok(first), last) => (first, last.unwrap_or(length - 1)),
                _ => return None,
            })
        });
        let mut response = Response::builder();
        for (name, value) in &state.fields {
            response = response.header(*name, value);
        }
        match span {
            Some((first, last)) => response
                .status(206)
                .header("content-range", format!("bytes {first}-{last}/{length}"))
                .body(state.content[first..=last].to_owned().into()),
            None => response.status(200).body(state.content.clone().into()),
        }
        .unwrap()
    }

    fn scene(&self) -> Scene {
        let site = self.clone();
        Scene::new(move |_, request| now(site.answer(&request)))
    }
}

fn range(range: &str) -> Request<Body> {
    get("/a", &[("range", range)])
}

/// A scene in which these parts are stored, each a second after the other.
async fn with_parts(site: &Site, ranges: &[&str]) -> Scene {
    let scene = site.scene();
    store(&scene, ranges).await;
    scene
}

async fn store(scene: &Scene, ranges: &[&str]) {
    for part in ranges {
        assert_eq!(scene.ask(range(part)).await.status, 206);
        scene.pass(SECOND);
    }
}

fn whole(got: &Got) -> (u16, &str, &str, &str) {
    (got.status, got.body.as_str(), got.header("content-length"), got.header("content-range"))
}

#[tokio::test]
async fn two_parts_answer_a_range_across_both() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4", "bytes=4-7"]).await;
    for (asked, body, place) in [
        ("bytes=2-6", "23456", "bytes 2-6/10"),
        ("bytes=0-7", "01234567", "bytes 0-7/10"),
        ("bytes=4-5", "45", "bytes 4-5/10"),
    ] {
        let got = scene.ask(range(asked)).await;
        assert_eq!((got.status, got.body.as_str(), got.header("content-range")), (206, body, place));
        assert_eq!(got.header("content-length"), body.len().to_string());
        // It is as old as the part that came last.
        assert_eq!((got.cache_status(), got.header("age")), ("Larder; hit; ttl=59", "1"));
    }
    let (parts, _) = range("bytes=2-6").into_parts();
    let why = scene.cache.explain(&parts).await.unwrap();
    assert_eq!(why.verdict, "answer from stored parts together");
    assert!(why.variants.iter().all(|variant| variant.is_selected));
    assert_eq!((scene.asked(), scene.cache.stats().hits), (2, 3));
    // What is in none of them is asked for as it is, and is a part as well.
    assert_eq!(scene.ask(range("bytes=6-9")).await.body, "6789");
    assert_eq!(site.last(), (Some("bytes=6-9".into()), None));
    assert!(scene.ask(range("bytes=1-9")).await.is_hit());
}

#[tokio::test]
async fn several_ranges_are_cut_from_parts_together() {
    let site = Site::of(TEN);
    site.set("content-type", "text/plain");
    let scene = with_parts(&site, &["bytes=5-9", "bytes=0-4"]).await;
    let got = scene.ask(range("bytes=3-6, 8-9")).await;
    assert!(got.is_hit());
    let boundary = got.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |place: &str, text: &str| {
        format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {place}/10\r\n\r\n{text}\r\n"
        )
    };
    assert_eq!(got.body, part("3-6", "3456") + &part("8-9", "89") + &format!("--{boundary}--\r\n"));
    assert_eq!(got.header("content-length"), got.body.len().to_string());
}

#[tokio::test]
async fn parts_that_came_in_any_order_are_the_whole() {
    let site = Site::of(TEN);
    site.set("content-digest", "sha-256=:of the part:");
    let scene = with_parts(&site, &["bytes=0-2", "bytes=7-9", "bytes=2-7"]).await;
    let got = scene.get("/a").await;
    assert_eq!(whole(&got), (200, TEN, "10", ""));
    assert!(got.is_hit());
    assert_eq!((got.header("etag"), got.header("content-digest")), ("\"a\"", ""));
    let head = scene.ask(request("HEAD", "/a", &[])).await;
    assert_eq!(whole(&head), (200, "", "10", ""));
    assert_eq!(scene.ask(get("/a", &[("if-none-match", "\"a\"")])).await.status, 304);
    assert_eq!(scene.ask(get("/a", &[("cache-control", "only-if-cached")])).await.body, TEN);
    assert_eq!(scene.asked(), 3);
}

#[tokio::test]
async fn a_part_that_is_all_there_is_answers_for_the_whole() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-"]).await;
    assert_eq!(whole(&scene.get("/a").await), (200, TEN, "10", ""));
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn parts_that_need_not_be_of_the_same_are_not_joined() {
    type Change = fn(&Site);
    let changes: &[(&str, Change, Change)] = &[
        ("weak", |site| site.set("etag", "W/\"a\""), |_| {}),
        ("weak by then", |_| {}, |site| site.set("etag", "W/\"a\"")),
        (
            "none",
            |site| {
                site.unset("etag");
                site.set("last-modified", "Fri, 15 Jan 2027 07:00:00 GMT");
            },
            |_| {},
        ),
        ("another", |_| {}, |site| site.set("etag", "\"b\"")),
        ("coded", |_| {}, |site| site.set("content-encoding", "gzip")),
        ("typed", |site| site.set("content-type", "a/b"), |site| site.set("content-type", "a/c")),
        ("for other requests", |_| {}, |site| site.set("vary", "x")),
        ("of another length", |_| {}, |site| site.change("0123456789x", "\"a\"")),
    ];
    for (name, first, then) in changes {
        let site = Site::of(TEN);
        first(&site);
        let scene = with_parts(&site, &["bytes=0-4"]).await;
        then(&site);
        store(&scene, &["bytes=5-9"]).await;
        assert!(!scene.ask(range("bytes=3-6")).await.is_hit(), "{name}");
        assert!(!scene.get("/a").await.is_hit(), "{name}");
    }
}

#[tokio::test]
async fn parts_are_as_fresh_as_the_last_of_them_and_stale_ones_are_not_joined() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    scene.pass(90 * SECOND);
    store(&scene, &["bytes=5-9"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), got.cache_status()), (TEN, "Larder; hit; ttl=59"));
    scene.pass(60 * SECOND);
    let got = scene.ask(range("bytes=3-6")).await;
    assert_eq!((got.body.as_str(), got.cache_status()), ("3456", "Larder; fwd=partial; stored"));
}

#[tokio::test]
async fn what_was_said_to_be_stale_makes_all_of_it_stale() {
    let site = Site::of(TEN);
    site.set("cache-tag", "t");
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    site.unset("cache-tag");
    store(&scene, &["bytes=5-9"]).await;
    assert!(scene.ask(range("bytes=3-6")).await.is_hit());
    scene.cache.purge_tags(&["t"], Purge::Soft).await.unwrap();
    assert!(!scene.ask(range("bytes=3-6")).await.is_hit());
}

#[tokio::test]
async fn a_cookie_that_came_with_a_later_part_is_not_in_what_is_joined() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4"]).await;
    site.set("set-cookie", "session=2");
    store(&scene, &["bytes=5-9"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie")), (true, ""));
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for_and_the_whole_takes_the_place_of_the_parts() {
    for (stored, rest) in [
        (&["bytes=0-5"][..], "bytes=6-"),
        (&["bytes=-4"], "bytes=0-5"),
        (&["bytes=3-4", "bytes=0-2"], "bytes=5-"),
        // The greater part, not what was asked for last.
        (&["bytes=0-5", "bytes=-1"], "bytes=6-"),
    ] {
        let site = Site::of(TEN);
        let scene = with_parts(&site, stored).await;
        let got = scene.get("/a").await;
        assert_eq!(whole(&got), (200, TEN, "10", ""), "{stored:?}");
        assert_eq!(got.cache_status(), "Larder; fwd=partial; fwd-status=206; stored");
        assert_eq!(site.last(), (Some(rest.into()), Some("\"a\"".into())));
        assert_eq!(scene.store.responses(), 1, "{stored:?}");
        let again = scene.get("/a").await;
        assert_eq!((again.is_hit(), whole(&again)), (true, (200, TEN, "10", "")));
        assert_eq!(scene.asked(), stored.len() + 1);
    }
}

#[tokio::test]
async fn what_is_stale_is_completed_too() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    scene.pass(90 * SECOND);
    let got = scene.get("/a").await;
    assert_eq!((got.body.as_str(), site.last().0), (TEN, Some("bytes=6-".into())));
    assert_eq!(scene.get("/a").await.cache_status(), "Larder; hit; ttl=60");
}

#[tokio::test]
async fn the_rest_of_what_cannot_be_completed_is_not_asked_for() {
    let site = Site::of(TEN);
    let middle = with_parts(&site, &["bytes=2-5"]).await;
    assert_eq!(middle.get("/a").await.body, TEN);
    assert_eq!(site.last(), (None, None));
    site.set("etag", "W/\"a\"");
    let weak = with_parts(&site, &["bytes=0-5"]).await;
    assert_eq!(weak.get("/a").await.body, TEN);
    assert_eq!(site.last(), (None, None));
    assert_eq!(weak.store.responses(), 1, "a whole that is newer takes the place of parts in any case");
    site.set("etag", "\"a\"");
    for own in [("if-none-match", "\"b\""), ("if-modified-since", "Fri, 15 Jan 2027 07:00:00 GMT")] {
        let scene = with_parts(&site, &["bytes=0-5"]).await;
        assert_eq!(scene.ask(get("/a", &[own])).await.body, TEN);
        assert_eq!(site.last(), (None, None), "{own:?}");
    }
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    scene.ask(range("bytes=4-8")).await;
    assert_eq!(site.last(), (Some("bytes=4-8".into()), None));
}

#[tokio::test]
async fn what_is_another_by_now_is_asked_for_as_a_whole() {
    type Wrong = fn(&mut Response<Body>);
    fn put(response: &mut Response<Body>, name: &'static str, value: &'static str) {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    let wrongs: &[(&str, usize, Wrong)] = &[
        ("a whole", 2, |_| {}),
        ("another's part", 3, |response| {
            *response = Response::new("67890".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-10/11");
            put(response, "etag", "\"b\"");
        }),
        ("a part of no name", 3, |response| {
            *response = Response::new("6789".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-9/10");
        }),
        ("not all of the rest", 3, |response| {
            *response = Response::new("67".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-7/10");
            put(response, "etag", "\"a\"");
        }),
        ("a length that is another", 3, |response| {
            *response = Response::new("6789".into());
            *response.status_mut() = http::StatusCode::PARTIAL_CONTENT;
            put(response, "content-range", "bytes 6-9/10");
            put(response, "content-length", "3");
            put(response, "etag", "\"a\"");
        }),
        ("nothing", 3, |response| {
            *response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::RANGE_NOT_SATISFIABLE;
            put(response, "content-range", "bytes */5");
        }),
    ];
    for (name, asked, wrong) in wrongs {
        let site = Site::of(TEN);
        let changed = site.clone();
        let scene = Scene::new(move |_, request| {
            let mut response = changed.answer(&request);
            if request.headers().contains_key("if-range") {
                wrong(&mut response);
            }
            now(response)
        });
        store(&scene, &["bytes=0-5"]).await;
        site.change("abcdefghijk", "\"b\"");
        let got = scene.get("/a").await;
        assert_eq!((got.status, got.body.as_str()), (200, "abcdefghijk"), "{name}");
        assert_eq!((scene.asked(), scene.store.responses()), (*asked, 1), "{name}");
        assert_eq!(scene.ask(range("bytes=0-2")).await.body, "abc", "{name}");
        assert_eq!(scene.asked(), *asked, "{name}");
    }
}

#[tokio::test]
async fn parts_of_another_go_although_what_came_is_not_kept() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.set("cache-control", "no-store");
    site.change("abc", "\"b\"");
    assert_eq!(scene.get("/a").await.body, "abc");
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn a_failure_of_the_origin_leaves_the_part_as_it_is() {
    let site = Site::of(TEN);
    let failing = site.clone();
    let scene = Scene::new(move |_, request| match request.headers().contains_key("if-range") {
        true => now(crate::scene::response(503, &[], "sorry")),
        false => now(failing.answer(&request)),
    });
    store(&scene, &["bytes=0-5"]).await;
    let got = scene.get("/a").await;
    assert_eq!((got.status, got.body.as_str()), (503, "sorry"));
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());
}

#[tokio::test]
async fn a_rest_that_breaks_off_is_cut_for_the_client_and_the_part_stays() {
    // With an error, or just too short; with what is stored before or behind it.
    for (stored, error) in
        [("bytes=0-5", true), ("bytes=0-5", false), ("bytes=-4", true), ("bytes=-4", false)]
    {
        let site = Site::of(TEN);
        let (cut, is_cut) = (site.clone(), Arc::new(Mutex::new(true)));
        let cuts = Arc::clone(&is_cut);
        let scene = Scene::new(move |_, request| {
            let mut response = cut.answer(&request);
            if request.headers().contains_key("if-range") && *cuts.lock() {
                let (feed, body) = fed(None);
                let half = std::mem::replace(response.body_mut(), body);
                tokio::spawn(async move {
                    let half = half.collect().await.unwrap().to_bytes();
                    feed.send(Ok(half.slice(..half.len() / 2))).await.unwrap();
                    if error {
                        feed.send(Err("reset".into())).await.unwrap();
                    }
                });
            }
            now(response)
        });
        store(&scene, &[stored]).await;
        let mut response = scene.send(get("/a", &[])).await.unwrap();
        let mut got = Vec::new();
        let failure = loop {
            match response.body_mut().frame().await.unwrap() {
                Ok(frame) => got.extend(frame.into_data().unwrap()),
                Err(failure) => break failure.to_string(),
            }
        };
        assert!(failure.starts_with("the response ended before its end"), "{failure}");
        assert!(TEN.as_bytes().starts_with(&got) && got.len() < 10, "{got:?} is in its place");
        assert_eq!((scene.store.responses(), scene.cache.stats().cut), (1, 1));
        let inside = if stored == "bytes=-4" { "bytes=7-8" } else { "bytes=1-2" };
        assert!(scene.ask(range(inside)).await.is_hit());
        *is_cut.lock() = false;
        assert_eq!(scene.get("/a").await.body, TEN);
        assert!(scene.get("/a").await.is_hit());
    }
}

#[tokio::test]
async fn what_is_stored_reaches_the_client_before_the_rest_comes() {
    let site = Site::of(TEN);
    let (feed, body) = fed(None);
    let (slow, body) = (site.clone(), Mutex::new(Some(body)));
    let scene = Scene::new(move |_, request| {
        let mut response = slow.answer(&request);
        if request.headers().contains_key("if-range") {
            *response.body_mut() = body.lock().take().unwrap();
        }
        now(response)
    });
    store(&scene, &["bytes=0-5"]).await;
    let mut response = scene.send(get("/a", &[])).await.unwrap();
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "012345");
    feed.send(Ok("6789".into())).await.unwrap();
    drop(feed);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "6789");
    assert!(scene.get("/a").await.is_hit());
}

#[tokio::test]
async fn a_cookie_of_the_rest_goes_to_the_client_whose_request_brought_it() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.set("set-cookie", "session=2");
    site.set("x-own", "2");
    site.set("cache-control", "max-age=60, private=\"x-own\"");
    let got = scene.get("/a").await;
    assert_eq!((got.header("set-cookie"), got.header("x-own")), ("session=2", "2"));
    assert_eq!(got.header("cache-control"), "max-age=60, private=\"x-own\"");
    let got = scene.get("/a").await;
    assert_eq!((got.is_hit(), got.header("set-cookie"), got.header("x-own")), (true, "", ""));
}

#[tokio::test]
async fn a_cookie_of_the_rest_does_not_go_to_those_who_wait() {
    let site = Site::of(TEN);
    let slow = site.clone();
    let scene = Scene::new(move |_, request| after(50 * SECOND / 1000, slow.answer(&request)));
    store(&scene, &["bytes=0-5"]).await;
    site.set("set-cookie", "session=2");
    let got = join_all((0..20).map(|_| scene.get("/a"))).await;
    assert!(got.iter().all(|got| whole(got) == (200, TEN, "10", "")));
    assert_eq!(got.iter().filter(|got| got.header("set-cookie") == "session=2").count(), 1);
    assert_eq!((scene.asked(), scene.cache.stats().collapsed), (2, 19), "one asks, for the rest");
    assert_eq!(scene.store.responses(), 1);
}

#[tokio::test]
async fn what_may_not_be_kept_is_answered_and_the_part_goes_with_it() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    site.set("cache-control", "no-store");
    assert_eq!(whole(&scene.get("/a").await), (200, TEN, "10", ""));
    assert_eq!((site.last().0, scene.store.responses()), (Some("bytes=6-".into()), 0));

    // But not for a request that may not be kept.
    site.set("cache-control", "max-age=60");
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    assert_eq!(scene.ask(get("/a", &[("cache-control", "no-store")])).await.body, TEN);
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());

    // Nor where there is no room for the whole.
    let scene = with_parts(&site, &["bytes=0-5"]).await;
    *scene.store.is_closed.lock() = true;
    assert_eq!(scene.get("/a").await.body, TEN);
    assert!(scene.ask(range("bytes=1-2")).await.is_hit());
}

#[tokio::test]
async fn trailers_of_the_rest_are_passed_on_and_kept() {
    let site = Site::of(TEN);
    let ending = site.clone();
    let scene = Scene::new(move |_, request| {
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static(if request.headers().contains_key("if-range") { "2" } else { "1" }),
        )]);
        now(ending.answer(&request).map(|body| body.with_trailers(Some(trailers))))
    });
    store(&scene, &["bytes=-4"]).await;
    for _ in 0..2 {
        let got = scene.get("/a").await;
        assert_eq!(
            (got.body.as_str(), &got.trailers.unwrap()["x-sum"]),
            (TEN, &HeaderValue::from_static("2"))
        );
    }
}

/// A scene with a stored part in which the rest is on its way, held up until the sender says more.
async fn with_rest_on_its_way(
    site: &Site,
) -> (Scene, Response<Body>, tokio::sync::mpsc::Sender<Result<bytes::Bytes, larder::BoxError>>) {
    let (feed, body) = fed(None);
    let (slow, body) = (site.clone(), Mutex::new(Some(body)));
    let scene = Scene::new(move |_, request| {
        let mut response = slow.answer(&request);
        if request.headers().contains_key("if-range")
            && let Some(body) = body.lock().take()
        {
            *response.body_mut() = body;
        }
        now(response)
    });
    store(&scene, &["bytes=0-5"]).await;
    let response = scene.send(get("/a", &[])).await.unwrap();
    (scene, response, feed)
}

#[tokio::test]
async fn what_is_purged_while_the_rest_arrives_is_not_kept_in_the_whole() {
    for how in [Purge::Hard, Purge::Soft] {
        let (scene, response, feed) = with_rest_on_its_way(&Site::of(TEN)).await;
        assert!(scene.cache.purge(&uri("/a"), how).await.unwrap());
        feed.send(Ok("6789".into())).await.unwrap();
        drop(feed);
        assert_eq!(read(response).await.unwrap().body, TEN);
        assert_eq!(
            scene.store.responses(),
            usize::from(how == Purge::Soft),
            "the part, if it is still there"
        );
        assert!(!scene.get("/a").await.is_hit());
    }
}

#[tokio::test]
async fn what_is_made_of_a_part_that_another_process_took_out_is_not_kept() {
    let (scene, response, feed) = with_rest_on_its_way(&Site::of(TEN)).await;
    scene.store.change(&uri("/a"), &|_| Some(Variants::default())).await.unwrap();
    feed.send(Ok("6789".into())).await.unwrap();
    drop(feed);
    assert_eq!(read(response).await.unwrap().body, TEN);
    assert_eq!(scene.store.responses(), 0);
}

#[tokio::test]
async fn a_part_that_is_gone_is_forgotten_and_all_is_asked_for() {
    for (asked, body, wanted) in
        [(get("/a", &[]), TEN, None), (range("bytes=3-6"), "3456", Some("bytes=3-6".to_owned()))]
    {
        let site = Site::of(TEN);
        let scene = with_parts(&site, &["bytes=0-4", "bytes=5-7"]).await;
        scene.store.is_bare.store(true, Ordering::SeqCst);
        assert_eq!(scene.ask(asked).await.body, body);
        assert_eq!((site.last(), scene.cache.stats().healed), ((wanted.clone(), None), 1));
        // A new whole takes the place of the other part as well.
        assert_eq!(scene.store.responses(), if wanted.is_none() { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_left_and_all_is_asked_for() {
    let site = Site::of(TEN);
    let scene = with_parts(&site, &["bytes=0-4", "bytes=5-7"]).await;
    scene.store.is_unreadable.store(true, Ordering::SeqCst);
    assert_eq!(scene.ask(range("bytes=3-6")).await.body, "3456");
    assert_eq!((scene.cache.stats().healed, scene.store.responses()), (0, 3));
}

#[tokio::test]
async fn a_part_that_goes_while_it_is_read_ends_the_body_and_nothing_is_kept() {
    let content = "x".repeat(300_000);
    let site = Site::of(&content);
    let (feed, body) = fed(None);
    let (slow, body) = (site.clone(), Mutex::new(Some(body)));
    let scene = Scene::new(move |_, request| {
        let mut response = slow.answer(&request);
        if request.headers().contains_key("if-range") {
            *response.body_mut() = body.lock().take().unwrap();
        }
        now(response)
    });
    store(&scene, &["bytes=100000-"]).await;
    let response = scene.send(get("/a", &[])).await.unwrap();
    // Its beginning was looked at, and is there.
    scene.store.is_bare.store(true, Ordering::SeqCst);
    feed.send(Ok(content[..100_000].to_owned().into())).await.unwrap();
    drop(feed);
    let error = read(response).await.map(|got| got.body.len()).unwrap_err().to_string();
    assert_eq!(error, "the response ended before its end: what was stored of it is gone");
    assert_eq!(scene.store.responses(), 1, "the part that was there");
}

fn shelf(_: &ManualClock, shelf: Arc<Shelf>) -> Arc<dyn HttpStore> {
    shelf
}

fn memory(clock: &ManualClock, _: Arc<Shelf>) -> Arc<dyn HttpStore> {
    Arc::new(MemoryStore::new(MemoryStoreOptions::default()).with_clock(clock.clone()))
}

fn stack(clock: &ManualClock, _: Arc<Shelf>) -> Arc<dyn HttpStore> {
    let driver: Arc<dyn larder::driver::Driver> = Arc::new(MemoryDriver::default());
    let open = |name: &str| {
        let stack = Stack::builder(name).prefix("http").borrowed_store(Arc::clone(&driver));
        stack.clock(Arc::new(clock.clone()))
    };
    let bodies = open("bodies").build().unwrap();
    let memory = larder::memory::MemoryOptions::new(1000);
    let stack = open("http").memory(memory).build().unwrap();
    let policy = larder_http::policy::Policy::shared();
    Arc::new(StackStore::builder(&stack, policy).bodies(&bodies).build().unwrap())
}

#[tokio::test]
async fn long_bodies_are_joined_and_completed_over_every_store() {
    // Every number once, so that nothing can be in the wrong place.
    let content: String = (0..150_000).map(|number| format!("{number:06} ")).collect();
    let length = content.len();
    for (name, choose) in [
        ("shelf", shelf as fn(&ManualClock, Arc<Shelf>) -> Arc<dyn HttpStore>),
        ("memory", memory),
        ("stack", stack),
    ] {
        for (stored, rest) in [
            (&["bytes=0-300000", "bytes=250000-599999"][..], "bytes=600000-".to_owned()),
            (&["bytes=700001-", "bytes=600000-700000"], "bytes=0-599999".to_owned()),
        ] {
            let site = Site::of(&content);
            let (answering, build) = (site.clone(), |builder| builder);
            let scene = Scene::over(build, choose, move |_, request| {
                let answer: Answer = now(answering.answer(&request));
                answer
            });
            store(&scene, stored).await;
            let across = if rest.starts_with("bytes=0") { 600_001..900_001 } else { 1..500_000 };
            let got = scene.ask(range(&format!("bytes={}-{}", across.start, across.end - 1))).await;
            assert!(got.is_hit() && got.body == content[across], "{name}");
            let got = scene.get("/a").await;
            assert!(got.body == content, "{name}");
            assert_eq!(site.last(), (Some(rest), Some("\"a\"".into())));
            let got = scene.get("/a").await;
            assert!(got.is_hit() && got.body == content, "{name}");
            assert_eq!(got.header("content-length"), length.to_string());
            let kept = scene.cache.store().get(&uri("/a")).await.unwrap().unwrap();
            assert_eq!((kept.responses().len(), kept.responses()[0].stored.status().as_u16()), (1, 200));
            assert_eq!(scene.asked(), 3, "{name}");
        }
    }
}
