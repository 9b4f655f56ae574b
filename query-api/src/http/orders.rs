//! Orders: a buyer's hold on a ticket.
//!
//! The id of an order that is made here is chosen so that its rows lie where those of
//! its ticket do: the instance that reserves the ticket can then answer with the order.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use turnstile_engine::Partition;
use turnstile_ticketing::commands::{OrderCancel, OrderCreate};
use turnstile_ticketing::ids::{CommandId, OrderId, PaymentId, TicketId, UserId};
use turnstile_ticketing::orders::Order;
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::price::Price;
use turnstile_ticketing::{Service, iso8601, topics};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::commands::{Submission, outcome_pending, unexpected_answer};
use super::idempotency::IdempotencyKey;
use super::page::{Page, PageQuery};
use super::path::IdPath;
use super::problem::{Problem, ProblemKind};
use crate::application::{Application, Decider, Listing, Row, Unavailable};

/// How many ids are tried for an order that is to lie beside its ticket.
const ORDER_IDS_MAX: usize = 4096;

/// What is to be ordered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderFields {
    /// The ticket.
    ticket_id: String,
}

/// An order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub struct OrderView {
    /// The order.
    #[schema(value_type = String)]
    id: OrderId,
    /// Its buyer.
    #[schema(value_type = String)]
    user_id: UserId,
    /// `created`, `pending_payment`, `completed`, `failed` or `cancelled`.
    #[schema(example = "created")]
    status: &'static str,
    /// When it is cancelled unless it is paid: ISO-8601, UTC.
    #[schema(example = "2026-01-31T09:30:00.000Z")]
    expires_at: String,
    /// From 0, one more with each published change.
    version: u64,
    /// Its ticket, as it was when it was reserved.
    ticket: OrderedTicketView,
    /// The payment that it was paid with or, until then, the last one that was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    payment_id: Option<PaymentId>,
    /// True where a payment has to be given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_due: Option<bool>,
}

/// A ticket as it was when it was reserved.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderedTicket)]
pub struct OrderedTicketView {
    /// The ticket.
    #[schema(value_type = String)]
    id: TicketId,
    /// Its title.
    title: String,
    /// Its price.
    #[schema(value_type = f64)]
    price: Price,
}

impl From<Order> for OrderView {
    fn from(order: Order) -> Self {
        let ticket = order.ticket;
        Self {
            id: order.id,
            user_id: order.user_id,
            status: order.status.as_str(),
            expires_at: iso8601(order.expires_at),
            version: order.version,
            ticket: OrderedTicketView {
                id: ticket.id,
                title: ticket.title,
                price: ticket.price,
            },
            payment_id: order.payment_id,
            refund_due: (!order.refunds_due.is_empty()).then_some(true),
        }
    }
}

/// Reserves a ticket.
#[utoipa::path(
    post, path = "/api/orders", tag = "orders", operation_id = "createOrder",
    request_body = OrderFields,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same command")),
    responses(
        (status = 201, description = "The order", body = OrderView, headers(("Location" = String))),
        (status = 400, description = "Malformed or invalid body", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such ticket", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Reserved", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "No outcome yet", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn create(
    State(api): State<Api>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Problem> {
    api.require(Service::Orders)?;
    let OrderFields { ticket_id } = body.json()?;
    let ticket_id = TicketId::new(ticket_id).map_err(|invalid| {
        Problem::with_detail(ProblemKind::InvalidValue, format!("ticketId: {invalid}"))
    })?;
    let order_id = order_beside(
        api.application()?.as_ref(),
        &ticket_id,
        &key.command(&caller),
    );
    // This also shows, before anything is written, whether the order could be read here.
    let existing = api.read(|application| application.order(&order_id)).await?;
    let for_another_ticket = |order: &Order| order.ticket.id != ticket_id;
    if existing.as_ref().is_some_and(for_another_ticket) {
        return Err(Problem::new(ProblemKind::IdempotencyKeyReused));
    }

    let deadline = api.deadline();
    let submission = Submission {
        name: "order.create",
        decider: Decider::Reservations,
        topic: topics::TICKET_COMMANDS,
        key: &key,
        caller: &caller,
        body: OrderCreate {
            order_id,
            ticket_id: ticket_id.clone(),
            user_id: caller.clone(),
        },
        not_found: ProblemKind::TicketNotFound,
        refusal: None,
        deadline,
    };
    let Answer::OrderPlaced(id) = api.decide(submission).await? else {
        return Err(unexpected_answer("order.create"));
    };
    let order = api
        .wait_for(&Row::Order(id.clone()), deadline, |application| {
            application.order(&id)
        })
        .await?;
    let order = order.ok_or_else(|| outcome_pending().ask_again_with(key.as_str()))?;
    if for_another_ticket(&order) {
        return Err(Problem::new(ProblemKind::IdempotencyKeyReused));
    }
    let location = HeaderValue::from_str(&format!("/api/orders/{id}"))
        .expect("the id of an order that is made here is a UUID");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(OrderView::from(order)),
    )
        .into_response())
}

/// Reads one of the caller's orders.
#[utoipa::path(
    get, path = "/api/orders/{id}", tag = "orders", operation_id = "getOrder",
    params(("id" = String, Path, description = "The order")),
    responses(
        (status = 200, description = "The order", body = OrderView),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Somebody else's", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn get(
    State(api): State<Api>,
    IdPath(id): IdPath<OrderId>,
    Caller(caller): Caller,
) -> Result<Json<OrderView>, Problem> {
    let order = api.read(|application| application.order(&id)).await?;
    let order = order.ok_or_else(|| Problem::new(ProblemKind::OrderNotFound))?;
    if order.user_id != caller {
        return Err(Problem::new(ProblemKind::Forbidden));
    }
    Ok(Json(order.into()))
}

/// Lists the caller's orders.
#[utoipa::path(
    get, path = "/api/orders", tag = "orders", operation_id = "listOrders",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of the caller's orders", body = Page<OrderView>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns the next partition", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    page: PageQuery,
) -> Result<Json<Page<OrderView>>, Problem> {
    let (position, limit) = (page.position(Listing::Orders)?, page.limit()?);
    let look = move |application: &dyn Application| {
        let rows = |partition: Partition, after: Option<&str>, limit| {
            let after = after.and_then(|id| OrderId::new(id).ok());
            application.orders_in(partition, &caller, after.as_ref(), limit)
        };
        super::page::read(
            application,
            Listing::Orders,
            &position,
            limit,
            rows,
            |order| order.id.as_str().to_owned(),
        )
    };
    Ok(Json(api.read_many(look).await?.map(OrderView::from)))
}

