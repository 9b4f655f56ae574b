//! Deletes outcomes that have expired, by walking through their store.
//!
//! A timer for each outcome would be exact; but an outcome may be kept for longer, and a
//! timer costs as much as the outcome itself. So a pass visits every row, some at each call.
//! The next pass begins when the oldest row that this one left expires, but at least a
//! quarter of a day after this one began: a row is read about five times in its life.
//!
//! The position of a pass is only in memory. If it is lost, the next pass starts over; if the
//! deletes of a pass are lost in an abort, the next pass finds their rows.

use std::ops::Bound;
use std::time::Duration;

use turnstile_engine::{
    Codec, Context, KeyRange, ProcessorError, ScanDirection, Store, TimestampMs,
};

use super::OUTCOME_KEPT;
use crate::outcome::{Outcome, OutcomeKey};

/// The rows visited per call: a few milliseconds' worth.
const ROWS_PER_CALL: usize = 5_000;
/// A task that has just begun has more urgent work.
const FIRST_PASS_AFTER: Duration = Duration::from_mins(1);
/// The least time from the beginning of a pass to that of the next.
const BETWEEN_PASSES: Duration = Duration::from_hours(6);

/// The state of the sweep of one store.
#[derive(Debug, Default)]
pub(super) enum Sweep {
    /// The task has begun.
    #[default]
    New,
    /// Nothing is to be done before then.
    Resting(TimestampMs),
    /// A pass is under way.
    Passing(Pass),
}

/// One pass through the store.
#[derive(Debug)]
pub(super) struct Pass {
    began: TimestampMs,
    /// The last row that was visited.
    visited: Option<OutcomeKey>,
    /// When the oldest outcome that stays was decided.
    oldest: Option<TimestampMs>,
}

impl Sweep {
    /// Does what is due now.
    pub(super) fn go_on(
        &mut self,
        context: &mut Context<'_>,
        store: Store<OutcomeKey, Outcome>,
    ) -> Result<(), ProcessorError> {
        let now = context.now();
        let mut pass = match std::mem::take(self) {
            Self::New => {
                *self = Self::Resting(now.plus(FIRST_PASS_AFTER));
                return Ok(());
            }
            Self::Resting(until) if now < until => {
                // A pass that began while the wall clock was ahead would be followed by the next
                // one only at that time. None has to wait longer than outcomes are kept.
                *self = Self::Resting(until.min(now.plus(OUTCOME_KEPT)));
                return Ok(());
            }
            Self::Resting(_) => Pass {
                began: now,
                visited: None,
                oldest: None,
            },
            Self::Passing(pass) => pass,
        };
        *self = if pass.visit(context, store)? {
            Self::Resting(pass.next())
        } else {
            Self::Passing(pass)
        };
        Ok(())
    }
}

impl Pass {
    /// Visits the next rows; returns whether the pass is over.
    fn visit(
        &mut self,
        context: &mut Context<'_>,
        store: Store<OutcomeKey, Outcome>,
    ) -> Result<bool, ProcessorError> {
        let mut range = KeyRange::all();
        if let Some(visited) = &self.visited {
            range.start = Bound::Excluded(visited.to_bytes());
        }
        let rows = context.scan(store, &range, ScanDirection::Forward, ROWS_PER_CALL)?;
        let is_over = rows.len() < ROWS_PER_CALL;
        for (key, outcome) in rows {
            if outcome.decided_at.plus(OUTCOME_KEPT) <= context.now() {
                context.delete(store, &key)?;
            } else {
                let oldest = self.oldest.unwrap_or(outcome.decided_at);
                self.oldest = Some(oldest.min(outcome.decided_at));
            }
            self.visited = Some(key);
        }
        Ok(is_over)
    }

    /// When the next pass may find anything.
    fn next(&self) -> TimestampMs {
        let oldest = self.oldest.unwrap_or(self.began);
        let due = oldest.plus(OUTCOME_KEPT);
        due.max(self.began.plus(BETWEEN_PASSES))
    }
}
