//! Asks other instances.
//!
//! One connection to each, over which thousands of reads can wait at a time. Each read is
//! limited in time; nothing is retried here, because the owner may have changed meanwhile.

use std::time::Duration;

use axum::http::header;
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use thiserror::Error;
use tokio::time::Instant;
use turnstile_engine::runtime::StoreAnswer;

use super::wire::{
    CALLER_HEADER, HOP, HOP_HEADER, READ_PATH, REQUEST_ID_HEADER, ReadReply, ReadRequest, Refusal,
    decode, encode,
};
use super::{ClusterKey, PeerMeasures, origin};

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long a connection may be silent before it is pinged, and how long the reply may take.
/// Requests that wait on a host that is gone end by this.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// How much of an answer may be sent ahead: a page of a list and more.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// How much of all answers of an instance may be sent ahead.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How often it is logged that an instance does not know this one's key.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// Why another instance gave no rows.
#[derive(Debug, Error)]
pub enum PeerFailure {
    /// It does not answer, or not in time.
    #[error("it cannot be reached")]
    Unreachable(#[from] reqwest::Error),
    /// It answers, but not with rows.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not know this instance's key.
    #[error("it has another CLUSTER_KEY or JWT_KEY")]
    Unauthorized,
    /// It is not an instance, or one of another build.
    #[error("it answers with status {0}")]
    Status(StatusCode),
    /// Its answer cannot be decoded.
    #[error("its answer is not understood")]
    Unintelligible(#[from] postcard::Error),
}

impl PeerFailure {
    /// A name for metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(refusal) => refusal.name(),
            Self::Unauthorized => "unauthorized",
            Self::Status(_) => "status",
            Self::Unintelligible(_) => "unintelligible",
        }
    }
}

impl Refusal {
    /// A name for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotHere(_) => "not_here",
            Self::NotYet(_) => "not_yet",
            Self::UnknownStore(_) => "unknown_store",
            Self::Busy => "busy",
            Self::Malformed(_) => "malformed",
            Self::Failed(_) => "failed",
        }
    }
}

/// The other instances.
pub struct Peers {
    http: reqwest::Client,
    key: ClusterKey,
    measures: PeerMeasures,
    complained: Mutex<Option<Instant>>,
}

impl Peers {
    /// A client that presents this key.
    ///
    /// # Errors
    ///
    /// When no client can be made.
    pub fn new(key: ClusterKey, measures: PeerMeasures) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .http2_prior_knowledge()
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .redirect(Policy::none())
            // Proxies in the environment are for the outside world.
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            key,
            measures,
            complained: Mutex::new(None),
        })
    }

    /// What is counted.
    pub(crate) fn measures(&self) -> &PeerMeasures {
        &self.measures
    }

    /// Has the instance at `address` read, for at most `limit` in addition to the requested
    /// wait.
    ///
    /// # Errors
    /// When it returns no rows.
    /// When it gives no rows.
    pub async fn read(
        &self,
        address: &str,
        request: &ReadRequest,
        limit: Duration,
    ) -> Result<StoreAnswer, PeerFailure> {
        let begun = Instant::now();
        let answer = self.ask(address, request, limit).await;
        let result = answer.as_ref().map_or_else(PeerFailure::name, |_| "ok");
        let took = request.wait.is_none().then(|| begun.elapsed());
        self.measures.sent(result, took);
        if let Err(PeerFailure::Unauthorized) = &answer {
            self.complain(address);
        }
        answer
    }

    async fn ask(
        &self,
        address: &str,
        request: &ReadRequest,
        limit: Duration,
    ) -> Result<StoreAnswer, PeerFailure> {
        let wait = request.wait.map_or(Duration::ZERO, |wait| wait.limit);
        let mut call = self
            .http
            .post(format!("http://{address}{READ_PATH}"))
            .timeout(limit.saturating_add(wait))
            .header(header::AUTHORIZATION, self.key.authorization())
            .header(HOP_HEADER, HOP);
        if let Some(id) = origin::request_id() {
            call = call.header(REQUEST_ID_HEADER, id);
        }
        if let Some(caller) = origin::caller() {
            call = call.header(CALLER_HEADER, caller);
        }
        let response = call.body(encode(request)).send().await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err(PeerFailure::Unauthorized),
            status => return Err(PeerFailure::Status(status)),
        }
        match decode(&response.bytes().await?)? {
            ReadReply::Answer(answer) => Ok(answer),
            ReadReply::Refusal(refusal) => Err(refusal.into()),
        }
    }

    fn complain(&self, address: &str) {
        let now = Instant::now();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|last| now.duration_since(last) >= COMPLAINT_PAUSE) {
            *complained = Some(now);
            tracing::error!(
                address,
                "another instance does not accept this one: give all the same CLUSTER_KEY, or the same JWT_KEY"
            );
        }
    }
}
