//! When a commit of which transaction begins, and which components it contains.
//!
//! - A component commits once per interval, with all others whose next commit is in the same
//!   transaction, or when enough of its timers were fired.
//! - When so much is uncommitted that room is needed for what comes while a commit is under way,
//!   all commit at once.
//! - When nothing is left to process, those commit that somebody waits for, unless the last commit
//!   was a moment ago. (A commit writes a marker to every partition that it touched, so a trickle
//!   of records must not cause one each.)
//!
//! Of a transaction, and of a component, at most one commit is under way.

use std::time::Duration;

use crate::runtime::transactions::Transaction;
use crate::topology::Component;

/// How many commits an interval may have if they begin because nothing is left to process. The
/// pause is between the end of a commit and the start of the next.
const IDLE_COMMITS_PER_INTERVAL: u32 = 5;
/// The same for those whose timers have fired, where somebody waits for each in its time.
const TIMER_COMMITS_PER_INTERVAL: u32 = 20;

/// A transaction without a commit under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resting {
    pub(super) transaction: Transaction,
    /// How long its last commit has been over.
    pub(super) since: Duration,
}

/// A component without a commit under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) component: Component,
    /// The transaction of its next commit.
    pub(super) transaction: Transaction,
    /// How long that commit can wait if nobody waits for it.
    pub(super) left: Duration,
    pub(super) is_awaited: bool,
}

/// What is known when the commits that are due are asked for.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) interval: Duration,
    /// Whether so much is uncommitted, and in no commit yet, that nothing may wait.
    pub(super) is_half_full: bool,
    pub(super) resting: Vec<Resting>,
    pub(super) pending: Vec<Pending>,
}

impl Schedule {
    /// The commits that are to begin now. `idle`: nothing is left to process.
    pub(super) fn due(&self, idle: bool) -> Vec<(Transaction, Vec<Component>)> {
        let due = self.resting.iter().filter(|resting| {
            let left = self.left_of(resting, idle);
            left.is_some_and(|left| left.is_zero())
        });
        due.map(|resting| (resting.transaction, self.due_in(resting.transaction)))
            .collect()
    }

    /// How long the next commit can wait to begin, if there is anything to wait for but the end of
    /// one that is under way.
    pub(super) fn left(&self, idle: bool) -> Option<Duration> {
        let resting = self.resting.iter();
        resting
            .filter_map(|resting| self.left_of(resting, idle))
            .min()
    }

    fn left_of(&self, Resting { transaction, since }: &Resting, idle: bool) -> Option<Duration> {
        let left = self.pending_in(*transaction).map(|pending| pending.left);
        let left = left.min()?;
        if self.is_half_full {
            return Some(Duration::ZERO);
        }
        if !idle
            || !self
                .pending_in(*transaction)
                .any(|pending| pending.is_awaited)
        {
            return Some(left);
        }
        let commits_per_interval = match transaction {
            Transaction::Records => IDLE_COMMITS_PER_INTERVAL,
            Transaction::Timers => TIMER_COMMITS_PER_INTERVAL,
        };
        let pause = self.interval / commits_per_interval;
        Some(left.min(pause.saturating_sub(*since)))
    }

    /// The components in the commit of a transaction that is due: all, unless it begins before any
    /// of them has to.
    fn due_in(&self, transaction: Transaction) -> Vec<Component> {
        let mut pending = self.pending_in(transaction);
        let all = self.is_half_full || pending.any(|pending| pending.left.is_zero());
        let pending = self.pending_in(transaction);
        let due = pending.filter(|pending| all || pending.is_awaited);
        due.map(|pending| pending.component).collect()
    }

    fn pending_in(&self, transaction: Transaction) -> impl Iterator<Item = &Pending> {
        let pending = self.pending.iter();
        pending.filter(move |pending| pending.transaction == transaction)
    }
}

#[cfg(test)]
mod tests;
