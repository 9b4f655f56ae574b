//! A transactional producer whose blocking calls cannot block for ever.
//!
//! The client's transactional calls block, and do not always keep their own timeouts. So each runs
//! on a worker thread, and when no answer comes in time the caller gives up on this producer (the
//! worker is left behind with it) and builds a new one, whose first call fences the old.
//!
//! That first call is made in the background, so that other clients can connect meanwhile. So is a
//! commit: what is sent while it is under way belongs to the next transaction, of which the client
//! is given nothing before the answer is taken. At that time the slots of its records know the
//! offsets of the committed transaction, and of no later one.

mod outbox;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Mutex, RwLock};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

pub(crate) use self::outbox::Outbox;
use self::worker::Call;
use super::Position;
use super::client_log;
use super::fault::KafkaFault;
use super::known_brokers::{KnownBrokers, reported};
use super::settings;
use crate::Offset;
use crate::record::MESSAGE_BYTES_MAX;
use crate::runtime::StreamsConfig;
use crate::runtime::wake::Waker;

/// The positions of one group that a commit reaches, and the member's generation.
pub(crate) struct GroupOffsets {
    pub(crate) generation: Arc<ConsumerGroupMetadata>,
    pub(crate) positions: Vec<Position>,
}

/// Marks records whose offsets matter after the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(usize);

#[cfg(test)]
impl Slot {
    pub(crate) fn numbered(number: usize) -> Self {
        Self(number)
    }
}

/// The highest delivered offset of each marked stream of records, for the producers of one stream
/// thread; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Slots {
    /// By slot; -1: none.
    highest: Arc<RwLock<Vec<AtomicI64>>>,
}

impl Slots {
    /// A new slot.
    pub(crate) fn slot(&self) -> Slot {
        let mut highest = self.highest.write();
        highest.push(AtomicI64::new(-1));
        Slot(highest.len() - 1)
    }

    /// The offset after the highest delivered record of `slot`.
    pub(crate) fn next_offset(&self, slot: Slot) -> Option<Offset> {
        let highest = self.highest.read();
        let offset = highest
            .get(slot.0)
            .map(|highest| highest.load(Ordering::Relaxed));
        offset
            .filter(|offset| *offset >= 0)
            .map(|offset| Offset(offset + 1))
    }

    /// Notes a delivered record. The records of a slot are in one partition and come one after the
    /// other: if this one is before one that was delivered already, returns the offset of that.
    fn delivered(&self, Slot(slot): Slot, offset: i64) -> Option<i64> {
        // The client does not always know the offset.
        if offset < 0 {
            return None;
        }
        let highest = self.highest.read();
        let before = highest.get(slot)?.fetch_max(offset, Ordering::Relaxed);
        (offset <= before).then_some(before)
    }
}

/// The outcomes of a producer's records.
struct Deliveries {
    brokers: KnownBrokers,
    slots: Slots,
    failure: Mutex<Option<KafkaFault>>,
}

impl Deliveries {
    fn fail(&self, fault: impl FnOnce() -> KafkaFault) {
        self.failure.lock().get_or_insert_with(fault);
    }
}

/// The fault of a changelog that has lost what it held while it is written to: stores would hold
/// rows that nobody can restore, and call themselves up to date by offsets of another log.
fn went_back(message: &impl Message, before: i64) -> KafkaFault {
    let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
    KafkaFault::Fatal {
        action: DELIVER,
        reason: format!(
            "{topic}-{partition} was written to up to offset {before}, and now at {offset}: the topic was deleted and made anew, or brokers have lost what it held; the stores of the instances may be the last copy, save them before you start again"
        ),
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client_log::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.brokers.take_in(statistics);
    }
}

impl ProducerContext for Deliveries {
    /// The slot that tracks the record's offset, plus one; 0: none does.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        match result {
            Ok(message) => {
                let slot = slot.checked_sub(1).map(Slot);
                let before = slot.and_then(|slot| self.slots.delivered(slot, message.offset()));
                if let Some(before) = before {
                    self.fail(|| went_back(message, before));
                }
            }
            Err((error, _)) => self.fail(|| KafkaFault::of(DELIVER, error)),
        }
    }
}

