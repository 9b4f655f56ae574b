//! Runs a topology on a Kafka cluster.
//!
//! [`Streams::start`] checks the cluster's topics, creates the internal ones, and
//! starts the stream threads; [`Queries`] reads the stores of the tasks that run
//! here; [`EventProducer`] writes events from outside the topology.
//!
//! Only `kafka` names the Kafka client; what it offers is what the rest needs.

mod background;
mod cluster;
mod config;
mod fence;
mod first_start;
mod hanging;
mod instance;
mod internal_topics;
mod kafka;
mod lag;
mod metrics;
mod ownership;
mod purge;
mod queries;
mod restore_listener;
mod restorer;
mod said;
mod sampler;
mod standby;
mod status;
mod stream_thread;
mod task_stores;
mod topic_watch;
mod transactions;
mod wake;

pub use cluster::{Cluster, Host, InstanceMetadata, InstancePhase, StandbyReport};
#[doc(hidden)]
pub use config::{CommitHook, CommitStep};
pub use config::{StreamsConfig, TopicSpec};
pub use first_start::ForeignPosition;
pub use instance::{StartError, Streams, StreamsFailure};
pub use internal_topics::TopicError;
pub use kafka::{EventProducer, KafkaFault, SendError};
pub use metrics::Metrics;
#[doc(hidden)]
pub use queries::Rehearsal;
pub use queries::{Queries, QueryError, RowRange, StoreAnswer, StoreRead, StoreRequest, Watch};
pub use restore_listener::{ChangelogRestoration, RestoreListener};
pub use status::{InstanceStatus, TaskReport};
