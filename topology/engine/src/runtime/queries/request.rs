//! A read of stores in a form that can be sent to the instance that has them.
//!
//! It names the store and the partition, and deals in bytes: the sender has encoded the keys, and
//! decodes the rows. The instance that answers needs no types, only the same topology. The fields
//! are serialized by position, so changing them changes the protocol that carries them.

use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use turnstile_state::{Entry, KeyRange, ScanDirection};

use crate::Partition;

/// A read of one partition of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreRequest {
    /// The store, by its declared name.
    pub store: String,
    /// The partition.
    pub partition: Partition,
    /// Which rows.
    pub read: StoreRead,
}

/// Which rows of a store are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreRead {
    /// Those with these keys, in this order, as far as they exist.
    Keys(Vec<Vec<u8>>),
    /// Those of a range.
    Range(RowRange),
    /// Those that an index names: the store is the index, and each of its keys is `prefix_bytes` of
    /// its own followed by a key of `rows`, a store of the same task.
    Indexed {
        /// The part of the index.
        range: RowRange,
        /// How many bytes of an index key come before the key that it names.
        prefix_bytes: usize,
        /// The store of the rows, by its declared name.
        rows: String,
    },
}

/// A bounded part of a range of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRange {
    /// The lower end.
    pub start: Bound<Vec<u8>>,
    /// The upper end.
    pub end: Bound<Vec<u8>>,
    /// Whether from the greatest key down instead of from the smallest up.
    pub is_reverse: bool,
    /// How many rows at most.
    pub limit: usize,
}

impl RowRange {
    /// At most `limit` rows of `range`.
    #[must_use]
    pub fn new(range: KeyRange, direction: ScanDirection, limit: usize) -> Self {
        Self {
            start: range.start,
            end: range.end,
            is_reverse: direction == ScanDirection::Reverse,
            limit,
        }
    }

    pub(super) fn key_range(&self) -> KeyRange {
        KeyRange {
            start: self.start.clone(),
            end: self.end.clone(),
        }
    }

    pub(super) fn direction(&self) -> ScanDirection {
        if self.is_reverse {
            ScanDirection::Reverse
        } else {
            ScanDirection::Forward
        }
    }
}

/// The committed rows that a [`StoreRequest`] asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreAnswer {
    /// Keys and values.
    pub rows: Vec<Entry>,
    /// How long ago they were complete, if a standby answers; `None`: the answer is from where the
    /// task runs, and they are what is committed.
    pub stale: Option<Duration>,
}
