//! The writes of one transaction to the stores of a task, by store and key.

use crate::backend::Bounds;
use crate::merge::{Entries, Merge};
use crate::writes::{Value, Writes};
use crate::{Batch, ScanDirection, StateError, StoreId};

/// The writes of one transaction.
pub(super) struct Layer {
    stores: Vec<Writes>,
}

impl Layer {
    /// No writes.
    pub(super) fn new(store_count: usize) -> Self {
        Self {
            stores: vec![Writes::default(); store_count],
        }
    }

    /// Takes all writes out, and leaves none.
    pub(super) fn take(&mut self) -> Self {
        let none = Self::new(self.stores.len());
        std::mem::replace(self, none)
    }

    fn writes(&self, store: StoreId) -> Result<&Writes, StateError> {
        self.stores
            .get(store.index())
            .ok_or(StateError::UnknownStore(store))
    }

    /// What it writes to `key`, if it does.
    pub(super) fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<&Value>, StateError> {
        Ok(self.writes(store)?.get(key))
    }

    /// The entries of a range of `below`, with its own writes over them.
    pub(super) fn over<'a>(
        &'a self,
        below: Entries<'a>,
        store: StoreId,
        bounds: Bounds<'_>,
        direction: ScanDirection,
    ) -> Result<Entries<'a>, StateError> {
        let writes = self.writes(store)?;
        if writes.is_empty() {
            return Ok(below);
        }
        let writes = writes.range(bounds);
        let writes = writes.map(|(key, value)| (key.into(), value.clone()));
        Ok(match direction {
            ScanDirection::Forward => Box::new(Merge::new(below, writes, direction)),
            ScanDirection::Reverse => Box::new(Merge::new(below, writes.rev(), direction)),
        })
    }

    /// Makes `write` the write of `key` (`None`: there is none) and returns the one before.
    pub(super) fn replace(
        &mut self,
        store: StoreId,
        key: Box<[u8]>,
        write: Option<Value>,
    ) -> Result<Option<Value>, StateError> {
        let writes = self
            .stores
            .get_mut(store.index())
            .ok_or(StateError::UnknownStore(store))?;
        Ok(match write {
            Some(value) => writes.insert(key, value),
            None => writes.remove(&key),
        })
    }

    /// All deletes in `store`, then all puts, each in key order.
    pub(super) fn changes(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let writes = || {
            let store = self.stores.get(store.index());
            store.into_iter().flat_map(Writes::iter)
        };
        let deletes = writes().filter(|(_, value)| value.is_none());
        let puts = writes().filter(|(_, value)| value.is_some());
        deletes
            .chain(puts)
            .map(|(key, value)| (key, value.as_deref()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stores.iter().all(Writes::is_empty)
    }

    /// The number of keys written, over all stores.
    pub(super) fn len(&self) -> usize {
        self.stores.iter().map(Writes::len).sum()
    }

    /// The memory that the writes take, about.
    pub(super) fn bytes(&self) -> usize {
        self.stores.iter().map(Writes::bytes).sum()
    }

    pub(super) fn clear(&mut self) {
        self.stores.iter_mut().for_each(Writes::clear);
    }

    /// All writes as one batch.
    pub(super) fn into_batch(self) -> Batch {
        let mut batch = Batch::with_capacity(self.len());
        for (position, writes) in (0..).zip(self.stores) {
            let store = StoreId(position);
            for (key, value) in writes.into_entries() {
                match value {
                    Some(value) => batch.put(store, key, value),
                    None => batch.delete(store, key),
                }
            }
        }
        batch
    }
}