/// A transactional producer of a stream thread.
pub(crate) struct TransactionalProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    calls: Sender<Call>,
    answers: Receiver<Result<(), KafkaFault>>,
    limit: Duration,
    commit_limit: Duration,
    open: bool,
    /// Since when a commit is under way.
    committing: Option<Instant>,
    /// Whether a call was not answered in time: no other can be made.
    given_up: bool,
}

/// A producer that is fencing its predecessors.
pub(crate) struct FencingProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    fenced: Receiver<Result<(), KafkaFault>>,
    calls: Sender<Call>,
    answers: Receiver<Result<(), KafkaFault>>,
    limit: Duration,
    commit_limit: Duration,
}

impl FencingProducer {
    /// The producer, once every earlier one with its transactional id is fenced and its transaction
    /// has ended.
    pub(crate) fn wait(self) -> Result<TransactionalProducer, KafkaFault> {
        let fenced = self.fenced.recv_timeout(patience(self.limit));
        fenced.map_err(|_| KafkaFault::timeout(INIT))??;
        Ok(TransactionalProducer {
            producer: self.producer,
            calls: self.calls,
            answers: self.answers,
            limit: self.limit,
            commit_limit: self.commit_limit,
            open: false,
            committing: None,
            given_up: false,
        })
    }
}

const INIT: &str = "initialise transactions";
const COMMIT: &str = "commit a transaction";
const ABORT: &str = "abort a transaction";
const DELIVER: &str = "deliver the records of a transaction";

/// How long an abort is waited for. If brokers are gone the client takes up to a minute for it, in
/// which the thread could have other clients.
const ABORT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a commit is waited for: no longer than brokers let its transaction stay open. The
/// client would wait on, for as long as the coordinator of a group is away.
fn commit_limit(client: &ClientConfig, config: &StreamsConfig) -> Duration {
    let timeout = client.get("transaction.timeout.ms");
    let timeout = timeout.and_then(|timeout| timeout.parse().ok());
    let timeout = timeout.map_or_else(|| transaction_timeout(config), Duration::from_millis);
    timeout.min(config.request_timeout)
}

/// Past its own limit the client has had its chance; a little more is for the answer to arrive.
fn patience(limit: Duration) -> Duration {
    limit + Duration::from_secs(1)
}

impl TransactionalProducer {
    /// Begins to fence every earlier producer with this transactional id and to end its
    /// transaction. No batch of several records is larger than `batch_bytes_max`, before compression. The
    /// waker is called when a commit is answered. The slots are those of the thread.
    pub(crate) fn begin(
        config: &StreamsConfig,
        transactional_id: &str,
        batch_bytes_max: usize,
        slots: Slots,
        waker: Waker,
    ) -> Result<FencingProducer, KafkaFault> {
        let deliveries = Deliveries {
            brokers: KnownBrokers::default(),
            slots,
            failure: Mutex::default(),
        };
        let client = client(config, transactional_id, batch_bytes_max);
        let producer: BaseProducer<Deliveries> = client
            .create_with_context(deliveries)
            .map_err(|error| KafkaFault::of("create a producer", &error))?;
        let commit_limit = commit_limit(&client, config);
        let (producer, transactional_id) = (Arc::new(producer), transactional_id.to_owned());
        worker::start(producer, transactional_id, commit_limit, config, waker)
    }

    /// Gives the client what is in the outbox; opens a transaction if there is none.
    ///
    /// # Panics
    ///
    /// When a commit is under way: the client would take the records for part of it.
    pub(crate) fn hand_over(&mut self, outbox: &mut Outbox) -> Result<(), KafkaFault> {
        assert!(
            !self.is_committing(),
            "what comes during a commit is of the next transaction"
        );
        if !self.open {
            worker::open(&self.producer)?;
            self.open = true;
        }
        worker::hand_over(&self.producer, outbox.take(), self.limit)
    }

    /// Whether a commit is under way.
    pub(crate) fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Serves delivery reports. (The worker does while it commits.)
    pub(crate) fn serve(&self) {
        if self.committing.is_none() {
            worker::serve_deliveries(&self.producer);
        }
    }

