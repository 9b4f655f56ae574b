//! Connections: taken, bounded, and ended in order.
//!
//! 1. While it serves, it takes connections up to a number; beyond it they wait in the
//!    backlog of the system. A head that does not come in time closes its connection.
//! 2. When it is to stop, it takes no more, closes those that are idle, and lets each
//!    request that is under way end, for a bounded time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// How long the head of a request may take to come; also how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait after a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;

/// How many connections are open, and how long they may take to end.
#[derive(Debug, Clone, Copy)]
pub struct ServerConfig {
    /// How many connections are open at once.
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
    let permits = Arc::new(Semaphore::new(config.max_connections));
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX);

    // 1.
    loop {
        let accept = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
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
        let service = TowerToHyperService::new(router.clone());
        let connection = builder
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

fn log_refused(error: &io::Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "a connection could not be taken"
    );
}
