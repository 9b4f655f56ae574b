//! The steps of a restore in their order. Positions are found in [`super::positions`], changelogs
//! are read in [`super::reading`].

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::behind::{Begun, Behind, TasksBeingRead};
use super::positions::{Positioned, Positions, PositionsWait};
use super::reading::{Reading, Share};
use super::results::Results;
use super::{
    CalledOff, Lent, RestoreFault, RestoreJob, RestoreResult, Restored, Ticket, offset_of,
};
use crate::Offset;
use crate::runtime::StreamsConfig;
use crate::runtime::cluster::instances_topic;
use crate::runtime::hanging::HANGING;
use crate::runtime::kafka::{Ends, GroupPosition, KafkaFault, Position, TopicPartition};
use crate::runtime::restore_listener::{RestoreListener, RestoreListeners};
use crate::task::{Contents, TaskError};

/// The time between two looks at what cannot be waited for by an event.
pub(super) const RECHECK: Duration = Duration::from_millis(20);

/// How long a job waits for others.
const LINGER: Duration = Duration::from_millis(5);

pub(super) type Job = (Ticket, RestoreJob);

pub(super) struct Worker {
    pub(super) config: StreamsConfig,
    pub(super) listeners: RestoreListeners,
    ends: Ends,
    stopped: CalledOff,
    being_read: TasksBeingRead,
}

/// A task whose positions and ends are known.
pub(super) struct Found {
    pub(super) ticket: Ticket,
    restored: Restored,
    /// For a task whose groups have committed nothing: its stores, if it has any.
    unread: Option<Contents>,
}

impl Found {
    pub(super) fn of(
        ticket: &Ticket,
        positions: Positions,
        repartition_ends: Vec<Position>,
    ) -> Self {
        let mut positions_of_groups = positions.iter().map(|(.., at)| at);
        let nothing = positions_of_groups.all(|at| matches!(at, GroupPosition::LogStart(_)));
        let stores = ticket.stores.as_ref().filter(|_| nothing);
        let positions = positions.into_iter();
        Self {
            ticket: ticket.clone(),
            unread: stores.and_then(Lent::contents),
            restored: Restored {
                positions: positions
                    .map(|(group, place, at)| (group, place, at.next()))
                    .collect(),
                repartition_ends,
            },
        }
    }

    /// How long its restore has taken.
    pub(super) fn waited(&self) -> Duration {
        self.ticket.submitted.elapsed()
    }

    pub(super) fn into_result(self) -> RestoreResult {
        RestoreResult {
            ticket: self.ticket,
            outcome: Ok(self.restored),
        }
    }

    /// Stores that hold anything belong to a task that has committed: what it does joins the
    /// transaction of its positions. If these are gone, it would do everything again that topics
    /// still have.
    pub(super) fn check(&self) -> Result<(), RestoreFault> {
        let Some(stores) = &self.unread else {
            return Ok(());
        };
        if !stores.any()? {
            return Ok(());
        }
        let groups = self.restored.positions.iter().map(|(group, ..)| &**group);
        let groups = Vec::from_iter(BTreeSet::from_iter(groups)).join(", ");
        let task = self.ticket.task;
        Err(RestoreFault::Kafka(KafkaFault::Fatal {
            action: "tell where a task goes on",
            reason: format!(
                "the stores of task {task} hold what it has done, but none of its groups ({groups}) has a committed position: brokers forget those of groups without members after offsets.retention.minutes, or somebody has deleted them; from the start of the topics on everything that is still there would be done twice. Have the groups go on where you want (kafka-consumer-groups.sh --reset-offsets, for example --to-datetime of the last stop), and start again"
            ),
        }))
    }
}

/// Tasks with stores of one changelog partition, which wait until their end of it is stable.
struct Awaiting {
    wait: StableWait,
    tasks: Vec<Found>,
}

/// What waits for transactions that are pending.
#[derive(Default)]
struct Waiting {
    /// On positions of jobs; the one that was asked for last is at the end.
    positions: VecDeque<PositionsWait>,
    /// On changelog partitions.
    changelogs: Vec<Awaiting>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.changelogs.is_empty()
    }

    fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        let tasks = self.changelogs.iter().flat_map(|of| &of.tasks);
        let tasks = tasks.map(|found| &found.ticket);
        self.positions
            .iter()
            .map(PositionsWait::ticket)
            .chain(tasks)
    }

    /// Drops what was called off, and releases its stores.
    fn leave_out_unwanted(&mut self) {
        self.positions.retain(|wait| wait.ticket().is_wanted());
        for partition in &mut self.changelogs {
            partition.tasks.retain(|found| found.ticket.is_wanted());
        }
        self.changelogs
            .retain(|partition| !partition.tasks.is_empty());
    }
}

