//! Connections: accepted, limited, and ended in an orderly way.
//!
//! 1. While it serves, it accepts connections up to a limit. It accepts a few more for other
//!    instances and for probes: on these, clients are turned away, so that instances reach each
//!    other however many clients there are. Beyond that, connections wait in the system's
//!    backlog. A connection that is idle for too long is closed (`connection`).
//! 2. When it is to stop, it accepts no more, closes idle connections, and lets each
//!    request under way end, for a limited time. Whoever has sent half a request, or does not read
//!    an answer, is idle.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus::IntGauge;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::connection::{Connection, Draining};

/// How often an HTTP/2 connection on which nothing comes is pinged.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How long to wait after a connection could not be accepted for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Concurrent requests on one HTTP/2 connection: another instance has all its reads on one,
/// and how many are admitted is decided where they are answered (of clients, fewer: `limits`).
const STREAMS_MAX: u32 = 16_384;

/// How many requests of a connection may be reset before they were looked at: those whose
/// clients go away all at once.
const RESET_STREAMS_MAX: usize = 4_096;

/// The longest head of an HTTP/1.1 request, and the most that is read ahead on its connection.
/// Heads that do not end take up to this times the number of open connections. (With HTTP/2
/// hyper limits a head to 16 KiB.)
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How many connections are accepted beyond those for everybody.
const RESERVED: usize = 256;

/// The longest that those may be idle.
const RESERVED_IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Attached to requests that come when all connections for clients are taken.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// How many connections are open, and how long they may take to end.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig {
    /// How many connections of clients may be open at once.
    pub max_connections: usize,
    /// How long a connection is kept on which no request is under way, because the next one
    /// does not begin or its head does not end.
    pub idle_timeout: Duration,
    /// How long a stop waits for requests that are under way.
    pub drain_timeout: Duration,
}

/// Serves `router` until `stop` turns true; returns whether every request was answered.
/// `open_connections` is the number of open connections.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    open_connections: IntGauge,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let ServerConfig {
        max_connections,
        idle_timeout,
        drain_timeout,
    } = config;
    let reserved_idle_timeout = idle_timeout.min(RESERVED_IDLE_TIMEOUT);
    let open = Kind::new(max_connections, router.clone(), idle_timeout);
    let mut reserved = Kind::new(
        RESERVED,
        router.layer(Extension(Crowded)),
        reserved_idle_timeout,
    );
    reserved.builder.http1().keep_alive(false);
    let draining = Arc::new(Draining::default());
    // Nothing is sent: when the last connection drops its sender, all have ended.
    let (under_way, mut ended) = mpsc::channel::<Infallible>(1);

    // 1.
    loop {
        let accept = async {
            let accepted = listener.accept().await;
            (accepted, room(&open, &reserved).await)
        };
        let (accepted, (kind, permit)) = tokio::select! {
            accepted = accept => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                log_refused(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "answers may be delayed"
            );
        }
        let connection = Connection {
            stream,
            router: kind.router.clone(),
            idle_timeout: kind.idle_timeout,
            stop: stop.clone(),
            draining: draining.clone(),
        };
        let (builder, under_way) = (kind.builder.clone(), under_way.clone());
        let counted = Counted::new(open_connections.clone());
        tokio::spawn(async move {
            connection.serve(&builder).await;
            drop((permit, under_way, counted));
        });
    }
    // 2.
    drop((listener, under_way));
    let ended = tokio::time::timeout(drain_timeout, ended.recv()).await;
    ended.is_ok() || !draining.any_under_way()
}

/// Counts a connection as open until it is dropped.
struct Counted(IntGauge);

impl Counted {
    fn new(open: IntGauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Connections that are served in the same way.
struct Kind {
    permits: Arc<Semaphore>,
    router: Router,
    idle_timeout: Duration,
    builder: Builder<TokioExecutor>,
}

impl Kind {
    fn new(number: usize, router: Router, idle_timeout: Duration) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX);
        // A slow head makes an idle connection, whose time is watched anyway: no timer for
        // each request is needed.
        builder.http1().header_read_timeout(None);
        builder.http1().max_buf_size(HEAD_BYTES_MAX);
        // Answers are short: copying the body behind the head costs less than passing the
        // system two pieces.
        builder.http1().writev(false);
        Self {
            permits: Arc::new(Semaphore::new(number)),
            router,
            idle_timeout,
            builder,
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = self.permits.clone().acquire_owned().await;
        permit.expect("nobody closes the semaphore")
    }
}

/// Room for a connection: the room for everybody, if there is any.
async fn room<'k>(open: &'k Kind, reserved: &'k Kind) -> (&'k Kind, OwnedSemaphorePermit) {
    tokio::select! {
        biased;
        permit = open.permit() => (open, permit),
        permit = reserved.permit() => (reserved, permit),
    }
}

fn log_refused(error: &io::Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "a connection could not be taken"
    );
}
