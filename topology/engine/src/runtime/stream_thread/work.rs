//! The tasks of a thread and the producer they write through: process, fire, commit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::shortcuts::Shortcuts;
use super::slot::TaskSlot;
use super::{ThreadFault, ThreadSetup};
use crate::record::{Origin, OutputRecord};
use crate::runtime::CommitStep;
use crate::runtime::kafka::{
    GroupConsumer, GroupOffsets, Position, Slot, TopicPartition, TransactionalProducer,
};
use crate::task::TaskError;
use crate::{InputRecord, Offset, Partition, TaskId, TaskStatus, TimestampMs, clock};

/// Timers that one task fires in one turn, so that a million due timers never starve the records.
const TIMERS_PER_TURN: usize = 1_000;

/// How many commits an interval may have when each time nothing is left to process.
const IDLE_COMMITS_PER_INTERVAL: u32 = 5;

/// The tasks of a thread and the producer they write through.
pub(super) struct Work<'a> {
    setup: &'a ThreadSetup,
    producer: TransactionalProducer,
    pub(super) tasks: BTreeMap<TaskId, TaskSlot>,
    /// Of each changelog partition: where the offset of the last record that was written here
    /// is found after a commit.
    changelogs: BTreeMap<Partition, Slot>,
    shortcuts: Shortcuts,
    /// What was sent while a record was processed, and is yet to be produced or taken over.
    sent: VecDeque<OutputRecord>,
    last_commit: Instant,
}

impl<'a> Work<'a> {
    pub(super) fn new(setup: &'a ThreadSetup, producer: TransactionalProducer) -> Self {
        Self {
            setup,
            producer,
            tasks: BTreeMap::new(),
            changelogs: BTreeMap::new(),
            shortcuts: Shortcuts::new(&setup.plan),
            sent: VecDeque::new(),
            last_commit: Instant::now(),
        }
    }

    /// Hands a record to its task; says whether the task runs and took it.
    pub(super) fn process(
        &mut self,
        task: TaskId,
        source: usize,
        record: &InputRecord<'_>,
    ) -> Result<bool, ThreadFault> {
        let Some(slot) = self.tasks.get_mut(&task) else {
            return Ok(false);
        };
        if slot.task.status() != TaskStatus::Running {
            return Ok(false);
        }
        let begun = Instant::now();
        let now = clock::now();
        let processed = slot.task.process(source, record, now)?;
        slot.count(source, processed);
        slot.dirty = true;
        self.sent.extend(slot.task.take_outputs());
        if !self.sent.is_empty() {
            let origin = slot.task.origin(source, record.offset);
            self.pass_on(&origin, now)?;
        }
        self.setup
            .metrics
            .process_latency
            .observe(begun.elapsed().as_secs_f64());
        self.setup
            .metrics
            .end_to_end_latency
            .observe(now.since(record.timestamp).as_secs_f64());
        Ok(true)
    }

    /// Hands what was sent for one record to its readers, and what those send; or produces it.
    fn pass_on(&mut self, origin: &Origin, now: TimestampMs) -> Result<(), ThreadFault> {
        while let Some(output) = self.sent.pop_front() {
            if !self.take_over(&output, origin, now)? {
                self.produce(output)?;
            }
        }
        Ok(())
    }

    /// Processes a record in the task that it is for, if that runs here and the way is open.
    fn take_over(
        &mut self,
        output: &OutputRecord,
        origin: &Origin,
        now: TimestampMs,
    ) -> Result<bool, ThreadFault> {
        let Some((task, source)) = self.shortcuts.reader(&output.topic, output.partition) else {
            return Ok(false);
        };
        let slot = self.tasks.get_mut(&task);
        let Some(slot) = slot.filter(|slot| slot.task.status() == TaskStatus::Running) else {
            return Ok(false);
        };
        let Some(processed) = slot.task.take_over(source, output, origin, now)? else {
            return Ok(false);
        };
        slot.count(source, processed);
        slot.dirty = true;
        self.sent.extend(slot.task.take_outputs());
        Ok(true)
    }

    fn produce(&mut self, output: OutputRecord) -> Result<(), ThreadFault> {
        let producer = &self.producer;
        let delivery = self
            .shortcuts
            .close(&output.topic, output.partition, || producer.slot());
        Ok(self.producer.send(output, delivery)?)
    }

