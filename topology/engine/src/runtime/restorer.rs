//! Restores tasks off the thread that processes.
//!
//! For each task:
//!
//! 1. The committed positions of all its source partitions are fetched, once no transaction on them
//!    is pending. From here on nobody else can commit for it: this thread holds its partitions in
//!    every group.
//! 2. The end of its changelog partition is taken, pending transactions included; and those of the
//!    repartition topics that it can write to.
//! 3. It waits until no transaction is pending before that end: the markers of a transaction can
//!    still be on their way when its offsets are already stable.
//! 4. The changelog partition is read, once for all its tasks, from the lowest of their offsets to
//!    its end, in bounded batches. The end is known by position, not by the last record: markers,
//!    compaction and deleted segments leave gaps.
//!
//! The first two steps are done for all tasks that are submitted together, the others partition by
//! partition, and a task that is done runs while others are read. If a transaction does not end, on
//! a position or on a changelog, only the tasks of that partition wait for it; after a minute the
//! log says where it hangs. Brokers that do not answer are a fault. A task whose stores are up to
//! date costs the first three steps. A job that nobody waits for any more is dropped at the next
//! step, or batch of records. Its stores are released at once, unless they are being read into.

mod behind;
mod positions;
mod reading;
mod results;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use self::results::Results;
use self::worker::Worker;
use super::StreamsConfig;
use super::kafka::{CommittedReader, Ends, KafkaFault, Position, TopicPartition};
use super::metrics::Metrics;
use super::restore_listener::RestoreListener;
use super::wake::Waker;
use crate::task::{ChangelogRestore, Contents, TaskError};
use crate::{Offset, TaskId};

/// A task to restore.
pub(crate) struct RestoreJob {
    pub(crate) task: TaskId,
    /// Its stores, if it has any.
    pub(crate) restore: Option<ChangelogRestore>,
    /// When they will have been left alone for so long that the changelog may lack tombstones of
    /// what they hold.
    pub(crate) usable_until: SystemTime,
    /// The source partitions of the task, by group.
    pub(crate) sources: Vec<(CommittedReader, Vec<TopicPartition>)>,
    /// The partitions of repartition topics that it can write to.
    pub(crate) repartitions: Vec<TopicPartition>,
}

/// Whether something is not wanted any more; set once.
#[derive(Clone, Default)]
struct CalledOff(Arc<AtomicBool>);

impl CalledOff {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stores of a job until they are read into: whoever calls it off gets them back at once,
/// however long others are read first.
#[derive(Clone)]
struct Lent {
    /// Their changelog partition.
    place: TopicPartition,
    usable_until: SystemTime,
    stores: Arc<Mutex<Option<ChangelogRestore>>>,
}

impl Lent {
    fn of(stores: ChangelogRestore, usable_until: SystemTime) -> Self {
        Self {
            place: changelog_of(&stores),
            usable_until,
            stores: Arc::new(Mutex::new(Some(stores))),
        }
    }

    /// What they hold, to be asked later; `None` if the job was called off.
    fn contents(&self) -> Option<Contents> {
        self.stores.lock().as_ref().map(ChangelogRestore::contents)
    }

    /// Takes them out; `None` if the job was called off.
    fn take(&self) -> Option<ChangelogRestore> {
        self.stores.lock().take()
    }

    /// Takes them out to read on at `now`.
    ///
    /// # Errors
    ///
    /// When they have waited for too long: what they hold may have been deleted since, and the
    /// changelog no longer says so.
    fn take_to_read(&self, now: SystemTime) -> Result<Option<ChangelogRestore>, TaskError> {
        match self.take() {
            Some(stores) if now > self.usable_until => Err(TaskError::Corrupted {
                task: stores.task,
                source: "they have waited for their restore for too long".into(),
            }),
            stores => Ok(stores),
        }
    }
}

/// A job that was submitted. Dropping it calls the job off.
pub(crate) struct Restoring {
    called_off: CalledOff,
    stores: Option<Lent>,
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.called_off.set();
        drop(self.stores.as_ref().and_then(Lent::take));
    }
}

/// What identifies a job while it is done.
#[derive(Clone)]
struct Ticket {
    task: TaskId,
    called_off: CalledOff,
    submitted: Instant,
    /// Its stores, if it has any.
    stores: Option<Lent>,
}

impl Ticket {
    fn is_wanted(&self) -> bool {
        !self.called_off.is_set()
    }
}

/// A restored task, or why it is not.
pub(crate) struct RestoreResult {
    ticket: Ticket,
    pub(crate) outcome: Result<Restored, RestoreFault>,
}

