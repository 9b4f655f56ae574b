//! Tickets: created and edited by command, read by anybody.
//!
//! A ticket that was created or edited here can be ordered, at its new price, as soon as
//! that is answered: the answer waits until the catalog of Orders has caught up.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use turnstile_engine::Partition;
use turnstile_ticketing::commands::{TicketCommand, TicketWrite};
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::price::{Amount, Price};
use turnstile_ticketing::tickets::Ticket;
use turnstile_ticketing::{Service, TicketDraft, topics};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::commands::{Submission, outcome_pending};
use super::idempotency::IdempotencyKey;
use super::page::{Page, PageQuery};
use super::path::IdPath;
use super::problem::{Problem, ProblemKind};
use crate::application::{Application, Decider, Listing, Row, Unavailable};

/// How many keys are made up in search of one whose ticket belongs here.
const KEYS_MADE_UP_MAX: usize = 256;

/// What a ticket is to be called and to cost.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TicketFields {
    /// Its title, not blank, of at most 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    /// Its price, at least 0.
    #[schema(value_type = f64, minimum = 0, maximum = 1_000_000_000)]
    price: Amount,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Ticket)]
pub struct TicketView {
    /// The ticket.
    #[schema(value_type = String)]
    id: TicketId,
    /// Its title.
    title: String,
    /// Its price.
    #[schema(value_type = f64)]
    price: Price,
    /// Its owner.
    #[schema(value_type = String)]
    user_id: UserId,
    /// From 0, one more with each published change.
    version: u64,
    /// The order that it is reserved for, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    order_id: Option<OrderId>,
}

impl From<Ticket> for TicketView {
    fn from(ticket: Ticket) -> Self {
        let order_id = ticket.held_by().cloned();
        let Ticket {
            id,
            title,
            price,
            user_id,
            version,
            ..
        } = ticket;
        Self {
            id,
            title,
            price,
            user_id,
            version,
            order_id,
        }
    }
}

/// Creates a ticket.
#[utoipa::path(
    post, path = "/api/tickets", tag = "tickets", operation_id = "createTicket",
    request_body = TicketFields,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same command")),
    responses(
        (status = 201, description = "The ticket", body = TicketView, headers(("Location" = String))),
        (status = 400, description = "Malformed or invalid body", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
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
    api.require(Service::Tickets)?;
    let draft = draft(&body)?;
    let application = api.application()?;
    let key = if key.is_given() {
        key
    } else {
        key_that_belongs_here(application.as_ref(), &caller)
    };
    let ticket_id = TicketId::named_by(&key.command(&caller));
    let write = TicketWrite {
        ticket_id,
        draft,
        user_id: caller.clone(),
    };
    let ticket = written(
        &api,
        &caller,
        &key,
        "ticket.create",
        TicketCommand::Create(write),
    )
    .await?;
    let location = HeaderValue::from_str(&format!("/api/tickets/{}", ticket.id))
        .expect("the id of a ticket that is made here is a UUID");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(ticket),
    )
        .into_response())
}

