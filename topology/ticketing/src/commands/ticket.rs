//! Commands of the topic `ticket-commands`, keyed by ticket id.

use turnstile_engine::{DecodeError, Decoded, InputRecord};

use super::{Command, CommandBody, WireBody};
use crate::events::UNKNOWN_TYPE;
use crate::ids::{OrderId, TicketId, UserId};
use crate::row::row;
use crate::ticket_terms::TicketDraft;
use crate::wire::{Fields, Message, id, required};

/// A command of the topic `ticket-commands`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketCommand {
    /// `ticket.create`.
    Create(TicketWrite),
    /// `ticket.update`.
    Update(TicketWrite),
    /// `order.create`.
    Order(OrderCreate),
}

/// What a ticket is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketWrite {
    /// The ticket.
    pub ticket_id: TicketId,
    /// Title and price, not yet checked.
    pub draft: TicketDraft,
    /// Who asks.
    pub user_id: UserId,
}

/// A ticket to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderCreate {
    /// The order that is to hold it.
    pub order_id: OrderId,
    /// The ticket.
    pub ticket_id: TicketId,
    /// Who asks.
    pub user_id: UserId,
}

row!(OrderCreate {
    order_id,
    ticket_id,
    user_id
});

impl TicketCommand {
    /// Reads a record of `ticket-commands`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Command<Self>>, DecodeError> {
        let fields = Fields::read(record.value)?;
        let write = || -> Result<TicketWrite, DecodeError> {
            let title = required("title", &fields.title)?.to_owned();
            Ok(TicketWrite {
                ticket_id: id("id", &fields.id)?,
                draft: TicketDraft {
                    title,
                    price: fields.amount()?,
                },
                user_id: id("userId", &fields.user_id)?,
            })
        };
        let command = match fields.kind()? {
            "ticket.create" => Self::Create(write()?),
            "ticket.update" => Self::Update(write()?),
            "order.create" => Self::Order(OrderCreate {
                order_id: id("orderId", &fields.order_id)?,
                ticket_id: id("ticketId", &fields.ticket_id)?,
                user_id: id("userId", &fields.user_id)?,
            }),
            _ => return Ok(Decoded::Skip(UNKNOWN_TYPE)),
        };
        Command::read(&fields, command).map(Decoded::Message)
    }

    /// The ticket that the command is for.
    #[must_use]
    pub fn ticket_id(&self) -> &TicketId {
        match self {
            Self::Create(write) | Self::Update(write) => &write.ticket_id,
            Self::Order(order) => &order.ticket_id,
        }
    }
}

impl CommandBody for TicketCommand {
    fn key(&self) -> &str {
        self.ticket_id().as_str()
    }

    fn wire(&self) -> WireBody<'_> {
        let (kind, write) = match self {
            Self::Create(write) => ("ticket.create", write),
            Self::Update(write) => ("ticket.update", write),
            Self::Order(order) => return order.wire(),
        };
        WireBody(Message {
            kind,
            id: Some(write.ticket_id.as_str()),
            user_id: Some(write.user_id.as_str()),
            title: Some(&write.draft.title),
            price: Some(write.draft.price),
            ..Message::default()
        })
    }
}

impl CommandBody for OrderCreate {
    fn key(&self) -> &str {
        self.ticket_id.as_str()
    }

    fn wire(&self) -> WireBody<'_> {
        WireBody(Message {
            kind: "order.create",
            order_id: Some(self.order_id.as_str()),
            user_id: Some(self.user_id.as_str()),
            ticket_id: Some(self.ticket_id.as_str()),
            ..Message::default()
        })
    }
}
