//! `larder purge`, `explain` and `warm` against a server that runs.

use serde_json::{Value, json};

use super::*;
use crate::harness::{err, out, status};

/// An origin with pages that may be kept, one that may not, one that is not there, and sitemaps.
fn site() -> Origin {
    Origin::start(|asked, stream| {
        let host = format!("http://{HOST}");
        let kept = format!("{FRESH}\nCache-Tag: page");
        match asked.path() {
            "/basket" => write_answer(stream, "HTTP/1.1 200 OK\nCache-Control: no-store", b"mine"),
            "/gone" => write_answer(stream, "HTTP/1.1 404 Not Found\nCache-Control: no-store", b"no"),
            "/index.xml" => {
                let map = format!("<sitemap><loc>{host}/map.xml</loc></sitemap>").repeat(2);
                write_answer(stream, &kept, format!("<sitemapindex>{map}</sitemapindex>").as_bytes())
            }
            "/map.xml" => {
                let url = |path: &str| format!("<url><loc>{host}{path}</loc></url>\n");
                let map = [url("/1"), url("/2?a=1&amp;b=2"), url("/1")].concat();
                write_answer(stream, &kept, format!("<urlset>{map}</urlset>").as_bytes())
            }
            path => write_answer(stream, &kept, path.as_bytes()),
        }
    })
}

fn warm(room: &Room, server: &Server, args: &[&str]) -> Output {
    let through = format!("http://{}", server.address());
    let mut all = vec!["warm", "--through", &through];
    all.extend(args);
    room.call(all)
}

#[test]
fn warming_a_list_fills_the_cache_and_says_what_became_of_it() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let list =
        format!("# pages\nhttp://{HOST}/1\n\nhttp://{HOST}/2\nhttp://{HOST}/basket\nhttp://{HOST}/1\n");
    fs::write(room.path("list"), &list).unwrap();
    let output = warm(&room, &server, &["list", "--header", "X-Warm: 1"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(out(&output).starts_with("3 URLs, 8 B, in "), "{}", out(&output));
    assert!(
        out(&output).ends_with("; 0 failed\ncache   not stored 1, stored 2\nstatus  200 3\n"),
        "{}",
        out(&output)
    );
    assert!(
        origin
            .asked()
            .iter()
            .all(|asked| asked.has("\r\nx-warm: 1\r\n") && asked.has("\r\nhost: shop.test\r\n"))
    );
    assert_eq!(get(server.address(), "/1").cache(), "Larder; hit");
    let output = room.call_with_input(
        ["warm", "-", "--json", "--through", &server.address().to_string()],
        format!("{list}http://{HOST}/gone\n").as_bytes(),
    );
    assert_eq!(status(&output), 1);
    let sum: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(sum["cache"], json!({ "hit": 2, "not stored": 2 }));
    assert_eq!((&sum["status"], &sum["failed"]), (&json!({ "200": 3, "404": 1 }), &json!(1)));
    assert_eq!(sum["failures"][0]["url"], format!("http://{HOST}/gone"));
}

#[test]
fn warming_a_sitemap_follows_its_index_through_the_cache() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let output = warm(&room, &server, &[&format!("http://{HOST}/index.xml"), "--concurrency", "1"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("cache   stored 2\n"), "{}", out(&output));
    let asked: Vec<_> = origin.asked().iter().map(|asked| asked.path().to_owned()).collect();
    assert_eq!(asked, ["/index.xml", "/map.xml", "/1", "/2?a=1&b=2"]);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn warming_reads_what_is_compressed_with_gzip() {
    let room = Room::new();
    let origin = Origin::start(|asked, stream| {
        let host = format!("http://{HOST}");
        let map = |path: &str| format!("<urlset><url><loc>{host}{path}</loc></url></urlset>");
        let no_store = "HTTP/1.1 200 OK\nCache-Control: no-store";
        match asked.path() {
            "/index.xml" => {
                let maps = ["/file.xml.gz", "/coded.xml", "/both.xml.gz"];
                let maps = maps.map(|path| format!("<sitemap><loc>{host}{path}</loc></sitemap>")).concat();
                let index = gzip(format!("<sitemapindex>{maps}</sitemapindex>").as_bytes());
                write_answer(stream, &format!("{no_store}\nContent-Encoding: gzip"), &index)
            }
            "/file.xml.gz" => {
                let head = format!("{no_store}\nContent-Type: application/gzip");
                write_answer(stream, &head, &gzip(map("/1").as_bytes()))
            }
            "/coded.xml" => {
                let head = format!("{no_store}\nContent-Encoding: x-gzip");
                write_answer(stream, &head, &gzip(map("/2").as_bytes()))
            }
            "/both.xml.gz" => {
                let head = format!("{no_store}\nContent-Encoding: gzip");
                write_answer(stream, &head, &gzip(&gzip(map("/3").as_bytes())))
            }
            "/brotli.xml" => write_answer(stream, &format!("{no_store}\nContent-Encoding: br"), b"\x0b\x02"),
            "/bomb.xml.gz" => write_answer(stream, no_store, &gzip(&vec![b' '; (64 << 20) + 1])),
            "/nested.xml" => {
                let index =
                    format!("<sitemapindex><sitemap><loc>{host}/index.xml</loc></sitemap></sitemapindex>");
                write_answer(stream, no_store, &gzip(index.as_bytes()))
            }
            path => write_answer(stream, FRESH, path.as_bytes()),
        }
    });
    let server = Server::before(&room, &origin);
    let output = warm(&room, &server, &[&format!("http://{HOST}/index.xml"), "--concurrency", "1"]);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("cache   stored 3\n"), "{}", out(&output));
    let asked: Vec<_> = origin.asked().iter().map(|asked| asked.path().to_owned()).collect();
    assert_eq!(asked, ["/index.xml", "/file.xml.gz", "/coded.xml", "/both.xml.gz", "/1", "/2", "/3"]);
    fs::write(room.path("list.gz"), gzip(format!("http://{HOST}/1\n").as_bytes())).unwrap();
    let output = warm(&room, &server, &["list.gz"]);
    assert!(out(&output).contains("cache   hit 1\n"), "{}{}", out(&output), err(&output));
    for (source, said, code) in [
        ("/brotli.xml", "its coding is br, and only gzip is read here", 3),
        ("/bomb.xml.gz", "it is compressed, and comes to more than 67108864 bytes", 2),
        ("/nested.xml", "is an index of sitemaps within an index", 2),
    ] {
        let output = warm(&room, &server, &[&format!("http://{HOST}{source}")]);
        assert_eq!(status(&output), code, "{source}: {}", err(&output));
        assert!(err(&output).contains(said), "{source}: {}", err(&output));
    }
}

#[test]
fn warming_keeps_to_its_rate() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let list: String = (0..5).map(|n| format!("http://{HOST}/{n}\n")).collect();
    fs::write(room.path("list"), list).unwrap();
    let output = warm(&room, &server, &["list", "--rate", "10/s", "--json"]);
    let sum: Value = serde_json::from_str(&out(&output)).unwrap();
    assert!(sum["took_ms"].as_u64().unwrap() >= 400, "{sum}");
}

