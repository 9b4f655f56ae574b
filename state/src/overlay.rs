//! The uncommitted writes of one task, on top of its committed state.
//!
//! Whoever writes through an overlay reads its own writes; everyone else reads
//! the backend and sees nothing until the commit. The overlay never writes to the
//! backend itself. A transaction ends in two steps, between which the next one begins:
//!
//! 1. [`Overlay::seal`] closes it. Its writes are known ([`Overlay::changes`]), can still be
//!    read here, and no longer change. Writes from now on belong to the next transaction.
//! 2. [`Overlay::take_batch`] moves its writes out for the backend, once it is committed. The
//!    caller adds the changelog offset that they reach.
//!
//! So a read looks at three places: the open transaction, the sealed one, the backend. At
//! most one is sealed. An abort ([`Overlay::clear`]) drops both, since the later one builds
//! on the earlier.
//!
//! A processor that fails half way through a record must leave no trace of it, so
//! a [`Savepoint`] marks a point to return to. While one is open, each write
//! notes what it replaced in an undo log; otherwise that log costs nothing.
//! Savepoints nest: returning to or releasing an outer one closes those within.

use std::sync::Arc;

use crate::write::Write;
use crate::{Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId};

mod layer;
mod undo;

use layer::Layer;
use undo::UndoLog;

/// The writes of an open transaction, over those of a sealed one.
pub struct Overlay {
    backend: Arc<dyn Backend>,
    open: Layer,
    sealed: Option<Layer>,
    undo: UndoLog,
    /// The serials of the open savepoints, outermost first.
    savepoints: Vec<u64>,
    next_serial: u64,
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
            open: Layer::new(store_count),
            sealed: None,
            undo: UndoLog::default(),
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
        let mut written = self.open.get(store, key)?;
        if let (None, Some(sealed)) = (written, &self.sealed) {
            written = sealed.get(store, key)?;
        }
        match written {
            Some(write) => Ok(write.value().map(<[u8]>::to_vec)),
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
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), StateError> {
        self.write(store, Write::put(key.as_ref(), value.as_ref()))
    }

    /// Deletes `key`.
    ///
    /// # Errors
    ///
    /// [`StateError::UnknownStore`].
    pub fn delete(&mut self, store: StoreId, key: impl AsRef<[u8]>) -> Result<(), StateError> {
        self.write(store, Write::delete(key.as_ref()))
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
        let mut entries = self.backend.scan(store, range, direction)?;
        if let Some(bounds) = range.bounds() {
            for layer in self.sealed.iter().chain([&self.open]) {
                entries = layer.over(entries, store, bounds, direction)?;
            }
        }
        Ok(entries)
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
        self.undo.rollback(&mut self.open, savepoint.undo_len);
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

    /// Whether the open transaction has written nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The number of keys that the open transaction has written, over all stores.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The approximate memory of all uncommitted writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.bytes() + self.sealed.as_ref().map_or(0, Layer::bytes)
    }

    /// Closes the open transaction, to be committed, and opens the next.
    ///
    /// # Panics
    ///
    /// When one is sealed already: one of the two would be lost in the other.
    pub fn seal(&mut self) {
        assert!(
            self.sealed.is_none(),
            "a transaction is committed before the next one is sealed"
        );
        self.sealed = Some(self.open.take());
        self.end_savepoints();
    }

    /// What the sealed transaction makes of each key that it wrote in `store`; `None` is
    /// a delete. A store that does not exist has no changes.
    ///
    /// All deletes come before all puts, each in key order. The order depends only on
    /// the writes, so that a replay repeats it. Deletes come first for readers of the
    /// changelog that derive something with fewer keys from it, such as an index by a
    /// field: if a row moves, the delete of the old row must not remove what the put of
    /// the new row has just added.
    pub fn changes(&self, store: StoreId) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let sealed = self.sealed.iter();
        sealed.flat_map(move |sealed| sealed.changes(store))
    }

    /// Moves the writes of the sealed transaction out, for the backend. Those of the
    /// open one stay.
    ///
    /// # Panics
    ///
    /// When none is sealed.
    #[must_use]
    pub fn take_batch(&mut self) -> Batch {
        let sealed = self.sealed.take();
        sealed
            .expect("a transaction is sealed before it is committed")
            .into_batch()
    }

    /// Drops all writes, including the sealed ones, for an abort.
    pub fn clear(&mut self) {
        self.open.clear();
        self.sealed = None;
        self.end_savepoints();
    }

    fn write(&mut self, store: StoreId, write: Write) -> Result<(), StateError> {
        if self.savepoints.is_empty() {
            self.open.insert(store, write)?;
            Ok(())
        } else {
            self.undo.insert(&mut self.open, store, write)
        }
    }

    fn end_savepoints(&mut self) {
        self.undo.clear();
        self.savepoints.clear();
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

#[cfg(test)]
mod tests;
