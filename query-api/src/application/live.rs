//! The application on a Kafka cluster.

use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;
use turnstile_engine::runtime::{
    EventProducer, InstanceStatus, KafkaFault, Metrics, StartError, Streams, StreamsFailure,
    TopicError,
};
use turnstile_engine::{Plan, TopologyFaults};
use turnstile_ticketing::topology;

use super::{Application, BoxFuture, Rows, SendFailure, Stores, TopologyForm, address};
use crate::config::Config;
use crate::peers::Peers;

/// Why the application does not start.
#[derive(Debug, Error)]
pub enum StartFailure {
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyFaults),
    /// The cluster cannot be reached, or has refused the request.
    #[error(
        "the Kafka cluster at {brokers} cannot be used{}",
        where_to_look(source)
    )]
    Cluster {
        /// The brokers that were asked.
        brokers: String,
        /// Why not.
        #[source]
        source: Box<StartError>,
    },
    /// The stream threads cannot run with the configuration, the state or the topics as they are.
    #[error(transparent)]
    Streams(Box<StartError>),
    /// Commands cannot be written.
    #[error(transparent)]
    Producer(#[from] KafkaFault),
}

/// What to look at first if the cluster has not answered. If it was asked for topics, it had
/// answered before.
fn where_to_look(error: &StartError) -> &'static str {
    match error {
        StartError::Topics(_) => "",
        _ => " (see KAFKA_BROKERS and KAFKA_PROPERTIES)",
    }
}

impl StartFailure {
    fn of(error: StartError, brokers: &str) -> Self {
        match error {
            StartError::Kafka(_) | StartError::Topics(TopicError::Kafka(_)) => Self::Cluster {
                brokers: brokers.to_owned(),
                source: Box::new(error),
            },
            error => Self::Streams(Box::new(error)),
        }
    }

    /// Whether the configuration is at fault.
    #[must_use]
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Streams(error) if error.is_of_configuration())
    }

    /// Whether the disk of the state directory is at fault.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        let Self::Streams(error) = self else {
            return false;
        };
        matches!(&**error, StartError::State(error) if error.is_of_disk())
    }
}

/// The application on a Kafka cluster.
pub struct LiveApplication {
    /// `None` once they have stopped.
    streams: RwLock<Option<Streams>>,
    plan: Arc<Plan>,
    instance_id: String,
    /// Whether the others are told where to ask it.
    has_address: bool,
    rows: Rows,
    producer: EventProducer,
}

impl LiveApplication {
    /// Starts the stream threads; `peers` are asked for what is not here, and
    /// `on_failure` is called when the threads stop by themselves.
    /// Blocks while it talks to the cluster.
    ///
    /// # Errors
    ///
    /// When the topology, the cluster or the state directory does not allow it.
    pub fn start(
        config: &Config,
        metrics: Metrics,
        peers: Arc<Peers>,
        on_failure: impl Fn(&StreamsFailure) + Send + Sync + 'static,
    ) -> Result<Self, StartFailure> {
        let ticketing = topology(&config.ticketing())?;
        let streams_config = config.streams();
        let streams = Streams::start(
            ticketing.topology.clone(),
            &config.topics(),
            &streams_config,
            metrics,
        );
        let streams = streams.map_err(|error| StartFailure::of(error, &config.kafka_brokers))?;
        let producer = EventProducer::new(&streams_config)?;
        streams.on_failure(on_failure);
        let owners = Arc::new(streams.cluster());
        let stores = Stores::new(streams.queries(), owners, peers);
        Ok(Self {
            plan: streams.plan(),
            instance_id: config.instance_id.clone(),
            has_address: config.advertised_addr.is_some(),
            rows: Rows::new(ticketing, stores),
            producer,
            streams: RwLock::new(Some(streams)),
        })
    }

    /// Commits and closes the tasks. Blocks until that is done. (The groups keep the member's
    /// partitions for it until its session ends, as it may be about to start again.)
    pub fn stop(&self) {
        let streams = self.streams.write().take();
        if let Some(streams) = streams {
            streams.stop();
        }
    }
}

impl Application for LiveApplication {
    fn rows(&self) -> &Rows {
        &self.rows
    }

    fn status(&self) -> InstanceStatus {
        match &*self.streams.read() {
            Some(streams) => {
                let status = streams.status();
                if self.has_address {
                    status
                } else {
                    address::checked(status, &self.instance_id, &self.rows.instances())
                }
            }
            None => {
                let problems = vec!["the stream threads have stopped".to_owned()];
                InstanceStatus {
                    ready: false,
                    problems,
                    tasks: Vec::new(),
                }
            }
        }
    }

    fn topology(&self, form: TopologyForm) -> String {
        match form {
            TopologyForm::Text => self.plan.describe_text(),
            TopologyForm::Json => self.plan.describe_json().to_string(),
            TopologyForm::Dot => self.plan.describe_dot(),
        }
    }

    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>> {
        Box::pin(async move {
            let sent = self.producer.send(topic, key, command).await;
            sent.map_err(|error| SendFailure {
                may_be_written: error.may_be_written,
                source: Box::new(error),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> KafkaFault {
        KafkaFault::Retriable {
            action: "ask",
            reason: "nobody answers".to_owned(),
        }
    }

    #[test]
    fn the_brokers_are_to_be_looked_at_where_they_do_not_answer() {
        let said = |error: StartError| StartFailure::of(error, "kafka:9092").to_string();
        let unreachable = said(fault().into());
        assert_eq!(
            unreachable,
            "the Kafka cluster at kafka:9092 cannot be used (see KAFKA_BROKERS and KAFKA_PROPERTIES)"
        );
        let refused = said(StartError::Topics(TopicError::Kafka(fault())));
        assert_eq!(refused, "the Kafka cluster at kafka:9092 cannot be used");
    }

    #[test]
    fn topics_that_do_not_fit_are_lasting_and_speak_for_themselves() {
        let topics = [
            TopicError::PartitionCount {
                topic: "orders".to_owned(),
                found: 1,
                needed: 4,
            },
            TopicError::CleanupPolicy {
                topic: "orders".to_owned(),
                found: "delete".to_owned(),
                needed: "compact",
            },
        ];
        for error in topics {
            let text = error.to_string();
            let failure = StartFailure::of(error.into(), "kafka:9092");
            assert_eq!(failure.to_string(), text);
            assert!(failure.is_of_configuration(), "{failure}");
        }
        let unreachable = StartFailure::of(fault().into(), "kafka:9092");
        assert!(!unreachable.is_of_configuration());
    }
}
