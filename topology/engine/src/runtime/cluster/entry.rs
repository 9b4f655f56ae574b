//! How an instance gets into the groups if others may run another topology.
//!
//! In the groups together, instances with different topologies would get tasks that are not what
//! they take them for. All read the same announcements in the same order, so that order decides:
//!
//! 1. An instance that knows of nobody in its way announces that it runs.
//! 2. It waits until it hears that, and so everything that was said before.
//! 3. If one with another topology has said the same before, it takes that back, and waits. Otherwise
//!    it joins, and those that say it later hear of it first.
//!
//! In the way are the instances with another topology that run, and the elder ones that are about
//! to, unless an instance that runs the same topology is there already: they have to wait for that.
//!
//! An instance that has been in the groups and finds others there when it joins anew (it was cut
//! off for longer than a session) starts over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Cluster;
use super::announcement::InstancePhase;
use super::directory::{Directory, Neighbour};
use super::former_members::LeftBehind;

/// How far an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Outside,
    /// It has said that it runs, and has not heard that yet.
    Announced,
    Inside,
    Stopped,
}

struct State {
    step: Step,
    /// The threads that are in the groups.
    threads: usize,
}

/// Where an instance is on its way into the groups.
pub(super) struct Entry {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Entry {
    fn default() -> Self {
        let step = Step::Outside;
        Self {
            state: Mutex::new(State { step, threads: 0 }),
            changed: Condvar::new(),
        }
    }
}

impl Entry {
    /// What to announce.
    pub(super) fn phase(&self) -> InstancePhase {
        match self.state.lock().step {
            Step::Outside => InstancePhase::Joining,
            Step::Announced | Step::Inside => InstancePhase::Running,
            Step::Stopped => InstancePhase::Stopped,
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        self.state.lock().step == Step::Inside
    }

    fn is_outside(&self) -> bool {
        self.state.lock().step == Step::Outside
    }

    /// Goes from one step to another, unless it has made another one.
    fn change(&self, from: Step, to: Step) -> bool {
        let mut state = self.state.lock();
        let changes = state.step == from;
        if changes {
            state.step = to;
            self.changed.notify_all();
        }
        changes
    }
}

/// A thread may be in the groups until this is dropped.
pub(crate) struct Admission {
    entry: Arc<Entry>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.entry.state.lock().threads -= 1;
    }
}

impl Cluster {
    /// The instances with another topology that this one waits for.
    pub(super) fn in_the_way<'a>(
        &'a self,
        directory: &'a Directory,
        now: Instant,
    ) -> impl Iterator<Item = &'a Neighbour> {
        let own = &self.shared.own;
        let others = move || directory.alive(now).filter(|of| of.name != own.name);
        let differs = |of: &Neighbour| of.said.topology != own.topology;
        let runs = |of: &Neighbour| of.said.phase == InstancePhase::Running;
        let elders_first =
            self.shared.entry.is_outside() && !others().any(|of| runs(of) && !differs(of));
        others().filter(move |of| {
            let counts = match of.said.phase {
                InstancePhase::Running => true,
                InstancePhase::Joining => elders_first && self.is_elder(of),
                InstancePhase::Stopped => false,
            };
            counts && differs(of)
        })
    }

    fn is_clear(&self) -> bool {
        let directory = self.shared.directory.read();
        self.in_the_way(&directory, Instant::now()).next().is_none()
    }

    /// Whether this instance may join the groups, as far as it knows.
    pub(crate) fn may_join(&self) -> bool {
        self.is_clear()
            && self.until_former_members_end().is_none()
            && !self.has_to_hear(&self.shared.directory.read())
    }

    /// Whether it has yet to hear what it said before it started over.
    fn has_to_hear(&self, directory: &Directory) -> bool {
        let own = &self.shared.own;
        self.shared.entry.is_outside()
            && directory.named(&own.name).is_some_and(|of| {
                of.said.started == own.started && of.said.phase == InstancePhase::Running
            })
    }

    /// 1. Announces that this instance runs, unless it has done so already.
    pub(crate) fn begin_to_enter(&self) {
        let planned = self.shared.plan.store_partitions();
        self.shared.partitioning.lock().hear(&planned);
        // Another thread may have tried in vain since this one has looked.
        let has_to_hear = self.has_to_hear(&self.shared.directory.read());
        if !has_to_hear && self.shared.entry.change(Step::Outside, Step::Announced) {
            self.shared.news.wake();
        }
    }

    /// 2. This instance has heard that it runs, and everything that was said before.
    pub(super) fn hear_that_it_runs(&self) {
        let entry = &self.shared.entry;
        if entry.is_inside() {
            return;
        }
        // 3.
        if self.is_clear() && entry.change(Step::Announced, Step::Inside) {
            *self.shared.left_behind.lock() = None;
        } else if entry.change(Step::Announced, Step::Outside) {
            tracing::info!(
                "an instance that runs another topology was first: waiting before joining the groups"
            );
            self.shared.news.wake();
        }
    }

    /// Waits until this instance is in, at most `limit`; returns whether it is, for a thread that
    /// joins the groups now.
    pub(crate) fn admission(&self, limit: Duration) -> Option<Admission> {
        let entry = &self.shared.entry;
        let mut state = entry.state.lock();
        let deadline = Instant::now() + limit;
        while state.step == Step::Announced {
            if entry.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        (state.step == Step::Inside).then(|| {
            state.threads += 1;
            Admission {
                entry: entry.clone(),
            }
        })
    }

    /// Starts over if none of its threads is in the groups any more, and others are in the way.
    pub(crate) fn step_back(&self) {
        let (is_clear, announced) = (self.is_clear(), self.announcement());
        let mut state = self.shared.entry.state.lock();
        if is_clear || state.step != Step::Inside || state.threads > 0 {
            return;
        }
        state.step = Step::Outside;
        drop(state);
        // Its members can be there for a session more.
        *self.shared.left_behind.lock() = LeftBehind::by(&announced, Instant::now());
        self.shared.news.wake();
    }

    /// Announces that this instance has stopped.
    pub(super) fn stop(&self) {
        self.shared.entry.state.lock().step = Step::Stopped;
        self.shared.news.wake();
    }
}
