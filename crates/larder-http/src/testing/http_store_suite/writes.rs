//! Bodies on their way: read while they are written, kept only if they ended well.

use std::sync::Arc;

use bytes::Bytes;

use super::{Sample, assert_same, get, must, noise, only, put, read, there};
use crate::policy::{Policy, Stored};
use crate::store::{HttpStore, ReadBody, ResponseId, StoredBody, StoredResponse, WriteBody};

async fn create(store: &dyn HttpStore, target: &str) -> (Box<dyn WriteBody>, Stored) {
    let head = Stored::new(&Policy::shared(), Sample::new("").kept);
    let writer = must(store.create(target, &head).await, "a body may be written");
    (there(writer, "a writer of a body"), head)
}

/// What a reader has of the first bytes.
async fn read_all(reader: &dyn ReadBody, bytes: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while (all.len() as u64) < bytes {
        let at = all.len() as u64;
        let piece = must(reader.read(at).await, format_args!("what is written is read at {at}"));
        all.extend_from_slice(&there(piece, format_args!("a piece at {at} of {bytes} bytes")));
    }
    all.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    all
}

/// Only a change puts it there.
pub async fn a_body_alone_is_not_found(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/alone";
    Sample::new(noise(600_000, 1)).written(&*store, target).await;
    assert!(get(&*store, target).await.is_none());
}

/// An aborted transfer leaves what was there, or nothing.
pub async fn a_body_that_is_given_up_is_kept_nowhere(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/abort";
    for (size, before) in [(10, None), (600_000, None), (600_000, Some("before"))] {
        if let Some(before) = before {
            Sample::new(before).put(&*store, target).await;
        }
        let (mut writer, _) = create(&*store, target).await;
        must(writer.write(noise(size, 2)).await, "a piece is written");
        drop(writer);
        match before {
            None => assert!(get(&*store, target).await.is_none()),
            Some(before) => {
                assert_same(&read(&*only(&*store, target).await).await, before.as_bytes(), "what was there")
            }
        }
    }
}

/// What can be read is what was written, at every point.
pub async fn a_body_is_read_while_it_is_written(store: Arc<dyn HttpStore>) {
    let target = "http://a.example/growing";
    let body = noise(1_200_000, 4);
    let (mut writer, head) = create(&*store, target).await;
    let reader = writer.reader();
    assert!(must(reader.read(0).await, "what is not there yet is read").is_none());
    let mut written = 0;
    for piece in body.chunks(77_777) {
        must(writer.write(Bytes::copy_from_slice(piece)).await, "a piece is written");
        written += piece.len();
        let readable = writer.readable_bytes();
        assert!(readable <= written as u64, "no more can be read than was written");
        let found = read_all(&*reader, readable).await;
        assert_same(&found, &body.slice(..found.len()), "what is written so far");
        let later = writer.reader();
        assert_same(&read_all(&*later, readable).await, &found, "what a later reader reads");
    }
    let body_stored = must(writer.finish().await, "a body is finished");
    let response =
        StoredResponse::new(ResponseId::random(), head, super::now() + super::seconds(60), body_stored);
    put(&*store, target, &Arc::new(response)).await;
    assert_same(&read(&*only(&*store, target).await).await, &body, "what was stored");
}

/// Who joined while it was arriving reads it to its end.
pub async fn a_reader_outlives_the_end_of_the_writing(store: Arc<dyn HttpStore>) {
    for size in [9_000, 700_000] {
        let target = format!("http://a.example/joined/{size}");
        let body = noise(size, 6);
        let (mut writer, head) = create(&*store, &target).await;
        must(writer.write(body.slice(..size / 2)).await, "half a body is written");
        let reader = writer.reader();
        must(writer.write(body.slice(size / 2..)).await, "the rest is written");
        let stored = must(writer.finish().await, "a body is finished");
        assert_same(&read_all(&*reader, size as u64).await, &body, "what a reader has of a finished body");
        let response =
            StoredResponse::new(ResponseId::random(), head, super::now() + super::seconds(60), stored);
        put(&*store, &target, &Arc::new(response)).await;
        assert_same(&read_all(&*reader, size as u64).await, &body, "what a reader has of a stored body");
    }
}

/// From a byte to all at once.
pub async fn pieces_of_every_size_make_one_body(store: Arc<dyn HttpStore>) {
    for (size, piece) in
        [(3_000, 1), (600_000, 999), (600_000, 262_144), (600_000, 262_145), (2_000_000, 2_000_000)]
    {
        let target = format!("http://a.example/pieces/{size}/{piece}");
        let body = noise(size, piece as u64);
        let (mut writer, head) = create(&*store, &target).await;
        must(writer.write(Bytes::new()).await, "an empty piece is written");
        for at in (0..size).step_by(piece) {
            must(writer.write(body.slice(at..size.min(at + piece))).await, "a piece is written");
        }
        let stored = must(writer.finish().await, "a body is finished");
        let response =
            StoredResponse::new(ResponseId::random(), head, super::now() + super::seconds(60), stored);
        put(&*store, &target, &Arc::new(response)).await;
        assert_same(
            &read(&*only(&*store, &target).await).await,
            &body,
            format_args!("pieces of {piece} bytes"),
        );
    }
}

/// Of several, to one target and to others.
pub async fn bodies_that_come_together_do_not_mix(store: Arc<dyn HttpStore>) {
    let tasks: Vec<_> = (0..12_u64)
        .map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let target = format!("http://a.example/together/{}", task % 4);
                let name = task.to_string();
                let sample = Sample::new(noise(300_000, task)).vary("accept", Some(&name));
                let id = sample.put(&*store, &target).await;
                (target, id, sample.body)
            })
        })
        .collect();
    for task in tasks {
        let (target, id, body) = must(task.await, "a task ends");
        let variants = there(get(&*store, &target).await, "responses");
        let found = there(variants.by_id(id).cloned(), "a response by its id");
        assert_same(&read(&found).await, &body, "a body that came with others");
    }
}

/// What the cache notes for itself has a body that is there at once, and a name that is no URL.
pub async fn a_small_body_needs_no_writer(store: Arc<dyn HttpStore>) {
    for (target, bytes) in
        [("a note http://a.example", &b""[..]), ("http://a.example/?a=b#note", &b"small"[..])]
    {
        let mut note = Sample::new("").written(&*store, target).await;
        note.body = StoredBody::from_bytes(Bytes::from_static(bytes));
        note.stored = note.stored.with_body_bytes(bytes.len() as u64);
        put(&*store, target, &Arc::new(note)).await;
        assert_same(&read(&*only(&*store, target).await).await, bytes, "what is noted");
    }
}
