//! A static member of one consumer group, which reads nothing.
//!
//! The member exists for the group: it is assigned partitions, keeps its session alive, and its
//! generation is the fence of every commit. The records of its partitions are read by the thread's
//! [`Fetcher`](super::Fetcher), once for all groups, so a partition that is assigned here is paused
//! for good.
//!
//! Rebalances are not handled inside the client's callback: they come out of
//! [`GroupConsumer::poll`] as events, and the group waits until the thread has called
//! [`GroupConsumer::assign`] or [`GroupConsumer::unassign`]. So a thread can commit what it has
//! before it releases a partition.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset as ClientOffset, TopicPartitionList};

use super::client_errors::ClientErrors;
use super::client_log;
use super::fault::KafkaFault;
use super::known_brokers::KnownBrokers;
use super::settings;
use super::{Position, TopicPartition};
use crate::runtime::StreamsConfig;
use crate::runtime::wake::Waker;
use crate::{Offset, Partition};

/// What a poll returns.
pub(crate) enum GroupEvent {
    /// The group gives these partitions: call [`GroupConsumer::assign`].
    Assigned(Vec<TopicPartition>),
    /// The group takes all partitions back: call [`GroupConsumer::unassign`].
    Revoked {
        /// Whether the session ended before the member could release them: somebody else may have
        /// the partitions already, so nothing can be committed for them.
        lost: bool,
    },
}

struct GroupContext {
    brokers: KnownBrokers,
    rebalances: Mutex<VecDeque<GroupEvent>>,
    closing: AtomicBool,
}

impl ClientContext for GroupContext {
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

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::Relaxed) {
            // Nobody polls for events any more, and closing waits for this.
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "could not unassign while closing a consumer");
            }
            return;
        }
        let event = if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            GroupEvent::Assigned(topic_partitions(partitions))
        } else {
            GroupEvent::Revoked {
                lost: consumer.assignment_lost(),
            }
        };
        self.rebalances.lock().push_back(event);
    }
}

const JOIN: &str = "join a consumer group";

/// A static member of one consumer group, for one stream thread.
pub(crate) struct GroupConsumer {
    pub(crate) group: Arc<str>,
    membership: Membership,
    /// The member and its generation, as of the assignment that was accepted last.
    generation: Option<Arc<ConsumerGroupMetadata>>,
    errors: ClientErrors,
}

enum Membership {
    Open(Arc<BaseConsumer<GroupContext>>),
    /// Receives a message when it has ended.
    Ending(Receiver<()>),
}

impl GroupConsumer {
    /// Looks for the coordinator of `group`, which it is going to join under the static
    /// id `member`.
    pub(crate) fn connect(
        config: &StreamsConfig,
        group: Arc<str>,
        member: &str,
        waker: Waker,
    ) -> Result<Self, KafkaFault> {
        let client = settings::member(config, &group, member);
        let context = GroupContext {
            brokers: KnownBrokers::default(),
            rebalances: Mutex::default(),
            closing: AtomicBool::new(false),
        };
        let mut consumer: BaseConsumer<GroupContext> = client
            .create_with_context(context)
            .map_err(|error| KafkaFault::of(JOIN, &error))?;
        consumer.set_nonempty_callback(move || waker.wake());
        Ok(Self {
            group,
            membership: Membership::Open(Arc::new(consumer)),
            generation: None,
            errors: ClientErrors::default(),
        })
    }

    /// Joins the group and subscribes to `topics`.
    pub(crate) fn join(&self, topics: &[&str]) -> Result<(), KafkaFault> {
        let subscribed = self.consumer().subscribe(topics);
        subscribed.map_err(|error| KafkaFault::of(JOIN, &error))
    }

    /// Lets a member that is joining go on. The client does not notice by itself that it has a
    /// connection to ask for the coordinator on, or one to the coordinator: it looks every 500 ms,
    /// and whenever it is called.
    pub(crate) fn nudge(&self) {
        drop(self.consumer().group_metadata());
    }

