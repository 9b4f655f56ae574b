//! Which standbys are open: what belongs here is opened, what no longer does is closed.
//!
//! A task whose stores cannot be used does not affect the others: it is set aside, and retried
//! after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use turnstile_state::Backend;

use super::Follower;
use super::log_ends::LogEnds;
use crate::runtime::kafka::TopicPartition;
use crate::runtime::restorer::changelog_of;
use crate::runtime::standby::Standby;
use crate::runtime::standby::known_until::KnownUntil;
use crate::runtime::stream_thread::with_sources;
use crate::runtime::task_stores::StoresFault;
use crate::task::{ChangelogRestore, TaskError};
use crate::{Offset, TaskId};

/// How long a standby that no longer belongs here is kept nevertheless: while instances come and go
/// it may soon be wanted again.
const KEPT_UNWANTED: Duration = Duration::from_secs(10);

/// The stores of a standby that is about to be followed.
struct Opened {
    backend: Arc<dyn Backend>,
    stores: ChangelogRestore,
    known_until: KnownUntil,
}

impl Follower {
    /// Opens and closes standbys until those that belong here are open; returns whether there are
    /// others to read now.
    pub(super) fn place(&mut self, ends: &mut LogEnds<'_>) -> bool {
        let mut wanted: BTreeSet<TaskId> = self.setup.cluster.standbys_here();
        {
            let state = self.setup.standbys.shared.state.lock();
            wanted.extend(&state.warming);
            wanted.retain(|task| !state.taken.contains_key(task));
        }
        let mut changed = self.close_too_old();
        let present: BTreeSet<TaskId> = self.tasks().into_iter().collect();
        self.unwanted
            .retain(|task, _| present.contains(task) && !wanted.contains(task));
        for task in present.difference(&wanted) {
            let since = *self.unwanted.entry(*task).or_insert_with(Instant::now);
            if since.elapsed() >= KEPT_UNWANTED {
                self.close(*task);
                changed = true;
            }
        }
        let absent: BTreeSet<TaskId> = wanted.difference(&present).copied().collect();
        changed |= self.open_all(&absent, ends);
        changed
    }

    /// Opens and keeps those of `absent` whose turn it is and whose changelog can be read; returns
    /// whether there are any.
    fn open_all(&mut self, absent: &BTreeSet<TaskId>, ends: &mut LogEnds<'_>) -> bool {
        self.setbacks.keep_unopened(absent);
        let now = Instant::now();
        let mut places: BTreeMap<TaskId, TopicPartition> = BTreeMap::new();
        for task in absent {
            if self.setbacks.may_try(*task, now)
                && let Some(place) = self.place_of(*task)
            {
                places.insert(*task, place);
            }
        }
        // Before they are opened: brokers that do not answer keep nobody waiting for stores.
        let answered = ends.of(&places.values().cloned().collect());
        let mut opened = Vec::new();
        for (task, place) in places {
            if answered.contains_key(&place) {
                match self.open(task) {
                    Ok(stores) => opened.extend(stores),
                    Err(error) => self.set_aside(&error),
                }
            }
        }
        self.keep(opened, ends)
    }

    /// The changelog partition of a task, if it has one.
    fn place_of(&self, task: TaskId) -> Option<TopicPartition> {
        let plan = self.setup.plan.subtopology(task.subtopology)?;
        Some(TopicPartition {
            topic: plan.changelog.clone()?,
            partition: task.partition,
        })
    }

    /// Opens the stores of a standby, unless somebody else has them now. A stream thread may want
    /// them meanwhile: then it retries until they are closed again here.
    fn open(&mut self, task: TaskId) -> Result<Option<Opened>, TaskError> {
        let shared = &self.setup.standbys.shared;
        if shared.state.lock().taken.contains_key(&task) {
            return Ok(None);
        }
        // Not after opening, which may remove them.
        let age = self.setup.stores.age(task);
        let opened = match self.setup.stores.open(task, Duration::ZERO) {
            Ok(opened) => opened.ok_or_else(|| "somebody has them open".to_owned()),
            Err(StoresFault::Kafka(fault)) => Err(fault.to_string()),
            Err(StoresFault::Task(error)) => return Err(error),
        };
        let backend = match opened {
            Ok(backend) => backend,
            // A query may be about to let go of it.
            Err(reason) => {
                if self.setbacks.cannot_open(task, Instant::now()) {
                    tracing::warn!(%task, reason, "the stores of a standby still cannot be opened; trying again");
                } else {
                    tracing::debug!(%task, reason, "the stores of a standby cannot be opened now");
                }
                return Ok(None);
            }
        };
        self.setbacks.has_opened(task);
        let plan = self.setup.plan.subtopology(task.subtopology);
        let plan = plan.expect("tasks are of subtopologies of the plan");
        let stores = ChangelogRestore::of(task, plan, &backend)?;
        Ok(stores.map(|stores| {
            let holds_records = stores.next.is_some();
            Opened {
                backend,
                stores,
                known_until: KnownUntil::when_opened(age, holds_records, SystemTime::now()),
            }
        }))
    }

