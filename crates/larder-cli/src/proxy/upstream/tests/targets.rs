//! Which origin a request is for, and that no client has it asked for anything else.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, Request, StatusCode, Version, request};
use larder::time::SystemClock;
use larder_http::OriginErrorKind;

use super::super::Upstreams;
use super::super::options::{HostPattern, OpenProxy, OriginOptions, Route, Routing};
use super::OK;
use super::script::{Script, ask, get, origin, routing, start};

fn parts(method: &str, uri: &str, hosts: &[&str]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for host in hosts {
        request = request.header(HOST, *host);
    }
    request.body(()).unwrap().into_parts().0
}

fn served() -> Routing {
    let route = |host: &str, path: &str| Route {
        host: HostPattern::parse(host).unwrap(),
        path: path.to_owned(),
        origin: "app".into(),
        strip: false,
    };
    let origins = vec![origin(&["http://127.0.0.1:9"])];
    Routing { origins, routes: vec![route("shop.test", "/"), route("img.test", "/i")], ..Routing::default() }
}

fn upstreams(routing: Routing) -> Upstreams {
    Upstreams::new(routing, Arc::new(SystemClock::default())).unwrap()
}

#[tokio::test]
async fn a_request_gets_the_target_that_it_is_cached_by() {
    let upstreams = upstreams(served());
    for (uri, hosts, tls, target) in [
        ("/a?b", &["shop.test"][..], false, "http://shop.test/a?b"),
        ("/a", &["Shop.test:8080"], true, "https://shop.test:8080/a"),
        ("/a", &["SHOP.test:80"], false, "http://shop.test/a"),
        ("/a", &["shop.test:443"], true, "https://shop.test/a"),
        ("/a", &["shop.test:443"], false, "http://shop.test:443/a"),
        ("//evil.test/a", &["shop.test"], false, "http://shop.test//evil.test/a"),
        ("/i/a", &["img.test"], false, "http://img.test/i/a"),
        // The absolute form says the host, and not the scheme: that is how it came in.
        ("http://shop.test/a", &["evil.test"], false, "http://shop.test/a"),
        ("http://shop.test/a", &["a", "b"], true, "https://shop.test/a"),
        ("ftp://shop.test", &[], false, "http://shop.test/"),
    ] {
        let mut parts = parts("GET", uri, hosts);
        upstreams.admit(&mut parts, tls).unwrap();
        assert_eq!(parts.uri.to_string(), target);
        assert_eq!(parts.headers.get_all(HOST).iter().count(), 1);
        assert_eq!(parts.headers[HOST], parts.uri.authority().unwrap().as_str());
    }
}

