//! What `tracing` sees, by a subscriber that writes it down.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex};

use larder::testing::{Harness, Tiers};
use larder::trace::TracingObserver;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber, subscriber};
use tracing_core::span::Current;

/// What was seen: spans with the names of those that they lie in, and events.
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    spans: BTreeMap<u64, &'static Metadata<'static>>,
    entered: Vec<u64>,
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Notebook {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "larder" || metadata.target() == "test"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut notes = self.0.lock().unwrap();
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        let outer = notes.entered.last().map_or("-", |id| notes.spans[id].name());
        let line = format!("span {} in {outer}:{}", span.metadata().name(), fields.0);
        notes.lines.push(line);
        let id = notes.spans.len() as u64 + 1;
        notes.spans.insert(id, span.metadata());
        Id::from_u64(id)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let line = format!("{}{}", event.metadata().level(), fields.0);
        self.0.lock().unwrap().lines.push(line);
    }
    fn enter(&self, id: &Id) {
        self.0.lock().unwrap().entered.push(id.into_u64());
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
    fn current_span(&self) -> Current {
        let notes = self.0.lock().unwrap();
        let current = notes.entered.last();
        current.map_or_else(Current::none, |id| Current::new(Id::from_u64(*id), notes.spans[id]))
    }
}

#[test]
fn a_load_and_the_calls_of_the_store_are_spans_within_the_callers() {
    use tracing::Instrument as _;
    let notebook = Notebook::default();
    subscriber::with_default(notebook.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let harness = Harness::new(Tiers::Both);
            let cache = harness.stack.cache::<u32>().unwrap();
            let request = tracing::info_span!(target: "test", "request");
            async { cache.get_or_set("a", || async { Ok::<_, std::io::Error>(1) }).await.unwrap() }
                .instrument(request)
                .await;
            harness.finish(1).await;
        });
    });
    let lines = notebook.0.lock().unwrap().lines.clone();
    let expected = [
        "span request in -:",
        "span larder.store in request: stack=\"test\" driver=\"memory\" operation=\"get\"",
        "span larder.load in request: stack=\"test\" namespace=\"\" key=\"a\" keys=1",
        "span larder.store in request: stack=\"test\" driver=\"memory\" operation=\"set\"",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_observer_makes_every_event_one_of_tracing() {
    let notebook = Notebook::default();
    subscriber::with_default(notebook.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let harness = Harness::with(Tiers::L1, |builder| builder.observer(Arc::new(TracingObserver)));
            let cache = harness.stack.cache::<u32>().unwrap();
            cache.set("a", 1).await.unwrap();
            cache.get("a").await.unwrap();
            let load = || async { Err::<u32, _>(std::io::Error::other("down")) };
            cache.namespace("n").unwrap().get_or_set("b", load).await.unwrap_err();
            harness.finish(2).await;
        });
    });
    let lines = notebook.0.lock().unwrap().lines.clone();
    assert_eq!(lines[0], "DEBUG stack=\"test\" event=\"written\" key=\"a\" ttl_us=1800000000");
    assert_eq!(lines[1], "TRACE stack=\"test\" event=\"hit\" key=\"a\" tier=\"L1\" stale=false");
    let failed = lines.iter().find(|line| line.contains("load_failed")).unwrap();
    assert!(
        failed.starts_with("WARN stack=\"test\" event=\"load_failed\" namespace=\"n\" key=\"b\" error="),
        "{failed}"
    );
}

#[test]
fn the_steps_of_an_account_are_events_for_whoever_wants_their_target() {
    #[derive(Clone, Default)]
    struct Steps(Arc<Mutex<Vec<String>>>);
    impl Subscriber for Steps {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "larder::explain"
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(format!("{}{}", event.metadata().level(), fields.0));
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }
    let steps = Steps::default();
    subscriber::with_default(steps.clone(), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let harness = Harness::new(Tiers::L1);
            harness.stack.cache::<u32>().unwrap().namespace("n").unwrap().get("a").await.unwrap();
        });
    });
    let expected = [
        "TRACE message=memory: nothing stack=\"test\" namespace=\"n\" key=\"a\"",
        "TRACE message=miss stack=\"test\" namespace=\"n\" key=\"a\"",
    ];
    assert_eq!(*steps.0.lock().unwrap(), expected);
}
