//! The broker of the tests, seen from outside.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::crash::PARTITIONS;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `holds`.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Whether a group has given the member anything.
pub(crate) fn has_assignment(consumer: &BaseConsumer) -> bool {
    consumer.assignment().is_ok_and(|held| held.count() > 0)
}

/// An application of its own on the broker.
pub(crate) struct Cluster {
    brokers: String,
    application: String,
    state: PathBuf,
    /// Removed with the state in it; nothing: another process does that.
    _folder: Option<TempDir>,
    producer: BaseProducer,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        let run = std::process::id();
        let stamp = turnstile_engine::clock::now();
        let folder = TempDir::new().expect("a temporary folder can be made");
        let mut cluster = Self::of(&format!("{name}-{run}-{stamp}"), folder.path());
        cluster._folder = Some(folder);
        cluster
    }

    /// The application of another process, which keeps its state in `state`.
    pub(crate) fn of(application: &str, state: &Path) -> Self {
        // Only the first test of the process sets it up.
        let logs = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
        logs.with_test_writer().try_init().ok();
        let brokers =
            std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS names the broker to test on");
        let producer = client(&brokers)
            .set("partitioner", "murmur2")
            .create()
            .expect("a producer can be made");
        Self {
            brokers,
            application: application.to_owned(),
            state: state.to_owned(),
            _folder: None,
            producer,
        }
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(crate) fn application(&self) -> String {
        self.application.clone()
    }

    pub(crate) fn state(&self, instance: &str) -> PathBuf {
        self.state.join(instance)
    }

    /// The folder of the state of all instances.
    pub(crate) fn folder(&self) -> &Path {
        &self.state
    }

    pub(crate) fn lose_state(&self, instance: &str) {
        std::fs::remove_dir_all(self.state(instance)).expect("the state can be removed");
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, &[]);
    }

    pub(crate) fn create_topic_with(
        &self,
        topic: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) {
        let admin = self.admin();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let settings = settings.iter();
        let new = settings.fold(new, |new, (name, value)| new.set(name, value));
        let created = runtime().block_on(admin.create_topics([&new], &AdminOptions::new()));
        assert!(
            created
                .expect("the broker answers")
                .iter()
                .all(Result::is_ok)
        );
    }

    /// Has a topic have more partitions.
    pub(crate) fn grow_topic(&self, topic: &str, partitions: usize) {
        let admin = self.admin();
        let wanted = [NewPartitions::new(topic, partitions)];
        let grown = runtime().block_on(admin.create_partitions(&wanted, &AdminOptions::new()));
        let grown = grown.expect("the broker answers");
        assert!(grown.iter().all(Result::is_ok));
        eventually("the topic has more partitions", LIMIT, || {
            let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT);
            let metadata = metadata.expect("the broker answers");
            let mut topics = metadata.topics().iter();
            topics.all(|of| of.partitions().len() == partitions)
        });
    }

    /// Deletes a topic, and waits until it is gone.
    pub(crate) fn delete_topic(&self, topic: &str) {
        let admin = self.admin();
        let deleted = runtime().block_on(admin.delete_topics(&[topic], &AdminOptions::new()));
        assert!(
            deleted
                .expect("the broker answers")
                .iter()
                .all(Result::is_ok)
        );
        eventually("the topic is gone", LIMIT, || {
            let metadata = admin.inner().fetch_metadata(None, LIMIT);
            let metadata = metadata.expect("the broker answers");
            metadata.topics().iter().all(|of| of.name() != topic)
        });
    }

    /// Deletes the records of a partition that lie before `offset`.
    pub(crate) fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.expect("the offset is valid");
        let admin = self.admin();
        let deleted = runtime().block_on(admin.delete_records(&list, &AdminOptions::new()));
        let deleted = deleted.expect("the broker answers");
        let mut errors = deleted.elements().into_iter().map(|of| of.error());
        assert!(errors.all(|error| error.is_ok()));
    }

    /// Deletes a group with its positions; says whether that is done: it has no members then.
    pub(crate) fn delete_group(&self, group: &str) -> bool {
        let admin = self.admin();
        let deleted = runtime().block_on(admin.delete_groups(&[group], &AdminOptions::new()));
        let deleted = deleted.expect("the broker answers");
        deleted.iter().all(|of| match of {
            Ok(_) => true,
            Err((_, code)) => *code == RDKafkaErrorCode::GroupIdNotFound,
        })
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        client(&self.brokers)
            .create()
            .expect("an admin client can be made")
    }

    pub(crate) fn send(&self, topic: &str, key: &str, value: &str) {
        self.send_record(BaseRecord::to(topic).key(key).payload(value));
    }

    /// Sends a record to one partition, whatever its key.
    pub(crate) fn send_to(&self, topic: &str, partition: i32, key: &str, value: &str) {
        let record = BaseRecord::to(topic).partition(partition);
        self.send_record(record.key(key).payload(value));
    }

    fn send_record(&self, record: BaseRecord<'_, str, str>) {
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| error)
            .expect("the queue has room");
        // What was not taken in the end shows as a record that does not come.
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the broker has all that was sent.
    pub(crate) fn flush(&self) {
        self.producer.flush(LIMIT).expect("the broker takes it");
    }

    /// A transaction that has written to a partition, and is pending until it is aborted.
    pub(crate) fn pending_transaction(&self, topic: &str, partition: i32) -> BaseProducer {
        let producer = self.begin_transaction(&format!("{topic}-{partition}"));
        let record = BaseRecord::to(topic).partition(partition);
        let sent = producer.send(record.key("key").payload("value"));
        sent.map_err(|(error, _)| error)
            .expect("the queue has room");
        producer.flush(LIMIT).expect("the broker takes it");
        producer
    }

    /// A transaction that has moved `group`, which has no members, to the start of a partition,
    /// and is pending until it is aborted.
    pub(crate) fn pending_position(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> BaseProducer {
        let producer = self.begin_transaction(&format!("{group}-{topic}-{partition}"));
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(0));
        added.expect("the offset is valid");
        let group = self.consumer(group).group_metadata();
        let group = group.expect("a consumer knows its group");
        let sent = producer.send_offsets_to_transaction(&list, &group, LIMIT);
        sent.expect("the broker takes it");
        producer
    }

    fn begin_transaction(&self, name: &str) -> BaseProducer {
        let producer: BaseProducer = client(&self.brokers)
            .set("transactional.id", format!("foreign-{name}"))
            .set("transaction.timeout.ms", "600000")
            .create()
            .expect("a producer can be made");
        let begun = producer
            .init_transactions(LIMIT)
            .and_then(|()| producer.begin_transaction());
        begun.expect("the broker takes it");
        producer
    }

    /// All committed records of `topic`, once there are at least `count`; a little longer, so that too many show.
    pub(crate) fn read_committed(&self, topic: &str, count: usize) -> Vec<(String, String)> {
        self.flush();
        let consumer = self.consumer("reader");
        let metadata = consumer
            .fetch_metadata(Some(topic), LIMIT)
            .expect("the topic exists");
        let mut list = TopicPartitionList::new();
        for partition in metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
        {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)
                .expect("the offset is valid");
        }
        consumer.assign(&list).expect("the partitions exist");
        let text =
            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let mut records = Vec::new();
        let begun = Instant::now();
        loop {
            let patience = if records.len() < count {
                LIMIT
            } else {
                Duration::from_millis(500)
            };
            match consumer.poll(patience) {
                Some(message) => {
                    let message = message.expect("the topic can be read");
                    records.push((text(message.key()), text(message.payload())));
                }
                None => break,
            }
            assert!(
                begun.elapsed() < LIMIT * 2,
                "the topic does not come to rest"
            );
        }
        assert!(
            records.len() >= count,
            "only {} of {count} records came",
            records.len()
        );
        records
    }

    /// The lag of `group` over all partitions it has committed; nothing if there are none.
    pub(crate) fn lag(&self, group: &str) -> Option<i64> {
        let consumer = self.consumer(group);
        let metadata = consumer
            .fetch_metadata(None, LIMIT)
            .expect("the broker answers");
        let mut list = TopicPartitionList::new();
        for topic in metadata
            .topics()
            .iter()
            .filter(|topic| topic.name().starts_with(&self.application))
        {
            for partition in topic.partitions() {
                list.add_partition(topic.name(), partition.id());
            }
        }
        let committed = consumer
            .committed_offsets(list, LIMIT)
            .expect("the group can be asked");
        let mut lag = None;
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                let (_, end) = consumer
                    .fetch_watermarks(element.topic(), element.partition(), LIMIT)
                    .expect("the partition exists");
                *lag.get_or_insert(0) += end - offset;
            }
        }
        lag
    }

    /// How many offsets of `topic` hold records that were not deleted.
    pub(crate) fn kept(&self, topic: &str) -> i64 {
        let consumer = self.consumer("reader");
        let metadata = consumer
            .fetch_metadata(Some(topic), LIMIT)
            .expect("the topic exists");
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        let kept = partitions.map(|partition| {
            let ends = consumer.fetch_watermarks(topic, partition.id(), LIMIT);
            let (start, end) = ends.expect("the partition exists");
            end - start
        });
        kept.sum()
    }

    /// The end of a partition, markers and pending transactions included.
    pub(crate) fn end(&self, topic: &str, partition: i32) -> turnstile_engine::Offset {
        // One that reads what is committed is told of the end of that.
        let consumer: BaseConsumer = client(&self.brokers)
            .set("isolation.level", "read_uncommitted")
            .create()
            .expect("a consumer can be made");
        let ends = consumer.fetch_watermarks(topic, partition, LIMIT);
        turnstile_engine::Offset(ends.expect("the partition exists").1)
    }

    /// A member of `group` that reads `topic`, beside the instances: one that comes before
    /// theirs where the group shares partitions out.
    pub(crate) fn member(&self, group: &str, id: &str, topic: &str) -> BaseConsumer {
        self.join(group, topic, ("client.id", id))
    }

    /// The member `id` of `group` in the place of the one of an instance, which has lost the
    /// group then.
    pub(crate) fn usurper(&self, group: &str, id: &str, topic: &str) -> BaseConsumer {
        self.join(group, topic, ("group.instance.id", id))
    }

    fn join(&self, group: &str, topic: &str, (property, id): (&str, &str)) -> BaseConsumer {
        let consumer: BaseConsumer = client(&self.brokers)
            .set("group.id", group)
            .set(property, id)
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer can be made");
        consumer.subscribe(&[topic]).expect("the topic is valid");
        consumer
    }

    /// Moves what `group` has committed, which has no members any more; says whether it did.
    pub(crate) fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) -> bool {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.expect("the offset is valid");
        let consumer = self.consumer(group);
        consumer.commit(&list, CommitMode::Sync).is_ok()
    }

    /// Sets the positions of a group without members, on all partitions of a topic.
    pub(crate) fn move_group(&self, group: &str, topic: &str, to: impl Fn(i32) -> i64) {
        for partition in 0..PARTITIONS {
            eventually("the position can be moved", LIMIT, || {
                self.commit(group, topic, partition, to(partition))
            });
        }
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        client(&self.brokers)
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer can be made")
    }
}

/// For what an admin client answers with.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime starts")
}

fn client(brokers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client
}
