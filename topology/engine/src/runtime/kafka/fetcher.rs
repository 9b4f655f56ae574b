//! Reads the partitions of a stream thread, for all of its groups at once.
//!
//! Several groups may read the same topic, and each of the thread's members could fetch for itself.
//! But then a partition's records would cross the wire once per group, and each member would ask
//! the brokers again whenever anything of its own has come. So the members fetch nothing
//! ([`GroupConsumer`](super::GroupConsumer)), and this reader, which is in no group, fetches each
//! partition once.
//!
//! Whenever anything comes, a client asks again for every partition that it reads, and records of
//! other services come one by one. So a fetch of them waits a little for others to come along.
//! Repartition topics are fetched separately, and at once: they are many and mostly empty, since
//! records skip them where they can, and what comes there comes with a commit.
//!
//! A partition has a [`Lane`] with a queue of its own: one with a backlog does not hold up the
//! others, and nobody has to look up whose records they are. Only committed records come. From
//! where a partition is read, and for whom, is up to the caller.
//!
//! If a log no longer exists at the position from which it is read, the client says so after the
//! last record that it has, and waits. What retention has removed is skipped. A log that has lost
//! its end is not read on: in place of the records that were read it gets others.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use rdkafka::{Offset as ClientOffset, TopicPartitionList};

use super::client_errors::ClientErrors;
use super::client_log::ClientLog;
use super::consumer::{connect, list_of, positions, watermarks};
use super::fault::KafkaFault;
use super::settings::{self, Fetches};
use super::{Position, TopicPartition};
use crate::record::{DecodeCache, Header, InputRecord};
use crate::runtime::StreamsConfig;
use crate::runtime::background::aside;
use crate::runtime::cluster::instances_topic;
use crate::runtime::wake::Waker;
use crate::{Offset, TimestampMs};

/// The number of a lane: the first place that was started has 0, and keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneId(pub(crate) usize);

type Client = Arc<BaseConsumer<ClientLog>>;

/// One partition that is read, or was.
struct Lane {
    place: TopicPartition,
    client: Client,
    queue: PartitionQueue<ClientLog>,
    /// Whether the queue may hold something.
    ready: Arc<AtomicBool>,
    is_read: bool,
    /// Where reading began last.
    begun: Offset,
}

/// Reads partitions outside any group.
pub(crate) struct Fetcher {
    lanes: Vec<Lane>,
    by_place: HashMap<TopicPartition, LaneId>,
    /// The lane that is read first.
    first: usize,
    outer: Client,
    /// For the repartition topics.
    inner: Client,
    repartition: BTreeSet<String>,
    waker: Waker,
    limit: Duration,
    /// Its name in errors.
    reader: String,
    errors: ClientErrors,
}

impl Fetcher {
    /// Connects; nothing is read before [`Fetcher::start`]. `repartition` are the topics
    /// within the application, and `waker` is woken when there is something to read.
    pub(crate) fn connect(
        config: &StreamsConfig,
        repartition: BTreeSet<String>,
        waker: Waker,
    ) -> Result<Self, KafkaFault> {
        let client = |name, fetches| -> Result<Client, KafkaFault> {
            let client = settings::fetcher(config, name, fetches);
            let consumer = client.create_with_context(ClientLog::default());
            let consumer = consumer.map_err(|error| KafkaFault::of("create a consumer", &error))?;
            Ok(Arc::new(consumer))
        };
        let outer = client("fetcher", Fetches::Together)?;
        let inner = client("repartition-fetcher", Fetches::AtOnce)?;
        let (clients, topic) = (
            [outer.clone(), inner.clone()],
            instances_topic(&config.application_id),
        );
        aside("connect", move || {
            clients.iter().for_each(|client| connect(client, &topic));
        });
        Ok(Self {
            lanes: Vec::new(),
            by_place: HashMap::new(),
            first: 0,
            outer,
            inner,
            repartition,
            waker,
            limit: config.request_timeout,
            reader: format!("fetcher, group {}", settings::unused_group(config)),
            errors: ClientErrors::default(),
        })
    }

    /// The lane of a partition that was started once.
    pub(crate) fn lane(&self, place: &TopicPartition) -> Option<LaneId> {
        self.by_place.get(place).copied()
    }

