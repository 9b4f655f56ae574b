//! Events of the topic `tickets`.

use turnstile_engine::{DecodeError, Decoded, Encode, InputRecord};

use super::UNKNOWN_TYPE;
use crate::ids::{OrderId, TicketId, UserId};
use crate::price::Price;
use crate::wire::{Fields, Message, id, optional_id, required};

/// A ticket after a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketEvent {
    /// The ticket.
    pub ticket_id: TicketId,
    /// Its title.
    pub title: String,
    /// Its price.
    pub price: Price,
    /// From 0, one more with each change.
    pub version: u64,
    /// The order that holds it now.
    pub held_by: Option<OrderId>,
    /// What changed.
    pub change: TicketChange,
}

/// What changed in a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketChange {
    /// `ticket.created`, by its owner.
    Created {
        /// The owner; foreign services may leave it out.
        owner: Option<UserId>,
    },
    /// `ticket.updated`: by its owner's edit, which names the owner, or by a reservation.
    Updated {
        /// The owner, in an edit.
        editor: Option<UserId>,
    },
}

impl TicketEvent {
    /// The ticket's owner, where the event names it.
    #[must_use]
    pub fn owner(&self) -> Option<&UserId> {
        match &self.change {
            TicketChange::Created { owner } => owner.as_ref(),
            TicketChange::Updated { editor } => editor.as_ref(),
        }
    }

    /// Reads a record of `tickets`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        let user = optional_id(&fields.user_id);
        let change = match fields.kind()? {
            "ticket.created" => TicketChange::Created { owner: user },
            "ticket.updated" => TicketChange::Updated { editor: user },
            _ => return Ok(Decoded::Skip(UNKNOWN_TYPE)),
        };
        Ok(Decoded::Message(Self {
            ticket_id: id("id", &fields.id)?,
            title: required("title", &fields.title)?.to_owned(),
            price: fields.price()?,
            version: fields.version()?,
            held_by: optional_id(&fields.order_id),
            change,
        }))
    }
}

impl Encode for TicketEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self.change {
            TicketChange::Created { .. } => "ticket.created",
            TicketChange::Updated { .. } => "ticket.updated",
        };
        let message = Message {
            kind,
            id: Some(self.ticket_id.as_str()),
            order_id: self.held_by.as_ref().map(OrderId::as_str),
            user_id: self.owner().map(UserId::as_str),
            title: Some(&self.title),
            price: Some(self.price.into()),
            version: Some(self.version),
            ..Message::default()
        };
        message.write(out);
    }
}
