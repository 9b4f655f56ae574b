//! The stores of tasks on the disk of this instance: opened, and removed when they
//! cannot be used.
//!
//! A changelog keeps the tombstone of a deleted row for a day. Stores that were unused for longer
//! could miss it, and bring the row back when they are used again. So stores note on disk until
//! when they were kept up to date, and those that are too old are removed and restored from
//! scratch. Those that nobody uses again, because their tasks moved elsewhere, are also removed
//! when they are too old. But whatever the reason, stores that cannot be restored are not removed:
//! if their changelog holds nothing they may be the last copy
//! ([ADR 0027](../../../../docs/adr/0027-what-is-lost-is-not-made-up-for.md)).
//!
//! Opening stores takes time, mostly that of the disk. Those that the instance is going to need are
//! opened ahead, while it joins, and whoever opens a task gets them then. Which ones they are is a
//! forecast, so those that nobody has asked for are closed again.

mod folders;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use turnstile_state::{
    Backend, DiskSpace, RocksBackend, RocksOptions, StateDir, StateError, TaskDirName,
};

use self::folders::{Folders, InUse, OpenStores};
use super::kafka::{KafkaFault, TopicPartition};
use crate::task::TaskError;
use crate::topology::Plan;
use crate::{Offset, Partition, SubtopologyId, TaskId};

/// For how long changelogs keep tombstones: `delete.retention.ms`.
pub(crate) const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Stores that were unused for longer are not used again. This is well before the tombstones go,
/// since restoring takes time too.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// By how much a clock may be set back with stores still being used.
const CLOCK_CORRECTION_MAX: Duration = Duration::from_secs(10 * 60);
/// The file in a task's folder whose modification time says until when its stores were kept up to
/// date.
const KEPT_UNTIL: &str = "KEPT_UNTIL";
/// How many stores are opened ahead at the same time: they mostly wait for the disk, which syncs
/// the files of several at once.
const OPENERS: usize = 16;

/// How long a removal of stores waits for those who have them open.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

/// Tells where the log of a changelog partition ends.
pub(crate) type LogEnd = Arc<dyn Fn(&TopicPartition) -> Result<Offset, KafkaFault> + Send + Sync>;

/// Why stores cannot be used, or followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoresFault {
    /// Those of one task, because of what is wrong with them.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// Brokers do not tell what has to be known: for stores that are to be removed, whether they
    /// can be restored.
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
}

/// Stores that were opened ahead.
#[derive(Default)]
struct Ahead {
    state: Mutex<AheadState>,
    /// One of them is open, or could not be opened.
    opened: Condvar,
}

#[derive(Default)]
struct AheadState {
    /// Stores that anybody has opened, or is going to open.
    known: BTreeSet<TaskId>,
    waiting: BTreeSet<TaskId>,
    opening: BTreeSet<TaskId>,
    open: BTreeMap<TaskId, Arc<dyn Backend>>,
}

/// The stores of tasks on the disk of this instance; cheap to clone.
#[derive(Clone)]
pub(crate) struct TaskStores {
    state_dir: Arc<StateDir>,
    plan: Arc<Plan>,
    rocks: RocksOptions,
    log_end: LogEnd,
    ahead: Arc<Ahead>,
    folders: Folders,
}

impl TaskStores {
    pub(crate) fn new(
        state_dir: Arc<StateDir>,
        plan: Arc<Plan>,
        rocks: RocksOptions,
        log_end: LogEnd,
    ) -> Self {
        Self {
            state_dir,
            plan,
            rocks,
            log_end,
            ahead: Arc::default(),
            folders: Folders::default(),
        }
    }

    /// How much room there is for stores on the disk.
    pub(crate) fn disk_space(&self) -> Result<DiskSpace, StateError> {
        self.state_dir.disk_space()
    }

    /// Opens the stores of a task; `None` if somebody else in this process has them open for longer
    /// than `patience`.
    pub(crate) fn open(
        &self,
        task: TaskId,
        patience: Duration,
    ) -> Result<Option<Arc<dyn Backend>>, StoresFault> {
        if let Some(ahead) = self.claim(task) {
            if !self.is_too_old(task) {
                return Ok(Some(ahead));
            }
            // It has become too old since, and is closed before it is removed.
            drop(ahead);
        }
        self.open_on_disk(task, patience)
    }