impl Worker {
    pub(super) fn new(
        config: &StreamsConfig,
        listeners: Vec<Arc<dyn RestoreListener>>,
        ends: Ends,
        stopped: CalledOff,
    ) -> Self {
        Self {
            config: config.clone(),
            listeners: RestoreListeners(listeners),
            ends,
            stopped,
            being_read: TasksBeingRead::default(),
        }
    }

    /// Does jobs until no more can come. Changelogs are read on threads of their own: jobs that
    /// come meanwhile and have little to read need not wait for them.
    pub(super) fn serve(&self, jobs: &Receiver<Job>, results: &Results<'_>) {
        self.connect();
        let mut waiting = Waiting::default();
        thread::scope(|scope| {
            while let Some(new) = next_jobs(jobs, waiting.is_empty()) {
                for share in self.turn(new, &mut waiting, results) {
                    self.begin_to_read(share, results, scope);
                }
            }
        });
    }

    /// Before there is anything to do, so that the first task need not wait for it.
    fn connect(&self) {
        let topic = instances_topic(&self.config.application_id);
        self.ends.log.connect(&topic);
        self.ends.stable.connect(&topic);
    }

    /// Restores what can be restored now, but for what has to be read.
    fn turn(&self, new: Vec<Job>, waiting: &mut Waiting, results: &Results<'_>) -> Vec<Share> {
        let tickets = new.iter().map(|(ticket, _)| ticket);
        let tickets: Vec<Ticket> = tickets.chain(waiting.tickets()).cloned().collect();
        // A thread that ended silently would leave its tasks waiting for ever.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let (restored, readings) = self.find(new, waiting)?;
            results.restored(restored, 0);
            Ok(readings)
        }));
        match found.unwrap_or_else(|_| Err(RestoreFault::panicked())) {
            Ok(readings) => Share::of(readings),
            Err(fault) => {
                *waiting = Waiting::default();
                results.failed(tickets.into_iter(), fault);
                Vec::new()
            }
        }
    }

    /// The tasks that are restored as they are, and what has to be read for the others.
    fn find(
        &self,
        mut new: Vec<Job>,
        waiting: &mut Waiting,
    ) -> Result<(Vec<Found>, Vec<Reading>), RestoreFault> {
        new.retain(|(ticket, _)| ticket.is_wanted());
        waiting.leave_out_unwanted();
        let mut restored = Vec::new();
        // 1.
        let positioned = self.find_positions(new, &mut waiting.positions)?;
        // 2.
        let ends = self.ends_for(&positioned)?;
        for (job, positions) in positioned {
            let repartitions = ends.iter();
            let repartitions = repartitions.filter(|(place, _)| job.1.repartitions.contains(place));
            let task = Found::of(&job.0, positions, repartitions.cloned().collect());
            match job.0.stores {
                None => restored.push(task),
                Some(Lent { place, .. }) => {
                    let end = offset_of(&ends, &place).unwrap_or(Offset(0));
                    await_end(&mut waiting.changelogs, place, end, task);
                }
            }
        }
        // 3.
        let awaiting = &mut waiting.changelogs;
        let places = awaiting.iter().map(|partition| &partition.wait.place);
        let stable = self.ends.stable.of(&Vec::from_iter(places.cloned()))?;
        let is_over = |partition: &mut Awaiting| {
            let mut tasks = partition.tasks.iter().map(|task| task.ticket.task);
            // Its last job was called off, and the reader has not noticed yet.
            let is_read = tasks.any(|task| self.being_read.contains(task));
            partition.wait.is_over(&stable) && !is_read
        };
        let ready: Vec<Awaiting> = awaiting.extract_if(.., is_over).collect();
        // 4.
        let mut readings: Vec<Reading> = Vec::with_capacity(ready.len());
        for Awaiting { wait, tasks } in ready {
            match self.begin(wait.end, tasks, &mut restored) {
                Ok(behind) if behind.is_empty() => {}
                Ok(behind) => readings.push(Reading::of(wait.place, wait.end, behind)),
                Err(error) => {
                    for reading in &readings {
                        reading.suspend(&self.listeners);
                    }
                    return Err(error.into());
                }
            }
        }
        Ok((restored, readings))
    }

    /// Begins the restores of tasks that share an end; returns those that have something to read.
    fn begin(
        &self,
        end: Offset,
        tasks: Vec<Found>,
        restored: &mut Vec<Found>,
    ) -> Result<Vec<Behind>, TaskError> {
        let mut all_behind = Vec::with_capacity(tasks.len());
        for task in tasks {
            let lent = task.ticket.stores.as_ref();
            let taken = lent.and_then(|lent| lent.take_to_read(SystemTime::now()).transpose());
            // Otherwise it was called off.
            let Some(taken) = taken else { continue };
            let begun = taken.and_then(|stores| {
                Behind::begin(task, stores, end, &self.being_read, &self.listeners)
            });
            match begun {
                Ok(Begun::Behind(behind)) => all_behind.push(*behind),
                Ok(Begun::Current(found)) => restored.push(found),
                Err(error) => {
                    for behind in &all_behind {
                        behind.suspend(&self.listeners);
                    }
                    return Err(error);
                }
            }
        }
        Ok(all_behind)
    }

    /// The ends of the partitions that jobs have to be read up to, or can write to.
    fn ends_for(&self, jobs: &[Positioned]) -> Result<Vec<Position>, KafkaFault> {
        let mut asked: BTreeSet<TopicPartition> = BTreeSet::new();
        for ((ticket, job), _) in jobs {
            asked.extend(job.repartitions.iter().cloned());
            asked.extend(ticket.stores.as_ref().map(|stores| stores.place.clone()));
        }
        self.ends.log.of(&Vec::from_iter(asked))
    }

    /// Waits until no transaction is pending before the end of a partition, or `is_wanted` says
    /// that nobody waits for it any more.
    pub(super) fn wait_until_stable(
        &self,
        place: &TopicPartition,
        end: Offset,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<(), RestoreFault> {
        let mut wait = StableWait::new(place.clone(), end);
        while is_wanted() {
            let stable = self.ends.stable.of(std::slice::from_ref(place))?;
            if wait.is_over(&stable) {
                break;
            }
            self.check_stopped()?;
            thread::park_timeout(RECHECK);
        }
        Ok(())
    }

    pub(super) fn check_stopped(&self) -> Result<(), RestoreFault> {
        if self.stopped.is_set() {
            Err(RestoreFault::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The jobs that came, as soon as there are any; or after a moment, if others wait. `None` when no
/// more can come.
fn next_jobs(jobs: &Receiver<Job>, none_waits: bool) -> Option<Vec<Job>> {
    let first = if none_waits {
        jobs.recv().ok()?
    } else {
        match jobs.recv_timeout(RECHECK) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    };
    // Groups assign their partitions moments apart: what is restored together is asked for
    // together.
    thread::park_timeout(LINGER);
    Some(std::iter::once(first).chain(jobs.try_iter()).collect())
}

/// Has a task wait for this end of its changelog partition, with those that wait for it.
fn await_end(awaiting: &mut Vec<Awaiting>, place: TopicPartition, end: Offset, task: Found) {
    let mut partitions = awaiting.iter_mut();
    match partitions.find(|partition| partition.wait.place == place) {
        Some(partition) => {
            partition.wait.end = partition.wait.end.max(end);
            partition.tasks.push(task);
        }
        None => awaiting.push(Awaiting {
            wait: StableWait::new(place, end),
            tasks: vec![task],
        }),
    }
}

/// The wait for the transactions that are pending before an end of a changelog partition.
struct StableWait {
    place: TopicPartition,
    end: Offset,
    since: Instant,
    said: bool,
    said_that_it_hangs: bool,
}

impl StableWait {
    fn new(place: TopicPartition, end: Offset) -> Self {
        Self {
            place,
            end,
            since: Instant::now(),
            said: false,
            said_that_it_hangs: false,
        }
    }

    /// Whether none is pending any more, by the last stable offsets; logs if one is.
    fn is_over(&mut self, stable: &[Position]) -> bool {
        let Self { place, end, .. } = self;
        if offset_of(stable, place) >= Some(*end) {
            return true;
        }
        if !self.said {
            tracing::info!(topic = %place.topic, partition = %place.partition, "waiting for a pending transaction on a changelog");
            self.said = true;
        }
        if !self.said_that_it_hangs && self.since.elapsed() > HANGING {
            tracing::error!(topic = %place.topic, partition = %place.partition, "a transaction on a changelog does not end: brokers have lost its marker; find it by kafka-transactions.sh find-hanging and end it by kafka-transactions.sh abort");
            self.said_that_it_hangs = true;
        }
        false
    }
}
