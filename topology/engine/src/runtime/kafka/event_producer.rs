//! Writes single events from outside the topology: acknowledged by all replicas,
//! once each, to the partition that murmur2 of the key names.
//!
//! A separate thread serves the client. (The library's own thread looks ten times a second, and
//! burns the last millisecond of each wait.)
//!
//! A client that can no longer tell what was written once, as after brokers have lost records,
//! accepts nothing from then on, and one that knows no broker any more writes nothing. Whoever
//! wanted to write then gets an error; the next caller gets a new client.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use thiserror::Error;
use tokio::sync::oneshot;

use super::client_log;
use super::fault::KafkaFault;
use super::known_brokers::{KnownBrokers, reported};
use super::replaceable::Replaceable;
use super::settings;
use crate::runtime::StreamsConfig;

/// Why an event may not have been written.
#[derive(Debug, Error)]
#[error("the event could not be written to {topic}")]
pub struct SendError {
    /// The topic.
    pub topic: String,
    /// Whether it may have been written all the same: brokers may have it if the client has sent
    /// it and got no answer.
    pub may_be_written: bool,
    /// What the client says.
    #[source]
    source: KafkaError,
}

/// Tells each sender the outcome of its event.
#[derive(Default)]
struct Acknowledgements {
    brokers: KnownBrokers,
}

impl ClientContext for Acknowledgements {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client_log::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.brokers.take_in(statistics);
    }
}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Self::DeliveryOpaque) {
        let told = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        // Not everybody waits for it.
        sender.send(told).ok();
    }
}

type Client = BaseProducer<Acknowledgements>;

/// Writes events; cheap to clone.
#[derive(Clone)]
pub struct EventProducer {
    client: Arc<Replaceable<Client>>,
}

/// How long the serving thread outlives the last sender, at most.
const SERVING_STEP: Duration = Duration::from_secs(1);

impl EventProducer {
    /// A producer for the cluster of `config`. Connects in the background.
    ///
    /// # Errors
    ///
    /// When the configuration is not usable.
    pub fn new(config: &StreamsConfig) -> Result<Self, KafkaFault> {
        Self::with(config, &[("enable.idempotence", "true")])
    }

    /// A producer of events that may be written twice, in the order in which they are handed over.
    /// An idempotent one first gets an id from a broker, for which it asks again only after half a
    /// second if it has no connection yet.
    pub(crate) fn of_repeatable(config: &StreamsConfig) -> Result<Self, KafkaFault> {
        let one_by_one = ("max.in.flight.requests.per.connection", "1");
        Self::with(config, &[("enable.idempotence", "false"), one_by_one])
    }

    fn with(config: &StreamsConfig, properties: &[(&str, &str)]) -> Result<Self, KafkaFault> {
        let mut client = settings::client(config, "events");
        for (name, value) in properties {
            client.set(*name, *value);
        }
        client
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("partitioner", "murmur2")
            .set(
                "message.timeout.ms",
                config.request_timeout.as_millis().to_string(),
            );
        let client = reported(settings::with_user_properties(client, config));
        let client = Replaceable::new(move || served_client(&client), trouble)?;
        Ok(Self {
            client: Arc::new(client),
        })
    }

    /// Writes `value` under `key` and waits until all replicas have it.
    ///
    /// # Errors
    ///
    /// When it was not acknowledged in time; it may have been written all the same.
    pub async fn send(&self, topic: &str, key: &str, value: Vec<u8>) -> Result<(), SendError> {
        let acknowledged = self.hand_over(topic, key, Some(value.as_slice()))?;
        // The client tells what became of each event, unless it is gone.
        let acknowledged = acknowledged.await.unwrap_or(Err(KafkaError::Canceled));
        acknowledged.map_err(|source| SendError {
            topic: topic.to_owned(),
            may_be_written: !is_refused(&source),
            source,
        })
    }

    /// Hands an event to the client without waiting for the cluster. It is lost if the cluster does
    /// not accept it in time.
    pub(crate) fn send_unwatched(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
    ) -> Result<(), SendError> {
        self.hand_over(topic, key, Some(value)).map(drop)
    }

