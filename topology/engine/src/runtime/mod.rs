//! Runs a topology on a Kafka cluster.
//!
//! [`Streams::start`] checks the cluster's topics, creates the internal ones, and
//! starts the stream threads; [`Queries`] reads the stores of the tasks that run
//! here; [`EventProducer`] writes events from outside the topology.
//!
//! Only `kafka` names the Kafka client; what it offers is what the rest needs.

mod config;
mod instance;
mod internal_topics;
mod kafka;
mod lag;
mod metrics;
mod ownership;
mod purge;
mod queries;
mod restorer;
mod sampler;
mod status;
mod stream_thread;
mod wake;

pub use config::{StreamsConfig, TopicSpec};
pub use instance::{StartError, Streams};
pub use internal_topics::TopicError;
pub use kafka::{EventProducer, KafkaFault, SendError};
pub use metrics::Metrics;
pub use queries::{Queries, QueryError, Watch};
pub use status::{InstanceStatus, TaskReport};
