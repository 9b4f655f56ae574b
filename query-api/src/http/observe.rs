//! One log line and a few metrics for each request. What failed is logged at `info`, the
//! rest, and all that probes and scrapers ask, at `debug`.
//!
//! Requests go by the route they matched, never by their path: ids are not labels, and
//! a stranger's paths cannot fill the memory.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tower_http::request_id::RequestId;

use super::Api;
use crate::peers::origin::Origin;
use crate::peers::wire::HOP_HEADER;

/// The route of requests that match none.
const NO_ROUTE: &str = "none";

/// Counts, times and logs a request.
pub async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = api.measures().in_flight();
    let method = method_name(request.method());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let path = request.uri().path().to_owned();
    let id = request
        .extensions()
        .get::<RequestId>()
        .map(|id| id.header_value().clone());
    let has_hopped = request.headers().contains_key(HOP_HEADER);
    let origin = Origin::new(id.clone(), has_hopped);
    let response = origin.scope(next.run(request)).await;

    let (took, status) = (begun.elapsed(), response.status());
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    api.measures().request(method, route, status.as_u16(), took);
    let (status, took_ms) = (status.as_u16(), rounded_ms(took));
    let request_id = id.as_ref().map(text);
    let request_id = request_id.as_deref();
    if response.status().is_server_error() && !is_probe_or_scrape(route) {
        tracing::info!(
            method,
            route,
            path,
            status,
            took_ms,
            request_id,
            "request failed"
        );
    } else {
        tracing::debug!(method, route, path, status, took_ms, request_id, "request");
    }
    response
}

/// Probes and scrapers ask again and again, also while 503 is what is expected, and what
/// is wrong with the instance is logged where it goes wrong.
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
