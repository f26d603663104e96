//! Fields that are long in order to be slow: they are read in linear time, or refused by their size.

use std::time::{Duration, Instant};

use super::scene::{Origin, Serving, answer, fresh};

/// More than a linear reader takes for a megabyte, in a build for tests on a busy machine. One that takes the square of it
/// is at it for hours.
const SOON: Duration = Duration::from_secs(20);

/// Room for all of it on both sides, so that it is the parsers that have to cope.
const ROOM: &str = "limits: { head_bytes: 4MiB, fields: 10000 }, ";

fn soon<T>(what: &str, does: impl FnOnce() -> T) -> T {
    #[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
    let began = Instant::now();
    let done = does();
    assert!(began.elapsed() < SOON, "{what} took {:?}", began.elapsed());
    done
}

#[test]
fn long_fields_of_responses_are_read_soon() {
    let spaces = " ".repeat(64 << 10);
    let all: Vec<(&str, String, bool)> = vec![
        ("spaces", format!("Cache-Control: max-age{spaces}=60\r\n"), false),
        ("spaces between", format!("Cache-Control: max-age=60,{spaces},{spaces}public\r\n"), true),
        ("directives", format!("Cache-Control: {}max-age=60\r\n", "x=1, ".repeat(10_000)), true),
        ("max-ages", format!("Cache-Control: {}max-age=60\r\n", "max-age=60, ".repeat(10_000)), true),
        (
            "qualified",
            format!("Cache-Control: max-age=60, {}x\r\n", "private=\"a,b\", ".repeat(10_000)),
            true,
        ),
        ("commas", format!("Cache-Control: {}max-age=60\r\n", ",".repeat(1 << 20)), true),
        ("a quote", format!("Cache-Control: max-age=60, x=\"{}\r\n", "a,".repeat(1 << 19)), true),
        ("quotes", format!("Cache-Control: max-age=60, {}\r\n", "x=\"".repeat(1 << 18)), true),
        ("backslashes", format!("Cache-Control: max-age=60, x=\"{}\r\n", "\\".repeat(1 << 20)), true),
        ("vary", format!("Cache-Control: max-age=60\r\nVary: {}a\r\n", "a,".repeat(1 << 19)), true),
        ("names", format!("Cache-Control: max-age=60\r\nVary: {}\r\n", names(100_000)), false),
        ("tags", format!("Cache-Control: max-age=60\r\nCache-Tag: {}\r\n", names(100_000)), false),
        ("lines", format!("{}Cache-Control: max-age=60\r\n", "Cache-Control: x\r\n".repeat(9_000)), true),
        ("connection", format!("Cache-Control: max-age=60\r\nConnection: {}\r\n", names(100_000)), true),
    ];
    let fields: Vec<String> = all.iter().map(|(_, fields, _)| fields.clone()).collect();
    let origin = Origin::saying(move |seen| {
        let at: usize = seen.target().trim_start_matches('/').parse().unwrap();
        answer(200, fields.get(at).unwrap(), "x")
    });
    let serving = Serving::with(&origin, ROOM, "");
    for (at, (what, _, is_kept)) in all.iter().enumerate() {
        let target = format!("/{at}");
        let status = soon(what, || serving.get(&target, "").status);
        let heard = soon(what, || serving.get(&target, ""));
        // One that is too long for whoever reads it first is no response.
        assert!(status == 200 || status == 502, "{what}: {status}");
        assert!(heard.is_hit() == (*is_kept && status == 200), "{what}: {}", heard.status);
    }
}

fn names(count: usize) -> String {
    (0..count).map(|at| format!("x{at}, ")).collect()
}

#[test]
fn long_fields_of_requests_are_read_soon() {
    let origin =
        Origin::saying(|_| answer(200, "Cache-Control: max-age=60\r\nETag: \"x\"\r\n", "0123456789"));
    let serving = Serving::with(&origin, ROOM, "limits: { head_bytes: 4MiB, fields: 128 }\n");
    serving.get("/", "");
    let tags: String = (0..100_000).map(|at| format!("\"{at}\", ")).collect();
    for (what, fields, status) in [
        ("tags", format!("If-None-Match: {tags}\r\n"), 200),
        ("tags and ours", format!("If-None-Match: {tags}\"x\"\r\n"), 304),
        ("weak tags", format!("If-None-Match: {}\r\n", "W/".repeat(1 << 19)), 200),
        ("open tags", format!("If-None-Match: {}\r\n", "\"".repeat(1 << 20)), 200),
        ("spaces", format!("Cache-Control: max-age{}=1\r\n", " ".repeat(64 << 10)), 200),
        ("directives", format!("Cache-Control: {}\r\n", "x=1, ".repeat(10_000)), 200),
        ("quotes", format!("Cache-Control: {}\r\n", "x=\"".repeat(1 << 18)), 200),
        ("ranges", format!("Range: bytes={}\r\n", "0-0,".repeat(1 << 18)), 200),
        ("commas", format!("Range: bytes={}\r\n", ",".repeat(1 << 20)), 200),
        ("connection", format!("Connection: {}\r\n", names(100_000)), 200),
        ("lines", "Cache-Control: x\r\n".repeat(120), 200),
        ("via", format!("Via: {}\r\n", "1.1 a, ".repeat(1 << 16)), 508),
    ] {
        assert_eq!(soon(what, || serving.get("/", &fields)).status, status, "{what}");
    }
    assert!(serving.get("/", "").is_hit());
}

#[test]
fn by_default_long_fields_are_refused_by_their_size() {
    let origin = Origin::saying(|_| fresh("x"));
    let serving = Serving::of(&origin);
    for fields in [
        format!("If-None-Match: {}\r\n", "\"a\", ".repeat(100_000)),
        format!("X: {}\r\n", "x".repeat(64 << 10)),
        "X: y\r\n".repeat(101),
    ] {
        assert_eq!(serving.get("/", &fields).status, 431);
    }
    assert_eq!(serving.get(&format!("/{}", "x".repeat(16 << 10)), "").status, 414);
    assert_eq!(origin.asked(), 0);

    let origin = Origin::saying(|_| answer(200, &format!("Vary: {}\r\n", "a,".repeat(1 << 19)), "x"));
    let serving = Serving::of(&origin);
    assert_eq!(serving.get("/", "").status, 502);
}
