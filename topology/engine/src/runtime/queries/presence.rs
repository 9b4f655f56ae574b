//! What is here: the tasks that can be read, and the standbys of others.
//!
//! Stream threads say what becomes of their tasks; readers ask. Nothing here waits for a
//! thread: whoever reads holds on to the stores that it found.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use turnstile_state::Backend;

use super::watch::Watches;
use super::{Queries, QueryError};
use crate::runtime::wake::Waker;
use crate::{TaskId, TaskStatus, TimestampMs, clock};

/// The stores of a task that runs elsewhere.
struct Standby {
    backend: Arc<dyn Backend>,
    /// They hold everything that was committed up to then; nothing: not yet.
    as_of: Option<Instant>,
}

enum Presence {
    /// It ran here last: nobody has committed for it since.
    Readable {
        backend: Arc<dyn Backend>,
        since: TimestampMs,
    },
    NotRunning(TaskStatus),
}

/// What can be read of the tasks that run here; under one lock, which every read takes.
#[derive(Default)]
struct Here {
    tasks: HashMap<TaskId, Presence>,
    /// Until when what ran here last may be taken for current; nothing: for ever.
    lease: Option<Instant>,
}

/// What is shared between the stream threads and the readers.
#[derive(Default)]
pub(super) struct Shared {
    here: RwLock<Here>,
    pub(super) watches: Arc<Watches>,
    /// Tasks that run elsewhere, whose stores are followed here.
    standbys: RwLock<HashMap<TaskId, Standby>>,
    /// Is woken when a task begins or ceases to run here.
    on_change: Mutex<Option<Waker>>,
}

impl Queries {
    /// Says that a task does something else than run, or is closed. One that ran here
    /// stays readable while it waits: until it is closed or lost, nobody else runs it.
    pub(crate) fn set_status(&self, task: TaskId, status: TaskStatus) {
        {
            let tasks = &mut self.shared.here.write().tasks;
            match (status, tasks.get(&task)) {
                (TaskStatus::Closed, _) => drop(tasks.remove(&task)),
                (_, Some(Presence::Readable { .. })) => {}
                (status, _) => drop(tasks.insert(task, Presence::NotRunning(status))),
            }
        }
        if status == TaskStatus::Closed {
            self.shared.watches.tell_all(|of| of == task);
        }
        self.tell_of_change();
    }

    /// Says that a task that waits here may run elsewhere from now on.
    pub(crate) fn set_lost(&self, task: TaskId) {
        let waits = Presence::NotRunning(TaskStatus::Suspended);
        self.shared.here.write().tasks.insert(task, waits);
        self.shared.watches.tell_all(|of| of == task);
        self.tell_of_change();
    }

    /// Says that a task runs and can be read.
    pub(crate) fn set_running(&self, task: TaskId, backend: Arc<dyn Backend>) {
        let since = clock::now();
        let runs = Presence::Readable { backend, since };
        self.shared.here.write().tasks.insert(task, runs);
        self.tell_of_change();
    }

    /// Says that what runs here may be taken for current until then: somebody who is cut
    /// off longer may have lost his tasks without knowing.
    pub(crate) fn extend_lease(&self, until: Instant) {
        let lease = &mut self.shared.here.write().lease;
        *lease = lease.map_or(Some(until), |before| Some(before.max(until)));
    }

    /// Says that the stores of a task are followed here from now on.
    pub(crate) fn set_standby(&self, task: TaskId, backend: Arc<dyn Backend>) {
        let standby = Standby {
            backend,
            as_of: None,
        };
        self.shared.standbys.write().insert(task, standby);
    }

    /// Says that a standby holds everything that was committed up to `as_of`.
    pub(crate) fn standby_is_current(&self, task: TaskId, as_of: Instant) {
        if let Some(standby) = self.shared.standbys.write().get_mut(&task) {
            standby.as_of = Some(as_of);
        }
    }

    /// Says that the stores of a task are not followed here any more.
    pub(crate) fn clear_standby(&self, task: TaskId) {
        self.shared.standbys.write().remove(&task);
    }

    /// Wakes `waker` whenever a task begins or ceases to run here.
    pub(crate) fn on_change(&self, waker: Waker) {
        *self.shared.on_change.lock() = Some(waker);
    }

    fn tell_of_change(&self) {
        if let Some(waker) = &*self.shared.on_change.lock() {
            waker.wake();
        }
    }

    /// The tasks that can be read here, by id, and since when they run.
    pub(crate) fn readable_since(&self) -> BTreeMap<TaskId, TimestampMs> {
        let here = self.shared.here.read();
        let tasks = here.tasks.iter();
        let running = tasks.filter_map(|(task, presence)| match presence {
            Presence::Readable { since, .. } => Some((*task, *since)),
            Presence::NotRunning(_) => None,
        });
        running.collect()
    }

    /// The tasks that can be read, with their stores.
    pub(crate) fn readable(&self) -> Vec<(TaskId, Arc<dyn Backend>)> {
        let here = self.shared.here.read();
        let tasks = here.tasks.iter();
        let running = tasks.filter_map(|(task, presence)| match presence {
            Presence::Readable { backend, .. } => Some((*task, backend.clone())),
            Presence::NotRunning(_) => None,
        });
        running.collect()
    }

    /// The stores of a task that can be read here.
    pub(super) fn running(
        &self,
        task: TaskId,
        store: impl FnOnce() -> String,
    ) -> Result<Arc<dyn Backend>, QueryError> {
        let here = self.shared.here.read();
        match here.tasks.get(&task) {
            Some(Presence::Readable { .. })
                if here.lease.is_some_and(|until| Instant::now() > until) =>
            {
                Err(QueryError::NotRunning {
                    task,
                    status: TaskStatus::Suspended,
                })
            }
            Some(Presence::Readable { backend, .. }) => Ok(backend.clone()),
            Some(Presence::NotRunning(status)) => Err(QueryError::NotRunning {
                task,
                status: *status,
            }),
            None => Err(QueryError::NotOwned {
                store: store(),
                partition: task.partition,
            }),
        }
    }

    /// The standby of a task that is here, and how stale it is, unless that is too much.
    pub(super) fn standby(
        &self,
        task: TaskId,
        max_stale: Duration,
    ) -> Option<(Arc<dyn Backend>, Duration)> {
        let standbys = self.shared.standbys.read();
        let standby = standbys.get(&task)?;
        let stale = standby.as_of?.elapsed();
        (stale <= max_stale).then(|| (standby.backend.clone(), stale))
    }
}
