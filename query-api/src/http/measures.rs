//! What the process counts and times outside the engine: HTTP, and itself.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// Upper bounds of latencies, in seconds.
const SECONDS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The metrics of the process and of its HTTP API.
pub struct Measures {
    ready: IntGauge,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    in_flight: IntGauge,
    refused: IntCounterVec,
    open_connections: IntGauge,
    commands: IntCounterVec,
    command_seconds: HistogramVec,
}

impl Measures {
    /// Metrics in `registry`, of the instance with this id.
    ///
    /// # Errors
    ///
    /// When the registry already has metrics with the same names.
    pub fn new(registry: &Registry, instance_id: &str) -> Result<Self, prometheus::Error> {
        let histogram = |name, help, labels: &[&str]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(SECONDS.to_vec()),
                labels,
            )
        };
        let build = IntGaugeVec::new(
            Opts::new(
                "ticketing_build_info",
                "1, and what the binary was built from; and the INSTANCE_ID, which the address that is scraped need not tell",
            ),
            &["version", "revision", "instance_id"],
        )?;
        let revision = option_env!("TICKETING_REVISION").unwrap_or("unknown");
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision, instance_id])
            .set(1);
        registry.register(Box::new(build))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let measures = Self {
            ready: IntGauge::new(
                "ticketing_ready",
                "1 if every task that the instance owns runs, else 0",
            )?,
            requests: IntCounterVec::new(
                Opts::new(
                    "ticketing_http_requests_total",
                    "HTTP requests that were answered, or given up by their clients before that (status 499)",
                ),
                &["method", "route", "status"],
            )?,
            request_seconds: histogram(
                "ticketing_http_request_duration_seconds",
                "Time from a request's head to its answer's, or until its client gave up",
                &["method", "route"],
            )?,
            in_flight: IntGauge::new(
                "ticketing_http_requests_in_flight",
                "HTTP requests that are being answered",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "ticketing_http_refused_total",
                    "Requests that were turned away as there were too many, by what there was too much of",
                ),
                &["reason"],
            )?,
            open_connections: IntGauge::new(
                "ticketing_http_connections_open",
                "Connections that are open, those of other instances and probes included",
            )?,
            commands: IntCounterVec::new(
                Opts::new(
                    "ticketing_commands_total",
                    "Commands over HTTP by outcome; abandoned: the client gave up before there was one",
                ),
                &["command", "result"],
            )?,
            command_seconds: histogram(
                "ticketing_command_duration_seconds",
                "Time from a command's arrival to its outcome, or until its client gave up",
                &["command"],
            )?,
        };
        registry.register(Box::new(measures.ready.clone()))?;
        registry.register(Box::new(measures.requests.clone()))?;
        registry.register(Box::new(measures.request_seconds.clone()))?;
        registry.register(Box::new(measures.in_flight.clone()))?;
        registry.register(Box::new(measures.refused.clone()))?;
        registry.register(Box::new(measures.open_connections.clone()))?;
        registry.register(Box::new(measures.commands.clone()))?;
        registry.register(Box::new(measures.command_seconds.clone()))?;
        // From the start: Prometheus sees no increase from nothing to 1.
        for reason in [Refused::Requests, Refused::Connections, Refused::Streams] {
            measures.refused.with_label_values(&[reason.name()]);
        }
        Ok(measures)
    }

    /// Notes whether the instance is ready, for whoever reads the metrics now.
    pub(super) fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    /// Counts and times a request, by its method and the route that it matched; `found`
    /// is what was looked up for that route before.
    pub(super) fn request(
        &self,
        found: &RouteMeasures,
        (method, route): (&str, &str),
        status: u16,
        took: Duration,
    ) {
        let found = found.0.get_or_init(|| Found {
            method: method.to_owned(),
            route: route.to_owned(),
            answers: RwLock::default(),
            seconds: self.seconds_of(method, route),
        });
        if found.method == method && found.route == route {
            found.answered(status, || self.requests_of(method, route, status));
            found.seconds.observe(took.as_secs_f64());
        } else {
            self.requests_of(method, route, status).inc();
            self.seconds_of(method, route).observe(took.as_secs_f64());
        }
    }

    fn requests_of(&self, method: &str, route: &str, status: u16) -> IntCounter {
        let status = status.to_string();
        self.requests.with_label_values(&[method, route, &status])
    }

    fn seconds_of(&self, method: &str, route: &str) -> Histogram {
        self.request_seconds.with_label_values(&[method, route])
    }

    /// Times a command, and counts it with its result, or as abandoned if the guard is dropped.
    pub(super) fn command(&self, name: &'static str) -> Undecided<'_> {
        Undecided {
            measures: self,
            name,
            begun: Instant::now(),
            result: "abandoned",
        }
    }

    /// Counts a request that is turned away.
    pub(super) fn refused(&self, reason: Refused) {
        self.refused.with_label_values(&[reason.name()]).inc();
    }

    /// The number of open connections; whoever accepts connections updates it.
    pub(super) fn open_connections(&self) -> IntGauge {
        self.open_connections.clone()
    }

    /// Counts a request as in flight until the guard is dropped, be it answered or abandoned.
    pub(super) fn in_flight(&self) -> InFlight<'_> {
        self.in_flight.inc();
        InFlight(&self.in_flight)
    }
}

