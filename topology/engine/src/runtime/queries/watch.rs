//! Who waits for which key of which task.
//!
//! A watch is notified once: by the first commit that writes its key, or when its task can no
//! longer be read here. A commit reports its keys only while somebody waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use turnstile_state::StoreId;

use crate::TaskId;

/// A callback for the commit that writes a key.
type Callback = Box<dyn FnOnce() + Send>;

/// A key of a store of a task.
type WatchedKey = (TaskId, StoreId, Vec<u8>);

/// All watches.
#[derive(Default)]
pub(super) struct Watches {
    by_key: Mutex<HashMap<WatchedKey, Vec<(u64, Callback)>>>,
    next: AtomicU64,
}

impl Watches {
    /// Adds a watch.
    pub(super) fn add(
        self: &Arc<Self>,
        task: TaskId,
        store: StoreId,
        key: Vec<u8>,
        callback: Callback,
    ) -> Watch {
        let key = (task, store, key);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut by_key = self.by_key.lock();
        let waiting = by_key.entry(key.clone()).or_default();
        waiting.push((number, callback));
        Watch {
            watches: self.clone(),
            key,
            number,
        }
    }

    /// Whether there is any watch.
    pub(super) fn any(&self) -> bool {
        !self.by_key.lock().is_empty()
    }

    /// Notifies those who wait for any of `keys` of `task`.
    pub(super) fn tell(&self, task: TaskId, keys: impl Iterator<Item = (StoreId, Vec<u8>)>) {
        let mut callbacks = Vec::new();
        {
            let mut by_key = self.by_key.lock();
            for (store, key) in keys {
                callbacks.extend(by_key.remove(&(task, store, key)).into_iter().flatten());
            }
        }
        // Outside the lock: a callback may watch again.
        for (_, callback) in callbacks {
            callback();
        }
    }

    /// Notifies everybody who waits for any key of the tasks that `which` selects.
    pub(super) fn tell_all(&self, which: impl Fn(TaskId) -> bool) {
        let told: Vec<_> = {
            let mut by_key = self.by_key.lock();
            by_key.extract_if(|(task, _, _), _| which(*task)).collect()
        };
        for (_, callback) in told.into_iter().flat_map(|(_, waiting)| waiting) {
            callback();
        }
    }
}

/// Ends the watch it stands for when it is dropped.
pub struct Watch {
    watches: Arc<Watches>,
    key: WatchedKey,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut by_key = self.watches.by_key.lock();
        if let Some(waiting) = by_key.get_mut(&self.key) {
            waiting.retain(|(number, _)| *number != self.number);
            if waiting.is_empty() {
                by_key.remove(&self.key);
            }
        }
    }
}