    /// A task begins to run here, whose former owner may have sent what is before these ends.
    pub(super) fn begins(&mut self, repartition_ends: &[Position]) {
        for (place, end) in repartition_ends {
            self.shortcuts.begins(place, *end);
        }
        self.open_shortcuts();
    }

    fn open_shortcuts(&mut self) {
        let tasks = &self.tasks;
        self.shortcuts.open(|task, place| {
            let slot = tasks.get(&task)?;
            let (_, position) = slot.positions.get(place)?;
            (slot.task.status() == TaskStatus::Running).then_some(*position)
        });
    }

    /// Fires due timers and punctuators; says whether there were any.
    pub(super) fn fire_due(&mut self) -> Result<bool, ThreadFault> {
        let now = clock::now();
        let mut any = false;
        let mut sent = Vec::new();
        let running = self
            .tasks
            .values_mut()
            .filter(|slot| slot.task.status() == TaskStatus::Running);
        for slot in running.filter(|slot| slot.task.next_due().is_some_and(|due| due <= now)) {
            let metrics = &self.setup.metrics;
            let fired = slot.task.fire_due(now, TIMERS_PER_TURN, &mut |lateness| {
                metrics.observe_lateness(lateness);
            })?;
            if fired > 0 {
                let subtopology = slot.task.id().subtopology.to_string();
                let fired = u64::try_from(fired).unwrap_or(u64::MAX);
                metrics
                    .timers_fired
                    .with_label_values(&[&subtopology])
                    .inc_by(fired);
            }
            let outputs = slot.task.take_outputs();
            if fired > 0 || !outputs.is_empty() || slot.task.has_writes() {
                slot.dirty = true;
                any = true;
            }
            sent.extend(outputs);
        }
        for output in sent {
            self.produce(output)?;
        }
        Ok(any)
    }

    /// When the next timer or punctuator is due; never later than that.
    pub(super) fn next_due(&self) -> Option<TimestampMs> {
        let running = self
            .tasks
            .values()
            .filter(|slot| slot.task.status() == TaskStatus::Running);
        running.filter_map(|slot| slot.task.next_due()).min()
    }

    /// Has those tasks take part in the next commit whose stores know less of their changelog
    /// partition than was written to it here. Their own records are in them; but without a
    /// commit in which their groups take part nobody can tell, and what others write for long
    /// would all be read when they are restored.
    pub(super) fn catch_up(&mut self) {
        for (id, slot) in &mut self.tasks {
            let delivery = self.changelogs.get(&id.partition);
            let at = delivery.and_then(|delivery| self.producer.next_offset(*delivery));
            let is_running = slot.task.status() == TaskStatus::Running;
            slot.dirty |= is_running && at.is_some_and(|at| slot.is_behind(at));
        }
    }

    /// Serves the producer's delivery reports.
    pub(super) fn serve(&self) {
        self.producer.serve();
    }

    /// Whether to commit now: when the interval is over or too much is uncommitted;
    /// and when there is nothing left to process, unless the last commit was a
    /// moment ago. (A commit writes a marker to every partition that it touched, so
    /// a trickle of records must not make one each.)
    pub(super) fn commit_is_due(&self, idle: bool) -> bool {
        if self.until_commit(idle).is_zero() {
            return true;
        }
        let bytes: usize = self
            .tasks
            .values()
            .map(|slot| slot.task.uncommitted_bytes())
            .sum();
        bytes >= self.setup.config.uncommitted_bytes_max
    }

    /// How long a commit can wait.
    pub(super) fn until_commit(&self, idle: bool) -> Duration {
        let interval = self.setup.config.commit_interval;
        let early = idle && self.tasks.values().any(|slot| slot.dirty);
        let limit = if early {
            interval / IDLE_COMMITS_PER_INTERVAL
        } else {
            interval
        };
        limit.saturating_sub(self.last_commit.elapsed())
    }

