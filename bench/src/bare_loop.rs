//! A loop that reads, parses and writes as many records per order as an instance does,
//! in transactions with the positions of as many groups, and does nothing else.
//!
//! It has no stores, no timers, no rules, no group membership and no order between what
//! it reads and writes: all that follows from a command is written when it is read. What it
//! reaches is what this client and this broker allow on this machine, on one thread that
//! waits for its commits: a loop that went on meanwhile could be faster, but not cheaper.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Deserialize;
use turnstile_ticketing::topics::TICKET_COMMANDS;

use crate::Outcome;
use crate::limit::{INPUT_GROUPS, Measured};
use crate::place::Place;
use crate::process::Usage;
use crate::reader::{client, is_mended, partitions};
use crate::topics::{TopicPartition, ends};
use crate::traffic::EVENTS;
use crate::watch::Watch;

/// The interval at which an instance commits.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

const LIMIT: Duration = Duration::from_mins(1);

/// Of the groups that read the commands, the one in which their results are written.
const FIRST_GROUP: &str = INPUT_GROUPS[0];

/// How many records of one group are taken at a time.
const TURN: usize = 1000;

/// A key and a value.
type Sample = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A topic that an instance wrote, to be written again under another name.
#[derive(Clone)]
pub(crate) struct Mirror {
    /// The topic of the loop.
    pub(crate) name: String,
    /// The groups that read it.
    pub(crate) groups: Vec<&'static str>,
    /// How many records the instance wrote.
    pub(crate) records: usize,
    /// The number of records per order.
    pub(crate) per_order: f64,
    samples: Vec<Sample>,
    written: usize,
}

impl Mirror {
    /// The mirror of a topic of the instance.
    pub(crate) fn new(topic: &str) -> Self {
        Self {
            name: mirrored(topic),
            groups: Vec::new(),
            records: 0,
            per_order: 0.0,
            samples: Vec::new(),
            written: 0,
        }
    }

    /// Counts a record, and keeps it unless there are `most` already.
    pub(crate) fn add(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, most: usize) {
        self.records += 1;
        if self.samples.len() < most {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            self.samples.push((owned(key), owned(value)));
        }
    }

    /// The mean size of a record, key and value.
    pub(crate) fn mean_bytes(&self) -> f64 {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let sum: usize = self
            .samples
            .iter()
            .map(|(key, value)| length(key) + length(value))
            .sum();
        sum as f64 / self.samples.len().max(1) as f64
    }
}

/// The loop's topic for one of the instance's.
fn mirrored(topic: &str) -> String {
    format!("limit-{topic}")
}

/// What a processor would need from a message, borrowed from it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parsed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    id: Option<&'a str>,
    #[serde(borrow)]
    order_id: Option<&'a str>,
    #[serde(borrow)]
    ticket_id: Option<&'a str>,
    #[serde(borrow)]
    user_id: Option<&'a str>,
    version: Option<u64>,
}

impl Parsed<'_> {
    /// Uses every field, so that the compiler skips none.
    fn weight(&self) -> usize {
        let texts = [self.id, self.order_id, self.ticket_id, self.user_id];
        let lengths = texts.into_iter().flatten().map(str::len).sum::<usize>();
        lengths + self.kind.len() + usize::from(self.version.is_some())
    }
}

/// A group: its consumer and its progress.
struct Group {
    name: &'static str,
    consumer: BaseConsumer,
    positions: BTreeMap<TopicPartition, i64>,
}

pub(crate) struct BareLoop {
    groups: Vec<Group>,
    producer: BaseProducer,
    mirrors: Vec<Mirror>,
    partitions: i32,
    consumed: usize,
    weight: usize,
}

