//! A commit, in two halves between which the tasks go on.
//!
//! Begin, on the stream thread:
//!
//! 1. Each task's writes are sealed, and their changelog records join the transaction.
//! 2. The positions of **all** source groups of every task that has anything to commit are taken,
//!    with each member's generation. What tasks do from here on belongs to the next transaction.
//!
//! On the producer's own thread:
//!
//! 3. When all records are delivered, the positions join the transaction: that is the fence.
//! 4. The transaction commits.
//!
//! Finish, on the stream thread:
//!
//! 5. Each task's sealed writes, and the changelog offset they reach, go to its stores in one
//!    batch. Those who wait for them are notified.
//!
//! A crash before 4 leaves nothing; after 4 the stores follow from the changelogs.
//!
//! The next transaction of a task reads what is sealed, so it must never be committed without it.
//! It never is: nothing of it, be it an output, a changelog record or a position, is given to a
//! client before 4 has succeeded, and a task has at most one commit under way. If 3 or 4 fails, the
//! membership ends, and both transactions are dropped with it. So each transaction is what it would
//! be if the thread had waited.
//!
//! Components do not read what others have sealed, so they need not share a transaction. They do,
//! because that costs the least, except those whose timers have fired: these commit in another,
//! small transaction, so that what has to be visible in time does not wait for everything else.
//!
//! `schedule.rs` says when a commit begins, and what is in it.
//!
//! What is uncommitted is bounded: if a commit takes long, the thread waits for it before it
//! processes more. A thread that lets go of tasks waits as well: [`Works::commit`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::changelog_ends::ChangelogEnds;
use super::schedule::{Pending, Resting, Schedule};
use super::slot::{Counts, SourcePosition};
use super::work::Work;
use super::works::Works;
use super::{ThreadFault, ThreadSetup};
use crate::runtime::kafka::{
    GroupConsumer, GroupOffsets, KafkaFault, Outbox, Position, TopicPartition,
    TransactionalProducer,
};
use crate::runtime::transactions::Transaction;
use crate::runtime::{CommitStep, Metrics};
use crate::topology::Component;
use crate::{Offset, TaskId};

/// This many records of a component are worth giving to the client before the commit. Fewer wait
/// for it: the first record after a commit often finds the coordinator busy with the markers of the
/// last one, and the client then rests for 20 ms. And each time costs the client and its brokers a
/// request per partition, however few records are in it.
const HELD_MAX: usize = 8_000;

/// What is committed of a task.
pub(super) struct Committing {
    pub(super) id: TaskId,
    pub(super) positions: Vec<SourcePosition>,
    /// When it was sealed.
    pub(super) sealed: SystemTime,
    pub(super) counts: Counts,
    /// How far its changelog partition was known to be written when the commit began.
    pub(super) changelog_end: Option<Offset>,
}

struct UnderWay {
    begun: Instant,
    parts: Vec<(Component, Vec<Committing>)>,
}

/// One of the transactions of a thread: its producer, and the commit that is under way.
struct Committer {
    producer: TransactionalProducer,
    under_way: Option<UnderWay>,
    last_finished: Instant,
}

impl Committer {
    fn new(producer: TransactionalProducer) -> Self {
        Self {
            producer,
            under_way: None,
            last_finished: Instant::now(),
        }
    }
}

/// The transactions of a thread.
pub(super) struct Committers(BTreeMap<Transaction, Committer>);

impl Committers {
    /// Of these producers, one of which is for the records.
    pub(super) fn new(
        producers: impl IntoIterator<Item = (Transaction, TransactionalProducer)>,
    ) -> Self {
        let committers = producers
            .into_iter()
            .map(|(of, producer)| (of, Committer::new(producer)));
        Self(committers.collect())
    }

    /// The transaction of a component's next commit.
    fn next_of(&self, work: &Work<'_>) -> Transaction {
        let hurries = work.has_fired() && !work.has_joined;
        if hurries && self.0.contains_key(&Transaction::Timers) {
            Transaction::Timers
        } else {
            Transaction::Records
        }
    }

    /// Whether a commit of a component is under way.
    fn is_committing(&self, component: Component) -> bool {
        let mut under_way = self
            .0
            .values()
            .filter_map(|committer| committer.under_way.as_ref());
        under_way.any(|under_way| under_way.parts.iter().any(|(of, _)| *of == component))
    }

