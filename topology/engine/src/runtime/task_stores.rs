//! The stores of tasks on the disk of this instance: opened, and removed when they
//! cannot be used.
//!
//! A changelog keeps the tombstone of a deleted row for a day. Stores that were left
//! alone for longer could miss it, and bring the row back when they are used again. So
//! stores say on disk until when they were kept up to date, and those that are too old
//! are removed and restored from scratch.
//!
//! Opening stores takes its time, mostly that of the disk. Those that the instance is going
//! to need are opened ahead, while it joins; whoever opens a task gets them then. Which
//! they are is a forecast, so what nobody has asked for is closed again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use turnstile_state::{Backend, RocksBackend, RocksOptions, StateDir, StateError, TaskDirName};

use crate::topology::Plan;
use crate::{Partition, SubtopologyId, TaskId};

/// For how long changelogs keep tombstones: `delete.retention.ms`.
pub(crate) const TOMBSTONES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Stores that were left alone for longer are not used again. Well before the tombstones
/// go, since restoring takes its time too.
const AGE_MAX: Duration = Duration::from_secs(12 * 60 * 60);
/// The file in a task's folder whose time of change says until when its stores were kept
/// up to date.
const KEPT_UNTIL: &str = "KEPT_UNTIL";
/// How many stores are opened ahead at the same time: they wait for the disk most of it.
const OPENERS: usize = 4;

/// Stores that were opened ahead.
#[derive(Default)]
struct Ahead {
    state: Mutex<AheadState>,
    /// One of them is open, or could not be opened.
    opened: Condvar,
}

#[derive(Default)]
struct AheadState {
    /// Whatever was opened by anybody, or is going to be.
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
    ahead: Arc<Ahead>,
}

impl TaskStores {
    pub(crate) fn new(state_dir: Arc<StateDir>, plan: Arc<Plan>, rocks: RocksOptions) -> Self {
        Self {
            state_dir,
            plan,
            rocks,
            ahead: Arc::default(),
        }
    }

    /// Opens the stores of a task, which nobody else in this process may have open.
    pub(crate) fn open(&self, task: TaskId) -> Result<Arc<dyn Backend>, StateError> {
        if self.is_too_old(task) {
            tracing::info!(%task, "the stores were left alone for too long to be brought up to date; restoring from scratch");
            self.wipe(task)?;
        }
        match self.claim(task) {
            Some(backend) => Ok(backend),
            None => self.open_on_disk(task),
        }
    }

