//! The standby thread: follows the changelog for all standbys of this instance.
//!
//! 1. Opens what belongs here and nobody else has open; closes what no longer does, and what has
//!    not been up to date for too long.
//! 2. Applies what has come, a bounded batch of one partition at a time, which is read once for all
//!    its standbys.
//! 3. Every second asks where the partitions end, pending transactions included; a standby that has
//!    passed that end holds everything that was committed until it was asked.
//!
//! Between two batches a stream thread can take the open stores away. Records of pending
//! transactions are not seen, let alone applied, nor is what others commit behind them: so what
//! counts is the end of the log, not the end of what can be seen.
//!
//! A standby that fails, or a partition without a leader, does not keep the others from being
//! followed: [`placing`], [`setbacks`], [`log_ends`].

mod log_ends;
mod placing;
mod setbacks;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use turnstile_state::Backend;

use self::log_ends::LogEnds;
use self::setbacks::Setbacks;
use super::{Sample, Standby, Standbys};
use crate::runtime::StreamsConfig;
use crate::runtime::background::Background;
use crate::runtime::cluster::{Cluster, StandbyReport};
use crate::runtime::kafka::{
    ChangelogEvent, ChangelogReader, EndOffsets, KafkaFault, TopicPartition,
};
use crate::runtime::metrics::Metrics;
use crate::runtime::task_stores::{StoresFault, TaskStores};
use crate::task::{Dispatch, TaskError};
use crate::topology::Plan;
use crate::{Offset, TaskId};

/// Changelog records that are read before stores are written.
const BATCH_RECORDS: usize = 2_000;
/// The time between two looks at where the partitions end, and at who is there.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a fault of the cluster.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// What the standby thread works with.
pub(crate) struct StandbySetup {
    pub(crate) config: StreamsConfig,
    pub(crate) plan: Arc<Plan>,
    pub(crate) cluster: Cluster,
    pub(crate) standbys: Standbys,
    pub(crate) stores: TaskStores,
    pub(crate) log_ends: EndOffsets,
    pub(crate) metrics: Metrics,
}

/// Follows all standbys of this instance. Dropping the thread flushes and closes them.
pub(crate) fn start(mut setup: StandbySetup) -> io::Result<Background> {
    // Stopping does not wait long for brokers that do not answer.
    setup.config.request_timeout = setup.config.request_timeout.min(Duration::from_secs(5));
    let waker = setup.standbys.shared.news.clone();
    let mut follower = Follower {
        setup,
        unwanted: BTreeMap::new(),
        setbacks: Setbacks::default(),
        last_flush: Instant::now(),
    };
    Background::start("standby", waker, move |stop| follower.run(stop))
}

struct Follower {
    setup: StandbySetup,
    /// Standbys that no longer belong here, and since when.
    unwanted: BTreeMap<TaskId, Instant>,
    setbacks: Setbacks,
    last_flush: Instant,
}