/// Edits a ticket.
#[utoipa::path(
    put, path = "/api/tickets/{id}", tag = "tickets", operation_id = "updateTicket",
    request_body = TicketFields,
    params(
        ("id" = String, Path, description = "The ticket"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same command"),
    ),
    responses(
        (status = 200, description = "The ticket as it is now", body = TicketView),
        (status = 400, description = "Malformed or invalid body", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The caller is not known", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not the owner", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such ticket", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Reserved", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns it", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The key was used with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "No outcome yet", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub async fn update(
    State(api): State<Api>,
    IdPath(ticket_id): IdPath<TicketId>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<Json<TicketView>, Problem> {
    api.require(Service::Tickets)?;
    let write = TicketWrite {
        ticket_id,
        draft: draft(&body)?,
        user_id: caller.clone(),
    };
    written(
        &api,
        &caller,
        &key,
        "ticket.update",
        TicketCommand::Update(write),
    )
    .await
    .map(Json)
}

/// Reads a ticket.
#[utoipa::path(
    get, path = "/api/tickets/{id}", tag = "tickets", operation_id = "getTicket",
    params(("id" = String, Path, description = "The ticket")),
    responses(
        (status = 200, description = "The ticket", body = TicketView),
        (status = 404, description = "No such ticket", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns it", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn get(
    State(api): State<Api>,
    IdPath(id): IdPath<TicketId>,
) -> Result<Json<TicketView>, Problem> {
    let ticket = api.read(|application| application.ticket(&id)).await?;
    let ticket = ticket.ok_or_else(|| Problem::new(ProblemKind::TicketNotFound))?;
    Ok(Json(ticket.into()))
}

/// Lists the tickets.
#[utoipa::path(
    get, path = "/api/tickets", tag = "tickets", operation_id = "listTickets",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of tickets", body = Page<TicketView>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 421, description = "Another instance owns the next partition", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not available", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    page: PageQuery,
) -> Result<Json<Page<TicketView>>, Problem> {
    let (position, limit) = (page.position(Listing::Tickets)?, page.limit()?);
    let look = move |application: &dyn Application| {
        let rows = |partition: Partition, after: Option<&str>, limit| {
            let after = after.and_then(|id| TicketId::new(id).ok());
            application.tickets_in(partition, after.as_ref(), limit)
        };
        super::page::read(
            application,
            Listing::Tickets,
            &position,
            limit,
            rows,
            |ticket| ticket.id.as_str().to_owned(),
        )
    };
    Ok(Json(api.read_many(look).await?.map(TicketView::from)))
}

fn draft(body: &Body) -> Result<TicketDraft, Problem> {
    let TicketFields { title, price } = body.json()?;
    let draft = TicketDraft { title, price };
    draft
        .terms()
        .map_err(|invalid| Problem::with_detail(ProblemKind::InvalidValue, invalid.to_string()))?;
    Ok(draft)
}

/// A key whose ticket this instance owns, so that it can tell the outcome.
fn key_that_belongs_here(application: &dyn Application, caller: &UserId) -> IdempotencyKey {
    let mut key = IdempotencyKey::made_up();
    for _ in 0..KEYS_MADE_UP_MAX {
        let ticket = TicketId::named_by(&key.command(caller));
        if !matches!(
            application.ticket(&ticket),
            Err(Unavailable::Elsewhere { .. })
        ) {
            break;
        }
        key = IdempotencyKey::made_up();
    }
    key
}

/// The ticket that a command has written, once it can be ordered like that.
async fn written(
    api: &Api,
    caller: &UserId,
    key: &IdempotencyKey,
    name: &'static str,
    body: TicketCommand,
) -> Result<TicketView, Problem> {
    let deadline = api.deadline();
    let submission = Submission {
        name,
        decider: Decider::Tickets,
        topic: topics::TICKET_COMMANDS,
        key,
        caller,
        body,
        not_found: ProblemKind::TicketNotFound,
        refusal: None,
        deadline,
    };
    match api.decide(submission).await? {
        Answer::TicketCreated(ticket) | Answer::TicketUpdated(ticket) => {
            orderable(api, &ticket, deadline)
                .await
                .map_err(|problem| problem.ask_again_with(key.as_str()))?;
            Ok(ticket.into())
        }
        _ => Err(super::commands::unexpected_answer(name)),
    }
}

/// Waits until Orders knows the ticket as it is now.
async fn orderable(api: &Api, ticket: &Ticket, deadline: Instant) -> Result<(), Problem> {
    if !api.instance().runs(Service::Orders) {
        return Ok(());
    }
    let row = Row::CatalogEntry(ticket.id.clone());
    let look = |application: &dyn Application| match application.catalog_entry(&ticket.id) {
        Ok(entry) => Ok(entry
            .filter(|entry| entry.version >= ticket.version)
            .map(|_| ())),
        // The owner of the catalog is another instance, which cannot be asked from here.
        Err(Unavailable::Elsewhere { .. }) => Ok(Some(())),
        Err(error) => Err(error),
    };
    api.wait_for(&row, deadline, look)
        .await?
        .ok_or_else(outcome_pending)
}
