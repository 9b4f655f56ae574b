//! An instance without threads, whose tasks a test moves about.

use std::sync::Arc;
use std::time::Instant;

use turnstile_state::Backend;

use super::Queries;
use crate::topology::Plan;
use crate::{TaskId, TaskStatus};

/// Queries over stores that a test hands over and takes away, as stream threads do.
pub struct Rehearsal {
    queries: Queries,
}

impl Rehearsal {
    /// An instance that has no task yet.
    #[must_use]
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            queries: Queries::new(plan),
        }
    }

    /// What reads its stores.
    #[must_use]
    pub fn queries(&self) -> Queries {
        self.queries.clone()
    }

    /// A task runs here from now on.
    pub fn run(&self, task: TaskId, backend: Arc<dyn Backend>) {
        self.queries.set_running(task, backend);
    }

    /// A task is restored here from now on.
    pub fn restore(&self, task: TaskId) {
        self.queries.set_status(task, TaskStatus::Closed);
        self.queries.set_status(task, TaskStatus::Restoring);
    }

    /// A task is not here any more.
    pub fn leave(&self, task: TaskId) {
        self.queries.set_status(task, TaskStatus::Closed);
    }

    /// A task that runs elsewhere is followed here, and was complete at `as_of`.
    pub fn follow(&self, task: TaskId, backend: Arc<dyn Backend>, as_of: Instant) {
        self.queries.set_standby(task, backend);
        self.queries.standby_is_current(task, as_of);
    }

    /// A commit may have written any row: whoever waits looks again.
    pub fn committed(&self) {
        self.queries.shared.watches.tell_all(|_| true);
    }

    /// Whether anybody waits for a row.
    #[must_use]
    pub fn anyone_waits(&self) -> bool {
        self.queries.anyone_waits()
    }
}
