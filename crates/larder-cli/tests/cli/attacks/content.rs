//! Content is bytes: nothing is decoded, joined or filled in, so nothing can be made to blow up or to fetch.

use super::scene::{Origin, Serving, answer};

#[test]
fn encoded_content_passes_as_it_is() {
    // A gzip header with nothing behind it, a chain of codings, a wrong label, an unknown one: all are just bytes.
    let bytes: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff";
    for coding in ["gzip", "gzip, gzip, gzip, gzip, gzip", "br", "zstd", "identity", "x-unknown"] {
        let origin = Origin::saying(move |_| {
            answer(200, &format!("Cache-Control: max-age=60\r\nContent-Encoding: {coding}\r\n"), bytes)
        });
        let serving = Serving::of(&origin);
        for accept in ["", "Accept-Encoding: identity\r\n"] {
            let heard = serving.get("/", accept);
            assert_eq!((heard.body.as_deref(), heard.field("content-encoding")), (Some(bytes), Some(coding)));
        }
        let hit = serving.hit("/", "");
        assert_eq!((hit.body.as_deref(), hit.field("content-encoding")), (Some(bytes), Some(coding)));
        assert_eq!(hit.field("content-length"), Some("13"));
    }
}

#[test]
fn the_clients_codings_reach_the_origin_as_they_are() {
    let origin = Origin::saying(|seen| {
        let accepted = seen.field("accept-encoding").unwrap_or("none").to_owned();
        answer(200, "Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n", accepted)
    });
    let serving = Serving::of(&origin);
    for accepted in ["gzip", "br, gzip;q=0.5", "x-evil"] {
        assert_eq!(serving.get("/", &format!("Accept-Encoding: {accepted}\r\n")).text(), accepted);
    }
    assert_eq!(serving.get("/", "").text(), "none");
}

#[test]
fn includes_are_text() {
    let page = "<esi:include src=\"http://169.254.169.254/latest\"/><!--esi <esi:include src=\"/x\"/> -->\
                <!--#include virtual=\"/etc/passwd\" --><esi:vars>$(HTTP_COOKIE)</esi:vars>";
    let origin = Origin::saying(move |_| {
        let fields = "Cache-Control: max-age=60\r\nContent-Type: text/html\r\nSurrogate-Control: content=\"ESI/1.0\"\r\n\
                      Edge-Control: dca=esi\r\nX-Accel-Redirect: /etc/passwd\r\nX-Sendfile: /etc/passwd\r\n";
        answer(200, fields, page)
    });
    let serving = Serving::of(&origin);
    assert_eq!(serving.get("/", "").text(), page);
    assert_eq!(serving.hit("/", "").text(), page);
    assert_eq!(origin.asked(), 1);
    let claimed = origin.last();
    assert!(claimed.field("surrogate-capability").is_none());
}
