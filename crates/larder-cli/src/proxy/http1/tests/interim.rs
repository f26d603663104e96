//! Interim responses: at once, in order, to whoever can take them, and never later than the final one.

use http::{Request, Response, StatusCode};
use larder_http::{Body, OnInterim};
use tokio::sync::oneshot;

use super::{Seen, Talk, collect, echo};

fn hints(link: &'static str) -> Response<()> {
    Response::builder().status(103).header("link", link).header("connection", "x").body(()).unwrap()
}

#[tokio::test]
async fn they_are_sent_while_the_final_response_is_awaited() {
    let (sender, wait) = oneshot::channel::<OnInterim>();
    let (answer, answered) = oneshot::channel::<()>();
    let held = parking_lot::Mutex::new(Some((sender, answered)));
    let mut talk = Talk::to(move |request: Request<Body>| {
        let (sender, answered) = held.lock().take().unwrap();
        async move {
            let _ = sender.send(request.extensions().get::<OnInterim>().unwrap().clone());
            answered.await.unwrap();
            Response::new(Body::from("done"))
        }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let on_interim = wait.await.unwrap();
    // From any other task.
    on_interim.pass_on(hints("</a>"));
    assert_eq!(talk.hear("\r\n\r\n").await, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    on_interim.pass_on(Response::builder().status(102).body(()).unwrap());
    on_interim.pass_on(Response::builder().status(200).body(()).unwrap());
    on_interim.pass_on(Response::builder().status(101).body(()).unwrap());
    on_interim.pass_on(hints("</b>"));
    assert_eq!(
        talk.hear("</b>\r\n\r\n").await,
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </b>\r\n\r\n"
    );
    answer.send(()).unwrap();
    talk.hear("done").await;
    // Too late: the next request's answer is not this one's.
    on_interim.pass_on(hints("</c>"));
    talk.io = {
        let mut io = talk.io;
        tokio::io::AsyncWriteExt::shutdown(&mut io).await.unwrap();
        io
    };
    assert_eq!(talk.hear_all().await, "");
}

#[tokio::test]
async fn one_that_comes_with_the_final_response_comes_before_it() {
    let mut talk = Talk::to(|request: Request<Body>| {
        request.extensions().get::<OnInterim>().unwrap().pass_on(hints("</a>"));
        async { Response::new(Body::from("done")) }
    });
    talk.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        talk.hear("done")
            .await
            .starts_with("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")
    );
}

#[tokio::test]
async fn http_1_0_gets_none() {
    let mut talk = Talk::to(|request: Request<Body>| async move {
        let on_interim = request.extensions().get::<OnInterim>();
        Response::new(Body::from(if on_interim.is_none() { "none" } else { "some" }))
    });
    talk.say("GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx").await;
    let heard = talk.hear_all().await;
    assert!(heard.starts_with("HTTP/1.1 200") && heard.ends_with("none"), "{heard}");
}

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_is_told_to_go_on_when_its_content_is_wanted() {
    let seen = Seen::default();
    let mut talk = Talk::to(echo(&seen));
    talk.say(EXPECTING).await;
    assert_eq!(talk.hear("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    talk.say("abcde").await;
    assert!(talk.hear("abcde").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_is_told_to_go_on_only_once() {
    let mut talk = Talk::to(|request: Request<Body>| async move {
        let on_interim = request.extensions().get::<OnInterim>().unwrap().clone();
        let go_on = || Response::builder().status(StatusCode::CONTINUE).body(()).unwrap();
        on_interim.pass_on(go_on());
        on_interim.pass_on(go_on());
        let (content, _) = collect(request.into_body()).await.unwrap();
        Response::new(Body::from(content))
    });
    talk.say(EXPECTING).await;
    assert_eq!(talk.hear("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    talk.say("abcde").await;
    assert!(talk.hear("abcde").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_waits_and_is_not_told_to_go_on_is_let_go() {
    let mut talk = Talk::to(|_| async { Response::builder().status(401).body(Body::from("no")).unwrap() });
    talk.say(EXPECTING).await;
    let heard = talk.hear_all().await;
    assert!(heard.starts_with("HTTP/1.1 401") && heard.contains("connection: close\r\n"), "{heard}");
}
