//! What the instances of an application know of each other.
//!
//! Every instance announces itself in the compacted topic `<application id>-instances`
//! — its address, the tasks that run on it, its standbys and how far they are behind —
//! whenever that changes, and every second as a sign of life. Every instance reads them
//! all. So each can send a request to the instance that owns a key, tell where the assignor will
//! put a task, and detect a neighbour that does not fit.
//!
//! - [`announcement`]: what is said.
//! - [`directory`]: what is known from it.
//! - [`assignment`]: where the assignor puts tasks.
//! - [`partitioning`]: over how many partitions its stores are divided.
//! - [`entry`]: who goes into the groups if others run another topology.
//! - [`former_members`]: what an earlier process of the instance has left in the groups.
//! - [`messenger`]: the thread that speaks and listens.
//!
//! Nothing here decides who may write: the consumer groups and their fences do. Announcements can
//! be late, and a request based on one may be turned away. But a task that another process claims
//! to have begun later is not read here: a thread can lose its tasks without knowing, while this
//! module goes on listening.

mod announcement;
mod assignment;
mod directory;
mod entry;
mod former_members;
mod messenger;
mod partitioning;
#[cfg(test)]
mod tests;

pub use announcement::{InstancePhase, StandbyReport};
pub(crate) use assignment::{member_id, owners};
pub(crate) use entry::Admission;
pub(crate) use former_members::end_of;
pub(crate) use messenger::{MessengerFault, start as start_messenger};

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use serde::Serialize;

use self::announcement::{Announcement, Claim};
use self::directory::{Directory, Neighbour};
use self::entry::Entry;
use self::former_members::LeftBehind;
use self::partitioning::Partitioning;
use super::StreamsConfig;
use super::queries::{Process, Queries};
use super::status::StatusBoard;
use super::wake::Waker;
use crate::topology::Plan;
use crate::{TaskId, TimestampMs, clock};

/// By then the brokers have ended any transaction by themselves.
const TRANSACTIONS_END: Duration = Duration::from_secs(15 * 60);

/// The topic in which instances announce themselves.
pub(crate) fn instances_topic(application_id: &str) -> String {
    format!("{application_id}-instances")
}

/// An instance that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its instance id.
    pub instance: Arc<str>,
    /// `host:port` at which it answers other instances, if it does.
    pub address: Option<Arc<str>>,
    /// Whether it is this process.
    pub is_local: bool,
}

/// An instance as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceMetadata {
    /// Its instance id.
    pub instance: String,
    /// `host:port` at which it answers other instances, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it is doing.
    pub phase: InstancePhase,
    /// How long ago it was last heard of, in milliseconds.
    pub heard_ms_ago: u64,
    /// The tasks that run on it.
    pub tasks: Vec<TaskId>,
    /// The tasks that it has standbys of.
    pub standbys: Vec<StandbyReport>,
    /// Whether it runs the same topology on the same topics as this instance.
    pub fits: bool,
}

/// An instance that was not heard of for a whole session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Silent {
    pub(crate) instance: Arc<str>,
    /// When its process started.
    started: TimestampMs,
    pub(crate) threads: usize,
}

/// What never changes in what an instance says of itself.
struct Own {
    name: Arc<str>,
    started: TimestampMs,
    address: Option<String>,
    threads: usize,
    session_timeout: Duration,
    topology: String,
}

struct Shared {
    own: Own,
    plan: Arc<Plan>,
    num_standby_replicas: usize,
    queries: Queries,
    board: StatusBoard,
    directory: RwLock<Directory>,
    entry: Arc<Entry>,
    standbys: Mutex<Vec<StandbyReport>>,
    partitioning: Mutex<Partitioning>,
    /// What is in the groups under the name of this instance until it joins them.
    left_behind: Mutex<Option<LeftBehind>>,
    /// Whether everything that was there at start has been read.
    complete: Mutex<bool>,
    completed: Condvar,
    /// Wakes the messenger when there is something to say.
    news: Waker,
    /// When this instance last heard itself.
    heard_itself: Mutex<Instant>,
    /// When it said that: it has heard everything that others had said by then.
    heard_until: Mutex<Option<Instant>>,
}

/// What is known of the instances of the application; cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

