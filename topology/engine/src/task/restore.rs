//! Brings the stores of a task up to date from their changelog.
//!
//! This is the part that needs no Kafka: at which offset of its changelog a task is,
//! and how records are applied. It runs off the thread that processes, on the backend
//! alone, while the task waits.
//!
//! Records of stores that the topology does not have any more are passed over.

use std::sync::Arc;

use turnstile_state::{Backend, Batch, ChangelogRecord, StoreId, StoreTag};

use super::error::TaskError;
use crate::timer::Timers;
use crate::topology::{PlanStore, PlanStoreKind, SubtopologyPlan};
use crate::{Offset, TaskId};

/// The stores of one task that follow their changelog.
pub(crate) struct ChangelogRestore {
    pub(crate) task: TaskId,
    pub(crate) changelog: Arc<str>,
    /// The next offset to read; nothing: from the start.
    pub(crate) next: Option<Offset>,
    stores: Vec<RestoredStore>,
    backend: Arc<dyn Backend>,
}

struct RestoredStore {
    tag: StoreTag,
    id: StoreId,
    name: String,
    /// Where its rows are timers, which have an index.
    timers: Option<Timers>,
}

impl RestoredStore {
    fn of(plan: &SubtopologyPlan, id: StoreId, store: &PlanStore) -> Option<Self> {
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
        Some(Self {
            tag: store.tag?,
            id,
            name: store.name.clone(),
            timers,
        })
    }
}

impl ChangelogRestore {
    pub(crate) fn of(
        task: TaskId,
        plan: &SubtopologyPlan,
        backend: &Arc<dyn Backend>,
    ) -> Result<Option<Self>, TaskError> {
        let Some(changelog) = &plan.changelog else {
            return Ok(None);
        };
        let next = backend
            .changelog_offset()
            .map_err(|error| TaskError::of_state(task, error))?;
        let stores = plan.stores_by_id();
        Ok(Some(Self {
            task,
            changelog: changelog.clone(),
            next: next.map(Offset),
            stores: stores
                .filter_map(|(id, store)| RestoredStore::of(plan, id, store))
                .collect(),
            backend: backend.clone(),
        }))
    }

    /// The stores that it restores.
    pub(crate) fn stores(&self) -> Vec<String> {
        let stores = self.stores.iter();
        stores.map(|store| store.name.clone()).collect()
    }

    /// The fault of stores that hold more than their changelog: the topic was made
    /// anew or has lost records, and the stores are those of another history.
    pub(crate) fn is_ahead_of(&self, end: Offset) -> TaskError {
        let next = self.next.unwrap_or(Offset(0));
        let found = format!(
            "the stores hold changelog records up to offset {next}, but {} ends at {end}",
            self.changelog
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
        let mut stores = self.stores.iter();
        let Some(store) = stores.find(|store| store.tag == record.store) else {
            return Ok(());
        };
        match (&store.timers, record.value) {
            (Some(timers), value) => timers
                .apply_changelog(batch, record.key, value)
                .map_err(|error| TaskError::of_state(self.task, error))?,
            (None, Some(value)) => batch.put(store.id, record.key, value),
            (None, None) => batch.delete(store.id, record.key),
        }
        Ok(())
    }

    /// Writes `batch`: the stores then hold all records before `next`.
    ///
    /// # Errors
    ///
    /// When the stores cannot be written.
    pub(crate) fn write(&mut self, mut batch: Batch, next: Offset) -> Result<(), TaskError> {
        batch.set_changelog_offset(next.0);
        self.backend
            .write(batch)
            .map_err(|error| TaskError::of_state(self.task, error))?;
        self.next = Some(next);
        Ok(())
    }
}
