//! Interactive queries: reads of the stores of the tasks that run in this process.
//!
//! Queries see only committed state and never touch the thread that processes: they read the
//! backend to which the task writes its committed batches. A task is readable from the moment it
//! runs until another may run it: in a rebalance it is suspended but stays readable, until its
//! partition is assigned elsewhere, another process announces that it runs it, or it is restored
//! here. A standby is read only for callers that accept it: its rows are committed, but need not be
//! of one moment.

mod places;
mod presence;
mod rehearsal;
mod request;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use turnstile_state::{
    Backend, Codec, CodecError, Entry, KeyRange, ScanDirection, StateError, StoreId,
};

use self::places::{Place, Places};
pub(super) use self::presence::Process;
use self::presence::Shared;
#[doc(hidden)]
pub use self::rehearsal::Rehearsal;
pub use self::request::{RowRange, StoreAnswer, StoreRead, StoreRequest};
pub use self::watch::Watch;
use crate::partitioner::partition_of;
use crate::topology::{Plan, Store};
use crate::{Partition, TaskId, TaskStatus};

/// Why a query has no answer here.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Another instance owns the partition, or none does at the moment.
    #[error("partition {partition} of store {store} is not owned by this instance")]
    NotOwned {
        /// The store.
        store: String,
        /// The partition of the key that was asked for.
        partition: Partition,
    },
    /// The task is here but does not run yet, or this instance cannot tell whether it already runs
    /// elsewhere: ask [`Cluster::owner`](crate::runtime::Cluster::owner), or try again soon.
    #[error("task {task} is {status}")]
    NotRunning {
        /// The task.
        task: TaskId,
        /// What it does instead.
        status: TaskStatus,
    },
    /// The store is not part of the running topology.
    #[error("there is no store {0} in the topology of this instance")]
    UnknownStore(String),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A row is not what its codec writes.
    #[error("store {store} holds a row that cannot be read")]
    UnreadableRow {
        /// The store.
        store: String,
        /// What is wrong with the row.
        #[source]
        source: CodecError,
    },
}

/// Reads the stores of the tasks of this instance; cheap to clone.
#[derive(Clone)]
pub struct Queries {
    plan: Arc<Plan>,
    places: Arc<Places>,
    shared: Arc<Shared>,
}

