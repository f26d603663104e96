//! Ranges: numbers that overflow, parts that add up to more than there is, and what is still arriving.

use std::io::Write as _;
use std::sync::{Mutex, mpsc};

use super::scene::{Origin, Serving, answer, get};

const FIELDS: &str = "Cache-Control: max-age=60\r\nETag: \"1\"\r\nContent-Type: text/plain\r\n";

/// A server that has this in its cache.
fn having(body: &'static str) -> (Origin, Serving) {
    let origin = Origin::saying(move |_| answer(200, FIELDS, body));
    let serving = Serving::of(&origin);
    serving.get("/", "");
    serving.hit("/", "");
    (origin, serving)
}

#[test]
fn hostile_numbers_mean_bytes_that_are_there_or_nothing() {
    let (origin, serving) = having("0123456789");
    for (ranges, status, range, body) in [
        ("bytes=-9223372036854775808", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=-18446744073709551616", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=0-18446744073709551615", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=9-18446744073709551616", 206, "bytes 9-9/10", "9"),
        ("bytes=9223372036854775807-9223372036854775808", 416, "bytes */10", ""),
        ("bytes=18446744073709551616-", 416, "bytes */10", ""),
        ("bytes=10-", 416, "bytes */10", ""),
        ("bytes=-0", 416, "bytes */10", ""),
        ("bytes=-17208,-9223372036854758792", 200, "", "0123456789"),
        ("bytes=", 200, "", "0123456789"),
        ("bytes=5-1", 200, "", "0123456789"),
        ("bytes=-", 200, "", "0123456789"),
        ("bytes=--1", 200, "", "0123456789"),
        ("bytes=0-1-2", 200, "", "0123456789"),
        ("bytes=0x0-0x1", 200, "", "0123456789"),
        ("bytes=+0-1", 200, "", "0123456789"),
        ("bytes = 0-1", 200, "", "0123456789"),
        ("lines=0-1", 200, "", "0123456789"),
        ("0-1", 200, "", "0123456789"),
        ("bytes=0-1\r\nRange: bytes=2-3", 200, "", "0123456789"),
    ] {
        let heard = serving.get("/", &format!("Range: {ranges}\r\n"));
        assert!(heard.is_hit(), "{ranges}");
        assert_eq!(
            (heard.status, heard.field("content-range").unwrap_or_default()),
            (status, range),
            "{ranges}"
        );
        assert_eq!(heard.text(), body, "{ranges}");
    }
    assert_eq!(origin.asked(), 1);
}

#[test]
fn parts_never_add_up_to_more_than_there_is() {
    let body: &'static str = "0123456789".repeat(1000).leak();
    let (_, serving) = having(body);
    let many = |range: &str, count: usize| vec![range; count].join(",");
    for ranges in [
        many("0-", 1000),
        many("0-", 64),
        many("0-", 2),
        many("0-9999", 2),
        "0-,-10000".to_owned(),
        "0-,-1".to_owned(),
        "0-9998,1-".to_owned(),
        "0-5000,5000-".to_owned(),
        "5000-,0-5000".to_owned(),
        many("1-,-9999", 32),
        (0..1000).map(|at| format!("{at}-")).collect::<Vec<_>>().join(","),
    ] {
        let heard = serving.get("/", &format!("Range: bytes={ranges}\r\n"));
        let short: String = ranges.chars().take(20).collect();
        // The second bound is for what stands between parts.
        assert!(heard.status == 200 || heard.status == 206, "{short}");
        assert!(heard.text().len() <= body.len() + 500, "{short}: {}", heard.text().len());
    }
    // What does not overlap is still answered part by part.
    let heard = serving.get("/", "Range: bytes=0-1,-2\r\n");
    assert_eq!(heard.status, 206);
    assert!(heard.field("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    // So is what overlaps a little, as long as it is no more than the whole.
    let heard = serving.get("/", "Range: bytes=0-99,50-149\r\n");
    assert_eq!(heard.status, 206);
    // Small parts cost more than their bytes, so there are only so many of them.
    let small: Vec<String> = (0..1000).map(|at| format!("{0}-{0}", at * 2)).collect();
    assert_eq!(serving.get("/", &format!("Range: bytes={}\r\n", small.join(","))).status, 200);
    let heard = serving.get("/", &format!("Range: bytes={}\r\n", small.get(..64).unwrap().join(",")));
    assert!(heard.text().len() < 64 * 200);
}

#[test]
fn a_part_is_not_asked_for_as_a_whole() {
    // Else a client could have an origin send gigabytes for a byte each.
    let origin = Origin::saying(|seen| match seen.field("range") {
        Some("bytes=0-0") => answer(206, &format!("{FIELDS}Content-Range: bytes 0-0/10\r\n"), "0"),
        _ => answer(200, FIELDS, "0123456789"),
    });
    let serving = Serving::of(&origin);
    for query in 0..3 {
        let heard = serving.get(&format!("/?{query}"), "Range: bytes=0-0\r\n");
        assert_eq!((heard.status, &*heard.text()), (206, "0"));
        assert_eq!(origin.last().field("range"), Some("bytes=0-0"));
    }
    // And a part is not the whole.
    assert_eq!(serving.get("/?0", "").text(), "0123456789");
}

#[test]
fn a_weak_tag_or_a_wrong_one_brings_the_whole() {
    for (tag, of_range, status) in [
        ("\"1\"", "\"1\"", 206),
        ("W/\"1\"", "W/\"1\"", 200),
        ("W/\"1\"", "\"1\"", 200),
        ("\"1\"", "W/\"1\"", 200),
        ("\"1\"", "\"2\"", 200),
        ("\"1\"", "1", 200),
        ("\"1\"", "Wed, 01 Jan 2020 00:00:00 GMT", 200),
    ] {
        let origin = Origin::saying(move |_| {
            answer(200, &format!("Cache-Control: max-age=60\r\nETag: {tag}\r\n"), "0123456789")
        });
        let serving = Serving::of(&origin);
        serving.get("/", "");
        let heard = serving.get("/", &format!("Range: bytes=0-1\r\nIf-Range: {of_range}\r\n"));
        assert!(heard.is_hit());
        assert_eq!(heard.status, status, "{tag} {of_range}");
    }
}

#[test]
fn nothing_has_no_parts() {
    let (_, serving) = having("");
    for ranges in ["0-", "0-0", "-1", "-0", "0-18446744073709551615", "0-,-1"] {
        let heard = serving.get("/", &format!("Range: bytes={ranges}\r\n"));
        assert!(heard.status == 416 || heard.status == 200, "{ranges}: {}", heard.status);
        assert_eq!(heard.text(), "");
    }
}

#[test]
fn parts_of_what_is_still_arriving_are_right_and_keep_nobody_waiting() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::doing(move |seen, stream| {
        if seen.field("range").is_some() {
            let part = answer(206, &format!("{FIELDS}Content-Range: bytes 0-1/10\r\n"), "01");
            return stream.write_all(&part).is_ok();
        }
        let mut all = answer(200, FIELDS, "0123456789");
        let rest = all.split_off(all.len() - 5);
        stream.write_all(&all).unwrap();
        wait.lock().unwrap().recv().unwrap();
        stream.write_all(&rest).is_ok()
    });
    let serving = Serving::of(&origin);
    let mut first = serving.client();
    first.say(get("/", ""));
    first.hear_head();
    assert_eq!(first.take(5), 5);
    let heard = serving.get("/", "Range: bytes=0-1\r\n");
    assert_eq!((heard.status, &*heard.text()), (206, "01"));
    go.send(()).unwrap();
    assert_eq!(first.take(5), 5);
    assert_eq!(serving.hit("/", "").text(), "0123456789");
    let heard = serving.get("/", "Range: bytes=8-\r\n");
    assert!(heard.is_hit());
    assert_eq!(heard.text(), "89");
}
