//! Writes that become visible together.

use crate::StoreId;
use crate::write::Write;

/// Writes to the stores of one task, and the changelog offset they reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) writes: Vec<(StoreId, Write)>,
    pub(crate) changelog_offset: Option<i64>,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for so many writes.
    pub(crate) fn with_capacity(writes: usize) -> Self {
        Self {
            writes: Vec::with_capacity(writes),
            changelog_offset: None,
        }
    }

    /// Sets `key` to `value`. Later writes of a key win.
    pub fn put(&mut self, store: StoreId, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(store, Write::put(key.as_ref(), value.as_ref()));
    }

    /// Deletes `key`.
    pub fn delete(&mut self, store: StoreId, key: impl AsRef<[u8]>) {
        self.push(store, Write::delete(key.as_ref()));
    }

    pub(crate) fn push(&mut self, store: StoreId, write: Write) {
        self.writes.push((store, write));
    }

    /// Says that with this batch the stores hold every changelog record before `next_offset`.
    pub fn set_changelog_offset(&mut self, next_offset: i64) {
        self.changelog_offset = Some(next_offset);
    }

    /// The number of writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is neither a write nor an offset.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.changelog_offset.is_none()
    }
}
