//! The engine's metrics, in the caller's Prometheus registry.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use turnstile_state::DiskSpace;

use super::transactions::Transaction;
use super::{ChangelogRestoration, RestoreListener};
use crate::task::Processed;
use crate::{Offset, TaskId, TaskStatus};

/// The engine's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    processed: IntCounterVec,
    dropped: IntCounterVec,
    rekeyed: IntCounterVec,
    dead_letters: IntCounterVec,
    pub(crate) process_latency: Histogram,
    commit_latency: HistogramVec,
    pub(crate) end_to_end_latency: Histogram,
    commits: IntCounterVec,
    aborted: IntCounterVec,
    pub(crate) rejoins: IntCounterVec,
    pub(crate) consumer_lag: IntGaugeVec,
    pub(crate) hanging_transactions: IntGauge,
    tasks: IntGaugeVec,
    restored: IntCounterVec,
    restore_remaining: IntGaugeVec,
    pub(crate) timers_pending: IntGaugeVec,
    timers_fired: IntCounterVec,
    timer_lateness: Histogram,
    timer_overdue: IntGauge,
    pub(crate) store_keys: IntGaugeVec,
    pub(crate) store_bytes: IntGaugeVec,
    pub(crate) block_cache_bytes: IntGauge,
    pub(crate) block_cache_capacity_bytes: IntGauge,
    pub(crate) write_buffer_bytes: IntGauge,
    disk: DiskGauges,
    misfits: IntGauge,
    standby_records: IntCounterVec,
    pub(crate) standby_behind: IntGaugeVec,
    pub(crate) instances_alive: IntGauge,
    pub(crate) instances_differing: IntGauge,
}

/// From 50 µs to 10 s.
const LATENCIES_S: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];
/// Of commits: the alert `CommitsSlow` begins at 2 s, and a quantile interpolated within a wide
/// bucket would raise it for less; a commit is given up after 10 s and the commit interval.
const COMMITS_S: [f64; 15] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0,
];
/// Of what waits for as long as an instance or brokers are away: the alert `TimersLate` begins
/// at 5 s.
const DELAYS_S: [f64; 18] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 1800.0,
];

fn latency_opts(name: &str, help: &str, buckets_s: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(buckets_s.to_vec())
}

struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn add<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::new(name, help)?)
    }

    fn latency(
        &self,
        name: &str,
        help: &str,
        buckets_s: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        self.add(Histogram::with_opts(latency_opts(name, help, buckets_s))?)
    }

    fn latencies(
        &self,
        name: &str,
        help: &str,
        buckets_s: &[f64],
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let opts = latency_opts(name, help, buckets_s);
        self.add(HistogramVec::new(opts, labels)?)
    }
}

fn aborted(add: &Registrar<'_>) -> Result<IntCounterVec, prometheus::Error> {
    let aborted = add.counters(
        "turnstile_transactions_aborted_total",
        "Transactions that were dropped with what tasks had done in them, by transaction of a stream thread.",
        &["transaction"],
    )?;
    // From the start: to Prometheus, going from nothing to 1 is not an increase.
    for transaction in Transaction::ANY {
        aborted.with_label_values(&[transaction.name()]);
    }
    Ok(aborted)
}

/// The file system of the state directory.
#[derive(Clone)]
struct DiskGauges {
    free_bytes: IntGauge,
    size_bytes: IntGauge,
}

impl DiskGauges {
    fn new(add: &Registrar<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            free_bytes: add.gauge(
                "turnstile_state_dir_free_bytes",
                "Bytes that can still be written to the file system of the state directory.",
            )?,
            size_bytes: add.gauge(
                "turnstile_state_dir_size_bytes",
                "Bytes of the file system of the state directory.",
            )?,
        })
    }
}