impl Queries {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            places: Arc::new(Places::of(&plan)),
            plan,
            shared: Arc::default(),
        }
    }

    /// The number of partitions of `store`.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn partitions<K, V>(&self, store: Store<K, V>) -> Result<i32, QueryError> {
        Ok(self.place(store)?.partitions)
    }

    /// The partition that `partition_key` belongs to in `store`.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn partition_of<K, V>(
        &self,
        store: Store<K, V>,
        partition_key: impl AsRef<[u8]>,
    ) -> Result<Partition, QueryError> {
        Ok(partition_of(
            partition_key.as_ref(),
            self.place(store)?.partitions,
        ))
    }

    /// The task that holds the rows of this partition key. It may run elsewhere:
    /// [`Cluster::owner`](crate::runtime::Cluster::owner) knows where.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn task_for<K, V>(
        &self,
        store: Store<K, V>,
        partition_key: impl AsRef<[u8]>,
    ) -> Result<TaskId, QueryError> {
        Ok(self.place(store)?.task_of(partition_key.as_ref()))
    }

    /// The value of `key`, in the partition that `partition_key` belongs to.
    ///
    /// # Errors
    ///
    /// When the task is not here, does not run, or its store fails.
    pub fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: impl AsRef<[u8]>,
        key: &K,
    ) -> Result<Option<V>, QueryError> {
        let place = self.place(store)?;
        let task = place.task_of(partition_key.as_ref());
        let backend = self.running(task, || self.store_name(store))?;
        let value = backend.get(place.id, &key.to_bytes())?;
        value
            .map(|value| V::decode(&value))
            .transpose()
            .map_err(|source| self.unreadable(store, source))
    }

    /// At most `limit` entries of `range` in one partition of `store`.
    ///
    /// # Errors
    ///
    /// When the task is not here, does not run, or its store fails.
    pub fn scan<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition: Partition,
        range: &KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> Result<Vec<(K, V)>, QueryError> {
        let place = self.place(store)?;
        let backend = self.running(place.task(partition), || self.store_name(store))?;
        let mut entries = Vec::new();
        for entry in backend.scan(place.id, range, direction)?.take(limit) {
            let (key, value) = entry?;
            let entry = K::decode(&key).and_then(|key| Ok((key, V::decode(&value)?)));
            entries.push(entry.map_err(|source| self.unreadable(store, source))?);
        }
        Ok(entries)
    }

    /// Calls `callback` once, when a commit has written `key` or it can no longer be read here:
    /// look again then, here or where the task runs. (It may be called on any thread, and must not
    /// block.) To wait for a value: watch, then look, then wait. Dropping the watch ends it.
    ///
    /// # Errors
    ///
    /// When the task is not here or does not run.
    pub fn watch<K: Codec, V>(
        &self,
        store: Store<K, V>,
        partition_key: impl AsRef<[u8]>,
        key: &K,
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<Watch, QueryError> {
        let place = self.place(store)?;
        let task = place.task_of(partition_key.as_ref());
        self.running(task, || self.store_name(store))?;
        let callback = Box::new(callback);
        let watches = &self.shared.watches;
        Ok(watches.add(task, place.id, key.to_bytes(), callback))
    }

    /// A read of `partition` of `store` in bytes, for another instance to answer.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn request<K, V>(
        &self,
        store: Store<K, V>,
        partition: Partition,
        read: StoreRead,
    ) -> Result<StoreRequest, QueryError> {
        self.place(store)?;
        Ok(StoreRequest {
            store: self.store_name(store),
            partition,
            read,
        })
    }

    /// The declared name of a store; for a store of another topology, a text that says so.
    #[must_use]
    pub fn store_name<K, V>(&self, store: Store<K, V>) -> String {
        let topology = &self.plan.topology;
        let index = store.index_in(topology.key);
        let found = index.and_then(|index| topology.stores.get(index));
        found.map_or_else(
            || "of another topology".to_owned(),
            |store| store.name.clone(),
        )
    }

    /// The task that holds what `request` asks for.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn task_of(&self, request: &StoreRequest) -> Result<TaskId, QueryError> {
        Ok(self.place_named(&request.store)?.task(request.partition))
    }

    /// The rows that `request` asks for, from the task if it runs here, otherwise, with
    /// `max_stale`, from a standby that held everything at most that long ago.
    ///
    /// # Errors
    ///
    /// When neither is here, or a store fails.
    pub fn answer(
        &self,
        request: &StoreRequest,
        max_stale: Option<Duration>,
    ) -> Result<StoreAnswer, QueryError> {
        let place = self.place_named(&request.store)?;
        let task = place.task(request.partition);
        let (backend, stale) = match self.running(task, || request.store.clone()) {
            Ok(backend) => (backend, None),
            Err(error) => {
                let standby = max_stale.and_then(|max_stale| self.standby(task, max_stale));
                let (backend, stale) = standby.ok_or(error)?;
                (backend, Some(stale))
            }
        };
        let mut rows = Vec::new();
        match &request.read {
            StoreRead::Keys(keys) => {
                for key in keys {
                    let value = backend.get(place.id, key)?;
                    rows.extend(value.map(|value| (key.as_slice().into(), value.into())));
                }
            }
            StoreRead::Range(range) => rows = scan_raw(backend.as_ref(), place.id, range)?,
            StoreRead::Indexed {
                range,
                prefix_bytes,
                rows: name,
            } => {
                let named = self.place_named(name)?;
                if named.subtopology != place.subtopology {
                    return Err(QueryError::UnknownStore(name.clone()));
                }
                let index = backend.scan(place.id, &range.key_range(), range.direction())?;
                for entry in index {
                    if rows.len() >= range.limit {
                        break;
                    }
                    let (index_key, _) = entry?;
                    let Some(key) = index_key.get(*prefix_bytes..) else {
                        continue;
                    };
                    // A row may have been deleted since, and a standby may not have it yet. The
                    // limit counts rows, so that a short answer means the end of the range.
                    let value = backend.get(named.id, key)?;
                    rows.extend(value.map(|value| (key.into(), value.into())));
                }
            }
        }
        Ok(StoreAnswer { rows, stale })
    }

    /// As [`Self::watch`], in bytes.
    ///
    /// # Errors
    ///
    /// When the task is not here or does not run.
    pub fn watch_key(
        &self,
        store: &str,
        partition: Partition,
        key: &[u8],
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<Watch, QueryError> {
        let place = self.place_named(store)?;
        let task = place.task(partition);
        self.running(task, || store.to_owned())?;
        let callback = Box::new(callback);
        let watches = &self.shared.watches;
        Ok(watches.add(task, place.id, key.to_vec(), callback))
    }

    /// Whether anybody waits for a key, so that a commit has to report its keys.
    pub(crate) fn anyone_waits(&self) -> bool {
        self.shared.watches.any()
    }

    /// Notifies those who wait for any of `keys` of a task that a commit has written it.
    pub(crate) fn tell(&self, task: TaskId, keys: impl Iterator<Item = (StoreId, Vec<u8>)>) {
        self.shared.watches.tell(task, keys);
    }

    /// Notifies those who wait for any key of a task: a commit may have written it.
    pub(crate) fn tell_of_any_key(&self, task: TaskId) {
        self.shared.watches.tell_all(|of| of == task);
    }

    fn place<K, V>(&self, store: Store<K, V>) -> Result<Place, QueryError> {
        let index = store.index_in(self.plan.topology.key);
        let found = index.and_then(|index| self.places.at(index));
        found.ok_or_else(|| QueryError::UnknownStore(self.store_name(store)))
    }

    fn place_named(&self, name: &str) -> Result<Place, QueryError> {
        let found = self.places.named(name);
        found.ok_or_else(|| QueryError::UnknownStore(name.to_owned()))
    }

    fn unreadable<K, V>(&self, store: Store<K, V>, source: CodecError) -> QueryError {
        QueryError::UnreadableRow {
            store: self.store_name(store),
            source,
        }
    }
}

fn scan_raw(
    backend: &dyn Backend,
    store: StoreId,
    range: &RowRange,
) -> Result<Vec<Entry>, StateError> {
    let rows = backend.scan(store, &range.key_range(), range.direction())?;
    rows.take(range.limit).collect()
}
