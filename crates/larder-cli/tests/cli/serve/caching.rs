//! What is kept, what comes back, and what Cache-Status says of it.

use super::*;

#[test]
fn a_miss_is_stored_then_hit_and_stale_while_it_is_revalidated() {
    let room = Room::new();
    let origin =
        Origin::saying("HTTP/1.1 200 OK\nCache-Control: max-age=1, stale-while-revalidate=60", "page");
    let server = Server::before(&room, &origin);
    let miss = get(server.address(), "/a");
    assert_eq!(
        (miss.status, miss.cache().as_str(), miss.text().as_str()),
        (200, "Larder; fwd=uri-miss; stored", "page")
    );
    let hit = get(server.address(), "/a");
    assert_eq!((hit.cache().as_str(), hit.text().as_str()), ("Larder; hit", "page"));
    assert_eq!(origin.asked().len(), 1);
    // For a fraction of a second, which is told as a second that has begun.
    thread::sleep(Duration::from_millis(1_200));
    let stale = get(server.address(), "/a");
    assert_eq!((stale.cache().as_str(), stale.text().as_str()), ("Larder; hit", "page"));
    assert!(stale.field("cache-status").unwrap().contains("ttl=-"), "{stale:?}");
    until("the origin was asked behind the client's back", || origin.asked().len() > 1);
}

#[test]
fn what_may_not_be_kept_is_not() {
    let room = Room::new();
    let origin = Origin::saying("HTTP/1.1 200 OK\nCache-Control: private, max-age=60", "mine");
    let server = Server::before(&room, &origin);
    for _ in 0..2 {
        assert_eq!(get(server.address(), "/").cache(), "Larder; fwd=uri-miss");
    }
    assert_eq!(origin.asked().len(), 2);
}

#[test]
fn what_was_cached_survives_a_restart_in_a_sqlite_file() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let mut server = Server::with_store(&room, &origin, "sqlite:s.db");
    assert_eq!(get(server.address(), "/a").cache(), "Larder; fwd=uri-miss; stored");
    server.signal("-TERM");
    assert_eq!(server.ended(), Some(0));
    let server = Server::with_store(&room, &origin, "sqlite:s.db");
    let hit = get(server.address(), "/a");
    assert_eq!((hit.cache().as_str(), hit.text().as_str()), ("Larder; hit", "page"));
    assert_eq!(origin.asked().len(), 1);
}

#[test]
fn queries_that_mean_the_same_are_one_response_after_a_restart_too() {
    let room = Room::new();
    let origin = Origin::saying(&format!("{FRESH}\nNo-Vary-Search: params=(\"utm_source\")"), "page");
    let server = Server::with_store(&room, &origin, "sqlite:s.db");
    assert_eq!(get(server.address(), "/a?utm_source=x").cache(), "Larder; fwd=uri-miss; stored");
    assert_eq!(get(server.address(), "/a?utm_source=y").cache(), "Larder; hit");
    drop(server);
    let server = Server::with_store(&room, &origin, "sqlite:s.db");
    assert_eq!(get(server.address(), "/a?utm_source=z").cache(), "Larder; hit");
    let question = format!("{{\"urls\":[\"http://{HOST}/a\"]}}");
    let purged = server.desk(Some(TOKEN), "/purge", Some(&question));
    assert_eq!(purged.status, 200, "{}", purged.text());
    assert_eq!(get(server.address(), "/a?utm_source=z").cache(), "Larder; fwd=uri-miss; stored");
    assert_eq!(origin.asked().len(), 2);
}

#[test]
fn a_kill_while_a_body_is_stored_leaves_nothing_that_is_served() {
    let room = Room::new();
    let (whole, is_slow) = (mebibyte(), Arc::new(AtomicBool::new(true)));
    let (body, slow) = (whole.clone(), is_slow.clone());
    let origin = Origin::start(move |_, stream| {
        let head =
            format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n", body.len());
        let (first, rest) = body.split_at(body.len() / 2);
        let first = stream.write_all(&[head.as_bytes(), first].concat());
        while slow.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        first.and_then(|()| stream.write_all(rest)).is_ok()
    });
    let server = Server::with_store(&room, &origin, "sqlite:s.db");
    let mut client = Connection::open(server.address());
    client.send(&format!("GET /large HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    assert_eq!(client.head().0, 200);
    assert_eq!(client.bytes(whole.len() / 2), whole[..whole.len() / 2]);
    // What came is on its way into the file.
    thread::sleep(Duration::from_millis(200));
    server.signal("-KILL");
    drop(server);
    is_slow.store(false, Ordering::Relaxed);
    let server = Server::with_store(&room, &origin, "sqlite:s.db");
    let answer = get(server.address(), "/large");
    assert_eq!(answer.cache(), "Larder; fwd=uri-miss; stored");
    assert!(answer.body == whole);
    assert!(get(server.address(), "/large").body == whole);
    assert_eq!(origin.asked().len(), 2);
}

#[test]
fn a_mebibyte_comes_back_as_it_was_from_every_store() {
    let mut stores = vec!["memory:".to_owned(), "sqlite:s.db".to_owned()];
    stores.extend(std::env::var("LARDER_TEST_REDIS_URL").ok());
    for store in stores {
        let room = Room::new();
        let whole = mebibyte();
        let origin = Origin::saying(FRESH, whole.clone());
        // What is in a server that others use, too, is named after this process.
        let path = format!("/{}", std::process::id());
        let server = Server::with_store(&room, &origin, &store);
        let (miss, hit) = (get(server.address(), &path), get(server.address(), &path));
        assert_eq!(
            (miss.cache().as_str(), hit.cache().as_str()),
            ("Larder; fwd=uri-miss; stored", "Larder; hit")
        );
        assert!(miss.body == whole && hit.body == whole, "{store}");
        if store != "memory:" {
            drop(server);
            let server = Server::with_store(&room, &origin, &store);
            let hit = get(server.address(), &path);
            assert_eq!(hit.cache(), "Larder; hit", "{store}");
            assert!(hit.body == whole, "{store}");
        }
        assert_eq!(origin.asked().len(), 1, "{store}");
    }
}
