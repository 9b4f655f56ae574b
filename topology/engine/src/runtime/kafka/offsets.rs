//! The ends of partitions.

use std::sync::Once;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use super::client_log::ClientLog;
use super::consumer::{connect, positions};
use super::fault::KafkaFault;
use super::settings::{self, Isolation};
use super::{Position, TopicPartition};
use crate::runtime::StreamsConfig;

/// Asks where partitions end.
pub(crate) struct EndOffsets {
    client: BaseConsumer<ClientLog>,
    connected: Once,
    limit: Duration,
}

impl EndOffsets {
    /// With [`Isolation::ReadUncommitted`] the end is that of the log (its high
    /// watermark); with [`Isolation::ReadCommitted`] it is where the first pending
    /// transaction begins (the last stable offset).
    pub(crate) fn new(config: &StreamsConfig, isolation: Isolation) -> Result<Self, KafkaFault> {
        let client = settings::reader(config, "ends", isolation).create_with_context(ClientLog);
        let client = client.map_err(|error| KafkaFault::of("create a client", &error))?;
        Ok(Self {
            client,
            connected: Once::new(),
            limit: config.request_timeout,
        })
    }

    /// Connects to a broker, which the first question would wait for; for a bounded time, once.
    pub(crate) fn connect(&self, topic: &str) {
        self.connected.call_once(|| connect(&self.client, topic));
    }

    /// The end of each of `partitions`, in no particular order.
    pub(crate) fn of(&self, partitions: &[TopicPartition]) -> Result<Vec<Position>, KafkaFault> {
        const ACTION: &str = "ask for the ends of partitions";
        let Some(TopicPartition { topic, .. }) = partitions.first() else {
            return Ok(Vec::new());
        };
        self.connect(topic);
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for TopicPartition { topic, partition } in partitions {
            let added = list.add_partition_offset(topic, partition.0, ClientOffset::End);
            added.map_err(|error| KafkaFault::of(ACTION, &error))?;
        }
        let ends = self.client.offsets_for_times(list, self.limit);
        let ends = positions(&ends.map_err(|error| KafkaFault::of(ACTION, &error))?);
        if ends.len() == partitions.len() {
            return Ok(ends);
        }
        let missing = partitions
            .iter()
            .find(|place| !ends.iter().any(|(found, _)| found == *place));
        Err(KafkaFault::Retriable {
            action: ACTION,
            reason: format!(
                "no answer for {:?}",
                missing.map(|place| (&place.topic, place.partition.0))
            ),
        })
    }
}
