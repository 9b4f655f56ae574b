//! The thread that makes a producer's blocking calls, one after the other.
//!
//! While it commits, nobody else gives records to the client or serves its reports.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as ClientHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use super::outbox::Held;
use super::{ABORT, COMMIT, DELIVER, Deliveries, FencingProducer, GroupOffsets, INIT, Slot};
use crate::record::OutputRecord;
use crate::runtime::kafka::fault::KafkaFault;
use crate::runtime::wake::Waker;
use crate::runtime::{CommitHook, CommitStep, StreamsConfig};

pub(super) enum Call {
    Commit {
        /// No transaction is open yet.
        opens: bool,
        records: Vec<Held>,
        groups: Vec<GroupOffsets>,
    },
    Abort,
}

type Answer = Result<(), KafkaFault>;

/// Starts the thread, which first fences the producers before this one. It does so in short steps:
/// if no broker is connected yet, or the last transaction is still being ended, the client by
/// itself looks again only half a second later, but at once when it is called again.
pub(super) fn start(
    producer: Arc<BaseProducer<Deliveries>>,
    transactional_id: String,
    commit_limit: Duration,
    config: &StreamsConfig,
    waker: Waker,
) -> Result<FencingProducer, KafkaFault> {
    let (calls, to_do) = bounded(1);
    let (done, answers) = bounded(1);
    let (fence_done, fenced) = bounded(1);
    let limit = config.request_timeout;
    let worker = Worker {
        producer: producer.clone(),
        limit,
        hook: config.on_commit_step,
        waker,
    };
    thread::Builder::new()
        .name("transactions".to_owned())
        .spawn(move || {
            let fenced = fence(&worker.producer, limit);
            let fenced = fenced.map_err(|fault| fault.of_what(&transactional_id));
            // A caller that does not wait for it any more makes no calls either.
            if fence_done.send(fenced).is_ok() {
                worker.serve(&to_do, &done);
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
        commit_limit,
    })
}

/// How long the client may rest before it is called again.
const INIT_STEP: Duration = Duration::from_millis(20);

/// Fences all producers before this one.
fn fence(producer: &BaseProducer<Deliveries>, limit: Duration) -> Result<(), KafkaFault> {
    let begun = Instant::now();
    loop {
        // What it knows of brokers it says to whoever polls it.
        producer.poll(Duration::ZERO);
        producer.context().brokers.check()?;
        match producer.init_transactions(INIT_STEP) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && begun.elapsed() < limit => {}
            Err(error) => return Err(KafkaFault::of(INIT, &error)),
        }
    }
}

struct Worker {
    producer: Arc<BaseProducer<Deliveries>>,
    limit: Duration,
    hook: Option<CommitHook>,
    waker: Waker,
}

impl Worker {
    /// Makes one call after the other until the producer is dropped.
    fn serve(&self, calls: &Receiver<Call>, answers: &Sender<Answer>) {
        while let Ok(call) = calls.recv() {
            let answer = match call {
                Call::Commit {
                    opens,
                    records,
                    groups,
                } => self.commit(opens, records, &groups),
                Call::Abort => self.abort(),
            };
            if answers.send(answer).is_err() {
                return;
            }
            self.waker.wake_urgently();
        }
    }

    /// 1. Every record is handed over and delivered, and none failed.
    /// 2. The positions of all groups, which is the fence: a member that lost any group cannot
    ///    pass. (Not at the same time: a coordinator takes one addition to a transaction at a time,
    ///    and the client is slow to come back when it is sent away.)
    /// 3. The commit.
    fn commit(&self, opens: bool, records: Vec<Held>, groups: &[GroupOffsets]) -> Answer {
        if opens {
            open(&self.producer)?;
        }
        hand_over(&self.producer, records, self.limit)?;
        deliver_all(&self.producer, self.limit)?;
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
            self.producer
                .send_offsets_to_transaction(&list, &group.generation, self.limit)
                .map_err(|error| KafkaFault::of("add positions to a transaction", &error))?;
        }
        if let Some(hook) = self.hook {
            hook(CommitStep::PositionsJoined, &|| Ok(()));
        }
        let committed = self.producer.commit_transaction(self.limit);
        committed.map_err(|error| KafkaFault::of(COMMIT, &error))
    }

    fn abort(&self) -> Answer {
        deliver_all(&self.producer, self.limit).ok();
        let aborted = self.producer.abort_transaction(self.limit);
        aborted.map_err(|error| KafkaFault::of(ABORT, &error))
    }
}

/// Opens a transaction.
pub(super) fn open(producer: &BaseProducer<Deliveries>) -> Answer {
    let begun = producer.begin_transaction();
    begun.map_err(|error| KafkaFault::of("begin a transaction", &error))
}

/// Gives records to the client, as fast as it accepts them. The client copies them: what it has
/// accepted is freed at once.
pub(super) fn hand_over(
    producer: &BaseProducer<Deliveries>,
    records: Vec<Held>,
    limit: Duration,
) -> Answer {
    for held in records {
        match held {
            Held::Record(record, slot) => give(producer, client_record(&record, slot), limit)?,
            Held::Changelog(records, Slot(slot)) => {
                for (key, value) in records.iter() {
                    let mut record = BaseRecord::with_opaque_to(&records.topic, slot + 1)
                        .partition(records.partition.0)
                        .timestamp(records.timestamp.0)
                        .key(key);
                    record.payload = value;
                    give(producer, record, limit)?;
                }
            }
        }
    }
    Ok(())
}

/// Gives a record to the client, when it accepts it.
fn give(
    producer: &BaseProducer<Deliveries>,
    mut record: BaseRecord<'_, [u8], [u8], usize>,
    limit: Duration,
) -> Answer {
    let mut since = None;
    while let Err((error, back)) = producer.send(record) {
        let since: &mut Instant = since.get_or_insert_with(Instant::now);
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)
                if since.elapsed() < limit =>
            {
                record = back;
                serve_deliveries(producer);
                thread::park_timeout(DELIVERY_STEP);
            }
            error => return Err(KafkaFault::of("send a record", &error)),
        }
    }
    Ok(())
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

/// Serves the delivery reports that are there. (A poll of the client serves at most one.)
pub(super) fn serve_deliveries(producer: &BaseProducer<Deliveries>) {
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

/// The time between two looks at what was delivered.
const DELIVERY_STEP: Duration = Duration::from_millis(1);

/// Waits until every record is delivered; returns a fault if one was not. (The client's own flush
/// would do it in steps of 100 ms, and its poll burns the last millisecond of any time it is
/// given.)
fn deliver_all(producer: &BaseProducer<Deliveries>, limit: Duration) -> Result<(), KafkaFault> {
    let begun = Instant::now();
    while producer.in_flight_count() > 0 {
        if begun.elapsed() > limit {
            return Err(KafkaFault::timeout(DELIVER));
        }
        serve_deliveries(producer);
        if producer.in_flight_count() > 0 {
            thread::park_timeout(DELIVERY_STEP);
        }
    }
    let failure = producer.context().failure.lock().take();
    failure.map_or(Ok(()), Err)
}
