//! The memcached driver's options.

use crate::config::store::StoreOptions;
use crate::driver::memcached::MemcachedOptions;
use crate::error::Result;

pub(super) fn read(options: &mut StoreOptions) -> Result<MemcachedOptions> {
    let url = options.url();
    let (host, port) = (options.text("host")?, options.integer("port", 1..=i64::from(u16::MAX))?);
    let tls = options.boolean("tls")?;
    let (username, password) = (options.text("username")?, options.secret("password")?);
    let (ca_file, cert_file, key_file) =
        (options.text("ca_file")?, options.text("cert_file")?, options.text("key_file")?);
    let value_bytes_max = options.size("value_bytes_max")?;
    let timeouts = (options.duration("connect_timeout")?, options.duration("response_timeout")?);

    let mut memcached = match url {
        Some(_) if host.is_some() || port.is_some() || tls.is_some() => {
            return Err(options.refuse("the URL and \"host\", \"port\" or \"tls\" both say where"));
        }
        Some(url) => MemcachedOptions::new(&url).map_err(|error| options.refuse(error.message()))?,
        None => {
            let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(11_211);
            MemcachedOptions::at(options.required("host", host)?, port)
        }
    };
    if (username.is_some() || password.is_some()) && memcached.username.is_some() {
        return Err(options.refuse("the URL and the options both say as whom"));
    }
    memcached.tls |= tls.unwrap_or(false);
    memcached.username = username.or(memcached.username);
    memcached.password = password.or(memcached.password);
    memcached.ca_file = ca_file.map(Into::into);
    memcached.cert_file = cert_file.map(Into::into);
    memcached.key_file = key_file.map(Into::into);
    memcached.value_bytes_max = value_bytes_max;
    memcached.connect_timeout = timeouts.0.unwrap_or(memcached.connect_timeout);
    memcached.response_timeout = timeouts.1.unwrap_or(memcached.response_timeout);
    memcached.check().map_err(|error| options.refuse(error.message()))?;
    Ok(memcached)
}
