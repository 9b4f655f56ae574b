//! One membership of a thread in all its groups, from joining to the first fault.
//!
//! Hand-over of a partition, in this order:
//!
//! 1. The first group that takes a partition back makes the thread commit
//!    everything, then suspend the tasks that read in this group.
//! 2. The partition is let go.
//! 3. When all groups of a task hold its partition again, it is restored (what
//!    others committed meanwhile is in its changelogs) and runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clients::Clients;
use super::opening::open;
use super::slot::TaskSlot;
use super::work::Work;
use super::{ThreadFault, ThreadSetup};
use crate::runtime::kafka::{GroupConsumer, GroupEvent, KafkaFault, TopicPartition};
use crate::runtime::ownership::{Hold, Ownership, source_partitions};
use crate::runtime::restorer::{RestoreJob, RestoreResult, Restored, Restorer};
use crate::task::TaskError;
use crate::{SubtopologyId, TaskId, TaskStatus, clock};

/// Events of one group that are served before the next group has its turn.
const EVENTS_PER_TURN: usize = 500;
/// Between two looks at what the thread holds and waits for.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// The longest wait when nothing happens.
const IDLE: Duration = Duration::from_millis(100);

/// Where the records of a topic go.
struct Route {
    topic: Arc<str>,
    subtopology: SubtopologyId,
    source: usize,
}

/// One membership of a thread in all its groups.
pub(super) struct Membership<'a> {
    setup: &'a ThreadSetup,
    // Fields are dropped in this order: the restorer holds stores of tasks.
    restorer: Restorer,
    consumers: Vec<GroupConsumer>,
    work: Work<'a>,
    /// By consumer.
    routes: Vec<Vec<Route>>,
    ownership: Ownership,
    /// Tasks that some but not all groups have assigned here, and since when.
    partial: BTreeMap<TaskId, (Instant, String)>,
    epoch: u64,
    last_flush: Instant,
    last_report: Instant,
    /// Tasks that were held in part for too long, at the last report.
    misfits: usize,
}

impl<'a> Membership<'a> {
    /// Joins all groups, once whoever was this member before is fenced.
    pub(super) fn join(setup: &'a ThreadSetup, clients: Clients) -> Result<Self, ThreadFault> {
        let producer = clients.producer.wait()?;
        let subscriptions = setup.plan.subscriptions();
        let mut routes = Vec::new();
        for consumer in &clients.consumers {
            let topics = subscriptions.get(&consumer.group).into_iter().flatten();
            let topics: Vec<&str> = topics.map(AsRef::as_ref).collect();
            routes.push(routes_of(setup, &consumer.group));
            consumer.join(&topics)?;
        }
        Ok(Self {
            setup,
            restorer: clients.restorer,
            consumers: clients.consumers,
            work: Work::new(setup, producer),
            routes,
            ownership: Ownership::new(setup.plan.clone()),
            partial: BTreeMap::new(),
            epoch: 0,
            last_flush: Instant::now(),
            last_report: Instant::now(),
            misfits: 0,
        })
    }

    /// Works until told to stop. `worked` tells whether any task ran.
    pub(super) fn work(mut self, worked: &mut bool) -> Result<(), ThreadFault> {
        self.report();
        let result = self.turn_until_stopped(worked);
        if result.is_err() {
            // Others may run them already, and aborting can take its time.
            for id in self.work.tasks.keys() {
                self.setup.queries.set_lost(*id);
            }
            self.work.abort();
        }
        self.close(result.is_ok());
        result
    }

    fn turn_until_stopped(&mut self, worked: &mut bool) -> Result<(), ThreadFault> {
        while !self.setup.stopping() {
            self.work.finish_if_committed()?;
            let records = self.serve_groups()?;
            self.take_restored(worked)?;
            let timers = self.work.fire_due()?;
            self.work.serve();
            let idle = !records && !timers;
            self.work.finish_if_full()?;
            if self.work.commit_is_due(idle) {
                self.work.begin_commit(&self.consumers)?;
            }
            self.flush_if_due()?;
            if self.last_report.elapsed() > REPORT_INTERVAL {
                self.report();
            }
            if idle {
                self.wait();
            }
        }
        self.work.commit(&self.consumers)
    }

