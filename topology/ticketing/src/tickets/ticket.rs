//! A ticket.

use crate::events::{TicketChange, TicketEvent};
use crate::ids::{OrderId, TicketId, UserId};
use crate::price::Price;
use crate::row::{row, stored};

/// A ticket as Tickets keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The ticket.
    pub id: TicketId,
    /// Its title.
    pub title: String,
    /// Its price.
    pub price: Price,
    /// Its owner.
    pub user_id: UserId,
    /// From 0, one more with each published change.
    pub version: u64,
    /// The live or completed orders that are known to hold it, in the order in which
    /// they became known: more than one only until the end of the others is known too.
    pub holders: Vec<OrderId>,
}

row!(Ticket {
    id,
    title,
    price,
    user_id,
    version,
    holders
});
stored!(Ticket, 1);

impl Ticket {
    /// The order that holds the ticket now.
    #[must_use]
    pub fn held_by(&self) -> Option<&OrderId> {
        self.holders.last()
    }

    pub(super) fn event(&self, change: TicketChange) -> TicketEvent {
        TicketEvent {
            ticket_id: self.id.clone(),
            title: self.title.clone(),
            price: self.price,
            version: self.version,
            held_by: self.held_by().cloned(),
            change,
        }
    }
}
