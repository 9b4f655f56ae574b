//! The durable timers of one processor in one task.
//!
//! Two stores of the task hold them, and decide what is pending:
//!
//! - `rows`: a [`Row`] (deadline, then key) per pending timer, without a value. It has a changelog.
//! - `by_key`: key → deadline, for moving and cancelling. It has no changelog: it follows from `rows`.
//!
//! In front of them a [`TimerWheel`] holds the *near* timers: every pending row before the
//! *frontier*, a row that only a bounded scan from there moves forward. So a scan never meets the
//! tombstones of what has fired again, memory is bounded however many timers are pending or share
//! one deadline, and timers fire in row order. If near timers become too many, the wheel is
//! forgotten and filled again from the *floor*, before which nothing is pending.
//!
//! A record in progress changes the stores at once but the wheel only with [`Timers::keep`]; if the
//! record fails, the caller rolls the overlay back and calls [`Timers::undo_from`]. Taking what is
//! due happens between records.
//!
//! # Restoring `by_key`
//!
//! Replaying the changelog of `rows` in order, blindly (a put sets the key's entry,
//! a delete removes it), ends with the right `by_key`, compacted or not: a key's
//! entry is what the last record left about the key says.
//!
//! - If the timer is pending, that is the put of its row, which compaction keeps as
//!   the row's last. Nothing about the key follows: in its own transaction all
//!   deletes come before all puts ([`Overlay::changes`]), and any later one that
//!   touched the key would have deleted this row.
//! - If it is not, every put that is left is followed by a delete of the same row,
//!   so the last record about the key is a delete, or there is none.
//!
//! Nothing here knows what a timer is for, or what time it is.

use std::ops::Bound;
use std::sync::Arc;

use turnstile_state::{Batch, KeyRange, Overlay, ScanDirection, StateError, StoreId};

use super::row::{self, Row};
use super::wheel::TimerWheel;
use crate::ids::TimestampMs;

/// A timer that has fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueTimer {
    /// The key it was scheduled under.
    pub(crate) key: Vec<u8>,
    /// When it was to fire: at or before now.
    pub(crate) deadline: TimestampMs,
}

/// The pending timers of one processor in one task, at most one a key.
#[derive(Debug)]
pub(crate) struct Timers {
    rows: StoreId,
    by_key: StoreId,
    near_limit: usize,
    /// Every pending timer before the frontier, and no other.
    wheel: TimerWheel<Arc<[u8]>>,
    /// `None`: it is past all possible rows.
    frontier: Option<Row>,
    /// No pending row is before this one.
    floor: Row,
    /// What the record in progress did, in order: the new deadline of a key, `None` if it was cancelled.
    changes: Vec<(Arc<[u8]>, Option<TimestampMs>)>,
}

impl Timers {
    /// Over the stores `rows` and `by_key`; a scan loads at most `near_limit` timers,
    /// and about twice as many are in memory.
    ///
    /// # Panics
    ///
    /// When `near_limit` is 0.
    pub(crate) fn new(rows: StoreId, by_key: StoreId, near_limit: usize) -> Self {
        assert!(
            near_limit > 0,
            "timers are fired from memory, so some must be allowed there"
        );
        Self {
            rows,
            by_key,
            near_limit,
            wheel: TimerWheel::new(TimestampMs(0)),
            frontier: Some(Row::first()),
            floor: Row::first(),
            changes: Vec::new(),
        }
    }

    /// Sets the timer of `key`, replacing any that it has. A deadline before the epoch is the
    /// epoch.
    ///
    /// # Errors
    ///
    /// Those of [`Overlay::get`] and [`Overlay::put`]. Then the record in progress has failed.
    pub(crate) fn schedule(
        &mut self,
        overlay: &mut Overlay,
        key: &[u8],
        deadline: TimestampMs,
    ) -> Result<(), StateError> {
        let deadline = row::clamp(deadline);
        match self.deadline_of(overlay, key)? {
            Some(same) if same == deadline => return Ok(()),
            Some(previous) => overlay.delete(self.rows, Row::new(previous, key).to_bytes())?,
            None => {}
        }
        overlay.put(self.rows, Row::new(deadline, key).to_bytes(), [])?;
        overlay.put(self.by_key, key, row::encode_deadline(deadline))?;
        self.changes.push((key.into(), Some(deadline)));
        Ok(())
    }

    /// Forgets the timer of `key`; returns whether it had one.
    ///
    /// # Errors
    ///
    /// Those of [`Overlay::get`] and [`Overlay::delete`]. Then the record in progress has failed.
    pub(crate) fn cancel(&mut self, overlay: &mut Overlay, key: &[u8]) -> Result<bool, StateError> {
        let Some(deadline) = self.deadline_of(overlay, key)? else {
            return Ok(false);
        };
        overlay.delete(self.rows, Row::new(deadline, key).to_bytes())?;
        overlay.delete(self.by_key, key)?;
        self.changes.push((key.into(), None));
        Ok(true)
    }

    /// The deadline of the pending timer of `key`, as the transaction sees it.
    ///
    /// # Errors
    ///
    /// Those of [`Overlay::get`]; [`StateError::Codec`] for an entry that is no deadline.
    pub(crate) fn deadline_of(
        &self,
        overlay: &Overlay,
        key: &[u8],
    ) -> Result<Option<TimestampMs>, StateError> {
        let deadline = overlay.get(self.by_key, key)?;
        Ok(deadline.as_deref().map(row::decode_deadline).transpose()?)
    }

