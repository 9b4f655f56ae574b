//! Orders: a buyer's hold on a ticket.
//!
//! The id of an order that is created here is chosen so that its rows are kept where those
//! of its ticket are: a request that waits for both then waits for one instance.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use turnstile_engine::Partition;
use turnstile_ticketing::commands::{OrderCancel, OrderCreate};
use turnstile_ticketing::ids::{CommandId, OrderId, PaymentId, TicketId, UserId};
use turnstile_ticketing::orders::{ListedTicket, Order, OrderStatus};
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::price::Price;
use turnstile_ticketing::{Service, iso8601, topics};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::commands::{Submission, outcome_pending, outcome_unreadable, unexpected_answer};
use super::idempotency::IdempotencyKey;
use super::json::Json;
use super::page::{Page, PageQuery, Reading};
use super::path::IdPath;
use super::problem::{PROBLEM_JSON, Problem, ProblemKind};
use super::problem_responses::{
    BodyProblems, CommandProblems, IdProblems, KeyProblems, OrderProblems, PageProblems,
    ReadProblems, TicketProblems,
};
use super::running::{self, Runs};
use super::staleness::{MaxStale, MaxStaleParameter};
use crate::application::{Decider, Found, Listing, Rows};

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
    #[schema(schema_with = status_schema)]
    status: &'static str,
    /// When it is cancelled unless it is paid: ISO-8601, UTC.
    #[schema(example = "2026-01-31T09:30:00.000Z")]
    expires_at: String,
    /// From 0, one more with each published change.
    version: u64,
    /// Its ticket, as it was when it was reserved.
    ticket: OrderedTicketView,
    /// What the payment gateway calls the payment that it was paid with or, until then, the one that was begun;
    /// not the id that `createPayment` answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    payment_id: Option<PaymentId>,
    /// True where a payment was found that has to be given back; it stays so when that is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_due: Option<bool>,
}

