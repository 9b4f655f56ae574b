//! A task that is behind the end of its changelog, from the start of its restore to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::worker::Found;
use crate::runtime::restore_listener::{ChangelogRestoration, RestoreListener, RestoreListeners};
use crate::task::{ChangelogRestore, TaskError};
use crate::{Offset, TaskId};

/// How often listeners hear how far a task is for which nothing is read. Most of what is read may
/// belong to other tasks.
const TELLING_INTERVAL: Duration = Duration::from_secs(1);

/// The tasks whose stores are read into. A task that is called off is released between two batches
/// only, and nobody else may write to its stores before.
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
    // Fields are dropped in this order: the stores are released before that is noted.
    pub(super) stores: ChangelogRestore,
    _being_read: BeingRead,
    /// What the listeners are told of it.
    pub(super) told: ChangelogRestoration,
    /// The records that were applied.
    pub(super) records: u64,
    /// When listeners last heard how far it is.
    last_told: Instant,
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
    /// Tells the listeners that its restore begins and, if it has nothing to read, that it ends.
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
            last_told: Instant::now(),
            done: false,
        })))
    }

    /// Tells the listeners that it ends without being restored, unless it is.
    pub(super) fn suspend(&self, listeners: &RestoreListeners) {
        if !self.done {
            listeners.on_restore_suspended(&self.told, self.records);
        }
    }

    /// Writes what was taken, if there is anything or the end is reached. Otherwise tells the
    /// listeners from time to time how far it is.
    pub(super) fn write(
        &mut self,
        next: Offset,
        ended: bool,
        now: Instant,
        listeners: &RestoreListeners,
    ) -> Result<(), TaskError> {
        if self.stores.pending() == 0 && !ended {
            let is_due = now.saturating_duration_since(self.last_told) >= TELLING_INTERVAL;
            // Reading begins at the task that is furthest behind.
            if is_due && next > self.told.start {
                self.last_told = now;
                listeners.on_batch_restored(&self.told, next, 0);
            }
            return Ok(());
        }
        let records = self.stores.write(next)?;
        self.records += records;
        if records > 0 {
            self.last_told = now;
            listeners.on_batch_restored(&self.told, next, records);
        }
        if ended {
            self.done = true;
            listeners.on_restore_end(&self.told, self.records);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use turnstile_state::{Backend, MemoryBackend};

    use super::super::{CalledOff, Ticket};
    use super::*;
    use crate::quiet;

    /// Remembers how far a task is, and by how many records.
    #[derive(Default)]
    struct Heard(Mutex<Vec<(i64, u64)>>);

    impl RestoreListener for Heard {
        fn on_batch_restored(&self, _: &ChangelogRestoration, reached: Offset, records: u64) {
            self.0.lock().push((reached.0, records));
        }
    }

    #[test]
    fn listeners_hear_now_and_then_how_far_a_task_is_of_which_nothing_is_read() {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let of = &plan.subtopologies[0];
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
        let task = plan.tasks()[0];
        let ticket = Ticket {
            task,
            called_off: CalledOff::default(),
            submitted: Instant::now(),
            stores: None,
        };
        let mut stores = ChangelogRestore::of(task, of, &backend).unwrap().unwrap();
        stores.next = Some(Offset(100));
        let heard = Arc::new(Heard::default());
        let listeners = RestoreListeners(vec![heard.clone()]);
        let found = Found::of(&ticket, Vec::new(), Vec::new());
        let begun = Behind::begin(
            found,
            stores,
            Offset(1_000),
            &TasksBeingRead::default(),
            &listeners,
        );
        let Ok(Begun::Behind(mut behind)) = begun else {
            unreachable!("there is something to read");
        };
        let begun = behind.last_told;
        let mut read = |next, after_ms| {
            let now = begun + Duration::from_millis(after_ms);
            behind.write(Offset(next), false, now, &listeners).unwrap();
        };
        // What others need, before where it begins.
        read(50, 1_500);
        read(100, 2_000);
        // Then it is told at once, but not for each batch.
        read(200, 2_100);
        read(300, 2_200);
        read(400, 3_000);
        read(500, 3_100);
        assert_eq!(*heard.0.lock(), [(200, 0), (500, 0)]);
        assert_eq!(behind.records, 0);
    }
}
