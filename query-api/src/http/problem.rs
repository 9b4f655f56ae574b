//! Errors as RFC 9457 problem documents.
//!
//! The `type` of a problem is stable: clients may rely on it. `detail` is for people and
//! may change; what a program needs beyond the type is a field of its own.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use turnstile_ticketing::outcome::{Answer, Conflict};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How long a client should wait before it tries again.
const RETRY_AFTER_SECONDS: &str = "1";

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $status:ident, $slug:literal, $title:literal;)+) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemKind {
            $($(#[$doc])* $kind,)+
        }

        impl ProblemKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Its HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)+ }
            }

            /// Its URI.
            #[must_use]
            pub fn uri(self) -> &'static str {
                match self { $(Self::$kind => concat!("urn:ticketing:problem:", $slug),)+ }
            }

            /// The last part of its URI.
            #[must_use]
            pub fn slug(self) -> &'static str {
                match self { $(Self::$kind => $slug,)+ }
            }

            /// What it is in words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)+ }
            }
        }
    };
}

kinds! {
    /// The body is no JSON of the right shape.
    InvalidBody = BAD_REQUEST, "invalid-body", "The body cannot be read";
    /// A value in the body cannot be.
    InvalidValue = BAD_REQUEST, "invalid-value", "A value is not allowed";
    /// Something in the path or query is wrong.
    InvalidParameter = BAD_REQUEST, "invalid-parameter", "A parameter is wrong";
    /// The `Idempotency-Key` is wrong.
    InvalidIdempotencyKey = BAD_REQUEST, "invalid-idempotency-key", "The Idempotency-Key cannot be used";
    /// Nobody knows who calls.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "The caller is not known";
    /// The payment was declined.
    PaymentDeclined = PAYMENT_REQUIRED, "payment-declined", "The payment was declined";
    /// The ticket or order is somebody else's.
    Forbidden = FORBIDDEN, "forbidden", "This belongs to somebody else";
    /// There is no such ticket.
    TicketNotFound = NOT_FOUND, "ticket-not-found", "There is no such ticket";
    /// There is no such order.
    OrderNotFound = NOT_FOUND, "order-not-found", "There is no such order";
    /// There is no such route, or its service is not run here.
    RouteNotFound = NOT_FOUND, "route-not-found", "There is no such route";
    /// The route has other methods.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The route does not have this method";
    /// The body did not come in time.
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The request did not come in time";
    /// The ticket exists already.
    TicketExists = CONFLICT, "ticket-exists", "The ticket exists already";
    /// The ticket is reserved.
    TicketReserved = CONFLICT, "ticket-reserved", "The ticket is reserved";
    /// The order has ended.
    OrderFinished = CONFLICT, "order-finished", "The order has ended";
    /// The order is paid, being paid, or has ended.
    OrderNotPayable = CONFLICT, "order-not-payable", "The order cannot be paid";
    /// The body is too long.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too long";
    /// The `Idempotency-Key` was used for something else.
    IdempotencyKeyReused = UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The Idempotency-Key was used with another body";
    /// Something broke.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something broke";
    /// It will work again soon.
    Unavailable = SERVICE_UNAVAILABLE, "unavailable", "Not available at the moment";
    /// There are too many requests.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once";
    /// The outcome of the command did not come in time.
    OutcomePending = GATEWAY_TIMEOUT, "outcome-pending", "The outcome is not known yet";
}

/// An answer that says what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    #[serde(skip)]
    kind: ProblemKind,
    /// The stable name of what went wrong.
    #[serde(rename = "type")]
    #[schema(schema_with = type_schema)]
    uri: &'static str,
    /// The same in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is particular to this case, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Of 503 and 504 to a command: the `Idempotency-Key` to ask again with.
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

/// The types of all kinds: what clients may go by.
fn type_schema() -> Object {
    let types = ProblemKind::ALL.iter().map(|kind| kind.uri());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The stable name of what went wrong."))
        .enum_values(Some(types))
        .examples(["urn:ticketing:problem:ticket-reserved"])
        .build()
}

impl Problem {
    /// A problem without a detail.
    #[must_use]
    pub fn new(kind: ProblemKind) -> Self {
        Self {
            kind,
            uri: kind.uri(),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail: None,
            idempotency_key: None,
        }
    }