#[test]
fn what_cannot_be_warmed_is_said_with_its_place() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    fs::write(room.path("list"), format!("http://{HOST}/1\nno url\n")).unwrap();
    fs::write(room.path("list.gz"), [0x1f, 0x8b, 8]).unwrap();
    for (source, said, code) in [
        ("list", "list: line 2: \"no url\" is not an http:// or https:// URL", 2),
        ("list.gz", "compressed with gzip, and damaged", 2),
        ("none", "cannot read none: ", 2),
        (&format!("http://{HOST}/gone"), "answered with 404", 3),
    ] {
        let output = warm(&room, &server, &[source]);
        assert_eq!(status(&output), code, "{source}: {}", err(&output));
        assert!(err(&output).contains(said), "{source}: {}", err(&output));
    }
    assert!(origin.asked().iter().all(|asked| asked.path() == "/gone"));
    fs::write(room.path("list"), format!("http://{HOST}/1\n")).unwrap();
    let output = room.call(["warm", "list", "--through", "http://127.0.0.1:1"]);
    assert_eq!(status(&output), 1);
    assert!(err(&output).contains("cannot connect") && out(&output).contains("none 1"), "{}", err(&output));
}

#[test]
fn purging_says_what_went_and_whether_anything_did() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let url = |path: &str| format!("http://{HOST}{path}");
    let fill = || ["/1", "/2", "/3"].map(|path| get(server.address(), path));
    let hit = |path: &str| get(server.address(), path).cache() == "Larder; hit";
    fill();
    let output = server.operate(&room, &["purge", &url("/1"), &url("/none"), "--prefix", &url("/2")]);
    let said = "http://shop.test/1: purged\nhttp://shop.test/none: nothing is stored\nhttp://shop.test/2*: 1 URL purged\n";
    assert_eq!((status(&output), out(&output).as_str()), (0, said), "{}", err(&output));
    assert!(hit("/3") && !hit("/1") && !hit("/2"));
    fill();
    let output = server.operate(&room, &["purge", "--tag", "page", "--dry-run"]);
    assert!(out(&output).starts_with("tagged page: 3 URLs would be purged\n  http://"), "{}", out(&output));
    assert!(hit("/1"));
    let output = server.operate(&room, &["purge", "--tag", "page", "--json"]);
    let done: Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(done["done"], json!([{ "tags": ["page"], "purged": true }]));
    assert!(!hit("/1"));
    let output = server.operate(&room, &["purge", &url("/none")]);
    assert_eq!((status(&output), out(&output).as_str()), (1, "http://shop.test/none: nothing is stored\n"));
    fill();
    let output = server.operate(&room, &["purge", "--all"]);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("--yes") && hit("/1"), "{}", err(&output));
    assert_eq!(status(&server.operate(&room, &["purge", "--all", "--yes"])), 0);
    assert!(!hit("/1"));
}

