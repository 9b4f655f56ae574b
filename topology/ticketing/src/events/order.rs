//! Events of the topic `orders`.

use turnstile_engine::{DecodeError, Decoded, Encode, InputRecord, TimestampMs};

use super::UNKNOWN_TYPE;
use crate::ids::{OrderId, PaymentId, TicketId, UserId};
use crate::instant::iso8601;
use crate::price::Price;
use crate::wire::{Fields, Message, id, optional_id};

/// A published change of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderEvent {
    /// The order.
    pub order_id: OrderId,
    /// From 0, one more with each published change.
    pub version: u64,
    /// What changed.
    pub change: OrderChange,
}

/// What changed in an order. Users are optional where a foreign service may leave them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderChange {
    /// `order.created`.
    Created {
        /// The ticket that it holds.
        ticket_id: TicketId,
        /// Its buyer.
        user_id: UserId,
        /// What is to be paid.
        price: Price,
        /// When it expires unless it is paid.
        expires_at: TimestampMs,
    },
    /// `order.pending`: its payment has begun.
    Pending {
        /// The ticket that it holds.
        ticket_id: TicketId,
    },
    /// `order.completed`: it is paid and keeps its ticket.
    Completed {
        /// The ticket that it holds.
        ticket_id: TicketId,
        /// Its buyer.
        user_id: Option<UserId>,
    },
    /// `order.cancelled`, by its buyer or because it expired.
    Cancelled {
        /// The ticket that it held.
        ticket_id: TicketId,
        /// Its buyer.
        user_id: Option<UserId>,
        /// When it was to expire.
        expires_at: Option<TimestampMs>,
    },
    /// `order.failed`: its payment failed.
    Failed {
        /// The ticket that it held.
        ticket_id: TicketId,
        /// Its buyer.
        user_id: Option<UserId>,
    },
    /// `order.refund_due`: a payment succeeded that the order could not accept.
    RefundDue {
        /// The payment to refund.
        payment_id: PaymentId,
        /// The buyer.
        user_id: Option<UserId>,
    },
}

impl OrderEvent {
    /// Reads a record of `orders`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        let ticket_id = || id("ticketId", &fields.ticket_id);
        let user_id = || optional_id(&fields.user_id);
        let change = match fields.kind()? {
            "order.created" => OrderChange::Created {
                ticket_id: ticket_id()?,
                user_id: id("userId", &fields.user_id)?,
                price: fields.price()?,
                expires_at: fields.expires_at()?,
            },
            "order.pending" => OrderChange::Pending {
                ticket_id: ticket_id()?,
            },
            "order.completed" => OrderChange::Completed {
                ticket_id: ticket_id()?,
                user_id: user_id(),
            },
            "order.cancelled" => OrderChange::Cancelled {
                ticket_id: ticket_id()?,
                user_id: user_id(),
                expires_at: fields.optional_expires_at(),
            },
            "order.failed" => OrderChange::Failed {
                ticket_id: ticket_id()?,
                user_id: user_id(),
            },
            "order.refund_due" => OrderChange::RefundDue {
                payment_id: id("paymentId", &fields.payment_id)?,
                user_id: user_id(),
            },
            _ => return Ok(Decoded::Skip(UNKNOWN_TYPE)),
        };
        let order_id = fields.id_of_order()?;
        Ok(Decoded::Message(Self {
            order_id,
            version: fields.version()?,
            change,
        }))
    }
}

impl Encode for OrderEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut message = Message {
            id: Some(self.order_id.as_str()),
            version: Some(self.version),
            ..Message::default()
        };
        let ticket = match &self.change {
            OrderChange::Created {
                ticket_id,
                user_id,
                price,
                expires_at,
            } => {
                (message.kind, message.status) = ("order.created", Some("created"));
                message.user_id = Some(user_id.as_str());
                message.price = Some((*price).into());
                message.expires_at = Some(iso8601(*expires_at));
                Some(ticket_id)
            }
            OrderChange::Pending { ticket_id } => {
                (message.kind, message.status) = ("order.pending", Some("pending_payment"));
                // Only this type names the order in `orderId`, as the contract's readers expect.
                message.order_id = message.id.take();
                Some(ticket_id)
            }
            OrderChange::Completed { ticket_id, user_id } => {
                (message.kind, message.status) = ("order.completed", Some("completed"));
                message.user_id = user_id.as_ref().map(UserId::as_str);
                Some(ticket_id)
            }
            OrderChange::Cancelled {
                ticket_id,
                user_id,
                expires_at,
            } => {
                (message.kind, message.status) = ("order.cancelled", Some("cancelled"));
                message.user_id = user_id.as_ref().map(UserId::as_str);
                message.expires_at = expires_at.map(iso8601);
                Some(ticket_id)
            }
            OrderChange::Failed { ticket_id, user_id } => {
                (message.kind, message.status) = ("order.failed", Some("failed"));
                message.user_id = user_id.as_ref().map(UserId::as_str);
                Some(ticket_id)
            }
            OrderChange::RefundDue {
                payment_id,
                user_id,
            } => {
                message.kind = "order.refund_due";
                message.user_id = user_id.as_ref().map(UserId::as_str);
                message.payment_id = Some(payment_id.as_str());
                None
            }
        };
        message.ticket_id = ticket.map(TicketId::as_str);
        message.write(out);
    }
}
