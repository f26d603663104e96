//! Caches that a configuration file names, and `larder check`.

use serde_json::{Value, json};

use crate::harness::{Room, err, out, status};

const CONFIG: &str = "\
stacks:
  users:
    l2: sqlite:users.db
    ttl: 1h
  pages:
    l2: { driver: sqlite, path: pages.db }
    prefix: web
    compress: true
    encrypt: { keys: ['1:aes-256-gcm:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'] }
  local: {}
";

fn room() -> Room {
    let room = Room::new();
    std::fs::write(room.path("larder.yaml"), CONFIG).unwrap();
    room
}

#[test]
fn a_configured_cache_takes_what_get_prints_and_keeps_its_options() {
    let room = room();
    let users = |line: &[&str]| room.call([line, &["--config", "larder.yaml", "--cache", "users"]].concat());
    assert_eq!(status(&users(&["set", "42", "{\"name\":\"Ada\"}"])), 0);
    assert_eq!(out(&users(&["get", "42"])), "{\"name\":\"Ada\"}");
    let entry: Value = serde_json::from_str(&out(&users(&["get", "42", "--json"]))).unwrap();
    assert_eq!(entry["codec"], "json");
    assert!(entry["ttl_left_ms"].as_u64().unwrap() > 3_000_000);
    let refused = users(&["set", "43", "s3cret, not JSON"]);
    assert_eq!(status(&refused), 2);
    assert!(err(&refused).contains("JSON") && !err(&refused).contains("s3cret"), "{}", err(&refused));
    assert_eq!(out(&users(&["incr", "n", "5"])), "5\n");
    assert_eq!(out(&users(&["get", "n"])), "5");
}

#[test]
fn a_configured_cache_is_compressed_encrypted_and_prefixed_as_it_says() {
    let room = room();
    let value = format!("\"{}\"", "a secret ".repeat(1_000));
    let pages = ["--config", "larder.yaml", "--cache", "pages"];
    assert_eq!(status(&room.call_with_input([&["set", "k"], &pages[..]].concat(), value.as_bytes())), 0);
    assert_eq!(out(&room.call([&["get", "k"], &pages[..]].concat())), value);
    let keys = room.call(["keys", "--store", "sqlite:pages.db", "--prefix", "web"]);
    assert_eq!(out(&keys), "k\n");
    let plain = room.call(["get", "k", "--store", "sqlite:pages.db", "--prefix", "web"]);
    assert_eq!(status(&plain), 1, "it can be read without the key");
}

#[test]
fn variables_stand_in_for_the_flags() {
    let room = room();
    let call = |line: &[&str], variables: &[(&str, &str)]| {
        let mut command = room.larder(line);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    let configured = [("LARDER_CONFIG", "larder.yaml"), ("LARDER_CACHE", "users")];
    assert_eq!(status(&call(&["set", "k", "1"], &configured)), 0);
    assert_eq!(
        out(&call(&["get", "k", "--store", "sqlite:users.db", "--prefix", "users"], &configured)),
        "1"
    );
    assert_eq!(status(&call(&["set", "l", "1", "--cache", "pages"], &configured)), 0);
    assert_eq!(status(&call(&["get", "k", "--cache", "pages"], &configured)), 1);
    let both = [("LARDER_CONFIG", "larder.yaml"), ("LARDER_STORE", "sqlite:other.db")];
    assert_eq!(status(&call(&["set", "l", "1"], &both)), 0);
    assert_eq!(status(&call(&["get", "k"], &both)), 1);
    assert_eq!(out(&call(&["get", "k", "--cache", "users"], &both)), "1");
}

#[test]
fn a_cache_that_is_not_there_or_has_no_store_is_a_usage_error_that_helps() {
    let room = room();
    for (flags, words) in [
        (&["--cache", "user"][..], "local, pages, users"),
        (&[], "--cache"),
        (&["--cache", "local"], "has no store"),
    ] {
        let output = room.call([&["get", "k", "--config", "larder.yaml"], flags].concat());
        assert_eq!(status(&output), 2);
        assert!(err(&output).contains(words), "{}", err(&output));
    }
    let output = room.call(["get", "k", "--config", "missing.yaml"]);
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("missing.yaml"), "{}", err(&output));
}

#[test]
fn check_says_what_it_means_and_shows_no_secret() {
    let room = room();
    let checked = room.call(["check", "larder.yaml"]);
    let text = out(&checked);
    assert_eq!((status(&checked), err(&checked)), (0, String::new()));
    assert!(text.contains("users.db") && text.contains("web"), "{text}");
    assert!(!text.contains("00010203"), "{text}");
    assert!(!room.path("users.db").exists(), "it opened a store");
    let lines = out(&room.call(["check", "larder.yaml", "--json"]));
    let ttl = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ttl: Vec<_> = ttl.filter(|line| line["cache"] == "users" && line["option"] == "ttl").collect();
    assert_eq!(ttl.len(), 1);
    assert_eq!(ttl[0]["value"], "1h");
    assert!(ttl[0]["origin"].as_str().unwrap().starts_with("larder.yaml:4"), "{ttl:?}");
}

