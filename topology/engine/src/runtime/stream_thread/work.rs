//! The tasks of one component on a thread: they process, fire and send until what they have done is
//! sealed for a commit.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::changelog_ends::ChangelogEnds;
use super::commit::Committing;
use super::readings::Reader;
use super::shortcuts::Shortcuts;
use super::slot::{SourcePosition, TaskSlot};
use super::{ThreadFault, ThreadSetup};
use crate::record::OutputRecord;
use crate::runtime::kafka::{KafkaFault, Outbox, Position, Slot, Slots, TopicPartition};
use crate::task::{Cause, Task, TaskError};
use crate::{InputRecord, Offset, Partition, TaskId, TaskStatus, TimestampMs, clock};

/// Timers that one task fires in one turn, so that a million due timers never starve the records.
const TIMERS_PER_TURN: usize = 250;
/// Timers that all tasks of a component fire in one transaction: its records in there wait for
/// them.
const TIMERS_PER_COMMIT: usize = 4_000;

/// How many records may skip their topic as a result of one: if they go in a cycle, commits and
/// other records have their turn only when one goes through the topic.
const TAKEN_OVER_PER_RECORD: usize = 1_000;

/// The tasks of one component on a thread.
pub(super) struct Work<'a> {
    setup: &'a ThreadSetup,
    /// Of the thread; each slot taken from it is for records of this component only.
    slots: Slots,
    pub(super) tasks: BTreeMap<TaskId, TaskSlot>,
    /// By changelog partition: where the offset of the last record that was written for these tasks
    /// is found after a commit.
    changelogs: BTreeMap<Partition, Slot>,
    shortcuts: Shortcuts,
    /// What was sent, and is not yet in a transaction.
    pub(super) outbox: Outbox,
    /// Whether some of what was sent is in the open transaction of the records.
    pub(super) has_joined: bool,
    /// When the last commit began.
    last_begun: Instant,
    /// How many timers were fired since.
    timers_fired: usize,
    /// What was sent while a record was processed, and has yet to be produced or taken over.
    sent: VecDeque<OutputRecord>,
}

impl<'a> Work<'a> {
    /// Without tasks; the slots are those of the thread.
    pub(super) fn new(setup: &'a ThreadSetup, shortcuts: Shortcuts, slots: Slots) -> Self {
        Self {
            setup,
            slots,
            tasks: BTreeMap::new(),
            changelogs: BTreeMap::new(),
            shortcuts,
            outbox: Outbox::default(),
            has_joined: false,
            last_begun: Instant::now(),
            timers_fired: 0,
            sent: VecDeque::new(),
        }
    }

