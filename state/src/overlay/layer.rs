//! The writes of one transaction to the stores of a task, by store and key.

use crate::backend::Bounds;
use crate::merge::{Entries, Merge};
use crate::write::Write;
use crate::writes::Writes;
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

    /// Takes all writes out, leaving none.
    pub(super) fn take(&mut self) -> Self {
        let none = Self::new(self.stores.len());
        std::mem::replace(self, none)
    }

    fn writes(&self, store: StoreId) -> Result<&Writes, StateError> {
        self.stores
            .get(store.index())
            .ok_or(StateError::UnknownStore(store))
    }

    fn writes_mut(&mut self, store: StoreId) -> Result<&mut Writes, StateError> {
        self.stores
            .get_mut(store.index())
            .ok_or(StateError::UnknownStore(store))
    }

    /// The write of `key`, if there is one.
    pub(super) fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<&Write>, StateError> {
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
        let writes = writes.range(bounds).map(Write::to_boxes);
        Ok(match direction {
            ScanDirection::Forward => Box::new(Merge::new(below, writes, direction)),
            ScanDirection::Reverse => Box::new(Merge::new(below, writes.rev(), direction)),
        })
    }

    /// Makes `write` the write of its key, and returns the previous one.
    pub(super) fn insert(
        &mut self,
        store: StoreId,
        write: Write,
    ) -> Result<Option<Write>, StateError> {
        Ok(self.writes_mut(store)?.insert(write))
    }

    /// Takes the write of `key` out, and returns it.
    pub(super) fn remove(
        &mut self,
        store: StoreId,
        key: &[u8],
    ) -> Result<Option<Write>, StateError> {
        Ok(self.writes_mut(store)?.remove(key))
    }

    /// All deletes in `store`, then all puts, each in key order.
    pub(super) fn changes(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let writes = || {
            let store = self.stores.get(store.index());
            store.into_iter().flat_map(Writes::iter)
        };
        let deletes = writes().filter(|write| write.value().is_none());
        let puts = writes().filter(|write| write.value().is_some());
        deletes.chain(puts).map(Write::entry)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stores.iter().all(Writes::is_empty)
    }

    /// The number of keys written, over all stores.
    pub(super) fn len(&self) -> usize {
        self.stores.iter().map(Writes::len).sum()
    }

    /// The approximate memory of the writes.
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
            for write in writes.into_writes() {
                batch.push(store, write);
            }
        }
        batch
    }
}
