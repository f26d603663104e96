//! Many who wait for one: that costs neither memory for each of them, nor the time of those who do not belong to it.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::scene::{Client, Origin, Serving, answer, fresh, get};
use crate::harness::until;

#[cfg(target_os = "linux")]
#[test]
fn slow_readers_of_one_large_body_cost_no_memory_each() {
    const BYTES: usize = 24 << 20;
    const READERS: usize = 200;
    let origin = Origin::doing(|_, stream| {
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: {BYTES}\r\nCache-Control: max-age=60\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        (0..BYTES / 65_536).all(|_| stream.write_all(&[b'x'; 65_536]).is_ok())
    });
    // Memory alone keeps no body that is more than a sixteenth of it.
    let serving = Serving::with(&origin, "", "cache: { memory_bytes: 512MiB }");
    let before = serving.peak_bytes();
    let mut readers: Vec<Client> = (0..READERS).map(|_| serving.client()).collect();
    for reader in &mut readers {
        reader.say(get("/", ""));
    }
    for reader in &mut readers {
        assert!(reader.hear_head().starts_with("HTTP/1.1 200"));
        assert_eq!(reader.take(1024), 1024);
    }
    // One of them reads all of it, the others nothing.
    let mut reader = readers.pop().unwrap();
    assert_eq!(reader.take(BYTES as u64 - 1024), BYTES as u64 - 1024);
    assert_eq!(origin.asked(), 1);
    if let Some((after, before)) = serving.peak_bytes().zip(before) {
        let cost = after - before;
        // If each had a copy, it would be more than four gigabytes.
        assert!(cost < 256 << 20, "{READERS} readers cost {} MiB", cost >> 20);
    }
    // And the slow ones lose nothing.
    for mut reader in readers.into_iter().take(3) {
        assert_eq!(reader.take(BYTES as u64 - 1024), BYTES as u64 - 1024);
    }
}

/// Lets this process, and those that it starts, open so many files. False if that may not be.
fn may_open(files: u64) -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let is_enough = |most: Option<u64>| most.is_none_or(|most| most >= files);
    if is_enough(limit.current) {
        return true;
    }
    is_enough(limit.maximum)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: limit.maximum }).is_ok()
}

#[test]
fn a_thousand_who_ask_at_once_for_what_is_not_there_are_one_request() {
    crowd(false);
}

/// Some join just when it ends.
#[test]
fn so_are_a_thousand_whose_answer_comes_as_a_whole() {
    (0..5).for_each(|_| crowd(true));
}

fn crowd(is_whole: bool) {
    const CLIENTS: usize = 1_000;
    const BYTES: usize = 20_000;
    // A connection has two ends here: ours, and that of the server, which has as many files as we may have.
    if !may_open(CLIENTS as u64 * 2) {
        println!("not tested: this process may not open {} files (see ulimit -Hn)", CLIENTS * 2);
        return;
    }
    let said = Arc::new(AtomicUsize::new(0));
    let says = Arc::clone(&said);
    let origin = Origin::doing(move |_, stream| {
        let all = fresh("x".repeat(BYTES));
        // First the head and half of it, then the rest, each when it is asked for.
        let (first, rest) = all.split_at(all.len() - BYTES / 2);
        [first, rest].iter().zip(1..).all(|(piece, nth)| {
            while says.load(Ordering::Relaxed) < nth {
                thread::sleep(Duration::from_millis(5));
            }
            stream.write_all(piece).is_ok()
        })
    });
    let token = "only-operators-know-this";
    let serving = Serving::with(&origin, "", &format!("admin: {{ listen: '127.0.0.1:0', token: {token} }}"));
    let desk = serving.place("admin on http");
    let mut all: Vec<Client> = (0..CLIENTS).map(|_| serving.client()).collect();
    for client in &mut all {
        client.say(get("/crowd", ""));
    }
    until("all of them wait", || {
        let mut operator = Client::to(desk);
        operator.say(get("/stats", &format!("Authorization: Bearer {token}\r\n")));
        let stats: serde_json::Value = serde_json::from_str(&operator.hear().unwrap().text()).unwrap();
        stats.pointer("/counts/misses") == Some(&serde_json::json!(CLIENTS))
    });
    said.store(if is_whole { 2 } else { 1 }, Ordering::Relaxed);
    let heads: Vec<String> = all.iter_mut().map(Client::hear_head).collect();
    assert!(heads.iter().all(|head| head.starts_with("HTTP/1.1 200 ")));
    // Who is late for that finds it stored.
    let is_shared = |head: &&String| head.contains("; collapsed") || head.contains("; hit");
    let shared = heads.iter().filter(is_shared).count();
    said.store(2, Ordering::Relaxed);
    for client in &mut all {
        assert_eq!(client.take(BYTES as u64), BYTES as u64);
    }
    assert_eq!((origin.asked(), shared), (1, CLIENTS - 1));
}

