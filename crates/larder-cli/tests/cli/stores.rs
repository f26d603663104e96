//! Which store is opened, which is created, and how large what nobody named becomes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::Duration;

use larder::driver::sql::client::{self, Pool};
use serde_json::{Value, json};

use crate::harness::{Room, err, out, status};

fn parsed(output: &std::process::Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_mistyped_store_is_not_created_by_what_stores_nothing() {
    let room = Room::new();
    for store in ["sqlite:typo.db", "file:./typo", "sqlite3:typo.db?create=true", "sqlite:typo/typo.db"] {
        for line in [
            &["get", "k"][..],
            &["keys"],
            &["stats"],
            &["prune"],
            &["expire", "k"],
            &["touch", "k", "--ttl", "1m"],
            &["delete", "k"],
            &["clear", "--yes"],
            &["incr", "k", "--existing"],
            &["keys", "--run"],
        ] {
            let output = room.call([line, &["--store", store]].concat());
            assert_eq!((status(&output), out(&output)), (2, String::new()), "{line:?} {store}");
            assert!(err(&output).contains("there is no store at "), "{line:?}: {}", err(&output));
        }
    }
    assert_eq!(fs::read_dir(room.path("")).unwrap().count(), 0);
}

#[test]
fn the_default_store_is_empty_until_something_is_stored() {
    let room = Room::new();
    assert_eq!(status(&room.call(["get", "k"])), 1);
    assert_eq!(status(&room.call(["keys"])), 0);
    assert_eq!(parsed(&room.call(["stats", "--run", "--json"]))["live"], 0);
    assert_eq!(status(&room.call(["delete", "k"])), 1);
    assert!(!room.path("cache").exists());
    assert_eq!(status(&room.call(["set", "k", "v"])), 0);
    assert_eq!(out(&room.call(["get", "k"])), "v");
}

#[test]
fn a_store_in_a_folder_that_may_not_be_written_to_can_be_read() {
    let room = Room::new();
    let folder = room.path("a ?folder#");
    fs::create_dir(&folder).unwrap();
    let store = format!("sqlite:{}", folder.join("s.db").display().to_string().replace('?', "%3F"));
    assert_eq!(status(&room.call(["set", "k", "v", "--store", &store])), 0);
    let mode = |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.join("s.db"), 0o444);
    mode(folder.clone(), 0o555);
    mode(room.path(""), 0o755);
    // Nothing is forbidden to root, so it has somebody else read.
    let call = |line: &[&str]| {
        let mut command = room.larder([line, &["--store", &store]].concat());
        if rustix::process::geteuid().is_root() {
            command.uid(65_534);
        }
        command.output().unwrap()
    };
    let got = call(&["get", "k"]);
    assert_eq!((status(&got), out(&got), err(&got)), (0, "v".to_owned(), String::new()));
    assert_eq!(out(&call(&["keys"])), "k\n");
    assert_eq!(parsed(&call(&["stats", "--json"]))["live"], 1);
    assert_eq!(status(&call(&["delete", "k"])), 3);
    mode(folder.clone(), 0o755);
    fs::write(folder.join("s.db-wal"), "a log").unwrap();
    mode(folder.clone(), 0o555);
    let with_log = call(&["get", "k"]);
    assert_eq!(status(&with_log), 3);
    assert!(err(&with_log).contains("(-wal)"), "{}", err(&with_log));
    mode(folder, 0o755);
}

#[test]
fn what_run_keeps_is_reached_by_a_flag() {
    let room = Room::new();
    room.run(&[], "echo x");
    let store = format!("sqlite:{}", room.path("own.db").display());
    room.run(&["--store", &store], "echo y");
    for flags in [&["--run"][..], &["--run", "--store", &store]] {
        let call = |line: &[&str]| room.call([line, flags].concat());
        assert_eq!(parsed(&call(&["stats", "--json"]))["live"], 1, "{flags:?}");
        let key = parsed(&call(&["keys", "--json"]))["key"].as_str().unwrap().to_owned();
        assert_eq!(status(&call(&["delete", &key])), 0, "{flags:?}");
        assert_eq!(out(&call(&["keys"])), "", "{flags:?}");
    }
    room.run(&[], "echo x");
    assert_eq!(room.runs(), 3);
    assert_eq!(status(&room.call(["clear", "--run", "--yes"])), 0);
    room.run(&[], "echo x");
    assert_eq!(room.runs(), 4);
    assert_eq!(out(&room.call(["prune", "--run"])), "0 pruned\n");
    assert_eq!(status(&room.call(["keys", "--run", "--namespace", "run"])), 2);
}

