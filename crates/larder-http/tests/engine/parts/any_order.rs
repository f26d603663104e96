//! Whatever is asked for in whatever order: every response is of one version, and has the bytes that it says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use larder_http::store::Purge;
use proptest::prelude::*;

use super::Site;
use crate::scene::{Got, Scene, now, read, request, uri};

/// What clients ask for with `If-Range` of their own.
const OWN: &str = "bytes=3-9";

#[derive(Debug, Clone)]
enum Step {
    /// This method, with these fields.
    Ask(&'static str, Vec<(&'static str, String)>),
    Wait(u64),
    /// The origin has another version of so many bytes from now on.
    Change(usize),
    Purge(Purge),
    /// The next rest that comes ends so much too early, without an error.
    Short(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ranged = |range: String| Step::Ask("GET", vec![("range", range)]);
    let step = prop_oneof![
        5 => Just(Step::Ask("GET", Vec::new())),
        8 => (0..30_u64, 0..15_u64).prop_map(move |(first, more)| ranged(format!("bytes={first}-{}", first + more))),
        2 => (0..30_u64).prop_map(move |first| ranged(format!("bytes={first}-"))),
        2 => (1..15_u64).prop_map(move |last| ranged(format!("bytes=-{last}"))),
        1 => (0..10_u64, 11..25_u64).prop_map(move |(one, other)| ranged(format!("bytes={one}-{one},{other}-{}", other + 2))),
        1 => (0..3_usize).prop_map(|nth| {
            Step::Ask("GET", vec![("range", OWN.into()), ("if-range", format!("\"{nth}\""))])
        }),
        1 => (0..3_usize).prop_map(|nth| Step::Ask("GET", vec![("if-none-match", format!("\"{nth}\""))])),
        1 => Just(Step::Ask("HEAD", Vec::new())),
        1 => Just(Step::Ask("GET", vec![("cache-control", "no-cache".into())])),
        2 => (1..40_u64).prop_map(Step::Wait),
        1 => prop_oneof![Just(30_usize), Just(25)].prop_map(Step::Change),
        1 => prop_oneof![Just(Purge::Hard), Just(Purge::Soft)].prop_map(Step::Purge),
        1 => (1..9_usize).prop_map(Step::Short),
    ];
    proptest::collection::vec(step, 1..40)
}

/// No two versions have the same byte in the same place.
fn version(nth: usize, bytes: usize) -> String {
    (0..bytes).map(|at| char::from(b'A' + u8::try_from((nth * 7 + at) % 50).unwrap())).collect()
}

/// Whether it has the bytes of the version that it names.
fn is_true(got: &Got, versions: &HashMap<String, String>) -> bool {
    let Some(content) = versions.get(got.header("etag")) else { return got.status == 416 };
    match got.status {
        200 => got.body == *content && got.header("content-range").is_empty(),
        206 if got.header("content-type").starts_with("multipart/byteranges") => {
            let mut parts = got.body.split("Content-Range: bytes ").skip(1);
            parts.all(|part| {
                let (place, text) = part.split_once("\r\n\r\n").unwrap();
                text.starts_with(cut(content, place))
            })
        }
        206 => got.body == cut(content, got.header("content-range").strip_prefix("bytes ").unwrap()),
        304 => got.body.is_empty(),
        _ => false,
    }
}

/// What `2-4/10` is of a text of ten bytes.
fn cut<'a>(content: &'a str, place: &str) -> &'a str {
    let (span, length) = place.split_once('/').unwrap();
    let (first, last) = span.split_once('-').unwrap();
    assert_eq!(length, content.len().to_string());
    &content[first.parse().unwrap()..=last.parse().unwrap()]
}

async fn play(steps: Vec<Step>) {
    let mut versions = HashMap::from([("\"0\"".to_owned(), version(0, 30))]);
    let site = Site::of(&versions["\"0\""]);
    site.set("etag", "\"0\"");
    let (answering, short) = (site.clone(), Arc::new(AtomicUsize::new(0)));
    let shortened = Arc::clone(&short);
    let scene = Scene::new(move |_, request| {
        let mut response = answering.answer(&request);
        let is_rest = request.headers().contains_key("if-range") && request.headers()["range"] != OWN;
        if is_rest && response.status() == 206 {
            let less = shortened.swap(0, Ordering::SeqCst);
            let all = response.body().as_bytes().cloned().unwrap_or_default();
            *response.body_mut() = all.slice(..all.len().saturating_sub(less)).into();
        }
        now(response)
    });
    for step in steps {
        match step {
            Step::Ask(method, fields) => {
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let may_be_cut = short.load(Ordering::SeqCst) > 0;
                let got = match read(scene.send(request(method, "/a", &fields)).await.unwrap()).await {
                    Ok(got) => got,
                    Err(error) => {
                        assert!(may_be_cut, "{error}");
                        continue;
                    }
                };
                assert!(method != "GET" || is_true(&got, &versions), "{fields:?}: {got:?}");
            }
            Step::Wait(seconds) => scene.pass(Duration::from_secs(seconds)),
            Step::Change(bytes) => {
                let tag = format!("\"{}\"", versions.len());
                versions.insert(tag.clone(), version(versions.len(), bytes));
                site.change(&versions[&tag], &tag);
            }
            Step::Purge(how) => drop(scene.cache.purge(&uri("/a"), how).await.unwrap()),
            Step::Short(less) => short.store(less, Ordering::SeqCst),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_joined_and_completed_is_what_the_origin_has(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(play(steps));
    }
}
