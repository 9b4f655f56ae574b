//! The Kafka client, and the only place that names it.
//!
//! - [`consumer`]: a member of a consumer group, polled by a stream thread.
//! - [`fetcher`]: reads the records of a stream thread, once for all its groups.
//! - [`producer`]: a transactional producer whose blocking calls are watched.
//! - [`changelog_reader`]: reads changelogs to their ends, outside any group.
//! - [`offsets`]: ends of partitions, as of the log and as of its transactions.
//! - [`admin`]: topics and their settings.
//! - [`first_contact`]: the first question to a cluster, and why it is not answered.
//! - [`event_producer`]: writes single events from outside the topology.
//! - [`known_brokers`]: notices clients that know no broker any more.
//! - [`replaceable`]: a client that is replaced when it is of no more use.
//!
//! What crosses this border is named by the remedy ([`KafkaFault`]), not by the client's codes.

mod admin;
mod changelog_reader;
mod client_errors;
mod client_log;
mod consumer;
mod event_producer;
mod fault;
mod fetcher;
mod first_contact;
mod known_brokers;
#[cfg(test)]
mod mock;
mod offsets;
mod producer;
mod replaceable;
mod settings;

pub(crate) use admin::{Admin, CreateFault, NewTopicSpec, TopicSettings};
pub(crate) use changelog_reader::{ChangelogEvent, ChangelogReader};
pub(crate) use consumer::{CommittedReader, GroupConsumer, GroupEvent, GroupPosition};
pub use event_producer::{EventProducer, SendError};
pub use fault::KafkaFault;
pub(crate) use fetcher::{Fetcher, LaneId};
pub(crate) use first_contact::partition_counts;
pub(crate) use offsets::{EndOffsets, Ends};
pub(crate) use producer::{
    BATCH_BYTES, FencingProducer, GroupOffsets, Outbox, Slot, Slots, TransactionalProducer,
};
pub(crate) use settings::check_properties;

use std::sync::Arc;

use crate::{Offset, Partition};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Partition,
}

/// A partition of a topic and a position in it.
pub(crate) type Position = (TopicPartition, Offset);
