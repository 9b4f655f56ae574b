//! What an instance needs to know to run a topology.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use turnstile_state::StateError;

use super::RestoreListener;

/// The configuration of one instance.
#[derive(Debug, Clone)]
pub struct StreamsConfig {
    /// Prefixes internal topics and transactional ids; the same on all instances.
    pub application_id: String,
    /// Comma-separated `host:port`.
    pub brokers: String,
    /// Further properties of the Kafka client, for all clients (TLS, SASL, …).
    pub kafka_properties: BTreeMap<String, String>,
    /// The static member id; unique among the live instances and stable across restarts.
    pub instance_id: String,
    /// `host:port` at which this instance answers others; `None`: it answers nobody. The engine
    /// only announces it; serving requests there is up to the application.
    pub advertised_address: Option<String>,
    /// Where the stores are kept. No other process may use it.
    pub state_dir: PathBuf,
    /// How many threads run tasks; at least 1.
    pub num_stream_threads: usize,
    /// How many instances may be lost at once without a task having to be restored from
    /// the start of its changelog; 0: no standbys.
    pub num_standby_replicas: usize,
    /// How long a new instance restores what it is going to own before it joins the groups
    /// regardless.
    pub warm_join_limit: Duration,
    /// The longest time from the start of one commit to the start of the next, for a thread that
    /// has something to commit; if a commit takes longer, the next follows at once.
    pub commit_interval: Duration,
    /// After this time without a heartbeat, others take over.
    pub session_timeout: Duration,
    /// The replication factor of topics that the instance creates.
    pub replication_factor: i32,
    /// Block cache of all stores together, in bytes.
    pub block_cache_bytes: usize,
    /// Write buffers of all stores together, in bytes.
    pub write_buffer_bytes: usize,
    /// Uncommitted writes and outputs of a thread, in bytes: at half of this it commits early, and
    /// at all of it the thread waits for the commits that are under way.
    pub uncommitted_bytes_max: usize,
    /// Stores are flushed to disk at least this often, so that a restart replays little.
    pub flush_interval: Duration,
    /// The time between two deletions of records that were read from repartition topics.
    pub purge_interval: Duration,
    /// How long one call to the cluster may take before the thread gives up on its client.
    pub request_timeout: Duration,
    /// Is told how stores are restored.
    pub restore_listener: Option<Arc<dyn RestoreListener>>,
    /// Called after each step of each commit, for tests that crash there.
    #[doc(hidden)]
    pub on_commit_step: Option<CommitHook>,
}

/// What is called after a step of a commit. Its second argument flushes all stores of the thread,
/// so that a crash loses nothing that was written to them; without it, a crash loses everything
/// since the last flush.
#[doc(hidden)]
pub type CommitHook = fn(CommitStep, &dyn Fn() -> Result<(), StateError>);

/// The step of a commit that was just done.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitStep {
    /// The writes of all its tasks are sealed, with their changelog records.
    ChangelogSent,
    /// All records are delivered and the positions are in the transaction. (Here there are no
    /// stores to flush: nothing was written to those of its tasks since their last commit. And the
    /// hook is called on another thread, while the tasks go on.)
    PositionsJoined,
    /// The transaction is committed.
    TransactionCommitted,
    /// One of the tasks is written to its stores.
    TaskStored,
    /// All of them are.
    AllStored,
}

/// What a user cannot set: with other values, records of aborted transactions are read, positions
/// are committed past what was processed, tasks have two owners, or a task is read where it was
/// after its session has ended.
const RESERVED_PROPERTIES: [&str; 17] = [
    "auto.commit.enable",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "partitioner",
    "session.timeout.ms",
    // Statistics that nobody takes are kept for ever.
    "statistics.interval.ms",
    "transactional.id",
];

impl StreamsConfig {
    /// The first of the user's properties that the engine has to set itself.
    pub(super) fn reserved_property(&self) -> Option<String> {
        let mut names = self.kafka_properties.keys();
        let reserved = names.find(|name| RESERVED_PROPERTIES.contains(&name.as_str()));
        reserved.cloned()
    }

    /// The defaults for an application on these brokers.
    pub fn new(
        application_id: impl Into<String>,
        brokers: impl Into<String>,
        instance_id: impl Into<String>,
        state_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            application_id: application_id.into(),
            brokers: brokers.into(),
            kafka_properties: BTreeMap::new(),
            instance_id: instance_id.into(),
            advertised_address: None,
            state_dir: state_dir.into(),
            num_stream_threads: 1,
            num_standby_replicas: 1,
            warm_join_limit: Duration::from_secs(600),
            commit_interval: Duration::from_millis(100),
            session_timeout: Duration::from_secs(10),
            replication_factor: 1,
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 40 << 20,
            uncommitted_bytes_max: 16 << 20,
            flush_interval: Duration::from_secs(30),
            purge_interval: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            restore_listener: None,
            on_commit_step: None,
        }
    }
}

/// A topic outside the application that is created if it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it gets; an existing topic keeps its own.
    pub partitions: i32,
}
