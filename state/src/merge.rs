//! Merges two ordered sequences: entries, and the writes over them, which win.
//!
//! Both sides come in the same direction and without repeated keys. So does the result,
//! so that more writes can be merged over it. Neither side is read further than the entry
//! that decides what comes next.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::{Entry, ScanDirection, StateError};

/// Entries in the order of a scan.
pub(crate) type Entries<'a> = Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>;

/// A key, and its new value or that it is deleted.
pub(crate) type Over = (Box<[u8]>, Option<Box<[u8]>>);

pub(crate) struct Merge<'a, W: Iterator<Item = Over>> {
    below: Peekable<Entries<'a>>,
    writes: Peekable<W>,
    direction: ScanDirection,
    failed: bool,
}

/// The side whose entry comes next.
enum Next {
    Below,
    Write,
    /// Both have the key: the write hides the entry below.
    Both,
}

impl<'a, W: Iterator<Item = Over>> Merge<'a, W> {
    pub(crate) fn new(below: Entries<'a>, writes: W, direction: ScanDirection) -> Self {
        Self {
            below: below.peekable(),
            writes: writes.peekable(),
            direction,
            failed: false,
        }
    }

    fn peek(&mut self) -> Option<Next> {
        let (below, written) = match (self.below.peek(), self.writes.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => return Some(Next::Below),
            (None, Some(_)) => return Some(Next::Write),
            (Some(Ok((below, _))), Some((written, _))) => (below, written),
        };
        let order = match self.direction {
            ScanDirection::Forward => below.cmp(written),
            ScanDirection::Reverse => written.cmp(below),
        };
        Some(match order {
            Ordering::Less => Next::Below,
            Ordering::Equal => Next::Both,
            Ordering::Greater => Next::Write,
        })
    }
}

impl<W: Iterator<Item = Over>> Iterator for Merge<'_, W> {
    type Item = Result<Entry, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        // What follows an error would be a range with a hole.
        while !self.failed {
            match self.peek()? {
                Next::Below => {
                    let entry = self.below.next();
                    self.failed = matches!(entry, Some(Err(_)));
                    return entry;
                }
                Next::Both => {
                    self.below.next();
                }
                Next::Write => {
                    if let Some((key, Some(value))) = self.writes.next() {
                        return Some(Ok((key, value)));
                    }
                }
            }
        }
        None
    }
}