    fn wait(&self) {
        let until_due = self
            .work
            .next_due()
            .map_or(IDLE, |due| due.since(clock::now()));
        self.setup
            .waker
            .wait(until_due.min(IDLE).min(self.work.until_commit(true)));
    }

    /// Serves every group for one turn; says whether any record came.
    fn serve_groups(&mut self) -> Result<bool, ThreadFault> {
        let mut any = false;
        for index in 0..self.consumers.len() {
            for _ in 0..EVENTS_PER_TURN {
                match self.serve_one(index)? {
                    Served::Nothing => break,
                    Served::Record => any = true,
                    Served::Rebalance => {}
                }
            }
        }
        Ok(any)
    }

    fn serve_one(&mut self, index: usize) -> Result<Served, ThreadFault> {
        let (Some(consumer), Some(routes)) = (self.consumers.get(index), self.routes.get(index))
        else {
            return Ok(Served::Nothing);
        };
        match consumer.poll()? {
            None => Ok(Served::Nothing),
            Some(GroupEvent::Record(record)) => {
                let route = routes.iter().find(|route| *route.topic == *record.topic());
                let route = route.ok_or_else(|| unrouted(record.topic()))?;
                let task = TaskId {
                    subtopology: route.subtopology,
                    partition: record.partition(),
                };
                if !self.work.process(task, route.source, &record.as_input())? {
                    return Err(unrouted(record.topic()));
                }
                Ok(Served::Record)
            }
            Some(GroupEvent::Assigned(partitions)) => {
                let group = consumer.group.clone();
                tracing::info!(thread = self.setup.number, %group, partitions = partitions.len(), "partitions are assigned");
                if let Some(place) = self.ownership.beyond_plan(&group, &partitions) {
                    return Err(ThreadFault::Stop(format!(
                        "topic {} has got more partitions (there is a number {}) while the application runs: keys have moved away from their tasks and stores; stop all instances, and start with another application id or with the old number of partitions",
                        place.topic, place.partition
                    )));
                }
                consumer.assign(&partitions)?;
                self.ownership.assign(&group, partitions);
                self.refresh()?;
                Ok(Served::Rebalance)
            }
            Some(GroupEvent::Revoked { lost }) => {
                let group = consumer.group.clone();
                tracing::info!(thread = self.setup.number, %group, lost, "partitions are revoked");
                self.let_go(index, &group, lost)?;
                Ok(Served::Rebalance)
            }
        }
    }

    fn let_go(&mut self, index: usize, group: &Arc<str>, lost: bool) -> Result<(), ThreadFault> {
        if lost {
            // Others may run these tasks already: nothing of them can be committed.
            return Err(KafkaFault::Fenced {
                action: "keep its partitions",
                reason: format!("the session in group {group} has ended"),
            }
            .into());
        }
        self.work.commit(&self.consumers)?;
        let affected: Vec<TaskId> = self
            .work
            .tasks
            .iter()
            .filter(|(_, slot)| slot.task.plan().groups().contains(group))
            .map(|(id, _)| *id)
            .collect();
        for id in affected {
            self.suspend(id, group)?;
        }
        self.ownership.revoke(group);
        if let Some(consumer) = self.consumers.get(index) {
            consumer.unassign()?;
        }
        self.report();
        Ok(())
    }

    fn suspend(&mut self, id: TaskId, revoked: &Arc<str>) -> Result<(), ThreadFault> {
        let Some(slot) = self.work.tasks.get_mut(&id) else {
            return Ok(());
        };
        if !slot.task.status().may_become(TaskStatus::Suspended) {
            return Ok(());
        }
        slot.task.become_status(TaskStatus::Suspended);
        self.setup.queries.set_status(id, TaskStatus::Suspended);
        slot.epoch = 0;
        // Others may write the changelog before this task runs here again.
        slot.changelog = None;
        let held: Vec<(Arc<str>, TopicPartition)> = slot
            .positions
            .iter()
            .filter(|(_, (group, _))| group != revoked)
            .map(|(place, (group, _))| (group.clone(), place.clone()))
            .collect();
        for (place, (group, _)) in std::mem::take(&mut slot.positions) {
            self.setup.lag.forget(&group, &place);
        }
        self.of_each_group(&held, GroupConsumer::pause)
    }