    fn open_on_disk(&self, task: TaskId) -> Result<Arc<dyn Backend>, StateError> {
        let plan = self
            .plan
            .subtopology(task.subtopology)
            .expect("tasks are of subtopologies of the plan");
        self.drop_lone_note(task);
        let path = self.state_dir.task_path(&dir_name(task));
        let backend = RocksBackend::open(&path, &plan.store_specs(), &self.rocks)?;
        Ok(Arc::new(backend))
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

    /// Opens one of those that are to be opened ahead; says whether there was one.
    fn open_next(&self) -> bool {
        let task = {
            let mut state = self.ahead.state.lock();
            let Some(task) = state.waiting.pop_first() else {
                return false;
            };
            state.opening.insert(task);
            task
        };
        // What is too old is left to whoever needs it, and so is what cannot be opened.
        let opened = (!self.is_too_old(task)).then(|| self.open_on_disk(task));
        let mut state = self.ahead.state.lock();
        state.opening.remove(&task);
        match opened {
            Some(Ok(backend)) => {
                state.open.insert(task, backend);
            }
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
        tasks.retain(|task| self.state_dir.task_path(&dir_name(*task)).exists());
        tasks
    }

    /// Notes that what of the stores of a task, which are open here, is on disk was kept up to
    /// date until `time`.
    pub(crate) fn note_kept(&self, task: TaskId, time: SystemTime) {
        let noted = File::create(self.kept_until(task)).and_then(|file| file.set_modified(time));
        if let Err(error) = noted {
            // Without it they count as older than they are, and are restored.
            tracing::warn!(%task, %error, "cannot note until when stores were kept up to date");
        }
    }

    fn kept_until(&self, task: TaskId) -> PathBuf {
        self.state_dir.task_path(&dir_name(task)).join(KEPT_UNTIL)
    }

    /// Removes a note that is alone in the folder of a task: its stores and their marker are gone,
    /// and whoever removed them was killed, or lost power, before the note was. Without the marker
    /// the folder would be taken for somebody else's.
    fn drop_lone_note(&self, task: TaskId) {
        let folder = self.state_dir.task_path(&dir_name(task));
        // Where there is none, or it cannot be read, whoever opens it says so.
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

    fn is_too_old(&self, task: TaskId) -> bool {
        self.age(task).is_some_and(|age| age > AGE_MAX)
    }

    /// How long the stores of a task were left alone, if there are any.
    fn age(&self, task: TaskId) -> Option<Duration> {
        let noted = fs::metadata(self.kept_until(task)).and_then(|file| file.modified());
        let kept_until = match noted {
            Ok(time) => time,
            // Their process was killed before it noted anything: as old as the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.state_dir.task_path(&dir_name(task));
                fs::metadata(folder)
                    .and_then(|folder| folder.modified())
                    .ok()?
            }
            Err(_) => return Some(Duration::MAX),
        };
        Some(kept_until.elapsed().unwrap_or_default())
    }

    /// Removes the stores of a task, so that they are restored.
    pub(crate) fn wipe(&self, task: TaskId) -> Result<(), StateError> {
        drop(self.claim(task));
        self.drop_lone_note(task);
        self.state_dir.remove_task(&dir_name(task))
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

#[cfg(test)]
mod tests {
    use turnstile_state::{Batch, RocksMemory, StoreId};

    use super::*;
    use crate::quiet;

    /// Stores of a topology with one store, in a folder of the test.
    fn stores(folder: &std::path::Path) -> (TaskStores, TaskId) {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let state_dir = Arc::new(StateDir::lock(folder, "app").unwrap());
        let rocks = RocksOptions::new(RocksMemory::new(8 << 20, 8 << 20));
        let task = plan.tasks()[0];
        (TaskStores::new(state_dir, plan, rocks), task)
    }

    /// Whether a row that was written, flushed and noted is there when the stores are
    /// opened `later`.
    fn survives(later: Duration) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        let backend = stores.open(task).unwrap();
        let mut batch = Batch::new();
        batch.put(StoreId(0), *b"row", *b"value");
        backend.write(batch).unwrap();
        backend.flush().unwrap();
        stores.note_kept(task, SystemTime::now() - later);
        drop(backend);
        let backend = stores.open(task).unwrap();
        backend.get(StoreId(0), b"row").unwrap().is_some()
    }

    fn open_ahead_and_wait(stores: &TaskStores, task: TaskId) {
        stores.open_ahead([task]);
        let mut state = stores.ahead.state.lock();
        while !state.waiting.is_empty() || !state.opening.is_empty() {
            stores.ahead.opened.wait(&mut state);
        }
    }

    #[test]
    fn stores_that_were_opened_ahead_go_to_whoever_opens_them_and_to_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        open_ahead_and_wait(&stores, task);
        assert!(stores.ahead.state.lock().open.contains_key(&task));
        let backend = stores.open(task).unwrap();
        assert!(stores.open(task).is_err());
        // Somebody has them now.
        stores.open_ahead([task]);
        assert!(stores.ahead.state.lock().waiting.is_empty());
        drop(backend);
        drop(stores.open(task).unwrap());
    }

    #[test]
    fn stores_that_were_opened_ahead_in_vain_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        open_ahead_and_wait(&stores, task);
        assert!(stores.open_on_disk(task).is_err());
        stores.close_unclaimed();
        drop(stores.open_on_disk(task).unwrap());
    }

    #[test]
    fn what_was_opened_ahead_is_wiped_like_the_rest_when_it_is_too_old() {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        open_ahead_and_wait(&stores, task);
        let ahead = stores.ahead.state.lock().open[&task].clone();
        let mut batch = Batch::new();
        batch.put(StoreId(0), *b"row", *b"value");
        ahead.write(batch).unwrap();
        ahead.flush().unwrap();
        drop(ahead);
        stores.note_kept(task, SystemTime::now() - AGE_MAX * 2);
        let backend = stores.open(task).unwrap();
        assert_eq!(backend.get(StoreId(0), b"row").unwrap(), None);
    }

    #[test]
    fn stores_that_may_have_missed_a_tombstone_are_not_used_again() {
        assert!(survives(Duration::ZERO));
        assert!(survives(AGE_MAX - Duration::from_secs(60)));
        assert!(!survives(AGE_MAX + Duration::from_secs(60)));
        assert!(AGE_MAX < TOMBSTONES_KEPT);
    }

    #[test]
    fn a_note_of_stores_that_are_gone_is_nothing() {
        for age in [Duration::ZERO, AGE_MAX * 2] {
            let folder = tempfile::tempdir().unwrap();
            let (stores, task) = stores(folder.path());
            fs::create_dir(stores.state_dir.task_path(&dir_name(task))).unwrap();
            stores.note_kept(task, SystemTime::now() - age);
            stores.wipe(task).unwrap();
            stores.note_kept(task, SystemTime::now() - age);
            drop(stores.open(task).unwrap());
        }
    }

    #[test]
    fn a_note_beside_what_is_not_ours_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        let of_task = stores.state_dir.task_path(&dir_name(task));
        fs::create_dir(&of_task).unwrap();
        fs::write(of_task.join("thesis.txt"), "ten years of work").unwrap();
        stores.note_kept(task, SystemTime::now());
        let refused = stores.open(task).map(drop).unwrap_err();
        assert!(
            matches!(refused, StateError::ForeignFormat { .. }),
            "{refused}"
        );
        assert!(stores.wipe(task).is_err());
        assert_eq!(fs::read_dir(&of_task).unwrap().count(), 2);
    }

    #[test]
    fn stores_without_a_note_are_as_old_as_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (stores, task) = stores(folder.path());
        assert_eq!(stores.age(task), None);
        drop(stores.open(task).unwrap());
        assert!(stores.age(task).is_some_and(|age| age < AGE_MAX));
        let of_task = File::open(stores.state_dir.task_path(&dir_name(task))).unwrap();
        of_task
            .set_modified(SystemTime::now() - AGE_MAX * 2)
            .unwrap();
        assert!(stores.age(task).is_some_and(|age| age > AGE_MAX));
    }
}
