//! A commit, in two halves between which the tasks go on.
//!
//! Begin, on the stream thread:
//!
//! 1. Each task's writes are sealed, and their changelog records join the transaction.
//! 2. The positions of **all** source groups of every task that has anything to commit are
//!    taken, with each member's generation. What tasks do from here on is of the next
//!    transaction.
//!
//! On the producer's own thread:
//!
//! 3. When all records are delivered, the positions join the transaction: that is the fence.
//! 4. The transaction commits.
//!
//! Finish, on the stream thread:
//!
//! 5. Each task's sealed writes, and the changelog offset they reach, go to its stores in
//!    one batch. Whoever waits for them is told.
//!
//! A crash before 4 leaves nothing; after 4 the stores follow from the changelogs.
//!
//! The next transaction reads what is sealed, so it may never be committed without it. It is
//! not: nothing of it, be it an output, a changelog record or a position, is given to the
//! client before 4 has succeeded, and one commit is under way at most. Where 3 or 4 fail, the
//! membership ends, and both transactions are dropped with it. So each transaction is what
//! it would be if the thread had waited.
//!
//! What is uncommitted is bounded: where a commit takes its time, the thread waits for it
//! before it processes more. Whoever lets go of tasks waits as well: [`Work::commit`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ThreadFault;
use super::slot::{Counts, SourcePosition};
use super::work::Work;
use crate::runtime::CommitStep;
use crate::runtime::kafka::{GroupConsumer, GroupOffsets, Position, TopicPartition};
use crate::task::TaskError;
use crate::{Offset, TaskId, TimestampMs, clock};

/// How many commits an interval may have when each time nothing is left to process. The
/// pause is one between the end of a commit and the begin of the next.
const IDLE_COMMITS_PER_INTERVAL: u32 = 5;

/// When commits begin and end, and what the one under way commits.
pub(super) struct Commits {
    under_way: Option<UnderWay>,
    last_begun: Instant,
    last_finished: Instant,
}

struct UnderWay {
    begun: Instant,
    tasks: Vec<Committing>,
}

/// What is committed of a task.
struct Committing {
    id: TaskId,
    positions: Vec<SourcePosition>,
    counts: Counts,
}

impl Commits {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            under_way: None,
            last_begun: now,
            last_finished: now,
        }
    }
}

