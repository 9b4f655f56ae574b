//! Writes single events from outside the topology: acknowledged by all replicas,
//! once each, to the partition that murmur2 of the key names.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use thiserror::Error;

use super::client_log::ClientLog;
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

/// Writes events; cheap to clone.
#[derive(Clone)]
pub struct EventProducer {
    producer: FutureProducer<ClientLog>,
    limit: Duration,
}

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
        let producer = client
            .create_with_context(ClientLog)
            .map_err(|error| KafkaFault::of("create a producer", &error))?;
        Ok(Self {
            producer,
            limit: config.request_timeout,
        })
    }

    /// Writes `value` under `key` and waits until all replicas have it.
    ///
    /// # Errors
    ///
    /// When it was not acknowledged in time; it may have been written all the same.
    pub async fn send(&self, topic: &str, key: &str, value: Vec<u8>) -> Result<(), SendError> {
        let record = FutureRecord::to(topic).key(key).payload(&value);
        let sent = self.producer.send(record, self.limit).await;
        sent.map(|_| ()).map_err(|(source, _)| SendError {
            topic: topic.to_owned(),
            source,
        })
    }

    /// Hands an event to the client without waiting for the cluster. It is lost where
    /// the cluster does not take it in time.
    pub(crate) fn send_unwatched(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
    ) -> Result<(), SendError> {
        let record = FutureRecord::to(topic).key(key).payload(value);
        let sent = self.producer.send_result(record);
        sent.map(drop).map_err(|(source, _)| SendError {
            topic: topic.to_owned(),
            source,
        })
    }

    /// Waits until the cluster has what was handed over, at most `limit`. Blocks.
    pub(crate) fn flush(&self, limit: Duration) {
        if let Err(error) = self.producer.flush(limit) {
            tracing::debug!(%error, "some events are not known to be written");
        }
    }
}
