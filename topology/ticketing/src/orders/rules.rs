//! What may happen to an order, as functions of the order and the fact.

use std::time::Duration;

use turnstile_engine::TimestampMs;

use super::hand_off::{Placed, Released};
use super::order::Order;
use super::status::{OrderStatus, Step};
use crate::events::{OrderChange, OrderEvent};
use crate::ids::{PaymentId, UserId};
use crate::outcome::{Answer, Conflict};

/// Something that happened and that an order has to accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    PaymentBegan(PaymentId),
    PaymentSucceeded(PaymentId),
    PaymentFailed(PaymentId),
    Expired,
}

/// An order after a change, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) order: Order,
    pub(super) event: OrderEvent,
    /// The reservation that the change ends.
    pub(super) released: Option<Released>,
}

/// Makes the order of a new reservation.
pub(super) fn create(placed: Placed, now: TimestampMs, time_to_live: Duration) -> Changed {
    let order = Order {
        id: placed.order_id,
        user_id: placed.user_id,
        ticket: placed.ticket,
        status: OrderStatus::Created,
        expires_at: now.plus(time_to_live),
        version: 0,
        payment_id: None,
        refunds_due: Vec::new(),
    };
    Changed {
        event: order.event(),
        order,
        released: None,
    }
}

/// What becomes of a reservation for an order that exists already: it ends, unless it
/// is the one that the order has.
pub(super) fn surplus(existing: &Order, placed: Placed) -> Option<Released> {
    if existing.status.holds_ticket() && existing.ticket.id == placed.ticket.id {
        return None;
    }
    Some(Released {
        order_id: placed.order_id,
        ticket_id: placed.ticket.id,
    })
}

/// The order after `fact`, if that changes it.
pub(super) fn apply(order: Order, fact: Fact) -> Option<Changed> {
    match fact {
        Fact::PaymentBegan(payment) => {
            let status = order.status.after(Step::PaymentBegins)?;
            Some(moved(
                Order {
                    payment_id: Some(payment),
                    ..order
                },
                status,
            ))
        }
        Fact::PaymentFailed(_) => {
            let status = order.status.after(Step::PaymentFails)?;
            Some(moved(order, status))
        }
        Fact::Expired => {
            let status = order.status.after(Step::Cancels)?;
            Some(moved(order, status))
        }
        Fact::PaymentSucceeded(payment) => match order.status.after(Step::PaymentSucceeds) {
            Some(status) => Some(moved(
                Order {
                    payment_id: Some(payment),
                    ..order
                },
                status,
            )),
            None => refund(order, payment),
        },
    }
}

/// The order after its buyer cancels it, or why not.
pub(super) fn cancel(order: Option<Order>, user: &UserId) -> Result<Changed, Answer> {
    let order = order.ok_or(Answer::NotFound)?;
    if order.user_id != *user {
        return Err(Answer::Forbidden);
    }
    let status = order.status.after(Step::Cancels);
    let status = status.ok_or(Answer::Conflict(Conflict::OrderFinished))?;
    Ok(moved(order, status))
}

/// A payment that the order cannot accept has to be refunded, once.
fn refund(mut order: Order, payment: PaymentId) -> Option<Changed> {
    let paid_with_it =
        order.status == OrderStatus::Completed && order.payment_id.as_ref() == Some(&payment);
    if paid_with_it || order.refunds_due.contains(&payment) {
        return None;
    }
    order.refunds_due.push(payment.clone());
    order.version += 1;
    let event = OrderEvent {
        order_id: order.id.clone(),
        version: order.version,
        change: OrderChange::RefundDue {
            payment_id: payment,
            user_id: Some(order.user_id.clone()),
        },
    };
    Some(Changed {
        order,
        event,
        released: None,
    })
}

