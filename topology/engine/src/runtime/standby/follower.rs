//! The standby thread: follows the changelog for all standbys of this instance.
//!
//! 1. Opens what belongs here and nobody else has open; closes what does not any more.
//! 2. Applies what has come, a bounded batch of one partition at a time, which is read once
//!    for all standbys of it.
//! 3. Every second asks where the partitions end, pending transactions included; a standby that
//!    has passed that end holds everything that was committed until it was asked.
//!
//! Between two batches a stream thread can take the open stores away. Records of
//! transactions that are pending are not seen, let alone applied. Nor is what others commit
//! behind them: so it is the end of the log that counts, not that of what can be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use turnstile_state::{Backend, StateError};

use super::{Standby, Standbys};
use crate::runtime::StreamsConfig;
use crate::runtime::background::Background;
use crate::runtime::cluster::{Cluster, StandbyReport};
use crate::runtime::kafka::{
    ChangelogEvent, ChangelogReader, EndOffsets, Isolation, KafkaFault, TopicPartition,
};
use crate::runtime::metrics::Metrics;
use crate::runtime::restorer::{changelog_of, offset_of};
use crate::runtime::stream_thread::with_sources;
use crate::runtime::task_stores::TaskStores;
use crate::task::{ChangelogRestore, Dispatch, TaskError};
use crate::topology::Plan;
use crate::{Offset, TaskId};

/// Changelog records that are read before stores are written.
const BATCH_RECORDS: usize = 2_000;
/// Between two looks at where the partitions end, and at who is there.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A standby that does not belong here any more is kept for so long all the same: while
/// instances come and go it may be wanted at once.
const KEPT_UNWANTED: Duration = Duration::from_secs(10);
/// After a fault of the cluster.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// What the standby thread works with.
pub(crate) struct StandbySetup {
    pub(crate) config: StreamsConfig,
    pub(crate) plan: Arc<Plan>,
    pub(crate) cluster: Cluster,
    pub(crate) standbys: Standbys,
    pub(crate) stores: TaskStores,
    pub(crate) metrics: Metrics,
}

/// Follows all standbys of this instance. Dropping the thread flushes and closes them.
pub(crate) fn start(mut setup: StandbySetup) -> io::Result<Background> {
    // A stop does not wait long for brokers that do not answer.
    setup.config.request_timeout = setup.config.request_timeout.min(Duration::from_secs(5));
    let waker = setup.standbys.shared.news.clone();
    let mut follower = Follower {
        setup,
        unwanted: BTreeMap::new(),
        last_flush: Instant::now(),
    };
    Background::start("standby", waker, move |stop| follower.run(stop))
}

struct Follower {
    setup: StandbySetup,
    /// Standbys that do not belong here any more, and since when.
    unwanted: BTreeMap<TaskId, Instant>,
    last_flush: Instant,
}

