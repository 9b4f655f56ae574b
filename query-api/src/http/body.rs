//! Request bodies: JSON, limited in size and in the time that they may take.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::problem::{Problem, ProblemKind};

/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 10;

/// What JSON allows before a value.
const JSON_WHITESPACE: &[u8] = b" \t\n\r";

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body that has arrived completely. It is taken as JSON whatever its `Content-Type` says.
pub struct Body(Bytes);

impl Body {
    /// The body as it came.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The body as `T`, from a JSON object.
    ///
    /// # Errors
    ///
    /// 400 if it is not an object of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let invalid = |why: String| Problem::with_detail(ProblemKind::InvalidBody, why);
        // A struct would also be read from an array, field by field.
        let first = self.0.iter().find(|byte| !JSON_WHITESPACE.contains(byte));
        if first.is_some_and(|byte| *byte != b'{') {
            return Err(invalid("the body is no JSON object".to_owned()));
        }
        serde_json::from_slice(&self.0).map_err(|error| invalid(error.to_string()))
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Fields {
        name: String,
    }

    fn read(body: &'static str) -> Result<Fields, Problem> {
        Body(Bytes::from_static(body.as_bytes())).json()
    }

    #[test]
    fn only_an_object_is_read() {
        let expected = Fields {
            name: "a".to_owned(),
        };
        assert_eq!(read("{\"name\": \"a\"}"), Ok(expected));
        assert!(read(" \t\r\n{\"name\": \"a\"} ").is_ok());
        for body in [
            "[\"a\"]",
            " \n[\"a\"]",
            "\"a\"",
            "null",
            "{\"name\"",
            "[",
            " ",
            "",
        ] {
            let problem = read(body).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidBody, "{body:?}");
        }
    }
}