/// An origin that says half of a body, and the rest when it is told to.
fn in_halves() -> (Origin, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::doing(move |_, stream| {
        let mut all = fresh("x".repeat(200_000));
        let half = all.split_off(all.len() - 100_000);
        stream.write_all(&all).unwrap();
        if wait.lock().unwrap().recv().is_err() {
            // Nobody will say it: it never ends.
            thread::park();
        }
        stream.write_all(&half).is_ok()
    });
    (origin, go)
}

#[test]
fn the_first_may_go_and_the_others_get_it_all() {
    let (origin, go) = in_halves();
    let serving = Serving::of(&origin);
    let mut all: Vec<Client> = (0..20).map(|_| serving.client()).collect();
    for client in &mut all {
        client.say(get("/", ""));
        client.hear_head();
        assert_eq!(client.take(100_000), 100_000);
    }
    drop(all.remove(0));
    go.send(()).unwrap();
    for client in &mut all {
        assert_eq!(client.take(100_000), 100_000);
    }
    assert!(serving.hit("/", "").is_hit());
    assert_eq!(origin.asked(), 1);
}

#[test]
fn a_response_that_never_ends_keeps_nobody_for_ever() {
    let (origin, go) = in_halves();
    drop(go);
    let serving = Serving::with(&origin, "timeouts: { body: 500ms, response: 500ms }, ", "");
    let mut all: Vec<Client> = (0..10).map(|_| serving.client()).collect();
    for client in &mut all {
        client.say(get("/", ""));
    }
    for client in &mut all {
        assert!(client.hear().unwrap().body.is_none());
    }
    assert!(!serving.get("/", "").is_hit());
    assert_eq!(origin.asked(), 2);
}

#[test]
fn an_origin_that_never_answers_keeps_nobody_for_ever() {
    let origin = Origin::doing(|_, _| {
        thread::park();
        false
    });
    let serving = Serving::with(&origin, "timeouts: { response: 500ms }, retries: 0, ", "");
    let mut all: Vec<Client> = (0..10).map(|_| serving.client()).collect();
    for client in &mut all {
        client.say(get("/", ""));
    }
    for client in &mut all {
        let status = client.hear().unwrap().status;
        assert!(status == 504 || status == 502, "{status}");
    }
    // They did not ask one after the other.
    assert!(origin.asked() < 5, "{}", origin.asked());
}

#[test]
fn those_whose_answers_are_their_own_do_not_wait_for_each_other() {
    const TAKES: Duration = Duration::from_millis(300);
    for fields in [
        "Cache-Control: no-store\r\n",
        "Cache-Control: private\r\n",
        "",
        "Vary: *\r\nCache-Control: max-age=60\r\n",
    ] {
        let origin = Origin::doing(move |_, stream| {
            thread::sleep(TAKES);
            stream.write_all(&answer(200, fields, "x")).is_ok()
        });
        let serving = Serving::of(&origin);
        #[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
        let began = Instant::now();
        let mut all: Vec<Client> = (0..30).map(|_| serving.client()).collect();
        for client in &mut all {
            client.say(get("/", ""));
        }
        for client in &mut all {
            assert_eq!(client.hear().unwrap().text(), "x");
        }
        // One after the other would be nine seconds. The first one is waited for, the others are not.
        assert!(began.elapsed() < TAKES * 15, "{fields}: {:?}", began.elapsed());
        assert_eq!(origin.asked(), 30);
    }
}

#[test]
fn one_target_that_is_slow_does_not_hold_up_another() {
    let origin = Origin::doing(|seen, stream| {
        if seen.target() == "/slow" {
            thread::park();
        }
        stream.write_all(&fresh(seen.target())).is_ok()
    });
    let serving = Serving::of(&origin);
    let mut slow: Vec<Client> = (0..50).map(|_| serving.client()).collect();
    for client in &mut slow {
        client.say(get("/slow", ""));
    }
    until("it is asked for", || origin.asked() > 0);
    for at in 0..20 {
        let target = format!("/{at}");
        assert_eq!(serving.get(&target, "").text(), target);
    }
}