#[cfg(target_os = "linux")]
#[test]
fn purging_all_asks_on_a_terminal_and_does_it_only_on_a_yes() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    get(server.address(), "/1");
    let hit = || get(server.address(), "/1").cache() == "Larder; hit";
    let call = |args: &[&str], typed: &str| {
        let (status, shown) = crate::terminal::on_terminal(server.operator(&room, args), typed);
        (status.code().unwrap(), shown)
    };
    for no in ["n\n", "\n", "yy\n", "\u{4}"] {
        for args in [&["purge", "--all"][..], &["purge", "--all", "--soft"]] {
            let (status, shown) = call(args, no);
            assert!(status == 1 && shown.contains("[y/N]"), "{status}: {shown}");
            assert!(shown.contains(&server.admin().to_string()) && !shown.contains(TOKEN), "{shown}");
            assert!(hit(), "{no:?}");
        }
    }
    // What changes nothing does not ask.
    let (status, shown) = call(&["purge", "--all", "--dry-run"], "");
    assert!(status == 0 && !shown.contains("[y/N]") && hit(), "{status}: {shown}");
    let (status, shown) = call(&["purge", "--all"], "y\n");
    assert_eq!(status, 0, "{shown}");
    assert!(!hit());
    let (status, shown) = call(&["purge", "--all", "--yes"], "");
    assert!(status == 0 && !shown.contains("[y/N]") && !hit(), "{status}: {shown}");
}

#[test]
fn very_many_urls_are_purged_by_one_command() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let urls: Vec<_> = (0..450).map(|n| format!("http://{HOST}/{n}")).collect();
    get(server.address(), "/449");
    let mut args = vec!["purge", "--json", "--tag", "none"];
    args.extend(urls.iter().map(String::as_str));
    let done: Value = serde_json::from_str(&out(&server.operate(&room, &args))).unwrap();
    assert_eq!(done["done"].as_array().unwrap().len(), 451);
    assert_eq!(done["done"][449], json!({ "url": "http://shop.test/449", "purged": true }));
}

#[test]
fn what_keeps_an_operator_out_is_said() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let (admin, cache) = (format!("http://{}", server.admin()), format!("http://{}", server.address()));
    let url = format!("http://{HOST}/1");
    let call = |args: &[&str], token: Option<&str>| {
        let mut all = vec!["purge", &url];
        all.extend(args);
        let mut command = room.larder(all);
        if let Some(token) = token {
            command.env("LARDER_ADMIN_TOKEN", token);
        }
        let output = command.output().unwrap();
        (status(&output), err(&output))
    };
    fs::write(room.path("token"), format!("{TOKEN}\n")).unwrap();
    let known = ["--admin", &admin, "--token-file", "token"];
    assert_eq!(call(&known, Some("another-token-altogether")).0, 1);
    for (args, token, code, said) in [
        (&[][..], Some(TOKEN), 2, "--admin URL"),
        (&["--admin", &admin], None, 2, "LARDER_ADMIN_TOKEN"),
        (&["--admin", &admin], Some("another-token-altogether"), 2, "does not accept the token"),
        (&["--admin", &admin, "--token-file", "none"], None, 2, "cannot read none"),
        (&["--admin", "ftp://x"], Some(TOKEN), 2, "--admin is neither"),
        (&["--admin", "127.0.0.1:1"], Some(TOKEN), 3, "is larder serve running there"),
        (&["--admin", &cache], Some(TOKEN), 3, "is this its admin address?"),
    ] {
        let (is, err) = call(args, token);
        assert!(is == code && err.contains(said), "{args:?}: {is}: {err}");
    }
}

#[test]
fn an_explanation_reads_well() {
    let room = Room::new();
    let origin = site();
    let server = Server::before(&room, &origin);
    let url = format!("http://{HOST}/1");
    let output = server.operate(&room, &["explain", &url]);
    assert_eq!(status(&output), 1);
    assert!(
        out(&output).starts_with("http://shop.test/1\nverdict  ask the origin\nreason   "),
        "{}",
        out(&output)
    );
    get(server.address(), "/1");
    let output = server.operate(&room, &["explain", &url, "--header", "Cache-Control: no-cache"]);
    let said = out(&output);
    assert_eq!(status(&output), 0, "{}", err(&output));
    assert!(said.contains("verdict  ask the origin whether"), "{said}");
    assert!(said.contains("\n* 200, 2 B, fresh, ") && said.contains("\n  tags      page\n"), "{said}");
    assert!(said.contains("\n  lifetime  1m: max-age says how long it is fresh\n"), "{said}");
    let output = server.operate(&room, &["explain", &url, "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out(&output)).unwrap()["variants"][0]["status"], 200);
}
