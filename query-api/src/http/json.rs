//! A JSON body, written into one buffer that is large enough for most of them.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::problem::{Problem, ProblemKind};

/// An order or ticket fits; a page makes it grow.
const BYTES: usize = 512;

/// The answer whose body is `T` as JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut body = Vec::with_capacity(BYTES);
        if let Err(error) = serde_json::to_writer(&mut body, &self.0) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "an answer cannot be written as JSON"
            );
            return Problem::new(ProblemKind::Internal).into_response();
        }
        let mut response = Response::new(Body::from(body));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}
