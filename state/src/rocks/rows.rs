//! Where the rows of a store lie among all rows of its database.
//!
//! All stores of a task share one key space, in which the rows of a store lie together:
//!
//! ```text
//! 00 00                    the changelog offset
//! 00 01, key               a row of the first store, by name
//! 00 02, key               a row of the second
//! ```
//!
//! So a drain is one file, whatever the number of stores, and is ingested as a whole.

use std::ops::Bound;

use rocksdb::{DB, DBRawIterator, ReadOptions};
use smallvec::SmallVec;

use crate::{Entry, KeyRange, ScanDirection};

/// The key of the changelog offset, before all rows.
pub(super) const CHANGELOG_OFFSET: [u8; PREFIX_BYTES] = [0; PREFIX_BYTES];

const PREFIX_BYTES: usize = size_of::<u16>();

/// Keys up to this length are put together without an allocation.
const SHORT_BYTES: usize = 96;

/// The keys from the first up to, but not including, the second.
pub(super) type RowBounds = (Vec<u8>, Vec<u8>);

/// The prefix of the keys of all rows of one store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowPrefix(u16);

impl RowPrefix {
    /// The prefix of the store at `position` in the order of names.
    pub(super) fn at(position: u16) -> Self {
        Self(position + 1)
    }

    /// The key of a row.
    pub(super) fn row(self, key: &[u8]) -> SmallVec<[u8; SHORT_BYTES]> {
        let mut row = SmallVec::new();
        row.extend_from_slice(&self.0.to_be_bytes());
        row.extend_from_slice(key);
        row
    }

    /// The keys of all rows.
    pub(super) fn all(self) -> RowBounds {
        (
            self.row(&[]).into_vec(),
            Self(self.0 + 1).row(&[]).into_vec(),
        )
    }

    /// The keys of the rows in `range`; `None` if no key can lie between its ends.
    pub(super) fn rows(self, range: &KeyRange) -> Option<RowBounds> {
        let (start, end) = range.bounds()?;
        let (first, past_last) = self.all();
        let row = |key| self.row(key).into_vec();
        let start = match start {
            Bound::Included(start) => row(start),
            Bound::Excluded(start) => next_key(row(start)),
            Bound::Unbounded => first,
        };
        let end = match end {
            Bound::Included(end) => next_key(row(end)),
            Bound::Excluded(end) => row(end),
            Bound::Unbounded => past_last,
        };
        Some((start, end))
    }
}

/// The smallest key after `key`.
fn next_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The rows of a store in a range, as they were when this was made.
pub(super) struct Rows<'a> {
    entries: DBRawIterator<'a>,
    direction: ScanDirection,
    started: bool,
}

impl<'a> Rows<'a> {
    /// The rows between bounds from [`RowPrefix::rows`], in `database`, read with `options`.
    pub(super) fn between(
        database: &'a DB,
        (start, end): RowBounds,
        direction: ScanDirection,
        mut options: ReadOptions,
    ) -> Self {
        options.set_iterate_lower_bound(start);
        options.set_iterate_upper_bound(end);
        Self {
            entries: database.raw_iterator_opt(options),
            direction,
            started: false,
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Entry, rocksdb::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.started, self.direction) {
            (false, ScanDirection::Forward) => self.entries.seek_to_first(),
            (false, ScanDirection::Reverse) => self.entries.seek_to_last(),
            (true, ScanDirection::Forward) => self.entries.next(),
            (true, ScanDirection::Reverse) => self.entries.prev(),
        }
        self.started = true;
        let Some((row, value)) = self.entries.item() else {
            return self.entries.status().err().map(Err);
        };
        let key = row.get(PREFIX_BYTES..).unwrap_or_default();
        Some(Ok((key.into(), value.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_store_lie_between_those_of_its_neighbours() {
        let (start, end) = RowPrefix::at(1).all();
        for (position, key, inside) in [
            (0, &b"\xff\xff"[..], false),
            (1, b"", true),
            (1, b"\xff\xff", true),
            (2, b"", false),
        ] {
            let row = RowPrefix::at(position).row(key).into_vec();
            assert_eq!(start <= row && row < end, inside, "{row:?}");
        }
        assert!(CHANGELOG_OFFSET.as_slice() < RowPrefix::at(0).row(b"").as_slice());
    }

    #[test]
    fn a_key_that_starts_with_another_prefix_stays_in_its_store() {
        let row = RowPrefix::at(0).row(b"\x00\x02");
        let (start, end) = RowPrefix::at(1).all();
        assert!(row.as_slice() < start.as_slice());
        assert!(row.as_slice() < end.as_slice());
    }
}
