//! One log line and a few metrics for each request. Failures are logged at `info`, unless there
//! were too many of their kind (`failure_log`); the rest, and all probes and scrapes, at `debug`.
//! A request whose client goes away before it is answered counts as a failure: if clients wait for
//! less long than this side does, nothing else shows that the API fails.
//!
//! Requests are counted by the route they matched, never by their path: ids are not labels,
//! and a stranger's paths cannot fill the memory.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;

use super::Api;
use super::failure_log::{FailureKind, FailureLog};
use super::measures::RouteMeasures;
use super::problem::FailureCause;
use crate::peers::wire::READ_PATH;

/// What counts as the status of a request that its client gave up: that of nginx.
const ABANDONED: u16 = 499;

/// The same as what went wrong.
const ABANDONMENT: FailureCause = FailureCause {
    slug: "abandoned",
    detail: None,
};

/// The route of requests that match none.
const NO_ROUTE: &str = "none";

/// What all routes of the API begin with; the others are for probes, scrapers, operators of
/// the instance, and other instances.
const API: &str = "/api/";

/// What is logged and counted of a request once it is answered or given up.
pub(super) struct Observed {
    begun: Instant,
    method: &'static str,
    matched: Option<MatchedPath>,
    uri: Uri,
}

impl Observed {
    /// A request that begins now.
    pub(super) fn begin(request: &Request) -> Self {
        Self {
            begun: Instant::now(),
            method: method_name(request.method()),
            matched: request.extensions().get().cloned(),
            uri: request.uri().clone(),
        }
    }

    fn route(&self) -> &str {
        self.matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str)
    }

    /// Whether it is to a route of the API.
    pub(super) fn is_of_api(&self) -> bool {
        self.route().starts_with(API)
    }

    /// Whether only other instances ask for it.
    pub(super) fn is_of_instances(&self) -> bool {
        self.route() == READ_PATH
    }

    /// Counts, times and logs it.
    fn end(
        &self,
        api: &Api,
        measures: &RouteMeasures,
        id: &HeaderValue,
        (status, cause): (u16, Option<&FailureCause>),
    ) {
        let (took, method, route) = (self.begun.elapsed(), self.method, self.route());
        api.measures()
            .request(measures, (method, route), status, took);
        // An instance gives up what it has found elsewhere meanwhile.
        let failed = status >= 500 || (status == ABANDONED && !self.is_of_instances());
        let is_of_callers = !is_probe_or_scrape(route);
        if failed || !is_of_callers {
            // Probes and scrapes keep coming even if nothing fails any more.
            say_left_out(&api.shared.failure_log);
        }
        let problem = cause.map(|cause| cause.slug);
        let is_logged = failed && is_of_callers && {
            let kind = FailureKind {
                method,
                route: route.to_owned(),
                status,
                problem,
            };
            api.shared.failure_log.admits(kind, Instant::now())
        };
        // Only what is logged is formatted.
        if is_logged {
            tracing::info!(
                method,
                route,
                path = self.uri.path(),
                status,
                problem,
                detail = cause.and_then(|cause| cause.detail.as_deref()),
                took_ms = rounded_ms(took),
                request_id = text(id).as_ref(),
                "request failed"
            );
        } else {
            tracing::debug!(
                method,
                route,
                path = self.uri.path(),
                status,
                problem,
                took_ms = rounded_ms(took),
                request_id = text(id).as_ref(),
                "request"
            );
        }
    }
}

/// A request that is not answered yet; its client has given up if it is dropped.
pub(super) struct Unanswered<'a> {
    pub(super) observed: &'a Observed,
    pub(super) api: &'a Api,
    pub(super) measures: &'a RouteMeasures,
    pub(super) id: &'a HeaderValue,
}

impl Unanswered<'_> {
    /// It is answered with `response`.
    pub(super) fn end(self, response: &Response) {
        let cause = response.extensions().get::<FailureCause>();
        self.note((response.status().as_u16(), cause));
        std::mem::forget(self);
    }

    fn note(&self, end: (u16, Option<&FailureCause>)) {
        self.observed.end(self.api, self.measures, self.id, end);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.note((ABANDONED, Some(&ABANDONMENT)));
    }
}

/// Logs which kinds of failures there were too many of to log.
fn say_left_out(log: &FailureLog) {
    for (of, number) in log.left_out(Instant::now()) {
        let FailureKind {
            method,
            route,
            status,
            problem,
        } = of;
        tracing::info!(
            method,
            route,
            status,
            problem,
            number,
            "more requests failed that are not in the log"
        );
    }
}

/// Probes and scrapers keep asking, also while 503 is expected, and what is wrong with the
/// instance is logged where it goes wrong.
fn is_probe_or_scrape(route: &str) -> bool {
    route.starts_with("/health/") || route == "/metrics"
}

/// Milliseconds, to the microsecond.
fn rounded_ms(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// The methods that routes have; all others count as one.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_scrapers_are_told_from_callers() {
        for route in ["/health/live", "/health/ready", "/metrics"] {
            assert!(is_probe_or_scrape(route), "{route}");
        }
        for route in ["/api/tickets", "/topology", "/healthy", NO_ROUTE] {
            assert!(!is_probe_or_scrape(route), "{route}");
        }
    }

    #[test]
    fn times_are_short_to_read() {
        let took = Duration::from_nanos(1_234_567);
        assert_eq!(rounded_ms(took).to_string(), "1.235");
    }
}
