//! Topics of the cluster: which ones exist, their partitions and settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset as ClientOffset, TopicPartitionList};

use super::Position;
use super::client_log::ClientLog;
use super::consumer::watermarks;
use super::fault::KafkaFault;
use super::replaceable::Replaceable;
use super::settings;
use crate::runtime::StreamsConfig;
use crate::{Offset, Partition};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTopicSpec {
    pub(crate) name: String,
    pub(crate) partitions: i32,
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// Why topics were not created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CreateFault {
    /// There are fewer brokers than the replicas that a topic should have.
    TooFewBrokers { topic: String, replicas: i32 },
    /// The call failed, or the cluster refused.
    Kafka(KafkaFault),
}

impl CreateFault {
    /// What the cluster says about `topic`.
    fn of(topic: String, code: RDKafkaErrorCode, replicas: i32) -> Self {
        match code {
            RDKafkaErrorCode::InvalidReplicationFactor => Self::TooFewBrokers { topic, replicas },
            code => Self::Kafka(KafkaFault::Fatal {
                action: CREATE,
                reason: format!("{topic}: {code}"),
            }),
        }
    }
}

impl From<KafkaFault> for CreateFault {
    fn from(fault: KafkaFault) -> Self {
        Self::Kafka(fault)
    }
}

/// The values of the settings of topics, by topic and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct TopicSettings(BTreeMap<String, BTreeMap<String, String>>);

impl TopicSettings {
    /// The value of a setting of a topic, if brokers were asked about that and have told it.
    pub(crate) fn get(&self, topic: &str, setting: &str) -> Option<&str> {
        self.0.get(topic)?.get(setting).map(String::as_str)
    }
}

const CREATE: &str = "create topics";

/// Looks at and creates topics. Its calls block.
pub(crate) struct Admin {
    client: Replaceable<Client>,
    runtime: tokio::runtime::Runtime,
    replication_factor: i32,
    limit: Duration,
}

struct Client {
    admin: AdminClient<ClientLog>,
    /// Whether it was asked in vain: it may know no broker any more.
    unanswered: AtomicBool,
}

impl Client {
    fn new(config: &ClientConfig) -> Result<Self, KafkaFault> {
        let admin = config.create_with_context(ClientLog::default());
        Ok(Self {
            admin: admin.map_err(|error| KafkaFault::of(CONNECT, &error))?,
            unanswered: AtomicBool::new(false),
        })
    }

    fn partition_counts(&self, limit: Duration) -> Result<BTreeMap<String, i32>, KafkaFault> {
        const ACTION: &str = "list the topics of the cluster";
        let metadata = self.admin.inner().fetch_metadata(None, limit);
        let metadata = metadata.map_err(|error| KafkaFault::of(ACTION, &error))?;
        let mut counts = BTreeMap::new();
        for topic in metadata.topics() {
            let count =
                i32::try_from(topic.partitions().len()).map_err(|error| KafkaFault::Fatal {
                    action: ACTION,
                    reason: format!("topic {}: {error}", topic.name()),
                })?;
            if count > 0 {
                counts.insert(topic.name().to_owned(), count);
            }
        }
        Ok(counts)
    }

    /// Why it is to be replaced, if so.
    fn trouble(&self) -> Option<String> {
        let unanswered = self.unanswered.load(Ordering::Relaxed);
        unanswered.then(|| "it got no answer".to_owned())
    }
}

const CONNECT: &str = "create an admin client";

