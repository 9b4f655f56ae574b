//! Tickets: created and edited by command, read by anybody.
//!
//! A ticket that was created or edited here can be ordered, at its new price, as soon as
//! that is answered: the answer waits until the catalog of Orders has caught up.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use turnstile_engine::Partition;
use turnstile_ticketing::commands::{TicketCommand, TicketWrite};
use turnstile_ticketing::ids::{OrderId, TicketId, UserId};
use turnstile_ticketing::orders::ListedTicket;
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::price::{Amount, Price};
use turnstile_ticketing::tickets::Ticket;
use turnstile_ticketing::{Service, TicketDraft, topics};
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::commands::{Submission, outcome_pending, outcome_unreadable};
use super::idempotency::IdempotencyKey;
use super::json::Json;
use super::page::{Page, PageQuery, Reading};
use super::path::IdPath;
use super::problem::{PROBLEM_JSON, Problem, ProblemKind};
use super::problem_responses::{
    BodyProblems, CommandProblems, IdProblems, PageProblems, ReadProblems, TicketProblems,
};
use super::running::{self, Runs};
use super::staleness::{MaxStale, MaxStaleParameter};
use crate::application::{Decider, Found, Listing};

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
        (status = 404, description = "Tickets is not run here", body = Problem, content_type = PROBLEM_JSON),
        (status = 409, description = "The ticket exists already", body = Problem, content_type = PROBLEM_JSON),
        CommandProblems, BodyProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn create(
    State(api): State<Api>,
    _: Runs<running::Tickets>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<Response, Problem> {
    let draft = draft(&body)?;
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
        (status = 403, description = "Not the owner", body = Problem, content_type = PROBLEM_JSON),
        CommandProblems, BodyProblems, ReadProblems, TicketProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn update(
    State(api): State<Api>,
    _: Runs<running::Tickets>,
    IdPath(ticket_id): IdPath<TicketId>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<Json<TicketView>, Problem> {
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
    params(("id" = String, Path, description = "The ticket"), MaxStaleParameter),
    responses(
        (status = 200, description = "The ticket", body = TicketView, headers(
            ("Age" = Option<u64>, description = "Where a standby answers: how stale it is, in seconds"),
            ("X-Records-Behind" = Option<u64>, description = "Where a standby answers: the changes that it may miss"),
        )),
        (status = 404, description = "No such ticket", body = Problem, content_type = PROBLEM_JSON),
        IdProblems, ReadProblems,
    ),
)]
pub async fn get(
    State(api): State<Api>,
    IdPath(id): IdPath<TicketId>,
    MaxStale(max_stale): MaxStale,
) -> Result<Found<Json<TicketView>>, Problem> {
    let application = api.application()?;
    let patience = api.patience_with(max_stale);
    let found = application.rows().ticket(&id, patience).await?;
    let not_found = || Problem::new(ProblemKind::TicketNotFound);
    found.try_map(|ticket| Ok(Json(ticket.ok_or_else(not_found)?.into())))
}

/// Lists the tickets.
#[utoipa::path(
    get, path = "/api/tickets", tag = "tickets", operation_id = "listTickets",
    params(PageQuery, MaxStaleParameter),
    responses(
        (status = 200, description = "A page of tickets", body = Page<TicketView>, headers(
            ("Age" = Option<u64>, description = "Where a standby answers: how stale it is, in seconds"),
            ("X-Records-Behind" = Option<u64>, description = "Where a standby answers: the changes that it may miss"),
        )),
        PageProblems,
    ),
)]
pub async fn list(
    State(api): State<Api>,
    page: PageQuery,
    MaxStale(max_stale): MaxStale,
) -> Result<Found<Json<Page<TicketView>>>, Problem> {
    let part = page.part(Listing::Tickets)?;
    let (application, patience) = (api.application()?, api.patience_of_page(max_stale));
    let rows = application.rows();
    let read = |partition: Partition, after: Option<String>, limit: usize| -> Reading<'_, Ticket> {
        Box::pin(async move {
            let after = after.and_then(|id| TicketId::new(id).ok());
            rows.tickets_in(partition, after.as_ref(), limit, patience)
                .await
        })
    };
    let partitions = rows.partitions(Listing::Tickets)?;
    let found = part
        .gather(partitions, read, |ticket| ticket.id.as_str().to_owned())
        .await?;
    Ok(found.map(|page| Json(page.map(TicketView::from))))
}

fn draft(body: &Body) -> Result<TicketDraft, Problem> {
    let TicketFields { title, price } = body.json()?;
    let draft = TicketDraft { title, price };
    draft
        .terms()
        .map_err(|invalid| Problem::with_detail(ProblemKind::InvalidValue, invalid.to_string()))?;
    Ok(draft)
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
            orderable(api, name, &ticket, deadline)
                .await
                .map_err(|problem| problem.ask_again_with(key.as_str()))?;
            Ok(ticket.into())
        }
        _ => Err(super::commands::unexpected_answer(name)),
    }
}

/// Waits until Orders knows the ticket as it is now.
async fn orderable(
    api: &Api,
    name: &'static str,
    ticket: &Ticket,
    deadline: Instant,
) -> Result<(), Problem> {
    if !api.instance().runs(Service::Orders) {
        return Ok(());
    }
    // The command is written: whatever is wrong now, it is not to be repeated as another.
    let application = api.application().map_err(|_| outcome_pending())?;
    let is_current = |listed: Option<ListedTicket>| {
        let terms = listed?.terms;
        let is_current = terms.covers(ticket.version, &ticket.title, ticket.price);
        is_current.then_some(())
    };
    let waited = application
        .rows()
        .await_listed_ticket(&ticket.id, deadline, is_current)
        .await
        .map_err(|failure| outcome_unreadable(name, &failure))?;
    waited.ok_or_else(outcome_pending)
}
