//! The tasks of a thread and the producer they write through: process and fire.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::commit::Commits;
use super::readings::Reader;
use super::shortcuts::Shortcuts;
use super::slot::{SourcePosition, TaskSlot};
use super::{ThreadFault, ThreadSetup};
use crate::record::{Origin, OutputRecord};
use crate::runtime::kafka::{KafkaFault, Position, Slot, TopicPartition, TransactionalProducer};
use crate::{InputRecord, Offset, Partition, TaskId, TaskStatus, TimestampMs, clock};

/// Timers that one task fires in one turn, so that a million due timers never starve the records.
const TIMERS_PER_TURN: usize = 250;
/// Timers that all tasks fire in one transaction: records of the same transaction wait for it.
const TIMERS_PER_COMMIT: usize = 4_000;

/// Records that skip their topic in consequence of one: what goes in a circle comes round to
/// commits and to other records only through the topic.
const TAKEN_OVER_PER_RECORD: usize = 1_000;

/// The tasks of a thread and the producer they write through.
pub(super) struct Work<'a> {
    pub(super) setup: &'a ThreadSetup,
    pub(super) producer: TransactionalProducer,
    pub(super) tasks: BTreeMap<TaskId, TaskSlot>,
    /// Of each changelog partition: where the offset of the last record that was written here
    /// is found after a commit.
    pub(super) changelogs: BTreeMap<Partition, Slot>,
    pub(super) shortcuts: Shortcuts,
    pub(super) commits: Commits,
    /// Timers that were fired since the last commit began.
    pub(super) timers_fired: usize,
    /// What was sent while a record was processed, and is yet to be produced or taken over.
    sent: VecDeque<OutputRecord>,
}

impl<'a> Work<'a> {
    pub(super) fn new(setup: &'a ThreadSetup, producer: TransactionalProducer) -> Self {
        Self {
            setup,
            producer,
            tasks: BTreeMap::new(),
            changelogs: BTreeMap::new(),
            shortcuts: Shortcuts::new(&setup.plan),
            commits: Commits::new(),
            timers_fired: 0,
            sent: VecDeque::new(),
        }
    }

    /// Hands a record to the tasks that read it. What one of them has read before is passed
    /// over.
    pub(super) fn process(
        &mut self,
        readers: &[Reader],
        record: &InputRecord<'_>,
    ) -> Result<(), ThreadFault> {
        // A turn has many records, and somebody waits for what is committed.
        self.finish_if_committed()?;
        let begun = Instant::now();
        let now = clock::now();
        for reader in readers {
            if !self.process_in(*reader, record, now)? {
                return Err(unrouted(reader.task));
            }
        }
        let metrics = &self.setup.metrics;
        metrics
            .process_latency
            .observe(begun.elapsed().as_secs_f64());
        metrics
            .end_to_end_latency
            .observe(now.since(record.timestamp).as_secs_f64());
        Ok(())
    }

    /// Hands a record to a task; says whether it runs.
    fn process_in(
        &mut self,
        Reader { task, source }: Reader,
        record: &InputRecord<'_>,
        now: TimestampMs,
    ) -> Result<bool, ThreadFault> {
        let Some(slot) = self.tasks.get_mut(&task) else {
            return Ok(false);
        };
        if slot.task.status() != TaskStatus::Running {
            return Ok(false);
        }
        let Some(position) = slot.positions.get_mut(source) else {
            return Ok(false);
        };
        if record.offset < position.next {
            return Ok(true);
        }
        position.next = Offset(record.offset.0 + 1);
        let processed = slot.task.process(source, record, now)?;
        slot.count(source, processed);
        slot.dirty = true;
        slot.take_outputs_into(&mut self.sent);
        if !self.sent.is_empty() {
            let origin = slot.task.origin(source, record.offset);
            self.pass_on(&origin, now)?;
        }
        Ok(true)
    }

