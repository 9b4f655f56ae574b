//! Limits how much is logged about requests that fail. If everything fails, thousands do so every
//! second, and a log with limits of its own then drops the lines that tell the cause. So only the
//! first few failures of each kind are logged, and later how many were not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The most failures of a kind that are logged in a period.
const LINES_MAX: u64 = 10;
/// The length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// Failures that are logged alike. There are no more kinds than routes times problems.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FailureKind {
    pub(super) method: &'static str,
    pub(super) route: String,
    pub(super) status: u16,
    /// The last part of the type of the problem, if it is one.
    pub(super) problem: Option<&'static str>,
}

/// A period of failures of a kind, which began with the first of them.
struct Period {
    begun: Instant,
    failures: u64,
}

/// What has failed recently.
#[derive(Default)]
pub(super) struct FailureLog(Mutex<BTreeMap<FailureKind, Period>>);

impl FailureLog {
    /// Whether a request that fails now is to be logged.
    pub(super) fn admits(&self, kind: FailureKind, now: Instant) -> bool {
        let mut periods = self.0.lock();
        let period = periods.entry(kind).or_insert(Period {
            begun: now,
            failures: 0,
        });
        period.failures += 1;
        period.failures <= LINES_MAX
    }

    /// Ends the periods that are over; returns how many failures were not logged in them.
    pub(super) fn left_out(&self, now: Instant) -> Vec<(FailureKind, u64)> {
        let mut left_out = Vec::new();
        self.0.lock().retain(|kind, period| {
            let goes_on = now.saturating_duration_since(period.begun) < PERIOD;
            if !goes_on && period.failures > LINES_MAX {
                left_out.push((kind.clone(), period.failures - LINES_MAX));
            }
            goes_on
        });
        left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(route: &str, problem: &'static str) -> FailureKind {
        FailureKind {
            method: "GET",
            route: route.to_owned(),
            status: 503,
            problem: Some(problem),
        }
    }

    #[test]
    fn of_each_kind_a_few_are_logged_and_then_how_many_were_not() {
        let (log, begun) = (FailureLog::default(), Instant::now());
        let later = |seconds| begun + Duration::from_secs(seconds);
        let many = kind("/api/orders", "unavailable");
        let logged = (0..5_000)
            .filter(|_| log.admits(many.clone(), begun))
            .count();
        assert_eq!(logged, 10);
        // It does not hide others.
        for other in [
            kind("/api/tickets", "unavailable"),
            kind("/api/orders", "overloaded"),
        ] {
            assert!(log.admits(other, begun));
        }
        assert_eq!(log.left_out(later(9)), []);
        assert_eq!(log.left_out(later(10)), [(many.clone(), 4_990)]);
        // It is reported once, and the next period begins with the next failure.
        assert_eq!(log.left_out(later(11)), []);
        assert!(log.admits(many, later(30)));
        assert_eq!(log.left_out(later(39)), []);
        assert_eq!(log.left_out(later(40)), []);
    }
}
