//! One membership of a thread in all its groups, from joining to the first fault.
//!
//! Hand-over of a partition, in this order:
//!
//! 1. The first group that takes a partition back makes the thread commit everything, then suspend
//!    the tasks that read in this group. Partitions that only they read are no longer fetched.
//! 2. The partition is released.
//! 3. When all groups of a task hold its partition again, it is restored (what others committed
//!    meanwhile is in its changelog) and runs.

mod starting;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::clients::Clients;
use super::commit::Committers;
use super::gathering::Gathering;
use super::readings::Readings;
use super::slot::SourcePosition;
use super::works::Works;
use super::{ThreadFault, ThreadSetup};
use crate::runtime::StreamsFailure;
use crate::runtime::kafka::{Fetcher, GroupConsumer, GroupEvent, KafkaFault, TopicPartition};
use crate::runtime::ownership::{Hold, Ownership, Unread};
use crate::runtime::restorer::Restorer;
use crate::runtime::status::ThreadReport;
use crate::task::TaskError;
use crate::{TaskId, TaskStatus, clock};

/// Records of one partition that are processed before the next one has its turn.
const RECORDS_PER_TURN: usize = 250;
/// After this many records the thread checks whether a commit waits for the end of the turn, which
/// takes a look at each store.
const RECORDS_PER_LOOK: usize = 16;
/// The longest turn of all partitions: groups and timers need theirs as well.
const TURN_MAX: Duration = Duration::from_millis(100);
/// The time between two looks at what the thread holds and waits for.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// The longest wait when nothing happens.
const IDLE: Duration = Duration::from_millis(100);
/// The longest wait while a group has not assigned yet, after which its member is nudged.
const JOINING: Duration = Duration::from_millis(10);
/// The longest wait while stores cannot be opened yet.
const OPENING: Duration = Duration::from_millis(20);
/// How long records that arrive after a wait are gathered, unless a commit can be finished or
/// begun: none of them has a visible effect before the next commit, and a turn for each of a few
/// records that arrive one by one costs more than the records do.
const LULL: Duration = Duration::from_millis(10);

/// One membership of a thread in all its groups.
pub(super) struct Membership<'a> {
    setup: &'a ThreadSetup,
    // Fields are dropped in this order: the restorer holds stores of tasks.
    restorer: Restorer,
    consumers: Vec<GroupConsumer>,
    fetcher: Fetcher,
    works: Works<'a>,
    readings: Readings,
    ownership: Ownership,
    gathering: Gathering,
    /// Owned tasks whose stores another thread of this process has yet to close.
    unopened: BTreeSet<TaskId>,
    /// Tasks that some but not all groups have assigned here.
    partial: BTreeMap<TaskId, Partial>,
    last_flush: Instant,
    last_report: Instant,
    /// Tasks that were held in part for too long, at the last report.
    misfits: usize,
}

/// A task that some but not all groups have assigned here.
#[derive(Default)]
struct Partial {
    /// Since when another group has assigned it elsewhere. A group that has not
    /// assigned is waited for.
    elsewhere_since: Option<Instant>,
    /// What is missing, for humans.
    reason: String,
}