/// The stores of a standby that is about to be followed.
struct Opened {
    backend: Arc<dyn Backend>,
    stores: ChangelogRestore,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    /// The stores of one task cannot be used.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl Follower {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.follow(stop) {
                Ok(()) => {}
                Err(Ended::Kafka(fault)) => {
                    tracing::warn!(%fault, "standbys are not followed at the moment; trying again");
                    self.setup.standbys.shared.news.wait(FAULT_PAUSE);
                }
                Err(Ended::Task(error)) => self.set_aside(&error),
            }
        }
        let all: Vec<TaskId> = self.tasks();
        for task in all {
            self.close(task);
        }
        self.setup.cluster.set_standbys(Vec::new());
    }

    fn follow(&mut self, stop: &AtomicBool) -> Result<(), Ended> {
        let config = &self.setup.config;
        let log_ends = EndOffsets::new(config, Isolation::ReadUncommitted)?;
        let mut placed: Option<(Instant, u64)> = None;
        let mut reading: Option<ChangelogReader> = None;
        while !stop.load(Ordering::Relaxed) {
            // 1.
            let changes = self.setup.standbys.shared.state.lock().changes;
            let stale =
                placed.is_none_or(|(at, of)| of != changes || at.elapsed() >= SAMPLE_INTERVAL);
            if stale {
                let first = placed.is_none();
                placed = Some((Instant::now(), changes));
                if self.place(&log_ends)? || first {
                    reading = self.start_reading()?;
                }
                // 3.
                self.sample(&log_ends)?;
            }
            let Some(reader) = &reading else {
                self.report();
                self.setup.standbys.shared.news.wait(SAMPLE_INTERVAL);
                continue;
            };
            // 2.
            let applied = self.apply(reader)?;
            if applied == 0 || stale {
                self.take_stock(&reader.positions()?.into_iter().collect());
            }
            if stale {
                self.report();
            }
            self.flush_if_due()?;
            if applied == 0 {
                reader.wait(SAMPLE_INTERVAL)?;
            }
        }
        Ok(())
    }

    fn tasks(&self) -> Vec<TaskId> {
        let state = self.setup.standbys.shared.state.lock();
        state.standbys.keys().copied().collect()
    }

    /// Opens and closes standbys until those are open that belong here; says whether
    /// there are others to read now.
    fn place(&mut self, log_ends: &EndOffsets) -> Result<bool, Ended> {
        let mut wanted: BTreeSet<TaskId> = self.setup.cluster.standbys_here();
        {
            let state = self.setup.standbys.shared.state.lock();
            wanted.extend(&state.warming);
            wanted.retain(|task| !state.taken.contains_key(task));
        }
        let present: BTreeSet<TaskId> = self.tasks().into_iter().collect();
        self.unwanted
            .retain(|task, _| present.contains(task) && !wanted.contains(task));
        let mut changed = false;
        for task in present.difference(&wanted) {
            let since = *self.unwanted.entry(*task).or_insert_with(Instant::now);
            if since.elapsed() >= KEPT_UNWANTED {
                self.close(*task);
                changed = true;
            }
        }
        let mut opened = Vec::new();
        for task in wanted.difference(&present) {
            opened.extend(self.open(*task)?);
        }
        changed |= self.keep(opened, log_ends)?;
        Ok(changed)
    }

    /// Opens the stores of a standby, unless somebody else has them now. A stream thread may
    /// want them meanwhile: then it tries until they are closed again here.
    fn open(&self, task: TaskId) -> Result<Option<Opened>, TaskError> {
        let shared = &self.setup.standbys.shared;
        if shared.state.lock().taken.contains_key(&task) {
            return Ok(None);
        }
        let backend = match self.setup.stores.open(task) {
            Ok(backend) => backend,
            Err(error @ StateError::RocksDb { .. }) => {
                // A query may be about to let go of it.
                tracing::debug!(%task, error = with_sources(&error), "the stores of a standby cannot be opened now");
                return Ok(None);
            }
            Err(error) => return Err(TaskError::of_state(task, error)),
        };
        let plan = self.setup.plan.subtopology(task.subtopology);
        let plan = plan.expect("tasks are of subtopologies of the plan");
        let stores = ChangelogRestore::of(task, plan, &backend)?;
        Ok(stores.map(|stores| Opened { backend, stores }))
    }

    /// Keeps these standbys, but for those that somebody has taken meanwhile; says whether
    /// there are any.
    fn keep(&self, opened: Vec<Opened>, log_ends: &EndOffsets) -> Result<bool, Ended> {
        let shared = &self.setup.standbys.shared;
        let places = opened.iter().map(|of| changelog_of(&of.stores));
        let places: BTreeSet<TopicPartition> = places.collect();
        let ends = log_ends.of(&Vec::from_iter(places))?;
        let mut any = false;
        for Opened { backend, stores } in opened {
            let task = stores.task;
            let place = changelog_of(&stores);
            let reached = stores.next.unwrap_or(Offset(0));
            let end = offset_of(&ends, &place).unwrap_or(Offset(0));
            if reached > end {
                return Err(stores.is_ahead_of(end).into());
            }
            let mut state = shared.state.lock();
            if state.taken.contains_key(&task) {
                continue;
            }
            shared.queries.set_standby(task, backend.clone());
            state.standbys.insert(
                task,
                Standby {
                    backend,
                    stores,
                    place,
                    reached,
                    end: None,
                    goal: None,
                    sampled: None,
                    as_of: None,
                },
            );
            drop(state);
            tracing::info!(%task, "keeping a standby");
            any = true;
        }
        Ok(any)
    }

    /// Flushes and closes a standby. A stream thread that wants its stores meanwhile tries
    /// until they are closed.
    fn close(&self, task: TaskId) {
        let shared = &self.setup.standbys.shared;
        let standby = shared.state.lock().standbys.remove(&task);
        let Some(mut standby) = standby else {
            return;
        };
        shared.queries.clear_standby(task);
        standby.settle();
        if let Err(error) = standby.backend.flush() {
            tracing::warn!(%task, error = with_sources(&error), "could not flush a standby; its next use restores more");
        } else if standby.is_fresh() {
            self.setup.stores.note_kept(task, SystemTime::now());
        }
        drop(standby);
        self.setup.metrics.forget_standby(task);
        tracing::info!(%task, "gave up a standby");
    }

    /// Closes a standby that cannot be used. Where its stores are corrupted they are
    /// removed, so that they are restored; where the disk failed it is tried again.
    fn set_aside(&self, error: &TaskError) {
        tracing::error!(error = with_sources(error), "a standby cannot be followed");
        let task = error.task();
        let mut state = self.setup.standbys.shared.state.lock();
        self.setup.standbys.shared.queries.clear_standby(task);
        drop(state.standbys.remove(&task));
        if matches!(error, TaskError::Corrupted { .. })
            && !state.taken.contains_key(&task)
            && let Err(error) = self.setup.stores.wipe(task)
        {
            tracing::error!(%task, error = with_sources(&error), "the stores of a standby cannot be wiped");
        }
        drop(state);
        self.setup.standbys.shared.news.wait(FAULT_PAUSE);
    }

    /// The changelog partitions of all standbys.
    fn places(&self) -> BTreeSet<TopicPartition> {
        let state = self.setup.standbys.shared.state.lock();
        let standbys = state.standbys.values();
        standbys.map(|standby| standby.place.clone()).collect()
    }

    /// Reads on: each partition from where the standby is that is furthest behind.
    fn start_reading(&self) -> Result<Option<ChangelogReader>, KafkaFault> {
        let mut starts: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for standby in self
            .setup
            .standbys
            .shared
            .state
            .lock()
            .standbys
            .values_mut()
        {
            // What an attempt has taken that failed is read once more.
            standby.stores.forget_pending();
            standby.settle();
            let start = starts.entry(standby.place.clone());
            let start = start.or_insert(standby.reached);
            *start = standby.reached.min(*start);
        }
        let starts = starts
            .into_iter()
            .map(|(place, start)| (place, Some(start)));
        let starts: Vec<(TopicPartition, Option<Offset>)> = starts.collect();
        if starts.is_empty() {
            return Ok(None);
        }
        let waker = self.setup.standbys.shared.news.clone();
        ChangelogReader::start(&self.setup.config, &starts, waker).map(Some)
    }

    /// Applies what has come, at most a batch a partition; says how many records were read,
    /// those of others included.
    fn apply(&self, reader: &ChangelogReader) -> Result<u64, Ended> {
        let mut read = 0;
        for place in self.places() {
            let mut state = self.setup.standbys.shared.state.lock();
            let standbys = state.standbys.values_mut();
            let mut here: Vec<&mut Standby> =
                standbys.filter(|standby| standby.place == place).collect();
            read += apply_some(reader, &place, &mut here, &self.setup.metrics)?;
        }
        Ok(read)
    }

    /// Asks where the changelog partitions of all standbys end.
    fn sample(&self, log_ends: &EndOffsets) -> Result<(), KafkaFault> {
        let at = Instant::now();
        let ends = log_ends.of(&Vec::from_iter(self.places()))?;
        let ends: BTreeMap<TopicPartition, Offset> = ends.into_iter().collect();
        let mut state = self.setup.standbys.shared.state.lock();
        for standby in state.standbys.values_mut() {
            // A sample that was not reached yet stays the goal: one that is always a little
            // behind reaches every goal in the end.
            let is_goal = standby.sampled.is_none();
            standby.end = ends.get(&standby.place).copied().or(standby.end);
            if is_goal {
                standby.goal = standby.end;
            }
            standby.sampled.get_or_insert(at);
        }
        Ok(())
    }

    /// Finds the standbys that have reached the ends that were sampled.
    fn take_stock(&self, positions: &BTreeMap<TopicPartition, Offset>) {
        let shared = &self.setup.standbys.shared;
        let mut state = shared.state.lock();
        for (task, standby) in &mut state.standbys {
            // Past markers of transactions and what was aborted, which are no records.
            if let Some(position) = positions.get(&standby.place) {
                standby.reached = standby.reached.max(*position);
            }
            if standby.has_reached_its_goal()
                && let Some(at) = standby.sampled.take()
            {
                standby.as_of = Some(at);
                shared.queries.standby_is_current(*task, at);
            }
        }
    }

    /// Tells the others, and the metrics, how far all standbys are.
    fn report(&self) {
        let reports: Vec<StandbyReport> = {
            let state = self.setup.standbys.shared.state.lock();
            let standbys = state.standbys.iter();
            standbys
                .map(|(task, standby)| StandbyReport {
                    task: *task,
                    records_behind: standby.behind().unwrap_or(u64::MAX),
                    stale_ms: standby
                        .as_of
                        .map(|at| at.elapsed().as_millis().try_into().unwrap_or(u64::MAX)),
                })
                .collect()
        };
        for report in &reports {
            self.setup
                .metrics
                .set_standby(report.task, report.records_behind);
        }
        self.setup.cluster.set_standbys(reports);
    }

    fn flush_if_due(&mut self) -> Result<(), TaskError> {
        if self.last_flush.elapsed() < self.setup.config.flush_interval {
            return Ok(());
        }
        self.last_flush = Instant::now();
        // Flushing takes its time, and a stream thread may want one of them meanwhile.
        let backends: Vec<(TaskId, Arc<dyn Backend>)> = {
            let mut state = self.setup.standbys.shared.state.lock();
            let standbys = state.standbys.iter_mut();
            standbys
                .map(|(task, standby)| {
                    standby.settle();
                    (*task, standby.backend.clone())
                })
                .collect()
        };
        for (task, backend) in backends {
            let flushed = backend.flush();
            flushed.map_err(|error| TaskError::of_state(task, error))?;
            let state = self.setup.standbys.shared.state.lock();
            if state.standbys.get(&task).is_some_and(Standby::is_fresh) {
                self.setup.stores.note_kept(task, SystemTime::now());
            }
        }
        Ok(())
    }
}

/// Applies what has come of one partition to its standbys, at most a batch; says how many
/// records were read. How far they are then is known from the records alone: that the reader
/// is at an end was true when it was noted, not now, and the markers behind the last record
/// are counted by the reader's position.
fn apply_some(
    reader: &ChangelogReader,
    place: &TopicPartition,
    standbys: &mut [&mut Standby],
    metrics: &Metrics,
) -> Result<u64, Ended> {
    let dispatch = Dispatch::to(standbys.iter().map(|standby| &standby.stores));
    let mut read = 0;
    let mut next = Offset(0);
    reader.read(place, BATCH_RECORDS, |event| -> Result<(), Ended> {
        if let ChangelogEvent::Record { offset, key, value } = event {
            dispatch.hand_out(standbys, offset, key, value)?;
            next = Offset(offset.0 + 1);
            read += 1;
        }
        Ok(())
    })?;
    for standby in standbys {
        if standby.stores.pending() > 0 {
            let records = standby.stores.write(next)?;
            metrics.count_standby_records(standby.stores.task, records);
        }
        standby.reached = standby.reached.max(next);
    }
    Ok(read)
}