    /// Passes a record to a task; returns whether that runs.
    pub(super) fn process(
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
            let cause = Cause {
                origin: &origin,
                key: record.key,
            };
            self.pass_on(cause, now)?;
        }
        Ok(true)
    }

    /// Passes what was sent for one record to its readers, and what those send in turn; or produces
    /// it.
    fn pass_on(&mut self, cause: Cause<'_>, now: TimestampMs) -> Result<(), ThreadFault> {
        let mut taken_over = 0;
        while let Some(output) = self.sent.pop_front() {
            if taken_over < TAKEN_OVER_PER_RECORD && self.take_over(&output, cause, now)? {
                taken_over += 1;
            } else {
                self.produce(output);
            }
        }
        Ok(())
    }

    /// Processes a record in the task that it is for, if that runs here and the way is open.
    fn take_over(
        &mut self,
        output: &OutputRecord,
        cause: Cause<'_>,
        now: TimestampMs,
    ) -> Result<bool, ThreadFault> {
        let Some((task, source)) = self.shortcuts.reader(&output.topic, output.partition) else {
            return Ok(false);
        };
        let slot = self.tasks.get_mut(&task);
        let Some(slot) = slot.filter(|slot| slot.task.status() == TaskStatus::Running) else {
            return Ok(false);
        };
        let Some(processed) = slot.task.take_over(source, output, cause, now)? else {
            return Ok(false);
        };
        slot.count(source, processed);
        slot.dirty = true;
        slot.take_outputs_into(&mut self.sent);
        Ok(true)
    }

    fn produce(&mut self, output: OutputRecord) {
        let slots = &self.slots;
        let delivery = self
            .shortcuts
            .close(&output.topic, output.partition, || slots.slot());
        self.outbox.send(output, delivery);
    }

    /// A task begins to run here; its former owner may have sent what is before these ends.
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
            let position = slot.position(place)?;
            (slot.task.status() == TaskStatus::Running).then_some(position)
        });
    }

    /// Whether timers were fired since the last commit began.
    pub(super) fn has_fired(&self) -> bool {
        self.timers_fired > 0
    }

    /// Whether as many timers were fired as fit into one transaction: the next ones fire when its
    /// commit has begun.
    fn has_fired_enough(&self) -> bool {
        self.timers_fired >= TIMERS_PER_COMMIT
    }

    /// Fires due timers and punctuators; returns whether there were any.
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
            let fired = slot.fire_due(now, limit)?;
            self.timers_fired += fired;
            let before = sent.len();
            slot.take_outputs_into(&mut sent);
            if fired > 0 || sent.len() > before || slot.task.has_writes() {
                slot.dirty = true;
                any = true;
            }
        }
        for output in sent {
            self.produce(output);
        }
        Ok(any)
    }

    /// When the next timer or punctuator can be fired, or earlier; never later. If enough were
    /// fired, none can before the next commit begins.
    pub(super) fn next_due(&self, now: TimestampMs) -> Option<TimestampMs> {
        if self.has_fired_enough() {
            return None;
        }
        let running = self.running();
        running.filter_map(|task| task.next_due(now)).min()
    }

    /// By when a timer or punctuator is or was certainly due, whether or not it can be fired.
    pub(super) fn due_by(&self, now: TimestampMs) -> Option<TimestampMs> {
        self.running().filter_map(|task| task.due_by(now)).min()
    }

    fn running(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.tasks.values().map(|slot| &slot.task);
        tasks.filter(|task| task.status() == TaskStatus::Running)
    }

    /// Whether somebody waits for what was done since the last commit began: it has sent something
    /// that is not visible before, or a query waits for a change.
    pub(super) fn is_awaited(&self) -> bool {
        let has_sent = self.has_joined || !self.outbox.is_empty();
        has_sent || self.is_dirty() && self.setup.queries.anyone_waits()
    }

    /// How long the next commit can wait to begin if nobody waits for it: for the rest of the
    /// interval, unless enough timers were fired.
    pub(super) fn until_commit(&self) -> Duration {
        if self.has_fired_enough() {
            return Duration::ZERO;
        }
        let interval = self.setup.config.commit_interval;
        interval.saturating_sub(self.last_begun.elapsed())
    }

    fn is_dirty(&self) -> bool {
        self.tasks.values().any(|slot| slot.dirty)
    }

    /// About how many bytes are uncommitted.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        let tasks = self.tasks.values();
        let written: usize = tasks.map(|slot| slot.task.uncommitted_bytes()).sum();
        written + self.outbox.bytes()
    }

    /// Seals what all tasks have done, if anything, and that they have reached `positions`, for a
    /// commit that begins. What they send from here on belongs to the next one.
    pub(super) fn seal(
        &mut self,
        positions: &BTreeMap<TopicPartition, Offset>,
        ends: &ChangelogEnds,
    ) -> Vec<Committing> {
        self.last_begun = Instant::now();
        let moved = self.take_positions(positions);
        if moved.is_empty() {
            assert!(
                !self.has_joined && !self.has_fired() && self.outbox.is_empty(),
                "what was sent and fired is of tasks that have positions to commit with it"
            );
            return Vec::new();
        }
        let now = clock::now();
        let sealed = moved.into_iter();
        let sealed = sealed.filter_map(|id| self.seal_task(id, now, ends));
        let sealed = sealed.collect();
        self.shortcuts.sealed();
        self.timers_fired = 0;
        self.has_joined = false;
        sealed
    }

    /// Seals the transaction of a task, whose changelog records join that of the commit.
    fn seal_task(
        &mut self,
        id: TaskId,
        now: TimestampMs,
        ends: &ChangelogEnds,
    ) -> Option<Committing> {
        let slot = self.tasks.get_mut(&id)?;
        slot.task.seal();
        slot.dirty = false;
        if let Some(records) = slot.task.changelog_records(now) {
            let delivery = self.changelogs.entry(id.partition);
            let delivery = *delivery.or_insert_with(|| self.slots.slot());
            self.outbox.send_changelog(records, delivery);
        }
        Some(Committing {
            id,
            positions: slot.positions.clone(),
            sealed: SystemTime::now(),
            counts: slot.take_counts(),
            changelog_end: ends.of(id.partition),
        })
    }

    /// The transaction of what was sealed is committed: notes how far the changelog was written.
    pub(super) fn note_ends(&self, ends: &mut ChangelogEnds) {
        for (partition, delivery) in &self.changelogs {
            ends.note(*partition, self.slots.next_offset(*delivery));
        }
    }

    /// Takes over what is committed of a task. `ends` are those of the transaction.
    pub(super) fn store(
        &mut self,
        committed: Committing,
        ends: &ChangelogEnds,
    ) -> Result<(), ThreadFault> {
        let Committing {
            id,
            positions,
            sealed,
            counts,
            changelog_end,
        } = committed;
        let Some(slot) = self.tasks.get_mut(&id) else {
            return Ok(());
        };
        slot.certain = Some(sealed);
        // Nobody else has written for this task before what was written here for others: its
        // own groups joined the transaction after that was delivered.
        let reached = ends.of(id.partition).max(changelog_end);
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
        // Somebody who began to wait meanwhile may have looked before the batch was written.
        if is_written && !anyone_waits && queries.anyone_waits() {
            queries.tell_of_any_key(id);
        }
        Ok(())
    }

    /// All that was sealed is taken over.
    pub(super) fn finish(&mut self) {
        let slots = &self.slots;
        self.shortcuts.committed(|slot| slots.next_offset(slot));
        self.open_shortcuts();
    }

    /// Moves on to these positions, past transaction markers; returns the tasks that have anything
    /// to commit.
    fn take_positions(&mut self, positions: &BTreeMap<TopicPartition, Offset>) -> Vec<TaskId> {
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
}

/// A record came for a task that does not run, or a task begins without its positions.
pub(super) fn unrouted(task: TaskId) -> ThreadFault {
    ThreadFault::Rejoin(KafkaFault::Retriable {
        action: "hand a record to its task",
        reason: format!("task {task} does not run here, or not at its positions"),
    })
}
