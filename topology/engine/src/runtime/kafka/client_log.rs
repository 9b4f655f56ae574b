//! What the Kafka client logs, in our log, without its repetitions.
//!
//! Every client of the process reports the same trouble with the same broker many
//! times a second.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::known_brokers::KnownBrokers;
use crate::runtime::said::is_new;

/// The context of clients that need nothing but a log.
#[derive(Default)]
pub(super) struct ClientLog {
    pub(super) brokers: KnownBrokers,
}

impl ClientContext for ClientLog {
    fn log(&self, level: Level, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.brokers.take_in(statistics);
    }
}

impl ConsumerContext for ClientLog {}

/// Logs a line of the client.
pub(super) fn log(level: Level, facility: &str, line: &str) {
    if !is_new(line) {
        return;
    }
    match level {
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
            tracing::error!(target: "librdkafka", facility, "{line}");
        }
        Level::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        Level::Notice | Level::Info => tracing::info!(target: "librdkafka", facility, "{line}"),
        Level::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

/// Logs an error that the client recovers from by itself.
pub(super) fn error(error: &KafkaError, reason: &str) {
    // The end of a partition is an event that readers ask for.
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) && is_new(reason) {
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

/// Logs an error that a reader is told of, and recovers from by itself.
pub(super) fn mended(reader: &str, error: &KafkaError) {
    if is_new(&format!("{reader}: {error}")) {
        tracing::warn!(%reader, %error, "the consumer reports an error that it retries");
    }
}
