//! A stream thread: owns tasks, a member of each group, one fetcher, a producer
//! for each of its transactions.
//!
//! The thread lives in *memberships*: it joins all its groups with fresh clients and works until it
//! is told to stop or something is lost (a fence, a group, a call whose outcome nobody knows). Then
//! it drops everything uncommitted and joins anew: it never retries in place. This module decides,
//! in one place, which fault means what.
//!
//! How a membership begins:
//!
//! 1. All its clients connect, and the producers fence this member's predecessor. That takes
//!    nothing from anybody else, so it need not wait for 2 and 3.
//! 2. Everything that instances have announced is read, and no instance in the groups runs another
//!    topology: such an instance would get tasks that are not what it takes them for. Members that
//!    an earlier process of this instance has left there with another topology have been dropped:
//!    this one would be given what was assigned to them.
//! 3. Once in the life of the thread: the tasks that others run and it is going to own are
//!    restored, so that it joins warm.
//! 4. It has announced that it runs, and has heard that before any instance with another topology
//!    has said the same. Meanwhile the fence is waited for. Only then may tasks be assigned: their
//!    committed positions and the ends of their changelogs are final only once no predecessor can
//!    commit any more.
//! 5. All groups are joined at once; a task is restored and runs when all of them have assigned it,
//!    together with the tasks that it shares a changelog partition with.

mod changelog_ends;
mod clients;
mod commit;
mod gathering;
mod membership;
mod opening;
mod readings;
mod schedule;
mod shortcuts;
mod slot;
mod work;
mod works;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::clients::Clients;
use self::membership::Membership;
use super::cluster::{Admission, Cluster, end_of, member_id};
use super::fence::Fence;
use super::kafka::{Ends, KafkaFault};
use super::lag::LagBoard;
use super::metrics::Metrics;
use super::queries::Queries;
use super::restorer::RestoreFault;
use super::standby::Standbys;
use super::status::{StatusBoard, ThreadReport};
use super::task_stores::{StoresFault, TaskStores};
use super::wake::Waker;
use super::{StreamsConfig, StreamsFailure};
use crate::TaskId;
use crate::task::TaskError;
use crate::topology::Plan;
use thiserror::Error;

/// What a stream thread needs.
#[derive(Clone)]
pub(crate) struct ThreadSetup {
    pub(crate) number: usize,
    pub(crate) config: StreamsConfig,
    pub(crate) plan: Arc<Plan>,
    pub(crate) metrics: Metrics,
    pub(crate) queries: Queries,
    pub(crate) board: StatusBoard,
    pub(crate) lag: LagBoard,
    pub(crate) cluster: Cluster,
    pub(crate) stores: TaskStores,
    pub(crate) standbys: Standbys,
    pub(crate) fence: Fence,
    pub(crate) ends: Ends,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) waker: Waker,
}

impl ThreadSetup {
    /// The static member id of the thread in every group.
    fn member(&self) -> String {
        member_id(&self.config.instance_id, self.number)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Why a membership ended, by what is to be done.
#[derive(Debug, Error)]
enum ThreadFault {
    /// Drop all tasks and join anew.
    #[error("{0}")]
    Rejoin(KafkaFault),
    /// Wipe this task's stores, then join anew.
    #[error("{error}")]
    Wipe { task: TaskId, error: TaskError },
    /// Drop all tasks, wait until the groups have dropped this member too, then join anew.
    #[error("{0}")]
    Outdated(String),
    /// Stop the instance.
    #[error("{0}")]
    Stop(StreamsFailure),
}

impl ThreadFault {
    /// Stop the instance, for something that no thread can recover from.
    fn stop(reason: String) -> Self {
        Self::Stop(StreamsFailure::Failed(reason))
    }
}

impl From<KafkaFault> for ThreadFault {
    fn from(fault: KafkaFault) -> Self {
        match fault {
            KafkaFault::Fenced { .. } | KafkaFault::Retriable { .. } => Self::Rejoin(fault),
            KafkaFault::Fatal { .. } => Self::stop(fault.to_string()),
            KafkaFault::Misconfigured { .. } => {
                Self::Stop(StreamsFailure::Misconfigured(fault.to_string()))
            }
        }
    }
}

impl From<TaskError> for ThreadFault {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Corrupted { task, .. } => Self::Wipe { task, error },
            error => Self::Stop(failure_of(&error)),
        }
    }
}

/// Why an instance stops that has a task which no thread can recover.
fn failure_of(error: &TaskError) -> StreamsFailure {
    let reason = with_sources(error);
    match error {
        TaskError::State { source, .. } if source.is_of_disk() => StreamsFailure::Disk(reason),
        TaskError::Rejected { .. }
        | TaskError::Processor { .. }
        | TaskError::Panicked { .. }
        | TaskError::Corrupted { .. }
        | TaskError::Changelog { .. }
        | TaskError::ChangelogLost { .. }
        | TaskError::State { .. } => StreamsFailure::Failed(reason),
    }
}

