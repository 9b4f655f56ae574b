//! A task that is behind the end of its changelog, from the begin of its restore to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::worker::Found;
use crate::runtime::restore_listener::{ChangelogRestoration, RestoreListener, RestoreListeners};
use crate::task::{ChangelogRestore, TaskError};
use crate::{Offset, TaskId};

/// The tasks whose stores are read into. Who is called off is let go of between two batches only, and
/// nobody else may write to its stores before.
#[derive(Clone, Default)]
pub(super) struct TasksBeingRead(Arc<Mutex<BTreeSet<TaskId>>>);

/// A task's place among them, until it is dropped.
struct BeingRead {
    tasks: TasksBeingRead,
    task: TaskId,
}

impl TasksBeingRead {
    pub(super) fn contains(&self, task: TaskId) -> bool {
        self.0.lock().contains(&task)
    }

    fn add(&self, task: TaskId) -> BeingRead {
        self.0.lock().insert(task);
        BeingRead {
            tasks: self.clone(),
            task,
        }
    }
}

impl Drop for BeingRead {
    fn drop(&mut self) {
        self.tasks.0.lock().remove(&self.task);
    }
}

/// A task that is behind the end of its changelog.
pub(super) struct Behind {
    pub(super) found: Found,
    // Fields are dropped in this order: the stores are let go of before that is noted.
    pub(super) stores: ChangelogRestore,
    _being_read: BeingRead,
    /// What the listeners are told of it.
    pub(super) told: ChangelogRestoration,
    /// The records that were applied.
    pub(super) records: u64,
    pub(super) done: bool,
}

/// A task whose restore begins.
pub(super) enum Begun {
    /// It has something to read.
    Behind(Box<Behind>),
    /// It is restored as it is.
    Current(Found),
}

impl AsMut<ChangelogRestore> for Behind {
    fn as_mut(&mut self) -> &mut ChangelogRestore {
        &mut self.stores
    }
}

impl Behind {
    /// Tells the listeners that its restore begins, and where it has nothing to read, that it ends.
    ///
    /// # Errors
    ///
    /// When the stores hold more than the partition.
    pub(super) fn begin(
        found: Found,
        stores: ChangelogRestore,
        end: Offset,
        tasks_being_read: &TasksBeingRead,
        listeners: &RestoreListeners,
    ) -> Result<Begun, TaskError> {
        let start = stores.next.unwrap_or(Offset(0));
        if start > end {
            return Err(stores.is_ahead_of(end));
        }
        let told = ChangelogRestoration {
            task: stores.task,
            stores: stores.stores(),
            changelog: stores.changelog.clone(),
            partition: stores.task.partition,
            start,
            end,
        };
        listeners.on_restore_start(&told);
        if start == end {
            listeners.on_restore_end(&told, 0);
            return Ok(Begun::Current(found));
        }
        Ok(Begun::Behind(Box::new(Self {
            found,
            _being_read: tasks_being_read.add(stores.task),
            stores,
            told,
            records: 0,
            done: false,
        })))
    }

    /// Tells the listeners that it ends without being restored, unless it is.
    pub(super) fn suspend(&self, listeners: &RestoreListeners) {
        if !self.done {
            listeners.on_restore_suspended(&self.told, self.records);
        }
    }

    /// Writes what was taken, if anything was or the end is reached.
    pub(super) fn write(
        &mut self,
        next: Offset,
        ended: bool,
        listeners: &RestoreListeners,
    ) -> Result<(), TaskError> {
        if self.stores.pending() == 0 && !ended {
            return Ok(());
        }
        let records = self.stores.write(next)?;
        self.records += records;
        if records > 0 {
            listeners.on_batch_restored(&self.told, next, records);
        }
        if ended {
            self.done = true;
            listeners.on_restore_end(&self.told, self.records);
        }
        Ok(())
    }
}