/// A command that is being decided.
pub(super) struct Undecided<'m> {
    measures: &'m Measures,
    name: &'static str,
    begun: Instant,
    result: &'static str,
}

impl Undecided<'_> {
    /// It is decided, or will not be.
    pub(super) fn end(mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        let (name, took) = (self.name, self.begun.elapsed());
        let Measures {
            commands,
            command_seconds,
            ..
        } = self.measures;
        commands.with_label_values(&[name, self.result]).inc();
        command_seconds
            .with_label_values(&[name])
            .observe(took.as_secs_f64());
    }
}

/// The metrics of the requests that one handler answers: looked up by their labels once, not
/// for each request. They are those of the first request that it answered; if a request
/// differs in method or route (one handler answers all that match none), they are looked up anew.
#[derive(Default)]
pub(super) struct RouteMeasures(OnceLock<Found>);

struct Found {
    method: String,
    route: String,
    /// By status: there are only a few.
    answers: RwLock<Vec<(u16, IntCounter)>>,
    seconds: Histogram,
}

impl Found {
    fn answered(&self, status: u16, find: impl FnOnce() -> IntCounter) {
        let counted = self.answers.read().iter().find_map(|(of, counter)| {
            let is_it = *of == status;
            is_it.then(|| counter.inc())
        });
        if counted.is_none() {
            let counter = find();
            counter.inc();
            // If two get here at once, the counter is in the list twice, and either one counts.
            self.answers.write().push((status, counter));
        }
    }
}

/// What there are too many of when a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// `MAX_REQUESTS` are being answered.
    Requests,
    /// `MAX_CONNECTIONS` are open.
    Connections,
    /// So many requests of one HTTP/2 connection are under way, or their answers not sent.
    Streams,
}

impl Refused {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Connections => "connections",
            Self::Streams => "streams",
        }
    }
}

/// A request that is being answered.
pub(super) struct InFlight<'m>(&'m IntGauge);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_whatever_the_route_was_asked_first() {
        let registry = Registry::new();
        let measures = Measures::new(&registry, "a").unwrap();
        let found = RouteMeasures::default();
        for (method, route, status) in [
            ("GET", "/a", 503),
            ("GET", "/a", 200),
            ("HEAD", "/a", 200),
            ("GET", "none", 404),
            ("GET", "/a", 200),
        ] {
            measures.request(&found, (method, route), status, Duration::from_millis(1));
        }
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "requests_total{method=\"GET\",route=\"/a\",status=\"503\"} 1",
            "requests_total{method=\"GET\",route=\"/a\",status=\"200\"} 2",
            "requests_total{method=\"HEAD\",route=\"/a\",status=\"200\"} 1",
            "requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
            "request_duration_seconds_count{method=\"GET\",route=\"/a\"} 3",
            "request_duration_seconds_count{method=\"HEAD\",route=\"/a\"} 1",
            "request_duration_seconds_count{method=\"GET\",route=\"none\"} 1",
            "refused_total{reason=\"requests\"} 0",
            "refused_total{reason=\"connections\"} 0",
            "refused_total{reason=\"streams\"} 0",
        ] {
            let line = format!("ticketing_http_{line}");
            assert!(
                text.lines().any(|found| found == line),
                "{line} is in\n{text}"
            );
        }
    }
}
