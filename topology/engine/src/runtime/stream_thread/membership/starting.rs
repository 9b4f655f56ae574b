//! How an owned task gets to run.
//!
//! 1. It is opened, and waits for the tasks that it shares a changelog partition with.
//! 2. It is restored, on the restorer's thread.
//! 3. It runs from the positions that its groups have committed, and its partitions are fetched
//!    from there, for all tasks that begin together in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::Membership;
use crate::runtime::kafka::{LaneId, Position, TopicPartition};
use crate::runtime::ownership::{Hold, source_partitions};
use crate::runtime::restorer::{RestoreJob, RestoreResult, Restored};
use crate::runtime::stream_thread::ThreadFault;
use crate::runtime::stream_thread::opening::open;
use crate::runtime::stream_thread::readings::Reader;
use crate::runtime::stream_thread::slot::{SourcePosition, TaskSlot};
use crate::runtime::stream_thread::work::unrouted;
use crate::{Offset, TaskId, TaskStatus, clock};

impl Membership<'_> {
    /// Opens an owned task, and has it wait for its turn to be restored. While another thread of
    /// this process has its stores, this is retried: the other tasks of this thread go on.
    pub(super) fn gather(&mut self, id: TaskId) -> Result<(), ThreadFault> {
        if self.works.slot(id).is_none() {
            let Some(task) = open(self.setup, id)? else {
                self.unopened.insert(id);
                return Ok(());
            };
            self.unopened.remove(&id);
            self.works.insert(id, TaskSlot::new(task));
        }
        let slot = self.works.slot(id);
        if slot.is_some_and(|slot| slot.task.status().may_become(TaskStatus::Restoring)) {
            self.gathering.add(id);
        }
        Ok(())
    }

    /// Opens owned tasks that could not be opened before.
    pub(super) fn gather_unopened(&mut self) -> Result<(), ThreadFault> {
        for id in self.unopened.clone() {
            self.gather(id)?;
        }
        Ok(())
    }

    pub(super) fn restore_gathered(&mut self) -> Result<(), ThreadFault> {
        if self.gathering.is_empty() {
            return Ok(());
        }
        let holds = self.ownership.holds().into_iter();
        let owned = holds.filter(|(_, hold)| *hold == Hold::Owned);
        let owned: BTreeSet<TaskId> = owned.map(|(id, _)| id).collect();
        let complete = self.ownership.all_groups_assigned();
        let ready = self.gathering.take_ready(&owned, complete, Instant::now());
        for id in ready {
            self.restore(id)?;
        }
        Ok(())
    }

    fn restore(&mut self, id: TaskId) -> Result<(), ThreadFault> {
        let Some(slot) = self.works.slot_mut(id) else {
            return Ok(());
        };
        if !slot.task.status().may_become(TaskStatus::Restoring) {
            return Ok(());
        }
        slot.task.become_status(TaskStatus::Restoring);
        self.setup.queries.set_status(id, TaskStatus::Restoring);
        let mut by_group: BTreeMap<Arc<str>, Vec<TopicPartition>> = BTreeMap::new();
        for (group, place) in source_partitions(slot.task.plan(), id) {
            by_group.entry(group).or_default().push(place);
        }
        let sources = self.consumers.iter().filter_map(|consumer| {
            Some((
                consumer.committed_reader(),
                by_group.remove(&consumer.group)?,
            ))
        });
        let repartitions = self
            .setup
            .plan
            .repartitions_of(slot.task.plan())
            .into_iter();
        let repartitions =
            repartitions.map(|(topic, partition)| TopicPartition { topic, partition });
        let job = RestoreJob {
            task: id,
            sources: sources.collect(),
            repartitions: repartitions.collect(),
            restore: slot.task.restore()?,
            usable_until: self.setup.stores.usable_until(id),
        };
        slot.restoring = Some(self.restorer.submit(job)?);
        Ok(())
    }

    /// Starts the tasks that have been restored.
    pub(super) fn take_restored(&mut self, worked: &mut bool) -> Result<(), ThreadFault> {
        let results: Vec<RestoreResult> = self.restorer.results.try_iter().collect();
        let mut begun: Vec<TaskId> = Vec::new();
        // A result that was called off belongs to an assignment that is over.
        for result in results.into_iter().filter(RestoreResult::is_wanted) {
            let id = result.task();
            let Some(slot) = self.works.slot_mut(id) else {
                continue;
            };
            let Restored {
                positions,
                repartition_ends,
            } = result.outcome?;
            slot.restoring = None;
            let sources = source_partitions(slot.task.plan(), id).into_iter();
            let positions = sources.map(|(group, place)| {
                let committed = positions
                    .iter()
                    .find(|(of, found, _)| *of == group && *found == place);
                let (.., next) = committed.ok_or_else(|| unrouted(id))?;
                Ok(SourcePosition {
                    place,
                    group,
                    next: *next,
                })
            });
            slot.positions = positions.collect::<Result<_, ThreadFault>>()?;
            slot.restored()?;
            slot.task.start(clock::now());
            // So that every group has a position on record, and no older member can commit.
            slot.dirty = true;
            *worked = true;
            begun.push(id);
            self.setup
                .queries
                .set_running(id, slot.task.backend().clone());
            self.works.begins(id, &repartition_ends);
        }
        if begun.is_empty() {
            return Ok(());
        }
        self.start_reading(&begun)?;
        self.report();
        Ok(())
    }

    /// Starts to fetch the partitions of tasks that begin to run, all in one go.
    fn start_reading(&mut self, begun: &[TaskId]) -> Result<(), ThreadFault> {
        let mut readers: Vec<(TopicPartition, Reader)> = Vec::new();
        let mut starts: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for (task, slot) in self.works.tasks().filter(|(id, _)| begun.contains(id)) {
            for (source, SourcePosition { place, next, .. }) in slot.positions.iter().enumerate() {
                let reader = Reader { task, source };
                readers.push((place.clone(), reader));
                if self.readings.has_to_start(self.fetcher.lane(place), *next) {
                    let start = starts.entry(place.clone()).or_insert(*next);
                    *start = (*start).min(*next);
                }
            }
        }
        let starts: Vec<Position> = starts.into_iter().collect();
        self.fetcher.start(&starts)?;
        for (place, next) in starts {
            self.readings.started(self.lane(&place)?, next);
        }
        for (place, reader) in readers {
            self.readings.add(self.lane(&place)?, reader);
        }
        Ok(())
    }

    fn lane(&self, place: &TopicPartition) -> Result<LaneId, ThreadFault> {
        let lane = self.fetcher.lane(place);
        lane.ok_or_else(|| {
            ThreadFault::stop(format!(
                "{}-{} is read by a task and not fetched",
                place.topic, place.partition
            ))
        })
    }
}
