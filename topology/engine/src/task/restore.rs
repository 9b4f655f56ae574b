//! Brings the stores of a task up to date from their changelogs.
//!
//! This is the part that needs no Kafka: which store is behind which offset of
//! which changelog, and how its records are applied. It runs off the thread that
//! processes, on the backend alone, while the task waits.

use std::sync::Arc;

use turnstile_state::{Backend, Batch, ChangelogRecord, StoreId};

use super::error::TaskError;
use crate::timer::Timers;
use crate::topology::{PlanStoreKind, SubtopologyPlan};
use crate::{Offset, TaskId};

/// What a task has to read before it may run.
pub(crate) struct TaskRestore {
    pub(crate) task: TaskId,
    pub(crate) stores: Vec<StoreRestore>,
}

impl TaskRestore {
    pub(crate) fn of(
        task: TaskId,
        plan: &SubtopologyPlan,
        backend: &Arc<dyn Backend>,
    ) -> Result<Self, TaskError> {
        let mut stores = Vec::new();
        for (id, store) in plan.stores_by_id() {
            let Some(changelog) = &store.changelog else {
                continue;
            };
            let next = backend
                .changelog_offset(id)
                .map_err(|error| TaskError::of_state(task, error))?;
            let timers = match store.kind {
                PlanStoreKind::TimerRows(processor) => {
                    let index = plan
                        .stores_by_id()
                        .find(|(_, store)| store.kind == PlanStoreKind::TimerIndex(processor))
                        .map(|(id, _)| id);
                    index.map(|index| Timers::new(id, index, 1))
                }
                PlanStoreKind::Declared(_) | PlanStoreKind::TimerIndex(_) => None,
            };
            stores.push(StoreRestore {
                task,
                store: id,
                name: store.name.clone(),
                changelog: changelog.clone(),
                next: next.map(Offset),
                timers,
                backend: backend.clone(),
            });
        }
        Ok(Self { task, stores })
    }
}

/// One store that follows its changelog.
pub(crate) struct StoreRestore {
    pub(crate) task: TaskId,
    pub(crate) store: StoreId,
    pub(crate) name: String,
    pub(crate) changelog: Arc<str>,
    /// The next offset to read; nothing: from the start.
    pub(crate) next: Option<Offset>,
    timers: Option<Timers>,
    backend: Arc<dyn Backend>,
}

impl StoreRestore {
    /// The fault of a store that holds more than its changelog: the topic was
    /// made anew or has lost records, and the store is that of another history.
    pub(crate) fn is_ahead_of(&self, end: Offset) -> TaskError {
        let next = self.next.unwrap_or(Offset(0));
        let found = format!(
            "store {} holds changelog records up to offset {next}, but {} ends at {end}",
            self.name, self.changelog
        );
        TaskError::Corrupted {
            task: self.task,
            source: found.into(),
        }
    }

    /// Adds one changelog record to `batch`.
    ///
    /// # Errors
    ///
    /// When the record is none that a task wrote.
    pub(crate) fn add(
        &self,
        batch: &mut Batch,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), TaskError> {
        let record = ChangelogRecord::decode(key, value).map_err(|error| TaskError::Corrupted {
            task: self.task,
            source: Box::new(error),
        })?;
        match (&self.timers, record.value) {
            (Some(timers), value) => timers
                .apply_changelog(batch, record.key, value)
                .map_err(|error| TaskError::of_state(self.task, error))?,
            (None, Some(value)) => batch.put(self.store, record.key, value),
            (None, None) => batch.delete(self.store, record.key),
        }
        Ok(())
    }

    /// Writes `batch`: the store then holds all records before `next`.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub(crate) fn write(&mut self, mut batch: Batch, next: Offset) -> Result<(), TaskError> {
        batch.set_changelog_offset(self.store, next.0);
        self.backend
            .write(batch)
            .map_err(|error| TaskError::of_state(self.task, error))?;
        self.next = Some(next);
        Ok(())
    }
}