impl Metrics {
    /// Registers the engine's metrics.
    ///
    /// # Errors
    ///
    /// When the registry already has metrics with these names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let add = Registrar(registry);
        let by_source = ["subtopology", "topic"];
        Ok(Self {
            processed: add.counters("turnstile_records_processed_total", "Records that processors handled.", &by_source)?,
            dropped: add.counters(
                "turnstile_records_dropped_total",
                "Records that are nothing for this application, by reason.",
                &["subtopology", "topic", "reason"],
            )?,
            rekeyed: add.counters(
                "turnstile_records_rekeyed_total",
                "Records that went to the partition of their id.",
                &by_source,
            )?,
            dead_letters: add.counters(
                "turnstile_records_dead_lettered_total",
                "Records that became dead letters, by reason.",
                &["subtopology", "topic", "reason"],
            )?,
            process_latency: add.latency("turnstile_process_latency_seconds", "Time to process one record, in all tasks that read it.", &LATENCIES_S)?,
            commit_latency: add.latencies("turnstile_commit_latency_seconds", "Time of one commit, by transaction of a stream thread.", &COMMITS_S, &["transaction"])?,
            end_to_end_latency: add.latency(
                "turnstile_end_to_end_latency_seconds",
                "From a record's timestamp to the end of its processing.",
                &DELAYS_S,
            )?,
            commits: add.counters(
                "turnstile_commits_total",
                "Committed transactions, by transaction of a stream thread.",
                &["transaction"],
            )?,
            aborted: aborted(&add)?,
            rejoins: add.counters(
                "turnstile_rejoins_total",
                "Times a stream thread dropped its tasks and joined anew, by reason.",
                &["reason"],
            )?,
            consumer_lag: add.gauges(
                "turnstile_consumer_lag_records",
                "Committed records that the group has not passed yet, on partitions owned here.",
                &["group", "topic", "partition"],
            )?,
            hanging_transactions: add.gauge(
                "turnstile_hanging_transactions",
                "Partitions read here on which a transaction has been pending for longer than a minute.",
            )?,
            tasks: add.gauges("turnstile_tasks", "Tasks of this instance by state.", &["state"])?,
            restored: add.counters(
                "turnstile_restored_records_total",
                "Changelog records applied to stores.",
                &["subtopology"],
            )?,
            restore_remaining: add.gauges(
                "turnstile_restore_remaining_records",
                "Offsets that the stores of a restoring task are behind the end of their changelog, those of other tasks included.",
                &["task"],
            )?,
            timers_pending: add.gauges("turnstile_timers_pending", "Timers pending, estimated.", &["timers"])?,
            timers_fired: add.counters("turnstile_timers_fired_total", "Timers fired, in transactions that were committed.", &["subtopology"])?,
            timer_lateness: add.latency(
                "turnstile_timer_lateness_seconds",
                "From a timer's deadline to its firing.",
                &DELAYS_S,
            )?,
            timer_overdue: add.gauge(
                "turnstile_timer_overdue_seconds",
                "For how long the timer, or punctuator of the wall clock, that is due here longest has been due without being fired.",
            )?,
            store_keys: add.gauges("turnstile_store_keys", "Keys of a store, estimated.", &["store"])?,
            store_bytes: add.gauges("turnstile_store_bytes", "Bytes of a store on disk and in buffers, estimated.", &["store"])?,
            block_cache_bytes: add.gauge("turnstile_rocksdb_block_cache_bytes", "Blocks of files in memory, with their indexes and filters.")?,
            block_cache_capacity_bytes: add.gauge(
                "turnstile_rocksdb_block_cache_capacity_bytes",
                "What these may take.",
            )?,
            write_buffer_bytes: add.gauge("turnstile_rocksdb_write_buffer_bytes", "Writes in memory that are not on disk yet.")?,
            disk: DiskGauges::new(&add)?,
            misfits: add.gauge(
                "turnstile_tasks_held_in_part",
                "Tasks whose partition some but not all groups have assigned here for longer than a session.",
            )?,
            standby_records: add.counters(
                "turnstile_standby_records_total",
                "Changelog records applied to the stores of standbys.",
                &["subtopology"],
            )?,
            standby_behind: add.gauges(
                "turnstile_standby_behind_records",
                "Offsets that a standby kept here is behind the end of its changelog, those of other tasks included.",
                &["task"],
            )?,
            instances_alive: add.gauge(
                "turnstile_instances_alive",
                "Instances of the application that this one has heard of within their session time-out, itself included.",
            )?,
            instances_differing: add.gauge(
                "turnstile_instances_differing",
                "Of the instances that are alive: those that run another topology than this one.",
            )?,
        })
    }

    /// How far a standby is behind.
    pub(crate) fn set_standby(&self, task: TaskId, behind: u64) {
        let behind = i64::try_from(behind).unwrap_or(i64::MAX);
        self.standby_behind
            .with_label_values(&[&task.to_string()])
            .set(behind);
    }

    /// Counts records that were applied to the stores of a standby.
    pub(crate) fn count_standby_records(&self, task: TaskId, records: u64) {
        self.standby_records
            .with_label_values(&[&task.subtopology.to_string()])
            .inc_by(records);
    }

    /// A standby is no longer kept here.
    pub(crate) fn forget_standby(&self, task: TaskId) {
        // It has no label values when it was never sampled.
        self.standby_behind
            .remove_label_values(&[&task.to_string()])
            .ok();
    }

    /// Counts the outcome of a record.
    pub(crate) fn count(&self, subtopology: &str, topic: &str, processed: Processed, times: u64) {
        match processed {
            Processed::Done => self
                .processed
                .with_label_values(&[subtopology, topic])
                .inc_by(times),
            Processed::Rekeyed => self
                .rekeyed
                .with_label_values(&[subtopology, topic])
                .inc_by(times),
            Processed::Skipped(reason) => {
                self.dropped
                    .with_label_values(&[subtopology, topic, reason])
                    .inc_by(times);
            }
            Processed::DeadLettered(reason) => {
                self.dead_letters
                    .with_label_values(&[subtopology, topic, reason])
                    .inc_by(times);
            }
        }
    }

    pub(crate) fn set_tasks(&self, count: impl Fn(TaskStatus) -> usize) {
        for status in TaskStatus::ALL {
            self.tasks
                .with_label_values(&[status.name()])
                .set(i64::try_from(count(status)).unwrap_or(i64::MAX));
        }
    }

    /// How many tasks all threads together have held in part for longer than a session.
    pub(crate) fn set_misfits(&self, tasks: usize) {
        self.misfits.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    /// A transaction is committed and stored, and took this long.
    pub(crate) fn committed(&self, transaction: Transaction, took: Duration) {
        let label = [transaction.name()];
        self.commits.with_label_values(&label).inc();
        let latency = self.commit_latency.with_label_values(&label);
        latency.observe(took.as_secs_f64());
    }

    /// A transaction is aborted, with what tasks have done in it.
    pub(crate) fn count_aborted(&self, transaction: Transaction) {
        self.aborted.with_label_values(&[transaction.name()]).inc();
    }

    /// How much room there is for state.
    pub(crate) fn set_disk_space(&self, space: DiskSpace) {
        let to_gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.disk.free_bytes.set(to_gauge(space.free_bytes));
        self.disk.size_bytes.set(to_gauge(space.size_bytes));
    }

    /// How long ago the most overdue timer was due.
    pub(crate) fn set_overdue(&self, overdue: Duration) {
        let seconds = i64::try_from(overdue.as_secs()).unwrap_or(i64::MAX);
        self.timer_overdue.set(seconds);
    }

    /// Counts the timers that a transaction has fired, with how late each was.
    pub(crate) fn count_timers(&self, subtopology: &str, latenesses: &[Duration]) {
        if latenesses.is_empty() {
            return;
        }
        let fired = u64::try_from(latenesses.len()).unwrap_or(u64::MAX);
        self.timers_fired
            .with_label_values(&[subtopology])
            .inc_by(fired);
        for lateness in latenesses {
            self.timer_lateness.observe(lateness.as_secs_f64());
        }
    }
}

