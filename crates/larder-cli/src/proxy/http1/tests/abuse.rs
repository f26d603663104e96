//! Requests that are well-formed and mean no good.

use super::exchange;

#[tokio::test]
async fn what_differs_in_a_byte_is_asked_for_as_it_is() {
    for path in [
        "/account/x.css",
        "/account;x.css",
        "/account%3fx.css",
        "/account%00.js",
        "/account%0a.js",
        "/static/..%2faccount",
        "/static/%2e%2e/account",
        "//account",
        "/a/./b",
        "/A",
        "/a?x;y&utm_content=x;callback=",
    ] {
        let (seen, _) = exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(seen, [format!("GET http://a{path} ")]);
    }
}

#[tokio::test]
async fn hosts_and_ports_stay_apart() {
    for host in ["a", "b", "a:81", "[::1]:81"] {
        let (seen, _) = exchange(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(seen, [format!("GET http://{host}/x ")]);
    }
    let (seen, _) = exchange("GET http://A:80/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(seen, ["GET http://A:80/x "]);
}

#[tokio::test]
async fn a_long_drip_of_head_costs_no_more_than_its_bytes() {
    // Each byte is looked at once: parsing it anew for each would take minutes.
    let mut scan = super::super::wire::head::Scan::default();
    let limits = super::super::wire::Limits { head_bytes: 4 << 20, ..Default::default() };
    let head = format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(500_000));
    for length in 0..head.len() {
        assert!(scan.find(&head.as_bytes()[..length], &limits).unwrap().is_none());
    }
}
