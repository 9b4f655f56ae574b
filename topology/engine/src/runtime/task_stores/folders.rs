//! Who uses the folders of tasks in this process.
//!
//! RocksDB lets nobody open a database that is open; but nothing keeps anybody from deleting the
//! files of one. So whoever opens the stores of a task uses its folder until they are closed, and
//! what nobody has asked for is removed only while nobody uses it. A removal waits for nobody;
//! whoever wants to use the folder waits until the removal has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use turnstile_state::{
    Backend, Batch, Entry, KeyRange, RocksBackend, ScanDirection, StateError, StoreId, StoreStats,
};

use crate::TaskId;

#[derive(Default)]
struct State {
    /// The tasks whose folders are used; by how many.
    users: BTreeMap<TaskId, usize>,
    /// The tasks whose folders are being removed. None of them is used.
    removing: BTreeSet<TaskId>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A removal has ended.
    removed: Condvar,
}

/// Who uses the folders of tasks; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Folders(Arc<Shared>);

impl Folders {
    /// Uses the folder of a task, for as long as what this returns is kept. Where it is being
    /// removed, waits for the end of that.
    pub(super) fn enter(&self, task: TaskId) -> InUse {
        let mut state = self.0.state.lock();
        while state.removing.contains(&task) {
            self.0.removed.wait(&mut state);
        }
        *state.users.entry(task).or_default() += 1;
        InUse {
            task,
            folders: self.clone(),
        }
    }

    /// Keeps everybody out of the folder of a task, which is to be removed, for as long as what
    /// this returns is kept; nothing, where somebody uses it.
    pub(super) fn keep_out(&self, task: TaskId) -> Option<KeptOut> {
        let mut state = self.0.state.lock();
        if state.users.contains_key(&task) || !state.removing.insert(task) {
            return None;
        }
        Some(KeptOut {
            task,
            folders: self.clone(),
        })
    }
}

/// The use of a task's folder. To drop it is to leave the folder.
pub(super) struct InUse {
    task: TaskId,
    folders: Folders,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let users = &mut self.folders.0.state.lock().users;
        if let Some(number) = users.get_mut(&self.task) {
            *number -= 1;
            if *number == 0 {
                users.remove(&self.task);
            }
        }
    }
}

/// The removal of a task's folder. To drop it is to have ended it.
pub(super) struct KeptOut {
    task: TaskId,
    folders: Folders,
}

impl Drop for KeptOut {
    fn drop(&mut self) {
        self.folders.0.state.lock().removing.remove(&self.task);
        self.folders.0.removed.notify_all();
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
    fn a_folder_is_removed_only_while_nobody_uses_it() {
        let folders = Folders::default();
        let (one, other) = (folders.enter(task(0)), folders.enter(task(0)));
        assert!(folders.keep_out(task(0)).is_none());
        drop(one);
        assert!(folders.keep_out(task(0)).is_none());
        drop(other);
        let removal = folders.keep_out(task(0));
        assert!(removal.is_some());
        // Nor does anybody else remove it meanwhile; other folders are no matter.
        assert!(folders.keep_out(task(0)).is_none());
        drop(folders.enter(task(1)));
        drop(removal);
        drop(folders.enter(task(0)));
        assert!(folders.keep_out(task(0)).is_some());
    }

    #[test]
    fn whoever_comes_while_it_is_removed_waits_for_the_end_of_that() {
        const ROUNDS: usize = 2_000;
        let folders = Folders::default();
        let (users, removals) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    for _ in 0..ROUNDS {
                        let folder = folders.enter(task(0));
                        users.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(removals.load(Ordering::SeqCst), 0);
                        users.fetch_sub(1, Ordering::SeqCst);
                        drop(folder);
                    }
                });
            }
            threads.spawn(|| {
                for _ in 0..ROUNDS {
                    let Some(removal) = folders.keep_out(task(0)) else {
                        thread::yield_now();
                        continue;
                    };
                    removals.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(users.load(Ordering::SeqCst), 0);
                    removals.fetch_sub(1, Ordering::SeqCst);
                    drop(removal);
                }
            });
        });
        assert!(folders.keep_out(task(0)).is_some());
    }
}