/// Makes the last prune of every store one of long ago.
fn let_a_while_pass(room: &Room) {
    for marker in fs::read_dir(room.path("cache/larder/pruned")).unwrap() {
        let marker = fs::File::options().write(true).open(marker.unwrap().path()).unwrap();
        let marked = marker.metadata().unwrap().modified().unwrap();
        marker.set_modified(marked - Duration::from_secs(120)).unwrap();
    }
}

#[test]
fn what_has_expired_is_reclaimed_by_processes_that_live_shortly() {
    let room = Room::new();
    for n in 0..5 {
        room.run(&["--ttl", "1ms", "--key", &n.to_string()], "head -c 100000 /dev/zero");
        room.call(["set", &n.to_string(), "v", "--ttl", "1ms"]);
    }
    std::thread::sleep(Duration::from_millis(50));
    let_a_while_pass(&room);
    room.run(&["--ttl", "1h", "--key", "last"], "true");
    room.call(["set", "last", "v"]);
    for flags in [&["--run"][..], &[]] {
        let pruned = room.call([&["prune", "--json"], flags].concat());
        assert_eq!(parsed(&pruned), json!({"pruned": 0}), "{flags:?}");
        assert_eq!(parsed(&room.call([&["stats", "--json"], flags].concat()))["live"], 1);
    }
    let size = fs::metadata(room.path("cache/larder/run.db")).unwrap().len();
    assert!(size < 300_000, "{size} bytes are still taken");
}

#[test]
fn what_run_keeps_is_bounded() {
    let room = Room::new();
    let store = format!("sqlite:{}?max_bytes=256KiB", room.path("s.db").display());
    for n in 0..6 {
        room.run(&["--store", &store, "--key", &n.to_string()], "head -c 100000 /dev/zero");
        let_a_while_pass(&room);
    }
    let kept = parsed(&room.call(["stats", "--json", "--run", "--store", &store]))["live"].as_u64().unwrap();
    assert!((1..=2).contains(&kept), "{kept} of 100 kB each in 256 KiB");
    // The default has a bound as well: the index that it needs is there.
    room.run(&[], "true");
    let file = fs::read(room.path("cache/larder/run.db")).unwrap();
    assert!(file.windows(17).any(|bytes| bytes == b"larder_written_at"));
}

#[test]
fn a_ttl_of_zero_is_not_said_to_be_stored() {
    let room = Room::new();
    for flags in [&[][..], &["--if-absent"]] {
        let output = room.call([&["set", "z", "v", "--ttl", "0", "--json"], flags].concat());
        assert_eq!((status(&output), parsed(&output)["stored"].clone()), (1, json!(false)), "{flags:?}");
    }
    fs::write(room.path("c.yaml"), "stacks: {a: {l2: 'sqlite:a.db', ttl: 0}}").unwrap();
    let output = room.call(["set", "z", "1", "--config", "c.yaml", "--json"]);
    assert_eq!(parsed(&output)["stored"], false);
    let output = room.call(["set", "z", "1", "--config", "c.yaml", "--json", "--ttl", "1m"]);
    assert_eq!((status(&output), parsed(&output)["stored"].clone()), (0, json!(true)));
}

#[test]
fn counting_with_text_names_the_key_and_is_a_usage_error() {
    let room = Room::new();
    room.call(["set", "greeting", "hello"]);
    room.call(["set", "much", &i64::MAX.to_string()]);
    for key in ["greeting", "much"] {
        let output = room.call(["incr", key]);
        assert_eq!((status(&output), out(&output)), (2, String::new()));
        assert!(err(&output).contains(key) && !err(&output).contains("hello"), "{}", err(&output));
    }
}

#[test]
fn what_is_set_in_memory_is_said_to_be_lost() {
    let room = Room::new();
    for store in ["memory:", "sqlite::memory:"] {
        let output = room.call(["set", "k", "v", "--store", store]);
        assert_eq!(status(&output), 0);
        assert!(err(&output).contains("warning") && err(&output).contains("lost"), "{}", err(&output));
    }
    assert_eq!(err(&room.call(["set", "k", "v"])), "");
}

