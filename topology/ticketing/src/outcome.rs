//! What became of a command.
//!
//! An outcome is kept under the command's key and id for at least a day, and answers both
//! the request that waits for it and every later command with the same id. Three
//! cases have to be told apart, and [`Outcome::reply_to`] does:
//!
//! - It is the answer: the same body was decided before, or just now.
//! - It belongs to another body under the same id: 422 over HTTP.
//! - It is a `404` of an earlier attempt. A `404` is not worth keeping as an answer, since
//!   what is missing may come: a command with a *new* attempt id is decided anew. One without
//!   an attempt id, or with one that was decided already, is the same record twice and
//!   changes nothing. So the outcome remembers the attempts that it answers.

use turnstile_engine::{CodecError, TimestampMs};

use crate::commands::{Command, CommandBody, Fingerprint};
use crate::ids::{AttemptId, CommandId, OrderId, PaymentRecordId};
use crate::row::{Row, RowReader, row, stored, write_bytes};
use crate::tickets::Ticket;

/// How many attempts at a command that ended in `404` an outcome can answer.
pub(crate) const MAX_ATTEMPTS: usize = 16;

/// The key under which an outcome is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeKey {
    /// The id that the command is keyed by.
    pub key: String,
    /// The command.
    pub command: CommandId,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// The attempts that it answers, the latest last; only for a `404`, and at most 16.
    pub attempts: Vec<AttemptId>,
    /// When it was decided.
    pub decided_at: TimestampMs,
}

/// A command that was decided, in the row that it is about. Its outcome follows from that
/// row, as long as the row is what the command made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The command.
    pub command: CommandId,
    /// What it asked for.
    pub fingerprint: Fingerprint,
    /// When it was decided.
    pub decided_at: TimestampMs,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The ticket was created, like this.
    TicketCreated(Ticket),
    /// The ticket was edited, like this.
    TicketUpdated(Ticket),
    /// The ticket is reserved for this order, which the store of orders will have shortly.
    OrderPlaced(OrderId),
    /// The order is cancelled.
    OrderCancelled,
    /// The payment succeeded.
    PaymentMade(PaymentRecordId),
    /// The payment was declined, or not answered in time.
    PaymentDeclined(PaymentRecordId),
    /// There is no such ticket or order.
    NotFound,
    /// The ticket or order is somebody else's.
    Forbidden,
    /// The state of the ticket or order does not allow that.
    Conflict(Conflict),
    /// What was asked for is impossible, for this reason.
    Invalid(String),
}

/// Why a state does not allow a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// The ticket exists already.
    TicketExists,
    /// The ticket is reserved.
    TicketReserved,
    /// The order has ended.
    OrderFinished,
    /// The order is paid, being paid, or has ended.
    OrderNotPayable,
}

/// What an outcome is to somebody who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The answer.
    Answer(&'a Answer),
    /// The same command id was used to ask for something else.
    OtherBody,
    /// Nothing yet: the outcome is that of an earlier attempt.
    NotYet,
}

impl Answer {
    /// The corresponding HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::TicketCreated(_) | Self::OrderPlaced(_) | Self::PaymentMade(_) => 201,
            Self::TicketUpdated(_) => 200,
            Self::OrderCancelled => 204,
            Self::Invalid(_) => 400,
            Self::PaymentDeclined(_) => 402,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict(_) => 409,
        }
    }

    /// Whether the same command may be decided anew.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotFound)
    }
}

impl Outcome {
    /// What this means to whoever asked for `fingerprint` in `attempt`.
    #[must_use]
    pub fn reply_to(&self, fingerprint: Fingerprint, attempt: &AttemptId) -> Reply<'_> {
        if self.answer.is_retryable() {
            if self.attempts.contains(attempt) {
                return Reply::Answer(&self.answer);
            }
            return Reply::NotYet;
        }
        if self.fingerprint == fingerprint {
            return Reply::Answer(&self.answer);
        }
        Reply::OtherBody
    }

    /// The outcome of an attempt after those that `earlier` answered.
    pub(crate) fn new(
        answer: Answer,
        fingerprint: Fingerprint,
        mut earlier: Vec<AttemptId>,
        attempt: Option<AttemptId>,
        decided_at: TimestampMs,
    ) -> Self {
        if !answer.is_retryable() {
            return Self {
                answer,
                fingerprint,
                attempts: Vec::new(),
                decided_at,
            };
        }
        earlier.extend(attempt);
        let too_many = earlier.len().saturating_sub(MAX_ATTEMPTS);
        earlier.drain(..too_many);
        Self {
            answer,
            fingerprint,
            attempts: earlier,
            decided_at,
        }
    }
}

impl Decision {
    pub(crate) fn on<B: CommandBody>(command: &Command<B>, now: TimestampMs) -> Self {
        Self {
            command: command.id.clone(),
            fingerprint: command.fingerprint(),
            decided_at: now,
        }
    }

    /// What became of the command.
    pub(crate) fn outcome(&self, answer: Answer) -> Outcome {
        Outcome {
            answer,
            fingerprint: self.fingerprint,
            attempts: Vec::new(),
            decided_at: self.decided_at,
        }
    }
}

row!(Decision {
    command,
    fingerprint,
    decided_at
});