impl Metrics {
    fn remaining_of(&self, of: &ChangelogRestoration) -> IntGauge {
        self.restore_remaining
            .with_label_values(&[&of.task.to_string()])
    }
}

/// How far stores are behind the ends of their changelog.
impl RestoreListener for Metrics {
    fn on_restore_start(&self, of: &ChangelogRestoration) {
        self.on_batch_restored(of, of.start, 0);
    }

    fn on_batch_restored(&self, of: &ChangelogRestoration, reached: Offset, records: u64) {
        self.restored
            .with_label_values(&[&of.task.subtopology.to_string()])
            .inc_by(records);
        self.remaining_of(of)
            .set(of.end.0.saturating_sub(reached.0).max(0));
    }

    fn on_restore_end(&self, of: &ChangelogRestoration, _total: u64) {
        self.remaining_of(of).set(0);
    }

    fn on_restore_suspended(&self, of: &ChangelogRestoration, _total: u64) {
        // It is no longer restored here; an old number would suggest that it is.
        self.remaining_of(of).set(0);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn shown(registry: &Registry) -> String {
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    /// A quantile is interpolated within a bucket: if an alert's threshold lies within one, the
    /// alert fires for values below it.
    #[test]
    fn the_thresholds_of_alerts_are_bounds_of_buckets() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.committed(Transaction::Records, Duration::from_millis(1_100));
        metrics.count_timers("0", &[Duration::from_secs(4)]);
        let shown = shown(&registry);
        for line in [
            "turnstile_commit_latency_seconds_bucket{transaction=\"records\",le=\"1\"} 0",
            "turnstile_commit_latency_seconds_bucket{transaction=\"records\",le=\"2\"} 1",
            "turnstile_timer_lateness_seconds_bucket{le=\"2.5\"} 0",
            "turnstile_timer_lateness_seconds_bucket{le=\"5\"} 1",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
        }
    }

    /// What takes longer than the last bound is shown as the last bound.
    #[test]
    fn a_commit_that_is_given_up_and_a_timer_that_is_half_an_hour_late_are_told_from_shorter_ones()
    {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.committed(Transaction::Timers, Duration::from_millis(10_100));
        metrics.count_timers("0", &[Duration::from_secs(29 * 60)]);
        metrics.end_to_end_latency.observe(299.0);
        let shown = shown(&registry);
        for line in [
            "turnstile_commit_latency_seconds_bucket{transaction=\"timers\",le=\"10\"} 0",
            "turnstile_commit_latency_seconds_bucket{transaction=\"timers\",le=\"20\"} 1",
            "turnstile_timer_lateness_seconds_bucket{le=\"300\"} 0",
            "turnstile_timer_lateness_seconds_bucket{le=\"1800\"} 1",
            "turnstile_end_to_end_latency_seconds_bucket{le=\"60\"} 0",
            "turnstile_end_to_end_latency_seconds_bucket{le=\"300\"} 1",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
        }
    }

    #[test]
    fn transactions_that_are_dropped_are_counted_from_nought() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let counted = |transaction: &str, times: u32| {
            let line = format!(
                "turnstile_transactions_aborted_total{{transaction=\"{transaction}\"}} {times}"
            );
            assert!(
                shown(&registry).lines().any(|found| found == line),
                "{line}"
            );
        };
        counted("records", 0);
        counted("timers", 0);
        metrics.count_aborted(Transaction::Timers);
        counted("records", 0);
        counted("timers", 1);
    }

    #[test]
    fn a_disk_shows_how_much_of_it_is_free() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.set_disk_space(DiskSpace {
            free_bytes: 7,
            size_bytes: 9,
        });
        let shown = shown(&registry);
        for line in [
            "turnstile_state_dir_free_bytes 7",
            "turnstile_state_dir_size_bytes 9",
        ] {
            assert!(shown.lines().any(|found| found == line), "{line}:\n{shown}");
        }
    }
}
