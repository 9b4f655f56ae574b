//! An order.

use turnstile_engine::{Codec, CodecError, TimestampMs};

use super::status::OrderStatus;
use crate::events::{OrderChange, OrderEvent};
use crate::ids::{OrderId, PaymentId, TicketId, UserId};
use crate::price::Price;
use crate::row::{Row, RowReader, row, stored};

/// An order as Orders keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Its buyer.
    pub user_id: UserId,
    /// Its ticket, as it was when it was reserved.
    pub ticket: OrderedTicket,
    /// Where it is in its life cycle.
    pub status: OrderStatus,
    /// When it is cancelled unless it is paid.
    pub expires_at: TimestampMs,
    /// From 0, one more with each published change.
    pub version: u64,
    /// The payment that it was paid with or, until then, the one that was begun.
    pub payment_id: Option<PaymentId>,
    /// The payments that have to be refunded, each once.
    pub refunds_due: Vec<PaymentId>,
}

/// A ticket as it was when it was reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedTicket {
    /// The ticket.
    pub id: TicketId,
    /// Its title.
    pub title: String,
    /// Its price.
    pub price: Price,
}

row!(OrderedTicket { id, title, price });
row!(Order {
    id,
    user_id,
    ticket,
    status,
    expires_at,
    version,
    payment_id,
    refunds_due
});
stored!(Order, 1);

impl Order {
    /// The event that says what the order has become.
    pub(super) fn event(&self) -> OrderEvent {
        let ticket_id = self.ticket.id.clone();
        let user_id = Some(self.user_id.clone());
        let change = match self.status {
            OrderStatus::Created => OrderChange::Created {
                ticket_id,
                user_id: self.user_id.clone(),
                price: self.ticket.price,
                expires_at: self.expires_at,
            },
            OrderStatus::PendingPayment => OrderChange::Pending { ticket_id },
            OrderStatus::Completed => OrderChange::Completed { ticket_id, user_id },
            OrderStatus::Failed => OrderChange::Failed { ticket_id, user_id },
            OrderStatus::Cancelled => {
                let expires_at = Some(self.expires_at);
                OrderChange::Cancelled {
                    ticket_id,
                    user_id,
                    expires_at,
                }
            }
        };
        OrderEvent {
            order_id: self.id.clone(),
            version: self.version,
            change,
        }
    }
}

/// A user's order: rows of one user are neighbours, in the order of their order ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderByUser {
    /// The buyer.
    pub user_id: UserId,
    /// The order.
    pub order_id: OrderId,
}

impl OrderByUser {
    /// The prefix of the keys of all orders of `user`.
    #[must_use]
    pub fn prefix(user: &UserId) -> Vec<u8> {
        let mut prefix = Vec::new();
        user.write(&mut prefix);
        prefix
    }
}

/// The user with its length, then the order to the end.
impl Codec for OrderByUser {
    fn encode(&self, out: &mut Vec<u8>) {
        self.user_id.write(out);
        self.order_id.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut from = RowReader::new("OrderByUser", bytes);
        let user_id = UserId::read(&mut from)?;
        Ok(Self {
            user_id,
            order_id: OrderId::decode(from.take_rest())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_orders_of_a_user_lie_together() {
        let key = |user: &str, order: &str| OrderByUser {
            user_id: UserId::new(user).unwrap(),
            order_id: OrderId::new(order).unwrap(),
        };
        let row = key("u-1", "o-1");
        assert_eq!(OrderByUser::decode(&row.to_bytes()), Ok(row.clone()));
        let prefix = OrderByUser::prefix(&row.user_id);
        assert!(row.to_bytes().starts_with(&prefix));
        assert!(!key("u-10", "o-1").to_bytes().starts_with(&prefix));
    }
}