    /// Takes what a component has sent into the open transaction of the records, if there is much
    /// of it, its next commit is in that transaction and none is under way.
    pub(super) fn take_early(
        &mut self,
        component: Component,
        work: &mut Work<'_>,
    ) -> Result<(), ThreadFault> {
        let is_much = work.outbox.len() >= HELD_MAX;
        let is_next = self.next_of(work) == Transaction::Records;
        if !is_much || !is_next || self.is_committing(component) {
            return Ok(());
        }
        let records = self.0.get_mut(&Transaction::Records);
        let free = records.filter(|records| !records.producer.is_committing());
        if let Some(records) = free {
            records.producer.hand_over(&mut work.outbox)?;
            work.has_joined = true;
        }
        Ok(())
    }

    /// Serves the delivery reports of the producers.
    pub(super) fn serve(&self) {
        for committer in self.0.values() {
            committer.producer.serve();
        }
    }

    /// Aborts the open transactions, as far as the cluster can be reached.
    pub(super) fn abort(&mut self, metrics: &Metrics) {
        for (transaction, committer) in &mut self.0 {
            let dropped = committer.producer.abort();
            if let Err(fault) = &dropped {
                tracing::debug!(%fault, "the open transaction is left to its time-out or the next producer");
            }
            if dropped.unwrap_or(true) {
                metrics.count_aborted(*transaction);
            }
        }
    }
}

