//! Input that is in no key: what an origin might reflect does not reach it, or is in the key, or makes the answer one that
//! is not kept.

use super::scene::{Origin, Serving, answer, fresh, get};

/// Answers with all that it was told.
fn mirror() -> Origin {
    Origin::saying(|seen| fresh(format!("{}{}", seen.head, String::from_utf8_lossy(&seen.body))))
}

#[test]
fn fields_that_claim_another_request_do_not_reach_the_origin() {
    let origin = mirror();
    let serving = Serving::of(&origin);
    for name in [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-For",
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-HTTP-Host-Override",
        "X-Host",
        "X-Real-IP",
        "X-Invoke-Path",
        "X-Invoke-Status",
        "X-Middleware-Subrequest",
        "X-Middleware-Prefetch",
        "Forwarded",
        "Proxy",
        "X_Forwarded_Host",
        "X-Forwarded_Host",
        "X_Original_URL",
    ] {
        let target = format!("/{name}");
        let heard = serving.get(&target, &format!("{name}: evil.example\r\n"));
        assert!(!heard.text().contains("evil"), "{name}: {}", heard.text());
        let hit = serving.hit(&target, "");
        assert!(!hit.text().contains("evil"), "{name}");
    }
}

#[test]
fn what_is_allowed_is_in_the_key() {
    let origin = mirror();
    let serving = Serving::with(
        &origin,
        "",
        "forwarding: { allow: [X-Forwarded-Prefix, RSC], x_forwarded_host: append }",
    );
    for name in ["X-Forwarded-Prefix", "RSC", "X-Forwarded-Host"] {
        let target = format!("/{name}");
        let fields = format!("{name}: evil.example\r\n");
        assert!(serving.get(&target, &fields).text().contains("evil"), "{name}");
        let heard = serving.get(&target, "");
        assert!(!heard.is_hit() && !heard.text().contains("evil"), "{name}");
        assert!(serving.hit(&target, &fields).text().contains("evil"), "{name}");
        assert!(!serving.hit(&target, "").text().contains("evil"), "{name}");
    }
}

#[test]
fn what_an_origin_varies_on_is_in_the_key() {
    // Next.js and React Router answer these with something else at the same path, and say so.
    for name in ["RSC", "X-Nextjs-Data", "Accept", "X-React-Router-SPA-Mode", "Cookie", "Origin"] {
        let origin = Origin::saying(move |seen| {
            let said = seen.field(name).unwrap_or("nothing").to_owned();
            answer(200, &format!("Cache-Control: max-age=60\r\nVary: {name}\r\n"), said)
        });
        let serving = Serving::of(&origin);
        let fields = format!("{name}: evil\r\n");
        assert_eq!(serving.get("/x", &fields).text(), "evil", "{name}");
        assert_eq!(serving.get("/x", "").text(), "nothing", "{name}");
        assert_eq!(serving.hit("/x", &fields).text(), "evil", "{name}");
        assert_eq!(serving.hit("/x", "").text(), "nothing", "{name}");
        assert_eq!(serving.get("/x", &format!("{name}: other\r\n")).text(), "other", "{name}");
    }
}

#[test]
fn a_get_with_content_answers_nobody_else() {
    let origin = mirror();
    let serving = Serving::of(&origin);
    let mut client = serving.client();
    for fat in [
        "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nevil",
        "GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ] {
        client.say(fat);
        assert!(client.hear().unwrap().text().ends_with("evil"));
    }
    client.say(get("/x", ""));
    let heard = client.hear().unwrap();
    assert!(!heard.is_hit() && !heard.text().contains("evil"));
    // Nor is one answered with what others may have.
    assert!(serving.hit("/x", "").is_hit());
    client.say("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nevil");
    assert!(client.hear().unwrap().text().ends_with("evil"));
}

#[test]
fn parameters_are_told_apart_byte_by_byte() {
    // Parameter cloaking: what one splits at `;` or takes the last of, another does not.
    let origin = Origin::saying(|seen| fresh(seen.target()));
    let serving = Serving::of(&origin);
    let all = [
        "/x?callback=a",
        "/x?utm_content=x;callback=evil&callback=a",
        "/x?utm_content=x%3bcallback=evil&callback=a",
        "/x?callback=a&callback=evil",
        "/x?callback=evil&callback=a",
        "/x?callback[]=a",
        "/x?callback=a&utm_content=x",
        "/x?Callback=a",
        "/x?callback=a&",
        "/x?&callback=a",
        "/x??callback=a",
        "/x?callback=%61",
        "/x;callback=a",
        "/x;jsessionid=1",
    ];
    for target in all {
        let heard = serving.get(target, "");
        assert!(!heard.is_hit(), "{target}");
        assert_eq!(heard.text(), target);
    }
    for target in all {
        assert_eq!(serving.hit(target, "").text(), target);
    }
    assert_eq!(origin.asked(), all.len());
}
