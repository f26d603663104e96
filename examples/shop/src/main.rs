//! A small shop with a database, to be put behind `larder serve`: docs/serve-tour.md walks through it. It knows nothing
//! of caches but what HTTP has for them: how long a page holds, which version it is, and what it was made from.
//!
//! `cargo run --package shop [ADDRESS [DATABASE]]`; by default 127.0.0.1:8000, and a database in memory.

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use rusqlite::{Connection, params};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER, version INTEGER DEFAULT 1);
    INSERT OR IGNORE INTO items (id, name, cents) VALUES (1, 'Teapot', 2400), (2, 'Kettle', 3900), (3, 'Cup', 650);";

type Shop = Arc<Mutex<Connection>>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let database = args.next().map_or_else(Connection::open_in_memory, Connection::open)?;
    database.execute_batch(SCHEMA)?;
    let app = Router::new()
        .route("/", get(items))
        .route("/items/{id}", get(item).post(set_price))
        .route("/report", get(report))
        .route("/basket", get(basket))
        .route("/sale", post(sale))
        .layer(middleware::from_fn(note))
        .with_state(Arc::new(Mutex::new(database)));
    let listener = tokio::net::TcpListener::bind(&address).await?;
    // As the listener has it: the port may have been left to the system.
    writeln!(std::io::stderr(), "the shop is open at http://{}", listener.local_addr()?)?;
    Ok(axum::serve(listener, app).await?)
}

/// All items. Made from each of them, which its tags say.
async fn items(State(shop): State<Shop>, headers: HeaderMap) -> Result<Response, Failure> {
    let mut text = String::new();
    let mut versions = 0;
    for item in read(&shop, None)? {
        text += &item.text();
        versions += item.version;
    }
    let page = Page {
        etag: format!("\"items-{versions}\""),
        holds: "public, max-age=60, stale-while-revalidate=300",
        tags: ("cache-tag", "items, item-1, item-2, item-3".to_owned()),
        text,
    };
    Ok(page.answer(&headers))
}

/// One item.
async fn item(
    State(shop): State<Shop>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let items = read(&shop, Some(id))?;
    let Some(item) = items.first() else {
        return Ok((StatusCode::NOT_FOUND, "no such item\n").into_response());
    };
    let page = Page {
        etag: format!("\"{id}-{}\"", item.version),
        holds: "public, max-age=60, stale-while-revalidate=300",
        tags: ("cache-tag", format!("items, item-{id}")),
        text: item.text(),
    };
    Ok(page.answer(&headers))
}

/// What the stock is worth. It takes two seconds, as reports do.
async fn report(State(shop): State<Shop>, headers: HeaderMap) -> Result<Response, Failure> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let items = read(&shop, None)?;
    let versions: i64 = items.iter().map(|item| item.version).sum();
    let page = Page {
        etag: format!("\"report-{versions}\""),
        holds: "public, max-age=5, stale-while-revalidate=60",
        // The same as Cache-Tag, as others call it: words with spaces between.
        tags: ("surrogate-key", "items report".to_owned()),
        text: format!("the stock is worth {}\n", price(items.iter().map(|item| item.cents).sum())),
    };
    Ok(page.answer(&headers))
}

/// What one visitor has chosen: nobody else's business.
async fn basket() -> Response {
    ([(CACHE_CONTROL, "private, no-store")], "your basket is empty\n").into_response()
}

/// Sets the price of an item, in cents. HTTP tells every cache on the way that this page is out of date, and so is the
/// one that the answer leads to.
async fn set_price(State(shop): State<Shop>, Path(id): Path<i64>, body: String) -> Result<Response, Failure> {
    let Ok(cents) = body.trim().parse::<i64>() else {
        return Ok((StatusCode::BAD_REQUEST, "a price is a number of cents\n").into_response());
    };
    let database = shop.lock().unwrap_or_else(PoisonError::into_inner);
    database
        .execute("UPDATE items SET cents = ?2, version = version + 1 WHERE id = ?1", params![id, cents])?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response())
}

/// Takes a part of all prices, in percent. No URL says which pages this changes: only their tags do.
async fn sale(State(shop): State<Shop>, body: String) -> Result<Response, Failure> {
    let Some(percent) = body.trim().parse::<i64>().ok().filter(|percent| (0..=100).contains(percent)) else {
        return Ok((StatusCode::BAD_REQUEST, "a sale is a number of percent\n").into_response());
    };
    let database = shop.lock().unwrap_or_else(PoisonError::into_inner);
    database
        .execute("UPDATE items SET cents = cents * (100 - ?1) / 100, version = version + 1", [percent])?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Says on stderr what reaches the shop, so that one sees what a cache keeps from it.
async fn note(request: Request, next: Next) -> Response {
    let line = format!("the shop was asked: {} {}\n", request.method(), request.uri());
    // Nobody may be reading.
    let _ = std::io::stderr().write_all(line.as_bytes());
    next.run(request).await
}

/// A page that may be stored.
struct Page {
    etag: String,
    /// For how long, as Cache-Control says it.
    holds: &'static str,
    /// What it was made from, and in which field that is said.
    tags: (&'static str, String),
    text: String,
}

impl Page {
    /// The page, or that the one which the client has still holds.
    fn answer(self, asked: &HeaderMap) -> Response {
        let is_known = asked.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == self.etag.as_bytes());
        let (tag_field, tags) = self.tags;
        let fields =
            [(CACHE_CONTROL.as_str(), self.holds.to_owned()), (ETAG.as_str(), self.etag), (tag_field, tags)];
        if is_known {
            return (StatusCode::NOT_MODIFIED, fields).into_response();
        }
        (fields, [(CONTENT_TYPE, "text/plain; charset=utf-8")], self.text).into_response()
    }
}

struct Item {
    name: String,
    cents: i64,
    version: i64,
}

impl Item {
    fn text(&self) -> String {
        format!("{}: {}\n", self.name, price(self.cents))
    }
}

fn price(cents: i64) -> String {
    format!("{}.{:02} €", cents / 100, cents % 100)
}

/// One item, or all of them.
fn read(shop: &Shop, id: Option<i64>) -> rusqlite::Result<Vec<Item>> {
    let database = shop.lock().unwrap_or_else(PoisonError::into_inner);
    let mut query = database
        .prepare_cached("SELECT name, cents, version FROM items WHERE ?1 IS NULL OR id = ?1 ORDER BY id")?;
    let items = query
        .query_map([id], |row| Ok(Item { name: row.get(0)?, cents: row.get(1)?, version: row.get(2)? }))?;
    items.collect()
}

/// The database failed.
struct Failure(rusqlite::Error);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("reading the shop's database failed: {}\n", self.0))
            .into_response()
    }
}
