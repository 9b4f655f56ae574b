//! Opens a task on its stores, and removes stores that cannot be used.
//!
//! Nobody else in the process may have the stores open: a standby hands them over; if another
//! stream thread or a query is about to let go of them, the caller has to ask again.

use std::sync::Arc;
use std::time::Duration;

use turnstile_state::Backend;

use super::{ThreadFault, ThreadSetup};
use crate::TaskId;
use crate::runtime::task_stores::StoresFault;
use crate::task::{Task, TaskError};

/// Opens a task on its stores: those that its standby has open here, or those on disk; `None` while
/// somebody else in the process has them open. Stores that cannot be used are wiped, to be
/// restored.
pub(super) fn open(setup: &ThreadSetup, id: TaskId) -> Result<Option<Task>, ThreadFault> {
    let backend = match setup.standbys.take(id) {
        Some(backend) => backend,
        None => match open_stores(setup, id) {
            Ok(Some(backend)) => backend,
            not_open => {
                setup.standbys.give_back(id);
                return not_open.map(|_| None);
            }
        },
    };
    let plan = setup
        .plan
        .subtopology(id.subtopology)
        .expect("tasks are of subtopologies of the plan");
    let topology = setup.plan.topology.clone();
    Ok(Some(Task::new(id, topology, plan.clone(), backend)))
}

fn open_stores(setup: &ThreadSetup, id: TaskId) -> Result<Option<Arc<dyn Backend>>, ThreadFault> {
    match setup.stores.open(id, Duration::ZERO) {
        Err(StoresFault::Task(error @ TaskError::Corrupted { .. })) => {
            tracing::error!(task = %id, error = super::with_sources(&error), "wiping the stores of a task to restore them");
            setup.stores.wipe(id)?;
            Ok(setup.stores.open(id, Duration::ZERO)?)
        }
        opened => Ok(opened?),
    }
}

/// Removes the stores of a task; the next membership restores them.
pub(super) fn wipe(setup: &ThreadSetup, id: TaskId) -> Result<(), StoresFault> {
    // Nobody may have them open, so a standby that has been opened since is closed.
    drop(setup.standbys.take(id));
    let wiped = setup.stores.wipe(id);
    setup.standbys.give_back(id);
    wiped
}
