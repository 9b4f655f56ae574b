//! The life cycle of the process, from its first listening to its last commit.
//!
//! Start:
//!
//! 1. HTTP listens: live at once, not ready.
//! 2. The stream threads start in parallel; restoring stores may take long.
//!
//! Stop, by SIGTERM, SIGINT or a failure of the stream threads:
//!
//! 1. Not ready, so that no more requests are sent here.
//! 2. HTTP accepts no more connections, and finishes the requests under way; the stream
//!    threads still run, since those requests wait for them.
//! 3. The stream threads commit, close their tasks and leave.
//!
//! Further signals change nothing: every step is limited in time, and terminals, shells and
//! supervisors often send more than one. If you cannot wait, use SIGKILL.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use turnstile_engine::runtime::{Metrics, StreamsFailure};

use crate::application::{LiveApplication, StartFailure};
use crate::config::Config;
use crate::http::server::{ServerConfig, serve};
use crate::http::{Api, ApiConfig, router};
use crate::instance::Instance;
use crate::peers::{ClusterKey, PeerMeasures, Peers};

/// Why the process ends with a failure.
#[derive(Debug, Error)]
pub enum RunError {
    /// The address cannot be listened on.
    #[error("{addr} cannot be listened on: set HTTP_ADDR to another")]
    Listen {
        /// The address.
        addr: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// Other instances cannot be asked.
    #[error("the client for other instances cannot be made")]
    Peers(#[source] reqwest::Error),
    /// Two metrics have the same name.
    #[error("the metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The application did not start.
    #[error("the application does not start")]
    Start(#[from] StartFailure),
    /// The application stopped by itself.
    #[error("the application has failed")]
    Failed(#[from] StreamsFailure),
    /// A part of the process panicked.
    #[error("a part of the process panicked")]
    Panicked(#[from] JoinError),
}

impl RunError {
    /// Whether a restart changes nothing: the configuration is wrong, or another has taken
    /// this one's place.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Failed(StreamsFailure::Superseded(_) | StreamsFailure::Misconfigured(_)) => true,
            Self::Start(failure) => failure.is_of_configuration(),
            _ => false,
        }
    }

    /// Whether the disk of the state directory is full, or fails. A restart on it keeps its tasks
    /// from others.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        match self {
            Self::Failed(StreamsFailure::Disk(_)) => true,
            Self::Start(failure) => failure.is_of_disk(),
            _ => false,
        }
    }
}

/// How long a request waits for a task that is moving, before it is answered 503.
const RECOVERY_WAIT: Duration = Duration::from_secs(5);

/// How long a connection may be idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stop waits for a startup that is under way.
const START_PATIENCE: Duration = Duration::from_secs(5);

type Starting = JoinHandle<Result<Arc<LiveApplication>, StartFailure>>;

/// Runs an instance until it is stopped.
///
/// # Errors
///
/// When it cannot start, or has failed: reporting that is left to the caller.
pub async fn run(mut config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let instance = Arc::new(Instance::new(config.services.clone()));
    let cluster_key = ClusterKey::new(&config.authentication, &config.application_id);
    if !cluster_key.is_secret() {
        tracing::warn!(
            "without CLUSTER_KEY and JWT_KEY anybody can read here as another instance does"
        );
    }
    if config.authentication.dev_auth {
        tracing::warn!("DEV_AUTH is on: whoever sends no token is whom X-User-Id names");
    }
    open_files(&config);
    let peer_measures = PeerMeasures::new(&registry)?;
    let peers = Peers::new(cluster_key.clone(), peer_measures.clone()).map_err(RunError::Peers)?;
    let api_config = ApiConfig {
        instance_id: config.instance_id.clone(),
        authentication: config.authentication.clone(),
        command_timeout: config.command_timeout,
        recovery_wait: RECOVERY_WAIT,
        max_requests: config.max_requests,
        cluster_key,
    };
    let api = Api::new(instance.clone(), registry, peer_measures, &api_config)?;

    let listen = |source| RunError::Listen {
        addr: config.http_addr.clone(),
        source,
    };
    let listener = TcpListener::bind(&config.http_addr).await.map_err(listen)?;
    let addr = listener.local_addr().map_err(listen)?;
    config.advertised_addr = config.advertised(addr);
    let advertised = config.advertised_addr.as_deref();
    tracing::info!(%addr, advertised, instance = config.instance_id, "listening");
    if advertised.is_none() {
        tracing::error!(
            %addr,
            "other instances cannot reach this one: set ADVERTISED_ADDR to a host:port at which they can"
        );
    }
    let server_config = ServerConfig {
        max_connections: config.max_connections,
        idle_timeout: IDLE_TIMEOUT,
        drain_timeout: config.drain_timeout,
    };
    let (stop_http, stopping) = watch::channel(false);
    let open = api.open_connections();
    let server = tokio::spawn(serve(listener, router(api), server_config, open, stopping));

    let (failed, mut failures) = mpsc::unbounded_channel();
    instance.set_waiting_for(format!(
        "the Kafka cluster at {} (KAFKA_BROKERS)",
        config.kafka_brokers
    ));
    let mut starting = start(&config, metrics, Arc::new(peers), failed);
    let mut application = None;
    let result = loop {
        tokio::select! {
            started = &mut starting, if application.is_none() => match started? {
                Ok(started) => {
                    tracing::info!("the stream threads run");
                    instance.set_running(started.clone());
                    application = Some(started);
                }
                Err(failure) => break Err(RunError::from(failure)),
            },
            Some(failure) = failures.recv() => break Err(RunError::Failed(failure)),
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                break Ok(());
            }
        }
    };
    match &result {
        Ok(()) => instance.set_stopping(),
        Err(error) => {
            tracing::warn!("stopping after a failure");
            instance.set_failed(error.to_string());
        }
    }