    /// Keeps these standbys, except for those that somebody has taken meanwhile; returns whether
    /// there are any.
    fn keep(&mut self, opened: Vec<Opened>, ends: &mut LogEnds<'_>) -> bool {
        let places = opened.iter().map(|of| changelog_of(&of.stores));
        let ends = ends.of(&places.collect());
        let mut any = false;
        for Opened {
            backend,
            stores,
            known_until,
        } in opened
        {
            let task = stores.task;
            let place = changelog_of(&stores);
            let Some(end) = ends.get(&place).copied() else {
                // Its leader is gone since. It is opened when there is one again.
                continue;
            };
            if stores.next.unwrap_or(Offset(0)) > end {
                let error = stores.is_ahead_of(end);
                // They may be removed, so they are closed first.
                drop(stores);
                drop(backend);
                self.set_aside(&error);
                continue;
            }
            let shared = &self.setup.standbys.shared;
            let mut state = shared.state.lock();
            if state.taken.contains_key(&task) {
                continue;
            }
            shared.queries.set_standby(task, backend.clone());
            let standby = Standby::of(backend, stores, place, known_until);
            state.standbys.insert(task, standby);
            drop(state);
            tracing::info!(%task, "keeping a standby");
            any = true;
        }
        any
    }

    /// Closes the standbys that have not been up to date for too long, so that they are restored
    /// from scratch; returns whether there were any.
    fn close_too_old(&self) -> bool {
        let now = SystemTime::now();
        let too_old: Vec<TaskId> = {
            let state = self.setup.standbys.shared.state.lock();
            let standbys = state.standbys.iter();
            let too_old = standbys.filter(|(_, standby)| standby.known_until.is_too_old(now));
            too_old.map(|(task, _)| *task).collect()
        };
        for task in &too_old {
            self.close(*task);
        }
        !too_old.is_empty()
    }

    /// Flushes and closes a standby. A stream thread that wants its stores meanwhile retries until
    /// they are closed.
    pub(super) fn close(&self, task: TaskId) {
        let shared = &self.setup.standbys.shared;
        let standby = shared.state.lock().standbys.remove(&task);
        let Some(mut standby) = standby else {
            return;
        };
        shared.queries.clear_standby(task);
        if standby.known_until.is_too_old(SystemTime::now()) {
            // Nobody is going to use them, so nothing of it is flushed or noted.
            tracing::warn!(%task, "a standby was not up to date for too long to be used");
        } else {
            standby.settle();
            if let Err(error) = standby.backend.flush() {
                tracing::warn!(%task, error = with_sources(&error), "could not flush a standby; its next use restores more");
            } else if standby.is_fresh() {
                let time = standby.known_until.time();
                self.setup.stores.note_kept(task, time);
            }
        }
        drop(standby);
        self.setup.metrics.forget_standby(task);
        tracing::info!(%task, "gave up a standby");
    }

    /// Closes a standby that cannot be used, and leaves its task alone for a while. If its stores
    /// are corrupted they are removed, so that they are restored; otherwise they are retried as
    /// they are.
    pub(super) fn set_aside(&mut self, error: &TaskError) {
        let task = error.task();
        tracing::error!(%task, error = with_sources(error), "a standby cannot be followed; its task is left alone for a while");
        let shared = &self.setup.standbys.shared;
        let mut state = shared.state.lock();
        shared.queries.clear_standby(task);
        shared.metrics.forget_standby(task);
        drop(state.standbys.remove(&task));
        let is_taken = state.taken.contains_key(&task);
        drop(state);
        // If a stream thread has taken the task since, it has the stores or waits for them.
        if matches!(error, TaskError::Corrupted { .. })
            && !is_taken
            && let Err(error) = self.setup.stores.wipe(task)
        {
            tracing::error!(%task, error = with_sources(&error), "the stores of a standby cannot be wiped");
        }
        self.setbacks.set_aside(task, Instant::now());
    }
}
