//! Opens a task on its stores, and removes stores that cannot be used.
//!
//! Nobody else in the process may have the stores open: a standby hands them over, and
//! another stream thread is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use turnstile_state::Backend;

use super::{ThreadFault, ThreadSetup};
use crate::TaskId;
use crate::runtime::kafka::KafkaFault;
use crate::runtime::task_stores::StoresFault;
use crate::task::{Task, TaskError};

/// How long another thread of this process may take to close a task's stores.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// After so long it looks whether the instance stops.
const OPEN_STEP: Duration = Duration::from_millis(50);

/// A task on its stores: those that its standby has open here, or those on disk. Stores
/// that cannot be used are wiped, to be restored.
pub(super) fn open(setup: &ThreadSetup, id: TaskId) -> Result<Task, ThreadFault> {
    let backend = match setup.standbys.take(id) {
        Some(backend) => backend,
        None => match open_stores(setup, id) {
            Ok(backend) => backend,
            Err(fault) => {
                setup.standbys.give_back(id);
                return Err(fault);
            }
        },
    };
    let plan = setup
        .plan
        .subtopology(id.subtopology)
        .expect("tasks are of subtopologies of the plan");
    Ok(Task::new(
        id,
        setup.plan.topology.clone(),
        plan.clone(),
        backend,
    ))
}

fn open_stores(setup: &ThreadSetup, id: TaskId) -> Result<Arc<dyn Backend>, ThreadFault> {
    let begun = Instant::now();
    let mut wiped = false;
    loop {
        match setup.stores.open(id, OPEN_STEP) {
            Ok(Some(backend)) => return Ok(backend),
            // Another thread of this process, or a query, may be about to let go of it.
            Ok(None) => {
                if begun.elapsed() > OPEN_LIMIT || setup.stopping() {
                    return Err(KafkaFault::Retriable {
                        action: "open the stores of a task",
                        reason: format!("somebody has those of {id} open"),
                    }
                    .into());
                }
            }
            Err(StoresFault::Task(error @ TaskError::Corrupted { .. })) if !wiped => {
                tracing::error!(task = %id, error = super::with_sources(&error), "wiping the stores of a task to restore them");
                setup.stores.wipe(id)?;
                wiped = true;
            }
            Err(fault) => return Err(fault.into()),
        }
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