    stop_http.send_replace(true);
    if !server.await? {
        tracing::warn!("requests that were under way got no answer in time");
    }
    let application = match application {
        Some(application) => Some(application),
        // A startup that hangs cannot be cancelled; what it has begun ends with the process.
        None if result.is_ok() => {
            let started = tokio::time::timeout(START_PATIENCE, &mut starting).await;
            started.ok().transpose()?.and_then(Result::ok)
        }
        None => None,
    };
    if let Some(application) = application {
        tokio::task::spawn_blocking(move || application.stop()).await?;
    }
    tracing::info!("stopped");
    result
}

/// Files of a task's stores, times the tasks of a partition.
const FILES: usize = 256 * 5;

/// Raises the limit of open files as far as the system allows, and warns if that may be too low:
/// stores that cannot open a file end the instance.
fn open_files(config: &Config) {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => return tracing::debug!(%error, "the limit of open files is left as it is"),
    };
    let partitions = usize::try_from(config.partitions).unwrap_or(0);
    let needed = config.max_connections + FILES * partitions;
    if limit < needed as u64 {
        tracing::warn!(
            limit,
            needed,
            "there may be too few open files for MAX_CONNECTIONS and the stores of all partitions: raise the limit (ulimit -Hn, LimitNOFILE)"
        );
    }
}

fn start(
    config: &Config,
    metrics: Metrics,
    peers: Arc<Peers>,
    failed: mpsc::UnboundedSender<StreamsFailure>,
) -> Starting {
    let config = config.clone();
    tokio::task::spawn_blocking(move || {
        let on_failure = move |failure: &StreamsFailure| {
            if failed.send(failure.clone()).is_err() {
                tracing::debug!("the application failed while the process was ending");
            }
        };
        LiveApplication::start(&config, metrics, peers, on_failure).map(Arc::new)
    })
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, RunError> {
        let listen = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use turnstile_engine::runtime::StartError;
    use turnstile_state::StateError;

    use super::*;

    #[test]
    fn a_disk_that_fails_is_told_from_what_a_new_start_mends_and_from_what_it_does_not() {
        let told = || "why".to_owned();
        let of_state = |error| {
            let error = Box::new(StartError::State(error));
            RunError::Start(StartFailure::Streams(error))
        };
        let read_only = of_state(StateError::Io {
            path: "state".into(),
            source: io::Error::from(io::ErrorKind::ReadOnlyFilesystem),
        });
        let locked = of_state(StateError::Locked {
            path: "state".into(),
            holder: None,
        });
        for (error, is_of_disk, is_lasting) in [
            (RunError::Failed(StreamsFailure::Disk(told())), true, false),
            (read_only, true, false),
            (locked, false, false),
            (
                RunError::Failed(StreamsFailure::Failed(told())),
                false,
                false,
            ),
            (
                RunError::Failed(StreamsFailure::Misconfigured(told())),
                false,
                true,
            ),
        ] {
            assert_eq!(error.is_of_disk(), is_of_disk, "{error:?}");
            assert_eq!(error.is_lasting(), is_lasting, "{error:?}");
        }
    }
}
