//! The topics of the broker: listing them, finding their ends, creating new ones.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::Outcome;
use crate::reader::client;

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A partition of a topic.
pub(crate) type TopicPartition = (String, i32);

/// The end of every partition, except those of Kafka's own topics.
pub(crate) fn ends(brokers: &str) -> Outcome<BTreeMap<TopicPartition, i64>> {
    let consumer: BaseConsumer = client(brokers).create()?;
    let metadata = consumer.fetch_metadata(None, LIMIT)?;
    let mut ends = BTreeMap::new();
    for topic in metadata.topics() {
        if topic.name().starts_with("__") {
            continue;
        }
        for partition in topic.partitions() {
            let (_, end) = consumer.fetch_watermarks(topic.name(), partition.id(), LIMIT)?;
            ends.insert((topic.name().to_owned(), partition.id()), end);
        }
    }
    Ok(ends)
}

/// Creates topics with this many partitions each, and this `cleanup.policy`.
pub(crate) fn create(brokers: &str, names: &[&str], partitions: i32, policy: &str) -> Outcome<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let topic = |name| {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic.set("cleanup.policy", policy)
    };
    let topics: Vec<NewTopic<'_>> = names.iter().map(|name| topic(*name)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    for created in runtime.block_on(admin.create_topics(&topics, &options))? {
        created.map_err(|(topic, error)| format!("cannot create the topic {topic}: {error}"))?;
    }
    Ok(())
}