    /// A problem with a detail.
    #[must_use]
    pub fn with_detail(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..Self::new(kind)
        }
    }

    /// The same problem with the key to ask again with, where asking again makes sense.
    #[must_use]
    pub fn ask_again_with(self, key: &str) -> Self {
        match self.kind {
            ProblemKind::Unavailable | ProblemKind::Overloaded | ProblemKind::OutcomePending => {
                Self {
                    idempotency_key: Some(key.to_owned()),
                    ..self
                }
            }
            _ => self,
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ProblemKind {
        self.kind
    }

    /// What an answer says that is no success; `not_found` is what a 404 is about.
    pub(super) fn of_answer(answer: &Answer, not_found: ProblemKind) -> Option<Self> {
        Some(match answer {
            Answer::TicketCreated(_)
            | Answer::TicketUpdated(_)
            | Answer::OrderPlaced(_)
            | Answer::OrderCancelled
            | Answer::PaymentMade(_) => return None,
            Answer::PaymentDeclined(_) => Self::new(ProblemKind::PaymentDeclined),
            Answer::NotFound => Self::new(not_found),
            Answer::Forbidden => Self::new(ProblemKind::Forbidden),
            Answer::Conflict(conflict) => Self::new(match conflict {
                Conflict::TicketExists => ProblemKind::TicketExists,
                Conflict::TicketReserved => ProblemKind::TicketReserved,
                Conflict::OrderFinished => ProblemKind::OrderFinished,
                Conflict::OrderNotPayable => ProblemKind::OrderNotPayable,
            }),
            Answer::Invalid(reason) => Self::with_detail(ProblemKind::InvalidValue, reason),
        })
    }
}

/// Goes with an answer that says that this side failed: for the log, which has no bodies.
#[derive(Debug, Clone)]
pub(super) struct FailureCause {
    pub(super) slug: &'static str,
    pub(super) detail: Option<String>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, kind) = (self.kind.status(), self.kind);
        let cause = status.is_server_error().then(|| FailureCause {
            slug: kind.slug(),
            detail: self.detail.clone(),
        });
        let key = self
            .idempotency_key
            .as_deref()
            .and_then(|key| HeaderValue::from_str(key).ok());
        let mut response = (status, Json(self)).into_response();
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        let headers = response.headers_mut();
        let content_type = HeaderValue::from_static(PROBLEM_JSON);
        headers.insert(header::CONTENT_TYPE, content_type);
        match kind {
            ProblemKind::Unauthenticated => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            ProblemKind::Unavailable | ProblemKind::Overloaded | ProblemKind::OutcomePending => {
                headers.insert(
                    header::RETRY_AFTER,
                    HeaderValue::from_static(RETRY_AFTER_SECONDS),
                );
            }
            _ => {}
        }
        if let Some(key) = key {
            headers.insert(super::idempotency::HEADER, key);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_type_of_its_own() {
        let uris: BTreeSet<_> = ProblemKind::ALL.iter().map(|kind| kind.uri()).collect();
        assert_eq!(uris.len(), ProblemKind::ALL.len());
        assert!(
            ProblemKind::ALL
                .iter()
                .all(|kind| kind.status().as_u16() >= 400)
        );
    }

    #[tokio::test]
    async fn a_problem_says_what_a_client_needs() {
        let problem = Problem::with_detail(ProblemKind::TicketReserved, "by somebody");
        let response = problem.into_response();
        assert_eq!(response.status(), 409);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:ticketing:problem:ticket-reserved",
            "title": "The ticket is reserved",
            "status": 409,
            "detail": "by somebody",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn what_fails_on_this_side_goes_with_its_cause_for_the_log() {
        let cause = |problem: Problem| {
            let response = problem.into_response();
            let cause = response.extensions().get::<FailureCause>();
            cause.map(|cause| (cause.slug, cause.detail.clone()))
        };
        let detail = "partition 3 is not available at the moment: nobody runs it";
        assert_eq!(
            cause(Problem::with_detail(ProblemKind::Unavailable, detail)),
            Some(("unavailable", Some(detail.to_owned())))
        );
        assert_eq!(
            cause(Problem::new(ProblemKind::Overloaded)),
            Some(("overloaded", None))
        );
        assert_eq!(cause(Problem::new(ProblemKind::TicketReserved)), None);
    }

    #[test]
    fn only_what_can_be_asked_again_names_the_key() {
        let pending = Problem::new(ProblemKind::OutcomePending)
            .ask_again_with("k")
            .into_response();
        assert_eq!(pending.headers()[super::super::idempotency::HEADER], "k");
        assert_eq!(pending.headers()[header::RETRY_AFTER], RETRY_AFTER_SECONDS);
        let reserved = Problem::new(ProblemKind::TicketReserved)
            .ask_again_with("k")
            .into_response();
        assert!(
            !reserved
                .headers()
                .contains_key(super::super::idempotency::HEADER)
        );
    }
}
