//! The routes, and what surrounds them all.

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::post;
use utoipa::OpenApi;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::{Problem, ProblemKind};
use super::surround::Surround;
use super::{Api, internal, operations, orders, payments, tickets};
use crate::peers::wire::READ_PATH;

#[derive(OpenApi)]
#[openapi(info(
    title = "Ticketing",
    description = "Tickets, orders and payments. Errors are RFC 9457 problem documents with stable types.",
))]
struct Document;

/// How callers say who they are; each route that names the first takes the second too.
fn add_security(document: &mut utoipa::openapi::OpenApi) {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "HS256, signed with JWT_KEY; the claim id or sub is the caller.",
        ))
        .build();
    let header = ApiKeyValue::with_description(
        "X-User-Id",
        "The caller; believed only by instances in development, with --dev-auth.",
    );
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme(
        "development",
        SecurityScheme::ApiKey(ApiKey::Header(header)),
    );
    let items = document.paths.paths.values_mut();
    let operations = items.flat_map(|item| {
        [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ]
    });
    for security in operations.flatten().filter_map(|it| it.security.as_mut()) {
        let nothing: [&str; 0] = [];
        security.push(SecurityRequirement::new("development", nothing));
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
        .routes(routes!(operations::cluster))
        .routes(routes!(operations::openapi))
}

/// The OpenAPI document of all routes, as JSON.
#[must_use]
pub fn openapi() -> String {
    let mut document = api_routes().merge(operations_routes()).into_openapi();
    add_security(&mut document);
    document
        .to_pretty_json()
        .expect("the document is plain data")
}

/// Everything that is served.
pub fn router(api: Api) -> Router {
    let (api_routes, _) = api_routes().split_for_parts();
    let (operations_routes, _) = operations_routes().split_for_parts();
    let internal_routes = Router::new().route(READ_PATH, post(internal::read));
    api_routes
        .merge(operations_routes)
        .merge(internal_routes)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(Surround::new(&api))
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
