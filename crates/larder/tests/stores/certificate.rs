//! Certificates for servers that a test starts, made by the `openssl` that is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether there is an `openssl`. Its version is a command, not an option.
pub(crate) fn runs_openssl() -> bool {
    Command::new("openssl").arg("version").output().is_ok()
}

/// A certificate that signs itself, and its key, in a folder. `subjects` are whom it is for, as in
/// `IP:127.0.0.1,DNS:localhost`.
pub(crate) fn certificate(folder: &Path, name: &str, subjects: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", &format!("subjectAltName={subjects}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (cert, key)
}