    /// Hands what was sent for one record to its readers, and what those send; or produces it.
    fn pass_on(&mut self, origin: &Origin, now: TimestampMs) -> Result<(), ThreadFault> {
        let mut taken_over = 0;
        while let Some(output) = self.sent.pop_front() {
            if taken_over < TAKEN_OVER_PER_RECORD && self.take_over(&output, origin, now)? {
                taken_over += 1;
            } else {
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
        slot.take_outputs_into(&mut self.sent);
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

    pub(super) fn open_shortcuts(&mut self) {
        let tasks = &self.tasks;
        self.shortcuts.open(|task, place| {
            let slot = tasks.get(&task)?;
            let position = slot.position(place)?;
            (slot.task.status() == TaskStatus::Running).then_some(position)
        });
    }

    /// Whether as many timers were fired as go into one transaction: the next ones are fired
    /// when its commit has begun.
    pub(super) fn has_fired_enough(&self) -> bool {
        self.timers_fired >= TIMERS_PER_COMMIT
    }

    /// Fires due timers and punctuators; says whether there were any.
    pub(super) fn fire_due(&mut self) -> Result<bool, ThreadFault> {
        if self.has_fired_enough() {
            return Ok(false);
        }
        let now = clock::now();
        let mut any = false;
        let mut sent = Vec::new();
        let is_due = |slot: &TaskSlot| {
            let running = slot.task.status() == TaskStatus::Running;
            running && slot.task.next_due(now).is_some_and(|due| due <= now)
        };
        // Each gets its share of what is left.
        let due = self.tasks.values().filter(|slot| is_due(slot)).count();
        let left = TIMERS_PER_COMMIT - self.timers_fired;
        let limit = (left / due.max(1)).clamp(1, TIMERS_PER_TURN);
        for slot in self.tasks.values_mut().filter(|slot| is_due(slot)) {
            let metrics = &self.setup.metrics;
            let fired = slot.task.fire_due(now, limit, &mut |lateness| {
                metrics.observe_lateness(lateness);
            })?;
            self.timers_fired += fired;
            if fired > 0 {
                let subtopology = slot.task.id().subtopology.to_string();
                let fired = u64::try_from(fired).unwrap_or(u64::MAX);
                metrics
                    .timers_fired
                    .with_label_values(&[&subtopology])
                    .inc_by(fired);
            }
            let before = sent.len();
            slot.take_outputs_into(&mut sent);
            if fired > 0 || sent.len() > before || slot.task.has_writes() {
                slot.dirty = true;
                any = true;
            }
        }
        for output in sent {
            self.produce(output)?;
        }
        Ok(any)
    }

    /// When the next timer or punctuator can be fired; never later than that. None can before
    /// the next commit begins, where enough were fired.
    pub(super) fn next_due(&self, now: TimestampMs) -> Option<TimestampMs> {
        if self.has_fired_enough() {
            return None;
        }
        let running = self
            .tasks
            .values()
            .filter(|slot| slot.task.status() == TaskStatus::Running);
        running.filter_map(|slot| slot.task.next_due(now)).min()
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

    /// Moves on to these positions, past the markers of transactions; the tasks that have
    /// anything to commit.
    pub(super) fn take_positions(
        &mut self,
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Vec<TaskId> {
        let mut moved = Vec::new();
        for (id, slot) in &mut self.tasks {
            if slot.task.status() != TaskStatus::Running {
                continue;
            }
            let mut any = slot.dirty;
            for SourcePosition { place, next, .. } in &mut slot.positions {
                let at = positions.get(place);
                if let Some(at) = at.filter(|at| **at > *next) {
                    *next = *at;
                    any = true;
                }
            }
            if any {
                moved.push(*id);
            }
        }
        moved
    }

    /// Ends the open transaction without a trace, as far as the cluster can be reached.
    pub(super) fn abort(&mut self) {
        if let Err(fault) = self.producer.abort() {
            tracing::debug!(%fault, "the open transaction is left to its time-out or the next producer");
        }
    }
}

/// A record came for a task that does not run, or a task begins without its positions.
pub(super) fn unrouted(task: TaskId) -> ThreadFault {
    ThreadFault::Rejoin(KafkaFault::Retriable {
        action: "hand a record to its task",
        reason: format!("task {task} does not run here, or not at its positions"),
    })
}
