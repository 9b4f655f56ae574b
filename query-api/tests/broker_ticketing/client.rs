//! A caller of the HTTP API.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::LIMIT;
use crate::broker::RUNTIME;

/// A caller of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    /// The headers that say who calls.
    identity: Vec<(&'static str, String)>,
}

/// What the instance said.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Client {
    /// Nobody, to begin with.
    pub(crate) fn new(base: &str) -> Self {
        let http = reqwest::Client::builder().timeout(LIMIT).build();
        Self {
            http: http.expect("a client can be made"),
            base: base.to_owned(),
            identity: Vec::new(),
        }
    }

    /// The same client with this header instead.
    pub(crate) fn with(&self, header: &'static str, value: impl Into<String>) -> Self {
        Self {
            identity: vec![(header, value.into())],
            ..self.clone()
        }
    }

    pub(crate) fn user(&self, name: &str) -> Self {
        self.with("x-user-id", name)
    }

    /// The answer, or why there is none.
    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in &self.identity {
            request = request.header(*name, value);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
        })
    }

    fn call(&self, method: Method, path: &str, body: Option<String>, key: Option<&str>) -> Answer {
        let what = format!("{method} {path}");
        let answer = RUNTIME.block_on(self.try_call(method, path, body, key));
        answer.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, Some(body.to_string()), None)
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> Answer {
        self.call(Method::POST, path, Some(body.to_owned()), None)
    }

    pub(crate) fn post_again(&self, path: &str, body: &Value, key: &str) -> Answer {
        self.call(Method::POST, path, Some(body.to_string()), Some(key))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, Some(body.to_string()), None)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, None, None)
    }

    /// All items of a list, read by pages of `limit`.
    pub(crate) fn list(&self, path: &str, limit: usize) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit={limit}{cursor}")).ok(200);
            let more = page["items"].as_array().expect("a list has items");
            assert!(more.len() <= limit, "a page is longer than asked for");
            items.extend_from_slice(more);
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The body of an answer that has this status.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// The problem document of an answer that has this status.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        let problem = self.ok(status);
        let content_type = self.headers.get("content-type");
        assert_eq!(
            content_type.map(|value| value.as_bytes()),
            Some(&b"application/problem+json"[..])
        );
        assert_eq!(problem["status"], status);
        let uri = problem["type"].as_str().expect("a problem has a type");
        assert!(uri.starts_with("urn:ticketing:problem:"), "{uri}");
        problem
    }
}