#[test]
fn a_run_that_makes_no_sense_does_not_run() {
    let room = Room::new();
    for (flags, said) in [
        (&["-e", "A=1"][..], "-e A"),
        (&["-e", ""], "-e NAME"),
        (&["-e", "=x"], "-e NAME"),
        (&["--store", "nosuch:abc"], "nosuch"),
        (&["--store", "nonsense://x:s3cret@y"], "nonsense"),
        (&["--store", "sqlite:a.db?tabel=x"], "tabel"),
        (&["--store", "abc.db"], "driver"),
    ] {
        let output = room.run(flags, "echo x");
        assert_eq!((status(&output), out(&output)), (2, String::new()), "{flags:?}");
        let said_so = err(&output);
        assert!(said_so.contains(said) && !said_so.contains("s3cret"), "{flags:?}: {said_so}");
    }
    let mut command = room.run_command(&[], "echo x");
    let output = command.env("LARDER_STORE", "nosuch:abc").output().unwrap();
    assert_eq!(status(&output), 2);
    assert!(err(&output).contains("LARDER_STORE"), "{}", err(&output));
    assert_eq!(room.runs(), 0);
}

#[test]
fn messages_say_each_thing_once_and_name_what_is_empty() {
    let room = Room::new();
    fs::write(room.path("plain"), "").unwrap();
    let said = err(&room.call(["set", "k", "v", "--store", "file:plain/below"]));
    assert_eq!(said.matches("unavailable").count(), 1, "{said}");
    let said = err(&room.call(["run", "--", ""]));
    assert!(said.starts_with("larder: cannot run \"\": "), "{said}");
    let said = err(&room.run(&["-v", "--keep-failures"], "kill -9 $$"));
    assert!(said.ends_with("not kept: the command died of signal 9\n"), "{said}");
}

#[tokio::test]
async fn a_table_in_a_database_is_created_by_what_stores_something_and_by_nothing_else() {
    for (variable, name) in [("LARDER_TEST_POSTGRES_URL", "postgres"), ("LARDER_TEST_MYSQL_URL", "mysql")] {
        let Ok(url) = std::env::var(variable) else {
            eprintln!("not tested with {name}: {variable} is not set");
            continue;
        };
        let room = Room::new();
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), name);
        let (table, mark) = (format!("larder_cli_{random:016x}"), if url.contains('?') { '&' } else { '?' });
        let store = format!("{url}{mark}table={table}");
        let asked = format!("{store}&autoCreateTable=true");
        fs::write(room.path("larder.yaml"), format!("stacks:\n  one: {{l2: '{store}'}}\n")).unwrap();
        assert_eq!(status(&room.call(["set", "k", "v", "--store", "sqlite:here.db"])), 0);
        for (line, code) in [
            (&["ping", &store][..], 1),
            (&["ping", &asked], 1),
            (&["ping", "--config", "larder.yaml"], 1),
            (&["check", "larder.yaml", "--connect"], 3),
            (&["get", "k", "--config", "larder.yaml"], 2),
            (&["get", "k", "--store", &store], 2),
            (&["keys", "--store", &store], 2),
            (&["stats", "--store", &asked], 2),
            (&["delete", "k", "--store", &store], 2),
            (&["clear", "--yes", "--store", &store], 2),
            (&["incr", "k", "--existing", "--store", &store], 2),
            (&["migrate", &store, "sqlite:there.db"], 2),
        ] {
            let output = room.call(line);
            assert_eq!(status(&output), code, "{line:?}: {output:?}");
            let said = out(&output) + &err(&output);
            assert!(said.contains("there is no table"), "{line:?}: {said}");
        }
        for line in
            [["migrate", "--dry-run", "sqlite:here.db", &store], ["migrate", "-n", "sqlite:here.db", &asked]]
        {
            assert_eq!(status(&room.call(line)), 0, "{line:?}");
        }
        let missing = room.call(["get", "k", "--store", &store]);
        assert!(err(&missing).contains("there is no table"), "{}", err(&missing));

        assert_eq!(status(&room.call(["migrate", "sqlite:here.db", &store])), 0);
        assert_eq!(out(&room.call(["get", "k", "--store", &store])), "v");
        assert_eq!(status(&room.call(["ping", &asked])), 0);
        drop_table(name, &url, &table).await;
        let refused = room.call(["set", "k", "v", "--store", &format!("{store}&create_table=false")]);
        assert_eq!(status(&refused), 2, "{refused:?}");
        assert_eq!(status(&room.call(["set", "k", "v", "--store", &store])), 0);
        drop_table(name, &url, &table).await;
    }
}

async fn drop_table(name: &str, url: &str, table: &str) {
    let statement = format!("DROP TABLE {table}");
    if name == "postgres" {
        let pool = Pool::<client::Postgres>::connect(url).await.unwrap();
        client::raw_sql(client::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    } else {
        let pool = Pool::<client::MySql>::connect(url).await.unwrap();
        client::raw_sql(client::AssertSqlSafe(statement)).execute(&pool).await.unwrap();
    }
}