impl BareLoop {
    /// A loop over the commands from these offsets on, and over mirrors from their ends.
    pub(crate) fn new(
        brokers: &str,
        input: &BTreeMap<TopicPartition, i64>,
        mirrors: Vec<Mirror>,
    ) -> Outcome<Self> {
        let ends = ends(brokers)?;
        let of = |offsets: &BTreeMap<TopicPartition, i64>, name: &str| {
            let mut of = offsets.clone();
            of.retain(|(topic, _), _| topic == name);
            of
        };
        let input = of(input, TICKET_COMMANDS);
        let mut groups = Vec::new();
        for name in crate::limit::GROUPS {
            let mut positions = BTreeMap::new();
            if INPUT_GROUPS.contains(&name) {
                positions.extend(input.clone());
            }
            let read = mirrors.iter();
            for mirror in read.filter(|mirror| mirror.groups.contains(&name)) {
                positions.extend(of(&ends, &mirror.name));
            }
            let consumer: BaseConsumer = client(brokers)
                .set("group.id", format!("limit-{name}"))
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("isolation.level", "read_committed")
                .set("fetch.wait.max.ms", "100")
                .set("fetch.queue.backoff.ms", "5")
                .set("queued.min.messages", "10000")
                .set("queued.max.messages.kbytes", "8192")
                .set("check.crcs", "false")
                .create()?;
            groups.push(Group {
                name,
                consumer,
                positions,
            });
        }
        let producer: BaseProducer = client(brokers)
            .set("transactional.id", "limit")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.size", "262144")
            .set("batch.num.messages", "20000")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "200000")
            .set("queue.buffering.max.kbytes", "65536")
            .create()?;
        producer.init_transactions(LIMIT)?;
        Ok(Self {
            groups,
            producer,
            mirrors,
            partitions: i32::try_from(input.len())?,
            consumed: 0,
            weight: 0,
        })
    }

    /// Handles this many orders.
    pub(crate) fn run(&mut self, place: &Place, orders: usize) -> Outcome<Measured> {
        let watch = Watch::from_now(&place.brokers, &EVENTS.map(mirrored), orders)?;
        let own = Usage::own()?.cpu_seconds;
        let broker = place.broker_cpu_seconds()?;
        for group in &self.groups {
            group.consumer.assign(&partitions(&group.positions)?)?;
        }
        let mut handled = 0;
        let mut last_commit = Instant::now();
        self.producer.begin_transaction()?;
        loop {
            let mut any = false;
            for group in 0..self.groups.len() {
                any |= self.turn(group, &mut handled)?;
            }
            let done = handled >= orders && self.consumed >= self.expected(orders);
            if done || last_commit.elapsed() >= COMMIT_INTERVAL {
                self.commit()?;
                if done {
                    break;
                }
                self.producer.begin_transaction()?;
                last_commit = Instant::now();
            }
            if !any {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.weight == 0 {
            return Err("nothing was parsed".into());
        }
        Ok(Measured {
            seconds: watch.seconds()?,
            cpu_seconds: Usage::own()?.cpu_seconds - own,
            broker_cpu_seconds: place.broker_cpu_seconds()? - broker,
        })
    }

    /// How many records all groups together have to read.
    fn expected(&self, orders: usize) -> usize {
        let again = self.mirrors.iter();
        let again: usize = again
            .map(|mirror| mirror.written * mirror.groups.len())
            .sum();
        orders * INPUT_GROUPS.len() + again
    }

    /// Takes what a group has waiting; returns whether there was anything.
    fn turn(&mut self, index: usize, handled: &mut usize) -> Outcome<bool> {
        let mut commands = 0;
        let mut taken = 0;
        let Some(group) = self.groups.get_mut(index) else {
            return Ok(false);
        };
        while taken < TURN
            && let Some(record) = group.consumer.poll(Duration::ZERO)
        {
            let record = match record {
                Err(error) if is_mended(&error) => continue,
                record => record?,
            };
            taken += 1;
            if let Some(value) = record.payload()
                && let Ok(parsed) = serde_json::from_slice::<Parsed<'_>>(value)
            {
                self.weight += parsed.weight();
                let is_command = parsed.kind == "order.create";
                commands += usize::from(is_command && group.name == FIRST_GROUP);
            }
            let next = record.offset() + 1;
            group
                .positions
                .entry((record.topic().to_owned(), record.partition()))
                .insert_entry(next);
        }
        self.consumed += taken;
        for _ in 0..commands {
            *handled += 1;
            self.write(*handled)?;
        }
        Ok(taken > 0)
    }

    /// Writes the results of the order with this number, the first of which is 1.
    fn write(&mut self, number: usize) -> Outcome<()> {
        let partition = i32::try_from(number % usize::try_from(self.partitions)?)?;
        for mirror in &mut self.mirrors {
            let due = mirror.per_order * number as f64;
            while (mirror.written as f64) + 0.5 < due {
                let at = mirror.written % mirror.samples.len();
                let (key, value) = mirror.samples.get(at).ok_or("a mirror has no sample")?;
                let mut record = BaseRecord::<[u8], [u8]>::to(&mirror.name).partition(partition);
                record.key = key.as_deref();
                record.payload = value.as_deref();
                send(&self.producer, record)?;
                mirror.written += 1;
            }
        }
        self.producer.poll(Duration::ZERO);
        Ok(())
    }

    fn commit(&self) -> Outcome<()> {
        for group in &self.groups {
            if group.positions.is_empty() {
                continue;
            }
            let positions = partitions(&group.positions)?;
            let metadata = group.consumer.group_metadata();
            let metadata = metadata.ok_or("a consumer has no group")?;
            self.producer
                .send_offsets_to_transaction(&positions, &metadata, LIMIT)?;
        }
        Ok(self.producer.commit_transaction(LIMIT)?)
    }
}

fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> Outcome<()> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
