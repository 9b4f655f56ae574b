//! The HTTP client of the demo.
//!
//! Every request that changes something carries an `Idempotency-Key`, so that one that
//! was answered 503 or 504 can be repeated without being executed twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::DemoError;

/// The most times that a request is repeated.
const REPEATS_MAX: u32 = 20;

/// The pause before a repeat.
const REPEAT_PAUSE: Duration = Duration::from_millis(500);

/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests as any user.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Arc<str>,
    key: Option<EncodingKey>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// The body; null if it is not JSON.
    pub(super) body: Value,
    /// How often the request was repeated.
    pub(super) repeats: u32,
}

impl Client {
    pub(super) fn new(url: &str, key: Option<&str>) -> Result<Self, DemoError> {
        let http = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build();
        let http = http.map_err(|source| DemoError::NoAnswer {
            method: "GET",
            url: url.to_owned(),
            source,
        })?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').into(),
            key: key.map(|key| EncodingKey::from_secret(key.as_bytes())),
        })
    }

    /// `GET`s what a user may read.
    pub(super) async fn get(&self, user: &str, path: &str) -> Result<Reply, DemoError> {
        self.ask(user, "GET", path, None).await
    }

    /// `POST`s a JSON object.
    pub(super) async fn post(
        &self,
        user: &str,
        path: &str,
        body: Value,
    ) -> Result<Reply, DemoError> {
        self.ask(user, "POST", path, Some(body)).await
    }

    async fn ask(
        &self,
        user: &str,
        method: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Reply, DemoError> {
        let url = format!("{}{path}", self.url);
        let idempotency_key = Uuid::new_v4().to_string();
        let mut repeats = 0;
        loop {
            let mut request = self.http.request(method_of(method), &url);
            if let Some(body) = &body {
                request = request
                    .header("idempotency-key", &idempotency_key)
                    .json(body);
            }
            let request = self.signed(request, user)?;
            let no_answer = |source| DemoError::NoAnswer {
                method,
                url: url.clone(),
                source,
            };
            let response = request.send().await.map_err(no_answer)?;
            let status = response.status().as_u16();
            let bytes = response.bytes().await.map_err(no_answer)?;
            if matches!(status, 503 | 504) && repeats < REPEATS_MAX {
                repeats += 1;
                sleep(REPEAT_PAUSE).await;
                continue;
            }
            let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            return Ok(Reply {
                status,
                body,
                repeats,
            });
        }
    }

    fn signed(&self, request: RequestBuilder, user: &str) -> Result<RequestBuilder, DemoError> {
        let Some(key) = &self.key else {
            return Ok(request.header("x-user-id", user));
        };
        let claims: BTreeMap<&str, Value> = BTreeMap::from([("id", json!(user))]);
        Ok(request.bearer_auth(encode(&Header::default(), &claims, key)?))
    }
}

fn method_of(method: &'static str) -> Method {
    if method == "POST" {
        Method::POST
    } else {
        Method::GET
    }
}

impl Reply {
    /// A text field of the body; empty if there is none.
    pub(super) fn text(&self, field: &str) -> String {
        self.body
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    /// The reply, if its status is `expected`.
    pub(super) fn expect(self, what: &'static str, expected: u16) -> Result<Self, DemoError> {
        if self.status == expected {
            Ok(self)
        } else {
            Err(self.unexpected(what))
        }
    }

    pub(super) fn unexpected(self, what: &'static str) -> DemoError {
        DemoError::UnexpectedAnswer {
            what,
            status: self.status,
            body: self.body.to_string(),
        }
    }
}