    /// Hands a tombstone of `key` to the client, as [`Self::send_unwatched`] does an event.
    pub(crate) fn erase_unwatched(&self, topic: &str, key: &str) -> Result<(), SendError> {
        self.hand_over(topic, key, None).map(drop)
    }

    fn hand_over(
        &self,
        topic: &str,
        key: &str,
        value: Option<&[u8]>,
    ) -> Result<oneshot::Receiver<Result<(), KafkaError>>, SendError> {
        let (sender, acknowledged) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(sender)).key(key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        let sent = self.client.get().send(record);
        sent.map_err(|(source, _)| SendError {
            topic: topic.to_owned(),
            may_be_written: false,
            source,
        })?;
        Ok(acknowledged)
    }

    /// Waits until the cluster has what was handed over, at most `limit`. Blocks.
    pub(crate) fn flush(&self, limit: Duration) {
        if let Err(error) = self.client.get().flush(limit) {
            tracing::debug!(%error, "some events are not known to be written");
        }
    }
}

/// A client, with the thread that serves it for as long as anybody has it.
fn served_client(config: &ClientConfig) -> Result<Arc<Client>, KafkaFault> {
    let client: Client = config
        .create_with_context(Acknowledgements::default())
        .map_err(|error| KafkaFault::of("create a producer", &error))?;
    let client = Arc::new(client);
    let served = Arc::downgrade(&client);
    let serve = move || {
        while let Some(client) = served.upgrade() {
            client.poll(SERVING_STEP);
        }
    };
    let thread = thread::Builder::new().name("events".to_owned());
    thread.spawn(serve).map_err(|error| KafkaFault::Fatal {
        action: "start the thread of a producer",
        reason: error.to_string(),
    })?;
    Ok(client)
}

/// Why a client takes nothing any more, or keeps what it takes, if so.
fn trouble(client: &Client) -> Option<String> {
    let fatal = client.client().fatal_error().map(|(_, reason)| reason);
    let stranded = || client.context().brokers.check().err();
    fatal.or_else(|| stranded().map(|fault| fault.to_string()))
}

/// Whether brokers, or the client, have refused an event as such, so that it was never written.
fn is_refused(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    /// The client's own mock of brokers, as no broker loses records when it is told to, and a
    /// producer for it.
    fn on_mock() -> (MockCluster<'static, DefaultProducerContext>, EventProducer) {
        let brokers = MockCluster::new(1).expect("a mock can be made");
        brokers
            .create_topic("events", 1, 1)
            .expect("a topic can be made");
        let config = StreamsConfig::new("mock", brokers.bootstrap_servers(), "a", "unused");
        let producer = EventProducer::new(&config).expect("a producer can be made");
        (brokers, producer)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_any_more_is_replaced() {
        let (brokers, producer) = on_mock();
        let send = async || producer.send("events", "k", b"v".to_vec()).await;
        send().await.expect("brokers take it");
        let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        brokers.request_errors(RDKafkaApiKey::Produce, &[lost]);
        let error = send().await;
        let error = error.expect_err("nobody knows whether it is written once");
        assert!(error.may_be_written);
        send().await.expect("another client writes it");
    }

    #[tokio::test]
    async fn a_client_that_knows_no_broker_any_more_is_replaced() {
        let (_brokers, producer) = on_mock();
        let before = producer.client.get();
        before.context().brokers.forget_all();
        let sent = producer.send("events", "k", b"v".to_vec()).await;
        sent.expect("another client writes it");
        assert!(!Arc::ptr_eq(&before, &producer.client.get()));
    }

    #[tokio::test]
    async fn what_is_refused_was_not_written() {
        let (brokers, producer) = on_mock();
        // The client takes no more than its `message.max.bytes`, a million.
        for bytes in [1, 2_000_000] {
            let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
            brokers.request_errors(RDKafkaApiKey::Produce, &[refused]);
            let sent = producer.send("events", "k", vec![0; bytes]).await;
            let error = sent.expect_err("it is refused");
            assert!(!error.may_be_written, "{error:?}");
        }
    }
}
