//! What surrounds every route, from outside in:
//!
//! 1. The request gets an id, which its answer carries, and is counted as in flight.
//! 2. If it is to the API, it is admitted, or turned away at once. So is whatever comes over
//!    HTTP/2, except for what other instances ask. Over HTTP/2 it has its place until its answer
//!    is sent, since a connection has many answers at a time.
//! 3. It is answered within a limited time, even if something panics.
//! 4. It is counted, timed and logged by its route, be it answered or given up by its client.
//!
//! All of it is one service with one future: as separate layers these four would cost
//! every request several allocations and copies each.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderName;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::{Layer, Service};

use super::limits::{Room, Streams};
use super::measures::RouteMeasures;
use super::observe::{Observed, Unanswered};
use super::problem::Problem;
use super::server::Crowded;
use super::{Api, limits, request_id, unsent};
use crate::application::BoxFuture;
use crate::peers::origin::Origin;
use crate::peers::wire::HOP_HEADER;

/// Says that the request is from another instance.
const HOP: HeaderName = HeaderName::from_static(HOP_HEADER);

/// The layer around all routes.
#[derive(Clone)]
pub(super) struct Surround {
    api: Api,
}

impl Surround {
    pub(super) fn new(api: &Api) -> Self {
        Self { api: api.clone() }
    }
}

impl<S> Layer<S> for Surround {
    type Service = Surrounded<S>;

    fn layer(&self, route: S) -> Surrounded<S> {
        let around = Around {
            api: self.api.clone(),
            measures: RouteMeasures::default(),
        };
        Surrounded {
            route,
            around: Arc::new(around),
        }
    }
}

/// A route and what surrounds it. It is cloned for each request, so what it shares has a single
/// reference count: cores pass every such count back and forth.
#[derive(Clone)]
pub(super) struct Surrounded<S> {
    route: S,
    around: Arc<Around>,
}

struct Around {
    api: Api,
    measures: RouteMeasures,
}

/// The room for requests to the API.
struct ApiRoom(Arc<Around>);

impl AsRef<Room> for ApiRoom {
    fn as_ref(&self) -> &Room {
        &self.0.api.shared.room
    }
}

impl<S> Service<Request> for Surrounded<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let around = self.around.clone();
        // 1.
        let id = request_id::of(request.headers());
        let observed = Observed::begin(&request);
        let is_crowded = request.extensions().get::<Crowded>().is_some();
        let streams = request.extensions_mut().remove::<Streams>();
        let has_hopped = request.headers().contains_key(HOP);
        let origin = Origin::new(id.clone(), has_hopped);
        let answer = self.route.call(request);
        Box::pin(async move {
            let Around { api, measures } = around.as_ref();
            let answer = pin!(answer);
            let _in_flight = api.measures().in_flight();
            let unanswered = Unanswered {
                observed: &observed,
                api,
                measures,
                id: &id,
            };
            // 2.
            let streams = streams.filter(|_| !observed.is_of_instances());
            let admitted = || {
                let place = observed.is_of_api().then(|| limits::admit(api, is_crowded));
                let place = place.transpose()?;
                let stream = streams.map(|streams| limits::admit_stream(api, streams));
                Ok::<_, Problem>((place, stream.transpose()?))
            };
            // 3.
            let mut response = match admitted() {
                Ok((place, stream)) => {
                    let bounded = limits::bounded(api, answer);
                    let caught = AssertUnwindSafe(origin.scope(bounded)).catch_unwind();
                    let response = caught.await.unwrap_or_else(limits::panicked);
                    match stream {
                        Some(stream) => {
                            let place = place.map(|place| place.kept_in(ApiRoom(around.clone())));
                            response.map(|body| unsent::holding(body, (place, stream)))
                        }
                        None => response,
                    }
                }
                Err(overloaded) => overloaded.into_response(),
            };
            response
                .headers_mut()
                .insert(request_id::HEADER, id.clone());
            // 4.
            unanswered.end(&response);
            Ok(response)
        })
    }
}