    /// Brings the tasks in line with what the groups have assigned.
    fn refresh(&mut self) -> Result<(), ThreadFault> {
        let holds = self.ownership.holds();
        let complete = self.ownership.all_groups_assigned();
        let gone: Vec<TaskId> = self
            .work
            .tasks
            .keys()
            // At once: another thread of this process may wait for its stores.
            .filter(|id| !holds.contains_key(id) && (complete || self.ownership.is_elsewhere(**id)))
            .copied()
            .collect();
        for id in gone {
            self.close_task(id, true);
        }
        let lost = self.work.tasks.keys().filter(|id| {
            let hold = holds.get(id);
            self.ownership.is_elsewhere(**id) && hold != Some(&Hold::Owned)
        });
        for id in lost {
            self.setup.queries.set_lost(*id);
        }
        if complete {
            self.setup.standbys.joined();
        }
        self.partial
            .retain(|id, _| matches!(holds.get(id), Some(Hold::Partial(_))));
        for (id, hold) in holds {
            match hold {
                Hold::Owned => self.restore(id)?,
                Hold::Partial(missing) => {
                    let missing: Vec<&str> = missing.iter().map(AsRef::as_ref).collect();
                    let reason = format!("not assigned here by group {}", missing.join(", "));
                    self.partial
                        .entry(id)
                        .or_insert_with(|| (Instant::now(), String::new()))
                        .1 = reason;
                }
            }
        }
        self.report();
        Ok(())
    }