    /// Reads these partitions from these offsets. Those that are read already go there, and what
    /// was fetched of them and not read is dropped.
    pub(crate) fn start(&mut self, starts: &[Position]) -> Result<(), KafkaFault> {
        const ACTION: &str = "start to read partitions";
        let clients = [self.outer.clone(), self.inner.clone()];
        for client in clients {
            let mut new = TopicPartitionList::new();
            let mut moved = TopicPartitionList::new();
            for (place, offset) in starts {
                if !Arc::ptr_eq(self.client_of(place), &client) {
                    continue;
                }
                let was_read = self.will_read(place, *offset)?;
                let list = if was_read { &mut moved } else { &mut new };
                let offset = ClientOffset::Offset(offset.0);
                let added = list.add_partition_offset(&place.topic, place.partition.0, offset);
                added.map_err(|error| KafkaFault::of(ACTION, &error))?;
            }
            if moved.count() > 0 {
                let sought = client.seek_partitions(moved, self.limit);
                let sought = sought.map_err(|error| KafkaFault::of(ACTION, &error))?;
                for element in sought.elements() {
                    let error = element.error();
                    error.map_err(|error| KafkaFault::of(ACTION, &error))?;
                }
            }
            if new.count() > 0 {
                // The client's main thread handles one call after the other: when it returns the
                // assignment, it has made the new partitions fetchable.
                let assigned = client
                    .incremental_assign(&new)
                    .and_then(|()| client.assignment().map(drop));
                assigned.map_err(|error| KafkaFault::of(ACTION, &error))?;
                rouse(client, new);
            }
        }
        Ok(())
    }

    fn client_of(&self, place: &TopicPartition) -> &Client {
        if self.repartition.contains(&*place.topic) {
            &self.inner
        } else {
            &self.outer
        }
    }

    /// Notes that a partition is read from there now; returns whether it was read before.
    fn will_read(&mut self, place: &TopicPartition, from: Offset) -> Result<bool, KafkaFault> {
        let LaneId(lane) = match self.lane(place) {
            Some(lane) => lane,
            None => self.add_lane(place)?,
        };
        let Some(lane) = self.lanes.get_mut(lane) else {
            return Ok(false);
        };
        // What the client has said about its former position is no news of the new one.
        while lane.queue.poll(Duration::ZERO).is_some() {}
        lane.begun = from;
        Ok(std::mem::replace(&mut lane.is_read, true))
    }

    fn add_lane(&mut self, place: &TopicPartition) -> Result<LaneId, KafkaFault> {
        // Split off before it is assigned, it stays so however often it is.
        let client = self.client_of(place).clone();
        let queue = client.split_partition_queue(&place.topic, place.partition.0);
        let mut queue = queue.ok_or_else(|| KafkaFault::Retriable {
            action: "start to read a partition",
            reason: format!("no queue for {}-{}", place.topic, place.partition),
        })?;
        let ready = Arc::new(AtomicBool::new(false));
        let (filled, waker) = (ready.clone(), self.waker.clone());
        queue.set_nonempty_callback(move || {
            filled.store(true, Ordering::Release);
            waker.wake();
        });
        let lane = LaneId(self.lanes.len());
        self.by_place.insert(place.clone(), lane);
        self.lanes.push(Lane {
            place: place.clone(),
            client,
            queue,
            ready,
            is_read: false,
            begun: Offset(0),
        });
        Ok(lane)
    }

    /// Stops reading these lanes; what was fetched of them is dropped.
    pub(crate) fn stop(&mut self, lanes: &[LaneId]) -> Result<(), KafkaFault> {
        for client in [&self.outer, &self.inner] {
            let mut gone = Vec::new();
            for LaneId(lane) in lanes {
                let lane = self.lanes.get_mut(*lane);
                let lane = lane.filter(|lane| lane.is_read && Arc::ptr_eq(&lane.client, client));
                if let Some(lane) = lane {
                    lane.is_read = false;
                    gone.push(lane.place.clone());
                }
            }
            if !gone.is_empty() {
                let unassigned = client.incremental_unassign(&list_of(&gone));
                unassigned.map_err(|error| KafkaFault::of("stop reading partitions", &error))?;
            }
        }
        Ok(())
    }

