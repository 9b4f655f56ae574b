//! Writes single events from outside the topology: acknowledged by all replicas,
//! once each, to the partition that murmur2 of the key names.

use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use thiserror::Error;

use super::client_log::ClientLog;
use super::settings;
use crate::runtime::StreamsConfig;

/// Why an event may not have been written.
#[derive(Debug, Error)]
#[error("the event could not be written to {topic}")]
pub struct SendError {
    /// The topic, or the cluster when no producer could be made.
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
    pub fn new(config: &StreamsConfig) -> Result<Self, SendError> {
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
            .map_err(|source| SendError {
                topic: "the cluster".to_owned(),
                source,
            })?;
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
}
