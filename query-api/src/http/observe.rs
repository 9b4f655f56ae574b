//! One log line and a few metrics for each request.
//!
//! Requests go by the route they matched, never by their path: ids are not labels, and
//! a stranger's paths cannot fill the memory.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;
use tower_http::request_id::RequestId;

use super::Api;

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
        .map(|id| text(id.header_value()));
    let response = next.run(request).await;

    let (took, status) = (begun.elapsed(), response.status());
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    api.measures().request(method, route, status.as_u16(), took);
    let (status, took_ms) = (status.as_u16(), took.as_secs_f64() * 1000.0);
    let request_id = id.as_deref();
    if response.status().is_server_error() {
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

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