    /// Begins to commit the open transaction with what is in the outbox and the positions of these
    /// groups, and waits for nothing. If this fails, nobody knows whether it is committed: the
    /// producer can no longer be used.
    ///
    /// # Panics
    ///
    /// When a commit is under way.
    pub(crate) fn begin_commit(
        &mut self,
        mut outbox: Outbox,
        groups: Vec<GroupOffsets>,
    ) -> Result<(), KafkaFault> {
        assert!(!self.is_committing(), "a client has one transaction");
        let call = Call::Commit {
            opens: !self.open,
            records: outbox.take(),
            groups,
        };
        self.open = true;
        self.committing = Some(Instant::now());
        let called = self.calls.send(call);
        called.map_err(|_| KafkaFault::timeout(COMMIT))
    }

    /// Takes the answer of the commit under way, if it has come; returns whether it has.
    pub(crate) fn committed(&mut self) -> Result<bool, KafkaFault> {
        let Some(since) = self.committing else {
            return Ok(false);
        };
        if self.answers.is_empty() && since.elapsed() < patience(self.commit_limit) {
            return Ok(false);
        }
        self.wait_committed()?;
        Ok(true)
    }

    /// Waits until the commit under way, if there is one, is answered.
    pub(crate) fn wait_committed(&mut self) -> Result<(), KafkaFault> {
        let waited = self
            .committing
            .map_or(Duration::ZERO, |since| since.elapsed());
        self.wait_committed_for(patience(self.commit_limit).saturating_sub(waited))
    }

    fn wait_committed_for(&mut self, limit: Duration) -> Result<(), KafkaFault> {
        if self.committing.take().is_some() {
            self.answer(COMMIT, limit)?;
            self.open = false;
        }
        Ok(())
    }

    /// Aborts the open transaction, if there is one; but not one whose commit is under way and
    /// succeeds. It does not wait long: the next producer with the id ends what this one has left
    /// open, and makes sure that nothing of it comes later. Returns whether a transaction was
    /// dropped.
    pub(crate) fn abort(&mut self) -> Result<bool, KafkaFault> {
        let begun = Instant::now();
        if let Err(fault) = self.wait_committed_for(ABORT_PATIENCE) {
            tracing::debug!(%fault, "the commit under way has failed");
        }
        if self.open && !self.given_up {
            let called = self.calls.send(Call::Abort);
            called.map_err(|_| KafkaFault::timeout(ABORT))?;
            self.answer(ABORT, ABORT_PATIENCE.saturating_sub(begun.elapsed()))?;
            self.open = false;
            return Ok(true);
        }
        Ok(self.open)
    }

    fn answer(&mut self, action: &'static str, limit: Duration) -> Result<(), KafkaFault> {
        self.answers.recv_timeout(limit).unwrap_or_else(|_| {
            self.given_up = true;
            Err(KafkaFault::timeout(action))
        })
    }
}

/// A transaction is open for at least a commit interval; what a dead process leaves open holds up
/// readers for at most this long.
fn transaction_timeout(config: &StreamsConfig) -> Duration {
    config.commit_interval + Duration::from_secs(10)
}

