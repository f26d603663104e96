//! Whom the commands believe that speak to a server over TLS.

use super::*;
use crate::harness::{err, out, status};

/// Certificates for `localhost`, and who says that they are good.
fn local_file(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/proxy/upstream/tests/tls");
    folder.join(name).display().to_string()
}

/// A server that speaks TLS, before an origin.
fn secure(room: &Room, origin: &str) -> Server {
    let document = format!(
        "listen_tls: 127.0.0.1:0\ntls: {{ certificate: {}, key: {} }}\norigin: {{ url: {origin}, host: pass }}\n",
        local_file("server.pem"),
        local_file("server.key"),
    );
    Server::configured(room, &document, 1)
}

#[test]
fn warming_over_tls_believes_whom_it_is_told_to_believe() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let server = secure(&room, &origin.url());
    let url = format!("https://localhost:{}/1", server.at("listening on https").port());
    let map = format!("<urlset><url><loc>{url}</loc></url></urlset>");
    fs::write(room.path("map.xml"), map).unwrap();
    let output = room.call(["warm", "map.xml"]);
    assert_eq!(status(&output), 1);
    assert!(err(&output).contains("certificate"), "{}", err(&output));
    assert!(origin.asked().is_empty());
    for cache in ["stored", "hit"] {
        let output = room.call(["warm", "map.xml", "--ca", &local_file("ca.pem")]);
        assert_eq!(status(&output), 0, "{}", err(&output));
        assert!(out(&output).contains(&format!("cache   {cache} 1\n")), "{}", out(&output));
    }
    for (file, said) in
        [("none.pem", "--ca: cannot read the certificate none.pem"), ("map.xml", "--ca: there is no")]
    {
        let output = room.call(["warm", "map.xml", "--ca", file]);
        assert_eq!(status(&output), 2);
        assert!(err(&output).contains(said), "{}", err(&output));
    }
}

#[test]
fn operators_over_tls_believe_whom_they_are_told_to_believe() {
    let room = Room::new();
    let origin = Origin::saying(FRESH, "page");
    let server = Server::before(&room, &origin);
    get(server.address(), "/1");
    // The desk speaks no TLS itself: something before it does.
    let other = Room::new();
    let front = secure(&other, &format!("http://{}", server.admin()));
    let desk = format!("https://localhost:{}", front.at("listening on https").port());
    let (url, ca) = (format!("http://{HOST}/1"), local_file("ca.pem"));
    let operate = |args: &[&str]| {
        let mut command = room.larder(args);
        command.env("LARDER_ADMIN_TOKEN", TOKEN).env("LARDER_ADMIN", &desk).output().unwrap()
    };
    for command in ["explain", "purge"] {
        let output = operate(&[command, &url]);
        assert_eq!(status(&output), 3);
        assert!(err(&output).contains("certificate"), "{}", err(&output));
        let output = operate(&[command, &url, "--ca", "none.pem"]);
        assert_eq!(status(&output), 2);
        assert!(err(&output).contains("cannot read the certificate none.pem"), "{}", err(&output));
        let output = operate(&[command, &url, "--ca", &ca]);
        assert_eq!(status(&output), 0, "{}", err(&output));
    }
    assert_eq!(get(server.address(), "/1").cache(), "Larder; fwd=uri-miss; stored");
}
