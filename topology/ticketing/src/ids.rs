//! Ids, each kind with its own type, so that an order id never stands where a ticket id belongs.
//!
//! An id is any text of 1 to 512 bytes: foreign services use 24-hex ObjectIds and
//! UUIDs, and nothing here looks inside. Ids that this application makes are UUIDs
//! derived from what they name (version 5), never random: a record that is processed
//! again names the same things again.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;
use turnstile_engine::{Codec, CodecError};
use uuid::Uuid;

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// The namespace from which the ids of this application are derived.
pub(crate) const NAMESPACE: Uuid = Uuid::from_u128(0x5f1d_8a0c_3c52_4f0e_9d37_6b1e_84c2_a905);

/// A text that cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// It is empty.
    #[error("an id is not empty")]
    Empty,
    /// It is longer than [`MAX_ID_BYTES`].
    #[error("an id has at most {MAX_ID_BYTES} bytes, not {0}")]
    TooLong(usize),
}

/// A text type of this module.
pub(crate) trait Id: Sized {
    /// Takes `text` as an id.
    fn of(text: &str) -> Result<Self, InvalidId>;
    /// The id as text.
    fn text(&self) -> &str;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes `text` as an id.
            ///
            /// # Errors
            ///
            /// When `text` is empty or too long.
            pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidId> {
                let text = text.into();
                match text.len() {
                    0 => Err(InvalidId::Empty),
                    length if length > MAX_ID_BYTES => Err(InvalidId::TooLong(length)),
                    _ => Ok(Self(text)),
                }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Id for $name {
            fn of(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }

            fn text(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        /// The id's bytes and nothing else: scans go in the order of the ids.
        impl Codec for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.0.as_bytes());
            }

            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                let unreadable = |why: String| CodecError { what: stringify!($name), why };
                let text = std::str::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
                Self::new(text).map_err(|error| unreadable(error.to_string()))
            }
        }
    };
}

id! {
    /// A ticket.
    TicketId
}

id! {
    /// An order.
    OrderId
}

id! {
    /// Who calls: the owner of a ticket, the buyer of an order.
    UserId
}

id! {
    /// A charge at the payment gateway: `paymentId` on the wire.
    PaymentId
}

id! {
    /// The record of a payment: `id` of `payment.created`.
    PaymentRecordId
}

id! {
    /// What makes a command idempotent among those with the same topic and key.
    CommandId
}

id! {
    /// One HTTP request's attempt at a command, to tell its answer from that to an earlier attempt.
    AttemptId
}

id! {
    /// What stands for a card at the payment gateway.
    Token
}

impl CommandId {
    /// The command that `caller` names with an `Idempotency-Key`.
    #[must_use]
    pub fn of_idempotency_key(caller: &UserId, key: &str) -> Self {
        Self(derived("command", &[caller.as_str(), key]))
    }
}

impl TicketId {
    /// The ticket that a command over HTTP creates.
    #[must_use]
    pub fn named_by(command: &CommandId) -> Self {
        Self(derived("ticket", &[command.as_str()]))
    }
}

impl OrderId {
    /// The order that a command over HTTP creates.
    #[must_use]
    pub fn named_by(command: &CommandId) -> Self {
        Self(derived("order", &[command.as_str()]))
    }
}

impl PaymentRecordId {
    /// The payment that a command makes for an order.
    pub(crate) fn named_by(command: &CommandId, order: &OrderId) -> Self {
        Self(derived("payment", &[command.as_str(), order.as_str()]))
    }
}

impl PaymentId {
    /// The charge that belongs to a payment.
    pub(crate) fn of(payment: &PaymentRecordId) -> Self {
        let simple = payment.as_str().replace('-', "");
        Self(format!("pi_{simple}").into())
    }
}

fn derived(kind: &str, parts: &[&str]) -> Box<str> {
    let mut name = kind.as_bytes().to_vec();
    for part in parts {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bounded_text_is_an_id() {
        assert_eq!(TicketId::new("t-1").unwrap().as_str(), "t-1");
        assert_eq!(TicketId::new(""), Err(InvalidId::Empty));
        assert_eq!(TicketId::new("x".repeat(513)), Err(InvalidId::TooLong(513)));
        assert_eq!(
            OrderId::decode(b"o-1"),
            OrderId::new("o-1").map_err(|_| unreachable!())
        );
        assert!(OrderId::decode(b"").is_err());
        assert!(OrderId::decode(b"\xff").is_err());
    }

    #[test]
    fn derived_ids_repeat_and_differ_by_kind_caller_and_key() {
        let user = |name: &str| UserId::new(name).unwrap();
        let command = CommandId::of_idempotency_key(&user("u"), "key");
        assert_eq!(command, CommandId::of_idempotency_key(&user("u"), "key"));
        assert_ne!(command, CommandId::of_idempotency_key(&user("v"), "key"));
        assert_ne!(command, CommandId::of_idempotency_key(&user("uk"), "ey"));
        assert_ne!(
            TicketId::named_by(&command).as_str(),
            OrderId::named_by(&command).as_str()
        );
    }
}
