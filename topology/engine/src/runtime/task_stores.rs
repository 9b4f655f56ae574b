//! The stores of tasks on the disk of this instance: opened, and removed when they
//! cannot be used.

use std::sync::Arc;

use turnstile_state::{Backend, RocksBackend, RocksOptions, StateDir, StateError, TaskDirName};

use crate::topology::Plan;
use crate::{Partition, SubtopologyId, TaskId};

/// The stores of tasks on the disk of this instance; cheap to clone.
#[derive(Clone)]
pub(crate) struct TaskStores {
    state_dir: Arc<StateDir>,
    plan: Arc<Plan>,
    rocks: RocksOptions,
}

impl TaskStores {
    pub(crate) fn new(state_dir: Arc<StateDir>, plan: Arc<Plan>, rocks: RocksOptions) -> Self {
        Self {
            state_dir,
            plan,
            rocks,
        }
    }

    /// Opens the stores of a task, which nobody else in this process may have open.
    pub(crate) fn open(&self, task: TaskId) -> Result<Arc<dyn Backend>, StateError> {
        let plan = self
            .plan
            .subtopology(task.subtopology)
            .expect("tasks are of subtopologies of the plan");
        let path = self.state_dir.task_path(&dir_name(task));
        let backend = RocksBackend::open(&path, &plan.store_specs(), &self.rocks)?;
        Ok(Arc::new(backend))
    }

    /// Removes the stores of a task, so that they are restored.
    pub(crate) fn wipe(&self, task: TaskId) -> Result<(), StateError> {
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