    fn restore(&mut self, id: TaskId) -> Result<(), ThreadFault> {
        if !self.work.tasks.contains_key(&id) {
            let task = open(self.setup, id)?;
            self.work.tasks.insert(id, TaskSlot::new(task));
        }
        let Some(slot) = self.work.tasks.get_mut(&id) else {
            return Ok(());
        };
        if !slot.task.status().may_become(TaskStatus::Restoring) {
            return Ok(());
        }
        slot.task.become_status(TaskStatus::Restoring);
        self.setup.queries.set_status(id, TaskStatus::Restoring);
        self.epoch += 1;
        slot.epoch = self.epoch;
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
            epoch: self.epoch,
        };
        Ok(self.restorer.submit(job)?)
    }

    /// Starts the tasks that have been restored.
    fn take_restored(&mut self, worked: &mut bool) -> Result<(), ThreadFault> {
        let results: Vec<RestoreResult> = self.restorer.results.try_iter().collect();
        let mut resume: Vec<(Arc<str>, TopicPartition)> = Vec::new();
        for RestoreResult {
            task: id,
            epoch,
            outcome,
        } in results
        {
            let Some(slot) = self
                .work
                .tasks
                .get_mut(&id)
                .filter(|slot| slot.epoch == epoch)
            else {
                continue;
            };
            let Restored {
                positions,
                repartition_ends,
            } = outcome?;
            slot.positions.clear();
            for (group, place) in source_partitions(slot.task.plan(), id) {
                let committed = positions.iter().find(|(found, _)| *found == place);
                let (place, offset) = committed.cloned().ok_or_else(|| unrouted(&place.topic))?;
                slot.positions.insert(place, (group, offset));
            }
            slot.task.start(clock::now());
            // So that every group has a position on record, and no older member can commit.
            slot.dirty = true;
            *worked = true;
            resume.extend(
                slot.positions
                    .iter()
                    .map(|(place, (group, _))| (group.clone(), place.clone())),
            );
            self.setup
                .queries
                .set_running(id, slot.task.backend().clone());
            self.work.begins(&repartition_ends);
        }
        if resume.is_empty() {
            return Ok(());
        }
        self.of_each_group(&resume, GroupConsumer::resume)?;
        self.report();
        Ok(())
    }

    /// Calls the consumer of each group once, with all that it holds of `places`: a call
    /// waits for the client's own threads.
    fn of_each_group(
        &self,
        places: &[(Arc<str>, TopicPartition)],
        call: impl Fn(&GroupConsumer, &[TopicPartition]) -> Result<(), KafkaFault>,
    ) -> Result<(), ThreadFault> {
        for consumer in &self.consumers {
            let of_group: Vec<TopicPartition> = places
                .iter()
                .filter(|(group, _)| *group == consumer.group)
                .map(|(_, place)| place.clone())
                .collect();
            if !of_group.is_empty() {
                call(consumer, &of_group)?;
            }
        }
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), ThreadFault> {
        if self.last_flush.elapsed() < self.setup.config.flush_interval {
            return Ok(());
        }
        self.last_flush = Instant::now();
        for (id, slot) in &self.work.tasks {
            slot.task
                .backend()
                .flush()
                .map_err(|error| TaskError::of_state(*id, error))?;
            if slot.task.status() == TaskStatus::Running {
                self.setup.stores.note_kept(*id);
            }
        }
        Ok(())
    }

    /// Says what the thread holds and what it waits for, and sees to it that it does not
    /// wait for the transaction of somebody who is gone.
    fn report(&mut self) {
        self.last_report = Instant::now();
        // Not only while they are restored: its last records can be in other topics.
        let held: Vec<TaskId> = self.work.tasks.keys().copied().collect();
        self.setup.fence.fence_former_owners(&held);
        let mut tasks: BTreeMap<TaskId, (TaskStatus, Option<String>)> = self
            .work
            .tasks
            .iter()
            .map(|(id, slot)| (*id, (slot.task.status(), None)))
            .collect();
        for (id, (_, reason)) in &self.partial {
            tasks.entry(*id).or_insert((TaskStatus::Created, None)).1 = Some(reason.clone());
        }
        let patience = self.setup.config.session_timeout;
        let misfits = self
            .partial
            .values()
            .filter(|(since, _)| since.elapsed() > patience)
            .count();
        self.setup
            .metrics
            .misfits
            .set(i64::try_from(misfits).unwrap_or(i64::MAX));
        if misfits != self.misfits {
            tracing::warn!(
                thread = self.setup.number,
                tasks = misfits,
                "tasks are held in some of their groups only; is there a foreign member in one of the groups?"
            );
            self.misfits = misfits;
        }
        let problem = (misfits > 0).then(|| {
            format!(
                "{misfits} tasks are held in some of their groups only: is there a foreign member in one of the groups?"
            )
        });
        self.setup.board.set_thread(
            self.setup.number,
            self.ownership.all_groups_assigned(),
            problem,
            tasks,
        );
    }

    /// `is_kept`: up to now it held everything that was committed for it.
    fn close_task(&mut self, id: TaskId, is_kept: bool) {
        let Some(mut slot) = self.work.tasks.remove(&id) else {
            return;
        };
        self.setup.queries.set_status(id, TaskStatus::Closed);
        let was_running = slot.task.status() == TaskStatus::Running;
        slot.task.become_status(TaskStatus::Closed);
        for (place, (group, _)) in &slot.positions {
            self.setup.lag.forget(group, place);
        }
        if let Err(error) = slot.task.backend().flush() {
            tracing::warn!(task = %id, error = super::with_sources(&error), "could not flush; the next start restores more");
        } else if was_running && is_kept {
            self.setup.stores.note_kept(id);
        }
        drop(slot);
        self.setup.standbys.give_back(id);
    }

    fn close(mut self, in_order: bool) {
        let ids: Vec<TaskId> = self.work.tasks.keys().copied().collect();
        for id in ids {
            self.close_task(id, in_order);
        }
        self.setup
            .board
            .set_thread(self.setup.number, false, None, [].into());
        // The restorer holds clients of the groups, and all groups are left at once.
        drop(self.restorer);
        for consumer in &mut self.consumers {
            consumer.begin_to_leave();
        }
    }
}

enum Served {
    Nothing,
    Record,
    Rebalance,
}

/// A record of a partition whose task does not run: the client gave what was paused.
fn unrouted(topic: &str) -> ThreadFault {
    ThreadFault::Rejoin(KafkaFault::Retriable {
        action: "hand a record to its task",
        reason: format!("a record of {topic} came for a task that does not run here"),
    })
}

fn routes_of(setup: &ThreadSetup, group: &Arc<str>) -> Vec<Route> {
    let sources = setup.plan.subtopologies.iter().flat_map(|subtopology| {
        (0..)
            .zip(&subtopology.sources)
            .map(|(source, of)| (subtopology.id, source, of))
    });
    sources
        .filter(|(_, _, of)| of.group == *group)
        .map(|(subtopology, source, of)| Route {
            topic: of.topic.clone(),
            subtopology,
            source,
        })
        .collect()
}
