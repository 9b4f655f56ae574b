//! Which write routes there are: those of the services that run here.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use turnstile_ticketing::Service;

use super::Api;
use super::problem::{Problem, ProblemKind};

/// The service of a route, which is 404 if the service does not run here. It comes first among
/// what a route extracts: if the route does not exist, nothing else about the request is judged.
pub struct Runs<S>(PhantomData<S>);

/// A service, as a type.
pub trait OfService {
    /// Which one it is.
    const SERVICE: Service;
}

/// Tickets, as a type.
pub enum Tickets {}
/// Orders, as a type.
pub enum Orders {}
/// Payments, as a type.
pub enum Payments {}

impl OfService for Tickets {
    const SERVICE: Service = Service::Tickets;
}
impl OfService for Orders {
    const SERVICE: Service = Service::Orders;
}
impl OfService for Payments {
    const SERVICE: Service = Service::Payments;
}

impl<S: OfService> FromRequestParts<Api> for Runs<S> {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if api.instance().runs(S::SERVICE) {
            return Ok(Self(PhantomData));
        }
        let detail = format!("the service {} is not run here", S::SERVICE);
        Err(Problem::with_detail(ProblemKind::RouteNotFound, detail))
    }
}
