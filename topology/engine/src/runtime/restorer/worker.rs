//! The steps of a restore, but for the reading of changelogs.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::reading::Reading;
use super::{
    CalledOff, RestoreFault, RestoreJob, RestoreResult, Restored, Ticket, changelog_of, offset_of,
};
use crate::Offset;
use crate::runtime::StreamsConfig;
use crate::runtime::cluster::instances_topic;
use crate::runtime::kafka::{
    CommittedReader, EndOffsets, Isolation, KafkaFault, Position, TopicPartition,
};
use crate::runtime::restore_listener::{RestoreListener, RestoreListeners};
use crate::runtime::wake::Waker;
use crate::task::ChangelogRestore;

/// Between two looks at what cannot be waited for by an event.
pub(super) const RECHECK: Duration = Duration::from_millis(20);

/// How long a job waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// A transaction that is pending for longer has no owner who will end it, nor will brokers.
const HANGING: Duration = Duration::from_secs(60);

type Job = (Ticket, RestoreJob);

pub(super) struct Worker {
    pub(super) config: StreamsConfig,
    pub(super) listeners: RestoreListeners,
    log_ends: EndOffsets,
    stable_ends: EndOffsets,
    stopped: CalledOff,
}

/// A task of which the positions and ends are known.
struct Found {
    ticket: Ticket,
    restored: Restored,
}

/// Tasks with stores of one changelog partition, which wait until their end of it is stable.
struct Awaiting {
    wait: StableWait,
    tasks: Vec<(Found, ChangelogRestore)>,
}

impl Worker {
    pub(super) fn new(
        config: &StreamsConfig,
        listeners: Vec<Arc<dyn RestoreListener>>,
        stopped: CalledOff,
    ) -> Result<Self, KafkaFault> {
        Ok(Self {
            config: config.clone(),
            listeners: RestoreListeners(listeners),
            log_ends: EndOffsets::new(config, Isolation::ReadUncommitted)?,
            stable_ends: EndOffsets::new(config, Isolation::ReadCommitted)?,
            stopped,
        })
    }

    /// Does jobs until no more can come.
    pub(super) fn serve(
        &self,
        jobs: &Receiver<Job>,
        results: &Sender<RestoreResult>,
        waker: &Waker,
    ) {
        self.connect();
        let mut awaiting = Vec::new();
        while let Some(new) = next_jobs(jobs, awaiting.is_empty()) {
            let done = self.turn(new, &mut awaiting);
            let any = !done.is_empty();
            for result in done {
                if results.send(result).is_err() {
                    return;
                }
            }
            if any {
                waker.wake();
            }
        }
    }

    /// Before there is anything to do, so that the first task need not wait for it.
    fn connect(&self) {
        let topic = instances_topic(&self.config.application_id);
        self.log_ends.connect(&topic);
        self.stable_ends.connect(&topic);
    }

    /// Restores what can be restored now.
    fn turn(&self, new: Vec<Job>, awaiting: &mut Vec<Awaiting>) -> Vec<RestoreResult> {
        let waiting = awaiting.iter().flat_map(|of| &of.tasks);
        let waiting = waiting.map(|(found, _)| &found.ticket);
        let tickets = new.iter().map(|(ticket, _)| ticket).chain(waiting);
        let tickets: Vec<Ticket> = tickets.cloned().collect();
        // A thread that ended without a word would leave its tasks waiting for ever.
        let restored = catch_unwind(AssertUnwindSafe(|| self.restore(new, awaiting)));
        let restored = restored.unwrap_or_else(|_| Err(RestoreFault::panicked()));
        restored.unwrap_or_else(|fault| {
            awaiting.clear();
            // One fault speaks for all: the stream thread decides what becomes of its tasks.
            let mut fault = Some(fault);
            let wanted = tickets.into_iter().filter(Ticket::is_wanted);
            wanted
                .map(|ticket| RestoreResult {
                    ticket,
                    outcome: Err(fault.take().unwrap_or(RestoreFault::Cancelled)),
                })
                .collect()
        })
    }

