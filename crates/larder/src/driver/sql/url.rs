//! What a URL says about TLS, taken out of it, so that it is judged together with what code and configurations say.
//!
//! Everything else in a URL is left to the client, and is not known here.

use std::path::PathBuf;

use super::options::SqlTls;
use crate::driver::url::{check_query, decode};

/// A URL, and what it said about TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The URL without that.
    pub(super) url: String,
    pub(super) tls: Option<SqlTls>,
    pub(super) ca_file: Option<PathBuf>,
}

/// Takes a URL apart. The failure is what is wrong with it, and repeats nothing of it.
pub(super) fn take_tls(url: &str) -> Result<Taken, &'static str> {
    // The client does not see these either: none of them may hide a parameter from here.
    let url = url.trim_matches(|letter| letter <= ' ').replace(['\t', '\r', '\n'], "");
    let url = url.split_once('#').map_or(&*url, |(url, _)| url);
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    check_query(query)?;
    let (mut tls, mut ca_file, mut others) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What cannot be decoded is none of these names.
        match decode(name).as_deref() {
            Ok("sslmode" | "ssl-mode") => {
                let known = decode(value)?.parse::<SqlTls>();
                let known = known
                    .map_err(|()| "sslmode has to be disable, prefer, require, verify-ca or verify-full")?;
                if tls.replace(known).is_some() {
                    return Err("sslmode is given twice");
                }
            }
            // Each client knows some of these, and ignores the others, which is not what they were written for.
            Ok("sslrootcert" | "ssl-root-cert" | "sslca" | "ssl-ca") => {
                let file = decode(value)?;
                if file.is_empty() {
                    return Err("sslrootcert names no file");
                }
                if ca_file.replace(PathBuf::from(file)).is_some() {
                    return Err("sslrootcert is given twice");
                }
            }
            _ => others.push(pair),
        }
    }
    let mark = if others.is_empty() { "" } else { "?" };
    Ok(Taken { url: format!("{place}{mark}{}", others.join("&")), tls, ca_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_tls_is_taken_out_and_the_rest_is_left_as_it_was() {
        let taken = |url: &str| {
            let Taken { url, tls, ca_file } = take_tls(url).unwrap();
            (url, tls, ca_file.map(|file| file.to_str().unwrap().to_owned()))
        };
        let whole = |url: &str, tls, file: Option<&str>| (url.to_owned(), tls, file.map(str::to_owned));
        assert_eq!(taken("postgres://u:p%40@h/d"), whole("postgres://u:p%40@h/d", None, None));
        assert_eq!(
            taken("postgres://h/d?user=a%26b&sslmode=VERIFY_CA&x=1+2"),
            whole("postgres://h/d?user=a%26b&x=1+2", Some(SqlTls::VerifyCa), None)
        );
        for name in
            ["sslrootcert", "ssl-root-cert", "ssl-ca", "sslca", "ssl%72ootcert", "ssl\nca", "\tssl-ca"]
        {
            let url = format!("mysql://h/d?{name}=%2Fc%20a+%25.pem#x");
            assert_eq!(taken(&url), whole("mysql://h/d", None, Some("/c a+%.pem")), "{name:?}");
        }
        assert_eq!(taken("mysql://h?%ff=1&a%zz=2\n"), whole("mysql://h?%ff=1&a%zz=2", None, None));
    }

    #[test]
    fn what_is_said_twice_or_means_nothing_is_refused() {
        for (query, reason) in [
            ("sslmode=require&ssl-mode=require", "sslmode is given twice"),
            ("ssl-ca=a&x=1&sslrootcert=b", "sslrootcert is given twice"),
            ("sslmode=allow", "has to be disable, prefer"),
            ("sslmode", "has to be disable, prefer"),
            ("sslrootcert=", "names no file"),
            ("sslrootcert=%2", "two hexadecimal digits"),
            ("sslrootcert=%+1", "two hexadecimal digits"),
            ("sslrootcert=%ff", "UTF-8"),
            ("hunter2@h", "write ? as %3F"),
        ] {
            let refused = take_tls(&format!("postgres://u:hunter2@h/d?{query}")).unwrap_err();
            assert!(refused.contains(reason), "{query}: {refused}");
        }
    }
}
