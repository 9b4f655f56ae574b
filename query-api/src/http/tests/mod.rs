//! The routes on the topology test driver: every status of the contract's table.

mod connections;
mod idempotency;
mod lists;
mod operations;
mod routes;
mod routing;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use prometheus::Registry;
use serde_json::{Value, json};
use tower::ServiceExt;
use turnstile_ticketing::Service;

use super::{Api, ApiConfig, router};
use crate::application::memory::{Fault, MemoryApplication};
use crate::config::Authentication;
use crate::instance::Instance;
use crate::peers::{ClusterKey, PeerMeasures, Peers};

/// How long a row is waited for.
const RECOVERY_WAIT: Duration = Duration::from_millis(150);

/// How the API behaves in tests.
fn config(max_requests: usize) -> ApiConfig {
    let authentication = Authentication {
        jwt_key: None,
        cluster_key: Some("the key of the tests".to_owned()),
        dev_auth: true,
    };
    ApiConfig {
        instance_id: "a".to_owned(),
        cluster_key: ClusterKey::new(&authentication, "ticketing"),
        authentication,
        command_timeout: Duration::from_millis(400),
        recovery_wait: RECOVERY_WAIT,
        max_requests,
    }
}

/// A served instance.
struct Served {
    router: Router,
    instance: Arc<Instance>,
    application: Arc<MemoryApplication>,
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("the body is JSON")
    }

    fn field(&self, name: &str) -> String {
        let body = self.json();
        let field = body
            .get(name)
            .unwrap_or_else(|| panic!("{name} is in {body}"));
        field
            .as_str()
            .map_or_else(|| field.to_string(), str::to_owned)
    }

    /// The status and the last part of the problem's type.
    fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json",
            "{}",
            self.text
        );
        assert_eq!(self.json()["status"], self.status);
        let uri = self.field("type");
        let slug = uri
            .strip_prefix("urn:ticketing:problem:")
            .expect("all problems have such a type");
        (self.status, slug.to_owned())
    }
}

/// The problem with this status and type.
fn problem(status: u16, slug: &str) -> (u16, String) {
    (status, slug.to_owned())
}

impl Served {
    fn new() -> Self {
        Self::of(&Service::ALL, 64)
    }

    fn of(services: &[Service], max_requests: usize) -> Self {
        Self::with(services, &config(max_requests), |peers| {
            MemoryApplication::alone(services, peers)
        })
    }

    fn with(
        services: &[Service],
        config: &ApiConfig,
        application: impl FnOnce(Peers) -> MemoryApplication,
    ) -> Self {
        let instance = Arc::new(Instance::new(services.iter().copied().collect()));
        let registry = Registry::new();
        let measures = PeerMeasures::new(&registry).expect("the registry is empty");
        let peers = Peers::new(config.cluster_key.clone(), measures.clone());
        let application = Arc::new(application(peers.expect("a client can be made")));
        instance.set_running(application.clone());
        let api = Api::new(instance.clone(), registry, measures, config);
        Self {
            router: router(api.expect("the registry is empty")),
            instance,
            application,
        }
    }

    async fn ask(&self, request: Request<Body>) -> Reply {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("a router always answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a short body");
        Reply {
            status,
            headers,
            text: String::from_utf8(body.to_vec()).expect("UTF-8"),
        }
    }

    async fn send(&self, user: &str, method: &str, path: &str, body: &Value) -> Reply {
        self.send_keyed(user, method, path, body, None).await
    }

    async fn send_keyed(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: &Value,
        key: Option<&str>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !user.is_empty() {
            request = request.header("x-user-id", user);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.ask(request.body(body).expect("a request")).await
    }

    async fn get(&self, user: &str, path: &str) -> Reply {
        self.send(user, "GET", path, &Value::Null).await
    }

    /// A ticket of `seller`'s.
    async fn ticket(&self, title: &str) -> String {
        let reply = self
            .send(
                "seller",
                "POST",
                "/api/tickets",
                &json!({"title": title, "price": 10.5}),
            )
            .await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.field("id")
    }

    async fn order(&self, user: &str, ticket: &str) -> Reply {
        self.send(user, "POST", "/api/orders", &json!({"ticketId": ticket}))
            .await
    }

    async fn pay(&self, user: &str, order: &str, token: &str) -> Reply {
        self.send(
            user,
            "POST",
            "/api/payments",
            &json!({"orderId": order, "token": token}),
        )
        .await
    }
}
