//! What origins are told, request by request.

use http::{HeaderName, HeaderValue, Request, StatusCode, Version};

use super::*;

fn request(method: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri("http://shop.test:8080/x?y").body(()).unwrap();
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.into_parts().0
}

fn client(address: &str) -> Client {
    Client { address: address.parse().unwrap(), tls: true }
}

fn of(parts: &request::Parts, name: &str) -> Vec<String> {
    parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

const CLAIMED: [(&str, &str); 5] = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X-Forwarded-For", "7.7.7.7"),
    ("X-Forwarded-Proto", "gopher"),
    ("X-Forwarded-Host", "evil.test"),
    ("Forwarded", "for=6.6.6.6;host=evil.test"),
];

#[test]
fn by_default_an_origin_is_told_the_truth_and_nothing_else() {
    let mut parts = request("GET", &CLAIMED);
    Forwarding::default().apply(&mut parts, client("::ffff:192.0.2.1")).unwrap();
    assert_eq!(of(&parts, "x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(of(&parts, "x-forwarded-proto"), ["https"]);
    assert_eq!(of(&parts, "x-forwarded-host"), ["shop.test:8080"]);
    assert_eq!(of(&parts, "forwarded"), ["for=192.0.2.1;host=\"shop.test:8080\";proto=https"]);
    assert!(Forwarding::default().vary().is_empty());

    let mut parts = request("GET", &[]);
    Forwarding::default().apply(&mut parts, client("2001:db8::1")).unwrap();
    assert_eq!(of(&parts, "x-forwarded-for"), ["2001:db8::1"]);
    assert_eq!(of(&parts, "forwarded"), ["for=\"[2001:db8::1]\";host=\"shop.test:8080\";proto=https"]);
}

#[test]
fn each_field_may_be_appended_to_passed_or_off() {
    let mode = |mode| Forwarding {
        x_forwarded_for: mode,
        x_forwarded_proto: mode,
        x_forwarded_host: mode,
        forwarded: mode,
        ..Forwarding::default()
    };
    let after = |mode_of| {
        let mut parts = request("GET", &CLAIMED);
        mode(mode_of).apply(&mut parts, client("192.0.2.1")).unwrap();
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"]
            .map(|name| of(&parts, name).join("|"))
    };
    assert_eq!(
        after(Mode::Append),
        [
            "6.6.6.6, 7.7.7.7, 192.0.2.1",
            "gopher, https",
            "evil.test, shop.test:8080",
            "for=6.6.6.6;host=evil.test, for=192.0.2.1;host=\"shop.test:8080\";proto=https"
        ]
    );
    assert_eq!(after(Mode::Pass), ["6.6.6.6|7.7.7.7", "gopher", "evil.test", "for=6.6.6.6;host=evil.test"]);
    assert_eq!(after(Mode::Off), ["", "", "", ""]);
    for keeps in [Mode::Append, Mode::Pass] {
        assert_eq!(mode(keeps).vary(), ["forwarded", "x-forwarded-host", "x-forwarded-proto"]);
    }
    assert!(mode(Mode::Off).vary().is_empty());
}

#[test]
fn only_those_who_are_trusted_are_believed() {
    let options = Forwarding {
        x_forwarded_for: Mode::Append,
        trusted: vec![Network::parse("10.0.0.0/8").unwrap()],
        ..Forwarding::default()
    };
    for (address, told) in [("10.1.1.1", "6.6.6.6, 7.7.7.7, 10.1.1.1"), ("192.0.2.1", "192.0.2.1")] {
        let mut parts = request("GET", &CLAIMED);
        options.apply(&mut parts, client(address)).unwrap();
        assert_eq!(of(&parts, "x-forwarded-for"), [told]);
    }
}

#[test]
fn claims_without_end_are_dropped() {
    let long = "6.6.6.6,".repeat(1_000);
    let mut parts = request("GET", &[("X-Forwarded-For", &long)]);
    let options = Forwarding { x_forwarded_for: Mode::Append, ..Forwarding::default() };
    options.apply(&mut parts, client("192.0.2.1")).unwrap();
    assert_eq!(of(&parts, "x-forwarded-for"), ["192.0.2.1"]);
}

#[test]
fn what_no_key_has_in_it_does_not_reach_the_origin() {
    let claims = [
        "X-Forwarded-Scheme",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Host",
        "X-Real-IP",
        "X_Forwarded_Host",
        "X_Forwarded-For",
        "X-Original-Host",
        "X-Middleware-Subrequest",
        "X-Invoke-Status",
        "Proxy",
        "True-Client-IP",
        "X-HTTP-Host-Override",
        "Front-End-Https",
    ];
    let kept = ["RSC", "Accept", "Cookie", "X-Requested-With", "X-Custom", "Origin"];
    let fields: Vec<_> = claims.iter().chain(&kept).map(|name| (*name, "x")).collect();
    let mut parts = request("GET", &fields);
    Forwarding::default().apply(&mut parts, client("192.0.2.1")).unwrap();
    for name in claims {
        assert!(of(&parts, name).is_empty(), "{name}");
    }
    for name in kept {
        assert_eq!(of(&parts, name), ["x"], "{name}");
    }

    let allow = vec![HeaderName::from_static("x-forwarded-prefix")];
    let options = Forwarding { allow, ..Forwarding::default() };
    let mut parts = request("GET", &fields);
    options.apply(&mut parts, client("192.0.2.1")).unwrap();
    assert_eq!(of(&parts, "x-forwarded-prefix"), ["x"]);
    assert!(of(&parts, "x-forwarded-port").is_empty());
    assert_eq!(options.vary(), ["x-forwarded-prefix"]);
}

#[test]
fn a_request_says_that_it_came_through_here_and_never_comes_twice() {
    let options = Forwarding::default();
    let mut parts = request("GET", &[("Via", "1.0 other")]);
    parts.version = Version::HTTP_2;
    options.apply(&mut parts, client("192.0.2.1")).unwrap();
    assert_eq!(of(&parts, "via"), ["1.0 other".to_owned(), format!("2.0 {}", options.pseudonym)]);
    let refusal = options.apply(&mut parts, client("192.0.2.1")).unwrap_err();
    assert_eq!(refusal.status, StatusCode::LOOP_DETECTED);
    assert!(
        Forwarding::default().apply(&mut parts, client("192.0.2.1")).is_ok(),
        "another Larder is no loop"
    );

    let silent = Forwarding { via: false, ..options };
    let mut parts = request("GET", &[]);
    silent.apply(&mut parts, client("192.0.2.1")).unwrap();
    assert!(of(&parts, "via").is_empty());
}

//= https://www.rfc-editor.org/rfc/rfc9110#section-7.6.2
//= type=test
//# Each intermediary that receives a TRACE or OPTIONS request containing a
//# Max-Forwards header field MUST check and update its value prior to
//# forwarding the request.
#[test]
fn trace_and_options_go_as_far_as_they_say() {
    let apply = |method: &str, most: &str| {
        let mut parts = request(method, &[("Max-Forwards", most), ("Cookie", "s3cret"), ("X-Seen", "1")]);
        let answer = answer(&mut parts);
        (answer, of(&parts, "max-forwards").join("|"))
    };
    for (sent, goes_on) in
        [("1", "0"), ("10", "9"), ("4294967295", "4294967294"), ("99999999999", "4294967294")]
    {
        for method in ["TRACE", "OPTIONS"] {
            let (answer, left) = apply(method, sent);
            assert!(answer.is_none());
            assert_eq!(left, goes_on);
        }
    }
    for nonsense in ["", "-1", "1.5", "a"] {
        assert_eq!(apply("OPTIONS", nonsense).1, "", "{nonsense}");
    }
    let (answer, left) = apply("GET", "0");
    assert!(answer.is_none() && left == "0", "other methods are not counted");

    let answer = apply("OPTIONS", "0").0.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("allow"));
    let mut server = Request::options("*").body(()).unwrap().into_parts().0;
    assert!(super::answer(&mut server).unwrap().headers().contains_key("allow"));
    let answer = apply("TRACE", "0").0.unwrap();
    assert_eq!(answer.headers()["content-type"], "message/http");
    let text = String::from_utf8(answer.body().as_bytes().unwrap().to_vec()).unwrap();
    assert!(
        text.starts_with("TRACE http://shop.test:8080/x?y HTTP/1.1\r\n") && text.contains("x-seen: 1\r\n")
    );
    assert!(!text.contains("s3cret"));
}

#[test]
fn no_bytes_make_it_panic() {
    // Every byte that a field may hold, in every field that is read.
    for byte in (0x20..=0xff_u8).filter(|byte| *byte != 0x7f).chain([b'\t']) {
        for pattern in
            [vec![byte], vec![byte, b'(', byte], vec![b'1', b'.', b'1', b' ', byte, b','], vec![b'\\', byte]]
        {
            for name in ["via", "forwarded", "x-forwarded-for", "x-forwarded-host", "max-forwards"] {
                let mut parts = request("OPTIONS", &[]);
                parts
                    .headers
                    .append(HeaderName::from_static(name), HeaderValue::from_bytes(&pattern).unwrap());
                for mode in [Mode::Set, Mode::Append, Mode::Pass, Mode::Off] {
                    let options =
                        Forwarding { x_forwarded_for: mode, forwarded: mode, ..Forwarding::default() };
                    drop((answer(&mut parts), options.apply(&mut parts, client("192.0.2.1"))));
                }
            }
        }
    }
}
