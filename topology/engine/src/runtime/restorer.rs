//! Restores tasks off the thread that processes.
//!
//! For a batch of tasks:
//!
//! 1. Committed positions of all their source partitions are fetched, once no
//!    transaction on them is pending. From here on nobody else can commit for
//!    these tasks: this thread holds their partitions in every group.
//! 2. The ends of their changelog partitions are taken, pending transactions included; and
//!    those of the repartition topics that they can write to.
//! 3. Wait until no transaction is pending before those ends: the markers of a
//!    transaction can still be on their way when its offsets are stable already.
//! 4. Read every changelog partition, once for all its tasks, from the least of their offsets
//!    to its end, in bounded batches. The end is known by position, not by the last record:
//!    markers, compaction and deleted segments leave gaps.
//!
//! A task whose stores are up to date costs the first three steps.

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::StreamsConfig;
use super::cluster::instances_topic;
use super::kafka::{CommittedReader, EndOffsets, Isolation, KafkaFault, Position, TopicPartition};
use super::metrics::Metrics;
use super::restore_listener::{RestoreListener, RestoreListeners};
use super::wake::Waker;
use crate::task::{ChangelogRestore, TaskError};
use crate::{Offset, TaskId};

/// Between two looks at what cannot be waited for by an event.
const RECHECK: Duration = Duration::from_millis(20);

/// How long a job waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// A transaction that is pending for longer has no owner who will end it, nor will brokers.
const HANGING: Duration = Duration::from_secs(60);

/// A task to restore.
pub(crate) struct RestoreJob {
    pub(crate) task: TaskId,
    /// Its stores, if it has any.
    pub(crate) restore: Option<ChangelogRestore>,
    /// The source partitions of the task, by group.
    pub(crate) sources: Vec<(CommittedReader, Vec<TopicPartition>)>,
    /// The partitions of repartition topics that it can write to.
    pub(crate) repartitions: Vec<TopicPartition>,
    /// Given back with the result, so that a late result is told from a current one.
    pub(crate) epoch: u64,
}

/// A restored task, or why it is not.
pub(crate) struct RestoreResult {
    pub(crate) task: TaskId,
    pub(crate) epoch: u64,
    pub(crate) outcome: Result<Restored, RestoreFault>,
}

