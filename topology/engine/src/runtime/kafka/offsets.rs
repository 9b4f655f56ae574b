//! The ends of partitions.

use std::collections::BTreeSet;
use std::slice;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use super::client_log::ClientLog;
use super::consumer::{connect, positions};
use super::fault::KafkaFault;
use super::replaceable::Replaceable;
use super::settings::{self, Isolation};
use super::{Position, TopicPartition};
use crate::Offset;
use crate::runtime::StreamsConfig;

const ACTION: &str = "ask for the ends of partitions";

/// Where partitions end, by either measure. Shared by all threads of an instance, since each client
/// costs some threads and connections; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ends {
    /// The end of the log (its high watermark).
    pub(crate) log: EndOffsets,
    /// Where the first pending transaction begins (the last stable offset).
    pub(crate) stable: EndOffsets,
}

impl Ends {
    pub(crate) fn new(config: &StreamsConfig) -> Result<Self, KafkaFault> {
        Ok(Self {
            log: EndOffsets::new(config, Isolation::ReadUncommitted)?,
            stable: EndOffsets::new(config, Isolation::ReadCommitted)?,
        })
    }

    /// The same, waiting this long for an answer.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self {
            log: self.log.within(limit),
            stable: self.stable.within(limit),
        }
    }
}

/// Asks where partitions end; cheap to clone.
#[derive(Clone)]
pub(crate) struct EndOffsets {
    client: Arc<Replaceable<Client>>,
    limit: Duration,
}

struct Client {
    consumer: BaseConsumer<ClientLog>,
    connected: Once,
}

impl Client {
    fn new(config: &ClientConfig) -> Result<Self, KafkaFault> {
        let consumer = config.create_with_context(ClientLog::default());
        let consumer = consumer.map_err(|error| KafkaFault::of("create a client", &error))?;
        Ok(Self {
            consumer,
            connected: Once::new(),
        })
    }

    /// Why it will not answer any more, if so.
    fn trouble(&self) -> Option<String> {
        let known = self.consumer.context().brokers.check();
        known.err().map(|fault| fault.to_string())
    }
}

impl EndOffsets {
    fn new(config: &StreamsConfig, isolation: Isolation) -> Result<Self, KafkaFault> {
        let client = settings::reader(config, "ends", isolation);
        let client = Replaceable::new(move || Client::new(&client).map(Arc::new), Client::trouble)?;
        Ok(Self {
            client: Arc::new(client),
            limit: config.request_timeout,
        })
    }

