//! The broker, taken by one test at a time and seen from outside.
//!
//! Taking it removes what an earlier test may have left, waits until no group has
//! members, and creates the topics of the contract, stamped by the broker, so that
//! records of different partitions can be put in order. A topic of its own marks that
//! what lies on the broker is the tests' and may be removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use turnstile_ticketing::topics;

use crate::record::Record;
use crate::{LIMIT, eventually, pause};

/// The partitions of the topics, where a test does not say otherwise.
pub(crate) const PARTITIONS: i32 = 4;

/// The groups of the contract, each with the documented topic that it reads.
pub(crate) const GROUPS: [(&str, &str); 6] = [
    (topics::EXPIRATION_ORDERS, topics::ORDERS),
    (topics::ORDERS_EXPIRATION, topics::EXPIRATION),
    (topics::ORDERS_PAYMENTS, topics::PAYMENTS),
    (topics::ORDERS_TICKETS, topics::TICKETS),
    (topics::PAYMENTS_ORDERS, topics::ORDERS),
    (topics::TICKETS_ORDERS, topics::ORDERS),
];

/// Without a heartbeat for this long an instance is taken for dead, where the broker allows
/// so little: each test waits for it at its end. Less, and a busy machine would look dead.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// Kafka's own least session timeout, where a broker does not say.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(6);

/// How long a broker may take to answer where another one can be asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The topics of the application itself begin so.
const INTERNAL: &str = "ticketing-";

/// Where instances tell each other of themselves, again and again.
const INSTANCES: &str = "ticketing-instances";

/// Where the dead letters lie.
pub(crate) const DEAD_LETTERS: &str = "ticketing-dlq";

/// Whose presence says that the topics of the contract are those of a test.
const MARK: &str = "turnstile-broker-tests";

/// How many replicas a topic has: what the broker does by default.
const AS_THE_BROKER_HAS_IT: TopicReplication<'static> = TopicReplication::Fixed(-1);

/// For the clients, whose calls wait.
pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Runtime::new().expect("the system gives a process its threads"));

static TAKEN: Mutex<()> = Mutex::new(());

/// The broker, with fresh topics and a place for the states of instances.
pub(crate) struct Broker {
    addresses: String,
    admin: AdminClient<DefaultClientContext>,
    producer: BaseProducer,
    /// One for each group, to ask for what it has committed.
    readers: BTreeMap<&'static str, BaseConsumer>,
    state: TempDir,
    /// Whether it outlives the test, and is to be left as it was found.
    is_kept: bool,
    _taken: MutexGuard<'static, ()>,
}

impl Broker {
    /// Takes the broker.
    pub(crate) fn take() -> Self {
        Self::with_partitions(|_| PARTITIONS)
    }

    /// Takes the broker; `partitions` says how many each topic of the contract has.
    pub(crate) fn with_partitions(partitions: impl Fn(&str) -> i32) -> Self {
        let addresses = std::env::var("KAFKA_BROKERS");
        let addresses = addresses.expect("KAFKA_BROKERS names the broker to test on");
        let mut broker = Self::at(addresses, partitions);
        broker.is_kept = true;
        broker
    }