/// Where a restored task goes on.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The committed positions of its source partitions, by group.
    pub(crate) positions: Vec<(Arc<str>, TopicPartition, Offset)>,
    /// The ends of the repartition topics that it can write to: what its former owner
    /// sent is before them.
    pub(crate) repartition_ends: Vec<Position>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreFault {
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    #[error(transparent)]
    Task(#[from] TaskError),
    #[error("cancelled")]
    Cancelled,
}

impl RestoreFault {
    fn panicked() -> Self {
        Self::Kafka(KafkaFault::Fatal {
            action: "restore tasks",
            reason: "the restore thread panicked".to_owned(),
        })
    }
}

/// The thread that restores for one stream thread. Dropping it ends it.
pub(crate) struct Restorer {
    jobs: Option<Sender<RestoreJob>>,
    pub(crate) results: Receiver<RestoreResult>,
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restorer {
    pub(crate) fn start(
        config: &StreamsConfig,
        metrics: Metrics,
        waker: Waker,
    ) -> Result<Self, KafkaFault> {
        let (jobs, to_do) = unbounded();
        let (done, results) = unbounded();
        let cancelled = Arc::new(AtomicBool::new(false));
        let mut listeners: Vec<Arc<dyn RestoreListener>> = vec![Arc::new(metrics)];
        listeners.extend(config.restore_listener.clone());
        let worker = Worker {
            log_ends: EndOffsets::new(config, Isolation::ReadUncommitted)?,
            stable_ends: EndOffsets::new(config, Isolation::ReadCommitted)?,
            config: config.clone(),
            listeners: RestoreListeners(listeners),
            cancelled: cancelled.clone(),
        };
        let thread = thread::Builder::new()
            .name("restore".to_owned())
            .spawn(move || {
                worker.connect();
                while let Ok(first) = to_do.recv() {
                    // Groups assign their partitions moments apart: what is restored
                    // together is asked for together.
                    thread::park_timeout(LINGER);
                    let batch = latest_of_each(std::iter::once(first).chain(to_do.try_iter()));
                    for result in worker.restore(batch) {
                        if done.send(result).is_err() {
                            return;
                        }
                    }
                    waker.wake();
                }
            });
        let thread = thread.map_err(|error| KafkaFault::Fatal {
            action: "start a restore thread",
            reason: error.to_string(),
        })?;
        Ok(Self {
            jobs: Some(jobs),
            results,
            cancelled,
            thread: Some(thread),
        })
    }

    pub(crate) fn submit(&self, job: RestoreJob) -> Result<(), KafkaFault> {
        let jobs = self.jobs.as_ref();
        if jobs.is_some_and(|jobs| jobs.send(job).is_ok()) {
            return Ok(());
        }
        Err(KafkaFault::Retriable {
            action: "restore a task",
            reason: "the restore thread ended".to_owned(),
        })
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.jobs = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the restore thread panicked");
        }
    }
}

/// The last job of each task: one that came before it is of an assignment that is over,
/// and nobody waits for its result.
fn latest_of_each(jobs: impl Iterator<Item = RestoreJob>) -> Vec<RestoreJob> {
    let mut latest: Vec<RestoreJob> = Vec::new();
    for job in jobs {
        latest.retain(|earlier| earlier.task != job.task);
        latest.push(job);
    }
    latest
}

struct Worker {
    log_ends: EndOffsets,
    stable_ends: EndOffsets,
    config: StreamsConfig,
    listeners: RestoreListeners,
    cancelled: Arc<AtomicBool>,
}

impl Worker {
    /// Before there is anything to do, so that the first task need not wait for it.
    fn connect(&self) {
        let topic = instances_topic(&self.config.application_id);
        self.log_ends.connect(&topic);
        self.stable_ends.connect(&topic);
    }

    fn restore(&self, jobs: Vec<RestoreJob>) -> Vec<RestoreResult> {
        let begun = Instant::now();
        let ids: Vec<(TaskId, u64)> = jobs.iter().map(|job| (job.task, job.epoch)).collect();
        // A thread that ended without a word would leave its tasks waiting for ever.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.restore_all(jobs)));
        let outcome = outcome.unwrap_or_else(|_| Err(RestoreFault::panicked()));
        match outcome {
            Ok((restored, records)) => {
                tracing::info!(
                    tasks = ids.len(),
                    records,
                    seconds = begun.elapsed().as_secs_f64(),
                    "tasks are restored"
                );
                let results = ids.into_iter().zip(restored);
                results
                    .map(|((task, epoch), restored)| RestoreResult {
                        task,
                        epoch,
                        outcome: Ok(restored),
                    })
                    .collect()
            }
            Err(fault) => {
                // One fault speaks for the batch: the thread decides what becomes of its tasks.
                let mut fault = Some(fault);
                let results = ids.into_iter();
                results
                    .map(|(task, epoch)| RestoreResult {
                        task,
                        epoch,
                        outcome: Err(fault.take().unwrap_or(RestoreFault::Cancelled)),
                    })
                    .collect()
            }
        }
    }

    fn restore_all(&self, jobs: Vec<RestoreJob>) -> Result<(Vec<Restored>, u64), RestoreFault> {
        // 1.
        let mut committed: BTreeMap<TopicPartition, BTreeMap<Arc<str>, Offset>> = BTreeMap::new();
        for (reader, partitions) in by_group(&jobs) {
            let positions = reader.committed(&partitions, self.config.request_timeout)?;
            for (place, offset) in positions {
                let groups = committed.entry(place).or_default();
                groups.insert(reader.group.clone(), offset);
            }
            self.check_cancelled()?;
        }
        let mut restored: Vec<Restored> = jobs
            .iter()
            .map(|job| Restored {
                positions: positions_of(job, &committed),
                repartition_ends: Vec::new(),
            })
            .collect();
        // 2.
        let (repartitions, restores): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|job| (job.repartitions, job.restore))
            .unzip();
        let restores: Vec<ChangelogRestore> = restores.into_iter().flatten().collect();
        let places: BTreeSet<TopicPartition> = restores.iter().map(changelog_of).collect();
        let places = Vec::from_iter(places);
        let asked: BTreeSet<TopicPartition> = repartitions
            .iter()
            .flatten()
            .chain(&places)
            .cloned()
            .collect();
        let ends = self.log_ends.of(&Vec::from_iter(asked))?;
        for (restored, repartitions) in restored.iter_mut().zip(&repartitions) {
            let of_task = ends
                .iter()
                .filter(|(place, _)| repartitions.contains(place));
            restored.repartition_ends = of_task.cloned().collect();
        }
        // 3.
        self.wait_until_stable(&places, &ends)?;
        // 4.
        let records = self.read_changelogs(restores, &ends)?;
        Ok((restored, records))
    }

    fn wait_until_stable(
        &self,
        places: &[TopicPartition],
        ends: &[Position],
    ) -> Result<(), RestoreFault> {
        let begun = Instant::now();
        let mut said = false;
        let mut said_that_it_hangs = false;
        loop {
            let stable = self.stable_ends.of(places)?;
            let behind = places
                .iter()
                .find(|place| offset_of(&stable, place) < offset_of(ends, place));
            let Some(place) = behind else {
                return Ok(());
            };
            if !said {
                tracing::info!(topic = %place.topic, partition = %place.partition, "waiting for a pending transaction on a changelog");
                said = true;
            }
            if !said_that_it_hangs && begun.elapsed() > HANGING {
                tracing::error!(topic = %place.topic, partition = %place.partition, "a transaction on a changelog does not end: brokers have lost its marker; find it by kafka-transactions.sh find-hanging and end it by kafka-transactions.sh abort");
                said_that_it_hangs = true;
            }
            self.check_cancelled()?;
            thread::park_timeout(RECHECK);
        }
    }

    fn check_cancelled(&self) -> Result<(), RestoreFault> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(RestoreFault::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The source partitions of all jobs, by group.
fn by_group(jobs: &[RestoreJob]) -> Vec<(CommittedReader, Vec<TopicPartition>)> {
    let mut groups: Vec<(CommittedReader, Vec<TopicPartition>)> = Vec::new();
    for (reader, partitions) in jobs.iter().flat_map(|job| &job.sources) {
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

/// The partition that holds the changelog of a task, among those of other tasks.
pub(super) fn changelog_of(restore: &ChangelogRestore) -> TopicPartition {
    TopicPartition {
        topic: restore.changelog.clone(),
        partition: restore.task.partition,
    }
}

/// The offset of a partition in a list of them.
pub(super) fn offset_of(positions: &[Position], place: &TopicPartition) -> Option<Offset> {
    positions
        .iter()
        .find(|(found, _)| found == place)
        .map(|(_, offset)| *offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, SubtopologyId};

    fn job(partition: i32, epoch: u64) -> RestoreJob {
        RestoreJob {
            task: TaskId {
                subtopology: SubtopologyId(0),
                partition: Partition(partition),
            },
            restore: None,
            sources: Vec::new(),
            repartitions: Vec::new(),
            epoch,
        }
    }

    fn latest(jobs: &[(i32, u64)]) -> Vec<(i32, u64)> {
        let jobs = jobs
            .iter()
            .map(|(partition, epoch)| job(*partition, *epoch));
        let latest = latest_of_each(jobs).into_iter();
        latest
            .map(|job| (job.task.partition.0, job.epoch))
            .collect()
    }

    #[test]
    fn of_the_jobs_of_a_task_only_the_last_is_done() {
        assert_eq!(latest(&[]), []);
        assert_eq!(latest(&[(2, 1), (0, 2)]), [(2, 1), (0, 2)]);
        assert_eq!(
            latest(&[(0, 1), (1, 2), (0, 3), (2, 4), (0, 5), (1, 6)]),
            [(2, 4), (0, 5), (1, 6)]
        );
    }
}
