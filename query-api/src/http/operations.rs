//! What operators and their tools ask: health, metrics, topology, instances, the API's
//! shape.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::TextEncoder;
use serde_json::{Value, json};

use super::Api;
use super::problem::{PROBLEM_JSON, Problem, ProblemKind};
use crate::application::TopologyForm;

/// Says that the process answers.
#[utoipa::path(
    get, path = "/health/live", tag = "operations", operation_id = "live",
    responses((status = 200, description = "The process answers")),
)]
pub async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// Says whether every task that the instance owns runs, and what does not and why.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations", operation_id = "ready",
    responses(
        (status = 200, description = "Every task that it owns runs", body = Value),
        (status = 503, description = "What does not run, and why", body = Value),
    ),
)]
pub async fn ready(State(api): State<Api>) -> Response {
    let status = api.instance().status();
    let code = if status.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(status)).into_response()
}

/// The metrics, as Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
)]
pub async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let is_ready = api.instance().status().ready;
    api.measures().set_ready(is_ready);
    let text = TextEncoder::new()
        .encode_to_string(&api.shared.registry.gather())
        .map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the metrics cannot be written"
            );
            Problem::new(ProblemKind::Internal)
        })?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response())
}

/// The topology that runs, in the form that `Accept` prefers.
#[utoipa::path(
    get, path = "/topology", tag = "operations", operation_id = "topology",
    responses(
        (status = 200, description = "The topology", content(
            (String = "text/plain"), (Value = "application/json"), (String = "text/vnd.graphviz"),
        )),
        (status = 503, description = "It does not run yet", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
pub async fn topology(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let (form, content_type) = form(accept.unwrap_or("*/*"));
    let text = api.application()?.topology(form);
    Ok((
        [
            (header::CONTENT_TYPE, content_type),
            (header::VARY, "accept"),
        ],
        text,
    )
        .into_response())
}

/// Shows the instances of the application as this one sees them.
///
/// Where they are reached, which tasks run on them, which standbys they keep, and how far
/// those are behind.
#[utoipa::path(
    get, path = "/cluster", tag = "operations", operation_id = "cluster",
    responses(
        (status = 200, description = "The instances", body = Value),
        (status = 503, description = "It does not know yet", body = Problem, content_type = PROBLEM_JSON),
    ),
)]
pub async fn cluster(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let instances = api.application()?.rows().instances();
    Ok(Json(json!({ "instances": instances })))
}

/// The description of this API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "openapi",
    responses((status = 200, description = "This document", body = Value)),
)]
pub async fn openapi(State(api): State<Api>) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        api.shared.openapi.clone(),
    )
        .into_response()
}

const FORMS: [(TopologyForm, &str, &str); 3] = [
    (
        TopologyForm::Text,
        "text/plain",
        "text/plain; charset=utf-8",
    ),
    (TopologyForm::Json, "application/json", "application/json"),
    (
        TopologyForm::Dot,
        "text/vnd.graphviz",
        "text/vnd.graphviz; charset=utf-8",
    ),
];

/// The form that an `Accept` prefers most; text where it names none that there is.
fn form(accept: &str) -> (TopologyForm, &'static str) {
    let mut best = (TopologyForm::Text, "text/plain; charset=utf-8");
    let mut best_quality = 0.0;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=")?.parse().ok())
            .unwrap_or(1.0_f32);
        let named = FORMS
            .into_iter()
            .find(|(_, name, _)| media.eq_ignore_ascii_case(name));
        if let Some((form, _, content_type)) = named
            && quality > best_quality
        {
            (best, best_quality) = ((form, content_type), quality);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_is_preferred() {
        for (accept, expected) in [
            ("*/*", TopologyForm::Text),
            ("", TopologyForm::Text),
            ("text/html,*/*;q=0.8", TopologyForm::Text),
            ("application/json", TopologyForm::Json),
            (
                "application/json;q=0.5, text/vnd.graphviz",
                TopologyForm::Dot,
            ),
            (
                "text/plain;q=0.1, application/json;q=0.9",
                TopologyForm::Json,
            ),
            ("application/json;q=0", TopologyForm::Text),
        ] {
            assert_eq!(form(accept).0, expected, "{accept}");
        }
    }
}
