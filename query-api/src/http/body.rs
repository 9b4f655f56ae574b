//! Request bodies: JSON, bounded in size and in the time that they may take.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::problem::{Problem, ProblemKind};

/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 10;

/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that has come whole. It is JSON whatever its `Content-Type` says.
pub struct Body(Bytes);

impl Body {
    /// The body as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body as `T`.
    ///
    /// # Errors
    ///
    /// 400 if it is no JSON of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        serde_json::from_slice(&self.0)
            .map_err(|error| Problem::with_detail(ProblemKind::InvalidBody, error.to_string()))
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
        let read = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state));
        let body = read
            .await
            .map_err(|_| Problem::new(ProblemKind::RequestTimeout))?;
        body.map(Self)
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
                    Problem::with_detail(ProblemKind::BodyTooLarge, detail)
                }
                _ => Problem::with_detail(ProblemKind::InvalidBody, rejection.body_text()),
            })
    }
}
