//! A read-committed reader of whole topics, outside any group: what others see.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Offset, TopicPartitionList};

use crate::Outcome;
use crate::topics::{TopicPartition, ends};

/// After this long without a record or an end, something is wrong.
const SILENCE: Duration = Duration::from_mins(1);

/// What every client here has in common.
pub(crate) fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        .set("allow.auto.create.topics", "false");
    client
}

/// Reads committed records as soon as they are visible.
pub(crate) struct Reader {
    consumer: BaseConsumer,
}

impl Reader {
    /// A reader of what comes to `topics` from now on.
    pub(crate) fn from_now(brokers: &str, topics: &[impl AsRef<str>]) -> Outcome<Self> {
        let mut ends = ends(brokers)?;
        ends.retain(|(topic, _), _| topics.iter().any(|wanted| wanted.as_ref() == topic));
        Self::from(brokers, &ends)
    }

    /// A reader of these partitions from these offsets on.
    pub(crate) fn from(brokers: &str, starts: &BTreeMap<TopicPartition, i64>) -> Outcome<Self> {
        let consumer: BaseConsumer = client(brokers)
            .set("group.id", "bench-unused")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "false")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.queue.backoff.ms", "5")
            .set("check.crcs", "false")
            .create()?;
        consumer.assign(&partitions(starts)?)?;
        Ok(Self { consumer })
    }

    /// Gives `each` all committed records of these partitions, from these offsets on.
    pub(crate) fn to_ends(
        brokers: &str,
        starts: &BTreeMap<TopicPartition, i64>,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Outcome<()> {
        let consumer: BaseConsumer = client(brokers)
            .set("group.id", "bench-unused")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()?;
        consumer.assign(&partitions(starts)?)?;
        let mut open = starts.len();
        while open > 0 {
            match consumer.poll(SILENCE) {
                Some(Ok(record)) => each(&record),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) if is_mended(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err("a topic could not be read to its end".into()),
            }
        }
        Ok(())
    }

    /// The next record, if there is one within `limit`.
    pub(crate) fn next(&self, limit: Duration) -> Outcome<Option<BorrowedMessage<'_>>> {
        match self.consumer.poll(limit).transpose() {
            Err(error) if is_mended(&error) => Ok(None),
            polled => Ok(polled?),
        }
    }
}

/// Whether the client recovers from an error by itself: it has lost its connections, and makes others.
pub(crate) fn is_mended(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
}

/// Partitions with offsets, as the client takes them.
pub(crate) fn partitions(offsets: &BTreeMap<TopicPartition, i64>) -> Outcome<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    Ok(list)
}
