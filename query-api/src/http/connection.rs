//! One connection: it ends when its client ends it, when it has been idle for too long, or
//! when the server stops.
//!
//! It is idle while no request is under way on it, counting from when it was accepted or its
//! last request was answered. So a connection is idle that never sends a byte, whose head
//! does not end or whose answer is not read, and so is an HTTP/2 connection without streams,
//! whether or not its client answers pings. A client that is idle for too long is told so, if
//! the protocol allows it, and is disconnected a moment later. So is every client when the server
//! stops, as soon as it is idle.
//!
//! Each connection has one timer, which most requests do not touch: they only note the time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::{Request, Version};
use axum::{BoxError, Router};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::Service;

use super::limits::Streams;

/// How long a client may take to leave after it was told to.
const GOODBYE: Duration = Duration::from_secs(2);

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) router: Router,
    pub(super) idle_timeout: Duration,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) draining: Arc<Draining>,
}

/// The connections that were open when the server was stopped.
#[derive(Default)]
pub(super) struct Draining(Mutex<Vec<Arc<Activity>>>);

impl Draining {
    /// Whether a request is under way on any of them.
    pub(super) fn any_under_way(&self) -> bool {
        let connections = self.0.lock();
        connections.iter().any(|activity| activity.is_under_way())
    }
}

impl Connection {
    /// Answers the requests on it until it ends.
    pub(super) async fn serve(self, builder: &Builder<TokioExecutor>) {
        let Self {
            stream,
            router,
            idle_timeout,
            mut stop,
            draining,
        } = self;
        let activity = Arc::new(Activity::new());
        let requests = activity.clone();
        let streams = Streams::new();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let under_way = requests.begin();
            if request.version() == Version::HTTP_2 {
                request.extensions_mut().insert(streams.clone());
            }
            let answer = router.clone().call(request);
            answer.inspect(move |_| drop(under_way))
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return note(ended),
            () = activity.idle_for(idle_timeout, activity.taken) => {}
            _ = stop.wait_for(|stop| *stop) => draining.0.lock().push(activity.clone()),
        }
        connection.as_mut().graceful_shutdown();
        // What is under way, or has come meanwhile, is still answered. How long a stop waits for
        // that is up to the server.
        tokio::select! {
            biased;
            ended = connection => note(ended),
            () = activity.idle_for(GOODBYE, Instant::now()) => {
                tracing::debug!("a connection that was idle has not gone by itself");
            }
        }
    }
}

fn note(ended: Result<(), BoxError>) {
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended badly");
    }
}

/// What is under way on a connection.
pub(super) struct Activity {
    taken: Instant,
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds since it was accepted.
    idle_since_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self {
            taken: Instant::now(),
            requests: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
        }
    }

    fn begin(self: &Arc<Self>) -> UnderWay {
        self.requests.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    fn is_under_way(&self) -> bool {
        // The end of a request notes the time before it decrements the number.
        self.requests.load(Ordering::Acquire) > 0
    }

    /// Returns once nothing has been under way for `limit`, counted from `from` at the earliest.
    async fn idle_for(&self, limit: Duration, from: Instant) {
        loop {
            let is_idle = !self.is_under_way();
            let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed));
            let now = Instant::now();
            let since = from.max(self.taken + since);
            let due = if is_idle { since } else { now } + limit;
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// A request that is under way, until it is answered or cancelled.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.0.taken.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since_ms.store(now_ms, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Release);
    }
}
