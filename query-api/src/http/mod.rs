//! The HTTP API.
//!
//! HTTP changes nothing by itself: it writes commands, waits for their outcomes and
//! reads stores. Every answer that is not a success is a [`problem`].
//!
//! - [`tickets`], [`orders`], [`payments`]: the routes of the contract.
//! - [`operations`]: health, metrics, topology, the OpenAPI document.
//! - [`commands`]: how a command is sent and its outcome awaited.
//! - [`reads`]: how a row is read while tasks move; [`staleness`]: how stale it may be.
//! - [`internal`]: what other instances ask.
//! - `observe`: what is counted and logged of each request; `failure_log`: how much of that.
//! - `surround`: what is done with every request, whatever its route; `limits`: what requests may
//!   cost; `unsent`: how long an answer counts.
//! - [`server`]: connections, and how they end; `connection`: one of them.

pub mod body;
pub mod caller;
pub mod commands;
mod connection;
mod failure_log;
pub mod idempotency;
pub mod internal;
mod json;
mod limits;
pub mod measures;
mod observe;
pub mod operations;
pub mod orders;
pub mod page;
pub mod path;
pub mod payments;
pub mod problem;
pub mod problem_responses;
pub mod reads;
mod request_id;
mod router;
pub mod running;
pub mod server;
pub mod staleness;
mod surround;
#[cfg(test)]
mod tests;
pub mod tickets;
mod unsent;

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntGauge, Registry};

use crate::config::Authentication;
use crate::instance::Instance;
use crate::peers::{ClusterKey, PeerMeasures};
use caller::Authenticator;
use failure_log::FailureLog;
use idempotency::KeyUses;
use limits::Room;
use measures::Measures;

pub use router::{openapi, router};

/// What the routes share; cheap to clone.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    instance: Arc<Instance>,
    authenticator: Authenticator,
    key_uses: KeyUses,
    measures: Measures,
    failure_log: FailureLog,
    registry: Registry,
    openapi: String,
    command_timeout: Duration,
    recovery_wait: Duration,
    room: Room,
    cluster_key: ClusterKey,
    peer_measures: PeerMeasures,
    /// Of reads by other instances.
    peer_room: Room,
}

/// How the API behaves.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The id of the instance.
    pub instance_id: String,
    /// How callers are authenticated.
    pub authentication: Authentication,
    /// How long a request waits for the outcome of its command.
    pub command_timeout: Duration,
    /// How long a read waits for a task that is moving.
    pub recovery_wait: Duration,
    /// How many requests are answered at once.
    pub max_requests: usize,
    /// The key by which other instances are known.
    pub cluster_key: ClusterKey,
}

impl Api {
    /// The API of an instance; it shows the metrics of `registry`, and adds its own. Reads
    /// by other instances are counted by `peer_measures`.
    ///
    /// # Errors
    ///
    /// When the registry already has metrics with the same names.
    pub fn new(
        instance: Arc<Instance>,
        registry: Registry,
        peer_measures: PeerMeasures,
        config: &ApiConfig,
    ) -> Result<Self, prometheus::Error> {
        let shared = Shared {
            instance,
            authenticator: Authenticator::new(&config.authentication),
            key_uses: KeyUses::default(),
            measures: Measures::new(&registry, &config.instance_id)?,
            failure_log: FailureLog::default(),
            registry,
            openapi: openapi(),
            command_timeout: config.command_timeout,
            recovery_wait: config.recovery_wait,
            room: Room::new(config.max_requests),
            cluster_key: config.cluster_key.clone(),
            peer_measures,
            peer_room: Room::new(internal::READS_MAX),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    fn authenticator(&self) -> &Authenticator {
        &self.shared.authenticator
    }

    fn instance(&self) -> &Instance {
        &self.shared.instance
    }

    /// The number of open connections, for [`server::serve`] to update.
    #[must_use]
    pub fn open_connections(&self) -> IntGauge {
        self.measures().open_connections()
    }

    fn measures(&self) -> &Measures {
        &self.shared.measures
    }
}
