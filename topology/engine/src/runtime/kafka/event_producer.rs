//! Writes single events from outside the topology: acknowledged by all replicas,
//! once each, to the partition that murmur2 of the key names.
//!
//! A thread of its own serves the client. (That of the client's library looks ten times a
//! second, and burns the last millisecond of each wait.)

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use thiserror::Error;
use tokio::sync::oneshot;

use super::client_log;
use super::fault::KafkaFault;
use super::settings;
use crate::runtime::StreamsConfig;

/// Why an event may not have been written.
#[derive(Debug, Error)]
#[error("the event could not be written to {topic}")]
pub struct SendError {
    /// The topic.
    pub topic: String,
    /// What the client says.
    #[source]
    source: KafkaError,
}

/// Tells each sender what became of its event.
struct Acknowledgements;

impl ClientContext for Acknowledgements {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client_log::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
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

/// Writes events; cheap to clone.
#[derive(Clone)]
pub struct EventProducer {
    producer: Arc<BaseProducer<Acknowledgements>>,
}

/// How long the serving thread outlives the last sender at most.
const SERVING_STEP: Duration = Duration::from_secs(1);

impl EventProducer {
    /// A producer for the cluster of `config`. Connects in the background.
    ///
    /// # Errors
    ///
    /// When the configuration is not usable.
    pub fn new(config: &StreamsConfig) -> Result<Self, KafkaFault> {
        let mut client = settings::client(config, "events");
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("partitioner", "murmur2")
            .set(
                "message.timeout.ms",
                config.request_timeout.as_millis().to_string(),
            );
        let client = settings::with_user_properties(client, config);
        let producer: BaseProducer<Acknowledgements> = client
            .create_with_context(Acknowledgements)
            .map_err(|error| KafkaFault::of("create a producer", &error))?;
        let producer = Arc::new(producer);
        let served = Arc::downgrade(&producer);
        let serve = move || {
            while let Some(producer) = served.upgrade() {
                producer.poll(SERVING_STEP);
            }
        };
        let thread = thread::Builder::new().name("events".to_owned());
        thread.spawn(serve).map_err(|error| KafkaFault::Fatal {
            action: "start the thread of a producer",
            reason: error.to_string(),
        })?;
        Ok(Self { producer })
    }

    /// Writes `value` under `key` and waits until all replicas have it.
    ///
    /// # Errors
    ///
    /// When it was not acknowledged in time; it may have been written all the same.
    pub async fn send(&self, topic: &str, key: &str, value: Vec<u8>) -> Result<(), SendError> {
        let acknowledged = self.hand_over(topic, key, &value)?;
        // The client tells what became of each event, unless it is gone.
        let acknowledged = acknowledged.await.unwrap_or(Err(KafkaError::Canceled));
        acknowledged.map_err(|source| failed(topic, source))
    }

    /// Hands an event to the client without waiting for the cluster. It is lost where
    /// the cluster does not take it in time.
    pub(crate) fn send_unwatched(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
    ) -> Result<(), SendError> {
        self.hand_over(topic, key, value).map(drop)
    }

    fn hand_over(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
    ) -> Result<oneshot::Receiver<Result<(), KafkaError>>, SendError> {
        let (sender, acknowledged) = oneshot::channel();
        let record = BaseRecord::with_opaque_to(topic, Box::new(sender));
        let sent = self.producer.send(record.key(key).payload(value));
        sent.map_err(|(source, _)| failed(topic, source))?;
        Ok(acknowledged)
    }

    /// Waits until the cluster has what was handed over, at most `limit`. Blocks.
    pub(crate) fn flush(&self, limit: Duration) {
        if let Err(error) = self.producer.flush(limit) {
            tracing::debug!(%error, "some events are not known to be written");
        }
    }
}

fn failed(topic: &str, source: KafkaError) -> SendError {
    SendError {
        topic: topic.to_owned(),
        source,
    }
}