impl RestoreResult {
    pub(crate) fn task(&self) -> TaskId {
        self.ticket.task
    }

    /// Whether it is the result of the task's last job, and that was not called off.
    pub(crate) fn is_wanted(&self) -> bool {
        self.ticket.is_wanted()
    }
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
    jobs: Option<Sender<(Ticket, RestoreJob)>>,
    pub(crate) results: Receiver<RestoreResult>,
    stopped: CalledOff,
    thread: Option<JoinHandle<()>>,
}

impl Restorer {
    pub(crate) fn start(
        config: &StreamsConfig,
        metrics: Metrics,
        ends: Ends,
        waker: Waker,
    ) -> Result<Self, KafkaFault> {
        let (jobs, to_do) = unbounded();
        let (done, results) = unbounded();
        let stopped = CalledOff::default();
        let mut listeners: Vec<Arc<dyn RestoreListener>> = vec![Arc::new(metrics)];
        listeners.extend(config.restore_listener.clone());
        let worker = Worker::new(config, listeners, ends, stopped.clone());
        let thread = thread::Builder::new()
            .name("restore".to_owned())
            .spawn(move || worker.serve(&to_do, &Results::to(&done, &waker)));
        let thread = thread.map_err(|error| KafkaFault::Fatal {
            action: "start a restore thread",
            reason: error.to_string(),
        })?;
        Ok(Self {
            jobs: Some(jobs),
            results,
            stopped,
            thread: Some(thread),
        })
    }

    /// Submits the restore of a task, which goes on for as long as the result is kept. An earlier
    /// job of the task must have been called off.
    pub(crate) fn submit(&self, mut job: RestoreJob) -> Result<Restoring, KafkaFault> {
        let called_off = CalledOff::default();
        let stores = job.restore.take();
        let stores = stores.map(|stores| Lent::of(stores, job.usable_until));
        let restoring = Restoring {
            called_off: called_off.clone(),
            stores: stores.clone(),
        };
        let ticket = Ticket {
            task: job.task,
            called_off,
            submitted: Instant::now(),
            stores,
        };
        let jobs = self.jobs.as_ref();
        if jobs.is_some_and(|jobs| jobs.send((ticket, job)).is_ok()) {
            return Ok(restoring);
        }
        Err(KafkaFault::Retriable {
            action: "restore a task",
            reason: "the restore thread ended".to_owned(),
        })
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.stopped.set();
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

/// The partition that holds the changelog of a task, along with those of other tasks.
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
    use turnstile_state::{Backend, MemoryBackend};

    use std::time::Duration;

    use super::*;
    use crate::quiet;

    #[test]
    fn stores_that_have_waited_for_too_long_are_not_read_into() {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let of = &plan.subtopologies[0];
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
        let until = SystemTime::now();
        let lent = || {
            let stores = ChangelogRestore::of(plan.tasks()[0], of, &backend);
            Lent::of(stores.unwrap().unwrap(), until)
        };
        assert!(
            lent()
                .take_to_read(until)
                .is_ok_and(|stores| stores.is_some())
        );
        let too_late = lent().take_to_read(until + Duration::from_millis(1));
        assert!(matches!(too_late, Err(TaskError::Corrupted { .. })));
        let called_off = lent();
        drop(called_off.take());
        let found = called_off.take_to_read(until + Duration::from_millis(1));
        assert!(found.is_ok_and(|stores| stores.is_none()));
    }

    #[test]
    fn who_calls_a_job_off_has_the_stores_though_nobody_has_looked_at_it_yet() {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let of = &plan.subtopologies[0];
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
        let task = plan.tasks()[0];
        let restore = ChangelogRestore::of(task, of, &backend).unwrap().unwrap();
        let (jobs, to_do) = unbounded();
        let restorer = Restorer {
            jobs: Some(jobs),
            results: unbounded().1,
            stopped: CalledOff::default(),
            thread: None,
        };
        let job = RestoreJob {
            task,
            restore: Some(restore),
            usable_until: SystemTime::now(),
            sources: Vec::new(),
            repartitions: Vec::new(),
        };
        let restoring = restorer.submit(job).unwrap();
        let (ticket, _) = to_do.recv().unwrap();
        let stores = ticket.stores.clone().unwrap();
        assert!(stores.contents().is_some_and(|of| !of.any().unwrap()));
        drop(restoring);
        assert_eq!(Arc::strong_count(&backend), 1);
        assert!(!ticket.is_wanted());
        assert!(stores.take().is_none() && stores.contents().is_none());
    }
}
