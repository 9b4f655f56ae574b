//! Payments' copy of an order.

use crate::events::{OrderChange, OrderEvent};
use crate::ids::UserId;
use crate::price::Price;
use crate::row::{row, stored};

/// An order as Payments knows it: what the highest version said, even after a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayableOrder {
    /// The version that said so.
    pub version: u64,
    /// What is to be paid, while the order can be.
    pub payable: Option<Price>,
    /// Its buyer, once an event has named it: not every event does.
    pub user_id: Option<UserId>,
}

row!(PayableOrder {
    version,
    payable,
    user_id
});
stored!(PayableOrder, 1);

impl PayableOrder {
    /// The copy after `event`, if that changes it.
    pub(super) fn after(existing: Option<Self>, event: &OrderEvent) -> Option<Self> {
        let (payable, user_id) = match &event.change {
            OrderChange::Created { user_id, price, .. } => (Some(*price), Some(user_id)),
            OrderChange::Pending { .. } => (None, None),
            OrderChange::Completed { user_id, .. }
            | OrderChange::Cancelled { user_id, .. }
            | OrderChange::Failed { user_id, .. }
            | OrderChange::RefundDue { user_id, .. } => (None, user_id.as_ref()),
        };
        let said = Self {
            version: event.version,
            payable,
            user_id: user_id.cloned(),
        };
        let Some(existing) = existing else {
            return Some(said);
        };
        // The buyer never changes, so an event names the buyer even if it is an old one.
        let user_id = existing.user_id.clone().or_else(|| said.user_id.clone());
        if said.version > existing.version {
            return Some(Self { user_id, ..said });
        }
        let learned = user_id != existing.user_id;
        learned.then_some(Self {
            user_id,
            ..existing
        })
    }
}

#[cfg(test)]
mod tests {
    use turnstile_engine::TimestampMs;

    use super::*;
    use crate::ids::{OrderId, PaymentId, TicketId};
    use crate::price::Amount;

    fn event(name: &str) -> OrderEvent {
        let ticket_id = TicketId::new("t").unwrap();
        let user = UserId::new("u").unwrap();
        let (version, change) = match name {
            "created" => {
                let price = Price::try_from(Amount::from_json("10").unwrap()).unwrap();
                let expires_at = TimestampMs(0);
                (
                    0,
                    OrderChange::Created {
                        ticket_id,
                        user_id: user,
                        price,
                        expires_at,
                    },
                )
            }
            "pending" => (1, OrderChange::Pending { ticket_id }),
            "completed" => (
                2,
                OrderChange::Completed {
                    ticket_id,
                    user_id: Some(user),
                },
            ),
            "cancelled" => (
                2,
                OrderChange::Cancelled {
                    ticket_id,
                    user_id: None,
                    expires_at: None,
                },
            ),
            "refund" => {
                let payment_id = PaymentId::new("p").unwrap();
                (
                    3,
                    OrderChange::RefundDue {
                        payment_id,
                        user_id: None,
                    },
                )
            }
            other => unreachable!("{other}"),
        };
        OrderEvent {
            order_id: OrderId::new("o").unwrap(),
            version,
            change,
        }
    }

    #[test]
    fn the_highest_version_wins_and_the_buyer_is_learned_from_any() {
        let table: [(&[&str], u64, bool, bool); 8] = [
            (&["created"], 0, true, true),
            (&["pending"], 1, false, false),
            (&["created", "pending"], 1, false, true),
            (&["pending", "created"], 1, false, true),
            (&["created", "cancelled"], 2, false, true),
            (&["cancelled", "created", "pending"], 2, false, true),
            (&["completed", "created"], 2, false, true),
            (&["refund", "created", "cancelled"], 3, false, true),
        ];
        for (events, version, payable, known) in table {
            let mut copy = None;
            for name in events {
                copy = PayableOrder::after(copy.clone(), &event(name)).or(copy);
            }
            let copy = copy.unwrap();
            assert_eq!(copy.version, version, "{events:?}");
            assert_eq!(copy.payable.is_some(), payable, "{events:?}");
            assert_eq!(copy.user_id.is_some(), known, "{events:?}");
        }
        let copy = PayableOrder::after(None, &event("created"));
        assert_eq!(PayableOrder::after(copy, &event("created")), None);
    }
}
