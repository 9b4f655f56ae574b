//! What requests may cost: how many at once, and how long each.
//!
//! Routes limit their own waits; the time-out here is the safety net under them, and the
//! limit on requests keeps a flood from taking the memory of those under way.

use std::any::Any;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use futures_util::future::poll_fn;

use super::Api;
use super::measures::Refused;
use super::problem::{Problem, ProblemKind};

/// Added to the waits of a route: for reading the body and writing the command.
const ROUTE_OVERHEAD: Duration = Duration::from_secs(30);

/// Capacity for a number of requests at once.
pub(super) struct Room {
    places: usize,
    taken: AtomicUsize,
}

/// A place in a [`Room`], held until it is dropped.
pub(super) struct Place<'r>(&'r Room);

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            taken: AtomicUsize::new(0),
        }
    }

    /// A place, if there is one left.
    pub(super) fn take(&self) -> Option<Place<'_>> {
        let one_more = |taken| (taken < self.places).then_some(taken + 1);
        // Those who count here share nothing but the number itself.
        let taken = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Admits a request to the API, unless there are too many.
pub(super) fn admit(api: &Api, is_crowded: bool) -> Result<Place<'_>, Problem> {
    let place = if is_crowded {
        Err(Refused::Connections)
    } else {
        api.shared.room.take().ok_or(Refused::Requests)
    };
    place.map_err(|reason| {
        api.measures().refused(reason);
        Problem::new(ProblemKind::Overloaded)
    })
}

/// The answer of a route, unless it takes too long.
pub(super) async fn bounded(
    api: &Api,
    mut answer: Pin<&mut impl Future<Output = Result<Response, Infallible>>>,
) -> Response {
    // Most are answered at once, and need no timer.
    let at_once = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
    let answered = match at_once {
        Poll::Ready(answered) => answered,
        Poll::Pending => {
            let longest = api.shared.command_timeout + api.shared.recovery_wait + ROUTE_OVERHEAD;
            match tokio::time::timeout(longest, answer).await {
                Ok(answered) => answered,
                Err(_) => return Problem::new(ProblemKind::OutcomePending).into_response(),
            }
        }
    };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// The answer of a route that panicked.
#[expect(
    clippy::needless_pass_by_value,
    reason = "whoever catches a panic owns what it said"
)]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("nothing readable");
    tracing::error!(panic = said, "a route panicked");
    Problem::new(ProblemKind::Internal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_as_many_places_as_it_says_and_takes_them_back() {
        let room = Room::new(2);
        let first = room.take();
        let second = room.take();
        assert!(first.is_some() && second.is_some());
        // A request that is turned away takes nothing and gives nothing back.
        for _ in 0..3 {
            assert!(room.take().is_none());
        }
        drop(first);
        let third = room.take();
        assert!(third.is_some() && room.take().is_none());
    }
}
