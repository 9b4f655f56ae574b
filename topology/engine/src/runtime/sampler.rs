//! The housekeeping of an instance: samples what is too costly to keep up to date (lag, sizes,
//! pending timers), looks for transactions that hang and at the topics, purges repartition topics,
//! closes stores that were opened ahead in vain, and removes those of tasks that moved elsewhere
//! long ago.
//!
//! It does not wait long for brokers that do not answer: what it shows of the tasks would become
//! stale, and a stop would wait for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use turnstile_state::RocksMemory;

use super::StreamsFailure;
use super::cluster::Cluster;
use super::hanging::Hanging;
use super::kafka::{Admin, Ends, KafkaFault, TopicPartition};
use super::lag::LagBoard;
use super::metrics::Metrics;
use super::purge::Purger;
use super::queries::Queries;
use super::said::is_new;
use super::status::StatusBoard;
use super::task_stores::TaskStores;
use super::topic_watch::TopicWatch;
use super::wake::Waker;
use crate::clock;
use crate::topology::{Plan, PlanStoreKind};

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(2);
/// How old a sample of what brokers report may be.
const SAMPLE_AGE_MAX: Duration = Duration::from_secs(30);
/// How long brokers may take for an answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The time between two looks for stores that were unused for too long.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What the sampler looks at.
pub(crate) struct Sampler {
    pub(crate) plan: Arc<Plan>,
    pub(crate) metrics: Metrics,
    pub(crate) queries: Queries,
    pub(crate) board: StatusBoard,
    pub(crate) cluster: Cluster,
    pub(crate) memory: RocksMemory,
    pub(crate) lag: LagBoard,
    pub(crate) ends: Ends,
    pub(crate) admin: Admin,
    pub(crate) purger: Purger,
    pub(crate) topics: TopicWatch,
    pub(crate) stores: TaskStores,
}

impl Sampler {
    /// Samples until `stopped`; `waker` ends a wait early.
    ///
    /// # Errors
    ///
    /// When the instance has to stop because of what has become of its topics.
    pub(crate) fn run(
        &mut self,
        stopped: impl Fn() -> bool,
        waker: &Waker,
    ) -> Result<(), StreamsFailure> {
        let mut samples_ends = false;
        let mut hanging = Hanging::default();
        let mut sampled = Instant::now();
        let mut removed: Option<Instant> = None;
        while !stopped() {
            self.sample_tasks();
            if self.board.all_joined() {
                self.stores.close_unclaimed();
                if removed.is_none_or(|at| at.elapsed() >= REMOVAL_INTERVAL) {
                    self.remove_left(&stopped);
                    removed = Some(Instant::now());
                }
            }
            self.sample_stores();
            self.sample_disk();
            self.sample_cluster();
            // Not while it starts: that time belongs to other clients.
            samples_ends |= self.board.all_joined();
            if samples_ends {
                match self.sample_ends(&mut hanging) {
                    Ok(()) => sampled = Instant::now(),
                    Err(fault) => self.could_not_sample(&mut sampled, &fault),
                }
            }
            if !stopped() {
                self.purge();
            }
            if !stopped() {
                self.look_at_topics()?;
            }
            waker.wait(INTERVAL);
        }
        Ok(())
    }

    fn purge(&mut self) {
        if let Err(fault) = self.purger.purge_if_due(&self.admin, &self.lag) {
            tracing::warn!(%fault, "repartition topics were not purged; trying again later");
        }
    }

    fn look_at_topics(&mut self) -> Result<(), StreamsFailure> {
        match self.topics.look_if_due(&self.admin) {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => {
                tracing::error!(reason = wrong, "the instance stops");
                Err(StreamsFailure::Misconfigured(wrong))
            }
            Err(fault) => {
                tracing::debug!(%fault, "could not look at the topics; trying again later");
                Ok(())
            }
        }
    }

    fn sample_tasks(&self) {
        self.metrics.set_tasks(|status| self.board.count(status));
        self.metrics.set_misfits(self.board.misfits());
        self.metrics.set_overdue(self.board.overdue(clock::now()));
    }