impl Cluster {
    pub(crate) fn new(
        config: &StreamsConfig,
        plan: &Arc<Plan>,
        queries: Queries,
        board: StatusBoard,
    ) -> Self {
        let own = Own {
            name: config.instance_id.as_str().into(),
            started: clock::now(),
            address: config.advertised_address.clone(),
            threads: config.num_stream_threads,
            session_timeout: config.session_timeout,
            topology: plan.fingerprint(),
        };
        let news = Waker::default();
        queries.on_change(news.clone());
        Self {
            shared: Arc::new(Shared {
                own,
                plan: plan.clone(),
                num_standby_replicas: config.num_standby_replicas,
                queries,
                board,
                directory: RwLock::default(),
                entry: Arc::default(),
                standbys: Mutex::default(),
                partitioning: Mutex::default(),
                left_behind: Mutex::default(),
                complete: Mutex::default(),
                completed: Condvar::new(),
                news,
                heard_itself: Mutex::new(Instant::now()),
                heard_until: Mutex::default(),
            }),
        }
    }

    /// The instance that runs `task`, according to the announcements.
    #[must_use]
    pub fn owner(&self, task: TaskId) -> Option<Host> {
        let directory = self.shared.directory.read();
        let owner = directory.owner(task, Instant::now());
        owner.map(|of| self.host(of))
    }

    /// The instances that keep a standby of `task`, those that are least behind first.
    #[must_use]
    pub fn standbys(&self, task: TaskId) -> Vec<(Host, StandbyReport)> {
        let directory = self.shared.directory.read();
        let found = directory.standbys(task, Instant::now()).into_iter();
        found.map(|(of, report)| (self.host(of), report)).collect()
    }

    /// All instances that are alive, by instance id; this one among them.
    #[must_use]
    pub fn instances(&self) -> Vec<InstanceMetadata> {
        let now = Instant::now();
        let directory = self.shared.directory.read();
        let alive = directory.alive(now).map(|of| InstanceMetadata {
            instance: of.name.to_string(),
            address: of.said.address.clone(),
            phase: of.said.phase,
            heard_ms_ago: now
                .saturating_duration_since(of.heard)
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            tasks: of.said.tasks.iter().map(|claim| claim.task).collect(),
            standbys: of.said.standbys.clone(),
            fits: of.said.topology == self.shared.own.topology,
        });
        alive.collect()
    }

    fn host(&self, of: &Neighbour) -> Host {
        Host {
            instance: of.name.clone(),
            address: of.address.clone(),
            is_local: of.name == self.shared.own.name,
        }
    }

    /// What is wrong among the instances, for humans.
    pub(crate) fn problems(&self) -> Vec<String> {
        let own = &self.shared.own;
        let now = Instant::now();
        let mut problems = Vec::new();
        let silence = now.saturating_duration_since(*self.shared.heard_itself.lock());
        if silence > own.session_timeout {
            problems.push(format!(
                "the brokers have not been reached for {} s",
                silence.as_secs()
            ));
        }
        problems.extend(self.superseded());
        problems.extend(self.until_former_members_end().map(|left| {
            format!(
                "the process before, of another topology or the same on other topics, has left its members in the groups: this one joins when their session has ended, in {} s",
                left.as_secs() + 1
            )
        }));
        let outdone = self.shared.queries.outdone().into_iter();
        problems.extend(outdone.map(|(task, instance)| {
            format!(
                "task {task} has begun to run on instance {instance} since, and the stream thread that has it here has not noticed: it is not read here"
            )
        }));
        let directory = self.shared.directory.read();
        let differing: Vec<&Neighbour> = if self.shared.entry.is_inside() {
            self.elders_that_differ(&directory, now).collect()
        } else {
            self.in_the_way(&directory, now).collect()
        };
        problems.extend(differing.into_iter().map(|of| {
            format!(
                "instance {} runs another topology, or the same on other topics: it goes first; this one joins when it has stopped or runs the same",
                of.name
            )
        }));
        problems.extend(self.elders_at_this_address(&directory, now).map(|of| {
            format!(
                "instance {} is announced at {} as well, so that the others cannot reach both: give each instance its own advertised address",
                of.name,
                own.address.as_deref().unwrap_or_default()
            )
        }));
        problems
    }

    /// Why this process has to end, if another has started under its instance id since.
    pub(crate) fn superseded(&self) -> Option<String> {
        let own = &self.shared.own;
        let directory = self.shared.directory.read();
        let other = directory.named(&own.name)?;
        let is_later = other.said.started > own.started;
        (is_later && other.live && !other.has_stopped()).then(|| {
            let address = other.address.as_deref().unwrap_or("an unknown address");
            format!(
                "another process, at {address}, has started under the instance id {}: give each instance an id of its own",
                own.name
            )
        })
    }

