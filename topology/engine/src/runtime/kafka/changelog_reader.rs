//! Reads changelog partitions from given positions to their ends.
//!
//! The reader sees committed records only and reports when a partition has no more of them. That is
//! the end of the log only if no transaction was pending there when reading began; the caller
//! ensures this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use super::client_errors::ClientErrors;
use super::client_log::ClientLog;
use super::consumer::list_of;
use super::fault::KafkaFault;
use super::settings::{self, Isolation};
use super::{Position, TopicPartition};
use crate::Offset;
use crate::runtime::StreamsConfig;
use crate::runtime::background::aside;
use crate::runtime::wake::Waker;

const ACTION: &str = "read changelogs";

/// What one partition yields.
pub(crate) enum ChangelogEvent<'a> {
    /// A record.
    Record {
        /// Its offset.
        offset: Offset,
        /// Its key.
        key: Option<&'a [u8]>,
        /// Its value.
        value: Option<&'a [u8]>,
    },
    /// There are no more committed records.
    End,
}

/// Reads several changelog partitions at once, each through a queue of its own.
pub(crate) struct ChangelogReader {
    consumer: Arc<BaseConsumer<ClientLog>>,
    queues: HashMap<TopicPartition, PartitionQueue<ClientLog>>,
    waker: Waker,
    /// Its name in errors.
    reader: String,
    errors: ClientErrors,
}

impl ChangelogReader {
    /// Starts to read from `positions`; `None`: the start of the log. `waker` is woken when there
    /// is something to read; [`Self::wait`] also ends when others wake it.
    pub(crate) fn start(
        config: &StreamsConfig,
        positions: &[(TopicPartition, Option<Offset>)],
        waker: Waker,
    ) -> Result<Self, KafkaFault> {
        let fault = |error: KafkaError| KafkaFault::of(ACTION, &error);
        let consumer: BaseConsumer<ClientLog> =
            settings::reader(config, "restore", Isolation::ReadCommitted)
                .create_with_context(ClientLog::default())
                .map_err(fault)?;
        let consumer = Arc::new(consumer);
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (place, offset) in positions {
            // If the log begins later, the reader is sent there. To ask for its start the client
            // would first wait half a second for a connection.
            let offset = offset.map_or(0, |offset| offset.0);
            list.add_partition_offset(
                &place.topic,
                place.partition.0,
                ClientOffset::Offset(offset),
            )
            .map_err(fault)?;
        }
        let mut queues = HashMap::new();
        for (place, _) in positions {
            let queue = consumer.split_partition_queue(&place.topic, place.partition.0);
            let mut queue = queue.ok_or_else(|| KafkaFault::Retriable {
                action: ACTION,
                reason: format!("no queue for {}-{}", place.topic, place.partition),
            })?;
            let wake = waker.clone();
            queue.set_nonempty_callback(move || wake.wake());
            queues.insert(place.clone(), queue);
        }
        // Not before the queues are there: the first records would go elsewhere.
        consumer.incremental_assign(&list).map_err(fault)?;
        Ok(Self {
            consumer,
            queues,
            waker,
            reader: format!("changelog, group {}", settings::unused_group(config)),
            errors: ClientErrors::default(),
        })
    }

    /// Passes at most `limit` events of `place` to `take`; returns how many there were.
    pub(crate) fn read<E: From<KafkaFault>>(
        &self,
        place: &TopicPartition,
        limit: usize,
        mut take: impl FnMut(ChangelogEvent<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let Some(queue) = self.queues.get(place) else {
            return Ok(0);
        };
        for count in 0..limit {
            match queue.poll(Duration::ZERO) {
                None => return Ok(count),
                Some(Ok(message)) => take(ChangelogEvent::Record {
                    offset: Offset(message.offset()),
                    key: message.key(),
                    value: message.payload(),
                })?,
                Some(Err(KafkaError::PartitionEOF(_))) => take(ChangelogEvent::End)?,
                Some(Err(error)) => {
                    if let Some(fault) = self.errors.fault_of(&self.reader, &error) {
                        return Err(fault.into());
                    }
                }
            }
        }
        Ok(limit)
    }

    /// Waits until there may be something to read, at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Result<(), KafkaFault> {
        self.waker.wait(limit);
        // Serves the client's own events; records come through the partitions' queues.
        match self.consumer.poll(Duration::ZERO) {
            None => {
                let known = self.consumer.context().brokers.check();
                known.map_err(|fault| fault.of_what(&self.reader))
            }
            Some(Ok(message)) => Err(KafkaFault::Retriable {
                action: ACTION,
                reason: format!(
                    "{}-{} was read past its queue",
                    message.topic(),
                    message.partition()
                ),
            }),
            Some(Err(error)) => self
                .errors
                .fault_of(&self.reader, &error)
                .map_or(Ok(()), Err),
        }
    }

    /// Stops reading `place`. A fetch of partitions that are at their end or read already waits for
    /// new records, and the client asks for nothing else meanwhile.
    pub(crate) fn stop(&self, place: &TopicPartition) -> Result<(), KafkaFault> {
        self.consumer
            .incremental_unassign(&list_of(std::slice::from_ref(place)))
            .map_err(|error| KafkaFault::of(ACTION, &error))
    }

    /// Closes the client in the background: that waits for the fetch that is under way.
    pub(crate) fn close(self) {
        aside("close", move || drop(self));
    }

    /// The next offset of each partition that was read from, past transaction markers.
    pub(crate) fn positions(&self) -> Result<Vec<Position>, KafkaFault> {
        let list = self
            .consumer
            .position()
            .map_err(|error| KafkaFault::of(ACTION, &error))?;
        Ok(super::consumer::positions(&list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kafka::mock::MockBroker;

    #[test]
    fn a_reader_that_knows_no_broker_any_more_is_given_up() {
        let broker = MockBroker::start();
        let starts = [(broker.events.clone(), None)];
        let reader = ChangelogReader::start(&broker.config, &starts, Waker::default()).unwrap();
        reader.wait(Duration::ZERO).unwrap();
        reader.consumer.context().brokers.forget_all();
        let fault = reader.wait(Duration::ZERO).unwrap_err();
        assert!(matches!(fault, KafkaFault::Retriable { .. }), "{fault}");
    }
}