    /// Removes stores that were unused for too long. Each takes a while, and the instance may stop
    /// meanwhile.
    fn remove_left(&self, stopped: &impl Fn() -> bool) {
        for task in self.stores.on_disk() {
            if stopped() {
                return;
            }
            self.stores.remove_if_left(task);
        }
    }

    /// Samples the consumer lag, and what lag does not show: transactions that hang.
    fn sample_ends(&self, hanging: &mut Hanging) -> Result<(), KafkaFault> {
        let stable = self.lag.sample(&self.ends.stable, &self.metrics)?;
        let places = stable.iter().map(|(place, _)| place.clone());
        let log = self
            .ends
            .log
            .of_led(&places.collect::<Vec<TopicPartition>>())?;
        for TopicPartition { topic, partition } in hanging.take_in(&stable, &log, Instant::now()) {
            tracing::error!(%topic, %partition, "a transaction on a partition that is read here does not end, and nothing behind it is read: its producer hangs, or brokers have lost its marker; find it by kafka-transactions.sh find-hanging and end it by kafka-transactions.sh abort");
        }
        let number = i64::try_from(hanging.number()).unwrap_or(i64::MAX);
        self.metrics.hanging_transactions.set(number);
        Ok(())
    }

    /// Stops showing what was sampled long ago: nobody knows what has become of it.
    fn could_not_sample(&self, sampled: &mut Instant, fault: &KafkaFault) {
        tracing::debug!(%fault, "could not sample the ends of what is read here");
        if sampled.elapsed() > SAMPLE_AGE_MAX {
            tracing::warn!(%fault, "the consumer lag is not known: the ends of what is read here could not be sampled");
            self.metrics.consumer_lag.reset();
            self.metrics.hanging_transactions.set(0);
            *sampled = Instant::now();
        }
    }

    fn sample_cluster(&self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let instances = self.cluster.instances();
        self.metrics.instances_alive.set(number(instances.len()));
        let differing = instances.iter().filter(|instance| !instance.fits).count();
        self.metrics.instances_differing.set(number(differing));
        for problem in self.cluster.problems() {
            if is_new(&problem) {
                tracing::warn!("not ready: {problem}");
            }
        }
    }

    fn sample_disk(&self) {
        match self.stores.disk_space() {
            Ok(space) => self.metrics.set_disk_space(space),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the room on the disk is not known"
                );
            }
        }
    }

    fn sample_stores(&self) {
        let to_gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let bytes = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics
            .block_cache_bytes
            .set(bytes(self.memory.block_cache_usage_bytes()));
        self.metrics
            .block_cache_capacity_bytes
            .set(bytes(self.memory.block_cache_capacity_bytes()));
        self.metrics
            .write_buffer_bytes
            .set(bytes(self.memory.write_buffer_usage_bytes()));
        let mut sizes: BTreeMap<&str, (u64, u64, bool)> = BTreeMap::new();
        let running = self.queries.present();
        for subtopology in &self.plan.subtopologies {
            let backends = running
                .iter()
                .filter(|(task, _)| task.subtopology == subtopology.id);
            let stats: Vec<_> = backends
                .filter_map(|(_, backend)| backend.stats().ok())
                .collect();
            for (id, store) in subtopology.stores_by_id() {
                let timers = matches!(store.kind, PlanStoreKind::TimerRows(_));
                let size = sizes.entry(&store.name).or_insert((0, 0, timers));
                for of_store in stats.iter().filter_map(|stats| stats.get(id.index())) {
                    size.0 += of_store.keys;
                    size.1 += of_store.bytes;
                }
            }
        }
        for (name, (keys, size, timers)) in sizes {
            self.metrics
                .store_keys
                .with_label_values(&[name])
                .set(to_gauge(keys));
            self.metrics
                .store_bytes
                .with_label_values(&[name])
                .set(to_gauge(size));
            if timers {
                self.metrics
                    .timers_pending
                    .with_label_values(&[name])
                    .set(to_gauge(keys));
            }
        }
    }
}