impl Follower {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Err(fault) = self.follow(stop) {
                tracing::warn!(%fault, "standbys are not followed at the moment; trying again");
                // Nobody knows how far they are behind.
                self.take_samples(|_| None);
                self.report();
                self.setup.standbys.shared.news.wait(FAULT_PAUSE);
            }
        }
        let all: Vec<TaskId> = self.tasks();
        for task in all {
            self.close(task);
        }
        self.setup.cluster.set_standbys(Vec::new());
    }

    fn follow(&mut self, stop: &AtomicBool) -> Result<(), KafkaFault> {
        let limit = self.setup.config.request_timeout;
        let mut ends = LogEnds::new(&self.setup.log_ends, limit, stop);
        let mut placed: Option<(Instant, u64)> = None;
        let mut reading: Option<ChangelogReader> = None;
        while !stop.load(Ordering::Relaxed) {
            // 1.
            let changes = self.setup.standbys.shared.state.lock().changes;
            let stale =
                placed.is_none_or(|(at, of)| of != changes || at.elapsed() >= SAMPLE_INTERVAL);
            if stale {
                if self.place(&mut ends) || placed.is_none() {
                    reading = self.start_reading()?;
                }
                // 3.
                self.sample(&mut ends);
                // From here on: brokers that take long to answer leave time for the rest.
                placed = Some((Instant::now(), changes));
            }
            let Some(reader) = &reading else {
                self.report();
                self.setup.standbys.shared.news.wait(SAMPLE_INTERVAL);
                continue;
            };
            // 2.
            let applied = match self.apply(reader) {
                Ok(applied) => applied,
                Err(StoresFault::Kafka(fault)) => return Err(fault),
                Err(StoresFault::Task(error)) => {
                    self.set_aside(&error);
                    // What the others have taken of that batch is read again.
                    reading = self.start_reading()?;
                    continue;
                }
            };
            if applied == 0 || stale {
                self.take_stock(&reader.positions()?.into_iter().collect());
            }
            if stale {
                self.report();
            }
            self.flush_if_due();
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

    /// The changelog partitions of all standbys.
    fn places(&self) -> BTreeSet<TopicPartition> {
        let state = self.setup.standbys.shared.state.lock();
        let standbys = state.standbys.values();
        standbys.map(|standby| standby.place.clone()).collect()
    }

    /// Reads on: each partition from the standby that is furthest behind.
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
            // What a failed attempt has taken is read again.
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

    /// Applies what has come, at most a batch per partition; returns how many records were read,
    /// including those of other tasks.
    fn apply(&self, reader: &ChangelogReader) -> Result<u64, StoresFault> {
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
    fn sample(&self, ends: &mut LogEnds<'_>) {
        let (at, time) = (Instant::now(), SystemTime::now());
        let ends = ends.of(&self.places());
        self.take_samples(|place| {
            let end = ends.get(place).copied();
            end.map(|end| Sample { end, at, time })
        });
    }

    fn take_samples(&self, sample: impl Fn(&TopicPartition) -> Option<Sample>) {
        let mut state = self.setup.standbys.shared.state.lock();
        for standby in state.standbys.values_mut() {
            let sample = sample(&standby.place);
            standby.take_sample(sample);
        }
    }

    /// Finds the standbys that have reached the ends that were sampled.
    fn take_stock(&self, positions: &BTreeMap<TopicPartition, Offset>) {
        let shared = &self.setup.standbys.shared;
        let now = SystemTime::now();
        let mut state = shared.state.lock();
        for (task, standby) in &mut state.standbys {
            // Past transaction markers and what was aborted, which yield no records.
            if let Some(position) = positions.get(&standby.place) {
                standby.reached = standby.reached.max(*position);
            }
            if let Some(as_of) = standby.reach_goal(now) {
                shared.queries.standby_is_current(*task, as_of);
            }
        }
    }

    /// Reports to the others, and to the metrics, how far all standbys are.
    fn report(&self) {
        let metrics = &self.setup.metrics;
        let mut reports: Vec<StandbyReport> = Vec::new();
        let state = self.setup.standbys.shared.state.lock();
        for (task, standby) in &state.standbys {
            match standby.behind().filter(|_| standby.end_is_current) {
                Some(behind) => metrics.set_standby(*task, behind),
                // An old number would suggest that somebody knows.
                None => metrics.forget_standby(*task),
            }
            let stale = standby.as_of.map(|as_of| as_of.elapsed().as_millis());
            reports.push(StandbyReport {
                task: *task,
                records_behind: standby.behind(),
                stale_ms: stale.map(|stale| stale.try_into().unwrap_or(u64::MAX)),
            });
        }
        drop(state);
        self.setup.cluster.set_standbys(reports);
    }

    fn flush_if_due(&mut self) {
        if self.last_flush.elapsed() < self.setup.config.flush_interval {
            return;
        }
        self.last_flush = Instant::now();
        // Flushing takes time, and a stream thread may want one of them meanwhile.
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
            if let Err(error) = backend.flush() {
                drop(backend);
                self.set_aside(&TaskError::of_state(task, error));
                continue;
            }
            let state = self.setup.standbys.shared.state.lock();
            let standby = state.standbys.get(&task);
            if let Some(standby) = standby.filter(|standby| standby.is_fresh()) {
                let time = standby.known_until.time();
                self.setup.stores.note_kept(task, time);
            }
        }
    }
}

/// Applies what has come of one partition to its standbys, at most a batch; returns how many
/// records were read. How far they are then is known from the records alone: that the reader is at
/// an end was true when it was noted, not now, and the markers after the last record are counted by
/// the reader's position.
fn apply_some(
    reader: &ChangelogReader,
    place: &TopicPartition,
    standbys: &mut [&mut Standby],
    metrics: &Metrics,
) -> Result<u64, StoresFault> {
    let dispatch = Dispatch::to(standbys.iter().map(|standby| &standby.stores));
    let mut read = 0;
    let mut next = Offset(0);
    reader.read(place, BATCH_RECORDS, |event| -> Result<(), StoresFault> {
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
