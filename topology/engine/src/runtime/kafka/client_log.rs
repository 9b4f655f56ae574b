//! What the Kafka client says, in our log, without its repetitions.
//!
//! Every client of the process reports the same trouble with the same broker many
//! times a second. A line that differs from an earlier one in numbers only is
//! dropped for a while.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel as Level;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// How long a line is not repeated.
const QUIET: Duration = Duration::from_secs(10);
/// Beyond so many different lines the memory starts anew.
const LINES_MAX: usize = 1_000;

static SAID: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

/// The context of clients that need nothing but a log.
#[derive(Clone, Copy, Default)]
pub(super) struct ClientLog;

impl ClientContext for ClientLog {
    fn log(&self, level: Level, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self::error(&error, reason);
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

/// Logs an error that the client goes on after by itself.
pub(super) fn error(error: &KafkaError, reason: &str) {
    // The end of a partition is an event that readers ask for.
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) && is_new(reason) {
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}

/// Logs an error that a reader is told of, and goes on after by itself.
pub(super) fn mended(reader: &str, error: &KafkaError) {
    if is_new(&format!("{reader}: {error}")) {
        tracing::warn!(%reader, %error, "the consumer reports an error that it retries");
    }
}

fn is_new(line: &str) -> bool {
    let now = Instant::now();
    let gist: String = line
        .chars()
        .filter(|letter| !letter.is_ascii_digit())
        .collect();
    let mut said = SAID.lock();
    if said
        .get(&gist)
        .is_some_and(|last| now.duration_since(*last) < QUIET)
    {
        return false;
    }
    if said.len() >= LINES_MAX {
        said.clear();
    }
    said.insert(gist, now);
    true
}

#[cfg(test)]
mod tests {
    use super::is_new;

    #[test]
    fn a_line_that_differs_in_numbers_only_is_said_once() {
        assert!(is_new("broker 1 is down after 10 ms"));
        assert!(!is_new("broker 2 is down after 400 ms"));
        assert!(is_new("broker 1 is up"));
    }
}