/// Cancels an order.
#[utoipa::path(
    delete, path = "/api/orders/{id}", tag = "orders", operation_id = "cancelOrder",
    params(
        ("id" = String, Path, description = "The order"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same command"),
    ),
    responses(
        (status = 204, description = "It is cancelled, and its ticket is free"),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Somebody else's", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such order", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It has ended", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "No outcome yet", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn cancel(
    State(api): State<Api>,
    IdPath(order_id): IdPath<OrderId>,
    Caller(caller): Caller,
    key: IdempotencyKey,
) -> Result<StatusCode, Problem> {
    api.require(Service::Orders)?;
    let deadline = api.deadline();
    let submission = Submission {
        name: "order.cancel",
        decider: Decider::LifeCycle,
        topic: topics::ORDER_COMMANDS,
        key: &key,
        caller: &caller,
        body: OrderCancel {
            order_id: order_id.clone(),
            user_id: caller.clone(),
        },
        not_found: ProblemKind::OrderNotFound,
        refusal: None,
        deadline,
    };
    api.decide(submission).await?;
    ended(&api, &order_id, deadline).await;
    Ok(StatusCode::NO_CONTENT)
}

/// The id of the order that `command` makes: the first of a series that lies beside `ticket`.
fn order_beside(application: &dyn Application, ticket: &TicketId, command: &CommandId) -> OrderId {
    let first = OrderId::named_by(command);
    let further = (1..ORDER_IDS_MAX).filter_map(|number| {
        let command = CommandId::new(format!("{command}-{number}")).ok()?;
        Some(OrderId::named_by(&command))
    });
    let mut ids = std::iter::once(first.clone()).chain(further);
    ids.find(|order| application.are_neighbours(ticket, order))
        .unwrap_or(first)
}

/// Waits until an order that has got its last command or payment shows it, and its
/// ticket is free unless it is completed. The caller's answer is certain already, so
/// nothing that is slow or elsewhere changes it.
pub(super) async fn ended(api: &Api, id: &OrderId, deadline: Instant) {
    let waited = until_ended(api, id, deadline).await;
    if !matches!(waited, Ok(Some(()))) {
        tracing::debug!(order = %id, "answered before the order's end shows everywhere");
    }
}

async fn until_ended(api: &Api, id: &OrderId, deadline: Instant) -> Result<Option<()>, Problem> {
    if !api.instance().runs(Service::Orders) {
        return Ok(Some(()));
    }
    let look = |application: &dyn Application| match application.order(id) {
        Ok(order) => Ok(order.filter(|order| order.status.is_final()).map(Some)),
        Err(Unavailable::Elsewhere { .. }) => Ok(Some(None)),
        Err(error) => Err(error),
    };
    let order = api
        .wait_for(&Row::Order(id.clone()), deadline, look)
        .await?;
    let Some(order) = order else { return Ok(None) };
    let Some(order) = order.filter(|order| !order.status.holds_ticket()) else {
        return Ok(Some(()));
    };
    let ticket = order.ticket.id;
    let look = |application: &dyn Application| match application.reservation(&ticket) {
        Ok(holder) => Ok((holder.as_ref() != Some(id)).then_some(())),
        Err(Unavailable::Elsewhere { .. }) => Ok(Some(())),
        Err(error) => Err(error),
    };
    api.wait_for(&Row::Reservation(ticket.clone()), deadline, look)
        .await
}
