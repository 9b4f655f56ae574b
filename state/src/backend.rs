//! The committed state of one task, as a trait.
//!
//! A backend is shared between the task that writes it (through [`Batch`]es, one
//! at a time) and any number of readers, which see whole batches only.

use std::ops::Bound;

use crate::{Batch, StateError};

/// A store of a task: its position in the [`StoreSpec`]s the backend was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreId(pub u16);

impl StoreId {
    /// The position as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a backend needs to know of a store when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSpec {
    /// Unique among the stores of a task; `[a-z0-9-]+`.
    pub name: String,
}

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// The order in which a scan visits keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanDirection {
    /// From the smallest key up.
    Forward,
    /// From the greatest key down.
    Reverse,
}

/// The ends of a [`KeyRange`], borrowed.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range of keys in their byte order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The lower end.
    pub start: Bound<Vec<u8>>,
    /// The upper end.
    pub end: Bound<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub fn all() -> Self {
        Self {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        }
    }

    /// The keys that start with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self {
                    start: Bound::Included(prefix.to_vec()),
                    end: Bound::Excluded(end),
                };
            }
        }
        Self {
            start: Bound::Included(prefix.to_vec()),
            end: Bound::Unbounded,
        }
    }

    /// The ends, or `None` where no key can lie between them.
    ///
    /// An ordered map panics on a range that ends before it starts, so every
    /// backend asks here first.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = self.start.as_ref().map(Vec::as_slice);
        let end = self.end.as_ref().map(Vec::as_slice);
        let possible = match (start, end) {
            (Bound::Unbounded, Bound::Excluded(end)) => !end.is_empty(),
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
            (Bound::Included(start), Bound::Included(end)) => start <= end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start < end,
        };
        possible.then_some((start, end))
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let after_start = match &self.start {
            Bound::Included(start) => key >= start.as_slice(),
            Bound::Excluded(start) => key > start.as_slice(),
            Bound::Unbounded => true,
        };
        let before_end = match &self.end {
            Bound::Included(end) => key <= end.as_slice(),
            Bound::Excluded(end) => key < end.as_slice(),
            Bound::Unbounded => true,
        };
        after_start && before_end
    }
}

/// Sizes of a store, estimated where counting would cost a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreStats {
    /// Keys, estimated.
    pub keys: u64,
    /// Bytes on disk and in memory that is not on disk yet, estimated.
    pub bytes: u64,
}

/// The committed state of one task.
///
/// # Errors
///
/// Every operation that touches the disk may fail with a [`StateError`]; an
/// unknown [`StoreId`] is [`StateError::UnknownStore`].
pub trait Backend: Send + Sync {
    /// The value of `key`.
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// The entries of `range` in the given order, as of one point in time.
    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError>;

    /// Applies `batch` as a whole. An error may concern earlier batches that could not be written
    /// to disk; they stay readable, and a later flush writes them.
    fn write(&self, batch: Batch) -> Result<(), StateError>;

    /// The next changelog offset to read to bring the stores up to date: all records
    /// before it are in them. `None`: the changelog was never applied.
    fn changelog_offset(&self) -> Result<Option<i64>, StateError>;

    /// Makes what was written so far survive a crash of the machine or process.
    /// Without it a crash costs a longer restore, never a wrong state.
    fn flush(&self) -> Result<(), StateError>;

    /// Begins such a flush, without waiting for the disk.
    fn begin_flush(&self) -> Result<(), StateError> {
        self.flush()
    }

    /// Says whether much is written and little read from now on, as in a restore from scratch.
    /// This changes only what writes and reads cost. If it ends here while it goes on for other
    /// tasks, what was written here begins to be flushed, to make room for theirs.
    fn set_bulk_load(&self, _in_bulk: bool) -> Result<(), StateError> {
        Ok(())
    }

    /// The sizes of all stores, in the order of their [`StoreId`]s.
    fn stats(&self) -> Result<Vec<StoreStats>, StateError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_holds_exactly_the_keys_that_start_with_it() {
        let range = KeyRange::prefix(b"ab");
        for (key, inside) in [
            (&b"aa\xff"[..], false),
            (b"ab", true),
            (b"ab\x00", true),
            (b"ab\xff\xff", true),
            (b"ac", false),
            (b"a", false),
        ] {
            assert_eq!(range.contains(key), inside, "{key:?}");
        }
    }

    #[test]
    fn prefix_that_ends_in_the_greatest_byte_carries_over() {
        let range = KeyRange::prefix(b"a\xff\xff");
        assert_eq!(range.end, Bound::Excluded(b"b".to_vec()));
        assert!(range.contains(b"a\xff\xff\xff"));
        assert!(!range.contains(b"a\xff\xfe"));
        assert!(!range.contains(b"b"));
        let range = KeyRange::prefix(b"a\xfe");
        assert_eq!(range.end, Bound::Excluded(b"a\xff".to_vec()));
    }

    #[test]
    fn prefix_of_greatest_bytes_only_has_no_upper_end() {
        let range = KeyRange::prefix(b"\xff\xff");
        assert_eq!(range.end, Bound::Unbounded);
        assert!(range.contains(b"\xff\xff\xff"));
        assert!(!range.contains(b"\xff\xfe"));
    }

    #[test]
    fn empty_prefix_is_every_key() {
        let range = KeyRange::prefix(b"");
        assert!(range.contains(b""));
        assert!(range.contains(b"\xff"));
    }

    #[test]
    fn ranges_that_can_hold_no_key_have_no_bounds() {
        let key = |key: &[u8]| key.to_vec();
        let range = |start, end| KeyRange { start, end };
        for (empty, is_empty) in [
            (
                range(Bound::Included(key(b"b")), Bound::Included(key(b"a"))),
                true,
            ),
            (
                range(Bound::Included(key(b"a")), Bound::Excluded(key(b"a"))),
                true,
            ),
            (
                range(Bound::Excluded(key(b"a")), Bound::Included(key(b"a"))),
                true,
            ),
            (
                range(Bound::Excluded(key(b"a")), Bound::Excluded(key(b"a"))),
                true,
            ),
            (range(Bound::Unbounded, Bound::Excluded(key(b""))), true),
            (
                range(Bound::Included(key(b"a")), Bound::Included(key(b"a"))),
                false,
            ),
            (range(Bound::Unbounded, Bound::Included(key(b""))), false),
            (range(Bound::Excluded(key(b"z")), Bound::Unbounded), false),
        ] {
            assert_eq!(empty.bounds().is_none(), is_empty, "{empty:?}");
        }
    }
}
