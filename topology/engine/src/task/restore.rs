//! Brings the stores of a task up to date from their changelog.
//!
//! This is the part that needs no Kafka: at which offset of its changelog partition a task
//! is, and how records are applied. It runs off the thread that processes, on the backend
//! alone, while the task waits. [`super::dispatch`] finds the task that a record is for.

use std::sync::{Arc, Weak};

use turnstile_state::{
    Backend, Batch, ChangelogRecord, KeyRange, ScanDirection, StoreId, StoreTag,
    UnreadableChangelog,
};

use super::error::TaskError;
use crate::timer::Timers;
use crate::topology::{PlanStore, PlanStoreKind, SubtopologyPlan};
use crate::{Offset, TaskId};

/// The stores of one task that follow their changelog.
pub(crate) struct ChangelogRestore {
    pub(crate) task: TaskId,
    pub(crate) changelog: Arc<str>,
    /// The stores hold all their own records before this offset; `None`: they hold nothing.
    pub(crate) next: Option<Offset>,
    stores: Vec<RestoredStore>,
    backend: Arc<dyn Backend>,
    /// What has yet to be written to the stores.
    batch: Batch,
    /// The records of the batch.
    pending: u64,
    in_bulk: bool,
}

/// Tells whether the stores of a task hold anything. It does not keep them open.
pub(crate) struct Contents {
    task: TaskId,
    backend: Weak<dyn Backend>,
    stores: Vec<StoreId>,
}

impl Contents {
    /// Whether there is any row; `false` if nobody has the stores open any more.
    ///
    /// # Errors
    ///
    /// When the stores cannot be read.
    pub(crate) fn any(&self) -> Result<bool, TaskError> {
        let Some(backend) = self.backend.upgrade() else {
            return Ok(false);
        };
        for store in &self.stores {
            let rows = backend.scan(*store, &KeyRange::all(), ScanDirection::Forward);
            let first = rows.and_then(|mut rows| rows.next().transpose());
            let first = first.map_err(|error| TaskError::of_state(self.task, error))?;
            if first.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

struct RestoredStore {
    tag: StoreTag,
    id: StoreId,
    name: String,
    /// If its rows are timers, which have an index.
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
            batch: Batch::new(),
            pending: 0,
            in_bulk: false,
        }))
    }

    /// The stores that it restores.
    pub(crate) fn stores(&self) -> Vec<String> {
        let stores = self.stores.iter();
        stores.map(|store| store.name.clone()).collect()
    }

    /// Whether these stores hold anything, to be asked later.
    pub(crate) fn contents(&self) -> Contents {
        Contents {
            task: self.task,
            backend: Arc::downgrade(&self.backend),
            stores: self.stores.iter().map(|store| store.id).collect(),
        }
    }

    /// The tags of these stores, in their order.
    pub(super) fn tags(&self) -> impl Iterator<Item = StoreTag> {
        self.stores.iter().map(|store| store.tag)
    }

    /// The fault of stores that hold more than their changelog: the topic was recreated or has lost
    /// records, and the stores belong to another history. If nothing was ever written to it, there
    /// is nothing that they could be restored from.
    pub(crate) fn is_ahead_of(&self, end: Offset) -> TaskError {
        let next = self.next.unwrap_or(Offset(0));
        if end == Offset(0) {
            return TaskError::ChangelogLost {
                task: self.task,
                changelog: self.changelog.to_string(),
                reached: next,
            };
        }
        let found = format!(
            "the stores hold changelog records up to offset {next}, but {} ends at {end}",
            self.changelog
        );
        TaskError::Corrupted {
            task: self.task,
            source: found.into(),
        }
    }

    /// Whether what is at `offset` cannot be new to the stores.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        self.next.is_some_and(|next| offset < next)
    }

    /// The fault of a changelog with a record that no task wrote.
    pub(super) fn cannot_read(&self, offset: Offset, source: UnreadableChangelog) -> TaskError {
        TaskError::Changelog {
            task: self.task,
            changelog: self.changelog.to_string(),
            offset,
            source,
        }
    }

    /// Takes a record for the store at `store` among its own, to be written with
    /// [`Self::write`]; not, if the stores hold it already.
    ///
    /// # Errors
    ///
    /// When the record is none that a task wrote.
    pub(super) fn take(
        &mut self,
        store: usize,
        offset: Offset,
        record: &ChangelogRecord<'_>,
    ) -> Result<(), TaskError> {
        if self.holds(offset) {
            return Ok(());
        }
        let Some(store) = self.stores.get(store) else {
            return Ok(());
        };
        let batch = &mut self.batch;
        match (&store.timers, record.value) {
            (Some(timers), value) => timers
                .apply_changelog(batch, record.key, value)
                .map_err(|error| TaskError::of_state(self.task, error))?,
            (None, Some(value)) => batch.put(store.id, record.key, value),
            (None, None) => batch.delete(store.id, record.key),
        }
        self.pending += 1;
        Ok(())
    }

    /// How many records were taken and not written yet.
    pub(crate) fn pending(&self) -> u64 {
        self.pending
    }

    /// Writes what was taken: the stores then hold all their own records before `next`. Returns how
    /// many records it was.
    ///
    /// # Errors
    ///
    /// When the stores cannot be written.
    pub(crate) fn write(&mut self, next: Offset) -> Result<u64, TaskError> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.set_changelog_offset(next.0);
        self.backend
            .write(batch)
            .map_err(|error| TaskError::of_state(self.task, error))?;
        self.next = Some(next);
        Ok(std::mem::take(&mut self.pending))
    }

    /// Prepares the stores for so many records that the cost of reads meanwhile does not matter, or
    /// for reads again.
    ///
    /// # Errors
    ///
    /// When the stores cannot be written.
    pub(crate) fn set_bulk_load(&mut self, in_bulk: bool) -> Result<(), TaskError> {
        if self.in_bulk == in_bulk {
            return Ok(());
        }
        self.in_bulk = in_bulk;
        self.backend
            .set_bulk_load(in_bulk)
            .map_err(|error| TaskError::of_state(self.task, error))
    }

    /// Forgets what was taken and not written.
    pub(crate) fn forget_pending(&mut self) {
        self.batch = Batch::new();
        self.pending = 0;
    }
}

impl Drop for ChangelogRestore {
    fn drop(&mut self) {
        // Whoever has the stores next may read them.
        if let Err(error) = self.set_bulk_load(false) {
            tracing::warn!(task = %self.task, %error, "stores stay as for a bulk load");
        }
    }
}

impl AsMut<Self> for ChangelogRestore {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}
