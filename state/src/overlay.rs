//! The uncommitted writes of one task, on top of its committed state.
//!
//! Whoever writes through an overlay reads its own writes; everyone else reads
//! the backend and sees nothing until the commit. The overlay never writes to the
//! backend itself: a commit is [`Overlay::take_batch`], to which the caller adds
//! the changelog offsets that it reaches, and an abort is [`Overlay::clear`].
//!
//! A processor that fails half way through a record must leave no trace of it, so
//! a [`Savepoint`] marks a point to return to. While one is open, each write
//! notes what it replaced in an undo log; otherwise that log costs nothing.
//! Savepoints nest: returning to or releasing an outer one closes those within.
//!
//! The writes of a store are an ordered map. Scans and changes need the order,
//! and a lookup in the few thousand keys of one transaction costs less than the
//! lookup in the database that follows a miss.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId};

mod merge;

use merge::Merge;

/// What an entry costs beside its bytes: two boxes and its place in the map.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// New values by key; `None` deletes.
type Writes = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

/// The writes of an open transaction.
pub struct Overlay {
    backend: Arc<dyn Backend>,
    stores: Vec<Writes>,
    bytes: usize,
    undo: Vec<Undo>,
    /// The serials of the open savepoints, outermost first.
    savepoints: Vec<u64>,
    next_serial: u64,
}

/// What a key was in the overlay before a write.
struct Undo {
    store: StoreId,
    key: Box<[u8]>,
    /// `None`: the overlay had no write of the key.
    previous: Option<Option<Box<[u8]>>>,
}

/// A point in a transaction to return to with [`Overlay::rollback_to`].
///
/// It is used up by returning to it or releasing it, and ends with its transaction.
#[derive(Debug)]
#[must_use = "an open savepoint makes every write note what it replaced: release it"]
pub struct Savepoint {
    serial: u64,
    depth: usize,
    undo_len: usize,
}