    fn consumer(&self) -> &Arc<BaseConsumer<GroupContext>> {
        match &self.membership {
            Membership::Open(consumer) => consumer,
            Membership::Ending(_) => unreachable!("nothing is asked of a member that is leaving"),
        }
    }

    /// Begins to end the membership in the background; dropping the consumer waits for
    /// it, for a bounded time. The static member keeps its place until its session ends.
    pub(crate) fn begin_to_leave(&mut self) {
        let Membership::Open(consumer) = &self.membership else {
            return;
        };
        consumer.context().closing.store(true, Ordering::Relaxed);
        let consumer = consumer.clone();
        let (ended, ending) = bounded(1);
        let group = self.group.clone();
        let leave = move || {
            leave(consumer, &group);
            // Nobody waits any more if it took too long.
            ended.send(()).ok();
        };
        self.membership = Membership::Ending(ending);
        if let Err(error) = thread::Builder::new().name("leave".to_owned()).spawn(leave) {
            tracing::error!(group = %self.group, %error, "cannot start a thread to leave a group");
        }
    }

    /// The next event, without waiting.
    pub(crate) fn poll(&self) -> Result<Option<GroupEvent>, KafkaFault> {
        loop {
            let polled = self.consumer().poll(Duration::ZERO);
            if let Some(rebalance) = self.consumer().context().rebalances.lock().pop_front() {
                return Ok(Some(rebalance));
            }
            match polled {
                None => {
                    let known = self.consumer().context().brokers.check();
                    return known
                        .map(|()| None)
                        .map_err(|fault| fault.of_what(&self.group));
                }
                // Fetched between the assignment and its pause, and not by the client that reads
                // it.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    if let Some(fault) = self.errors.fault_of(&self.group, &error) {
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// Accepts an assignment.
    pub(crate) fn assign(&mut self, partitions: &[TopicPartition]) -> Result<(), KafkaFault> {
        const ACTION: &str = "accept an assignment";
        let mut list = list_of(partitions);
        // Any offset will do, and with one the client need not ask for the committed ones.
        let set = list.set_all_offsets(ClientOffset::Offset(0));
        set.map_err(|error| KafkaFault::of(ACTION, &error))?;
        let assigned = self
            .consumer()
            .assign(&list)
            .and_then(|()| self.consumer().pause(&list));
        assigned.map_err(|error| KafkaFault::of(ACTION, &error))?;
        self.generation = self.consumer().group_metadata().map(Arc::new);
        Ok(())
    }

    /// Releases all partitions.
    pub(crate) fn unassign(&mut self) -> Result<(), KafkaFault> {
        self.generation = None;
        self.consumer()
            .unassign()
            .map_err(|error| KafkaFault::of("let go of an assignment", &error))
    }

    /// The member's generation in the group, for the fence of a commit: that of the assignment that
    /// was accepted last. (The client is not asked at each commit: it answers on a thread of its
    /// own that has to be woken, and it may know a later generation than that of the tasks that are
    /// committed.)
    pub(crate) fn generation(&self) -> Result<Arc<ConsumerGroupMetadata>, KafkaFault> {
        self.generation.clone().ok_or_else(|| KafkaFault::Fenced {
            action: "tell its generation",
            reason: "the consumer is no member of its group".to_owned(),
        })
    }

    /// A handle that fetches committed offsets from another thread.
    pub(crate) fn committed_reader(&self) -> CommittedReader {
        CommittedReader {
            group: self.group.clone(),
            consumer: self.consumer().clone(),
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.begin_to_leave();
        if let Membership::Ending(ending) = &self.membership
            && ending.recv_timeout(LEAVE_LIMIT).is_err()
        {
            // It takes its client with it: a thread and some memory.
            tracing::error!(group = %self.group, "a group member did not end in time; going on without it");
        }
    }
}

/// How long the end of a membership is waited for: the client was seen waiting for ever.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);

/// Ends a membership. The order matters: a rebalance that was announced but not polled has to be
/// answered while the client still listens; once it is closing, an answer can wait for ever. A
/// rebalance that was polled and not answered would keep the close waiting.
fn leave(consumer: Arc<BaseConsumer<GroupContext>>, group: &Arc<str>) {
    let begun = Instant::now();
    while consumer.poll(Duration::from_millis(1)).is_some() && begun.elapsed() < LEAVE_LIMIT / 2 {}
    if let Err(error) = consumer.unassign() {
        tracing::debug!(%group, %error, "could not unassign before closing a consumer");
    }
    drop(consumer);
}

const FETCH_COMMITTED: &str = "fetch committed offsets";

/// Where a group goes on reading a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupPosition {
    /// Where it has committed.
    Committed(Offset),
    /// At the start of the log, as it has committed nothing.
    LogStart(Offset),
}

impl GroupPosition {
    /// The offset of the next record.
    pub(crate) fn next(self) -> Offset {
        match self {
            Self::Committed(offset) | Self::LogStart(offset) => offset,
        }
    }
}

/// Fetches committed offsets of a group, once no transaction on them is pending.
#[derive(Clone)]
pub(crate) struct CommittedReader {
    pub(crate) group: Arc<str>,
    consumer: Arc<BaseConsumer<GroupContext>>,
}

impl CommittedReader {
    /// Where the group goes on reading each partition; `None` if a transaction is pending on any of
    /// them for as long as `patience`, or the coordinator does not answer for that long. The client
    /// does not tell which of the two it is.
    pub(crate) fn committed(
        &self,
        partitions: &[TopicPartition],
        patience: Duration,
        limit: Duration,
    ) -> Result<Option<Vec<(TopicPartition, GroupPosition)>>, KafkaFault> {
        let Some(committed) = self.known(partitions, patience)? else {
            return Ok(None);
        };
        let mut complete = Vec::with_capacity(partitions.len());
        for place in partitions {
            let found = committed.iter().find(|(committed, _)| committed == place);
            let position = match found {
                Some((_, offset)) => GroupPosition::Committed(*offset),
                None => GroupPosition::LogStart(self.log_start(place, limit)?),
            };
            complete.push((place.clone(), position));
        }
        Ok(Some(complete))
    }

    /// How long the coordinator of the group takes to answer, at most `limit`. It is asked about
    /// `unread`, a partition that the group does not read, so that no transaction is pending on it.
    pub(crate) fn answer_time(
        &self,
        unread: TopicPartition,
        limit: Duration,
    ) -> Result<Duration, KafkaFault> {
        let begun = Instant::now();
        match self.known(&[unread], limit)? {
            Some(_) => Ok(begun.elapsed()),
            None => Err(KafkaFault::timeout(FETCH_COMMITTED)),
        }
    }

    /// The first of these partitions on which the group has passed records that still exist, and
    /// its position.
    pub(crate) fn first_passed(
        &self,
        partitions: &[TopicPartition],
        limit: Duration,
    ) -> Result<Option<Position>, KafkaFault> {
        let known = self.known(partitions, limit)?;
        let known = known.ok_or_else(|| KafkaFault::timeout(FETCH_COMMITTED))?;
        for (place, offset) in known {
            if offset > self.log_start(&place, limit)? {
                return Ok(Some((place, offset)));
            }
        }
        Ok(None)
    }

    /// The committed positions of those partitions that have one; `None` if there is no answer
    /// within `limit`.
    fn known(
        &self,
        partitions: &[TopicPartition],
        limit: Duration,
    ) -> Result<Option<Vec<Position>>, KafkaFault> {
        let begun = Instant::now();
        let list = loop {
            let left = limit.saturating_sub(begun.elapsed());
            let asked = self.consumer.committed_offsets(list_of(partitions), left);
            let error = match asked {
                Ok(list) => break list,
                Err(error) => error,
            };
            match error.rdkafka_error_code() {
                // While a position is pending, the client keeps asking by itself until then.
                Some(RDKafkaErrorCode::OperationTimedOut) => return Ok(None),
                // The group is between two coordinators, and the client looks for the new one.
                Some(
                    RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::DestroyBroker,
                ) => {
                    if begun.elapsed() >= limit {
                        return Ok(None);
                    }
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                _ => return Err(KafkaFault::of(FETCH_COMMITTED, &error)),
            }
        };
        for element in list.elements() {
            // Taking this for no position would mean reading all of the log once more.
            let answered = element.error();
            answered.map_err(|error| {
                KafkaFault::of(FETCH_COMMITTED, &error).at(element.topic(), element.partition())
            })?;
        }
        Ok(Some(positions(&list)))
    }

    /// The start of a partition's log.
    fn log_start(&self, place: &TopicPartition, limit: Duration) -> Result<Offset, KafkaFault> {
        let TopicPartition { topic, partition } = place;
        let (start, _) = watermarks(self.consumer.client(), topic, *partition, limit)?;
        Ok(start)
    }
}

/// Where a partition's log starts and ends; waits for the leader of a topic that was just created.
pub(super) fn watermarks<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: Partition,
    limit: Duration,
) -> Result<(Offset, Offset), KafkaFault> {
    const ACTION: &str = "ask where a partition starts and ends";
    let begun = Instant::now();
    loop {
        match client.fetch_watermarks(topic, partition.0, limit) {
            Ok((start, end)) => return Ok((Offset(start), Offset(end))),
            Err(error) if awaits_leader(&error) && begun.elapsed() < LEADER_LIMIT => {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Err(error) => return Err(KafkaFault::of(ACTION, &error).at(topic, partition.0)),
        }
    }
}

/// How long a partition may be without a leader that the client knows.
const LEADER_LIMIT: Duration = Duration::from_secs(10);

fn awaits_leader(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// Makes a client connect to a broker and learn who leads `topic`, within a bounded time. A client
/// that is asked for offsets or given partitions before it has a connection may rest for half a
/// second.
pub(super) fn connect<C: ConsumerContext>(client: &BaseConsumer<C>, topic: &str) {
    if let Err(error) = client.fetch_metadata(Some(topic), CONNECT_LIMIT) {
        tracing::debug!(%error, "no broker answers yet");
    }
}

const CONNECT_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn list_of(partitions: &[TopicPartition]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, partition.0);
    }
    list
}

fn topic_partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    elements
        .iter()
        .map(|element| TopicPartition {
            topic: element.topic().into(),
            partition: Partition(element.partition()),
        })
        .collect()
}

pub(super) fn positions(list: &TopicPartitionList) -> Vec<Position> {
    let elements = list.elements();
    elements
        .iter()
        .filter_map(|element| match element.offset() {
            ClientOffset::Offset(offset) => Some((
                TopicPartition {
                    topic: element.topic().into(),
                    partition: Partition(element.partition()),
                },
                Offset(offset),
            )),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use rdkafka::types::RDKafkaApiKey;

    use super::*;
    use crate::runtime::kafka::mock::MockBroker;

    /// When a broker goes, a group moves to another coordinator, and the old one is asked first.
    #[test]
    fn positions_are_asked_for_again_while_a_group_has_no_coordinator() {
        let MockBroker {
            cluster,
            mut config,
            events,
        } = MockBroker::start();
        config.request_timeout = Duration::from_secs(10);
        let waker = Waker::default();
        let member = GroupConsumer::connect(&config, "group".into(), "a-0", waker).unwrap();
        let not_here = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 3];
        cluster.request_errors(RDKafkaApiKey::OffsetFetch, &not_here);
        let limit = config.request_timeout;
        let committed = member
            .committed_reader()
            .committed(slice::from_ref(&events), limit, limit);
        let start = GroupPosition::LogStart(Offset(0));
        assert_eq!(committed, Ok(Some(vec![(events, start)])));
    }

    #[test]
    fn a_member_that_knows_no_broker_any_more_is_given_up() {
        let broker = MockBroker::start();
        let waker = Waker::default();
        let member = GroupConsumer::connect(&broker.config, "group".into(), "a-0", waker).unwrap();
        assert!(matches!(member.poll(), Ok(None)));
        member.consumer().context().brokers.forget_all();
        let fault = member.poll().err().unwrap();
        assert!(matches!(fault, KafkaFault::Retriable { .. }), "{fault}");
    }
}