impl From<StoresFault> for ThreadFault {
    fn from(fault: StoresFault) -> Self {
        match fault {
            StoresFault::Kafka(fault) => fault.into(),
            StoresFault::Task(error) => error.into(),
        }
    }
}

impl From<RestoreFault> for ThreadFault {
    fn from(fault: RestoreFault) -> Self {
        match fault {
            RestoreFault::Kafka(fault) => fault.into(),
            RestoreFault::Task(error) => error.into(),
            RestoreFault::Cancelled => Self::Rejoin(KafkaFault::Retriable {
                action: "restore tasks",
                reason: "cancelled".to_owned(),
            }),
        }
    }
}

/// An error with all its causes in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Restores what this instance is going to own while others still run it, so that joining
/// interrupts nobody's tasks for longer than a moment. The time is limited: a changelog that grows
/// faster than it is restored must not keep the instance out.
fn warm_up(setup: &ThreadSetup) {
    const STEP: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + setup.config.warm_join_limit;
    let mut said = false;
    while !setup.stopping() && Instant::now() < deadline {
        // Others can join or leave meanwhile, which changes what comes here.
        let tasks = setup.cluster.to_take_over();
        if tasks.is_empty() {
            return;
        }
        let number = tasks.len();
        setup.standbys.warm_up(tasks);
        if setup.standbys.are_warm() {
            tracing::info!(
                thread = setup.number,
                tasks = number,
                "warm: joining the groups"
            );
            return;
        }
        if !said {
            tracing::info!(
                thread = setup.number,
                tasks = number,
                "restoring what it is going to own before it joins the groups"
            );
            said = true;
        }
        let behind = setup.standbys.warming_lag().map_or_else(
            || "it is not known yet how far they are behind".to_owned(),
            |lag| format!("{lag} changelog records behind"),
        );
        let problem = format!("restoring {number} tasks before it joins the groups: {behind}");
        setup.board.set_thread(setup.number, without_tasks(problem));
        setup.waker.wait(STEP);
    }
    if !setup.stopping() {
        tracing::warn!(thread = setup.number, limit = ?setup.config.warm_join_limit, "not warm in time: joining the groups all the same");
    }
}

/// The report of a thread that has no tasks, and why it has none.
fn without_tasks(problem: String) -> ThreadReport {
    ThreadReport {
        problem: Some(problem),
        ..ThreadReport::default()
    }
}

/// Waits until the groups may be joined; returns `false` if the instance stops before that.
fn wait_for_turn(setup: &ThreadSetup, warm: &mut bool) -> Result<bool, ThreadFault> {
    while !setup.stopping() {
        end_if_superseded(setup)?;
        setup.board.confirm(setup.number);
        if !setup.cluster.wait_until_complete(Duration::from_secs(1)) {
            continue;
        }
        if let Some(fault) = setup.cluster.partition_fault() {
            return Err(ThreadFault::Stop(StreamsFailure::Misconfigured(fault)));
        }
        if !setup.cluster.may_join() {
            setup.cluster.step_back();
            setup.waker.wait(PAUSE_MIN);
        } else if *warm {
            return Ok(true);
        } else {
            warn_of_left_stores(setup);
            setup.stores.open_ahead(setup.cluster.to_own());
            warm_up(setup);
            *warm = true;
        }
    }
    Ok(false)
}

/// A store is identified by its name, and that of timers by the name of their processor: under
/// another name it starts empty.
fn warn_of_left_stores(setup: &ThreadSetup) {
    // One thread speaks for all.
    if setup.number == 0 {
        for store in setup.cluster.left_stores() {
            tracing::warn!(%store, "an earlier release of the application had a store that this one has not: what it holds is not read any more; if the store, or a processor with timers, was renamed, give it back its name");
        }
    }
}

/// Of two processes with one instance id, the later goes on: this one would be fenced again and
/// again.
fn end_if_superseded(setup: &ThreadSetup) -> Result<(), ThreadFault> {
    let superseded = setup.cluster.superseded();
    superseded.map_or(Ok(()), |reason| {
        Err(ThreadFault::Stop(StreamsFailure::Superseded(reason)))
    })
}

/// Joins the groups when it is time, and works until told to stop. `worked` tells whether
/// any task ran.
fn join_and_work(
    setup: &ThreadSetup,
    warm: &mut bool,
    worked: &mut bool,
) -> Result<(), ThreadFault> {
    end_if_superseded(setup)?;
    // 1.
    let mut clients = Clients::connect(setup)?;
    // 2. and 3.
    if !wait_for_turn(setup, warm)? {
        return Ok(());
    }
    // 4.
    setup.cluster.begin_to_enter();
    let committers = clients.fence()?;
    let fenced = Instant::now();
    let Some(_admission) = wait_for_admission(setup, warm)? else {
        return Ok(());
    };
    tracing::debug!(thread = setup.number, waited = ?fenced.elapsed(), "admitted to the groups");
    // 5.
    Membership::join(setup, clients, committers)?.work(worked)
}