/// The bytes of a batch, if its topic accepts that many.
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// The properties of a producer with this transactional id.
fn client(config: &StreamsConfig, transactional_id: &str, batch_bytes_max: usize) -> ClientConfig {
    let mut client = settings::client(config, "producer");
    client
        .set("transactional.id", transactional_id)
        .set(
            "transaction.timeout.ms",
            transaction_timeout(config).as_millis().to_string(),
        )
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("batch.size", batch_bytes_max.min(BATCH_BYTES).to_string())
        .set("batch.num.messages", "20000")
        .set("compression.type", "lz4")
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536");
    reported(settings::with_user_properties(client, config))
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::{MockCluster, MockCoordinator};
    use rdkafka::producer::{DefaultProducerContext, Producer};

    use super::*;
    use crate::record::OutputRecord;
    use crate::runtime::kafka::TopicPartition;
    use crate::{Partition, TimestampMs};

    /// The client's own mock of brokers, as those of the tests stay.
    fn mock() -> (MockCluster<'static, DefaultProducerContext>, StreamsConfig) {
        let brokers = MockCluster::new(2).unwrap();
        brokers.create_topic("events", 1, 1).unwrap();
        brokers.partition_leader("events", 0, Some(1)).unwrap();
        let transactions = MockCoordinator::Transaction("mock-a-0".to_owned());
        brokers.coordinator(transactions, 1).unwrap();
        let config = StreamsConfig::new("mock", brokers.bootstrap_servers(), "a", "unused");
        (brokers, config)
    }

    fn with_a_record_in_a_transaction(config: &StreamsConfig) -> TransactionalProducer {
        let begun = TransactionalProducer::begin(
            config,
            "mock-a-0",
            BATCH_BYTES,
            Slots::default(),
            Waker::default(),
        );
        let mut producer = begun.unwrap().wait().unwrap();
        let mut outbox = Outbox::default();
        let record = OutputRecord {
            topic: "events".into(),
            partition: Partition(0),
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            timestamp: TimestampMs(0),
            headers: Vec::new(),
        };
        outbox.send(record, None);
        producer.hand_over(&mut outbox).unwrap();
        producer
    }

    #[test]
    fn an_abort_does_not_wait_for_brokers_that_have_gone() {
        let (brokers, config) = mock();
        let mut producer = with_a_record_in_a_transaction(&config);
        brokers.broker_down(1).unwrap();
        // The client would say in ten seconds that it is done.
        assert_eq!(producer.abort(), Err(KafkaFault::timeout(ABORT)));
    }

    #[test]
    fn an_abort_says_whether_there_was_anything_to_drop() {
        let (_brokers, config) = mock();
        let mut producer = with_a_record_in_a_transaction(&config);
        assert_eq!(producer.abort(), Ok(true));
        assert_eq!(producer.abort(), Ok(false));
    }

    /// As when the coordinator of a group is away, which the client would wait for.
    #[test]
    fn a_commit_is_given_up_when_brokers_have_ended_its_transaction() {
        let (brokers, mut config) = mock();
        let timeout = ("transaction.timeout.ms".to_owned(), "1500".to_owned());
        config.kafka_properties.extend([timeout]);
        let group = MockCoordinator::Group("g".to_owned());
        brokers.coordinator(group, 2).unwrap();
        let mut member = settings::client(&config, "member");
        let member: BaseConsumer = member.set("group.id", "g").create().unwrap();
        let place = TopicPartition {
            topic: "events".into(),
            partition: Partition(0),
        };
        let positions = GroupOffsets {
            generation: Arc::new(member.group_metadata().unwrap()),
            positions: vec![(place, Offset(1))],
        };
        let mut producer = with_a_record_in_a_transaction(&config);
        brokers.broker_down(2).unwrap();
        let begun = producer.begin_commit(Outbox::default(), vec![positions]);
        begun.unwrap();
        let since = Instant::now();
        assert_eq!(producer.wait_committed(), Err(KafkaFault::timeout(COMMIT)));
        assert!(
            since.elapsed() < config.request_timeout,
            "the client's own limit"
        );
        assert_eq!(producer.abort(), Ok(true), "it is dropped");
    }

    #[test]
    fn a_slot_notices_where_its_partition_has_gone_back() {
        let slots = Slots::default();
        let (slot, other) = (slots.slot(), slots.slot());
        let delivered = [
            (7, None),
            (8, None),
            (11, None),
            (-1, None),
            (0, Some(11)),
            (12, None),
        ];
        for (offset, before) in delivered {
            assert_eq!(slots.delivered(slot, offset), before);
        }
        assert_eq!(slots.next_offset(slot), Some(Offset(13)));
        assert_eq!(slots.delivered(other, 0), None);
        assert_eq!(slots.next_offset(other), Some(Offset(1)));
    }

    #[test]
    fn a_producer_that_knows_no_broker_any_more_is_given_up_before_its_limit() {
        let config = StreamsConfig::new("app", "localhost:1", "a", "unused");
        let (slots, waker) = (Slots::default(), Waker::default());
        let begun = TransactionalProducer::begin(&config, "app-a-0", BATCH_BYTES, slots, waker);
        let begun = begun.unwrap();
        begun.producer.context().brokers.forget_all();
        let fault = begun.wait().err().unwrap();
        assert!(fault.to_string().contains("reach a broker"), "{fault}");
    }
}