    /// Ends the record in progress: what it did to timers stands.
    pub(crate) fn keep(&mut self) {
        for (key, deadline) in self.changes.drain(..) {
            let Some(deadline) = deadline else {
                self.wheel.cancel(&key);
                continue;
            };
            let row = Row::new(deadline, &key);
            if self
                .frontier
                .as_ref()
                .is_none_or(|frontier| row < *frontier)
            {
                self.wheel.insert(deadline, key);
            } else {
                self.wheel.cancel(&key);
            }
            if row < self.floor {
                self.floor = row;
            }
        }
        if self.wheel.len() > self.near_limit.saturating_mul(2) {
            self.forget_from(self.floor.clone());
        }
    }

    /// How many changes the record in progress has made.
    pub(crate) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Forgets what the record in progress did to timers after its first `changes` changes. The
    /// caller has rolled the overlay back to that moment.
    pub(crate) fn undo_from(&mut self, changes: usize) {
        self.changes.truncate(changes);
    }

    /// Takes up to `limit` timers with a deadline at or before `now`, by deadline,
    /// then key. They are not pending any more, and the rest is for the next call.
    ///
    /// This is a record's end ([`keep`](Self::keep)), not a part of one: the caller
    /// does not roll it back short of an abort of the transaction. A timer that was
    /// taken cannot be cancelled or moved by the callback of one taken with it;
    /// where that matters, take one at a time, which costs the same.
    ///
    /// # Errors
    ///
    /// Those of [`Overlay::scan`] and [`Overlay::delete`]; [`StateError::Codec`] for a row
    /// that is none. Then the transaction must be aborted, and [`reload`](Self::reload) called.
    pub(crate) fn take_due(
        &mut self,
        overlay: &mut Overlay,
        now: TimestampMs,
        limit: usize,
    ) -> Result<Vec<DueTimer>, StateError> {
        self.keep();
        let mut fired = Vec::new();
        loop {
            self.wheel.advance(now, limit - fired.len(), &mut fired);
            // Beyond a frontier that is later than now, nothing can be due. Before one
            // that is not, everything is: so the wheel is empty when it is filled.
            let more_may_be_due = self
                .frontier
                .as_ref()
                .is_some_and(|frontier| frontier.deadline() <= now);
            if fired.len() == limit || !more_may_be_due {
                break;
            }
            self.load(overlay)?;
        }
        let mut due = Vec::with_capacity(fired.len());
        for (deadline, key) in fired {
            let row = Row::new(deadline, &key);
            overlay.delete(self.rows, row.to_bytes())?;
            overlay.delete(self.by_key, &*key)?;
            self.floor = row;
            due.push(DueTimer {
                key: key.to_vec(),
                deadline,
            });
        }
        Ok(due)
    }

    /// A time no later than any kept timer, to call [`take_due`](Self::take_due) at; `None` if
    /// there is none pending. It may be too early, never too late.
    pub(crate) fn next_deadline(&self) -> Option<TimestampMs> {
        // What is past the frontier is later than all that is in the wheel.
        let near = self.wheel.next_deadline_hint();
        near.or_else(|| self.frontier.as_ref().map(Row::deadline))
    }

    /// A time no earlier than the earliest timer in memory, and at most a slot of the wheel after
    /// it: a pending timer is due by then. `None` if there is none, or it is still to be loaded.
    pub(crate) fn due_by(&self) -> Option<TimestampMs> {
        self.wheel.next_deadline_at_latest()
    }

    /// Forgets everything but the stores: after a restore or an aborted transaction.
    pub(crate) fn reload(&mut self) {
        self.changes.clear();
        self.floor = Row::first();
        self.forget_from(Row::first());
    }

    /// Adds to `batch` what a record of the changelog of `rows` says: the row and
    /// the entry that follows from it.
    ///
    /// # Errors
    ///
    /// [`StateError::Codec`] for a key that is no row.
    pub(crate) fn apply_changelog(
        &self,
        batch: &mut Batch,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StateError> {
        let row = Row::from_bytes(key)?;
        match value {
            Some(value) => {
                batch.put(self.rows, key, value);
                batch.put(self.by_key, row.key(), row::encode_deadline(row.deadline()));
            }
            None => {
                batch.delete(self.rows, key);
                batch.delete(self.by_key, row.key());
            }
        }
        Ok(())
    }

    /// Empties the wheel; the next scan starts at `frontier`.
    fn forget_from(&mut self, frontier: Row) {
        self.wheel = TimerWheel::new(TimestampMs(0));
        self.frontier = Some(frontier);
    }

    /// Loads the next `near_limit` rows, and moves the frontier past them.
    fn load(&mut self, overlay: &Overlay) -> Result<(), StateError> {
        let Some(frontier) = &self.frontier else {
            return Ok(());
        };
        let range = KeyRange {
            start: Bound::Included(frontier.to_bytes()),
            end: Bound::Unbounded,
        };
        let mut last = None;
        let mut loaded = 0;
        for entry in overlay
            .scan(self.rows, &range, ScanDirection::Forward)?
            .take(self.near_limit)
        {
            let row = Row::from_bytes(&entry?.0)?;
            self.wheel.insert(row.deadline(), row.key().into());
            last = Some(row);
            loaded += 1;
        }
        self.frontier = if loaded < self.near_limit {
            None
        } else {
            last.map(Row::successor)
        };
        Ok(())
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
