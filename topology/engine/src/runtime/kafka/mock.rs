//! The client's own mock of a broker, for unit tests.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::TopicPartition;
use crate::Partition;
use crate::runtime::StreamsConfig;

/// A broker with one topic, `events`, of one partition.
pub(super) struct MockBroker {
    pub(super) cluster: MockCluster<'static, DefaultProducerContext>,
    pub(super) config: StreamsConfig,
    pub(super) events: TopicPartition,
}

impl MockBroker {
    pub(super) fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        Self {
            config: StreamsConfig::new("mock", cluster.bootstrap_servers(), "a", "unused"),
            cluster,
            events: TopicPartition {
                topic: "events".into(),
                partition: Partition(0),
            },
        }
    }
}
