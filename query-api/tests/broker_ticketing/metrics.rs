//! What `/metrics` shows.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::broker::{Broker, PARTITIONS};
use crate::eventually;
use crate::flow::{order, ticket};
use crate::instance::{Instance, Launch};
use crate::record::text;

/// The families that operators build on, with their types.
const FAMILIES: [(&str, &str); 39] = [
    ("turnstile_records_processed_total", "counter"),
    ("turnstile_records_dropped_total", "counter"),
    ("turnstile_records_dead_lettered_total", "counter"),
    ("turnstile_records_rekeyed_total", "counter"),
    ("turnstile_process_latency_seconds", "histogram"),
    ("turnstile_commit_latency_seconds", "histogram"),
    ("turnstile_end_to_end_latency_seconds", "histogram"),
    ("turnstile_commits_total", "counter"),
    ("turnstile_transactions_aborted_total", "counter"),
    ("turnstile_consumer_lag_records", "gauge"),
    ("turnstile_tasks", "gauge"),
    ("turnstile_tasks_held_in_part", "gauge"),
    ("turnstile_restored_records_total", "counter"),
    ("turnstile_restore_remaining_records", "gauge"),
    ("turnstile_timers_pending", "gauge"),
    ("turnstile_timers_fired_total", "counter"),
    ("turnstile_timer_lateness_seconds", "histogram"),
    ("turnstile_timer_overdue_seconds", "gauge"),
    ("turnstile_hanging_transactions", "gauge"),
    ("turnstile_store_keys", "gauge"),
    ("turnstile_store_bytes", "gauge"),
    ("turnstile_rocksdb_block_cache_bytes", "gauge"),
    ("turnstile_rocksdb_block_cache_capacity_bytes", "gauge"),
    ("turnstile_rocksdb_write_buffer_bytes", "gauge"),
    ("turnstile_state_dir_free_bytes", "gauge"),
    ("turnstile_state_dir_size_bytes", "gauge"),
    ("ticketing_ready", "gauge"),
    ("ticketing_build_info", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("ticketing_http_requests_total", "counter"),
    ("ticketing_http_request_duration_seconds", "histogram"),
    ("ticketing_http_requests_in_flight", "gauge"),
    ("ticketing_http_refused_total", "counter"),
    ("ticketing_http_connections_open", "gauge"),
    ("ticketing_commands_total", "counter"),
    ("ticketing_command_duration_seconds", "histogram"),
];

/// The samples of an instance, each under its name with labels.
pub(crate) struct Samples {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Samples {
    pub(crate) fn of(instance: &Instance) -> Self {
        let answer = instance.client().get("/metrics");
        answer.ok(200);
        Self::parse(&answer.text)
    }

    /// Reads the text format, and refuses what is not.
    fn parse(metrics: &str) -> Self {
        let (mut types, mut values) = (BTreeMap::new(), BTreeMap::new());
        for line in metrics.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                if let Some((name, kind)) = comment
                    .strip_prefix("TYPE ")
                    .and_then(|rest| rest.split_once(' '))
                {
                    let twice = types.insert(name.to_owned(), kind.to_owned());
                    assert_eq!(twice, None, "{name} comes twice");
                }
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            let value = value.parse().expect("a sample is a number");
            let twice = values.insert(name.to_owned(), value);
            assert_eq!(twice, None, "{name} comes twice");
        }
        Self { types, values }
    }

    /// The sum of the samples of this name whose labels contain all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let mine = self.values.iter().filter(|(sample, _)| {
            let (family, of) = sample.split_once('{').unwrap_or((sample, ""));
            family == name && labels.iter().all(|label| of.contains(label))
        });
        mine.map(|(_, value)| value).sum()
    }
}

#[test]
fn the_metrics_tell_what_happened() {
    let broker = Broker::take();
    let launch = || Launch::new(&broker, "a").set("ORDER_TTL", "2s");
    // A restart without state, so that something is restored.
    let instance = launch().start();
    ticket(&instance.user("seller"), "Before");
    broker.drain();
    instance.kill();
    crate::instance::lose_state(&broker, "a");
    let instance = launch().start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    let paid = order(&buyer, &ticket(&seller, "Concert"));
    let pay = json!({"orderId": text(&paid, "id"), "token": "tok_visa"});
    buyer.post("/api/payments", &pay).ok(201);
    order(&buyer, &ticket(&seller, "To expire"));
    broker.append("orders", None, None, Some(b"nonsense"));
    let foreign = br#"{"type": "expiration.expired", "orderId": "foreign"}"#;
    for partition in 0..PARTITIONS {
        broker.append("expiration", Some(partition), None, Some(foreign));
    }
    broker.append("orders", None, None, Some(b"{\"type\": \"something.new\"}"));
    broker.flush();

    let mut last = String::new();
    let samples = eventually("the metrics show what was done", || {
        let samples = Samples::of(&instance);
        let sum = |name: &str, labels: &[&str]| samples.sum(name, labels);
        let now = [
            (
                "a command",
                sum(
                    "ticketing_commands_total",
                    &["command=\"payment.create\"", "result=\"ok\""],
                ) == 1.0,
            ),
            (
                "requests",
                sum(
                    "ticketing_http_requests_total",
                    &["method=\"POST\"", "status=\"201\""],
                ) == 5.0,
            ),
            (
                "a dead letter",
                sum(
                    "turnstile_records_dead_lettered_total",
                    &["topic=\"orders\"", "reason=\"not_json\""],
                ) == 1.0,
            ),
            (
                "unknown types",
                sum(
                    "turnstile_records_dropped_total",
                    &["topic=\"orders\"", "reason=\"unknown_type\""],
                ) >= 1.0,
            ),
            ("a timer", sum("turnstile_timers_fired_total", &[]) >= 1.0),
            (
                "its lateness",
                sum("turnstile_timer_lateness_seconds_count", &[]) >= 1.0,
            ),
            (
                "processed",
                sum("turnstile_records_processed_total", &["topic=\"tickets\""]) >= 4.0,
            ),
            (
                "restored",
                sum("turnstile_restored_records_total", &[]) >= 2.0,
            ),
            (
                "running tasks",
                sum("turnstile_tasks", &["state=\"running\""]) == running(&instance),
            ),
            ("lag", sum("turnstile_consumer_lag_records", &[]) == 0.0),
            ("stores", sum("turnstile_store_keys", &[]) > 0.0),
            (
                "latency",
                sum("turnstile_end_to_end_latency_seconds_count", &[]) > 0.0,
            ),
        ];
        let missing: Vec<_> = now
            .iter()
            .filter(|(_, is)| !is)
            .map(|(what, _)| *what)
            .collect();
        let said = format!("missing: {missing:?}");
        if said != last {
            println!("{said}");
            last = said;
        }
        missing.is_empty().then_some(samples)
    });
    for (family, kind) in FAMILIES {
        assert_eq!(
            samples.types.get(family).map(String::as_str),
            Some(kind),
            "{family}"
        );
    }
    promtool(&instance.client().get("/metrics").text);
    instance.stop();
}

/// Has Prometheus' own tool look at the text: it reads it, and knows how metrics are to be
/// named and described.
fn promtool(metrics: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.expect("promtool can be run: scripts/setup prometheus installs it");
    let mut input = child.stdin.take().expect("it has an input");
    input.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert_eq!(complaints, "");
}

/// How many tasks the instance says it runs.
fn running(instance: &Instance) -> f64 {
    f64::from(u32::try_from(instance.running().len()).expect("there are few tasks"))
}