/// Waits until this instance may be in the groups, having begun to enter; returns `None` if the
/// instance stops before that.
fn wait_for_admission(
    setup: &ThreadSetup,
    warm: &mut bool,
) -> Result<Option<Admission>, ThreadFault> {
    loop {
        if let Some(admission) = setup.cluster.admission(PAUSE_MIN) {
            return Ok(Some(admission));
        }
        // Another one was first, or it has not heard itself yet.
        if !wait_for_turn(setup, warm)? {
            return Ok(None);
        }
        setup.cluster.begin_to_enter();
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Logs that it stops for good, and why.
fn stopped(setup: &ThreadSetup, failure: StreamsFailure) -> StreamsFailure {
    tracing::error!(thread = setup.number, reason = %failure, "the stream thread stops");
    failure
}

/// Runs until told to stop; an error is one that ends the instance.
pub(crate) fn run(setup: &ThreadSetup) -> Result<(), StreamsFailure> {
    let mut pause = PAUSE_MIN;
    let mut warm = false;
    while !setup.stopping() {
        let mut worked = false;
        let Err(fault) = join_and_work(setup, &mut warm, &mut worked) else {
            break;
        };
        if worked {
            pause = PAUSE_MIN;
        }
        let reason = match &fault {
            ThreadFault::Stop(failure) => return Err(stopped(setup, failure.clone())),
            ThreadFault::Wipe { task, error } => {
                tracing::error!(thread = setup.number, %task, error = with_sources(error), "wiping the stores of a task to restore them");
                match opening::wipe(setup, *task) {
                    Ok(()) => {}
                    Err(StoresFault::Task(error)) => {
                        return Err(stopped(setup, failure_of(&error)));
                    }
                    // They will be found corrupted again.
                    Err(StoresFault::Kafka(fault)) => {
                        tracing::warn!(%task, %fault, "the stores of a task were not wiped");
                    }
                }
                "corrupted"
            }
            ThreadFault::Outdated(_) => "outdated",
            ThreadFault::Rejoin(KafkaFault::Fenced { .. }) => "fenced",
            ThreadFault::Rejoin(_) => "retriable",
        };
        tracing::warn!(thread = setup.number, %fault, "dropped all tasks; joining anew");
        setup.metrics.rejoins.with_label_values(&[reason]).inc();
        let problem = format!("joining anew: {fault}");
        setup.board.set_thread(setup.number, without_tasks(problem));
        if let ThreadFault::Outdated(_) = fault {
            wait_until_dropped(setup);
        } else if !setup.stopping() {
            setup.waker.wait(pause);
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    Ok(())
}

/// Waits until the groups have dropped this member, which has just ended.
fn wait_until_dropped(setup: &ThreadSetup) {
    let dropped = Instant::now() + end_of(setup.config.session_timeout);
    while !setup.stopping() && Instant::now() < dropped {
        setup.board.confirm(setup.number);
        setup.waker.wait(PAUSE_MIN);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use turnstile_state::{CodecError, StateError};

    use super::*;
    use crate::{Offset, Partition, SubtopologyId};

    const TASK: TaskId = TaskId {
        subtopology: SubtopologyId(1),
        partition: Partition(2),
    };

    #[test]
    fn a_disk_that_fails_is_told_from_what_else_stops_an_instance() {
        let full = StateError::Io {
            path: "/state/1_2".into(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        let fault = ThreadFault::from(TaskError::of_state(TASK, full));
        let ThreadFault::Stop(StreamsFailure::Disk(reason)) = fault else {
            unreachable!("{fault:?}");
        };
        assert!(reason.contains("1_2"), "{reason}");
        assert!(reason.contains("no storage space"), "{reason}");

        let unreadable = StateError::Codec(CodecError {
            what: "row",
            why: "no such version".to_owned(),
        });
        let gone = TaskError::ChangelogLost {
            task: TASK,
            changelog: "app-stores-changelog".to_owned(),
            reached: Offset(7),
        };
        for error in [TaskError::of_state(TASK, unreadable), gone] {
            let fault = ThreadFault::from(error);
            assert!(
                matches!(fault, ThreadFault::Stop(StreamsFailure::Failed(_))),
                "{fault:?}"
            );
        }
        let corrupted = StateError::Corrupted {
            path: "/state/1_2".into(),
            what: "a block".to_owned(),
            source: None,
        };
        let fault = ThreadFault::from(TaskError::of_state(TASK, corrupted));
        assert!(matches!(fault, ThreadFault::Wipe { .. }), "{fault:?}");
    }
}
