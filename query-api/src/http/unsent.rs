//! An answer that is not sent yet holds what its request has taken.
//!
//! Over HTTP/1.1 a connection has one answer at a time. Over HTTP/2 it has as many as it has
//! streams, and a client that opens no window makes the instance keep all of them: so a request
//! goes on counting against the limits until the last of its answer is on its way. That is not
//! when it is handed to the connection, which keeps what the client's window does not take.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// A body, and what is held until it is sent or dropped.
struct Unsent<H> {
    body: Body,
    held: Option<H>,
}

/// The last bytes of a body, and what is held until they are sent or dropped.
struct Last<H> {
    bytes: Bytes,
    _held: H,
}

/// The same body, which holds `held` until it is sent or dropped.
pub(super) fn holding<H: Send + Unpin + 'static>(body: Body, held: H) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::new(Unsent {
        body,
        held: Some(held),
    })
}

impl<H: Send + Unpin + 'static> HttpBody for Unsent<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_some() && !this.body.is_end_stream() {
            return Poll::Ready(frame);
        }
        let held = this.held.take();
        let last = |bytes| match held {
            Some(held) => Bytes::from_owner(Last { bytes, _held: held }),
            None => bytes,
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(last))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<H> AsRef<[u8]> for Last<H> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::poll_fn;
    use futures_util::stream;

    use super::*;

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn what_is_held_is_held_until_the_last_bytes_are_dropped() {
        let held = Arc::new(());
        let is_held = || Arc::strong_count(&held) > 1;
        let mut body = holding(Body::from("text"), held.clone());
        assert_eq!(body.size_hint().exact(), Some(4));
        let bytes = next(&mut body).await.unwrap();
        assert_eq!(bytes, "text");
        assert!(body.is_end_stream());
        drop(body);
        assert!(is_held());
        drop(bytes);
        assert!(!is_held());
    }

    #[tokio::test]
    async fn a_body_that_does_not_know_its_end_holds_it_until_then() {
        let held = Arc::new(());
        let is_held = || Arc::strong_count(&held) > 1;
        let pieces = ["a", "b"].map(Ok::<_, axum::Error>);
        let mut body = holding(Body::from_stream(stream::iter(pieces)), held.clone());
        for piece in ["a", "b"] {
            assert_eq!(next(&mut body).await.unwrap(), piece);
            assert!(is_held());
        }
        assert_eq!(next(&mut body).await, None);
        assert!(!is_held());
    }

    #[test]
    fn a_body_that_is_dropped_or_empty_holds_nothing() {
        let held = Arc::new(());
        drop(holding(Body::from("text"), held.clone()));
        let empty = holding(Body::empty(), held.clone());
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(empty.is_end_stream());
    }
}