row!(Outcome {
    answer,
    fingerprint,
    attempts,
    decided_at
});
stored!(Outcome, 2);

row!(OutcomeKey { key, command });
stored!(OutcomeKey, 1);

impl Row for Fingerprint {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(&self.0, out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let length = from.length()?;
        let bytes = from.bytes(length)?.try_into();
        bytes
            .map(Self)
            .map_err(|_| from.fault("a fingerprint has 16 bytes"))
    }
}

impl Row for Answer {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::TicketCreated(ticket) => {
                out.push(0);
                ticket.write(out);
            }
            Self::TicketUpdated(ticket) => {
                out.push(1);
                ticket.write(out);
            }
            Self::OrderPlaced(order) => {
                out.push(2);
                order.write(out);
            }
            Self::OrderCancelled => out.push(3),
            Self::PaymentMade(payment) => {
                out.push(4);
                payment.write(out);
            }
            Self::PaymentDeclined(payment) => {
                out.push(5);
                payment.write(out);
            }
            Self::NotFound => out.push(6),
            Self::Forbidden => out.push(7),
            Self::Conflict(conflict) => {
                out.push(8);
                conflict.write(out);
            }
            Self::Invalid(reason) => {
                out.push(9);
                reason.write(out);
            }
        }
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        Ok(match from.byte()? {
            0 => Self::TicketCreated(Row::read(from)?),
            1 => Self::TicketUpdated(Row::read(from)?),
            2 => Self::OrderPlaced(Row::read(from)?),
            3 => Self::OrderCancelled,
            4 => Self::PaymentMade(Row::read(from)?),
            5 => Self::PaymentDeclined(Row::read(from)?),
            6 => Self::NotFound,
            7 => Self::Forbidden,
            8 => Self::Conflict(Row::read(from)?),
            9 => Self::Invalid(Row::read(from)?),
            other => return Err(from.fault(format!("{other} is no answer"))),
        })
    }
}

impl Row for Conflict {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::TicketExists => 0,
            Self::TicketReserved => 1,
            Self::OrderFinished => 2,
            Self::OrderNotPayable => 3,
        });
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        Ok(match from.byte()? {
            0 => Self::TicketExists,
            1 => Self::TicketReserved,
            2 => Self::OrderFinished,
            3 => Self::OrderNotPayable,
            other => return Err(from.fault(format!("{other} is no conflict"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use turnstile_engine::Codec;

    use super::*;

    fn attempt(number: usize) -> AttemptId {
        AttemptId::new(format!("a{number}")).unwrap()
    }

    const NOW: TimestampMs = TimestampMs(7);
    const ASKED: Fingerprint = Fingerprint([1; 16]);
    const ELSE: Fingerprint = Fingerprint([2; 16]);

    #[test]
    fn a_decision_answers_every_attempt_with_the_same_body() {
        let outcome = Outcome::new(
            Answer::OrderCancelled,
            ASKED,
            vec![attempt(1)],
            Some(attempt(2)),
            NOW,
        );
        assert_eq!(outcome.attempts, []);
        for number in 0..3 {
            let reply = outcome.reply_to(ASKED, &attempt(number));
            assert_eq!(reply, Reply::Answer(&Answer::OrderCancelled));
        }
        assert_eq!(outcome.reply_to(ELSE, &attempt(2)), Reply::OtherBody);
    }

    #[test]
    fn a_404_answers_the_attempts_that_met_it_and_no_others() {
        let outcome = Outcome::new(
            Answer::NotFound,
            ASKED,
            vec![attempt(1)],
            Some(attempt(2)),
            NOW,
        );
        for number in [1, 2] {
            let reply = outcome.reply_to(ASKED, &attempt(number));
            assert_eq!(reply, Reply::Answer(&Answer::NotFound));
        }
        assert_eq!(outcome.reply_to(ASKED, &attempt(3)), Reply::NotYet);
    }

    #[test]
    fn the_attempts_of_a_404_are_bounded() {
        let mut outcome = Outcome::new(Answer::NotFound, ASKED, Vec::new(), None, NOW);
        for number in 0..100 {
            outcome = Outcome::new(
                Answer::NotFound,
                ASKED,
                outcome.attempts,
                Some(attempt(number)),
                NOW,
            );
        }
        assert_eq!(outcome.attempts, (84..100).map(attempt).collect::<Vec<_>>());
    }

    #[test]
    fn outcomes_read_as_they_were_written() {
        let payment = PaymentRecordId::new("p").unwrap();
        for answer in [
            Answer::OrderPlaced(OrderId::new("o").unwrap()),
            Answer::OrderCancelled,
            Answer::PaymentMade(payment.clone()),
            Answer::PaymentDeclined(payment),
            Answer::NotFound,
            Answer::Forbidden,
            Answer::Conflict(Conflict::TicketExists),
            Answer::Conflict(Conflict::TicketReserved),
            Answer::Conflict(Conflict::OrderFinished),
            Answer::Conflict(Conflict::OrderNotPayable),
            Answer::Invalid("title is empty".to_owned()),
        ] {
            let outcome = Outcome::new(answer, ASKED, vec![attempt(7)], None, NOW);
            assert_eq!(Outcome::decode(&outcome.to_bytes()), Ok(outcome));
        }
    }
}
