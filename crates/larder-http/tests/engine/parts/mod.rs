//! Parts that are stored: together they answer what none of them does, and only the rest of them is asked for.

mod any_order;
mod queries;
mod rest;
mod together;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use larder_http::Body;
use parking_lot::Mutex;

use crate::scene::{Got, Scene, get, now};

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
        let mut response = Response::builder();
        for (name, value) in &state.fields {
            response = response.header(*name, value);
        }
        let tag = state.fields.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone());
        if tag.is_some() && field("if-none-match") == tag {
            return response.status(304).body(Body::empty()).unwrap();
        }
        let range = range.filter(|_| condition.is_none() || condition == tag);
        let length = state.content.len();
        let span = range.as_ref().and_then(|range| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(match (first.parse::<usize>(), last.parse::<usize>()) {
                (Err(_), Ok(count)) => (length.saturating_sub(count), length - 1),
                (Ok(first), Ok(last)) => (first, last.min(length - 1)),
                (Ok(first), Err(_)) if last.is_empty() => (first, length - 1),
                _ => return None,
            })
        });
        match span {
            Some((first, _)) if first >= length => Response::builder()
                .status(416)
                .header("content-range", format!("bytes */{length}"))
                .body(Body::empty()),
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
