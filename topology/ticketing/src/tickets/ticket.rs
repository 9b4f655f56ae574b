//! A ticket, and its row.

use crate::events::{TicketChange, TicketEvent};
use crate::ids::{CommandId, OrderId, TicketId, UserId};
use crate::outcome::{Answer, Decision, Outcome};
use crate::price::Price;
use crate::row::{row, stored};

/// What Tickets keeps of a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketEntry {
    /// The ticket.
    pub ticket: Ticket,
    /// The `ticket.create`, until the ticket is edited.
    pub creation: Option<Decision>,
}

/// A ticket.
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
row!(TicketEntry { ticket, creation });
stored!(TicketEntry, 2);

impl TicketEntry {
    /// The outcome of `command`, if it created the ticket and the ticket was not edited since:
    /// then it is kept here and nowhere else.
    #[must_use]
    pub fn outcome_of(&self, command: &CommandId) -> Option<Outcome> {
        let creation = self.creation.as_ref()?;
        (creation.command == *command).then(|| creation.outcome(self.created()))
    }

    /// What the next edit would lose: the command that created the ticket, and its outcome.
    pub(super) fn take_creation(&mut self) -> Option<(CommandId, Outcome)> {
        let creation = self.creation.take()?;
        let outcome = creation.outcome(self.created());
        Some((creation.command, outcome))
    }

    /// The answer to the `ticket.create`, if the ticket was not edited since. (Everything else
    /// changes only its version and who holds it.)
    fn created(&self) -> Answer {
        Answer::TicketCreated(Ticket {
            version: 0,
            holders: Vec::new(),
            ..self.ticket.clone()
        })
    }
}

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
