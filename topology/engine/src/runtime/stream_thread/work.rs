//! The tasks of a thread and the producer they write through: process and fire.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::commit::Commits;
use super::shortcuts::Shortcuts;
use super::slot::TaskSlot;
use super::{ThreadFault, ThreadSetup};
use crate::record::{Origin, OutputRecord};
use crate::runtime::kafka::{GroupConsumer, Position, TopicPartition, TransactionalProducer};
use crate::{InputRecord, Offset, TaskId, TaskStatus, TimestampMs, clock};

/// Timers that one task fires in one turn, so that a million due timers never starve the records.
const TIMERS_PER_TURN: usize = 1_000;

/// The tasks of a thread and the producer they write through.
pub(super) struct Work<'a> {
    pub(super) setup: &'a ThreadSetup,
    pub(super) producer: TransactionalProducer,
    pub(super) tasks: BTreeMap<TaskId, TaskSlot>,
    pub(super) shortcuts: Shortcuts,
    pub(super) commits: Commits,
    /// What was sent while a record was processed, and is yet to be produced or taken over.
    sent: VecDeque<OutputRecord>,
}

impl<'a> Work<'a> {
    pub(super) fn new(setup: &'a ThreadSetup, producer: TransactionalProducer) -> Self {
        Self {
            setup,
            producer,
            tasks: BTreeMap::new(),
            shortcuts: Shortcuts::new(&setup.plan),
            commits: Commits::new(),
            sent: VecDeque::new(),
        }
    }

    /// Hands a record to its task; says whether the task runs and took it.
    pub(super) fn process(
        &mut self,
        task: TaskId,
        source: usize,
        record: &InputRecord<'_>,
    ) -> Result<bool, ThreadFault> {
        // A turn has many records, and somebody waits for what is committed.
        self.finish_if_committed()?;
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

    pub(super) fn open_shortcuts(&mut self) {
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

    /// Serves the producer's delivery reports.
    pub(super) fn serve(&self) {
        self.producer.serve();
    }

    /// Reads the consumers' positions; the tasks that have anything to commit.
    pub(super) fn take_positions(
        &mut self,
        consumers: &[GroupConsumer],
    ) -> Result<Vec<TaskId>, ThreadFault> {
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

    /// Ends the open transaction without a trace, as far as the cluster can be reached.
    pub(super) fn abort(&mut self) {
        if let Err(fault) = self.producer.abort() {
            tracing::debug!(%fault, "the open transaction is left to its time-out or the next producer");
        }
    }
}
