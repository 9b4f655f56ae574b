//! Standbys: stores of tasks that run elsewhere, kept up to date from their changelog.
//!
//! They are kept where the assignor would put their task if an instance were lost, so that a
//! failover restores only the tail of the changelog. Before it joins the groups, a new instance
//! keeps standbys of what it is going to own: the same, once.
//!
//! Who has the stores of a task open:
//!
//! ```text
//!                 take                       give back
//!   standby ─────────────► stream thread ─────────────► nobody ───► standby, if
//!             the open stores                                       it belongs here
//! ```
//!
//! - [`Standbys`]: what the stream threads and the standby thread share.
//! - [`known_until`]: until when a standby is known to hold everything, and when it is too old.
//! - [`follower`]: the standby thread.

mod follower;
mod known_until;
#[cfg(test)]
mod tests;

pub(crate) use follower::{StandbySetup, start as start_following};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use turnstile_state::Backend;

use self::known_until::KnownUntil;
use super::kafka::TopicPartition;
use super::metrics::Metrics;
use super::queries::Queries;
use super::stream_thread::with_sources;
use super::wake::Waker;
use crate::task::ChangelogRestore;
use crate::{Offset, TaskId};

/// What a new instance is going to own counts as up to date when it holds everything that was
/// committed up to this long ago. Ends are asked for every second.
const ACCEPTABLE_AGE: Duration = Duration::from_secs(3);

/// A look at where a changelog ends.
#[derive(Debug, Clone, Copy)]
struct Sample {
    end: Offset,
    /// When it was taken: by then everything before `end` had been written.
    at: Instant,
    /// The same by the wall clock, which goes on while the machine is suspended.
    time: SystemTime,
}

/// A task whose stores follow their changelog.
struct Standby {
    backend: Arc<dyn Backend>,
    stores: ChangelogRestore,
    place: TopicPartition,
    /// The offset up to which it holds everything.
    reached: Offset,
    /// Where its changelog ended when that was last known, pending transactions included.
    end: Option<Offset>,
    /// Whether the last look has found that end.
    end_is_current: bool,
    /// The sample that it has yet to reach; `None`: it has reached the last one.
    goal: Option<Sample>,
    /// When the latest sample was taken whose end it has reached.
    as_of: Option<Instant>,
    known_until: KnownUntil,
}

impl Standby {
    /// A standby that was just opened.
    fn of(
        backend: Arc<dyn Backend>,
        stores: ChangelogRestore,
        place: TopicPartition,
        known_until: KnownUntil,
    ) -> Self {
        Self {
            backend,
            reached: stores.next.unwrap_or(Offset(0)),
            stores,
            place,
            end: None,
            end_is_current: false,
            goal: None,
            as_of: None,
            known_until,
        }
    }

    /// Takes in where its changelog ended, or that nobody could say so.
    fn take_sample(&mut self, sample: Option<Sample>) {
        self.end_is_current = sample.is_some();
        if let Some(sample) = sample {
            self.end = Some(sample.end);
            // A sample that was not reached yet stays the goal: one that is always a little
            // behind reaches every goal in the end.
            self.goal.get_or_insert(sample);
        }
    }

    /// Whether it has reached its goal by `now`, and when that sample was taken. It does not count
    /// if the standby is too old.
    fn reach_goal(&mut self, now: SystemTime) -> Option<Instant> {
        let reached = self.reached;
        let goal = self.goal.take_if(|goal| reached >= goal.end)?;
        if !self.known_until.reach(goal.time, now) {
            return None;
        }
        self.as_of = Some(goal.at);
        self.as_of
    }

    /// How many changelog records its stores are behind, as last known; `None`: it never was.
    fn behind(&self) -> Option<u64> {
        let behind = self.end?.0.saturating_sub(self.reached.0);
        Some(u64::try_from(behind).unwrap_or(0))
    }

    /// Whether it held everything a moment ago.
    fn is_fresh(&self) -> bool {
        self.as_of
            .is_some_and(|as_of| as_of.elapsed() <= ACCEPTABLE_AGE)
    }

