//! What the URLs of several kinds of store have in common: percent-encoding, hosts with ports, users with passwords.
//!
//! The failures are what is wrong, and repeat nothing of the URL. Knows no scheme.

/// Undoes percent-encoding; a `+` is a `+`.
pub(crate) fn decode(text: &str) -> Result<String, &'static str> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.ok_or(
            "a \"%\" in a URL needs two hexadecimal digits after it (\"%25\" is the character itself)",
        )?);
        bytes.extend(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "a URL's \"%\" codes have to be UTF-8")
}

/// Looks at what follows the first `?` of a URL with a host, as it was written. An `@` in it may be where a password ends
/// that has a `?` in it; what stands before it would be taken for a host, or for options, and repeated in errors.
#[cfg(any(feature = "config", feature = "postgres", feature = "mysql"))]
pub(crate) fn check_query(query: &str) -> Result<(), &'static str> {
    if query.contains('@') {
        return Err(
            "an \"@\" stands behind a \"?\": in a password, write ? as %3F; in an option, write @ as %40",
        );
    }
    Ok(())
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`: the host without brackets, and its port or the usual one.
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(super) fn host_and_port(text: &str, usual: u16) -> Result<(&str, u16), &'static str> {
    let port = |text: &str| text.parse().map_err(|_| "what follows \":\" is no port");
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, port(text)?)),
            None if rest.is_empty() => Ok((host, usual)),
            None => Err("what follows \"]\" is no port"),
        };
    }
    match text.split_once(':') {
        Some((host, text)) => Ok((host, port(text)?)),
        None => Ok((text, usual)),
    }
}

/// What stands before the last `@`, as a user and a password, and what stands behind it: a password may have a slash in
/// it that nobody escaped. An empty one of the two is none.
#[cfg(any(feature = "redis", feature = "memcached"))]
pub(super) fn user_and_rest(text: &str) -> Result<([Option<String>; 2], &str), &'static str> {
    let (user, rest) = text.rsplit_once('@').unwrap_or(("", text));
    if rest.contains(['?', '#']) {
        return Err("nothing may follow \"?\" or \"#\": options have names of their own");
    }
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let some = |text: &str| decode(text).map(|text| Some(text).filter(|text| !text.is_empty()));
    Ok(([some(name)?, some(password)?], rest))
}
