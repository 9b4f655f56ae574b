//! What was charged and refunded for an order, and the rules for it.

use turnstile_engine::TimestampMs;

use super::gateway::Charge;
use super::payable::PayableOrder;
use crate::commands::{Command, Fingerprint, PaymentCreate};
use crate::ids::{CommandId, PaymentId, PaymentRecordId};
use crate::outcome::{Answer, Conflict, Outcome};
use crate::row::{row, stored};

/// What was charged and refunded for an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderCharges {
    /// The one charge that was made for the order.
    pub charged: Option<MadeCharge>,
    /// The payments that were refunded, each once.
    pub refunded: Vec<PaymentId>,
}

/// A charge that was made, and the command that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeCharge {
    /// The charge.
    pub payment: PaymentId,
    /// The payment's record.
    pub record: PaymentRecordId,
    /// The `payment.create`.
    pub command: CommandId,
    /// What it asked for.
    pub fingerprint: Fingerprint,
    /// How it ended; `None` while the gateway's answer is open.
    pub ended: Option<ChargeEnd>,
}

/// How a charge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargeEnd {
    /// Whether the money is there.
    pub succeeded: bool,
    /// When that was known.
    pub at: TimestampMs,
}

row!(ChargeEnd { succeeded, at });
row!(MadeCharge {
    payment,
    record,
    command,
    fingerprint,
    ended
});
row!(OrderCharges { charged, refunded });
stored!(OrderCharges, 1);

impl MadeCharge {
    /// The charge for a command, not yet ended. It has the same ids each time.
    pub(super) fn of(command: &Command<PaymentCreate>) -> Self {
        let record = PaymentRecordId::named_by(&command.id, &command.body.order_id);
        Self {
            payment: PaymentId::of(&record),
            record,
            command: command.id.clone(),
            fingerprint: command.fingerprint(),
            ended: None,
        }
    }

    /// Whether it took money, as far as is known, or may have.
    pub(super) fn may_have_succeeded(&self) -> bool {
        self.ended.is_none_or(|end| end.succeeded)
    }
}

impl OrderCharges {
    /// Whether the charge was made for this command.
    pub(super) fn are_for(&self, command: &CommandId) -> bool {
        let charged = self.charged.as_ref();
        charged.is_some_and(|charge| charge.command == *command)
    }

    /// The outcome of `command`, if the order was charged for it and the charge has ended:
    /// then it is kept here and nowhere else.
    #[must_use]
    pub fn outcome_of(&self, command: &CommandId) -> Option<Outcome> {
        let charge = self.charged.as_ref();
        let charge = charge.filter(|charge| charge.command == *command)?;
        let ChargeEnd { succeeded, at } = charge.ended?;
        let answer = if succeeded {
            Answer::PaymentMade
        } else {
            Answer::PaymentDeclined
        };
        Some(Outcome {
            answer: answer(charge.record.clone()),
            fingerprint: charge.fingerprint,
            attempts: Vec::new(),
            decided_at: at,
        })
    }

    /// What `command` charges, or why nothing is charged.
    pub(super) fn begin(
        &self,
        order: &PayableOrder,
        command: &Command<PaymentCreate>,
    ) -> Result<(MadeCharge, Charge), Answer> {
        let PaymentCreate {
            order_id,
            user_id,
            token,
        } = &command.body;
        if order.user_id.as_ref() != Some(user_id) {
            return Err(Answer::Forbidden);
        }
        let price = order.payable.filter(|_| self.charged.is_none());
        let price = price.ok_or(Answer::Conflict(Conflict::OrderNotPayable))?;
        let made = MadeCharge::of(command);
        let charge = Charge {
            payment_id: made.payment.clone(),
            order_id: order_id.clone(),
            price,
            token: token.clone(),
        };
        Ok((made, charge))
    }

    /// Notes that `payment` is refunded; returns whether that is still to be done.
    pub(super) fn refund(&mut self, payment: &PaymentId) -> bool {
        if self.refunded.contains(payment) {
            return false;
        }
        self.refunded.push(payment.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrderId, Token, UserId};
    use crate::price::{Amount, Price};

    fn command(id: &str, user: &str) -> Command<PaymentCreate> {
        let body = PaymentCreate {
            order_id: OrderId::new("o").unwrap(),
            user_id: UserId::new(user).unwrap(),
            token: Token::new("tok_visa").unwrap(),
        };
        Command {
            id: CommandId::new(id).unwrap(),
            attempt: None,
            body,
        }
    }

    fn order(payable: bool) -> PayableOrder {
        let price = Price::try_from(Amount::from_json("10").unwrap()).unwrap();
        let user_id = Some(UserId::new("buyer").unwrap());
        PayableOrder {
            version: 0,
            payable: payable.then_some(price),
            user_id,
        }
    }

    #[test]
    fn only_the_buyer_pays_only_what_is_payable_and_only_once() {
        let none = OrderCharges::default();
        let charged = OrderCharges {
            charged: Some(none.begin(&order(true), &command("d", "buyer")).unwrap().0),
            ..none.clone()
        };
        let not_payable = Answer::Conflict(Conflict::OrderNotPayable);
        assert!(none.begin(&order(true), &command("c", "buyer")).is_ok());
        for (charges, payable, user, refused) in [
            (&none, true, "other", Answer::Forbidden),
            (&none, false, "other", Answer::Forbidden),
            (&none, false, "buyer", not_payable.clone()),
            (&charged, true, "buyer", not_payable),
        ] {
            let begun = charges.begin(&order(payable), &command("c", user));
            assert_eq!(begun, Err(refused));
        }
    }

    #[test]
    fn a_command_names_the_same_payment_each_time() {
        let begin = |id| OrderCharges::default().begin(&order(true), &command(id, "buyer"));
        assert_eq!(begin("c"), begin("c"));
        assert_ne!(begin("c"), begin("d"));
    }

    #[test]
    fn a_payment_is_given_back_once() {
        let mut charges = OrderCharges::default();
        let payments = ["p", "q", "p", "q"].map(|id| PaymentId::new(id).unwrap());
        assert_eq!(
            payments.map(|payment| charges.refund(&payment)),
            [true, true, false, false]
        );
    }
}