#[tokio::test]
async fn what_is_not_served_here_is_refused() {
    let upstreams = upstreams(served());
    for (method, uri, hosts, status) in [
        ("GET", "/", &["other.test"][..], StatusCode::MISDIRECTED_REQUEST),
        ("GET", "http://169.254.169.254/latest", &["shop.test"], StatusCode::MISDIRECTED_REQUEST),
        ("GET", "/x", &["img.test"], StatusCode::NOT_FOUND),
        ("GET", "/", &[], StatusCode::BAD_REQUEST),
        ("GET", "/", &["shop.test", "shop.test"], StatusCode::BAD_REQUEST),
        ("GET", "/", &["shop.test@evil.test"], StatusCode::BAD_REQUEST),
        ("GET", "/", &["shop.test:"], StatusCode::BAD_REQUEST),
        ("GET", "/", &["shop.test:99999"], StatusCode::BAD_REQUEST),
        ("GET", "/", &["shop.test, evil.test"], StatusCode::BAD_REQUEST),
        ("GET", "/", &[""], StatusCode::BAD_REQUEST),
        ("GET", "http://a@shop.test/", &[], StatusCode::BAD_REQUEST),
        ("GET", "*", &["shop.test"], StatusCode::BAD_REQUEST),
        ("CONNECT", "shop.test:443", &["shop.test:443"], StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let refusal = upstreams.admit(&mut parts(method, uri, hosts), false).unwrap_err();
        assert_eq!(refusal.status, status, "{method} {uri} {hosts:?}");
    }
    let error = ask(&upstreams, Request::get("http://other.test/").body(Default::default()).unwrap()).await;
    assert_eq!(error.unwrap_err().kind(), OriginErrorKind::Refused);
}

#[tokio::test]
async fn a_forward_proxy_asks_for_public_addresses_alone_unless_told_otherwise() {
    let script = Script::answering(OK).await;
    let open = |private| OpenProxy { private, target: origin::<&str>(&[]) };
    for (private, reached) in [(false, false), (true, true)] {
        let upstreams = upstreams(Routing { open: Some(open(private)), ..served() });
        let uri = format!("{}/x", script.url());
        let mut admitted = parts("GET", &uri, &["evil.test"]);
        upstreams.admit(&mut admitted, true).unwrap();
        assert_eq!(admitted.uri.to_string(), uri);
        let request = Request::from_parts(admitted, Default::default());
        match ask(&upstreams, request).await {
            Ok(_) => assert!(reached),
            Err(error) => {
                assert!(!reached);
                assert_eq!(error.kind(), OriginErrorKind::Refused);
            }
        }
        // Names are looked at by what they resolve to.
        let port = script.address.port();
        let request = Request::get(format!("http://localhost:{port}/")).body(Default::default()).unwrap();
        assert_eq!(ask(&upstreams, request).await.is_ok(), reached);

        for (method, uri, hosts, version, status) in [
            ("GET", "/", &["other.test"][..], Version::HTTP_11, StatusCode::MISDIRECTED_REQUEST),
            ("GET", "https://other.test/", &[], Version::HTTP_11, StatusCode::BAD_REQUEST),
            ("GET", "http://other.test/", &[], Version::HTTP_2, StatusCode::MISDIRECTED_REQUEST),
            ("CONNECT", "other.test:80", &[], Version::HTTP_11, StatusCode::METHOD_NOT_ALLOWED),
        ] {
            let mut parts = parts(method, uri, hosts);
            parts.version = version;
            assert_eq!(upstreams.admit(&mut parts, false).unwrap_err().status, status, "{method} {uri}");
        }
    }
    assert_eq!(script.heads().len(), 2);
    assert!(script.heads().iter().all(|head| !head.contains("evil.test")));
}

#[tokio::test]
async fn answers_vary_on_what_no_key_has_in_it() {
    let script = Script::answering("HTTP/1.1 200 OK\r\nVary: accept\r\nContent-Length: 0\r\n\r\n").await;
    let vary = vec![HeaderName::from_static("x-forwarded-prefix")];
    let routing = Routing { vary, via: Some("1.1 me".to_owned()), ..routing(origin(&[script.url()])) };
    let (response, _) = ask(&upstreams(routing), get("/")).await.unwrap();
    let all: Vec<_> = response.headers().get_all("vary").iter().collect();
    assert_eq!(all, ["accept", "x-forwarded-prefix"]);
    assert_eq!(response.headers()["via"], "1.1 me");
}

#[tokio::test]
async fn an_answer_about_what_is_stored_keeps_its_vary_as_it_is() {
    let vary = vec![HeaderName::from_static("x-forwarded-prefix")];
    for (method, own, expected) in [
        ("GET", "", &[][..]),
        ("GET", "Vary: accept\r\n", &["accept", "x-forwarded-prefix"]),
        ("HEAD", "", &[]),
        ("HEAD", "Vary: accept\r\n", &["accept", "x-forwarded-prefix"]),
    ] {
        let status = if method == "GET" { "304 Not Modified" } else { "200 OK" };
        let script = Script::answering(format!("HTTP/1.1 {status}\r\n{own}\r\n").leak()).await;
        let routing = Routing { vary: vary.clone(), ..routing(origin(&[script.url()])) };
        let request =
            Request::builder().method(method).uri("http://site.test/").body(Default::default()).unwrap();
        let (response, _) = ask(&upstreams(routing), request).await.unwrap();
        let all: Vec<_> = response.headers().get_all("vary").iter().collect();
        assert_eq!(all, expected, "{method} {own}");
    }
}

#[tokio::test]
async fn another_configuration_takes_over_and_what_did_not_change_goes_on() {
    let (old, new) = (Script::answering(OK).await, Script::answering(OK).await);
    let upstreams = start(origin(&[old.url()]));
    let pause = || tokio::time::sleep(std::time::Duration::from_millis(20));
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    pause().await;
    upstreams.replace(routing(origin(&[old.url()]))).unwrap();
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    assert_eq!(old.connections(), 1);
    upstreams.replace(routing(origin(&[new.url()]))).unwrap();
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    assert_eq!((old.heads().len(), new.heads().len()), (2, 1));

    let mut wrong = routing(OriginOptions { name: "other".into(), ..origin(&[old.url()]) });
    wrong.routes[0].origin = "app".into();
    assert!(upstreams.replace(wrong).unwrap_err().contains("no origin \"app\""));
    ask(&upstreams, get("/")).await.unwrap().1.unwrap();
    assert_eq!(new.heads().len(), 2);
}