impl Overlay {
    /// No writes, on top of `backend`, which was opened with `store_count` stores.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, store_count: usize) -> Self {
        Self {
            backend,
            stores: vec![Writes::new(); store_count],
            bytes: 0,
            undo: Vec::new(),
            savepoints: Vec::new(),
            next_serial: 0,
        }
    }

    /// The committed state below.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The value of `key`, as this transaction sees it.
    ///
    /// # Errors
    ///
    /// [`StateError::UnknownStore`], and those of [`Backend::get`].
    pub fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        match self.writes(store)?.get(key) {
            Some(value) => Ok(value.as_deref().map(<[u8]>::to_vec)),
            None => self.backend.get(store, key),
        }
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    ///
    /// [`StateError::UnknownStore`].
    pub fn put(
        &mut self,
        store: StoreId,
        key: impl Into<Box<[u8]>>,
        value: impl Into<Box<[u8]>>,
    ) -> Result<(), StateError> {
        self.write(store, key.into(), Some(value.into()))
    }

    /// Deletes `key`.
    ///
    /// # Errors
    ///
    /// [`StateError::UnknownStore`].
    pub fn delete(&mut self, store: StoreId, key: impl Into<Box<[u8]>>) -> Result<(), StateError> {
        self.write(store, key.into(), None)
    }

    /// The entries of `range` in the given order, as this transaction sees them.
    ///
    /// The iterator ends after its first error.
    ///
    /// # Errors
    ///
    /// [`StateError::UnknownStore`], and those of [`Backend::scan`].
    pub fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let writes = self.writes(store)?;
        let committed = self.backend.scan(store, range, direction)?;
        match range.bounds() {
            Some(bounds) if !writes.is_empty() => {
                let writes = writes.range::<[u8], _>(bounds);
                Ok(match direction {
                    ScanDirection::Forward => Box::new(Merge::new(committed, writes, direction)),
                    ScanDirection::Reverse => {
                        Box::new(Merge::new(committed, writes.rev(), direction))
                    }
                })
            }
            _ => Ok(committed),
        }
    }

    /// Opens a savepoint: what is written from here on can be undone.
    pub fn savepoint(&mut self) -> Savepoint {
        let serial = self.next_serial;
        self.next_serial += 1;
        let depth = self.savepoints.len();
        self.savepoints.push(serial);
        Savepoint {
            serial,
            depth,
            undo_len: self.undo.len(),
        }
    }

    /// Undoes every write made since `savepoint`, and closes it and those within.
    ///
    /// # Panics
    ///
    /// When the savepoint is not open any more.
    #[expect(clippy::needless_pass_by_value, reason = "a savepoint is used once")]
    pub fn rollback_to(&mut self, savepoint: Savepoint) {
        self.close(&savepoint);
        // Backwards, so that the oldest value of a key written twice is the one
        // that stays.
        for undo in self.undo.split_off(savepoint.undo_len).into_iter().rev() {
            replace(
                &mut self.stores,
                &mut self.bytes,
                undo.store,
                undo.key,
                undo.previous,
            )
            .expect("a store that was written to exists");
        }
    }

    /// Keeps the writes made since `savepoint`, and closes it and those within.
    ///
    /// # Panics
    ///
    /// When the savepoint is not open any more.
    #[expect(clippy::needless_pass_by_value, reason = "a savepoint is used once")]
    pub fn release(&mut self, savepoint: Savepoint) {
        self.close(&savepoint);
        // An outer savepoint may still need what the inner one noted.
        if self.savepoints.is_empty() {
            self.undo.clear();
        }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stores.iter().all(Writes::is_empty)
    }

    /// The number of keys written, over all stores.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stores.iter().map(Writes::len).sum()
    }

    /// The memory that the writes take, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the transaction makes of each key that it wrote in `store`; `None` is
    /// a delete. A store that does not exist has no changes.
    ///
    /// All deletes come before all puts, each in key order. The order is a
    /// function of the writes alone, so that a replay repeats it. Deletes come
    /// first for whoever follows the changelog and derives something with fewer
    /// keys from it, such as an index by a field: where a row moved, the row that
    /// went must not take with it what the row that came has just put there.
    pub fn changes(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let writes = || self.stores.get(store.index()).into_iter().flatten();
        let deletes = writes().filter(|(_, value)| value.is_none());
        let puts = writes().filter(|(_, value)| value.is_some());
        deletes
            .chain(puts)
            .map(|(key, value)| (&**key, value.as_deref()))
    }

    /// Moves all writes into a batch, for a commit, and ends the transaction.
    #[must_use]
    pub fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::new();
        for (position, writes) in (0..).zip(&mut self.stores) {
            let store = StoreId(position);
            for (key, value) in std::mem::take(writes) {
                match value {
                    Some(value) => batch.put(store, key, value),
                    None => batch.delete(store, key),
                }
            }
        }
        self.clear();
        batch
    }

    /// Forgets all writes, for an abort, and ends the transaction.
    pub fn clear(&mut self) {
        self.stores.iter_mut().for_each(Writes::clear);
        self.bytes = 0;
        self.undo.clear();
        self.savepoints.clear();
    }

    fn writes(&self, store: StoreId) -> Result<&Writes, StateError> {
        self.stores
            .get(store.index())
            .ok_or(StateError::UnknownStore(store))
    }

    fn write(
        &mut self,
        store: StoreId,
        key: Box<[u8]>,
        value: Option<Box<[u8]>>,
    ) -> Result<(), StateError> {
        if self.savepoints.is_empty() {
            replace(&mut self.stores, &mut self.bytes, store, key, Some(value))?;
        } else {
            let undo_key = key.clone();
            let previous = replace(&mut self.stores, &mut self.bytes, store, key, Some(value))?;
            self.undo.push(Undo {
                store,
                key: undo_key,
                previous,
            });
        }
        Ok(())
    }

    fn close(&mut self, savepoint: &Savepoint) {
        assert_eq!(
            self.savepoints.get(savepoint.depth),
            Some(&savepoint.serial),
            "a savepoint is used while it is open, and on the overlay that made it"
        );
        self.savepoints.truncate(savepoint.depth);
    }
}

/// Makes `write` the write of `key` (`None`: there is none) and returns the one before.
fn replace(
    stores: &mut [Writes],
    bytes: &mut usize,
    store: StoreId,
    key: Box<[u8]>,
    write: Option<Option<Box<[u8]>>>,
) -> Result<Option<Option<Box<[u8]>>>, StateError> {
    let writes = stores
        .get_mut(store.index())
        .ok_or(StateError::UnknownStore(store))?;
    let key_len = key.len();
    let entry_bytes = |value: &Option<Box<[u8]>>| {
        ENTRY_OVERHEAD_BYTES + key_len + value.as_ref().map_or(0, |value| value.len())
    };
    *bytes += write.as_ref().map_or(0, entry_bytes);
    let previous = match write {
        Some(value) => writes.insert(key, value),
        None => writes.remove(&key),
    };
    *bytes -= previous.as_ref().map_or(0, entry_bytes);
    Ok(previous)
}

#[cfg(test)]
mod tests;
