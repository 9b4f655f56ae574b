//! What HTTP counts and times.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The metrics of the HTTP API.
pub struct Measures {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    in_flight: IntGauge,
    commands: IntCounterVec,
    command_seconds: HistogramVec,
}

impl Measures {
    /// Metrics that `registry` shows.
    ///
    /// # Errors
    ///
    /// When the registry has metrics of the same names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(SECONDS.to_vec()),
                labels,
            )
        };
        let measures = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "ticketing_http_requests_total",
                    "HTTP requests that were answered",
                ),
                &["method", "route", "status"],
            )?,
            request_seconds: histogram(
                "ticketing_http_request_duration_seconds",
                "Time from a request's head to its answer's",
                &["method", "route"],
            )?,
            in_flight: IntGauge::new(
                "ticketing_http_requests_in_flight",
                "HTTP requests that are being answered",
            )?,
            commands: IntCounterVec::new(
                Opts::new("ticketing_commands_total", "Commands over HTTP by outcome"),
                &["command", "result"],
            )?,
            command_seconds: histogram(
                "ticketing_command_duration_seconds",
                "Time from a command's arrival to its outcome",
                &["command"],
            )?,
        };
        registry.register(Box::new(measures.requests.clone()))?;
        registry.register(Box::new(measures.request_seconds.clone()))?;
        registry.register(Box::new(measures.in_flight.clone()))?;
        registry.register(Box::new(measures.commands.clone()))?;
        registry.register(Box::new(measures.command_seconds.clone()))?;
        Ok(measures)
    }

    pub(super) fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        self.requests
            .with_label_values(&[method, route, &status.to_string()])
            .inc();
        self.request_seconds
            .with_label_values(&[method, route])
            .observe(took.as_secs_f64());
    }

    pub(super) fn command(&self, command: &str, result: &str, took: Duration) {
        self.commands.with_label_values(&[command, result]).inc();
        self.command_seconds
            .with_label_values(&[command])
            .observe(took.as_secs_f64());
    }

    /// Counts a request as in flight until the guard is dropped, answered or given up.
    pub(super) fn in_flight(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

/// A request that is being answered.
pub(super) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
