//! Who uses the folders of tasks in this process: one user at a time.
//!
//! RocksDB does not open a database that is already open; but nothing prevents deleting the files
//! of one. So whoever opens the stores of a task uses its folder until they are closed, and whoever
//! removes them uses it until they are gone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use turnstile_state::{
    Backend, Batch, Entry, KeyRange, RocksBackend, ScanDirection, StateError, StoreId, StoreStats,
};

use crate::TaskId;

#[derive(Default)]
struct Shared {
    /// The tasks whose folders are in use.
    used: Mutex<BTreeSet<TaskId>>,
    /// Notified when one of them is left.
    left: Condvar,
}

/// Who uses the folders of tasks; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Folders(Arc<Shared>);

impl Folders {
    /// Uses the folder of a task for as long as the result is kept; `None` if somebody else uses it
    /// for longer than `patience`.
    pub(super) fn enter(&self, task: TaskId, patience: Duration) -> Option<InUse> {
        let deadline = Instant::now() + patience;
        let mut used = self.0.used.lock();
        while !used.insert(task) {
            if self.0.left.wait_until(&mut used, deadline).timed_out() {
                return None;
            }
        }
        Some(InUse {
            task,
            folders: self.clone(),
        })
    }
}

/// The use of a task's folder. Dropping it leaves the folder.
pub(super) struct InUse {
    task: TaskId,
    folders: Folders,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.folders.0.used.lock().remove(&self.task);
        self.folders.0.left.notify_all();
    }
}

/// The stores of a task, whose folder is in use until they are closed.
pub(super) struct OpenStores {
    // Dropped in this order: the folder is left when the database is closed.
    backend: RocksBackend,
    _folder: InUse,
}

impl OpenStores {
    /// Stores that were opened in this folder.
    pub(super) fn new(backend: RocksBackend, folder: InUse) -> Self {
        Self {
            backend,
            _folder: folder,
        }
    }
}

/// What the backend does.
impl Backend for OpenStores {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.backend.get(store, key)
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        self.backend.scan(store, range, direction)
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        self.backend.write(batch)
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        self.backend.changelog_offset()
    }

    fn flush(&self) -> Result<(), StateError> {
        self.backend.flush()
    }

    fn begin_flush(&self) -> Result<(), StateError> {
        self.backend.begin_flush()
    }

    fn set_bulk_load(&self, in_bulk: bool) -> Result<(), StateError> {
        self.backend.set_bulk_load(in_bulk)
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        self.backend.stats()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    fn task(partition: i32) -> TaskId {
        format!("0_{partition}").parse().unwrap()
    }

    #[test]
    fn a_folder_has_one_user_at_a_time() {
        let folders = Folders::default();
        let enter = |partition| folders.enter(task(partition), Duration::ZERO);
        let user = enter(0);
        assert!(user.is_some());
        assert!(enter(0).is_none());
        // Other folders are not affected.
        assert!(enter(1).is_some());
        drop(user);
        assert!(enter(0).is_some());
    }

    #[test]
    fn whoever_waits_gets_a_folder_when_it_is_left() {
        const ROUNDS: usize = 2_000;
        const PATIENCE: Duration = Duration::from_secs(60);
        let folders = Folders::default();
        let users = AtomicUsize::new(0);
        thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..ROUNDS {
                        let folder = folders.enter(task(0), PATIENCE).unwrap();
                        assert_eq!(users.fetch_add(1, Ordering::SeqCst), 0);
                        users.fetch_sub(1, Ordering::SeqCst);
                        drop(folder);
                    }
                });
            }
        });
        assert!(folders.enter(task(0), Duration::ZERO).is_some());
    }
}