impl Works<'_> {
    /// Begins the commits that are due, at positions that are asked for only if any is. `idle`:
    /// nothing is left to process.
    pub(super) fn begin_due_commits(
        &mut self,
        idle: bool,
        consumers: &[GroupConsumer],
        positions: impl FnOnce() -> Result<BTreeMap<TopicPartition, Offset>, ThreadFault>,
    ) -> Result<(), ThreadFault> {
        let due = self.schedule().due(idle);
        if due.is_empty() {
            return Ok(());
        }
        let positions = positions()?;
        for (transaction, components) in due {
            self.begin_commit(transaction, components, consumers, &positions)?;
        }
        Ok(())
    }

    /// Whether a commit has to begin although there is more to process, or nothing may be added
    /// while one is under way.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.schedule().left(false) == Some(Duration::ZERO) || self.is_full()
    }

    /// How long the next commit can wait to begin when nothing is left to process. (A producer
    /// wakes the thread when the one that is under way can be finished.)
    pub(super) fn until_commit(&self) -> Duration {
        self.schedule().left(true).unwrap_or(Duration::MAX)
    }

    fn schedule(&self) -> Schedule {
        let committers = self.committers.0.iter();
        let resting = committers.filter(|(_, committer)| committer.under_way.is_none());
        let resting = resting.map(|(transaction, committer)| Resting {
            transaction: *transaction,
            since: committer.last_finished.elapsed(),
        });
        let pending = self.free().map(|(component, work)| Pending {
            component,
            transaction: self.committers.next_of(work),
            left: work.until_commit(),
            is_awaited: work.is_awaited(),
        });
        Schedule {
            interval: self.setup.config.commit_interval,
            is_half_full: self.is_half_full(),
            resting: resting.collect(),
            pending: pending.collect(),
        }
    }

    /// The components without a commit under way.
    fn free(&self) -> impl Iterator<Item = (Component, &Work<'_>)> {
        let committers = &self.committers;
        self.iter()
            .filter(|(component, _)| !committers.is_committing(*component))
    }

    /// Commits what all tasks have done, all together, and waits for it.
    pub(super) fn commit(
        &mut self,
        consumers: &[GroupConsumer],
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ThreadFault> {
        self.wait_until_finished()?;
        self.catch_up(|_| true);
        let all = self.iter().map(|(component, _)| component).collect();
        self.begin_commit(Transaction::Records, all, consumers, positions)?;
        self.wait_until_finished()
    }

    /// Begins to commit what the tasks of these components have done, if anything, and that they
    /// have reached `positions`. No commit of this transaction or of one of these components may be
    /// under way.
    fn begin_commit(
        &mut self,
        transaction: Transaction,
        components: Vec<Component>,
        consumers: &[GroupConsumer],
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ThreadFault> {
        let begun = Instant::now();
        let Self {
            setup,
            works,
            committers,
            ends,
            ..
        } = self;
        let committer = committers.0.get_mut(&transaction);
        let committer = committer.expect("a commit is of a transaction that the thread has");
        let mut parts = Vec::with_capacity(components.len());
        let mut outbox = Outbox::default();
        for component in components {
            let work = part(works, component);
            let sealed = work.seal(positions, ends);
            if !sealed.is_empty() {
                parts.push((component, sealed));
                outbox.append(&mut work.outbox);
            }
        }
        assert!(
            transaction != Transaction::Records || works.iter().all(|work| !work.has_joined),
            "who has records in a transaction commits with it"
        );
        if parts.is_empty() {
            return Ok(());
        }
        has_done(setup, works, CommitStep::ChangelogSent);
        let tasks = parts.iter().flat_map(|(_, tasks)| tasks);
        let groups = group_offsets(tasks, consumers)?;
        committer.under_way = Some(UnderWay { begun, parts });
        Ok(committer.producer.begin_commit(outbox, groups)?)
    }

    /// Finishes the commits under way whose transactions are committed.
    pub(super) fn finish_committed(&mut self) -> Result<(), ThreadFault> {
        self.finish_if(TransactionalProducer::committed)
    }

    /// Waits for the commits under way if too much is uncommitted to process more.
    pub(super) fn finish_if_full(&mut self) -> Result<(), ThreadFault> {
        let mut committers = self.committers.0.values();
        if committers.any(|committer| committer.under_way.is_some()) && self.is_full() {
            self.wait_until_finished()?;
        }
        Ok(())
    }

    fn wait_until_finished(&mut self) -> Result<(), ThreadFault> {
        self.finish_if(|producer| producer.wait_committed().map(|()| true))
    }

    /// Finishes those of the commits under way for which `is_committed` holds.
    fn finish_if(
        &mut self,
        is_committed: impl Fn(&mut TransactionalProducer) -> Result<bool, KafkaFault>,
    ) -> Result<(), ThreadFault> {
        let Self {
            setup,
            works,
            committers,
            ends,
            ..
        } = self;
        for (transaction, committer) in &mut committers.0 {
            if committer.under_way.is_some()
                && is_committed(&mut committer.producer)?
                && let Some(under_way) = committer.under_way.take()
            {
                finish(setup, works, ends, *transaction, under_way)?;
                committer.last_finished = Instant::now();
            }
        }
        Ok(())
    }

    fn uncommitted_bytes(&self) -> usize {
        let works = self.iter();
        works.map(|(_, work)| work.uncommitted_bytes()).sum()
    }

    /// Whether so much is not yet in any commit that one has to begin, to leave room for what comes
    /// while it is under way.
    fn is_half_full(&self) -> bool {
        let bytes: usize = self.free().map(|(_, work)| work.uncommitted_bytes()).sum();
        bytes >= self.setup.config.uncommitted_bytes_max / 2
    }

    /// Whether nothing more may be added to what is uncommitted.
    fn is_full(&self) -> bool {
        self.uncommitted_bytes() >= self.setup.config.uncommitted_bytes_max
    }
}

/// Takes over what is committed.
fn finish(
    setup: &ThreadSetup,
    works: &mut [Work<'_>],
    ends: &mut ChangelogEnds,
    transaction: Transaction,
    UnderWay { begun, parts }: UnderWay,
) -> Result<(), ThreadFault> {
    has_done(setup, works, CommitStep::TransactionCommitted);
    // Of this transaction only: what the other has committed meanwhile may have been delivered
    // after the groups had joined this one.
    let mut written = ChangelogEnds::default();
    for (component, _) in &parts {
        part(works, *component).note_ends(&mut written);
        part(works, *component).note_ends(ends);
    }
    for (component, tasks) in parts {
        for task in tasks {
            part(works, component).store(task, &written)?;
            has_done(setup, works, CommitStep::TaskStored);
        }
        part(works, component).finish();
    }
    has_done(setup, works, CommitStep::AllStored);
    setup.metrics.committed(transaction, begun.elapsed());
    Ok(())
}

/// The tasks of a component.
fn part<'a, 'b>(works: &'a mut [Work<'b>], Component(number): Component) -> &'a mut Work<'b> {
    let part = works.get_mut(number);
    part.expect("a thread has all components of its plan")
}

fn has_done(setup: &ThreadSetup, works: &[Work<'_>], step: CommitStep) {
    if let Some(hook) = setup.config.on_commit_step {
        hook(step, &|| {
            let mut slots = works.iter().flat_map(|work| work.tasks.values());
            slots.try_for_each(|slot| slot.task.backend().flush())
        });
    }
}

/// The positions of these tasks by group, with each member's generation.
fn group_offsets<'a>(
    tasks: impl Iterator<Item = &'a Committing>,
    consumers: &[GroupConsumer],
) -> Result<Vec<GroupOffsets>, ThreadFault> {
    let mut by_group: BTreeMap<&Arc<str>, Vec<Position>> = BTreeMap::new();
    for SourcePosition { place, group, next } in tasks.flat_map(|task| &task.positions) {
        let of_group = by_group.entry(group).or_default();
        of_group.push((place.clone(), *next));
    }
    let mut groups = Vec::with_capacity(by_group.len());
    for consumer in consumers {
        if let Some(positions) = by_group.remove(&consumer.group) {
            groups.push(GroupOffsets {
                generation: consumer.generation()?,
                positions,
            });
        }
    }
    Ok(groups)
}