    /// The same, waiting this long for an answer.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self {
            limit,
            ..self.clone()
        }
    }

    /// Connects to a broker, which the first request would wait for; for a bounded time, once.
    pub(crate) fn connect(&self, topic: &str) {
        let client = self.client.get();
        client
            .connected
            .call_once(|| connect(&client.consumer, topic));
    }

    /// The end of each of `partitions`, in no particular order. If one has no leader, waits, since
    /// another broker is about to become it.
    pub(crate) fn of(&self, partitions: &[TopicPartition]) -> Result<Vec<Position>, KafkaFault> {
        let patience = self.patience();
        loop {
            let ends = self.of_those_led(partitions, patience)?;
            let is_missing =
                |place: &&TopicPartition| !ends.iter().any(|(found, _)| found == *place);
            match partitions.iter().find(is_missing) {
                None => return Ok(ends),
                Some(place) if Instant::now() < patience => {
                    thread::park_timeout(NEWS_STEP);
                    // By itself the client may not look for the new leader for seconds.
                    connect(&self.client.get().consumer, &place.topic);
                }
                Some(place) => return Err(no_answer(place)),
            }
        }
    }

    /// The end of each of `partitions` that has a leader, in no particular order. It is a fault if
    /// none of them has one, or if any leader does not answer in time.
    pub(crate) fn of_led(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Position>, KafkaFault> {
        self.of_those_led(partitions, self.patience())
    }

    /// Until when a request that begins now may wait for the client to learn who leads.
    fn patience(&self) -> Instant {
        Instant::now() + NEWS_LIMIT.min(self.limit)
    }

    fn of_those_led(
        &self,
        partitions: &[TopicPartition],
        patience: Instant,
    ) -> Result<Vec<Position>, KafkaFault> {
        let Some(TopicPartition { topic, .. }) = partitions.first() else {
            return Ok(Vec::new());
        };
        self.connect(topic);
        self.ask(partitions, self.limit, patience)
    }

    /// The end of one partition, from whoever leads it now.
    pub(crate) fn of_one(&self, place: &TopicPartition) -> Result<Offset, KafkaFault> {
        let limit = self.limit;
        let begun = Instant::now();
        let TopicPartition { topic, partition } = place;
        // The client may not have noticed yet that it has a leader again.
        let client = self.client.get();
        let metadata = client.consumer.fetch_metadata(Some(topic.as_ref()), limit);
        let metadata = metadata.map_err(|error| KafkaFault::of(ACTION, &error))?;
        let mut partitions = metadata.topics().iter().flat_map(|of| of.partitions());
        if !partitions.any(|of| of.id() == partition.0 && of.leader() >= 0) {
            let fault = KafkaFault::Retriable {
                action: ACTION,
                reason: "no broker leads it".to_owned(),
            };
            return Err(fault.at(topic, partition.0));
        }
        let ends = self.ask(
            slice::from_ref(place),
            limit.saturating_sub(begun.elapsed()),
            self.patience(),
        );
        let ends = ends.map_err(|fault| fault.at(topic, partition.0))?;
        let end = ends.first().map(|(_, end)| *end);
        end.ok_or_else(|| no_answer(place))
    }

    fn ask(
        &self,
        partitions: &[TopicPartition],
        limit: Duration,
        patience: Instant,
    ) -> Result<Vec<Position>, KafkaFault> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for TopicPartition { topic, partition } in partitions {
            let added = list.add_partition_offset(topic, partition.0, ClientOffset::End);
            added.map_err(|error| KafkaFault::of(ACTION, &error))?;
        }
        let client = self.client.get();
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let asked = client.consumer.offsets_for_times(list.clone(), left);
            // What it reports is in a queue that nobody else serves.
            while client.consumer.poll(Duration::ZERO).is_some() {}
            match asked {
                // Those without a leader come back without an offset.
                Ok(ends) => return Ok(positions(&ends)),
                Err(error) if is_without_leader(&error) && Instant::now() < patience => {
                    thread::park_timeout(NEWS_STEP);
                    let topics = partitions.iter().map(|place| &*place.topic);
                    for topic in BTreeSet::from_iter(topics) {
                        connect(&client.consumer, topic);
                    }
                }
                Err(error) => return Err(KafkaFault::of(ACTION, &error)),
            }
        }
    }
}

/// How long a client may take to learn who leads a partition now, if the broker that it asked does
/// not, or nobody did.
const NEWS_LIMIT: Duration = Duration::from_secs(5);
const NEWS_STEP: Duration = Duration::from_millis(50);

/// Whether brokers have restarted since, or are handing partitions over.
fn is_without_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::FencedLeaderEpoch
                | RDKafkaErrorCode::UnknownLeaderEpoch
                // Nobody leads any of those that were asked for.
                | RDKafkaErrorCode::UnknownPartition
                // The client has dropped its connection to the broker that was asked, and does not
                // look for another by itself.
                | RDKafkaErrorCode::DestroyBroker
        )
    )
}

fn no_answer(TopicPartition { topic, partition }: &TopicPartition) -> KafkaFault {
    let fault = KafkaFault::Retriable {
        action: ACTION,
        reason: "no answer".to_owned(),
    };
    fault.at(topic, partition.0)
}

#[cfg(test)]
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::runtime::kafka::mock::MockBroker;

    /// The broker that is asked has just handed the partition over, or has yet to be told that it leads it.
    #[test]
    fn ends_are_asked_for_again_while_nobody_leads() {
        let MockBroker {
            cluster,
            config,
            events,
        } = MockBroker::start();
        let ends = Ends::new(&config).unwrap();
        for error in [
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
        ] {
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &[error; 2]);
            let found = ends.log.of(slice::from_ref(&events));
            assert_eq!(found, Ok(vec![(events.clone(), Offset(0))]), "{error:?}");
        }
    }

    #[test]
    fn a_client_that_knows_no_broker_any_more_is_replaced() {
        let MockBroker {
            cluster: _cluster,
            config,
            events,
        } = MockBroker::start();
        let ends = Ends::new(&config).unwrap();
        let before = ends.log.client.get();
        before.consumer.context().brokers.forget_all();
        let found = ends.log.of(slice::from_ref(&events));
        assert_eq!(found, Ok(vec![(events, Offset(0))]));
        assert!(!Arc::ptr_eq(&before, &ends.log.client.get()));
    }
}
