//! What is here: the tasks that can be read, and standbys of tasks that run elsewhere.
//!
//! Stream threads report what becomes of their tasks, and other processes what they run; readers
//! ask. Nothing here waits for a thread: a reader holds on to the stores that it found.
//!
//! A thread can lose a task without knowing: it hangs, or a group cannot be reached. So the
//! thread's word is not enough. What runs here is read for as long as
//!
//! - no other process has claimed to run it since, and
//! - this process hears the others: the lease.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// They hold everything that was committed up to then; `None`: not yet.
    as_of: Option<Instant>,
}

/// A process that runs tasks elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    /// Its instance id.
    pub(crate) instance: Arc<str>,
    /// When it started: distinguishes it from those with the same id before and after it.
    pub(crate) started: TimestampMs,
}

/// A task that runs here, or ran here last: as far as its thread knows, nobody has committed
/// for it since.
struct Claimed {
    backend: Arc<dyn Backend>,
    since: TimestampMs,
    /// Its status as last reported by its thread.
    status: TaskStatus,
    /// It has been restored since it ran: its stores may be between two committed points.
    is_replayed: bool,
    /// Processes that say that they began to run it later.
    rivals: BTreeSet<Process>,
}

impl Claimed {
    fn is_readable(&self) -> bool {
        self.rivals.is_empty() && !self.is_replayed
    }

    /// The status that readers get instead of an answer.
    fn obstacle(&self) -> TaskStatus {
        match self.status {
            TaskStatus::Running => TaskStatus::Suspended,
            other => other,
        }
    }
}

enum Presence {
    Claimed(Claimed),
    NotRunning(TaskStatus),
}

/// What can be read of the tasks that run here; under one lock, which every read takes.
#[derive(Default)]
struct Here {
    tasks: HashMap<TaskId, Presence>,
    /// Until when what ran here last may be considered current; `None`: for ever.
    lease: Option<Instant>,
    /// By task, the latest time since which any other process has said that it runs it.
    claimed_elsewhere: HashMap<TaskId, TimestampMs>,
}

impl Here {
    fn lease_is_over(&self) -> bool {
        self.lease.is_some_and(|until| Instant::now() > until)
    }

    fn claimed(&self) -> impl Iterator<Item = (TaskId, &Claimed)> {
        let tasks = self.tasks.iter();
        tasks.filter_map(|(task, presence)| match presence {
            Presence::Claimed(of) => Some((*task, of)),
            Presence::NotRunning(_) => None,
        })
    }
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
    /// Notes that a task does something other than run, or is closed. One that ran here stays
    /// readable while it waits, since nobody else runs it until it is closed or lost; but not while
    /// it is restored, which is done because somebody else may have run it.
    pub(crate) fn set_status(&self, task: TaskId, status: TaskStatus) {
        {
            let tasks = &mut self.shared.here.write().tasks;
            match (status, tasks.get_mut(&task)) {
                (TaskStatus::Closed, _) => drop(tasks.remove(&task)),
                (_, Some(Presence::Claimed(of))) if of.rivals.is_empty() => {
                    of.status = status;
                    of.is_replayed |= status == TaskStatus::Restoring;
                }
                (status, _) => drop(tasks.insert(task, Presence::NotRunning(status))),
            }
        }
        if matches!(status, TaskStatus::Closed | TaskStatus::Restoring) {
            self.shared.watches.tell_all(|of| of == task);
        }
        self.tell_of_change();
    }

    /// Notes that a task that waits here may run elsewhere from now on.
    pub(crate) fn set_lost(&self, task: TaskId) {
        let waits = Presence::NotRunning(TaskStatus::Suspended);
        self.shared.here.write().tasks.insert(task, waits);
        self.shared.watches.tell_all(|of| of == task);
        self.tell_of_change();
    }

    /// Notes that a task runs and can be read.
    pub(crate) fn set_running(&self, task: TaskId, backend: Arc<dyn Backend>) {
        {
            let here = &mut *self.shared.here.write();
            let now = clock::now();
            // Whoever ran it before began earlier, whatever the clock of that host says.
            let before = here.claimed_elsewhere.get(&task);
            let since = before.map_or(now, |before| now.max(before.plus(Duration::from_millis(1))));
            let runs = Presence::Claimed(Claimed {
                backend,
                since,
                status: TaskStatus::Running,
                is_replayed: false,
                rivals: BTreeSet::new(),
            });
            here.tasks.insert(task, runs);
        }
        self.tell_of_change();
    }