    /// Whether another instance was there first.
    fn is_elder(&self, of: &Neighbour) -> bool {
        let own = &self.shared.own;
        (of.said.started, &of.name) < (own.started, &own.name)
    }

    /// Other instances that are alive and were there first.
    fn elders<'a>(
        &'a self,
        directory: &'a Directory,
        now: Instant,
    ) -> impl Iterator<Item = &'a Neighbour> {
        let own = &self.shared.own;
        let others = directory.alive(now).filter(|of| of.name != own.name);
        others.filter(|of| self.is_elder(of))
    }

    /// Those that were there first and run another topology, although this instance runs: it was
    /// cut off from them.
    fn elders_that_differ<'a>(
        &'a self,
        directory: &'a Directory,
        now: Instant,
    ) -> impl Iterator<Item = &'a Neighbour> {
        let own = &self.shared.own;
        self.elders(directory, now).filter(|of| {
            of.said.phase == InstancePhase::Running && of.said.topology != own.topology
        })
    }

    /// Those that were there first and are announced at the address of this instance: a request
    /// that is sent there for one of them may reach the other. The first one stays ready, because
    /// if none were, nothing would be answered at all.
    fn elders_at_this_address<'a>(
        &'a self,
        directory: &'a Directory,
        now: Instant,
    ) -> impl Iterator<Item = &'a Neighbour> {
        let address = self.shared.own.address.as_deref();
        self.elders(directory, now).filter(move |of| {
            address.is_some() && of.address.as_deref() == address && !of.has_stopped()
        })
    }

    /// Waits until everything that was announced before has been read; returns whether it has.
    pub(crate) fn wait_until_complete(&self, limit: Duration) -> bool {
        let mut complete = self.shared.complete.lock();
        let deadline = Instant::now() + limit;
        while !*complete {
            let waited = self.shared.completed.wait_until(&mut complete, deadline);
            if waited.timed_out() {
                break;
            }
        }
        *complete
    }

    /// Why this instance must not touch the stores of the application, if they are divided over
    /// other numbers of partitions than its topics have; valid once all announcements have been
    /// read.
    pub(crate) fn partition_fault(&self) -> Option<String> {
        let planned = self.shared.plan.store_partitions();
        self.shared.partitioning.lock().fault(&planned)
    }

    /// The stores that earlier releases of the application had and this one does not.
    pub(crate) fn left_stores(&self) -> Vec<String> {
        let planned = self.shared.plan.store_partitions();
        self.shared.partitioning.lock().left(&planned)
    }

    /// Sets what this instance has standbys of, from now on.
    pub(crate) fn set_standbys(&self, standbys: Vec<StandbyReport>) {
        *self.shared.standbys.lock() = standbys;
        self.shared.news.wake();
    }

    /// The tasks of which this instance is to keep standbys.
    pub(crate) fn standbys_here(&self) -> BTreeSet<TaskId> {
        let members = {
            let directory = self.shared.directory.read();
            directory.members_with(Instant::now(), None)
        };
        let losses = self.shared.num_standby_replicas;
        let places = assignment::standbys(&self.shared.plan, &members, losses);
        let here = places
            .into_iter()
            .filter(|(_, instances)| instances.contains(&self.shared.own.name));
        here.map(|(task, _)| task).collect()
    }

    /// The tasks that this instance is going to own once it has joined.
    pub(crate) fn to_own(&self) -> BTreeSet<TaskId> {
        let directory = self.shared.directory.read();
        self.share(&directory, Instant::now())
    }

    /// What the assignor gives to this instance once it is in the groups.
    fn share(&self, directory: &Directory, now: Instant) -> BTreeSet<TaskId> {
        let own = &self.shared.own;
        let members = directory.members_with(now, Some((own.name.clone(), own.threads)));
        let owners = owners(&self.shared.plan, &members).into_iter();
        let mine = owners.filter(|(_, of)| *of == own.name);
        mine.map(|(task, _)| task).collect()
    }

    /// The tasks that this instance is going to own once it has joined, and that others run at
    /// present; none if it already has its place in the groups because it was there a moment ago.
    pub(crate) fn to_take_over(&self) -> BTreeSet<TaskId> {
        let own = &self.shared.own;
        let now = Instant::now();
        let directory = self.shared.directory.read();
        let was_member = directory.named(&own.name).is_some_and(|of| {
            of.said.started < own.started && directory.alive(now).any(|alive| alive.name == of.name)
        });
        if was_member {
            return BTreeSet::new();
        }
        let mine = self.share(&directory, now).into_iter();
        mine.filter(|task| {
            // Without a changelog there is nothing to catch up on.
            let plan = self.shared.plan.subtopology(task.subtopology);
            let follows = plan.is_some_and(|plan| plan.changelog.is_some());
            let owner = directory.owner(*task, now);
            follows && owner.is_some_and(|of| of.name != own.name)
        })
        .collect()
    }

    /// Those that last said that they run any of `tasks`, did not stop, and are silent.
    pub(crate) fn silent_owners(&self, tasks: &[TaskId]) -> Vec<Silent> {
        let directory = self.shared.directory.read();
        let now = Instant::now();
        let silent = directory.silent(now).filter(|of| {
            let recently = now.saturating_duration_since(of.heard) < TRANSACTIONS_END;
            let mut claims = of.said.tasks.iter();
            recently
                && of.name != self.shared.own.name
                && claims.any(|claim| tasks.contains(&claim.task))
        });
        let silent = silent.map(|of| Silent {
            instance: of.name.clone(),
            started: of.said.started,
            threads: of.said.threads,
        });
        silent.collect()
    }

    /// Whether it has stayed silent since.
    pub(crate) fn is_silent(&self, silent: &Silent) -> bool {
        let directory = self.shared.directory.read();
        let mut all = directory.silent(Instant::now());
        all.any(|of| of.name == silent.instance && of.said.started == silent.started)
    }

    /// The instances that nobody needs to know any more, if this one has listened since `since`.
    fn to_forget(&self, since: Instant) -> Vec<Arc<str>> {
        let Some(until) = *self.shared.heard_until.lock() else {
            return Vec::new();
        };
        let directory = self.shared.directory.read();
        let gone = directory.to_forget(since, until);
        gone.map(|of| of.name.clone()).collect()
    }

    /// What this instance announces now.
    fn announcement(&self) -> Announcement {
        let Shared { own, .. } = &*self.shared;
        let tasks = self.shared.queries.claims().into_iter();
        let phase = self.shared.entry.phase();
        let left_behind = self.shared.left_behind.lock().clone();
        // Those that would make it wait are gone when it says that it runs.
        let left_behind = left_behind.filter(|_| phase != InstancePhase::Running);
        Announcement {
            version: Announcement::VERSION,
            instance: own.name.to_string(),
            started: own.started,
            said: clock::now(),
            phase,
            address: own.address.clone(),
            threads: own.threads,
            session_timeout_ms: own
                .session_timeout
                .as_millis()
                .try_into()
                .unwrap_or(u64::MAX),
            topology: own.topology.clone(),
            tasks: tasks.map(|(task, since)| Claim { task, since }).collect(),
            standbys: self.shared.standbys.lock().clone(),
            partitions: self.shared.partitioning.lock().known().clone(),
            former_members: left_behind.map(LeftBehind::into_members),
        }
    }

    fn hear(&self, name: &str, said: Option<Announcement>, heard: Instant, live: bool) {
        let own = &self.shared.own;
        let is_own = |said: &Announcement| *name == *own.name && said.started == own.started;
        if let Some(said) = said.as_ref().filter(|said| is_own(said)) {
            let mut last = self.shared.heard_itself.lock();
            *last = heard.max(*last);
            // The brokers accepted it when it was sent, which can be long ago if this process was
            // frozen since.
            let age = clock::now().since(said.said);
            *self.shared.heard_until.lock() = heard.checked_sub(age);
            if let Some(left) = own.session_timeout.checked_sub(age) {
                self.shared.queries.extend_lease(heard + left);
            }
        }
        if let Some(said) = &said {
            self.shared.partitioning.lock().hear(&said.partitions);
        }
        let others = said.as_ref().filter(|said| !is_own(said));
        if let Some(said) = others.filter(|_| *name == *own.name) {
            self.hear_process_before(said, heard);
        }
        let claimed = others.map(|said| (said.started, said.claims()));
        let runs = said
            .as_ref()
            .is_some_and(|said| is_own(said) && said.phase == InstancePhase::Running);
        let counts = self.shared.directory.write().hear(name, said, heard, live);
        if runs {
            self.hear_that_it_runs();
        }
        if let Some((started, claims)) = claimed.filter(|_| counts) {
            let instance = name.into();
            let process = Process { instance, started };
            // A stuck thread cannot learn that its tasks have since moved on.
            let may_heal = !self.shared.board.any_stuck(Instant::now());
            let queries = &self.shared.queries;
            queries.hear_claims(&process, &claims, may_heal);
        }
    }

    fn set_complete(&self) {
        *self.shared.complete.lock() = true;
        self.shared.completed.notify_all();
    }
}
