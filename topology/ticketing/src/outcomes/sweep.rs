//! Forgets outcomes whose time is over, by walking through their store.
//!
//! A timer for each outcome would say exactly when; but an outcome may be kept for longer,
//! and a timer costs as much as the outcome itself. So a pass visits every row, some at
//! each call, and the next pass begins when the oldest row that this one has left is due,
//! but not before a quarter of a day has gone by: a row is read about five times in its life.
//!
//! Where a pass is, is in memory only. If that is lost the next one begins anew, and if the
//! deletes of a pass are lost in an abort the next one finds their rows.

use std::ops::Bound;
use std::time::Duration;

use turnstile_engine::{
    Codec, Context, KeyRange, ProcessorError, ScanDirection, Store, TimestampMs,
};

use super::OUTCOME_KEPT;
use crate::outcome::{Outcome, OutcomeKey};

/// Rows that are visited at a call: a few milliseconds' worth.
const ROWS_PER_CALL: usize = 5_000;
/// A task that has just begun has better things to do.
const FIRST_PASS_AFTER: Duration = Duration::from_mins(1);
/// From the begin of a pass to that of the next, at least.
const BETWEEN_PASSES: Duration = Duration::from_hours(6);

/// Where the sweep of one store is.
#[derive(Debug, Default)]
pub(super) enum Sweep {
    /// The task has begun.
    #[default]
    New,
    /// Until then nothing is to be done.
    Resting(TimestampMs),
    /// A pass is under way.
    Passing(Pass),
}

/// One way through the store.
#[derive(Debug)]
pub(super) struct Pass {
    began: TimestampMs,
    /// The last row that was visited.
    visited: Option<OutcomeKey>,
    /// When the oldest outcome was decided that stays.
    oldest: Option<TimestampMs>,
}

impl Sweep {
    /// Does what is to be done now.
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
                *self = Self::Resting(until);
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
    /// Visits the next rows; says whether the pass is over.
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
