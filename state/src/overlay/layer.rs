//! The writes of one transaction to the stores of a task, by store and key.
//!
//! The writes of a store are an ordered map. Scans and changes need the order,
//! and a lookup in the few thousand keys of one transaction costs less than the
//! lookup in the database that follows a miss.

use std::collections::BTreeMap;

use super::merge::{Entries, Merge};
use crate::backend::Bounds;
use crate::{Batch, ScanDirection, StateError, StoreId};

/// What an entry costs beside its bytes: two boxes and its place in the map.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The new value of a key; `None` deletes it.
pub(super) type Value = Option<Box<[u8]>>;

type Writes = BTreeMap<Box<[u8]>, Value>;

/// The writes of one transaction.
pub(super) struct Layer {
    stores: Vec<Writes>,
    bytes: usize,
}

impl Layer {
    /// No writes.
    pub(super) fn new(store_count: usize) -> Self {
        Self {
            stores: vec![Writes::new(); store_count],
            bytes: 0,
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
        let writes = writes.range::<[u8], _>(bounds);
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
        let key_len = key.len();
        let entry_bytes = |value: &Value| {
            ENTRY_OVERHEAD_BYTES + key_len + value.as_ref().map_or(0, |value| value.len())
        };
        self.bytes += write.as_ref().map_or(0, entry_bytes);
        let previous = match write {
            Some(value) => writes.insert(key, value),
            None => writes.remove(&key),
        };
        self.bytes -= previous.as_ref().map_or(0, entry_bytes);
        Ok(previous)
    }

    /// All deletes in `store`, then all puts, each in key order.
    pub(super) fn changes(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let writes = || self.stores.get(store.index()).into_iter().flatten();
        let deletes = writes().filter(|(_, value)| value.is_none());
        let puts = writes().filter(|(_, value)| value.is_some());
        deletes
            .chain(puts)
            .map(|(key, value)| (&**key, value.as_deref()))
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
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.stores.iter_mut().for_each(Writes::clear);
        self.bytes = 0;
    }

    /// All writes as one batch.
    pub(super) fn into_batch(self) -> Batch {
        let mut batch = Batch::new();
        for (position, writes) in (0..).zip(self.stores) {
            let store = StoreId(position);
            for (key, value) in writes {
                match value {
                    Some(value) => batch.put(store, key, value),
                    None => batch.delete(store, key),
                }
            }
        }
        batch
    }
}
