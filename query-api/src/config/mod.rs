//! The configuration: read once at startup, checked as a whole, never changed.
//!
//! - [`setting`]: what can be set.
//! - [`layers`]: where a value comes from.
//! - `pieces`: how one value holds several.
//! - [`Config`]: the effective values, typed.
//! - [`print`](mod@print): how it is printed.

pub mod layers;
mod pieces;
pub mod print;
mod read;
pub mod setting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use turnstile_engine::runtime::{StreamsConfig, TopicSpec};
use turnstile_ticketing::{Service, TicketingConfig, topics};

pub use layers::Layers;

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The bootstrap brokers.
    pub kafka_brokers: String,
    /// Further properties of the Kafka client. As text they are `k=v`, separated by commas; in
    /// a value `\,` is a comma and `\\` a backslash.
    pub kafka_properties: BTreeMap<String, String>,
    /// Prefix of internal topics.
    pub application_id: String,
    /// The static member id.
    pub instance_id: String,
    /// The address to listen on.
    pub http_addr: String,
    /// Where other instances reach this one, if not at [`Self::http_addr`].
    pub advertised_addr: Option<String>,
    /// Where the stores are kept.
    pub state_dir: PathBuf,
    /// The services that run here.
    pub services: BTreeSet<Service>,
    /// Of topics that are created.
    pub partitions: i32,
    /// Of topics that are created.
    pub replication_factor: i32,
    /// How many threads run tasks.
    pub num_stream_threads: usize,
    /// How many standbys a task has.
    pub num_standby_replicas: usize,
    /// How long a new instance restores before it joins all the same.
    pub warm_join_limit: Duration,
    /// The longest time between the beginnings of two commits.
    pub commit_interval: Duration,
    /// How long an order waits for its payment.
    pub order_ttl: Duration,
    /// Without a heartbeat for this long, others take over.
    pub session_timeout: Duration,
    /// How long one call to Kafka may take.
    pub request_timeout: Duration,
    /// Stores are flushed at least this often.
    pub flush_interval: Duration,
    /// Block cache of all stores, in bytes.
    pub block_cache_bytes: usize,
    /// Writes of all stores that are not on disk yet, in bytes.
    pub write_buffer_bytes: usize,
    /// Uncommitted writes of a thread, in bytes: at half of that it commits early, at all of it
    /// it waits for the commit under way.
    pub uncommitted_bytes_max: usize,
    /// How long a request waits for the outcome of its command.
    pub command_timeout: Duration,
    /// How long a stop waits for requests that are under way.
    pub drain_timeout: Duration,
    /// How many requests are answered at once.
    pub max_requests: usize,
    /// How many connections are open at once.
    pub max_connections: usize,
    /// How callers are authenticated.
    pub authentication: Authentication,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: String,
}

/// How a caller proves who it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Authentication {
    /// The HS256 key of bearer tokens.
    pub jwt_key: Option<String>,
    /// The key by which instances know each other, if not derived from the other key.
    pub cluster_key: Option<String>,
    /// Whether the header `X-User-Id` is believed.
    pub dev_auth: bool,
}

/// Says whether there is a key, but does not show it.
impl std::fmt::Debug for Authentication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authentication")
            .field("jwt_key", &self.jwt_key.as_ref().map(|_| "redacted"))
            .field(
                "cluster_key",
                &self.cluster_key.as_ref().map(|_| "redacted"),
            )
            .field("dev_auth", &self.dev_auth)
            .finish()
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration that cannot be used, and what to change.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("the configuration file {path} cannot be read")]
    UnreadableFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is wrong.
    #[error("the configuration file {path} is wrong: {why}")]
    InvalidFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A value is wrong.
    #[error("{said_by} is {value:?}: {why}")]
    InvalidValue {
        /// Where it was set.
        said_by: String,
        /// The value.
        value: String,
        /// What is wrong with it and what would be right.
        why: String,
    },
    /// There is no way to authenticate callers.
    #[error(
        "there is no key to check bearer tokens with: set JWT_KEY, or, for development only, \
         start with --dev-auth, which believes the header X-User-Id"
    )]
    NoAuthentication,
    /// The host has no name.
    #[error("this host has no name: set INSTANCE_ID")]
    NoInstanceId,
}

impl Config {
    /// What the engine needs to know.
    #[must_use]
    pub fn streams(&self) -> StreamsConfig {
        let mut streams = StreamsConfig::new(
            &self.application_id,
            &self.kafka_brokers,
            &self.instance_id,
            &self.state_dir,
        );
        streams.kafka_properties = self.kafka_properties.clone();
        streams.advertised_address = self.advertised_addr.clone();
        streams.num_stream_threads = self.num_stream_threads;
        streams.num_standby_replicas = self.num_standby_replicas;
        streams.warm_join_limit = self.warm_join_limit;
        streams.commit_interval = self.commit_interval;
        streams.session_timeout = self.session_timeout;
        streams.replication_factor = self.replication_factor;
        streams.block_cache_bytes = self.block_cache_bytes;
        streams.write_buffer_bytes = self.write_buffer_bytes;
        streams.uncommitted_bytes_max = self.uncommitted_bytes_max;
        streams.flush_interval = self.flush_interval;
        streams.request_timeout = self.request_timeout;
        streams
    }

    /// Where other instances reach this one, which listens at `bound`; `None` if nobody
    /// configured it and `bound` is not an address that they could reach.
    #[must_use]
    pub fn advertised(&self, bound: SocketAddr) -> Option<String> {
        let reachable = || {
            // The port may have been left to the system, and names are not resolved here.
            let (host, _) = self.http_addr.rsplit_once(':')?;
            (!bound.ip().is_unspecified()).then(|| format!("{host}:{}", bound.port()))
        };
        self.advertised_addr.clone().or_else(reachable)
    }

    /// What the ticketing system needs to know.
    #[must_use]
    pub fn ticketing(&self) -> TicketingConfig {
        let defaults = TicketingConfig::default();
        TicketingConfig {
            services: self.services.clone(),
            order_ttl: self.order_ttl,
            // A caller learns that something does not exist before its request times out.
            arrival_wait: defaults.arrival_wait.min(self.command_timeout / 2),
            ..defaults
        }
    }

    /// The topics that are created if they are missing.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicSpec> {
        let topic = |name: &str| TopicSpec {
            name: name.to_owned(),
            partitions: self.partitions,
        };
        topics::ALL.into_iter().map(topic).collect()
    }
}
