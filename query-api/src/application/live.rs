//! The application on a Kafka cluster.

use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;
use turnstile_engine::runtime::{
    EventProducer, InstanceStatus, KafkaFault, Metrics, StartError, Streams, StreamsFailure,
};
use turnstile_engine::{Plan, TopologyFaults};
use turnstile_ticketing::topology;

use super::{Application, BoxFuture, Rows, SendFailure, Stores, TopologyForm};
use crate::config::Config;
use crate::peers::Peers;

/// Why the application does not start.
#[derive(Debug, Error)]
pub enum StartFailure {
    /// The topology is wrong.
    #[error(transparent)]
    Topology(#[from] TopologyFaults),
    /// The cluster cannot be reached, or is not what the application needs.
    #[error("the Kafka cluster at {brokers} cannot be used (see KAFKA_BROKERS)")]
    Cluster {
        /// The brokers that were to be asked.
        brokers: String,
        /// Why not.
        #[source]
        source: Box<StartError>,
    },
    /// The stream threads cannot run.
    #[error(transparent)]
    Streams(Box<StartError>),
    /// Commands cannot be written.
    #[error(transparent)]
    Producer(#[from] KafkaFault),
}

impl StartFailure {
    /// Whether the configuration is what is wrong.
    #[must_use]
    pub fn is_of_configuration(&self) -> bool {
        matches!(self, Self::Streams(error) if error.is_of_configuration())
    }
}

/// The application on a Kafka cluster.
pub struct LiveApplication {
    /// Until they have stopped.
    streams: RwLock<Option<Streams>>,
    plan: Arc<Plan>,
    rows: Rows,
    producer: EventProducer,
}

impl LiveApplication {
    /// Starts the stream threads; `peers` are asked for what is not here, and
    /// `on_failure` is told when the threads stop by themselves.
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
            streams_config.clone(),
            metrics,
        );
        let streams = streams.map_err(|source| match source {
            StartError::Kafka(_) | StartError::Topics(_) => StartFailure::Cluster {
                brokers: config.kafka_brokers.clone(),
                source: Box::new(source),
            },
            source => StartFailure::Streams(Box::new(source)),
        })?;
        let producer = EventProducer::new(&streams_config)?;
        streams.on_failure(on_failure);
        let owners = Arc::new(streams.cluster());
        let stores = Stores::new(streams.queries(), owners, peers);
        Ok(Self {
            plan: streams.plan(),
            rows: Rows::new(ticketing, stores),
            producer,
            streams: RwLock::new(Some(streams)),
        })
    }

    /// Commits, closes the tasks and leaves the groups. Blocks until that is done.
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
            Some(streams) => streams.status(),
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
            sent.map_err(|error| SendFailure(Box::new(error)))
        })
    }
}