fn moved(mut order: Order, status: OrderStatus) -> Changed {
    order.status = status;
    order.version += 1;
    let released = (!status.holds_ticket()).then(|| Released {
        order_id: order.id.clone(),
        ticket_id: order.ticket.id.clone(),
    });
    Changed {
        event: order.event(),
        order,
        released,
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::OrderedTicket;
    use super::*;
    use crate::ids::{OrderId, TicketId};
    use crate::price::{Amount, Price};

    fn placed(order: &str, ticket: &str) -> Placed {
        Placed {
            order_id: OrderId::new(order).unwrap(),
            user_id: UserId::new("buyer").unwrap(),
            ticket: OrderedTicket {
                id: TicketId::new(ticket).unwrap(),
                title: "Concert".to_owned(),
                price: Price::try_from(Amount::from_json("10").unwrap()).unwrap(),
            },
        }
    }

    fn payment(id: &str) -> PaymentId {
        PaymentId::new(id).unwrap()
    }

    fn began(id: &str) -> Fact {
        Fact::PaymentBegan(payment(id))
    }

    fn succeeded(id: &str) -> Fact {
        Fact::PaymentSucceeded(payment(id))
    }

    fn failed(id: &str) -> Fact {
        Fact::PaymentFailed(payment(id))
    }

    fn new() -> Order {
        create(placed("o", "t"), TimestampMs(1000), Duration::from_secs(2)).order
    }

    /// The order after `facts`, the kinds of events they published, and the releases.
    fn after(facts: &[Fact]) -> (Order, Vec<&'static str>, usize) {
        let (mut order, mut published, mut releases) = (new(), Vec::new(), 0);
        for fact in facts {
            let Some(changed) = apply(order.clone(), fact.clone()) else {
                continue;
            };
            assert_eq!(changed.event.version, order.version + 1);
            releases += usize::from(changed.released.is_some());
            published.push(match changed.event.change {
                OrderChange::Created { .. } => "created",
                OrderChange::Pending { .. } => "pending",
                OrderChange::Completed { .. } => "completed",
                OrderChange::Cancelled { .. } => "cancelled",
                OrderChange::Failed { .. } => "failed",
                OrderChange::RefundDue { .. } => "refund_due",
            });
            order = changed.order;
        }
        (order, published, releases)
    }

    #[test]
    fn a_new_order_lives_from_the_time_of_its_making() {
        let changed = create(placed("o", "t"), TimestampMs(1000), Duration::from_secs(2));
        assert_eq!(changed.order.expires_at, TimestampMs(3000));
        assert_eq!((changed.order.version, changed.event.version), (0, 0));
    }

    #[test]
    fn facts_publish_and_release_as_the_contract_says() {
        let table: [(&[Fact], &[&str], usize); 11] = [
            (&[began("p"), succeeded("p")], &["pending", "completed"], 0),
            (&[succeeded("p"), began("p")], &["completed"], 0),
            (&[began("p"), began("p")], &["pending"], 0),
            (
                &[began("p"), failed("p"), failed("p")],
                &["pending", "failed"],
                1,
            ),
            (&[Fact::Expired, Fact::Expired], &["cancelled"], 1),
            (&[began("p"), Fact::Expired], &["pending", "cancelled"], 1),
            (
                &[succeeded("p"), Fact::Expired, failed("p")],
                &["completed"],
                0,
            ),
            (
                &[Fact::Expired, succeeded("p")],
                &["cancelled", "refund_due"],
                1,
            ),
            (
                &[Fact::Expired, succeeded("p"), succeeded("p")],
                &["cancelled", "refund_due"],
                1,
            ),
            (
                &[succeeded("p"), succeeded("p"), succeeded("q")],
                &["completed", "refund_due"],
                0,
            ),
            (
                &[began("p"), failed("p"), succeeded("p")],
                &["pending", "failed", "refund_due"],
                1,
            ),
        ];
        for (facts, published, releases) in table {
            let (order, events, released) = after(facts);
            assert_eq!(
                (events.as_slice(), released),
                (published, releases),
                "{facts:?}"
            );
            assert_eq!(order.version, published.len() as u64);
        }
    }

    #[test]
    fn a_refund_leaves_the_status_and_the_payment() {
        let (order, ..) = after(&[succeeded("p"), succeeded("q")]);
        assert_eq!(order.status, OrderStatus::Completed);
        assert_eq!(order.payment_id, Some(payment("p")));
        assert_eq!(order.refunds_due, [payment("q")]);
    }

    #[test]
    fn cancelling() {
        let buyer = UserId::new("buyer").unwrap();
        let other = UserId::new("other").unwrap();
        let finished = Answer::Conflict(Conflict::OrderFinished);
        let (pending, ..) = after(&[began("p")]);
        let (completed, ..) = after(&[succeeded("p")]);
        assert!(cancel(Some(new()), &buyer).unwrap().released.is_some());
        assert_eq!(
            cancel(Some(pending), &buyer).unwrap().order.status,
            OrderStatus::Cancelled
        );
        assert_eq!(cancel(Some(completed), &buyer), Err(finished));
        assert_eq!(cancel(Some(new()), &other), Err(Answer::Forbidden));
        assert_eq!(cancel(None, &buyer), Err(Answer::NotFound));
    }

    #[test]
    fn a_surplus_reservation_ends_and_the_real_one_stays() {
        let ended = after(&[Fact::Expired]).0;
        let completed = after(&[succeeded("p")]).0;
        for (existing, ticket, ends) in [
            (new(), "t", false),
            (completed.clone(), "t", false),
            (ended.clone(), "t", true),
            (new(), "other", true),
            (completed, "other", true),
            (ended, "other", true),
        ] {
            let released = surplus(&existing, placed("o", ticket));
            assert_eq!(released.is_some(), ends, "{:?} {ticket}", existing.status);
        }
    }
}
