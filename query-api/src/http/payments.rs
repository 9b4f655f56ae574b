//! Payments: an order is paid, or the attempt fails it.
//!
//! The answer waits until the order shows the result, so that the next reader finds
//! it completed or failed, and in the latter case its ticket free.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use turnstile_ticketing::commands::PaymentCreate;
use turnstile_ticketing::ids::{InvalidId, OrderId, PaymentRecordId, Token, UserId};
use turnstile_ticketing::orders::Order;
use turnstile_ticketing::outcome::Answer;
use turnstile_ticketing::topics;
use utoipa::ToSchema;

use super::Api;
use super::body::Body;
use super::caller::Caller;
use super::commands::{Submission, unexpected_answer};
use super::idempotency::IdempotencyKey;
use super::orders::ended;
use super::problem::{PROBLEM_JSON, Problem, ProblemKind};
use super::problem_responses::{BodyProblems, CommandProblems, OrderProblems, ReadProblems};
use super::running::{self, Runs};
use crate::application::{Decider, Patience};

/// How long it may take to see whether an order has ended.
const GLANCE: Duration = Duration::from_millis(100);

/// What is to be paid, and with what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentFields {
    /// The order.
    order_id: String,
    /// What the payment gateway is to charge; `tok_chargeDeclined` is declined.
    token: String,
}

/// A payment that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentView {
    /// The id of its `payment.created`.
    #[schema(value_type = String)]
    id: PaymentRecordId,
}

/// Pays an order.
#[utoipa::path(
    post, path = "/api/payments", tag = "payments", operation_id = "createPayment",
    request_body = PaymentFields,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a retry the same command")),
    responses(
        (status = 201, description = "The payment", body = PaymentView),
        (status = 402, description = "Declined; the order has failed", body = Problem, content_type = PROBLEM_JSON),
        (status = 409, description = "Not payable", body = Problem, content_type = PROBLEM_JSON),
        CommandProblems, BodyProblems, ReadProblems, OrderProblems,
    ),
    security(("bearer" = [])),
)]
pub async fn create(
    State(api): State<Api>,
    _: Runs<running::Payments>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let PaymentFields { order_id, token } = body.json()?;
    let invalid = |field: &'static str| {
        move |why: InvalidId| {
            Problem::with_detail(ProblemKind::InvalidValue, format!("{field}: {why}"))
        }
    };
    let order_id = OrderId::new(order_id).map_err(invalid("orderId"))?;
    let token = Token::new(token).map_err(invalid("token"))?;

    let deadline = api.deadline();
    let refusal = finished(&api, &order_id, &caller)
        .await
        .map_err(|problem| problem.ask_again_with(key.as_str()))?;
    let submission = Submission {
        name: "payment.create",
        decider: Decider::Payments,
        topic: topics::ORDER_COMMANDS,
        key: &key,
        caller: &caller,
        body: PaymentCreate {
            order_id: order_id.clone(),
            user_id: caller.clone(),
            token,
        },
        not_found: ProblemKind::OrderNotFound,
        refusal,
        deadline,
    };
    match api.decide(submission).await {
        Ok(Answer::PaymentMade(id)) => {
            ended(&api, &order_id, deadline).await;
            Ok((StatusCode::CREATED, Json(PaymentView { id })))
        }
        Ok(_) => Err(unexpected_answer("payment.create")),
        Err(problem) => {
            match problem.kind() {
                ProblemKind::PaymentDeclined => ended(&api, &order_id, deadline).await,
                ProblemKind::OrderNotFound if is_theirs(&api, &order_id, &caller).await => {
                    return Err(not_known_yet().ask_again_with(key.as_str()));
                }
                _ => {}
            }
            Err(problem)
        }
    }
}

/// Payments reads of orders behind Orders, and gives up on one after some seconds.
async fn is_theirs(api: &Api, order: &OrderId, buyer: &UserId) -> bool {
    let order = glance(api, order).await.ok().flatten();
    order.is_some_and(|order| order.user_id == *buyer)
}

fn not_known_yet() -> Problem {
    let detail = "Payments has not heard of the order yet; ask again";
    Problem::with_detail(ProblemKind::Unavailable, detail)
}

/// Payments may not know yet that an order has ended which its buyer has seen end.
async fn finished(api: &Api, order: &OrderId, buyer: &UserId) -> Result<Option<Problem>, Problem> {
    let order = glance(api, order).await?;
    let finished = order.is_some_and(|order| order.status.is_final() && order.user_id == *buyer);
    Ok(finished.then(|| Problem::new(ProblemKind::OrderNotPayable)))
}

/// An order, if it can be read at once: else it is for Payments alone to judge.
async fn glance(api: &Api, order: &OrderId) -> Result<Option<Order>, Problem> {
    let application = api.application()?;
    let patience = Patience::until(Instant::now() + GLANCE);
    let found = application.rows().order(order, patience).await.ok();
    Ok(found.and_then(|found| found.value))
}