    /// Passes the records that are there to `take`, at most `limit` of each partition, until it has
    /// enough; returns whether there were any. The next call begins after the partition with which
    /// this one ended.
    pub(crate) fn read<E: From<KafkaFault>>(
        &mut self,
        limit: usize,
        mut take: impl FnMut(LaneId, &InputRecord<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<bool, E> {
        self.serve()?;
        let mut any = false;
        let mut displaced = Vec::new();
        let (before, first) = self.lanes.split_at(self.first.min(self.lanes.len()));
        let from_first = (before.len()..).zip(first).chain((0..).zip(before));
        'lanes: for (lane, of) in from_first {
            // Cleared before the queue is looked at, and set again when it fills.
            if !of.ready.swap(false, Ordering::AcqRel) {
                continue;
            }
            for count in 0.. {
                if count == limit {
                    of.ready.store(true, Ordering::Release);
                    break;
                }
                match of.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        any = true;
                        let taken = take_message(&message, |record| take(LaneId(lane), record))?;
                        if taken.is_break() {
                            of.ready.store(true, Ordering::Release);
                            self.first = lane + 1;
                            break 'lanes;
                        }
                    }
                    Some(Err(error)) => {
                        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
                            displaced.push(LaneId(lane));
                        } else if let Some(fault) = self.errors.fault_of(&of.place.topic, &error) {
                            return Err(fault.into());
                        }
                    }
                }
            }
        }
        // However the turn has ended: the client says it once.
        for lane in displaced {
            self.place_anew(lane)?;
        }
        Ok(any)
    }

    /// Goes on where a log begins, if it no longer exists where it is read.
    fn place_anew(&mut self, lane: LaneId) -> Result<(), KafkaFault> {
        let Some(of) = self.lanes.get(lane.0).filter(|of| of.is_read) else {
            return Ok(());
        };
        let place = of.place.clone();
        let TopicPartition { topic, partition } = &place;
        let read_to = self.positions()?.get(&place).copied();
        let read_to = read_to.unwrap_or(of.begun);
        let (start, end) = watermarks(of.client.client(), topic, *partition, self.limit)?;
        if read_to >= start {
            return Err(end_lost(&place, read_to, start, end));
        }
        tracing::warn!(%topic, %partition, %read_to, %start, "records were removed from a log before they were read");
        self.stop(&[lane])?;
        self.start(&[(place, start)])
    }

    /// Serves the clients' own events; records come through the lanes.
    fn serve(&self) -> Result<(), KafkaFault> {
        for client in [&self.outer, &self.inner] {
            match client.poll(Duration::ZERO) {
                None => {
                    let known = client.context().brokers.check();
                    known.map_err(|fault| fault.of_what(&self.reader))?;
                }
                Some(Ok(message)) => {
                    let (topic, partition) = (message.topic(), message.partition());
                    return Err(KafkaFault::Retriable {
                        action: "consume",
                        reason: format!("{topic}-{partition} was read past its queue"),
                    });
                }
                Some(Err(error)) => {
                    if let Some(fault) = self.errors.fault_of(&self.reader, &error) {
                        return Err(fault);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next offset of every partition that was read from since it was started; past the last
    /// record if transaction markers follow it.
    pub(crate) fn positions(&self) -> Result<BTreeMap<TopicPartition, Offset>, KafkaFault> {
        let mut all = BTreeMap::new();
        for client in [&self.outer, &self.inner] {
            let told = client.position();
            let told = told.map_err(|error| KafkaFault::of("tell its positions", &error))?;
            all.extend(positions(&told));
        }
        Ok(all)
    }
}

const READ_ON: &str = "read on";

/// The fault of a log that has other records now where it was read, or none. Going on would skip
/// what it gets before the old position.
fn end_lost(place: &TopicPartition, read_to: Offset, start: Offset, end: Offset) -> KafkaFault {
    let TopicPartition { topic, partition } = place;
    KafkaFault::Fatal {
        action: READ_ON,
        reason: format!(
            "{topic}-{partition} was read up to offset {read_to} and has lost what it held there (it goes from {start} to {end} now): the topic was made anew, or brokers have lost its end; stop all instances, have the groups that read it go on where you want (kafka-consumer-groups.sh --reset-offsets), and start again"
        ),
    }
}

/// Wakes those of the client's threads that fetch these partitions. A thread that had nothing to
/// fetch looks again only a second later; that there is something now does not wake it, but any
/// request to its broker does. Nobody waits for that request.
fn rouse(client: Client, mut partitions: TopicPartitionList) {
    let ask = move || {
        let asked = partitions
            .set_all_offsets(ClientOffset::End)
            .and_then(|()| client.offsets_for_times(partitions, ROUSE_LIMIT));
        if let Err(error) = asked {
            tracing::debug!(%error, "partitions may be read a second later");
        }
    };
    aside("rouse", ask);
}

/// How long a request may take that only serves to wake the client: the client ends after it.
const ROUSE_LIMIT: Duration = Duration::from_secs(1);

/// The headers of a record. The client's binding panics on a name that is not UTF-8, which any
/// producer can write; such a header has no readable name then.
fn headers_of(headers: &BorrowedHeaders) -> Vec<Header> {
    let header = |index| {
        let read = || {
            let header = headers.get(index);
            (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
        };
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
            tracing::warn!("a record has a header of which the name is not UTF-8");
            (UNREADABLE_HEADER.to_owned(), None)
        })
    };
    (0..headers.count()).map(header).collect()
}

/// The name of a header whose own name cannot be read.
const UNREADABLE_HEADER: &str = "__unreadable";

fn take_message<R>(message: &BorrowedMessage<'_>, take: impl FnOnce(&InputRecord<'_>) -> R) -> R {
    let headers = message.headers().map_or_else(Vec::new, headers_of);
    take(&InputRecord {
        key: message.key(),
        value: message.payload(),
        headers: &headers,
        timestamp: TimestampMs(message.timestamp().to_millis().unwrap_or(0)),
        offset: Offset(message.offset()),
        decoded: Some(&DecodeCache::default()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::super::mock::MockBroker;
    use super::*;
    use crate::Partition;

    const LIMIT: Duration = Duration::from_secs(20);

    /// A thread with a backlog ends most turns before it has looked at all lanes.
    #[test]
    fn a_lane_that_is_displaced_is_told_of_however_the_turn_ends() {
        let broker = MockBroker::start();
        broker.cluster.create_topic("words", 2, 1).unwrap();
        let place = |partition| TopicPartition {
            topic: "words".into(),
            partition: Partition(partition),
        };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", broker.cluster.bootstrap_servers());
        let producer: BaseProducer = client.create().unwrap();
        for _ in 0..10_000 {
            let record = BaseRecord::<(), str>::to("words").partition(1).payload("x");
            producer.send(record).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(LIMIT).unwrap();

        let none = BTreeSet::new();
        let mut fetcher = Fetcher::connect(&broker.config, none, Waker::default()).unwrap();
        let began = Instant::now();
        // From its first record on, each turn ends with a record of the second lane.
        let mut turn = |starts: &[Position], is_over: fn(&Result<bool, KafkaFault>) -> bool| {
            fetcher.start(starts).unwrap();
            loop {
                let read = fetcher.read(100, |_, _| Ok(ControlFlow::Break(())));
                if is_over(&read) {
                    return read;
                }
                assert!(began.elapsed() < LIMIT, "{read:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        turn(&[(place(1), Offset(0))], |read| *read == Ok(true)).unwrap();
        let fault = turn(&[(place(0), Offset(1_000))], Result::is_err);
        let fault = fault.unwrap_err().to_string();
        assert!(fault.contains("words-0"), "{fault}");
        assert!(fault.contains("up to offset 1000"), "{fault}");
    }

    #[test]
    fn a_fetcher_that_knows_no_broker_any_more_is_given_up() {
        let broker = MockBroker::start();
        for client in [
            |of: &Fetcher| of.outer.clone(),
            |of: &Fetcher| of.inner.clone(),
        ] {
            let none = BTreeSet::new();
            let mut fetcher = Fetcher::connect(&broker.config, none, Waker::default()).unwrap();
            let mut read =
                || fetcher.read(1, |_, _| Ok::<_, KafkaFault>(ControlFlow::Continue(())));
            assert_eq!(read(), Ok(false));
            client(&fetcher).context().brokers.forget_all();
            let fault = fetcher.serve().unwrap_err();
            assert!(matches!(fault, KafkaFault::Retriable { .. }), "{fault}");
        }
    }
}