impl<'a> Membership<'a> {
    /// Joins all groups, once this member's predecessor is fenced.
    pub(super) fn join(
        setup: &'a ThreadSetup,
        clients: Clients,
        committers: Committers,
    ) -> Result<Self, ThreadFault> {
        let subscriptions = setup.plan.subscriptions();
        for consumer in &clients.consumers {
            let topics = subscriptions.get(&consumer.group).into_iter().flatten();
            let topics: Vec<&str> = topics.map(AsRef::as_ref).collect();
            consumer.join(&topics)?;
        }
        Ok(Self {
            setup,
            restorer: clients.restorer,
            consumers: clients.consumers,
            fetcher: clients.fetcher,
            works: Works::new(setup, committers, &clients.slots),
            readings: Readings::default(),
            ownership: Ownership::new(setup.plan.clone()),
            gathering: Gathering::of(setup.plan.stateful_tasks()),
            unopened: BTreeSet::new(),
            partial: BTreeMap::new(),
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
            // Others may run them already, and aborting can take a while.
            for id in self.works.ids() {
                self.setup.queries.set_lost(id);
            }
            self.works.committers.abort(&self.setup.metrics);
        }
        self.close(result.is_ok());
        result
    }

    fn turn_until_stopped(&mut self, worked: &mut bool) -> Result<(), ThreadFault> {
        while !self.setup.stopping() {
            self.works.finish_committed()?;
            self.serve_groups()?;
            let records = self.serve_records()?;
            self.gather_unopened()?;
            self.restore_gathered()?;
            self.take_restored(worked)?;
            let timers = self.works.fire_due()?;
            self.works.committers.serve();
            let idle = !records && !timers;
            self.works.finish_if_full()?;
            let fetcher = &self.fetcher;
            self.works
                .begin_due_commits(idle, &self.consumers, || Ok(fetcher.positions()?))?;
            self.flush_if_due()?;
            if self.last_report.elapsed() > REPORT_INTERVAL {
                self.report();
            }
            if idle {
                self.wait();
            }
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<(), ThreadFault> {
        let positions = self.fetcher.positions()?;
        self.works.commit(&self.consumers, &positions)
    }

    fn wait(&self) {
        let now = clock::now();
        let until_due = self.works.next_due(now).map_or(IDLE, |due| due.since(now));
        let mut limit = until_due.min(IDLE).min(self.works.until_commit());
        let consumers = self.consumers.iter();
        for joining in consumers.filter(|consumer| !self.ownership.has_assigned(&consumer.group)) {
            joining.nudge();
            limit = limit.min(JOINING);
        }
        if !self.unopened.is_empty() {
            limit = limit.min(OPENING);
        }
        let begun = Instant::now();
        if self.setup.waker.wait(limit) {
            let left = limit.saturating_sub(begun.elapsed());
            self.setup.waker.lull(left.min(LULL));
        }
    }

    /// Handles what the groups report.
    fn serve_groups(&mut self) -> Result<(), ThreadFault> {
        for index in 0..self.consumers.len() {
            while self.serve_group(index)? {}
        }
        Ok(())
    }

    /// Handles the next event of a group, if there is one.
    fn serve_group(&mut self, index: usize) -> Result<bool, ThreadFault> {
        let Some(consumer) = self.consumers.get_mut(index) else {
            return Ok(false);
        };
        let group = consumer.group.clone();
        match consumer.poll()? {
            None => return Ok(false),
            Some(GroupEvent::Assigned(partitions)) => {
                tracing::info!(thread = self.setup.number, %group, partitions = partitions.len(), "partitions are assigned");
                if let Some((place, why)) = self.ownership.unread(&group, &partitions) {
                    return Err(unread(&group, place, why));
                }
                consumer.assign(&partitions)?;
                self.ownership.assign(&group, partitions);
                self.refresh()?;
            }
            Some(GroupEvent::Revoked { lost }) => {
                tracing::info!(thread = self.setup.number, %group, lost, "partitions are revoked");
                self.let_go(index, &group, lost)?;
            }
        }
        Ok(true)
    }

    /// Processes records of all partitions for one turn; returns whether any came.
    fn serve_records(&mut self) -> Result<bool, ThreadFault> {
        let (readings, works) = (&mut self.readings, &mut self.works);
        let begun = Instant::now();
        let mut records: usize = 0;
        self.fetcher.read(RECORDS_PER_TURN, |lane, record| {
            works.process(readings.readers(lane, record.offset), record)?;
            records += 1;
            let looks = records.is_multiple_of(RECORDS_PER_LOOK);
            let enough = begun.elapsed() >= TURN_MAX || looks && works.waits_for_commit();
            Ok(if enough {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
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
        self.commit()?;
        let affected = self.works.tasks();
        let affected = affected.filter(|(_, slot)| slot.task.plan().groups().contains(group));
        let affected: Vec<TaskId> = affected.map(|(id, _)| id).collect();
        for id in affected {
            self.suspend(id)?;
        }
        self.ownership.revoke(group);
        if let Some(consumer) = self.consumers.get_mut(index) {
            consumer.unassign()?;
        }
        self.report();
        Ok(())
    }

    fn suspend(&mut self, id: TaskId) -> Result<(), ThreadFault> {
        let Some(slot) = self.works.slot_mut(id) else {
            return Ok(());
        };
        if !slot.task.status().may_become(TaskStatus::Suspended) {
            return Ok(());
        }
        slot.task.become_status(TaskStatus::Suspended);
        self.setup.queries.set_status(id, TaskStatus::Suspended);
        slot.restoring = None;
        for SourcePosition { place, group, .. } in std::mem::take(&mut slot.positions) {
            self.setup.lag.forget(&group, &place);
        }
        let unread = self.readings.remove(id);
        Ok(self.fetcher.stop(&unread)?)
    }

    /// Brings the tasks in line with what the groups have assigned.
    fn refresh(&mut self) -> Result<(), ThreadFault> {
        let holds = self.ownership.holds();
        let complete = self.ownership.all_groups_assigned();
        // At once: another thread of this process may wait for its stores.
        let is_gone =
            |id: &TaskId| !holds.contains_key(id) && (complete || self.ownership.is_elsewhere(*id));
        let gone: Vec<TaskId> = self.works.ids().into_iter().filter(is_gone).collect();
        for id in gone {
            self.close_task(id, true);
        }
        let lost = self.works.ids().into_iter().filter(|id| {
            let hold = holds.get(id);
            self.ownership.is_elsewhere(*id) && hold != Some(&Hold::Owned)
        });
        for id in lost {
            self.setup.queries.set_lost(id);
        }
        if complete {
            self.setup.standbys.joined();
        }
        self.partial
            .retain(|id, _| matches!(holds.get(id), Some(Hold::Partial(_))));
        self.unopened
            .retain(|id| holds.get(id) == Some(&Hold::Owned));
        for (id, hold) in holds {
            match hold {
                Hold::Owned => self.gather(id)?,
                Hold::Partial(missing) => {
                    let missing: Vec<&str> = missing.iter().map(AsRef::as_ref).collect();
                    let reason = format!("not assigned here by group {}", missing.join(", "));
                    let is_elsewhere = self.ownership.is_elsewhere(id);
                    let partial = self.partial.entry(id).or_default();
                    partial.reason = reason;
                    let since = partial.elsewhere_since;
                    partial.elsewhere_since =
                        is_elsewhere.then(|| since.unwrap_or_else(Instant::now));
                }
            }
        }
        self.restore_gathered()?;
        self.report();
        Ok(())
    }

    /// Begins to flush the stores of one task, if it is time: each once per interval, one after the
    /// other. Nobody waits for the disk: what was begun an interval ago is on it by now.
    fn flush_if_due(&mut self) -> Result<(), ThreadFault> {
        let tasks = u32::try_from(self.works.tasks().count()).unwrap_or(u32::MAX);
        if self.last_flush.elapsed() < self.setup.config.flush_interval / tasks.max(1) {
            return Ok(());
        }
        self.last_flush = Instant::now();
        let tasks = self.works.tasks_mut();
        let Some((id, slot)) = tasks.min_by_key(|(_, slot)| slot.flushed) else {
            return Ok(());
        };
        slot.flushed = self.last_flush;
        slot.task
            .backend()
            .begin_flush()
            .map_err(|error| TaskError::of_state(id, error))?;
        let is_kept = slot.task.status() == TaskStatus::Running;
        let before = mem::replace(&mut slot.kept_until, slot.certain.filter(|_| is_kept));
        slot.make_certain(SystemTime::now());
        self.works.catch_up(|of| of == id);
        if let Some(time) = before {
            self.setup.stores.note_kept(id, time);
        }
        Ok(())
    }

    /// Reports what the thread holds and what it waits for, and makes sure that it does not wait
    /// for the transaction of an instance that is gone.
    fn report(&mut self) {
        self.last_report = Instant::now();
        // Not only while they are restored: its last records can be in other topics.
        let held = self.works.ids();
        self.setup.fence.fence_former_owners(&held);
        let mut tasks: BTreeMap<TaskId, (TaskStatus, Option<String>)> = self
            .works
            .tasks()
            .map(|(id, slot)| (id, (slot.task.status(), None)))
            .collect();
        for (id, Partial { reason, .. }) in &self.partial {
            tasks.entry(*id).or_insert((TaskStatus::Created, None)).1 = Some(reason.clone());
        }
        for id in &self.unopened {
            let reason = "another thread of this instance has its stores open".to_owned();
            tasks.insert(*id, (TaskStatus::Created, Some(reason)));
        }
        let patience = self.setup.config.session_timeout;
        let misfits = self
            .partial
            .values()
            .filter_map(|of| of.elsewhere_since)
            .filter(|since| since.elapsed() > patience)
            .count();
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
        let report = ThreadReport {
            joined: self.ownership.all_groups_assigned(),
            problem,
            misfits,
            due_by: self.works.due_by(clock::now()),
            tasks,
        };
        self.setup.board.set_thread(self.setup.number, report);
    }

    /// `is_kept`: up to now it held everything that was committed for it.
    fn close_task(&mut self, id: TaskId, is_kept: bool) {
        let Some(mut slot) = self.works.remove(id) else {
            return;
        };
        self.setup.queries.set_status(id, TaskStatus::Closed);
        let was_running = slot.task.status() == TaskStatus::Running;
        slot.task.become_status(TaskStatus::Closed);
        for SourcePosition { place, group, .. } in &slot.positions {
            self.setup.lag.forget(group, place);
        }
        if let Err(error) = slot.task.backend().flush() {
            tracing::warn!(task = %id, error = super::with_sources(&error), "could not flush; the next start restores more");
        } else if was_running
            && is_kept
            && let Some(time) = slot.certain
        {
            self.setup.stores.note_kept(id, time);
        }
        drop(slot);
        self.setup.standbys.give_back(id);
    }

    fn close(mut self, in_order: bool) {
        for id in self.works.ids() {
            self.close_task(id, in_order);
        }
        self.setup
            .board
            .set_thread(self.setup.number, ThreadReport::default());
        // The restorer holds clients of the groups, and all groups are left at once.
        drop(self.restorer);
        for consumer in &mut self.consumers {
            consumer.begin_to_leave();
        }
    }
}

/// What to do about a partition that a group has assigned and no task reads.
fn unread(group: &str, place: &TopicPartition, why: Unread) -> ThreadFault {
    let TopicPartition { topic, partition } = place;
    match why {
        Unread::Topic => ThreadFault::Outdated(format!(
            "group {group} has assigned partition {partition} of topic {topic}, which this topology does not read in it: that was for an earlier process with another topology"
        )),
        Unread::BeyondPlan => ThreadFault::Stop(StreamsFailure::Misconfigured(format!(
            "topic {topic} has got more partitions (there is a number {partition}) while the application runs: keys have moved away from their tasks and stores; stop all instances; to begin anew, use another application id, and have the groups read from the start (kafka-consumer-groups.sh --reset-offsets --to-earliest)"
        ))),
    }
}
