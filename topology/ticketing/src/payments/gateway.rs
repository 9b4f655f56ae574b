//! The payment gateway, and a simulated one.

use crate::ids::{OrderId, PaymentId, Token};
use crate::price::Price;

/// What is to be charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Names the charge: the gateway charges once for each.
    pub payment_id: PaymentId,
    /// What it is for.
    pub order_id: OrderId,
    /// How much.
    pub price: Price,
    /// What to charge.
    pub token: Token,
}

/// The gateway's answer to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// The money is there.
    Succeeded,
    /// It is not, and will not be.
    Declined,
    /// Not known yet: [`Gateway::settle`] is called when the time for an answer is over.
    Open,
}

/// How an open charge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The money is there.
    Succeeded,
    /// It is not, and will not be.
    Failed,
}

/// Charges and refunds.
///
/// All calls are idempotent by payment id, and have to be: what a task did since
/// its last commit is done again after a crash. A charge may then not be repeated, if
/// the order was cancelled meanwhile: it is settled instead. None of them blocks, since
/// they run on a stream thread that has other tasks too; an answer that takes time is
/// [`ChargeAnswer::Open`].
pub trait Gateway: Send + Sync + 'static {
    /// Charges.
    fn charge(&self, charge: &Charge) -> ChargeAnswer;

    /// Ends a charge that is open, or of which nobody here knows whether it was made: one that
    /// has not succeeded by now, or was never made, is void for good.
    fn settle(&self, payment: &PaymentId) -> Settlement;

    /// Whether a charge that nobody here knows of has succeeded. If it was never made, it may
    /// still be.
    fn has_succeeded(&self, payment: &PaymentId) -> bool;

    /// Refunds what was charged.
    fn refund(&self, payment: &PaymentId);
}

/// A gateway that goes by the token: `tok_chargeDeclined` is declined, `tok_timeout`
/// is never answered, everything else succeeds.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimulatedGateway;

impl Gateway for SimulatedGateway {
    fn charge(&self, charge: &Charge) -> ChargeAnswer {
        match charge.token.as_str() {
            "tok_chargeDeclined" => ChargeAnswer::Declined,
            "tok_timeout" => ChargeAnswer::Open,
            _ => ChargeAnswer::Succeeded,
        }
    }

    fn settle(&self, _: &PaymentId) -> Settlement {
        Settlement::Failed
    }

    fn has_succeeded(&self, _: &PaymentId) -> bool {
        false
    }

    fn refund(&self, payment: &PaymentId) {
        tracing::debug!(%payment, "refunded");
    }
}
