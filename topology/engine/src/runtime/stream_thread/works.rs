//! The tasks of a thread, by component.

use std::time::Instant;

use super::changelog_ends::ChangelogEnds;
use super::commit::Committers;
use super::readings::Reader;
use super::shortcuts::Shortcuts;
use super::slot::TaskSlot;
use super::work::{Work, unrouted};
use super::{ThreadFault, ThreadSetup};
use crate::runtime::kafka::{Position, Slots};
use crate::topology::{Component, Components};
use crate::{InputRecord, TaskId, TimestampMs, clock};

/// The tasks of a thread, by component, and the transactions that they commit in.
pub(super) struct Works<'a> {
    pub(super) setup: &'a ThreadSetup,
    components: Components,
    /// By component.
    pub(super) works: Vec<Work<'a>>,
    pub(super) committers: Committers,
    pub(super) ends: ChangelogEnds,
}

impl<'a> Works<'a> {
    /// Without tasks.
    pub(super) fn new(setup: &'a ThreadSetup, committers: Committers, slots: &Slots) -> Self {
        let components = Components::of(&setup.plan);
        let works = components.all().map(|component| {
            let is_in = |subtopology| components.component(subtopology) == Some(component);
            Work::new(setup, Shortcuts::new(&setup.plan, is_in), slots.clone())
        });
        Self {
            setup,
            works: works.collect(),
            components,
            committers,
            ends: ChangelogEnds::default(),
        }
    }

    /// All components.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Component, &Work<'a>)> {
        self.components.all().zip(&self.works)
    }

    fn of_mut(&mut self, id: TaskId) -> Option<&mut Work<'a>> {
        let Component(number) = self.components.component(id.subtopology)?;
        self.works.get_mut(number)
    }

    /// A task that is here.
    pub(super) fn slot(&self, id: TaskId) -> Option<&TaskSlot> {
        let Component(number) = self.components.component(id.subtopology)?;
        self.works.get(number)?.tasks.get(&id)
    }

    /// A task that is here.
    pub(super) fn slot_mut(&mut self, id: TaskId) -> Option<&mut TaskSlot> {
        self.of_mut(id)?.tasks.get_mut(&id)
    }

    /// All tasks that are here.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (TaskId, &TaskSlot)> {
        let tasks = self.works.iter().flat_map(|work| &work.tasks);
        tasks.map(|(id, slot)| (*id, slot))
    }

    /// All tasks that are here.
    pub(super) fn tasks_mut(&mut self) -> impl Iterator<Item = (TaskId, &mut TaskSlot)> {
        let tasks = self.works.iter_mut().flat_map(|work| &mut work.tasks);
        tasks.map(|(id, slot)| (*id, slot))
    }

    /// The ids of all tasks that are here.
    pub(super) fn ids(&self) -> Vec<TaskId> {
        self.tasks().map(|(id, _)| id).collect()
    }

    /// Adds a task.
    pub(super) fn insert(&mut self, id: TaskId, slot: TaskSlot) {
        let work = self.of_mut(id);
        let work = work.expect("each subtopology of the plan is of a component");
        work.tasks.insert(id, slot);
    }

    /// Removes a task.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<TaskSlot> {
        self.of_mut(id)?.tasks.remove(&id)
    }

    /// A task begins to run here; its former owner may have sent what is before these ends.
    pub(super) fn begins(&mut self, id: TaskId, repartition_ends: &[Position]) {
        if let Some(work) = self.of_mut(id) {
            work.begins(repartition_ends);
        }
    }

    /// Passes a record to the tasks that read it. A task skips what it has read before.
    pub(super) fn process(
        &mut self,
        readers: &[Reader],
        record: &InputRecord<'_>,
    ) -> Result<(), ThreadFault> {
        // A turn has many records, and somebody waits for what is committed.
        self.finish_committed()?;
        let begun = Instant::now();
        let now = clock::now();
        for reader in readers {
            let component = self.components.component(reader.task.subtopology);
            let component = component.ok_or_else(|| unrouted(reader.task))?;
            let Some(work) = self.works.get_mut(component.0) else {
                return Err(unrouted(reader.task));
            };
            if !work.process(*reader, record, now)? {
                return Err(unrouted(reader.task));
            }
            self.committers.take_early(component, work)?;
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

    /// Fires due timers and punctuators; returns whether there were any.
    pub(super) fn fire_due(&mut self) -> Result<bool, ThreadFault> {
        let mut any = false;
        for work in &mut self.works {
            any |= work.fire_due()?;
        }
        Ok(any)
    }

    /// When the next timer or punctuator can be fired, or earlier; never later.
    pub(super) fn next_due(&self, now: TimestampMs) -> Option<TimestampMs> {
        let works = self.works.iter();
        works.filter_map(|work| work.next_due(now)).min()
    }

    /// By when a timer or punctuator is or was certainly due, whether or not it can be fired.
    pub(super) fn due_by(&self, now: TimestampMs) -> Option<TimestampMs> {
        let works = self.works.iter();
        works.filter_map(|work| work.due_by(now)).min()
    }

    /// Includes in the next commit those of these tasks whose stores know less of their changelog
    /// partition than was written to it here. The stores do hold their own records; but without a
    /// commit in which their groups take part nobody can tell, and a restore would read all that
    /// others have written in a long time.
    pub(super) fn catch_up(&mut self, which: impl Fn(TaskId) -> bool) {
        let Self { works, ends, .. } = self;
        let tasks = works.iter_mut().flat_map(|work| &mut work.tasks);
        for (id, slot) in tasks.filter(|(id, _)| which(**id)) {
            slot.catch_up(ends.of(id.partition));
        }
    }
}
