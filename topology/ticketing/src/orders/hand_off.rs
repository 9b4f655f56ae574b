//! What the two halves of Orders hand to each other, through topics of their own.

use turnstile_engine::{
    Context, DecodeError, Decoded, Encode, InputRecord, ProcessorError, Sink, Stream,
    TopologyBuilder,
};

use super::order::OrderedTicket;
use crate::events::UNKNOWN_TYPE;
use crate::ids::{OrderId, TicketId, UserId};
use crate::topics;
use crate::wire::{Fields, Message, id, required};

/// A ticket was reserved: the order is to be created. Keyed by order id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) order_id: OrderId,
    pub(super) user_id: UserId,
    pub(super) ticket: OrderedTicket,
}

/// An order lets go of a ticket. Keyed by ticket id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) order_id: OrderId,
    pub(super) ticket_id: TicketId,
}

/// From the reservations to the life cycle.
pub(super) fn placed(builder: &mut TopologyBuilder) -> (Sink<Placed>, Stream<Placed>) {
    builder.repartition("placed", topics::ORDERS_PAYMENTS, Placed::decode)
}

/// From the life cycle to the reservations.
pub(super) fn released(builder: &mut TopologyBuilder) -> (Sink<Released>, Stream<Released>) {
    builder.repartition("released", topics::ORDERS_TICKETS, Released::decode)
}

/// Sends `message` for either half: rather without the headers of the record than not at all.
///
/// What one half does may be committed when the other half comes to it. If that had to reject it
/// because headers that `orders` does not accept came with it, a ticket would be given to an order
/// that never exists.
pub(super) fn send<T: Encode>(
    context: &mut Context<'_>,
    sink: Sink<T>,
    key: &str,
    message: &T,
) -> Result<(), ProcessorError> {
    match context.send(sink, key, message) {
        Err(ProcessorError::Rejected { .. }) => context.send_without_headers(sink, key, message),
        sent => sent,
    }
}

impl Placed {
    fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        if fields.kind()? != "order.placed" {
            return Ok(Decoded::Skip(UNKNOWN_TYPE));
        }
        let ticket = OrderedTicket {
            id: id("ticketId", &fields.ticket_id)?,
            title: required("title", &fields.title)?.to_owned(),
            price: fields.price()?,
        };
        Ok(Decoded::Message(Self {
            order_id: id("orderId", &fields.order_id)?,
            user_id: id("userId", &fields.user_id)?,
            ticket,
        }))
    }
}

impl Released {
    fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        if fields.kind()? != "ticket.released" {
            return Ok(Decoded::Skip(UNKNOWN_TYPE));
        }
        Ok(Decoded::Message(Self {
            order_id: id("orderId", &fields.order_id)?,
            ticket_id: id("ticketId", &fields.ticket_id)?,
        }))
    }
}

impl Encode for Placed {
    fn encode(&self, out: &mut Vec<u8>) {
        let message = Message {
            kind: "order.placed",
            order_id: Some(self.order_id.as_str()),
            user_id: Some(self.user_id.as_str()),
            ticket_id: Some(self.ticket.id.as_str()),
            title: Some(&self.ticket.title),
            price: Some(self.ticket.price.into()),
            ..Message::default()
        };
        message.write(out);
    }
}

impl Encode for Released {
    fn encode(&self, out: &mut Vec<u8>) {
        let message = Message {
            kind: "ticket.released",
            order_id: Some(self.order_id.as_str()),
            ticket_id: Some(self.ticket_id.as_str()),
            ..Message::default()
        };
        message.write(out);
    }
}
