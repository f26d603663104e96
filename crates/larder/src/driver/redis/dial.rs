//! Making connections: to a server, to a cluster, to the primary that sentinels name.
//!
//! Knows the client's settings. Nothing here is tried a second time by the client itself, with one exception: what
//! reads from a cluster.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
    TlsMode,
};

use super::failure;
use super::link::{Health, Held, Line};
use super::options::{RedisAddress, RedisOptions, RedisTopology};
use crate::error::{Error, ErrorKind, Result};

/// How many calls may wait to be written before the next one waits for room. The client's 50 make a batch of
/// concurrent calls take turns.
const WAITING_MAX: usize = 1_024;

/// What it takes to connect.
pub(super) struct Dial {
    options: RedisOptions,
    certificates: Option<TlsCertificates>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.options, f)
    }
}

impl Dial {
    /// Reads what the options name. Connects to nothing.
    pub(super) async fn new(options: RedisOptions) -> Result<Self> {
        options.check()?;
        if !options.tls {
            return Ok(Self { options, certificates: None });
        }
        // The client takes the process's provider of cryptography, and fails if there could be two. Whoever has
        // chosen one keeps it; an error is that somebody was faster.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let root_cert = match &options.ca_file {
            Some(file) => Some(read("certificates", file).await?),
            None => None,
        };
        let client_tls = match (&options.cert_file, &options.key_file) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: read("the certificate", cert).await?,
                client_key: read("the key", key).await?,
            }),
            _ => None,
        };
        let given = client_tls.is_some() || root_cert.is_some();
        let certificates = given.then_some(TlsCertificates { client_tls, root_cert });
        Ok(Self { options, certificates })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.options.topology, RedisTopology::Cluster(_))
    }

    /// How long nothing may be heard before the connection counts as broken. To a cluster this is as long as a call
    /// may take in all, reading it from node after node included.
    pub(super) fn patience(&self) -> Duration {
        let one = self.options.response_timeout;
        if self.is_cluster() { one + self.options.connect_timeout } else { one }
    }

    /// How long one answer of one server may take.
    pub(super) fn patience_for_one(&self) -> Duration {
        self.options.response_timeout
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<Arc<Held>> {
        let health = Arc::<Health>::default();
        let connecting = async {
            Ok(match &self.options.topology {
                RedisTopology::Server(address) => self.single(self.place(address), &health).await?,
                RedisTopology::Socket(path) => {
                    self.single(ConnectionAddr::Unix(path.clone()), &health).await?
                }
                RedisTopology::Cluster(nodes) => self.cluster(nodes).await?,
                RedisTopology::Sentinel { primary, sentinels } => {
                    self.primary(primary, sentinels, &health).await?
                }
            })
        };
        // Sentinels are asked one after the other, and a cluster's nodes are found by asking.
        let limit = self.options.connect_timeout.saturating_mul(3);
        let outcome = tokio::time::timeout(limit, connecting).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        outcome.map_err(|cause: RedisError| failure::failed(&format!("connect to {}", self.options), cause))
    }

    async fn single(&self, place: ConnectionAddr, health: &Arc<Health>) -> RedisResult<Arc<Held>> {
        let info = place.into_connection_info()?.set_redis_settings(self.identity());
        let info = info.set_tcp_settings(self.tcp());
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone())?,
            None => Client::open(info)?,
        };
        let connection = client.get_multiplexed_async_connection_with_config(&self.settings(health)).await?;
        Ok(Held::one(Line::new(connection, Arc::clone(health))))
    }

    /// Two connections to each node. The client's retries also send again what was sent when a connection broke:
    /// fine for a read, but a write that landed would be refused the second time, and a counter count twice.
    async fn cluster(&self, nodes: &[RedisAddress]) -> RedisResult<Arc<Held>> {
        let client = |retries| -> RedisResult<ClusterClient> {
            let nodes: Vec<ConnectionInfo> = nodes
                .iter()
                .map(|node| self.place(node).into_connection_info())
                .collect::<RedisResult<_>>()?;
            let mut builder = ClusterClientBuilder::new(nodes)
                .retries(retries)
                .min_retry_wait(5)
                .max_retry_wait(200)
                .connection_timeout(self.options.connect_timeout)
                .response_timeout(self.options.response_timeout)
                .overall_response_timeout(Some(self.options.connect_timeout + self.options.response_timeout))
                .use_protocol(ProtocolVersion::RESP3)
                .tcp_settings(self.tcp());
            if let Some(username) = &self.options.username {
                builder = builder.username(username);
            }
            if let Some(password) = &self.options.password {
                builder = builder.password(password);
            }
            if self.options.tls {
                builder = builder.tls(TlsMode::Secure);
            }
            if let Some(certificates) = &self.certificates {
                builder = builder.certs(certificates.clone());
            }
            builder.build()
        };
        let (reads, writes) = (client(self.options.redirects_max)?, client(0)?);
        let (reads, writes) =
            futures_util::try_join!(reads.get_async_connection(), writes.get_async_connection())?;
        // Each has its own health: one may hang while the other one works.
        Ok(Held::two(Line::new(reads, Arc::default()), Line::new(writes, Arc::default())))
    }

    async fn primary(
        &self,
        name: &str,
        sentinels: &[RedisAddress],
        health: &Arc<Health>,
    ) -> RedisResult<Arc<Held>> {
        let connection =
            self.sentinel(name, sentinels)?.get_async_connection_with_config(&self.settings(health)).await?;
        Ok(Held::one(Line::new(connection, Arc::clone(health))))
    }

    fn sentinel(&self, name: &str, sentinels: &[RedisAddress]) -> RedisResult<SentinelClient> {
        let places = sentinels.iter().map(|sentinel| self.place(sentinel));
        let mut builder = SentinelClientBuilder::new(places, name, SentinelServerType::Master)?
            .set_client_to_redis_protocol(ProtocolVersion::RESP3)
            .set_client_to_redis_db(self.options.db.into())
            .set_client_to_redis_tcp_settings(self.tcp());
        if let Some(username) = &self.options.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.options.password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(username) = &self.options.sentinel_username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = &self.options.sentinel_password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if self.options.tls {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        builder.build()
    }

    fn place(&self, address: &RedisAddress) -> ConnectionAddr {
        let (host, port) = (address.host.clone(), address.port);
        if self.options.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    /// A machine that vanished breaks no connection, and the client does not give one up because answers are late:
    /// the kernel does, where it can be told for how long sent bytes may go without being acknowledged.
    fn tcp(&self) -> TcpSettings {
        let settings = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let settings = settings.set_user_timeout(self.options.response_timeout.saturating_mul(2));
        settings
    }

    fn identity(&self) -> RedisConnectionInfo {
        let mut identity = RedisConnectionInfo::default()
            // The client notices that a connection broke as it happens, not at the next call.
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(self.options.db.into());
        if let Some(username) = &self.options.username {
            identity = identity.set_username(username);
        }
        if let Some(password) = &self.options.password {
            identity = identity.set_password(password);
        }
        identity
    }

    fn settings(&self, health: &Arc<Health>) -> AsyncConnectionConfig {
        let health = Arc::clone(health);
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(Some(self.options.response_timeout))
            .set_pipeline_buffer_size(WAITING_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    health.give_up();
                }
                Ok::<(), ()>(())
            })
    }
}

async fn read(what: &str, file: &Path) -> Result<Vec<u8>> {
    let path = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    reading.unwrap_or_else(|_| Err(std::io::Error::other("the runtime is shutting down"))).map_err(|cause| {
        let message = format!("redis connect: reading {what} in {}", file.display());
        Error::from_source(ErrorKind::Config, message, cause)
    })
}