    /// Takes the broker at these addresses, which is thrown away afterwards.
    pub(crate) fn at(addresses: String, partitions: impl Fn(&str) -> i32) -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = client(&addresses)
            .set("partitioner", "murmur2")
            // In order, and a command that comes twice is one. An idempotent client takes a whole core
            // while it waits for leaders that have moved.
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "1")
            .set("message.max.bytes", "1048588")
            .create();
        let readers = GROUPS
            .iter()
            .map(|(group, _)| (*group, reader(&addresses, group)));
        let broker = Self {
            readers: readers.collect(),
            admin: client(&addresses).create().expect("a client can be made"),
            producer: producer.expect("a producer can be made"),
            state: TempDir::new().expect("a temporary folder can be made"),
            addresses,
            is_kept: false,
            _taken: taken,
        };
        let there = broker.topics();
        let unmarked = !there.contains_key(MARK);
        if let Some(topic) = topics::ALL
            .iter()
            .find(|topic| unmarked && there.contains_key(**topic))
        {
            // Nothing may be removed, not even when this unwinds.
            let addresses = broker.addresses.clone();
            std::mem::forget(broker);
            panic!(
                "{addresses} has a topic {topic} that is not of a test: set KAFKA_BROKERS to another broker"
            );
        }
        broker.create(&[(MARK, 1)]);
        broker.clear();
        broker.create(&topics::ALL.map(|topic| (topic, partitions(topic))));
        broker
    }

    pub(crate) fn addresses(&self) -> &str {
        &self.addresses
    }

    /// A folder that is removed when the test is over.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.state.path()
    }

    /// The session timeout of instances: a test need not wait long for the dead.
    pub(crate) fn session_timeout(&self) -> Duration {
        SESSION_TIMEOUT.max(self.least_session_timeout())
    }

    /// What the broker allows, `group.min.session.timeout.ms`.
    fn least_session_timeout(&self) -> Duration {
        let metadata = self.admin.inner().fetch_metadata(None, LIMIT);
        let metadata = metadata.expect("the broker answers");
        let id = metadata.brokers().first().expect("there is a broker").id();
        let broker = ResourceSpecifier::Broker(id);
        let described = self.admin.describe_configs([&broker], &AdminOptions::new());
        let described = RUNTIME.block_on(described).expect("the broker answers");
        let config = described.into_iter().next().expect("it was asked for one");
        let config = config.expect("the broker tells its configuration");
        let least = config.get("group.min.session.timeout.ms");
        least
            .and_then(|entry| entry.value.as_ref())
            .map_or(SESSION_TIMEOUT_MIN, |value| {
                Duration::from_millis(value.parse().expect("it is a number of milliseconds"))
            })
    }

    /// Removes the groups and topics that instances make.
    fn clear(&self) {
        let groups = GROUPS.map(|(group, _)| group);
        eventually("the groups of the last test have no members", || {
            let deleted = self.admin.delete_groups(&groups, &AdminOptions::new());
            let results = RUNTIME.block_on(deleted).expect("the broker answers");
            let gone = results.iter().all(|result| {
                matches!(result, Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)))
            });
            gone.then_some(())
        });
        let old: Vec<String> = self
            .topics()
            .into_keys()
            .filter(|topic| is_ours(topic))
            .collect();
        self.delete(&old.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn delete(&self, names: &[&str]) {
        if !names.is_empty() {
            let deleted = self.admin.delete_topics(names, &waiting());
            let results = RUNTIME.block_on(deleted).expect("the broker answers");
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
        eventually("deleted topics are gone", || {
            let there = self.topics();
            names
                .iter()
                .all(|name| !there.contains_key(*name))
                .then_some(())
        });
    }

    fn create(&self, topics: &[(&str, i32)]) {
        let new: Vec<_> = topics
            .iter()
            .map(|(name, partitions)| {
                NewTopic::new(name, *partitions, AS_THE_BROKER_HAS_IT)
                    .set("message.timestamp.type", "LogAppendTime")
            })
            .collect();
        let created = self.admin.create_topics(&new, &waiting());
        for result in RUNTIME.block_on(created).expect("the broker answers") {
            assert!(
                matches!(
                    result,
                    Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))
                ),
                "{result:?}"
            );
        }
        eventually("created topics are there", || {
            let there = self.topics();
            topics
                .iter()
                .all(|(name, _)| there.contains_key(*name))
                .then_some(())
        });
    }

    /// All topics with their partition counts.
    pub(crate) fn topics(&self) -> BTreeMap<String, i32> {
        let metadata = self.admin.inner().fetch_metadata(None, LIMIT);
        let metadata = metadata.expect("the broker answers");
        let topics = metadata.topics().iter();
        topics
            .map(|topic| {
                let count = i32::try_from(topic.partitions().len());
                let count = count.expect("a topic has a small number of partitions");
                (topic.name().to_owned(), count)
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Waits until every replica of every partition is in sync with its leader.
    pub(crate) fn wait_until_in_sync(&self) {
        self.wait_until_all("replicas are in sync", |of| {
            of.isr().len() == of.replicas().len()
        });
    }

    /// Waits until no partition is led by this broker, and each by somebody.
    pub(crate) fn wait_until_led_without(&self, broker: usize) {
        let broker = i32::try_from(broker).expect("there are few brokers");
        self.wait_until_all("others lead", |of| {
            of.leader() >= 0 && of.leader() != broker
        });
    }

    fn wait_until_all(&self, what: &str, is_so: impl Fn(&MetadataPartition) -> bool) {
        eventually(what, || {
            // The one that is asked may be the one that has gone.
            let metadata = self.admin.inner().fetch_metadata(None, ANSWER_LIMIT).ok()?;
            let mut partitions = metadata.topics().iter().flat_map(|of| of.partitions());
            partitions.all(&is_so).then_some(())
        });
    }

    /// All consumer groups of the broker.
    pub(crate) fn groups(&self) -> BTreeSet<String> {
        let groups = self.admin.inner().fetch_group_list(None, LIMIT);
        let groups = groups.expect("the broker answers");
        let groups = groups.groups().iter();
        groups.map(|group| group.name().to_owned()).collect()
    }

    /// Appends an event or command, keyed as the contract says.
    pub(crate) fn send(&self, topic: &str, key: &str, value: &Value) {
        self.append(
            topic,
            None,
            Some(key.as_bytes()),
            Some(value.to_string().as_bytes()),
        );
    }

    /// Appends any record, to the partition of its key where none is given.
    pub(crate) fn append(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic);
        record.partition = partition;
        record.key = key;
        record.payload = value;
        let mut rest = record;
        while let Err((error, back)) = self.producer.send(rest) {
            assert_eq!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::QueueFull)
            );
            self.producer.poll(Duration::from_millis(50));
            rest = back;
        }
        // What was not taken in the end shows as a record that is not there.
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the broker has all that was sent.
    pub(crate) fn flush(&self) {
        self.producer.flush(LIMIT).expect("the broker takes it");
    }

    /// All committed records of a topic, by partition and offset.
    pub(crate) fn read(&self, topic: &str) -> Vec<Record> {
        self.flush();
        let consumer: BaseConsumer = client(&self.addresses)
            .set("group.id", "turnstile-broker-tests-unused")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .expect("a consumer can be made");
        let count = self.topics().get(topic).copied();
        let count = count.unwrap_or_else(|| panic!("there is no topic {topic}"));
        let mut list = TopicPartitionList::new();
        for partition in 0..count {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .expect("the offset is valid");
        }
        consumer.assign(&list).expect("the partitions exist");
        let mut open: BTreeSet<i32> = (0..count).collect();
        let mut records = Vec::new();
        while !open.is_empty() {
            match consumer.poll(LIMIT) {
                Some(Ok(message)) => records.push(Record::of(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => panic!("{topic} cannot be read: {error}"),
                None => panic!("{topic} cannot be read to its end within {LIMIT:?}"),
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The events of a topic under a key, in their order.
    pub(crate) fn events(&self, topic: &str, key: &str) -> Vec<Value> {
        let records = self.read(topic).into_iter();
        records
            .filter(|record| record.key_text() == key)
            .map(|record| record.json())
            .collect()
    }

    /// The dead letters; there may be no topic for them yet.
    pub(crate) fn dead_letters(&self) -> Vec<Record> {
        if self.topics().contains_key(DEAD_LETTERS) {
            self.read(DEAD_LETTERS)
        } else {
            Vec::new()
        }
    }

    /// How far `group` is behind the log ends, as stock tools compute it, over the
    /// partitions in which it has committed.
    pub(crate) fn lag(&self, group: &str) -> BTreeMap<(String, i32), i64> {
        let ends = self.ends();
        let mut partitions = TopicPartitionList::new();
        for (topic, partition) in ends.keys() {
            partitions.add_partition(topic, *partition);
        }
        let committed = self.readers[group].committed_offsets(partitions, LIMIT);
        let committed = committed.expect("the group can be asked");
        let mut lag = BTreeMap::new();
        for element in committed.elements() {
            if let Offset::Offset(offset) = element.offset() {
                let place = (element.topic().to_owned(), element.partition());
                let end = ends[&place];
                lag.insert(place, end - offset);
            }
        }
        lag
    }

    /// The log ends of the topics of the contract and of the application, but for the one
    /// that never rests.
    fn ends(&self) -> BTreeMap<(String, i32), i64> {
        let mut partitions = TopicPartitionList::new();
        for (topic, count) in self
            .topics()
            .into_iter()
            .filter(|(topic, _)| is_ours(topic) && topic != INSTANCES)
        {
            for partition in 0..count {
                partitions
                    .add_partition_offset(&topic, partition, Offset::End)
                    .expect("the offset is valid");
            }
        }
        let reader = self.readers.values().next().expect("there are groups");
        let ends = reader.offsets_for_times(partitions, LIMIT);
        let ends = ends.expect("the broker answers");
        let elements = ends.elements().into_iter();
        elements
            .map(|element| {
                let place = (element.topic().to_owned(), element.partition());
                let end = element.offset().to_raw();
                (place, end.expect("the end is an offset"))
            })
            .collect()
    }

    /// Gives a topic more partitions.
    pub(crate) fn enlarge(&self, topic: &str, partitions: usize) {
        let larger = NewPartitions::new(topic, partitions);
        let made = self.admin.create_partitions([&larger], &waiting());
        let results = RUNTIME.block_on(made).expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// Waits until nothing is in flight: all groups have read everything, and nothing
    /// more comes for a while.
    pub(crate) fn drain(&self) {
        self.flush();
        let (mut calm, mut last) = (0, BTreeMap::new());
        eventually("nothing is in flight", || {
            let lags = GROUPS.iter().flat_map(|(group, _)| self.lag(group));
            let behind = lags.filter(|(_, lag)| *lag != 0).count();
            let ends = self.ends();
            calm = if behind == 0 && ends == last {
                calm + 1
            } else {
                0
            };
            last = ends;
            pause(Duration::from_millis(250));
            (calm >= 4).then_some(())
        });
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // A test that fails tells why by itself; what it leaves, the next one removes.
        if self.is_kept && !std::thread::panicking() {
            self.clear();
            self.delete(&[MARK]);
        }
    }
}

/// Whether instances make this topic.
fn is_ours(topic: &str) -> bool {
    topics::ALL.contains(&topic) || topic.starts_with(INTERNAL)
}

/// Asks for the committed offsets of a group, without being a member.
fn reader(addresses: &str, group: &str) -> BaseConsumer {
    client(addresses)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        // Stock tools go by the log end, not by the last stable offset.
        .set("isolation.level", "read_uncommitted")
        .create()
        .expect("a consumer can be made")
}

fn waiting() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(LIMIT))
}

fn client(addresses: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", addresses);
    client.set("allow.auto.create.topics", "false");
    client
}
