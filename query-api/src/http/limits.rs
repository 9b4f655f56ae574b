//! What one request may cost: how many at once, and how long each.
//!
//! Routes bound their own waits; the time-out here is the net under them, and the bound
//! on requests keeps a flood from taking the memory of those that are under way.

use std::any::Any;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::{Problem, ProblemKind};
use super::server::Crowded;

/// Beyond the waits that a route has: for reading its body and writing its command.
const ROUTE_OVERHEAD: Duration = Duration::from_secs(30);

/// Lets a request in unless too many are, and out before it has taken too long.
pub async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    let overloaded = || Problem::new(ProblemKind::Overloaded).into_response();
    if request.extensions().get::<Crowded>().is_some() {
        return overloaded();
    }
    let Ok(_permit) = api.shared.permits.try_acquire() else {
        return overloaded();
    };
    let longest = api.shared.command_timeout + api.shared.recovery_wait + ROUTE_OVERHEAD;
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(ProblemKind::OutcomePending).into_response(),
    }
}

/// The answer of a route that panicked.
#[must_use]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the layer that catches panics hands it over"
)]
pub fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("nothing readable");
    tracing::error!(panic = said, "a route panicked");
    Problem::new(ProblemKind::Internal).into_response()
}
