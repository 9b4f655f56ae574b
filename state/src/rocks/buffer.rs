//! The writes to a database that are not on disk yet.
//!
//! RocksDB would keep them in a memtable until it is flushed; but to find or insert a row there,
//! it compares whole keys along a list. Here both take a tenth of that time, and a row that is
//! written again before it is drained reaches the disk once.
//!
//! Rows loaded in bulk are put in place only when somebody reads them, or they are drained.
//!
//! A scan sees a store as it was when the scan began: it shares the store's writes, and
//! concurrent writers write to a copy.

use std::ops::Bound;
use std::sync::Arc;

use crate::backend::Bounds;
use crate::merge::Over;
use crate::writes::{Loaded, Writes};
use crate::{Batch, KeyRange, ScanDirection, StateError, StoreId};

/// The writes of a database that RocksDB does not have yet.
#[derive(Debug)]
pub(super) struct Buffer {
    stores: Vec<Arc<Writes>>,
    /// For each store, what lies over its writes.
    loaded: Vec<Loaded>,
    changelog_offset: Option<i64>,
}

impl Buffer {
    /// An empty buffer for `store_count` stores.
    pub(super) fn new(store_count: usize) -> Self {
        Self {
            stores: (0..store_count).map(|_| Arc::default()).collect(),
            loaded: (0..store_count).map(|_| Loaded::default()).collect(),
            changelog_offset: None,
        }
    }

    /// Takes everything out.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.stores.len());
        std::mem::replace(self, empty)
    }

    /// Adds a batch, as a whole or not at all; in bulk, [`Self::settle`] puts it in place later.
    pub(super) fn add(&mut self, batch: Batch, in_bulk: bool) -> Result<(), StateError> {
        let known = self.stores.len();
        let mut written = batch.writes.iter().map(|(store, _)| store);
        if let Some(unknown) = written.find(|store| store.index() >= known) {
            return Err(StateError::UnknownStore(*unknown));
        }
        if !in_bulk {
            self.settle();
        }
        for (store, write) in batch.writes {
            if in_bulk {
                if let Some(loaded) = self.loaded.get_mut(store.index()) {
                    loaded.push(write);
                }
            } else if let Some(writes) = self.stores.get_mut(store.index()) {
                Arc::make_mut(writes).insert(write);
            }
        }
        self.changelog_offset = batch.changelog_offset.or(self.changelog_offset);
        Ok(())
    }

    /// Whether everything is in place.
    pub(super) fn is_settled(&self) -> bool {
        self.loaded.iter().all(Loaded::is_empty)
    }

    /// Puts everything in place.
    pub(super) fn settle(&mut self) {
        for (writes, loaded) in self.stores.iter_mut().zip(&mut self.loaded) {
            if !loaded.is_empty() {
                Arc::make_mut(writes).insert_loaded(std::mem::take(loaded));
            }
        }
    }

    /// The writes to a store, once settled.
    pub(super) fn store(&self, store: StoreId) -> Result<&Arc<Writes>, StateError> {
        let writes = self.stores.get(store.index());
        writes.ok_or(StateError::UnknownStore(store))
    }

    /// The writes to each store, in their order, once settled.
    pub(super) fn stores(&self) -> impl Iterator<Item = &Writes> {
        self.stores.iter().map(AsRef::as_ref)
    }

    /// The changelog offset that is reached, if RocksDB does not have it yet.
    pub(super) fn changelog_offset(&self) -> Option<i64> {
        self.changelog_offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changelog_offset.is_none() && self.is_settled() && self.stores().all(Writes::is_empty)
    }

    /// The approximate memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let loaded: usize = self.loaded.iter().map(Loaded::bytes).sum();
        loaded + self.stores().map(Writes::bytes).sum::<usize>()
    }
}

/// The writes of a store in a range, as they were when this was made.
pub(super) struct Scan {
    writes: Arc<Writes>,
    /// What is left.
    range: KeyRange,
    direction: ScanDirection,
}

impl Scan {
    pub(super) fn new(writes: Arc<Writes>, range: &KeyRange, direction: ScanDirection) -> Self {
        Self {
            writes,
            range: range.clone(),
            direction,
        }
    }
}

impl Iterator for Scan {
    type Item = Over;

    fn next(&mut self) -> Option<Self::Item> {
        let bounds: Bounds<'_> = self.range.bounds()?;
        let mut left = self.writes.range(bounds);
        let write = match self.direction {
            ScanDirection::Forward => left.next(),
            ScanDirection::Reverse => left.next_back(),
        }?;
        let over = write.to_boxes();
        let passed = Bound::Excluded(write.key().to_vec());
        match self.direction {
            ScanDirection::Forward => self.range.start = passed,
            ScanDirection::Reverse => self.range.end = passed,
        }
        Some(over)
    }
}
