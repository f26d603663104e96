//! TLS: to one server, to a cluster, and to a primary behind sentinels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use larder::ErrorKind;
use larder::driver::redis::{RedisDriver, RedisOptions};
use larder::driver::{Driver, When};
use larder::time::{Clock as _, SystemClock, seconds};

use super::faults::error_of;
use super::servers::Server;
use crate::certificate::{certificate, runs_openssl};
use crate::record::record;
use crate::server::{free_port, runs};

/// Whom the certificates are for.
const SUBJECTS: &str = "IP:127.0.0.1,DNS:localhost";

#[tokio::test]
async fn tls_verifies_the_server_and_may_show_a_certificate() {
    if !super::servers::is_installed() || !runs_openssl() {
        println!("NOT TESTED: TLS, for lack of redis-server or openssl");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(directory.path(), "server", SUBJECTS);
    let (stranger, stranger_key) = certificate(directory.path(), "stranger", SUBJECTS);
    let port = free_port();
    let file = |path: &Path| path.display().to_string();
    let server = Server::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file(&cert),
        "--tls-key-file",
        &file(&key),
        "--tls-ca-cert-file",
        &file(&cert),
    ])
    .unwrap();
    let mut options = RedisOptions::new(&format!("rediss://127.0.0.1:{port}")).unwrap();
    let error = error_of(options.clone()).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "not signed by anyone: {error}");
    assert_eq!(error.kind(), ErrorKind::Config);
    options.ca_file = Some(stranger);
    let error = error_of(options.clone()).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "signed by another: {error}");
    options.ca_file = Some(directory.path().join("missing.crt"));
    let error = error_of(options.clone()).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("missing.crt"), "{error}");

    options.ca_file = Some(cert.clone());
    assert!(RedisDriver::connect(options.clone()).await.is_err(), "the server wants a certificate");
    options.cert_file = Some(cert.clone());
    options.key_file = Some(stranger_key);
    assert!(RedisDriver::connect(options.clone()).await.is_err(), "a key of another certificate");
    options.key_file = Some(key);
    let driver = RedisDriver::connect(options.clone()).await.unwrap();
    driver.set("k", record(1, "v"), None, When::Newer).await.unwrap();
    assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));

    // TLS where none is spoken, and the other way round.
    let mut wrong = RedisOptions::new(&format!("rediss://127.0.0.1:{}", server.port)).unwrap();
    wrong.ca_file = Some(cert);
    assert!(error_of(wrong).await.kind().is_transient());
    assert!(error_of(RedisOptions::at("127.0.0.1", port)).await.kind().is_transient());
}

/// A folder with a certificate, and what makes a server speak TLS with it on a port.
struct Encrypted {
    directory: tempfile::TempDir,
    cert: PathBuf,
    key: PathBuf,
}

impl Encrypted {
    fn new() -> Option<Self> {
        if !super::servers::is_installed() || !runs_openssl() || !runs("redis-cli") {
            println!("NOT TESTED: TLS, for lack of redis-server, redis-cli or openssl");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = certificate(directory.path(), "server", SUBJECTS);
        Some(Self { directory, cert, key })
    }

    fn args(&self, port: u16) -> Vec<String> {
        let file = |path: &Path| path.display().to_string();
        [
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file(&self.cert),
            "--tls-key-file",
            &file(&self.key),
        ]
        .into_iter()
        .chain([
            "--tls-ca-cert-file",
            &file(&self.cert),
            "--tls-auth-clients",
            "no",
            "--tls-replication",
            "yes",
        ])
        .map(str::to_owned)
        .collect()
    }

    fn start(&self, port: u16, more: &[&str]) -> Server {
        let args = self.args(port);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Server::start(&args).unwrap()
    }

    fn cli(&self, args: &[&str]) -> String {
        let output =
            Command::new("redis-cli").arg("--tls").arg("--cacert").arg(&self.cert).args(args).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }

    fn options(&self, url: &str) -> RedisOptions {
        let mut options = RedisOptions::new(url).unwrap();
        options.ca_file = Some(self.cert.clone());
        options
    }

    /// Connects, once what is behind the URL is ready.
    async fn connect(&self, url: &str) -> RedisDriver {
        let begun = SystemClock::default();
        loop {
            match RedisDriver::connect(self.options(url)).await {
                Ok(driver) => return driver,
                Err(error) => assert!(begun.monotonic() < seconds(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_spoken_to_over_tls() {
    let Some(tls) = Encrypted::new() else { return };
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let more = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
    let nodes: Vec<Server> = ports.iter().map(|port| tls.start(*port, &more)).collect();
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(addresses.iter().map(String::as_str));
    create.push("--cluster-yes");
    let said = tls.cli(&create);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    // One node is named; the others are found, and spoken to with TLS as well.
    let driver = tls.connect(&format!("rediss+cluster://127.0.0.1:{}", ports[0])).await;
    let begun = SystemClock::default();
    let keys: Vec<String> = (0..60).map(|n| format!("app:{n}")).collect();
    for key in &keys {
        while let Err(error) = driver.set(key, record(1, key), None, When::Always).await {
            assert!(error.kind().is_transient() && begun.monotonic() < seconds(20), "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = driver.get_many(&asked).await.unwrap();
    assert!(found.iter().zip(&keys).all(|(found, key)| *found == Some(record(1, key))));
    for node in &nodes {
        let port = node.port.to_string();
        let size = Command::new("redis-cli").args(["-p", &port, "DBSIZE"]).output().unwrap().stdout;
        assert_ne!(String::from_utf8_lossy(&size).trim(), "0", "every node has some of them");
    }
    let url = format!("rediss+cluster://127.0.0.1:{}", ports[0]);
    let mut wrong = RedisOptions::new(&url).unwrap();
    wrong.ca_file = Some(certificate(tls.directory.path(), "stranger", SUBJECTS).0);
    let error = error_of(wrong).await;
    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_primary_are_spoken_to_over_tls() {
    let Some(tls) = Encrypted::new() else { return };
    let (primary, sentinel) = (free_port(), free_port());
    let _primary = tls.start(primary, &[]);
    let file = tls.directory.path().join("sentinel.conf");
    std::fs::write(&file, format!("sentinel monitor main 127.0.0.1 {primary} 1\n")).unwrap();
    let mut running = Command::new("redis-server")
        .arg(&file)
        .args(["--sentinel", "--port", "0", "--bind", "127.0.0.1"])
        .args(tls.args(sentinel))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let outcome = tokio::spawn(async move {
        let driver = tls.connect(&format!("rediss+sentinel://127.0.0.1:{sentinel}/main")).await;
        driver.set("k", record(1, "v"), None, When::Always).await.unwrap();
        assert_eq!(driver.get("k").await.unwrap(), Some(record(1, "v")));
        let plain =
            error_of(RedisOptions::new(&format!("redis+sentinel://127.0.0.1:{sentinel}/main")).unwrap());
        assert!(plain.await.kind().is_transient());
    })
    .await;
    let _ = running.kill();
    let _ = running.wait();
    outcome.unwrap();
}