impl Work<'_> {
    /// Whether to begin a commit now: when the interval is over or so much is uncommitted
    /// that there has to be room for what comes while it is under way, or enough timers were
    /// fired; and when there is
    /// nothing left to process, unless the last commit was a moment ago. (A commit writes a
    /// marker to every partition that it touched, so a trickle of records must not make one
    /// each.) Not while one is under way.
    pub(super) fn commit_is_due(&self, idle: bool) -> bool {
        if self.commits.under_way.is_some() {
            return false;
        }
        let bytes_max = self.setup.config.uncommitted_bytes_max;
        self.until_commit(idle).is_zero() || self.uncommitted_bytes() >= bytes_max / 2
    }

    /// Whether the interval between two commits is over, or so much is uncommitted that one has
    /// to begin, or that nothing may be added while one is under way.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.commit_is_due(false) || self.is_full()
    }

    /// How long the begin of a commit can wait. (The producer wakes the thread when the one
    /// under way can be finished.)
    pub(super) fn until_commit(&self, idle: bool) -> Duration {
        let commits = &self.commits;
        if commits.under_way.is_some() {
            return Duration::MAX;
        }
        if self.has_fired_enough() {
            return Duration::ZERO;
        }
        let interval = self.setup.config.commit_interval;
        let left = interval.saturating_sub(commits.last_begun.elapsed());
        if !idle || !self.tasks.values().any(|slot| slot.dirty) {
            return left;
        }
        let pause = interval / IDLE_COMMITS_PER_INTERVAL;
        left.min(pause.saturating_sub(commits.last_finished.elapsed()))
    }

    fn uncommitted_bytes(&self) -> usize {
        let tasks = self.tasks.values();
        let written: usize = tasks.map(|slot| slot.task.uncommitted_bytes()).sum();
        written + self.producer.held_bytes()
    }

    /// Commits what all tasks have done, and waits for it.
    pub(super) fn commit(
        &mut self,
        consumers: &[GroupConsumer],
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ThreadFault> {
        self.wait_until_finished()?;
        self.begin_commit(consumers, positions)?;
        self.wait_until_finished()
    }

    /// Begins to commit what all tasks have done, if that is anything, and that they have
    /// come to `positions`. None may be under way.
    pub(super) fn begin_commit(
        &mut self,
        consumers: &[GroupConsumer],
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), ThreadFault> {
        let begun = Instant::now();
        self.commits.last_begun = begun;
        self.timers_fired = 0;
        let moved = self.take_positions(positions);
        if moved.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let mut tasks = Vec::with_capacity(moved.len());
        for id in moved {
            tasks.extend(self.seal(id, now)?);
        }
        self.has_done(CommitStep::ChangelogSent);
        let groups = group_offsets(&tasks, consumers)?;
        self.shortcuts.sealed();
        self.commits.under_way = Some(UnderWay { begun, tasks });
        Ok(self.producer.begin_commit(groups)?)
    }

    /// Finishes the commit under way, if its transaction is committed.
    pub(super) fn finish_if_committed(&mut self) -> Result<(), ThreadFault> {
        if self.commits.under_way.is_some() && self.producer.committed()? {
            self.finish()?;
        }
        Ok(())
    }

    /// Waits for the commit under way if too much is uncommitted to process more.
    pub(super) fn finish_if_full(&mut self) -> Result<(), ThreadFault> {
        if self.commits.under_way.is_some() && self.is_full() {
            self.wait_until_finished()?;
        }
        Ok(())
    }

    /// Whether nothing more may be added to what is uncommitted.
    fn is_full(&self) -> bool {
        self.uncommitted_bytes() >= self.setup.config.uncommitted_bytes_max
    }

    fn wait_until_finished(&mut self) -> Result<(), ThreadFault> {
        self.producer.wait_committed()?;
        self.finish()
    }

    /// Ends the transaction of a task, whose changelog records join the thread's.
    fn seal(&mut self, id: TaskId, now: TimestampMs) -> Result<Option<Committing>, ThreadFault> {
        let Some(slot) = self.tasks.get_mut(&id) else {
            return Ok(None);
        };
        slot.task.seal();
        slot.dirty = false;
        if let Some(records) = slot.task.changelog_records(now) {
            let delivery = self.changelogs.entry(id.partition);
            let delivery = *delivery.or_insert_with(|| self.producer.slot());
            self.producer.send_changelog(records, delivery);
        }
        Ok(Some(Committing {
            id,
            positions: slot.positions.clone(),
            counts: slot.take_counts(),
        }))
    }

    /// Takes over what is committed.
    fn finish(&mut self) -> Result<(), ThreadFault> {
        let Some(UnderWay { begun, tasks }) = self.commits.under_way.take() else {
            return Ok(());
        };
        self.has_done(CommitStep::TransactionCommitted);
        for task in tasks {
            self.store(task)?;
            self.has_done(CommitStep::TaskStored);
        }
        self.has_done(CommitStep::AllStored);
        let producer = &self.producer;
        self.shortcuts.committed(|slot| producer.next_offset(slot));
        self.open_shortcuts();
        self.commits.last_finished = Instant::now();
        self.setup.metrics.commits.inc();
        self.setup
            .metrics
            .commit_latency
            .observe(begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn store(&mut self, committed: Committing) -> Result<(), ThreadFault> {
        let Committing {
            id,
            positions,
            counts,
        } = committed;
        let Some(slot) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        // Nobody else has written for this task before what was written here for others: its
        // own groups were in the transaction too.
        let delivery = self.changelogs.get(&id.partition);
        let reached = delivery.and_then(|delivery| self.producer.next_offset(*delivery));
        let reached = reached.filter(|at| slot.is_behind(*at));
        slot.reached = reached.or(slot.reached);
        let queries = &self.setup.queries;
        let anyone_waits = queries.anyone_waits();
        let written = if anyone_waits {
            slot.task.written_keys()
        } else {
            Vec::new()
        };
        let batch = slot.task.take_batch(reached);
        let is_written = !batch.is_empty();
        if is_written {
            slot.task
                .backend()
                .write(batch)
                .map_err(|error| TaskError::of_state(id, error))?;
        }
        for SourcePosition { place, group, next } in &positions {
            self.setup.lag.committed(group, place, *next);
        }
        slot.publish(counts, &self.setup.metrics);
        queries.tell(id, written.into_iter());
        // Who began to wait meanwhile may have looked before the batch was written.
        if is_written && !anyone_waits && queries.anyone_waits() {
            queries.tell_of_any_key(id);
        }
        Ok(())
    }

    fn has_done(&self, step: CommitStep) {
        if let Some(hook) = self.setup.config.on_commit_step {
            hook(step, &|| {
                let mut slots = self.tasks.values();
                slots.try_for_each(|slot| slot.task.backend().flush())
            });
        }
    }
}

/// The positions of these tasks by group, with each member's generation.
fn group_offsets(
    tasks: &[Committing],
    consumers: &[GroupConsumer],
) -> Result<Vec<GroupOffsets>, ThreadFault> {
    let mut by_group: BTreeMap<&Arc<str>, Vec<Position>> = BTreeMap::new();
    for SourcePosition { place, group, next } in tasks.iter().flat_map(|task| &task.positions) {
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
