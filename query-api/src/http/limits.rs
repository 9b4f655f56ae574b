//! What requests may cost: how many at once, and how long each.
//!
//! Routes limit their own waits; the time-out here is the safety net under them, and the
//! limit on requests keeps a flood from taking the memory of those under way.

use std::any::Any;
use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
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

/// How many requests of clients one HTTP/2 connection has at once. It is not told to the client
/// as the number of streams, since other instances come to the same port and need more
/// (`server`).
pub(super) const CLIENT_STREAMS_MAX: usize = 256;

/// Capacity for a number of requests at once.
pub(super) struct Room {
    places: usize,
    taken: AtomicUsize,
}

/// Room on one HTTP/2 connection, attached to each request that comes on it: for requests of
/// clients that are being answered, or whose answers are not sent yet.
#[derive(Clone)]
pub(super) struct Streams(Arc<Room>);

impl Streams {
    /// The room on a connection.
    pub(super) fn new() -> Self {
        Self(Arc::new(Room::new(CLIENT_STREAMS_MAX)))
    }
}

impl AsRef<Room> for Streams {
    fn as_ref(&self) -> &Room {
        &self.0
    }
}

/// A place in a [`Room`], held until it is dropped.
pub(super) struct Place<R: AsRef<Room>>(R);

impl Room {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places,
            taken: AtomicUsize::new(0),
        }
    }

    /// A place, if there is one left.
    pub(super) fn take<R: AsRef<Self>>(room: R) -> Option<Place<R>> {
        let Self { places, taken } = room.as_ref();
        let one_more = |taken| (taken < *places).then_some(taken + 1);
        // Those who count here share nothing but the number itself.
        let is_taken = taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok();
        is_taken.then(|| Place(room))
    }
}

impl AsRef<Self> for Room {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Place<&Room> {
    /// The same place, for as long as it takes: `room` is the room that it is in.
    pub(super) fn kept_in<R: AsRef<Room>>(self, room: R) -> Place<R> {
        debug_assert!(std::ptr::eq(self.0, room.as_ref()), "that is another room");
        mem::forget(self);
        Place(room)
    }
}

impl<R: AsRef<Room>> Drop for Place<R> {
    fn drop(&mut self) {
        self.0.as_ref().taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Admits a request to the API, unless there are too many.
pub(super) fn admit(api: &Api, is_crowded: bool) -> Result<Place<&Room>, Problem> {
    let place = if is_crowded {
        Err(Refused::Connections)
    } else {
        Room::take(&api.shared.room).ok_or(Refused::Requests)
    };
    place.map_err(|reason| refuse(api, reason))
}

/// Admits a request to what has room on its connection.
pub(super) fn admit_stream(api: &Api, streams: Streams) -> Result<Place<Streams>, Problem> {
    Room::take(streams).ok_or_else(|| refuse(api, Refused::Streams))
}

fn refuse(api: &Api, reason: Refused) -> Problem {
    api.measures().refused(reason);
    Problem::new(ProblemKind::Overloaded)
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
        let first = Room::take(&room);
        let second = Room::take(&room);
        assert!(first.is_some() && second.is_some());
        // A request that is turned away takes nothing and gives nothing back.
        for _ in 0..3 {
            assert!(Room::take(&room).is_none());
        }
        drop(first);
        let third = Room::take(&room);
        assert!(third.is_some() && Room::take(&room).is_none());
        // A place that is kept is taken once, and given back once.
        let kept = third.map(|place| place.kept_in(&room));
        assert!(Room::take(&room).is_none());
        drop(kept);
        let fourth = Room::take(&room);
        assert!(fourth.is_some() && Room::take(&room).is_none());
    }
}
