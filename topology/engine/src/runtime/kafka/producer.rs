//! A transactional producer whose blocking calls cannot block for ever.
//!
//! The client's transactional calls block, and their own time-outs are not always
//! kept: so each runs on a worker thread, and when no answer comes in time the
//! caller gives up on this producer (the worker is left behind with it) and builds
//! a new one, whose first call fences the old.
//!
//! That first call is made in the background, so that other clients can connect
//! meanwhile. It is made in short steps: where no broker is connected yet, or the last
//! transaction is still being ended, the client by itself looks again half a second later
//! only, but at once when it is called again.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Mutex, RwLock};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as ClientHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset as ClientOffset, TopicPartitionList};

use super::Position;
use super::client_log;
use super::fault::KafkaFault;
use super::settings;
use crate::Offset;
use crate::record::OutputRecord;
use crate::runtime::internal_topics::MESSAGE_BYTES_MAX;
use crate::runtime::{CommitHook, CommitStep, StreamsConfig};

/// The positions of one group that a commit reaches, and the member's generation.
pub(crate) struct GroupOffsets {
    pub(crate) metadata: ConsumerGroupMetadata,
    pub(crate) positions: Vec<Position>,
}

/// The highest delivered offset of each marked stream of records.
#[derive(Default)]
struct Deliveries {
    /// By slot; -1: none.
    highest: RwLock<Vec<AtomicI64>>,
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        client_log::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_log::error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    /// The slot that follows the record's offset, plus one; 0: none does.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        match result {
            Ok(message) => {
                let slots = self.highest.read();
                if let Some(highest) = slot.checked_sub(1).and_then(|slot| slots.get(slot)) {
                    highest.fetch_max(message.offset(), Ordering::Relaxed);
                }
            }
            Err((error, _)) => {
                self.failure.lock().get_or_insert_with(|| error.clone());
            }
        }
    }
}

enum Call {
    Commit(Vec<GroupOffsets>),
    Abort,
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

/// A transactional producer for one stream thread.
pub(crate) struct TransactionalProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    calls: Sender<Call>,
    answers: Receiver<Result<(), KafkaFault>>,
    limit: Duration,
    open: bool,
    /// What was sent, and the client is yet to be given.
    held: Vec<(OutputRecord, Option<Slot>)>,
    /// A call was not answered in time: no other can be made.
    given_up: Cell<bool>,
}

/// A producer that is fencing its predecessors.
pub(crate) struct FencingProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    fenced: Receiver<Result<(), KafkaFault>>,
    calls: Sender<Call>,
    answers: Receiver<Result<(), KafkaFault>>,
    limit: Duration,
}

impl FencingProducer {
    /// The producer, once every earlier one with its transactional id is fenced, and the
    /// transaction of that has ended.
    pub(crate) fn wait(self) -> Result<TransactionalProducer, KafkaFault> {
        let fenced = self.fenced.recv_timeout(patience(self.limit));
        fenced.map_err(|_| KafkaFault::timeout(INIT))??;
        Ok(TransactionalProducer {
            producer: self.producer,
            calls: self.calls,
            answers: self.answers,
            limit: self.limit,
            open: false,
            held: Vec::new(),
            given_up: Cell::new(false),
        })
    }
}

/// So many records are worth giving to the client before the commit. What is less waits
/// for that: the first record after a commit often finds the coordinator at work on the
/// markers of the last one, and the client rests for 20 ms then.
const HELD_MAX: usize = 1_000;

const INIT: &str = "initialise transactions";
/// How long the client may rest before it is called again.
const INIT_STEP: Duration = Duration::from_millis(20);

/// Past its own limit the client has had its chance; a little more for the way back.
fn patience(limit: Duration) -> Duration {
    limit + Duration::from_secs(1)
}

impl TransactionalProducer {
    /// Begins to fence every earlier producer with this transactional id and to end its
    /// transaction.
    pub(crate) fn begin(
        config: &StreamsConfig,
        transactional_id: &str,
    ) -> Result<FencingProducer, KafkaFault> {
        let producer: BaseProducer<Deliveries> = client(config, transactional_id)
            .create_with_context(Deliveries::default())
            .map_err(|error| KafkaFault::of("create a producer", &error))?;
        let producer = Arc::new(producer);
        let worker = producer.clone();
        let (calls, to_do) = bounded(1);
        let (done, answers) = bounded(1);
        let (fence_done, fenced) = bounded(1);
        let limit = config.request_timeout;
        let hook = config.on_commit_step;
        thread::Builder::new()
            .name("transactions".to_owned())
            .spawn(move || {
                // Who does not wait for it any more has no calls either.
                if fence_done.send(fence(&worker, limit)).is_ok() {
                    serve(&worker, &to_do, &done, limit, hook);
                }
            })
            .map_err(|error| KafkaFault::Fatal {
                action: "start the thread of a producer",
                reason: error.to_string(),
            })?;
        Ok(FencingProducer {
            producer,
            fenced,
            calls,
            answers,
            limit,
        })
    }

