//! Metrics of what instances ask each other.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// The metrics of the traffic between instances; cheap to clone.
#[derive(Clone)]
pub struct PeerMeasures {
    sent: IntCounterVec,
    sent_seconds: Histogram,
    received: IntCounterVec,
    received_seconds: Histogram,
    standby_reads: IntCounter,
}

impl PeerMeasures {
    /// Metrics in `registry`.
    ///
    /// # Errors
    ///
    /// When the registry already has metrics with the same names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name, help| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        };
        let measures = Self {
            sent: IntCounterVec::new(
                Opts::new(
                    "ticketing_peer_requests_sent_total",
                    "Reads that other instances were asked for, by result",
                ),
                &["result"],
            )?,
            sent_seconds: histogram(
                "ticketing_peer_requests_sent_duration_seconds",
                "Time until another instance answered a read that does not wait for a change",
            )?,
            received: IntCounterVec::new(
                Opts::new(
                    "ticketing_peer_requests_received_total",
                    "Reads that other instances asked for, by result",
                ),
                &["result"],
            )?,
            received_seconds: histogram(
                "ticketing_peer_requests_received_duration_seconds",
                "Time to answer a read of another instance that does not wait for a change",
            )?,
            standby_reads: IntCounter::new(
                "ticketing_standby_reads_total",
                "Reads that were answered from a standby, here or elsewhere",
            )?,
        };
        registry.register(Box::new(measures.sent.clone()))?;
        registry.register(Box::new(measures.sent_seconds.clone()))?;
        registry.register(Box::new(measures.received.clone()))?;
        registry.register(Box::new(measures.received_seconds.clone()))?;
        registry.register(Box::new(measures.standby_reads.clone()))?;
        Ok(measures)
    }

    /// Counts a read that another instance was asked for.
    pub(crate) fn sent(&self, result: &str, took: Option<Duration>) {
        self.sent.with_label_values(&[result]).inc();
        if let Some(took) = took {
            self.sent_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a read that another instance asked for.
    pub(crate) fn received(&self, result: &str, took: Option<Duration>) {
        self.received.with_label_values(&[result]).inc();
        if let Some(took) = took {
            self.received_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a read that a standby answered.
    pub(crate) fn standby_read(&self) {
        self.standby_reads.inc();
    }
}
