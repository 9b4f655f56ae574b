//! Commands: whatever changes state enters through Kafka, so that it is replayed,
//! ordered and processed exactly once like any event.
//!
//! A command's id makes it idempotent among those with the same topic and key; see
//! [`crate::outcomes`]. A command that lacks a field is unreadable and becomes a dead
//! letter; one that can be read but asks for something impossible (an empty title) is
//! decided, with an outcome that says so.

mod order;
mod ticket;

pub use order::{OrderCancel, OrderCommand, PaymentCreate};
pub use ticket::{OrderCreate, TicketCommand, TicketWrite};

use turnstile_engine::{DecodeError, Encode};
use uuid::Uuid;

use crate::ids::{AttemptId, CommandId, NAMESPACE};
use crate::row::{Row, RowReader};
use crate::wire::{Fields, Message, Text, id};

/// A command with what makes it idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<B> {
    /// Two commands with the same topic, key and id are the same command.
    pub id: CommandId,
    /// Which attempt at it this is, if somebody waits for its answer.
    pub attempt: Option<AttemptId>,
    /// What is asked for.
    pub body: B,
}

/// What a command asks for.
pub trait CommandBody {
    /// The id that the command is keyed by.
    fn key(&self) -> &str;

    /// Gives `write` the JSON object of the body, without the command's id.
    #[doc(hidden)]
    fn wire(&self) -> WireBody<'_>;
}

/// A body on its way to the wire.
#[doc(hidden)]
pub struct WireBody<'a>(pub(crate) Message<'a>);

/// What two commands with the same id have in common if they ask for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub(crate) [u8; 16]);

impl<B> Command<B> {
    /// The same command with another body.
    pub(crate) fn with<C>(&self, body: C) -> Command<C> {
        Command {
            id: self.id.clone(),
            attempt: self.attempt.clone(),
            body,
        }
    }
}

impl<B: CommandBody> Command<B> {
    /// What the command asks for, in short.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut body = Vec::with_capacity(256);
        self.body.wire().0.write(&mut body);
        Fingerprint(Uuid::new_v5(&NAMESPACE, &body).into_bytes())
    }
}

impl<B> Command<B> {
    pub(crate) fn read(fields: &Fields<'_>, body: B) -> Result<Self, DecodeError> {
        let attempt = match fields.attempt_id {
            Text::Absent => None,
            Text::Is(_) | Text::Mended(_) | Text::Other => {
                Some(id("attemptId", &fields.attempt_id)?)
            }
        };
        Ok(Self {
            id: id("commandId", &fields.command_id)?,
            attempt,
            body,
        })
    }
}

impl<B: CommandBody> Encode for Command<B> {
    fn encode(&self, out: &mut Vec<u8>) {
        let WireBody(mut message) = self.body.wire();
        message.command_id = Some(self.id.as_str());
        message.attempt_id = self.attempt.as_ref().map(AttemptId::as_str);
        message.write(out);
    }
}

impl<B: Row> Row for Command<B> {
    fn write(&self, out: &mut Vec<u8>) {
        self.id.write(out);
        self.attempt.write(out);
        self.body.write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, turnstile_engine::CodecError> {
        Ok(Self {
            id: Row::read(from)?,
            attempt: Row::read(from)?,
            body: Row::read(from)?,
        })
    }
}