    /// A new slot.
    pub(crate) fn slot(&self) -> Slot {
        let mut highest = self.producer.context().highest.write();
        highest.push(AtomicI64::new(-1));
        Slot(highest.len() - 1)
    }

    /// The offset after the highest delivered record of `slot`.
    pub(crate) fn next_offset(&self, slot: Slot) -> Option<Offset> {
        let highest = self.producer.context().highest.read();
        let offset = highest
            .get(slot.0)
            .map(|highest| highest.load(Ordering::Relaxed));
        offset
            .filter(|offset| *offset >= 0)
            .map(|offset| Offset(offset + 1))
    }

    /// Adds a record to the transaction.
    pub(crate) fn send(
        &mut self,
        record: OutputRecord,
        slot: Option<Slot>,
    ) -> Result<(), KafkaFault> {
        self.held.push((record, slot));
        if self.held.len() < HELD_MAX {
            return Ok(());
        }
        self.release()
    }

    /// Gives the client what is held; opens a transaction where there is none.
    fn release(&mut self) -> Result<(), KafkaFault> {
        self.open()?;
        for (record, slot) in std::mem::take(&mut self.held) {
            self.hand_over(&record, slot)?;
        }
        Ok(())
    }

    fn hand_over(&self, record: &OutputRecord, slot: Option<Slot>) -> Result<(), KafkaFault> {
        let begun = Instant::now();
        let mut client_record = client_record(record, slot);
        loop {
            match self.producer.send(client_record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if begun.elapsed() < self.limit =>
                {
                    client_record = back;
                    serve_deliveries(&self.producer);
                    thread::park_timeout(DELIVERY_STEP);
                }
                Err((error, _)) => return Err(KafkaFault::of("send a record", &error)),
            }
        }
    }

    /// Opens a transaction where there is none.
    fn open(&mut self) -> Result<(), KafkaFault> {
        if !self.open {
            let begun = self.producer.begin_transaction();
            begun.map_err(|error| KafkaFault::of("begin a transaction", &error))?;
            self.open = true;
        }
        Ok(())
    }

    /// Serves delivery reports.
    pub(crate) fn serve(&self) {
        serve_deliveries(&self.producer);
    }

    /// Commits the open transaction with the positions of these groups. When this
    /// fails nobody knows whether it is committed: the producer is of no more use.
    pub(crate) fn commit(&mut self, groups: Vec<GroupOffsets>) -> Result<(), KafkaFault> {
        self.release()?;
        self.call(Call::Commit(groups), "commit a transaction")?;
        self.open = false;
        Ok(())
    }

    /// Ends the open transaction, if there is one, without a trace.
    pub(crate) fn abort(&mut self) -> Result<(), KafkaFault> {
        self.held.clear();
        if self.open && !self.given_up.get() {
            self.call(Call::Abort, "abort a transaction")?;
            self.open = false;
        }
        Ok(())
    }

    fn call(&self, call: Call, action: &'static str) -> Result<(), KafkaFault> {
        self.calls
            .send(call)
            .map_err(|_| KafkaFault::timeout(action))?;
        match self.answers.recv_timeout(patience(self.limit)) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.given_up.set(true);
                Err(KafkaFault::timeout(action))
            }
        }
    }
}

/// A transaction is open for a commit interval at least; what is left open by a dead
/// process holds up readers for this long at most.
fn transaction_timeout(config: &StreamsConfig) -> Duration {
    config.commit_interval + Duration::from_secs(10)
}

/// The properties of a producer with this transactional id.
fn client(config: &StreamsConfig, transactional_id: &str) -> ClientConfig {
    let mut client = settings::client(config, "producer");
    client
        .set("transactional.id", transactional_id)
        .set(
            "transaction.timeout.ms",
            transaction_timeout(config).as_millis().to_string(),
        )
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("batch.size", "262144")
        .set("batch.num.messages", "20000")
        .set("compression.type", "lz4")
        .set("message.max.bytes", MESSAGE_BYTES_MAX.to_string())
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "65536");
    settings::with_user_properties(client, config)
}