impl Admin {
    pub(crate) fn connect(config: &StreamsConfig) -> Result<Self, KafkaFault> {
        let client = settings::with_user_properties(settings::client(config, "admin"), config);
        let client = Replaceable::new(move || Client::new(&client).map(Arc::new), Client::trouble)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| KafkaFault::Fatal {
            action: CONNECT,
            reason: error.to_string(),
        })?;
        Ok(Self {
            client,
            runtime,
            replication_factor: config.replication_factor,
            limit: config.request_timeout.min(Duration::from_secs(30)),
        })
    }

    /// The same, waiting this long for an answer.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// All topics with their partition counts. If there is no answer, another client is asked the
    /// next time.
    pub(crate) fn partition_counts(&self) -> Result<BTreeMap<String, i32>, KafkaFault> {
        let client = self.client.get();
        let counts = client.partition_counts(self.limit);
        client.unanswered.store(counts.is_err(), Ordering::Relaxed);
        counts
    }

    /// The same within this limit, after which an answer may still come.
    pub(super) fn partition_counts_within(
        &self,
        limit: Duration,
    ) -> Result<BTreeMap<String, i32>, KafkaFault> {
        self.client.get().partition_counts(limit.min(self.limit))
    }

    /// Creates those of `topics` that do not exist.
    pub(crate) fn create(&self, topics: &[NewTopicSpec]) -> Result<(), CreateFault> {
        if topics.is_empty() {
            return Ok(());
        }
        let new: Vec<NewTopic<'_>> = topics
            .iter()
            .map(|topic| {
                let replication = TopicReplication::Fixed(self.replication_factor);
                let new = NewTopic::new(&topic.name, topic.partitions, replication);
                topic
                    .settings
                    .iter()
                    .fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let options = AdminOptions::new()
            .operation_timeout(Some(self.limit))
            .request_timeout(Some(self.limit));
        let created = self
            .runtime
            .block_on(self.client.get().admin.create_topics(&new, &options));
        for result in created.map_err(|error| KafkaFault::of(CREATE, &error))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(CreateFault::of(topic, code, self.replication_factor));
                }
            }
        }
        Ok(())
    }

    /// Waits until the cluster's metadata shows `topics`: a member that subscribes to a topic too
    /// early would learn of it only much later. Returns their partition counts, which differ from
    /// those asked for if somebody else has created a topic first.
    pub(crate) fn wait_until_known(
        &self,
        topics: &[NewTopicSpec],
    ) -> Result<BTreeMap<String, i32>, KafkaFault> {
        let begun = Instant::now();
        loop {
            let mut counts = self.partition_counts()?;
            let Some(unknown) = topics
                .iter()
                .find(|topic| !counts.contains_key(&topic.name))
            else {
                counts.retain(|name, _| topics.iter().any(|topic| topic.name == *name));
                return Ok(counts);
            };
            if begun.elapsed() > self.limit {
                let reason = format!("topic {} was created but does not appear", unknown.name);
                return Err(KafkaFault::Retriable {
                    action: CREATE,
                    reason,
                });
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The offset after the last record of a partition.
    pub(crate) fn end(&self, topic: &str, partition: Partition) -> Result<Offset, KafkaFault> {
        let (_, end) = watermarks(
            self.client.get().admin.inner(),
            topic,
            partition,
            self.limit,
        )?;
        Ok(end)
    }

    /// Deletes the records before these positions.
    pub(crate) fn delete_before(&self, positions: &[Position]) -> Result<(), KafkaFault> {
        const ACTION: &str = "delete records that were read";
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (place, offset) in positions {
            list.add_partition_offset(
                &place.topic,
                place.partition.0,
                ClientOffset::Offset(offset.0),
            )
            .map_err(|error| KafkaFault::of(ACTION, &error))?;
        }
        let options = AdminOptions::new().operation_timeout(Some(self.limit));
        let deleted = self
            .runtime
            .block_on(self.client.get().admin.delete_records(&list, &options));
        let deleted = deleted.map_err(|error| KafkaFault::of(ACTION, &error))?;
        for element in deleted.elements() {
            element.error().map_err(|error| {
                KafkaFault::of(ACTION, &error).at(element.topic(), element.partition())
            })?;
        }
        Ok(())
    }

    /// The settings of each of `topics`.
    pub(crate) fn settings(&self, topics: &[&str]) -> Result<TopicSettings, KafkaFault> {
        const ACTION: &str = "read the settings of topics";
        if topics.is_empty() {
            return Ok(TopicSettings::default());
        }
        let resources: Vec<ResourceSpecifier<'_>> = topics
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(self.limit));
        let described = self.runtime.block_on(
            self.client
                .get()
                .admin
                .describe_configs(&resources, &options),
        );
        let mut settings = TopicSettings::default();
        for result in described.map_err(|error| KafkaFault::of(ACTION, &error))? {
            let resource = result.map_err(|code| KafkaFault::Fatal {
                action: ACTION,
                reason: code.to_string(),
            })?;
            if let OwnedResourceSpecifier::Topic(topic) = resource.specifier {
                let entries = resource.entries.into_iter();
                let known = entries.filter_map(|entry| Some((entry.name, entry.value?)));
                settings.0.insert(topic, known.collect());
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Whoever creates a topic may find that somebody else has just done so.
    #[test]
    fn a_topic_has_the_partitions_that_the_cluster_says() {
        let brokers = MockCluster::new(1).expect("a mock can be made");
        for (topic, partitions) in [("tickets", 1), ("orders", 4), ("others", 2)] {
            let created = brokers.create_topic(topic, partitions, 1);
            created.expect("a topic can be made");
        }
        let config = StreamsConfig::new("mock", brokers.bootstrap_servers(), "a", "unused");
        let admin = Admin::connect(&config).expect("an admin client can be made");
        let wanted = ["tickets", "orders"].map(|name| NewTopicSpec {
            name: name.to_owned(),
            partitions: 4,
            settings: Vec::new(),
        });
        let known = admin.wait_until_known(&wanted).expect("both are there");
        let expected = [("orders".to_owned(), 4), ("tickets".to_owned(), 1)];
        assert_eq!(known, expected.into());
    }

    #[test]
    fn too_few_brokers_are_told_from_other_refusals() {
        let refused = |code| CreateFault::of("orders".to_owned(), code, 3);
        let too_few = CreateFault::TooFewBrokers {
            topic: "orders".to_owned(),
            replicas: 3,
        };
        assert_eq!(refused(RDKafkaErrorCode::InvalidReplicationFactor), too_few);
        let other = refused(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert!(matches!(other, CreateFault::Kafka(_)), "{other:?}");
    }

    #[test]
    fn a_client_that_could_not_list_the_topics_is_replaced() {
        let config = StreamsConfig::new("app", "localhost:1", "a", "unused");
        let admin = Admin::connect(&config).expect("an admin client can be made");
        let admin = admin.within(Duration::from_millis(50));
        let before = admin.client.get();
        assert!(admin.partition_counts_within(admin.limit).is_err());
        assert!(Arc::ptr_eq(&before, &admin.client.get()));
        assert!(admin.partition_counts().is_err());
        assert!(!Arc::ptr_eq(&before, &admin.client.get()));
    }
}
