//! Events of the topic `payments`. Here `id` is the payment's and `orderId` the order's.

use turnstile_engine::{DecodeError, Decoded, Encode, InputRecord};

use super::UNKNOWN_TYPE;
use crate::ids::{OrderId, PaymentId, PaymentRecordId};
use crate::wire::{Fields, Message, id, optional_id};

/// What happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentEvent {
    /// The order that it is for.
    pub order_id: OrderId,
    /// The charge.
    pub payment_id: PaymentId,
    /// What happened.
    pub change: PaymentChange,
}

/// What happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentChange {
    /// `payment.created`: it has begun.
    Created {
        /// Its record; nothing here needs that of a foreign payment.
        id: Option<PaymentRecordId>,
    },
    /// `payment.succeeded`.
    Succeeded,
    /// `payment.failed`.
    Failed,
    /// `payment.refunded`.
    Refunded,
}

impl PaymentEvent {
    /// Reads a record of `payments`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        let change = match fields.kind()? {
            "payment.created" => PaymentChange::Created {
                id: optional_id(&fields.id),
            },
            "payment.succeeded" => PaymentChange::Succeeded,
            "payment.failed" => PaymentChange::Failed,
            "payment.refunded" => PaymentChange::Refunded,
            _ => return Ok(Decoded::Skip(UNKNOWN_TYPE)),
        };
        Ok(Decoded::Message(Self {
            order_id: id("orderId", &fields.order_id)?,
            payment_id: id("paymentId", &fields.payment_id)?,
            change,
        }))
    }
}

impl Encode for PaymentEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, id) = match &self.change {
            PaymentChange::Created { id } => {
                ("payment.created", id.as_ref().map(PaymentRecordId::as_str))
            }
            PaymentChange::Succeeded => ("payment.succeeded", None),
            PaymentChange::Failed => ("payment.failed", None),
            PaymentChange::Refunded => ("payment.refunded", None),
        };
        let message = Message {
            kind,
            id,
            order_id: Some(self.order_id.as_str()),
            payment_id: Some(self.payment_id.as_str()),
            ..Message::default()
        };
        message.write(out);
    }
}