/// Fences all producers before this one.
fn fence(producer: &BaseProducer<Deliveries>, limit: Duration) -> Result<(), KafkaFault> {
    let begun = Instant::now();
    loop {
        match producer.init_transactions(INIT_STEP) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < limit => {}
            Err(error) => return Err(KafkaFault::of(INIT, &error)),
        }
    }
}

fn client_record(record: &OutputRecord, slot: Option<Slot>) -> BaseRecord<'_, [u8], [u8], usize> {
    let opaque = slot.map_or(0, |slot| slot.0 + 1);
    let mut client = BaseRecord::with_opaque_to(&record.topic, opaque)
        .partition(record.partition.0)
        .timestamp(record.timestamp.0);
    if let Some(key) = &record.key {
        client = client.key(key.as_slice());
    }
    if let Some(value) = &record.value {
        client = client.payload(value.as_slice());
    }
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(ClientHeader {
                key,
                value: value.as_deref(),
            });
        }
        client = client.headers(headers);
    }
    client
}

/// The worker: one call after the other until the producer is dropped.
fn serve(
    producer: &BaseProducer<Deliveries>,
    calls: &Receiver<Call>,
    answers: &Sender<Result<(), KafkaFault>>,
    limit: Duration,
    hook: Option<CommitHook>,
) {
    while let Ok(call) = calls.recv() {
        let answer = match call {
            Call::Commit(groups) => commit(producer, &groups, limit, hook),
            Call::Abort => {
                deliver_all(producer, limit).ok();
                producer
                    .abort_transaction(limit)
                    .map_err(|error| KafkaFault::of("abort a transaction", &error))
            }
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// 1. Every record is delivered, and none failed.
/// 2. The positions of all groups, which is the fence: a member that lost any group cannot
///    pass. (Not at the same time: a coordinator takes one addition to a transaction after
///    the other, and the client comes back late when it is sent away.)
/// 3. The commit.
fn commit(
    producer: &BaseProducer<Deliveries>,
    groups: &[GroupOffsets],
    limit: Duration,
    hook: Option<CommitHook>,
) -> Result<(), KafkaFault> {
    deliver_all(producer, limit)?;
    for group in groups {
        let mut list = TopicPartitionList::with_capacity(group.positions.len());
        for (place, offset) in &group.positions {
            list.add_partition_offset(
                &place.topic,
                place.partition.0,
                ClientOffset::Offset(offset.0),
            )
            .map_err(|error| KafkaFault::of("name a position", &error))?;
        }
        producer
            .send_offsets_to_transaction(&list, &group.metadata, limit)
            .map_err(|error| KafkaFault::of("add positions to a transaction", &error))?;
    }
    if let Some(hook) = hook {
        hook(CommitStep::PositionsJoined, &|| Ok(()));
    }
    producer
        .commit_transaction(limit)
        .map_err(|error| KafkaFault::of("commit a transaction", &error))
}

/// Serves the delivery reports that are there. (A poll of the client serves one at most.)
fn serve_deliveries(producer: &BaseProducer<Deliveries>) {
    let mut left = producer.in_flight_count();
    loop {
        producer.poll(Duration::ZERO);
        let now = producer.in_flight_count();
        if now >= left {
            return;
        }
        left = now;
    }
}

/// Between two looks at what was delivered.
const DELIVERY_STEP: Duration = Duration::from_micros(500);

/// Waits until every record is delivered, and says if one was not. (The client's own
/// flush would do it in steps of 100 ms, and its poll burns the last millisecond of any
/// time it is given.)
fn deliver_all(producer: &BaseProducer<Deliveries>, limit: Duration) -> Result<(), KafkaFault> {
    let begun = Instant::now();
    while producer.in_flight_count() > 0 {
        if begun.elapsed() > limit {
            return Err(KafkaFault::timeout("deliver the records of a transaction"));
        }
        serve_deliveries(producer);
        if producer.in_flight_count() > 0 {
            thread::park_timeout(DELIVERY_STEP);
        }
    }
    match producer.context().failure.lock().take() {
        None => Ok(()),
        Some(error) => Err(KafkaFault::of(
            "deliver the records of a transaction",
            &error,
        )),
    }
}
