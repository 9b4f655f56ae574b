//! Two ordered sequences read as one: committed entries, and writes that win over them.
//!
//! Both sides come in the same direction and without repeated keys. Neither is
//! read further than the entry that decides what comes next.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::{Entry, ScanDirection, StateError};

/// A written key; `None` deletes it.
type Write<'a> = (&'a Box<[u8]>, &'a Option<Box<[u8]>>);

pub(super) struct Merge<'a, W: Iterator<Item = Write<'a>>> {
    committed: Peekable<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>>,
    writes: Peekable<W>,
    direction: ScanDirection,
    failed: bool,
}

/// The side whose entry comes next.
enum Next {
    Committed,
    Write,
    /// Both have the key: the write hides the committed entry.
    Both,
}

impl<'a, W: Iterator<Item = Write<'a>>> Merge<'a, W> {
    pub(super) fn new(
        committed: Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>,
        writes: W,
        direction: ScanDirection,
    ) -> Self {
        Self {
            committed: committed.peekable(),
            writes: writes.peekable(),
            direction,
            failed: false,
        }
    }

    fn peek(&mut self) -> Option<Next> {
        let (committed, written) = match (self.committed.peek(), self.writes.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => return Some(Next::Committed),
            (None, Some(_)) => return Some(Next::Write),
            (Some(Ok((committed, _))), Some((written, _))) => (committed, *written),
        };
        let order = match self.direction {
            ScanDirection::Forward => committed.cmp(written),
            ScanDirection::Reverse => written.cmp(committed),
        };
        Some(match order {
            Ordering::Less => Next::Committed,
            Ordering::Equal => Next::Both,
            Ordering::Greater => Next::Write,
        })
    }
}

impl<'a, W: Iterator<Item = Write<'a>>> Iterator for Merge<'a, W> {
    type Item = Result<Entry, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        // What follows an error would be a range with a hole.
        while !self.failed {
            match self.peek()? {
                Next::Committed => {
                    let entry = self.committed.next();
                    self.failed = matches!(entry, Some(Err(_)));
                    return entry;
                }
                Next::Both => {
                    self.committed.next();
                }
                Next::Write => {
                    if let Some((key, Some(value))) = self.writes.next() {
                        return Some(Ok((key.clone(), value.clone())));
                    }
                }
            }
        }
        None
    }
}
