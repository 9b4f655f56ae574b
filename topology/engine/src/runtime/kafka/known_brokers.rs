//! Whether a client still knows a broker.
//!
//! A cluster lists no broker at all while the last of them is fenced: the only one was suspended,
//! say, and has just gone on. A client that asks about topics just then forgets all brokers, for
//! good, and those that it was configured with as well. It connects to nobody any more, and says
//! nothing (librdkafka #5301). Whoever has it needs another one.
//!
//! The client's statistics tell: they list the brokers that it knows. They come with its other
//! events, so they are for clients that are polled all the time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rdkafka::ClientConfig;
use serde::Deserialize;

use super::fault::KafkaFault;

/// The time between two statistics, in milliseconds. An idle instance spends some 2 ms on those of all
/// its clients.
const INTERVAL_MS: &str = "5000";

/// A client that is about to start over with those that it was configured with knows nobody for a
/// moment.
const REPORTS_MAX: usize = 2;

/// Makes a client report its statistics.
pub(super) fn reported(mut client: ClientConfig) -> ClientConfig {
    client.set(INTERVAL, INTERVAL_MS);
    client
}

const INTERVAL: &str = "statistics.interval.ms";

/// What the latest statistics of a client say of the brokers that it knows.
#[derive(Default)]
pub(super) struct KnownBrokers {
    /// How many statistics in a row were without any.
    without: AtomicUsize,
}

/// The part of a client's statistics that counts.
#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    /// From where the client knows it.
    source: String,
}

impl Broker {
    /// Whether it is one, and no name for whichever has a role, as that of the group's coordinator.
    fn is_real(&self) -> bool {
        matches!(&*self.source, "configured" | "learned")
    }
}

impl KnownBrokers {
    /// Takes in the client's statistics.
    pub(super) fn take_in(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) if statistics.brokers.values().any(Broker::is_real) => {
                self.without.store(0, Ordering::Relaxed);
            }
            Ok(_) => {
                self.without.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(%error, "the statistics of a client cannot be read");
            }
        }
    }

    /// A fault if the client knows none any more.
    pub(super) fn check(&self) -> Result<(), KafkaFault> {
        if self.without.load(Ordering::Relaxed) < REPORTS_MAX {
            return Ok(());
        }
        Err(KafkaFault::Retriable {
            action: "reach a broker",
            reason: "the client knows none any more: the cluster has listed none, as it does while all are fenced".to_owned(),
        })
    }
}

/// What a client says that has forgotten all of them.
#[cfg(test)]
const NOBODY: &[u8] = br#"{"brokers":{"GroupCoordinator":{"nodeid":-1,"source":"logical"}}}"#;

#[cfg(test)]
impl KnownBrokers {
    /// Takes in what a client says that has forgotten all of them.
    pub(super) fn forget_all(&self) {
        (0..REPORTS_MAX).for_each(|_| self.take_in(NOBODY));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::consumer::{BaseConsumer, Consumer};

    use super::*;
    use crate::runtime::kafka::client_log::ClientLog;
    use crate::runtime::kafka::mock::MockBroker;

    /// What a client says of itself in half a second.
    fn found(brokers: &str) -> Result<(), KafkaFault> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("group.id", "g")
            .set(INTERVAL, "20");
        let client: BaseConsumer<ClientLog> =
            client.create_with_context(ClientLog::default()).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            client.poll(Duration::from_millis(10));
        }
        client.context().brokers.check()
    }

    #[test]
    fn a_client_without_brokers_is_told_from_one_that_cannot_reach_them() {
        assert_eq!(found("localhost:1"), Ok(()));
        assert_eq!(found(&MockBroker::start().config.brokers), Ok(()));
        let fault = found("").unwrap_err();
        assert!(matches!(fault, KafkaFault::Retriable { .. }), "{fault}");
    }

    #[test]
    fn one_report_is_not_enough_and_a_broker_ends_it() {
        let brokers = KnownBrokers::default();
        let somebody = br#"{"brokers":{"GroupCoordinator":{"nodeid":1,"source":"logical"},"h:1/1":{"nodeid":1,"source":"learned"}}}"#;
        brokers.take_in(NOBODY);
        assert_eq!(brokers.check(), Ok(()));
        brokers.take_in(somebody);
        brokers.take_in(NOBODY);
        assert_eq!(brokers.check(), Ok(()));
        brokers.take_in(NOBODY);
        assert!(brokers.check().is_err());
        brokers.take_in(somebody);
        assert_eq!(brokers.check(), Ok(()));
    }
}