    fn restore(
        &self,
        mut new: Vec<Job>,
        awaiting: &mut Vec<Awaiting>,
    ) -> Result<Vec<RestoreResult>, RestoreFault> {
        let mut done = Vec::new();
        // 1. and 2.
        new.retain(|(ticket, _)| ticket.is_wanted());
        if !new.is_empty() {
            let (found, ends) = self.find(&new)?;
            for ((ticket, job), restored) in new.into_iter().zip(found) {
                let task = Found { ticket, restored };
                match job.restore {
                    None => done.push(task),
                    Some(stores) => {
                        let place = changelog_of(&stores);
                        let end = offset_of(&ends, &place).unwrap_or(Offset(0));
                        await_end(awaiting, place, end, (task, stores));
                    }
                }
            }
        }
        // 3.
        for partition in &mut *awaiting {
            partition
                .tasks
                .retain(|(found, _)| found.ticket.is_wanted());
        }
        awaiting.retain(|partition| !partition.tasks.is_empty());
        let places = awaiting.iter().map(|partition| &partition.wait.place);
        let stable = self.stable_ends.of(&Vec::from_iter(places.cloned()))?;
        let is_over = |partition: &mut Awaiting| partition.wait.is_over(&stable);
        let ready: Vec<Awaiting> = awaiting.extract_if(.., is_over).collect();
        // 4.
        let mut readings = Vec::with_capacity(ready.len());
        for Awaiting { wait, tasks } in ready {
            let mut stores = Vec::with_capacity(tasks.len());
            for (task, of) in tasks {
                stores.push((of, task.ticket.called_off.clone()));
                done.push(task);
            }
            readings.push(Reading::of(wait.place, wait.end, stores)?);
        }
        let records = self.read_changelogs(readings)?;
        Ok(told(done, records))
    }

    /// Fetches the committed positions of tasks, then the ends of their partitions.
    fn find(&self, jobs: &[Job]) -> Result<(Vec<Restored>, Vec<Position>), RestoreFault> {
        let mut committed: BTreeMap<TopicPartition, BTreeMap<Arc<str>, Offset>> = BTreeMap::new();
        for (reader, partitions) in by_group(jobs) {
            let positions = reader.committed(&partitions, self.config.request_timeout)?;
            for (place, offset) in positions {
                let groups = committed.entry(place).or_default();
                groups.insert(reader.group.clone(), offset);
            }
            self.check_stopped()?;
        }
        let mut asked: BTreeSet<TopicPartition> = BTreeSet::new();
        for (_, job) in jobs {
            asked.extend(job.repartitions.iter().cloned());
            asked.extend(job.restore.as_ref().map(changelog_of));
        }
        let ends = self.log_ends.of(&Vec::from_iter(asked))?;
        let found = jobs.iter().map(|(_, job)| {
            let repartitions = ends.iter();
            let repartitions = repartitions.filter(|(place, _)| job.repartitions.contains(place));
            Restored {
                positions: positions_of(job, &committed),
                repartition_ends: repartitions.cloned().collect(),
            }
        });
        Ok((found.collect(), ends))
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
            let stable = self.stable_ends.of(std::slice::from_ref(place))?;
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

/// The jobs that came, as soon as there are any; or after a moment, if others wait.
/// Nothing, when no more can come.
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
fn await_end(
    awaiting: &mut Vec<Awaiting>,
    place: TopicPartition,
    end: Offset,
    task: (Found, ChangelogRestore),
) {
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

/// The results of what is done and wanted.
fn told(done: Vec<Found>, records: u64) -> Vec<RestoreResult> {
    let waited = done.iter().map(|task| task.ticket.submitted.elapsed());
    if let Some(longest) = waited.max() {
        tracing::info!(
            tasks = done.len(),
            records,
            seconds = longest.as_secs_f64(),
            "tasks are restored"
        );
    }
    let wanted = done.into_iter().filter(|task| task.ticket.is_wanted());
    wanted
        .map(|Found { ticket, restored }| RestoreResult {
            ticket,
            outcome: Ok(restored),
        })
        .collect()
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

    /// Whether none is pending any more, by where partitions are stable; says if not.
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

/// The source partitions of all jobs, by group.
fn by_group(jobs: &[Job]) -> Vec<(CommittedReader, Vec<TopicPartition>)> {
    let mut groups: Vec<(CommittedReader, Vec<TopicPartition>)> = Vec::new();
    for (reader, partitions) in jobs.iter().flat_map(|(_, job)| &job.sources) {
        match groups.iter_mut().find(|(of, _)| of.group == reader.group) {
            Some((_, all)) => all.extend_from_slice(partitions),
            None => groups.push((reader.clone(), partitions.clone())),
        }
    }
    groups
}

/// What the groups of one job have committed on its partitions.
fn positions_of(
    job: &RestoreJob,
    committed: &BTreeMap<TopicPartition, BTreeMap<Arc<str>, Offset>>,
) -> Vec<(Arc<str>, TopicPartition, Offset)> {
    let sources = job.sources.iter();
    let places = sources.flat_map(|(reader, partitions)| {
        partitions.iter().map(move |place| (&reader.group, place))
    });
    let positions = places.filter_map(|(group, place)| {
        let offset = committed.get(place)?.get(group)?;
        Some((group.clone(), place.clone(), *offset))
    });
    positions.collect()
}