    /// Commits what all tasks have done:
    ///
    /// 1. Changelog records of all uncommitted writes join the transaction.
    /// 2. The positions of **all** source groups of every task that has anything to
    ///    commit join it, with each member's generation: that is the fence.
    /// 3. The transaction commits.
    /// 4. Each task's writes and the changelog offset they reach go to its stores
    ///    in one batch.
    ///
    /// A crash before 3 leaves nothing; after 3 the stores follow from the changelogs.
    pub(super) fn commit(&mut self, consumers: &[GroupConsumer]) -> Result<(), ThreadFault> {
        let begun = Instant::now();
        let moved = self.take_positions(consumers)?;
        if moved.is_empty() {
            self.last_commit = begun;
            return Ok(());
        }
        let now = clock::now();
        // 1.
        for id in &moved {
            self.send_changelog(*id, now)?;
        }
        self.has_done(CommitStep::ChangelogSent);
        // 2. and 3.
        let groups = self.group_offsets(&moved, consumers)?;
        self.producer.commit(groups)?;
        self.has_done(CommitStep::TransactionCommitted);
        // 4.
        for id in &moved {
            self.apply(*id)?;
            self.has_done(CommitStep::TaskStored);
        }
        self.has_done(CommitStep::AllStored);
        let producer = &self.producer;
        self.shortcuts.committed(|slot| producer.next_offset(slot));
        self.open_shortcuts();
        self.last_commit = Instant::now();
        self.setup.metrics.commits.inc();
        self.setup
            .metrics
            .commit_latency
            .observe(begun.elapsed().as_secs_f64());
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

    /// Reads the consumers' positions; the tasks that have anything to commit.
    fn take_positions(&mut self, consumers: &[GroupConsumer]) -> Result<Vec<TaskId>, ThreadFault> {
        let mut positions: HashMap<(Arc<str>, TopicPartition), Offset> = HashMap::new();
        for consumer in consumers {
            let of_group = consumer.positions()?.into_iter();
            positions
                .extend(of_group.map(|(place, offset)| ((consumer.group.clone(), place), offset)));
        }
        let mut moved = Vec::new();
        for (id, slot) in &mut self.tasks {
            if slot.task.status() != TaskStatus::Running {
                continue;
            }
            let mut any = slot.dirty;
            for (place, (group, next)) in &mut slot.positions {
                let at = positions.get(&(group.clone(), place.clone()));
                if let Some(at) = at.filter(|at| **at > *next) {
                    *next = *at;
                    any = true;
                }
            }
            if any {
                moved.push(*id);
            }
        }
        Ok(moved)
    }

    fn send_changelog(&mut self, id: TaskId, now: TimestampMs) -> Result<(), ThreadFault> {
        let Some(slot) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        for record in slot.task.changelog_records(now) {
            let delivery = self.changelogs.entry(id.partition);
            let delivery = *delivery.or_insert_with(|| self.producer.slot());
            self.producer.send(record, Some(delivery))?;
        }
        Ok(())
    }

    fn group_offsets(
        &self,
        moved: &[TaskId],
        consumers: &[GroupConsumer],
    ) -> Result<Vec<GroupOffsets>, ThreadFault> {
        let mut by_group: BTreeMap<&Arc<str>, Vec<Position>> = BTreeMap::new();
        for slot in moved.iter().filter_map(|id| self.tasks.get(id)) {
            for (place, (group, next)) in &slot.positions {
                by_group
                    .entry(group)
                    .or_default()
                    .push((place.clone(), *next));
            }
        }
        let mut groups = Vec::with_capacity(by_group.len());
        for consumer in consumers {
            if let Some(positions) = by_group.remove(&consumer.group) {
                groups.push(GroupOffsets {
                    metadata: consumer.metadata()?,
                    positions,
                });
            }
        }
        Ok(groups)
    }

    fn apply(&mut self, id: TaskId) -> Result<(), ThreadFault> {
        let Some(slot) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        // Nobody else has written for this task before what was written here for others: its
        // own groups were in the transaction too.
        let delivery = self.changelogs.get(&id.partition);
        let reached = delivery.and_then(|delivery| self.producer.next_offset(*delivery));
        let reached = reached.filter(|at| slot.is_behind(*at));
        slot.reached = reached.or(slot.reached);
        let written = if self.setup.queries.anyone_waits() {
            slot.task.written_keys()
        } else {
            Vec::new()
        };
        let batch = slot.task.take_batch(reached);
        if !batch.is_empty() {
            slot.task
                .backend()
                .write(batch)
                .map_err(|error| TaskError::of_state(id, error))?;
        }
        slot.dirty = false;
        for (place, (group, next)) in &slot.positions {
            self.setup.lag.committed(group, place, *next);
        }
        slot.publish_counts(&self.setup.metrics);
        self.setup.queries.tell(id, written.into_iter());
        Ok(())
    }

    /// Ends the open transaction without a trace, as far as the cluster can be reached.
    pub(super) fn abort(&mut self) {
        if let Err(fault) = self.producer.abort() {
            tracing::debug!(%fault, "the open transaction is left to its time-out or the next producer");
        }
    }
}
