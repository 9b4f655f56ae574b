//! The settings of the binary: one table of names, variables, defaults and meanings.
//!
//! A setting is text until [`super::Config`] reads it, wherever it comes from, so that
//! flags, environment and file cannot differ in what they accept.

use std::fmt;

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its flag; the key in the configuration file is the same with underscores.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// Its value where nobody says another; empty where there is none.
    pub default: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether it is never to be shown.
    pub secret: bool,
}

/// Where the value of a setting came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The configuration file.
    File,
    /// Nowhere: it is the default.
    Default,
}

impl Origin {
    /// Where it was said, for the one who has to correct it.
    pub(super) fn of(self, setting: &Setting) -> String {
        match self {
            Self::Flag => format!("--{}", setting.name),
            Self::Environment => setting.variable.to_owned(),
            Self::File => format!("{} in the configuration file", setting.key()),
            Self::Default => format!("the default of {}", setting.variable),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "flag",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

impl Setting {
    /// Its key in the configuration file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }
}

macro_rules! settings {
    ($($(#[$secret:ident])? $constant:ident $name:literal = $default:literal: $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Setting = Setting {
                name: $name,
                variable: stringify!($constant),
                default: $default,
                help: $help,
                secret: settings!(@secret $($secret)?),
            };
        )+

        /// All settings, in the order in which they are shown.
        pub const SETTINGS: &[&Setting] = &[$(&$constant),+];
    };
    (@secret secret) => { true };
    (@secret) => { false };
}

settings! {
    KAFKA_BROKERS "kafka-brokers" = "localhost:9092": "The brokers to begin with: host:port, comma-separated";
    #[secret] KAFKA_PROPERTIES "kafka-properties" = "": "Further librdkafka properties (TLS, SASL): k=v,k=v, with \\, for a comma in a value and \\\\ for a backslash";
    APPLICATION_ID "application-id" = "ticketing": "Prefix of internal topics and transactions; the same on all instances";
    INSTANCE_ID "instance-id" = "": "Static member id, unique and stable over restarts [default: the host name]";
    HTTP_ADDR "http-addr" = "127.0.0.1:8080": "Where to listen: host:port";
    ADVERTISED_ADDR "advertised-addr" = "": "Where other instances reach this one: host:port [default: HTTP_ADDR]";
    STATE_DIR "state-dir" = "./state-data": "Where the stores are kept; for one process at a time";
    SERVICES "services" = "tickets,orders,payments,expiration": "The services to run; the others run elsewhere";
    PARTITIONS "partitions" = "4": "Partitions of the topics that are created";
    REPLICATION_FACTOR "replication-factor" = "1": "Replicas of the topics that are created";
    NUM_STREAM_THREADS "num-stream-threads" = "1": "Threads that run tasks";
    NUM_STANDBY_REPLICAS "num-standby-replicas" = "1": "How many instances may be lost at once without a task being restored from scratch";
    WARM_JOIN_LIMIT "warm-join-limit" = "10m": "How long a new instance restores before it joins all the same";
    COMMIT_INTERVAL "commit-interval" = "100ms": "The longest time between the begins of two commits";
    ORDER_TTL "order-ttl" = "120s": "How long an order waits for its payment";
    SESSION_TIMEOUT "session-timeout" = "10s": "Without a heartbeat for this long, others take over";
    REQUEST_TIMEOUT "request-timeout" = "60s": "How long one call to Kafka may take";
    FLUSH_INTERVAL "flush-interval" = "30s": "Stores are flushed to disk at least this often";
    BLOCK_CACHE "block-cache" = "64MiB": "Block cache of all stores together";
    WRITE_BUFFERS "write-buffers" = "40MiB": "Writes of all stores that are not on disk yet";
    UNCOMMITTED_MAX "uncommitted-max" = "16MiB": "Uncommitted writes of a thread: with half of that it commits early, with all of it it waits";
    COMMAND_TIMEOUT "command-timeout" = "10s": "How long a request waits for the outcome of its command";
    DRAIN_TIMEOUT "drain-timeout" = "15s": "How long a stop waits for requests that are under way";
    MAX_REQUESTS "max-requests" = "4096": "Requests that are answered at once; more get 503";
    MAX_CONNECTIONS "max-connections" = "8192": "Connections of clients that are open at once; on more they get 503";
    #[secret] JWT_KEY "jwt-key" = "": "HS256 key of the bearer tokens; at least 32 bytes are advised";
    #[secret] CLUSTER_KEY "cluster-key" = "": "What instances know each other by, the same on all [default: derived from JWT_KEY, or from APPLICATION_ID, which is no secret]";
    DEV_AUTH "dev-auth" = "false": "Takes the caller from the header X-User-Id: for development only";
    LOG_FORMAT "log-format" = "text": "text, or json for machines";
    RUST_LOG "rust-log" = "info": "What is logged, by target and level";
}
