//! Events of the topic `expiration`.

use turnstile_engine::{DecodeError, Decoded, Encode, InputRecord};

use super::UNKNOWN_TYPE;
use crate::ids::OrderId;
use crate::wire::{Fields, Message, id};

/// `expiration.expired`: the time of an order has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpirationEvent {
    /// The order.
    pub order_id: OrderId,
}

impl ExpirationEvent {
    /// Reads a record of `expiration`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Self>, DecodeError> {
        let fields = Fields::read(record.value)?;
        match fields.kind()? {
            "expiration.expired" => Ok(Decoded::Message(Self {
                order_id: id("orderId", &fields.order_id)?,
            })),
            _ => Ok(Decoded::Skip(UNKNOWN_TYPE)),
        }
    }
}

impl Encode for ExpirationEvent {
    fn encode(&self, out: &mut Vec<u8>) {
        let message = Message {
            kind: "expiration.expired",
            order_id: Some(self.order_id.as_str()),
            ..Message::default()
        };
        message.write(out);
    }
}