    fn open_on_disk(
        &self,
        task: TaskId,
        patience: Duration,
    ) -> Result<Option<Arc<dyn Backend>>, StoresFault> {
        let plan = self
            .plan
            .subtopology(task.subtopology)
            .expect("tasks are of subtopologies of the plan");
        let Some(folder) = self.folders.enter(task, patience) else {
            return Ok(None);
        };
        if self.is_too_old(task) {
            tracing::info!(%task, "the stores were left alone for too long to be brought up to date; restoring from scratch");
            self.remove(task, &folder)?;
        }
        self.drop_lone_note(task);
        let path = self.path(task);
        let backend = RocksBackend::open(&path, &plan.store_specs(), &self.rocks);
        let backend = backend.map_err(|error| TaskError::of_state(task, error))?;
        Ok(Some(Arc::new(OpenStores::new(backend, folder))))
    }

    fn path(&self, task: TaskId) -> PathBuf {
        self.state_dir.task_path(&dir_name(task))
    }

    /// Opens the stores of `tasks` in the background, except for those that somebody has
    /// opened before and may be using.
    pub(crate) fn open_ahead(&self, tasks: impl IntoIterator<Item = TaskId>) {
        let number = {
            let mut state = self.ahead.state.lock();
            let tasks: BTreeSet<TaskId> = tasks
                .into_iter()
                .filter(|task| state.known.insert(*task))
                .collect();
            state.waiting.extend(&tasks);
            tasks.len()
        };
        for _ in 0..number.min(OPENERS) {
            let stores = self.clone();
            let work = move || while stores.open_next() {};
            if let Err(error) = thread::Builder::new().name("open".to_owned()).spawn(work) {
                tracing::warn!(%error, "cannot start a thread to open stores ahead");
            }
        }
    }

    /// Opens one of those that are to be opened ahead; returns whether there was one.
    fn open_next(&self) -> bool {
        let task = {
            let mut state = self.ahead.state.lock();
            let Some(task) = state.waiting.pop_first() else {
                return false;
            };
            state.opening.insert(task);
            task
        };
        // Stores that are too old or cannot be opened are left to whoever needs them.
        let is_used = !self.is_too_old(task);
        let opened = is_used.then(|| self.open_on_disk(task, Duration::ZERO));
        let mut state = self.ahead.state.lock();
        state.opening.remove(&task);
        match opened {
            Some(Ok(backend)) => state.open.extend(backend.map(|backend| (task, backend))),
            Some(Err(error)) => {
                tracing::debug!(%task, error = &error as &dyn std::error::Error, "stores could not be opened ahead");
            }
            None => {}
        }
        self.ahead.opened.notify_all();
        true
    }

    /// The stores of a task if they were opened ahead, or are being opened.
    fn claim(&self, task: TaskId) -> Option<Arc<dyn Backend>> {
        let mut state = self.ahead.state.lock();
        state.known.insert(task);
        state.waiting.remove(&task);
        while state.opening.contains(&task) {
            self.ahead.opened.wait(&mut state);
        }
        state.open.remove(&task)
    }

    /// Closes what was opened ahead and nobody has asked for.
    pub(crate) fn close_unclaimed(&self) {
        let unclaimed = {
            let mut state = self.ahead.state.lock();
            state.waiting.clear();
            std::mem::take(&mut state.open)
        };
        if !unclaimed.is_empty() {
            let tasks = unclaimed.len();
            tracing::debug!(tasks, "closing stores that were opened ahead");
        }
    }

    /// The tasks that have stores on the disk.
    pub(crate) fn on_disk(&self) -> Vec<TaskId> {
        let mut tasks = self.plan.tasks();
        tasks.retain(|task| self.path(*task).exists());
        tasks
    }

    /// Notes that what is on disk of the stores of a task, which are open here, was kept up to date
    /// until `time`.
    pub(crate) fn note_kept(&self, task: TaskId, time: SystemTime) {
        let noted = File::create(self.kept_until(task)).and_then(|file| file.set_modified(time));
        if let Err(error) = noted {
            // Without the note they count as older than they are, and are restored.
            tracing::warn!(%task, %error, "cannot note until when stores were kept up to date");
        }
    }

    fn kept_until(&self, task: TaskId) -> PathBuf {
        self.path(task).join(KEPT_UNTIL)
    }

    /// Removes a note that is alone in the folder of a task: its stores and their marker are gone,
    /// but whoever removed them was killed, or lost power, before removing the note. Without the
    /// marker the folder would be taken for somebody else's.
    fn drop_lone_note(&self, task: TaskId) {
        let folder = self.path(task);
        // If there is none, or it cannot be read, whoever opens it reports that.
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let names: io::Result<Vec<OsString>> = entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect();
        if names.is_ok_and(|names| names == [KEPT_UNTIL])
            && let Err(error) = fs::remove_file(self.kept_until(task))
        {
            tracing::warn!(%task, %error, "cannot remove what is left of stores");
        }
    }