    /// Takes in which tasks another process says that it runs, and since when. Of two processes
    /// that claim a task, the one that began later has it, so a task that was claimed later
    /// elsewhere is no longer read here.
    ///
    /// If it waits here, it is lost: it will be restored before it runs again. If it runs, it is
    /// kept, in case the clocks of the two hosts differ: it is read again when the same process
    /// withdraws its claim. `may_heal` says whether that counts. Silence or a restart of the other
    /// process does not count: what it wrote is not here.
    pub(crate) fn hear_claims(
        &self,
        process: &Process,
        claims: &BTreeMap<TaskId, TimestampMs>,
        may_heal: bool,
    ) {
        let mut outdone = BTreeSet::new();
        {
            let here = &mut *self.shared.here.write();
            for (task, since) in claims {
                let latest = here.claimed_elsewhere.entry(*task).or_insert(*since);
                *latest = (*latest).max(*since);
            }
            for (task, presence) in &mut here.tasks {
                let Presence::Claimed(of) = presence else {
                    continue;
                };
                if claims.get(task).is_none_or(|since| *since <= of.since) {
                    if may_heal {
                        of.rivals.remove(process);
                    }
                    continue;
                }
                if of.rivals.insert(process.clone()) {
                    outdone.insert(*task);
                }
                let status = of.status;
                if status != TaskStatus::Running {
                    *presence = Presence::NotRunning(status);
                }
            }
        }
        if outdone.is_empty() {
            return;
        }
        let tasks: Vec<String> = outdone.iter().map(ToString::to_string).collect();
        let instance = &process.instance;
        tracing::warn!(%instance, tasks = tasks.join(" "), "another instance runs tasks that ran here last: they are not read here any more");
        self.shared.watches.tell_all(|of| outdone.contains(&of));
        self.tell_of_change();
    }

    /// The tasks that run here as far as their threads know, but have since begun to run elsewhere,
    /// with the instances that say so.
    pub(crate) fn outdone(&self) -> BTreeSet<(TaskId, Arc<str>)> {
        let here = self.shared.here.read();
        let rivals = here.claimed().flat_map(|(task, of)| {
            let rivals = of.rivals.iter();
            rivals.map(move |process| (task, process.instance.clone()))
        });
        rivals.collect()
    }

    /// Notes that what runs here may be considered current until then: a process that is cut off
    /// for longer may have lost its tasks without knowing.
    pub(crate) fn extend_lease(&self, until: Instant) {
        let lease = &mut self.shared.here.write().lease;
        *lease = lease.map_or(Some(until), |before| Some(before.max(until)));
    }

    /// Notifies those who wait for a key if the lease is over, so that nothing can be read here any
    /// more: no commit may ever write the key here.
    pub(crate) fn tell_if_cut_off(&self) {
        if self.shared.here.read().lease_is_over() {
            self.shared.watches.tell_all(|_| true);
        }
    }

    /// Notes that the stores of a task are followed here from now on.
    pub(crate) fn set_standby(&self, task: TaskId, backend: Arc<dyn Backend>) {
        let standby = Standby {
            backend,
            as_of: None,
        };
        self.shared.standbys.write().insert(task, standby);
    }

    /// Notes that a standby holds everything that was committed up to `as_of`.
    pub(crate) fn standby_is_current(&self, task: TaskId, as_of: Instant) {
        if let Some(standby) = self.shared.standbys.write().get_mut(&task) {
            standby.as_of = Some(as_of);
        }
    }

    /// Notes that the stores of a task are no longer followed here.
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

    /// The tasks that run here or ran here last, by id, and since when.
    pub(crate) fn claims(&self) -> BTreeMap<TaskId, TimestampMs> {
        let here = self.shared.here.read();
        let claimed = here.claimed();
        claimed.map(|(task, of)| (task, of.since)).collect()
    }

    /// The tasks that run here or ran here last, with their stores.
    pub(crate) fn present(&self) -> Vec<(TaskId, Arc<dyn Backend>)> {
        let here = self.shared.here.read();
        let claimed = here.claimed();
        claimed
            .map(|(task, of)| (task, of.backend.clone()))
            .collect()
    }

    /// The stores of a task that can be read here.
    pub(super) fn running(
        &self,
        task: TaskId,
        store: impl FnOnce() -> String,
    ) -> Result<Arc<dyn Backend>, QueryError> {
        let here = self.shared.here.read();
        let status = match here.tasks.get(&task) {
            Some(Presence::Claimed(of)) if of.is_readable() && !here.lease_is_over() => {
                return Ok(of.backend.clone());
            }
            Some(Presence::Claimed(of)) => of.obstacle(),
            Some(Presence::NotRunning(status)) => *status,
            None => {
                return Err(QueryError::NotOwned {
                    store: store(),
                    partition: task.partition,
                });
            }
        };
        Err(QueryError::NotRunning { task, status })
    }

    /// The standby of a task, if it is here, and how stale it is, unless that is too much.
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
