//! The routes, and what surrounds them all.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, Method, Uri};
use axum::middleware::from_fn_with_state;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::BODY_BYTES_MAX;
use super::problem::{Problem, ProblemKind};
use super::{Api, limits, observe, operations, orders, payments, tickets};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ticketing",
        description = "Tickets, orders and payments. Errors are RFC 9457 problem documents with stable types.",
    ),
    modifiers(&Bearer),
)]
struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

fn api_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tickets::create, tickets::list))
        .routes(routes!(tickets::get, tickets::update))
        .routes(routes!(orders::create, orders::list))
        .routes(routes!(orders::get, orders::cancel))
        .routes(routes!(payments::create))
}

fn operations_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(operations::live))
        .routes(routes!(operations::ready))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::topology))
        .routes(routes!(operations::openapi))
}

/// The OpenAPI document of all routes, as JSON.
#[must_use]
pub fn openapi() -> String {
    let document = api_routes().merge(operations_routes()).into_openapi();
    document
        .to_pretty_json()
        .expect("the document is plain data")
}

/// Everything that is served.
pub fn router(api: Api) -> Router {
    // Probes and metrics are answered also when there are too many requests.
    let (api_routes, _) = api_routes().split_for_parts();
    let api_routes = api_routes.layer(from_fn_with_state(api.clone(), limits::admit));
    let (operations_routes, _) = operations_routes().split_for_parts();
    let request_id = HeaderName::from_static("x-request-id");
    api_routes
        .merge(operations_routes)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(limits::panicked))
        .layer(from_fn_with_state(api.clone(), observe::observe))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(api)
}

async fn no_route(uri: Uri) -> Problem {
    Problem::with_detail(
        ProblemKind::RouteNotFound,
        format!("there is nothing at {}", uri.path()),
    )
}

async fn no_method(method: Method) -> Problem {
    Problem::with_detail(ProblemKind::MethodNotAllowed, format!("not {method}"))
}
