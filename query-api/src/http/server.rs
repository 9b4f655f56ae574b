//! Connections: taken, bounded, and ended in order.
//!
//! 1. While it serves, it takes connections up to a number. A few more are taken for
//!    other instances and for probes: clients are turned away there, so that however many
//!    there are, instances reach each other. Beyond these connections wait in the backlog
//!    of the system. A head that does not come in time closes its connection.
//! 2. When it is to stop, it takes no more, closes those that are idle, and lets each
//!    request that is under way end, for a bounded time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{Builder, Http1Builder};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long the head of a request may take to come; also how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests of one HTTP/2 connection at once: another instance has all its reads on one,
/// and how many are let in is decided where they are answered.
const STREAMS_MAX: u32 = 16_384;

/// How many requests of a connection may be called off before they were looked at: those
/// whose clients go away all at once.
const RESET_STREAMS_MAX: usize = 4_096;

/// How many connections are open beyond those for everybody.
const RESERVED: usize = 256;

/// How long the head of a request may take on those.
const RESERVED_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Goes with requests that come when all connections for clients are taken.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// How many connections are open, and how long they may take to end.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig {
    /// How many connections of clients are open at once.
    pub max_connections: usize,
    /// How long a stop waits for requests that are under way.
    pub drain_timeout: Duration,
}

/// Serves `router` until `stop` turns true; says whether every request had its answer.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: ServerConfig,
    mut stop: watch::Receiver<bool>,
) -> bool {
    let open = Kind::new(config.max_connections, router.clone(), |http1| {
        http1.header_read_timeout(HEAD_TIMEOUT);
    });
    let reserved = Kind::new(RESERVED, router.layer(Extension(Crowded)), |http1| {
        http1
            .header_read_timeout(RESERVED_HEAD_TIMEOUT)
            .keep_alive(false);
    });
    let graceful = GracefulShutdown::new();

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
        let service = TowerToHyperService::new(kind.router.clone());
        let connection = kind
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended badly");
            }
            drop(permit);
        });
    }
    // 2.
    drop(listener);
    tokio::time::timeout(config.drain_timeout, graceful.shutdown())
        .await
        .is_ok()
}

/// Connections that are served alike.
struct Kind {
    permits: Arc<Semaphore>,
    router: Router,
    builder: Builder<TokioExecutor>,
}

impl Kind {
    fn new(
        number: usize,
        router: Router,
        http1: impl FnOnce(&mut Http1Builder<'_, TokioExecutor>),
    ) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(HEAD_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX);
        http1(builder.http1().timer(TokioTimer::new()));
        Self {
            permits: Arc::new(Semaphore::new(number)),
            router,
            builder,
        }
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = self.permits.clone().acquire_owned().await;
        permit.expect("nobody closes the semaphore")
    }
}

/// Room for a connection: for everybody if there is any.
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
