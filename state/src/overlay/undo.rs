//! What the writes of a transaction replaced, so that the last of them can be undone.

use super::layer::Layer;
use crate::write::Write;
use crate::{StateError, StoreId};

/// Writes in their order, and what each replaced.
#[derive(Default)]
pub(super) struct UndoLog {
    replaced: Vec<Replaced>,
    /// The keys that had no write before, one after the other.
    keys: Vec<u8>,
}

/// What a write replaced.
enum Replaced {
    Write(StoreId, Write),
    /// There was no write of the key that begins here in `keys`.
    Nothing(StoreId, usize),
}

impl UndoLog {
    /// The number of writes.
    pub(super) fn len(&self) -> usize {
        self.replaced.len()
    }

    /// Does a write, and notes what it replaces.
    pub(super) fn insert(
        &mut self,
        layer: &mut Layer,
        store: StoreId,
        write: Write,
    ) -> Result<(), StateError> {
        let key_at = self.keys.len();
        self.keys.extend_from_slice(write.key());
        let previous = layer.insert(store, write);
        if !matches!(previous, Ok(None)) {
            self.keys.truncate(key_at);
        }
        self.replaced.push(match previous? {
            Some(previous) => Replaced::Write(store, previous),
            None => Replaced::Nothing(store, key_at),
        });
        Ok(())
    }

    /// Undoes the writes from number `len` on.
    pub(super) fn rollback(&mut self, layer: &mut Layer, len: usize) {
        // Backwards, so that the oldest value of a key written twice is the one that stays.
        for replaced in self.replaced.drain(len..).rev() {
            let undone = match replaced {
                Replaced::Write(store, write) => layer.insert(store, write),
                Replaced::Nothing(store, key_at) => {
                    let undone = layer.remove(store, self.keys.get(key_at..).unwrap_or_default());
                    self.keys.truncate(key_at);
                    undone
                }
            };
            undone.expect("a store that was written to exists");
        }
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.replaced.clear();
        self.keys.clear();
    }
}
