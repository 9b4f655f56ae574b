//! The problems that routes have in common, for the OpenAPI document.
//!
//! A route names the sets that apply to it, and spells out only what is particular to
//! it. The status and the words come from the kinds, so they are those that are answered.

use std::collections::BTreeMap;

use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::problem::{PROBLEM_JSON, Problem, ProblemKind};

macro_rules! sets {
    ($($(#[$doc:meta])* $set:ident = $($kind:ident),+;)+) => {$(
        $(#[$doc])*
        pub struct $set;

        impl IntoResponses for $set {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$(ProblemKind::$kind),+])
            }
        }
    )+};
}

sets! {
    /// Of what writes a command and awaits its outcome.
    CommandProblems = Unauthenticated, RouteNotFound, Internal, Unavailable, OutcomePending;
    /// Of a command that has no body.
    KeyProblems = InvalidIdempotencyKey, IdempotencyKeyReused;
    /// Of one that has.
    BodyProblems = InvalidBody, InvalidValue, InvalidIdempotencyKey, RequestTimeout, BodyTooLarge, IdempotencyKeyReused;
    /// Of what names something by its id in the path.
    IdProblems = InvalidParameter;
    /// Of what reads rows, which nobody may be able to give at the moment.
    ReadProblems = RouteNotFound, Internal, Unavailable;
    /// Of a list.
    PageProblems = InvalidParameter, RouteNotFound, Internal, Unavailable;
    /// Of what needs a ticket that is not reserved.
    TicketProblems = TicketNotFound, TicketReserved;
    /// Of what needs an order of the caller's.
    OrderProblems = Unauthenticated, Forbidden, OrderNotFound;
}

fn header(of: Type, description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(of)))
        .description(Some(description))
        .build()
}

/// A response for each status, which says all that it can mean.
fn responses(kinds: &[ProblemKind]) -> BTreeMap<String, RefOr<Response>> {
    let mut meanings: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for kind in kinds {
        let status = kind.status().as_str().to_owned();
        meanings.entry(status).or_default().push(kind.title());
    }
    let response = |status: &str, meanings: Vec<&str>| {
        let body = Content::new(Some(Ref::from_schema_name(Problem::name())));
        let mut response = ResponseBuilder::new()
            .description(meanings.join("; "))
            .content(PROBLEM_JSON, body);
        if matches!(status, "503" | "504") {
            response = response
                .header("Retry-After", header(Type::Integer, "In so many seconds"))
                .header(
                    "Idempotency-Key",
                    header(Type::String, "Of a command: the key to ask again with"),
                );
        }
        response.build()
    };
    let described = meanings.into_iter();
    described
        .map(|(status, meanings)| {
            let response = response(&status, meanings);
            (status, response.into())
        })
        .collect()
}
