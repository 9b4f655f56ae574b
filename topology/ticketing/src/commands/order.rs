//! Commands of the topic `order-commands`, keyed by order id.

use turnstile_engine::{DecodeError, Decoded, InputRecord};

use super::{Command, CommandBody, WireBody};
use crate::events::UNKNOWN_TYPE;
use crate::ids::{OrderId, Token, UserId};
use crate::row::row;
use crate::wire::{Fields, Message, id};

/// A command of the topic `order-commands`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderCommand {
    /// `order.cancel`.
    Cancel(OrderCancel),
    /// `payment.create`.
    Pay(PaymentCreate),
}

/// An order to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderCancel {
    /// The order.
    pub order_id: OrderId,
    /// Who asks.
    pub user_id: UserId,
}

/// An order to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentCreate {
    /// The order.
    pub order_id: OrderId,
    /// Who asks.
    pub user_id: UserId,
    /// What to charge.
    pub token: Token,
}

row!(PaymentCreate {
    order_id,
    user_id,
    token
});

impl OrderCommand {
    /// Reads a record of `order-commands`.
    ///
    /// # Errors
    ///
    /// When the value is not a JSON object or lacks a field of its type.
    pub fn decode(record: &InputRecord<'_>) -> Result<Decoded<Command<Self>>, DecodeError> {
        let fields = Fields::read(record.value)?;
        let order_id = || id("orderId", &fields.order_id);
        let user_id = || id("userId", &fields.user_id);
        let command = match fields.kind()? {
            "order.cancel" => Self::Cancel(OrderCancel {
                order_id: order_id()?,
                user_id: user_id()?,
            }),
            "payment.create" => Self::Pay(PaymentCreate {
                order_id: order_id()?,
                user_id: user_id()?,
                token: id("token", &fields.token)?,
            }),
            _ => return Ok(Decoded::Skip(UNKNOWN_TYPE)),
        };
        Command::read(&fields, command).map(Decoded::Message)
    }
}

impl CommandBody for OrderCommand {
    fn key(&self) -> &str {
        match self {
            Self::Cancel(cancel) => cancel.key(),
            Self::Pay(pay) => pay.key(),
        }
    }

    fn wire(&self) -> WireBody<'_> {
        match self {
            Self::Cancel(cancel) => cancel.wire(),
            Self::Pay(pay) => pay.wire(),
        }
    }
}

impl CommandBody for OrderCancel {
    fn key(&self) -> &str {
        self.order_id.as_str()
    }

    fn wire(&self) -> WireBody<'_> {
        WireBody(Message {
            kind: "order.cancel",
            order_id: Some(self.order_id.as_str()),
            user_id: Some(self.user_id.as_str()),
            ..Message::default()
        })
    }
}

impl CommandBody for PaymentCreate {
    fn key(&self) -> &str {
        self.order_id.as_str()
    }

    fn wire(&self) -> WireBody<'_> {
        WireBody(Message {
            kind: "payment.create",
            order_id: Some(self.order_id.as_str()),
            user_id: Some(self.user_id.as_str()),
            token: Some(self.token.as_str()),
            ..Message::default()
        })
    }
}