fn status_schema() -> Object {
    let statuses = OrderStatus::ALL.map(OrderStatus::as_str);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(
            "Where it is in its life; `completed`, `failed` and `cancelled` are final.",
        ))
        .enum_values(Some(statuses))
        .build()
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
        CommandProblems, BodyProblems, ReadProblems, TicketProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn create(
    State(api): State<Api>,
    _: Runs<running::Orders>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Problem> {
    let OrderFields { ticket_id } = body.json()?;
    let ticket_id = TicketId::new(ticket_id).map_err(|invalid| {
        Problem::with_detail(ProblemKind::InvalidValue, format!("ticketId: {invalid}"))
    })?;
    let ask_again = |problem: Problem| problem.ask_again_with(key.as_str());
    let application = api.application().map_err(ask_again)?;
    let rows = application.rows();
    let order_id = order_beside(rows, &ticket_id, &key.command(&caller));
    // This also shows, before anything is written, whether the order can be read.
    let existing = rows.order(&order_id, api.patience()).await;
    let existing = existing.map_err(Problem::from).map_err(ask_again)?.value;
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
    let order = rows.await_order(&id, deadline, |order| order).await;
    let order = order.map_err(|failure| ask_again(outcome_unreadable("order.create", &failure)))?;
    let order = order.ok_or_else(|| ask_again(outcome_pending()))?;
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
    params(("id" = String, Path, description = "The order"), MaxStaleParameter),
    responses(
        (status = 200, description = "The order", body = OrderView, headers(
            ("Age" = Option<u64>, description = "Where a standby answers: how stale it is, in seconds"),
            ("X-Records-Behind" = Option<u64>, description = "Where a standby answers: the changes that it may miss"),
        )),
        IdProblems, ReadProblems, OrderProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn get(
    State(api): State<Api>,
    IdPath(id): IdPath<OrderId>,
    Caller(caller): Caller,
    MaxStale(max_stale): MaxStale,
) -> Result<Found<Json<OrderView>>, Problem> {
    let application = api.application()?;
    let patience = api.patience_with(max_stale);
    let found = application.rows().order(&id, patience).await?;
    found.try_map(|order| {
        let order = order.ok_or_else(|| Problem::new(ProblemKind::OrderNotFound))?;
        if order.user_id != caller {
            return Err(Problem::new(ProblemKind::Forbidden));
        }
        Ok(Json(order.into()))
    })
}

/// Lists the caller's orders.
#[utoipa::path(
    get, path = "/api/orders", tag = "orders", operation_id = "listOrders",
    params(PageQuery, MaxStaleParameter),
    responses(
        (status = 200, description = "A page of the caller's orders", body = Page<OrderView>, headers(
            ("Age" = Option<u64>, description = "Where a standby answers: how stale it is, in seconds"),
            ("X-Records-Behind" = Option<u64>, description = "Where a standby answers: the changes that it may miss"),
        )),
        (status = 401, description = "The caller is not known", body = Problem, content_type = PROBLEM_JSON),
        PageProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn list(
    State(api): State<Api>,
    Caller(caller): Caller,
    page: PageQuery,
    MaxStale(max_stale): MaxStale,
) -> Result<Found<Json<Page<OrderView>>>, Problem> {
    let part = page.part(Listing::Orders)?;
    let (application, patience) = (api.application()?, api.patience_of_page(max_stale));
    let rows = application.rows();
    let caller = &caller;
    let read = |partition: Partition, after: Option<String>, limit: usize| -> Reading<'_, Order> {
        Box::pin(async move {
            let after = after.and_then(|id| OrderId::new(id).ok());
            rows.orders_in(partition, caller, after.as_ref(), limit, patience)
                .await
        })
    };
    let partitions = rows.partitions(Listing::Orders)?;
    let found = part
        .gather(partitions, read, |order| order.id.as_str().to_owned())
        .await?;
    Ok(found.map(|page| Json(page.map(OrderView::from))))
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
        (status = 409, description = "It has ended", body = Problem, content_type = PROBLEM_JSON),
        CommandProblems, KeyProblems, ReadProblems, OrderProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn cancel(
    State(api): State<Api>,
    _: Runs<running::Orders>,
    IdPath(order_id): IdPath<OrderId>,
    Caller(caller): Caller,
    key: IdempotencyKey,
) -> Result<StatusCode, Problem> {
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
fn order_beside(rows: &Rows, ticket: &TicketId, command: &CommandId) -> OrderId {
    let first = OrderId::named_by(command);
    let further = (1..ORDER_IDS_MAX).filter_map(|number| {
        let command = CommandId::new(format!("{command}-{number}")).ok()?;
        Some(OrderId::named_by(&command))
    });
    let mut ids = std::iter::once(first.clone()).chain(further);
    ids.find(|order| rows.are_neighbours(ticket, order))
        .unwrap_or(first)
}

/// Waits until an order that has got its last command or payment shows it, and its
/// ticket is free unless it is completed, to be ordered and to be edited. The caller's answer is certain already, so
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
    let application = api.application()?;
    let rows = application.rows();
    let is_final = |order: Option<Order>| order.filter(|order| order.status.is_final());
    let Some(order) = rows.await_order(id, deadline, is_final).await? else {
        return Ok(None);
    };
    if order.status.holds_ticket() {
        return Ok(Some(()));
    }
    let is_free = |listed: Option<ListedTicket>| {
        let listed = listed.as_ref();
        let holder = listed.and_then(ListedTicket::given_to);
        (holder != Some(id)).then_some(())
    };
    let ticket = &order.ticket.id;
    let listed = rows.await_listed_ticket(ticket, deadline, is_free).await?;
    if listed.is_none() || !api.instance().runs(Service::Tickets) {
        return Ok(listed);
    }
    Ok(rows.await_end_at_ticket(ticket, id, deadline).await?)
}