    /// Whether the stores of a task were unused for so long that they are not used again.
    fn is_too_old(&self, task: TaskId) -> bool {
        self.age(task).is_some_and(|age| age > AGE_MAX)
    }

    /// Until when the stores of a task can be used if nobody brings them up to date before.
    pub(crate) fn usable_until(&self, task: TaskId) -> SystemTime {
        let age = self.age(task).unwrap_or_default();
        SystemTime::now() + AGE_MAX.saturating_sub(age)
    }

    /// How long the stores of a task were unused, if there are any.
    pub(crate) fn age(&self, task: TaskId) -> Option<Duration> {
        let noted = fs::metadata(self.kept_until(task)).and_then(|file| file.modified());
        let kept_until = match noted {
            Ok(time) => time,
            // Their process was killed before it noted anything: they are as old as the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(self.path(task))
                .and_then(|folder| folder.modified())
                .ok()?,
            Err(_) => return Some(Duration::MAX),
        };
        Some(match kept_until.elapsed() {
            Ok(age) => age,
            Err(ahead) if ahead.duration() <= CLOCK_CORRECTION_MAX => Duration::ZERO,
            // A clock was wrong, then or now: nobody knows how old they are.
            Err(_) => Duration::MAX,
        })
    }

    /// Removes the stores of a task, so that they are restored.
    pub(crate) fn wipe(&self, task: TaskId) -> Result<(), StoresFault> {
        drop(self.claim(task));
        let folder = self.folders.enter(task, REMOVAL_PATIENCE);
        let folder = folder.ok_or_else(|| KafkaFault::Retriable {
            action: "remove the stores of a task",
            reason: format!("somebody has those of {task} open"),
        })?;
        self.remove(task, &folder)
    }

    /// Removes the stores of a task if they are too old and nobody has them open: they would be
    /// wiped at their next use.
    pub(crate) fn remove_if_left(&self, task: TaskId) {
        if !self.is_too_old(task) {
            return;
        }
        let Some(folder) = self.folders.enter(task, Duration::ZERO) else {
            return;
        };
        // Somebody who had them open until a moment ago may have kept them up to date.
        if !self.is_too_old(task) {
            return;
        }
        match self.remove(task, &folder) {
            // An empty folder stays.
            Ok(()) if self.path(task).exists() => {}
            Ok(()) => {
                tracing::info!(%task, "removed stores that were left alone for too long: their task is not here any more");
            }
            Err(error) => {
                tracing::warn!(%task, error = &error as &dyn std::error::Error, "cannot remove stores that were left alone for too long");
            }
        }
    }

    /// Removes the stores of a task, in a folder that nobody else uses.
    fn remove(&self, task: TaskId, _folder: &InUse) -> Result<(), StoresFault> {
        self.check_restorable(task)?;
        self.drop_lone_note(task);
        let removed = self.state_dir.remove_task(&dir_name(task));
        Ok(removed.map_err(|error| TaskError::of_state(task, error))?)
    }

    /// Stores that hold anything were written to their changelog first: if that holds nothing, it
    /// has lost their records.
    fn check_restorable(&self, task: TaskId) -> Result<(), StoresFault> {
        let plan = self.plan.subtopology(task.subtopology);
        let Some(changelog) = plan.and_then(|plan| plan.changelog.clone()) else {
            return Ok(());
        };
        let reached = match RocksBackend::reached(&self.path(task)) {
            Ok(reached) => reached.map_or(Offset(0), Offset),
            // Stores that nobody can read are no copy.
            Err(error) => {
                tracing::warn!(%task, error = &error as &dyn std::error::Error, "stores that are to be removed cannot be read");
                return Ok(());
            }
        };
        let place = TopicPartition {
            topic: changelog.clone(),
            partition: task.partition,
        };
        if reached == Offset(0) || (self.log_end)(&place)? > Offset(0) {
            return Ok(());
        }
        Err(StoresFault::Task(TaskError::ChangelogLost {
            task,
            changelog: changelog.to_string(),
            reached,
        }))
    }
}

fn dir_name(id: TaskId) -> TaskDirName {
    let TaskId {
        subtopology: SubtopologyId(subtopology),
        partition: Partition(partition),
    } = id;
    TaskDirName::new(
        u32::from(subtopology),
        u32::try_from(partition).expect("partitions are not negative"),
    )
}