#[test]
fn check_says_which_options_contradict_each_other() {
    let room = Room::new();
    let config = "stacks: { a: { l2: 'sqlite:a.db', prefix: x, ttl: 1h, grace: 5s }, b: { l2: 'sqlite:a.db', prefix: x } }";
    std::fs::write(room.path("odd.yaml"), config).unwrap();
    let output = room.call(["check", "odd.yaml"]);
    assert_eq!(status(&output), 0, "it works all the same");
    let text = out(&output);
    assert!(text.contains("\na: warning [grace-too-short]: grace is 5s after a TTL of 3600s: "), "{text}");
    assert!(text.contains("\nwarning [shared-entries]: the stacks \"a\" and \"b\" share a store"), "{text}");
    let lines = out(&room.call(["check", "odd.yaml", "--json"]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let advice: Vec<_> = lines.iter().filter(|line| line.get("advice").is_some()).collect();
    assert_eq!((advice.len(), &advice[0]["cache"], &advice[1]["cache"]), (2, &json!("a"), &Value::Null));
    assert!(advice[0]["cure"].as_str().unwrap().contains("grace"));
}

#[test]
fn check_tells_what_is_wrong_and_where() {
    let room = Room::new();
    std::fs::write(room.path("wrong.yaml"), "stacks:\n  users:\n    tll: 5m\n").unwrap();
    let output = room.call(["check", "wrong.yaml"]);
    assert_eq!((status(&output), out(&output)), (2, String::new()));
    assert!(
        err(&output).contains("wrong.yaml:3") && err(&output).contains("did you mean"),
        "{}",
        err(&output)
    );
    let nothing = room.call(["check"]);
    assert_eq!(status(&nothing), 2);
    assert!(err(&nothing).contains("LARDER_CONFIG"));
}

#[test]
fn check_connect_tries_every_store() {
    let room = room();
    let output = room.call(["check", "larder.yaml", "--connect"]);
    assert_eq!(status(&output), 3);
    assert!(out(&output).contains("there is no store at "), "{}", out(&output));
    assert!(!room.path("users.db").exists(), "it created a store");
    for (cache, value) in [("users", "1"), ("pages", "1")] {
        room.call(["set", "k", value, "--config", "larder.yaml", "--cache", cache]);
    }
    let output = room.call(["check", "larder.yaml", "--connect"]);
    assert_eq!(status(&output), 0);
    assert!(out(&output).ends_with("users: reached\n"), "{}", out(&output));
    std::fs::write(room.path("plain"), "").unwrap();
    std::fs::write(
        room.path("wrong.yaml"),
        "stacks: { a: { l2: 'file:plain/below' }, b: { l2: 'sqlite:b.db' } }",
    )
    .unwrap();
    room.call(["set", "k", "v", "--store", "sqlite:b.db"]);
    let output = room.call(["check", "wrong.yaml", "--connect", "--json"]);
    assert_eq!(status(&output), 3);
    let lines: Vec<Value> = out(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reached: Vec<_> = lines.iter().filter(|line| line.get("reached").is_some()).collect();
    assert_eq!((&reached[0]["reached"], &reached[1]["reached"]), (&json!(false), &json!(true)));
    assert!(reached[0]["error"].as_str().unwrap().contains("wrong.yaml:1"), "{reached:?}");
}

#[test]
fn check_takes_the_file_as_the_other_commands_do_too() {
    let room = room();
    let plain = room.call(["check", "larder.yaml"]);
    for flag in ["--config", "-c"] {
        assert_eq!(room.call(["check", flag, "larder.yaml"]), plain);
    }
    assert_eq!(status(&room.call(["check", "larder.yaml", "--config", "larder.yaml"])), 2);
}

#[test]
fn check_passes_nothing_that_cannot_be_built() {
    let room = Room::new();
    let key = "ab".repeat(32);
    for (stack, place) in [
        ("l2: 'memory:', encrypt: {keys: ['1:aes-256-gcm:zz']}".to_owned(), "encrypt.keys"),
        ("l2: 'memory:', encrypt: {keys: ['1:rot13:00']}".to_owned(), "encrypt.keys"),
        ("l2: 'memory:', encrypt: {keys: ['nonsense']}".to_owned(), "encrypt.keys"),
        (
            format!("l2: 'memory:', encrypt: {{keys: ['1:aes-256-gcm:{key}', '1:aes-256-gcm:{key}']}}"),
            "encrypt.keys",
        ),
        (format!("l2: 'memory:', prefix: {}", "p".repeat(500)), "prefix"),
        ("compress: true".to_owned(), "compress"),
    ] {
        std::fs::write(room.path("wrong.yaml"), format!("stacks: {{a: {{{stack}}}}}")).unwrap();
        for flags in [&[][..], &["--json"], &["--connect"]] {
            let output = room.call([&["check", "wrong.yaml"], flags].concat());
            assert_eq!((status(&output), out(&output)), (2, String::new()), "{stack}");
            let said = err(&output);
            assert!(said.contains("wrong.yaml:1:") && said.contains(place), "{stack}: {said}");
        }
    }
}

#[test]
fn check_connect_opens_what_stands_around_a_store() {
    let room = room();
    for cache in ["users", "pages"] {
        room.call(["set", "k", "1", "--config", "larder.yaml", "--cache", cache]);
    }
    let lines = out(&room.call(["check", "-c", "larder.yaml", "--connect"]));
    assert!(lines.ends_with("local: reached\npages: reached\nusers: reached\n"), "{lines}");
}

#[test]
fn check_shows_places_as_they_are() {
    let room = Room::new();
    std::fs::write(
        room.path("larder.yaml"),
        "stacks: { a: { l2: 'sqlite:${DIR:-.}/c.db' }, b: { l2: 'file:///tmp/x' }, c: { l2: 'file:$${A}' } }",
    )
    .unwrap();
    let text = out(&room.call(["check", "larder.yaml"]));
    let shows = |value: &str| text.lines().any(|line| line.split_whitespace().nth(1) == Some(value));
    assert!(shows("./c.db") && shows("/tmp/x") && shows("${A}"), "{text}");
}

#[test]
fn a_bad_prefix_is_blamed_on_who_gave_it() {
    let room = Room::new();
    let long = "p".repeat(500);
    std::fs::write(room.path("larder.yaml"), format!("stacks: {{a: {{l2: 'sqlite:a.db', prefix: {long}}}}}"))
        .unwrap();
    let of_config = err(&room.call(["set", "k", "1", "--config", "larder.yaml"]));
    assert!(of_config.contains("larder.yaml:1:") && !of_config.contains("--prefix"), "{of_config}");
    let of_flag = err(&room.call(["set", "k", "1", "--config", "larder.yaml", "--prefix", &long]));
    assert!(of_flag.contains("--prefix") && !of_flag.contains("larder.yaml:1:"), "{of_flag}");
}

#[test]
fn check_explains_the_documents_of_other_caches() {
    let room = Room::new();
    let page = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coming-from").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let examples = |page: &str, language: &str| -> Vec<String> {
        let fence = format!("```{language}\n");
        page.split(&fence).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect()
    };
    let mut count = 0;
    for (text, file) in examples(&page("bentocache.md"), "yaml")
        .into_iter()
        .map(|text| (text, "a.yaml"))
        .chain(examples(&page("bentocache.md"), "json").into_iter().map(|text| (text, "a.json")))
        .chain(examples(&page("deepstream.md"), "yaml").into_iter().map(|text| (text, "a.yaml")))
    {
        // The page's own placeholders, which stand for one password.
        let text = text.replace("<String>\n        port", "h\n        port").replace("<Number>", "7000");
        let text = text.replace("password: <String>", "password: fallback-password");
        let text = text.replace("endpoint: '...'", "endpoint: http://localhost:8000");
        std::fs::write(room.path(file), &text).unwrap();
        let checked = room.call(["check", file]);
        assert_eq!(status(&checked), 0, "{text}: {}", err(&checked));
        assert!(!out(&checked).contains("fallback-password"), "{}", out(&checked));
        count += 1;
    }
    assert_eq!(count, 12);

    std::fs::write(room.path("file.json"), &examples(&page("beego.md"), "json")[1]).unwrap();
    let checked = room.call(["check", "--from", "beego:file", "file.json"]);
    assert_eq!(status(&checked), 0, "{}", err(&checked));
    for line in
        ["ttl                      2m", "l2.directory             ./cache", "l2.suffix                .cache"]
    {
        assert!(out(&checked).contains(line), "{line}: {}", out(&checked));
    }
    for (line, said) in [
        (&["check", "--from", "beego:ssdb", "file.json"][..], "cannot take over beego's adapter \"ssdb\""),
        (&["check", "--from", "beego"][..], "--from takes beego:ADAPTER"),
        (&["check", "--from", "beego:file"][..], "name a file with beego's JSON"),
        (&["check", "--from", "beignet", "file.json"][..], "takes its variables from the environment"),
        (&["check", "--from", "beignet"][..], "REDIS_URL is not set"),
    ] {
        let checked = room.call(line);
        assert!(status(&checked) != 0 && err(&checked).contains(said), "{line:?}: {}", err(&checked));
    }
}