    /// Makes the stores record how far it is. Others may have written to the changelog for long
    /// when its own task has not, and nobody should have to read all that again.
    fn settle(&mut self) {
        if self.stores.next.unwrap_or(Offset(0)) < self.reached {
            self.stores.forget_pending();
            if let Err(error) = self.stores.write(self.reached) {
                tracing::warn!(task = %self.stores.task, error = with_sources(&error), "cannot note how far a standby is; its next use reads more");
            }
        }
    }
}

impl AsMut<ChangelogRestore> for Standby {
    fn as_mut(&mut self) -> &mut ChangelogRestore {
        &mut self.stores
    }
}

#[derive(Default)]
struct State {
    /// The tasks that stream threads have, or are about to have; and how many threads.
    taken: BTreeMap<TaskId, usize>,
    /// What this instance is going to own once it has joined.
    warming: BTreeSet<TaskId>,
    standbys: BTreeMap<TaskId, Standby>,
    /// Changes whenever a different set of tasks is to be followed.
    changes: u64,
}

struct Shared {
    state: Mutex<State>,
    queries: Queries,
    metrics: Metrics,
    /// Wakes the standby thread.
    news: Waker,
}

/// The standbys of this instance; cheap to clone.
#[derive(Clone)]
pub(crate) struct Standbys {
    shared: Arc<Shared>,
}

impl Standbys {
    pub(crate) fn new(queries: Queries, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                queries,
                metrics,
                news: Waker::default(),
            }),
        }
    }

    /// Takes a task away from the standby thread, which leaves it alone until it is given back;
    /// returns its open stores, if it was followed. Those that are too old are closed instead:
    /// whoever opens them finds that out, and restores from scratch.
    pub(crate) fn take(&self, task: TaskId) -> Option<Arc<dyn Backend>> {
        let standby = {
            let mut state = self.shared.state.lock();
            *state.taken.entry(task).or_default() += 1;
            state.changes += 1;
            state.warming.remove(&task);
            self.shared.queries.clear_standby(task);
            self.shared.metrics.forget_standby(task);
            state.standbys.remove(&task)
        };
        // Not under the lock, since closing stores takes time.
        let mut standby = standby?;
        if standby.known_until.is_too_old(SystemTime::now()) {
            tracing::warn!(%task, "a standby was not up to date for too long to be used");
            return None;
        }
        standby.settle();
        Some(standby.backend)
    }

    /// Gives back a task whose stores are closed.
    pub(crate) fn give_back(&self, task: TaskId) {
        let mut state = self.shared.state.lock();
        if let Some(takers) = state.taken.get_mut(&task) {
            *takers -= 1;
            if *takers == 0 {
                state.taken.remove(&task);
            }
        }
        state.changes += 1;
        drop(state);
        self.shared.news.wake();
    }

    /// Follows `tasks` as well, which this instance is going to own.
    pub(crate) fn warm_up(&self, tasks: BTreeSet<TaskId>) {
        let mut state = self.shared.state.lock();
        if state.warming != tasks {
            state.warming = tasks;
            state.changes += 1;
            drop(state);
            self.shared.news.wake();
        }
    }

    /// How many changelog records the tasks that are warmed up are behind; `None` while that is not
    /// known for all.
    pub(crate) fn warming_lag(&self) -> Option<u64> {
        let state = self.shared.state.lock();
        // The tasks of one partition are behind the same records.
        let mut lags: BTreeMap<&TopicPartition, u64> = BTreeMap::new();
        for task in &state.warming {
            let standby = state.standbys.get(task)?;
            let lag = lags.entry(&standby.place).or_default();
            *lag = standby.behind()?.max(*lag);
        }
        Some(lags.values().sum())
    }

    /// Whether what this instance is going to own is nearly up to date.
    pub(crate) fn are_warm(&self) -> bool {
        let state = self.shared.state.lock();
        let mut open = state
            .warming
            .iter()
            .filter(|task| !state.taken.contains_key(task));
        open.all(|task| state.standbys.get(task).is_some_and(Standby::is_fresh))
    }

    /// Tasks that were warmed up but were not assigned here are of no use any more.
    pub(crate) fn joined(&self) {
        self.warm_up(BTreeSet::new());
    }
}
