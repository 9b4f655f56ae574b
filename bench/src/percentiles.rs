//! Percentiles of latencies.

use std::time::Duration;

use serde::Serialize;

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    p95: f64,
    pub(crate) p99: f64,
    max: f64,
}

impl Percentiles {
    /// The percentiles of at least one latency.
    pub(crate) fn of(mut latencies: Vec<Duration>) -> Option<Self> {
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        let at = |percent: usize| {
            let latency = latencies.get((latencies.len() * percent / 100).min(last));
            latency.map(|latency| latency.as_secs_f64() * 1000.0)
        };
        Some(Self {
            p50: at(50)?,
            p95: at(95)?,
            p99: at(99)?,
            max: at(100)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let latencies = (1..=200).rev().map(Duration::from_millis).collect();
        let found = Percentiles::of(latencies).unwrap();
        assert_eq!(
            (found.p50, found.p95, found.p99, found.max),
            (101.0, 191.0, 199.0, 200.0)
        );
        assert_eq!(Percentiles::of(Vec::new()), None);
    }
}
