//! The life cycle of an order: every legal step, in one table.
//!
//! ```text
//!             PaymentBegins            PaymentSucceeds
//!   Created ───────────────► Pending ───────────────────► Completed
//!      │                        ├── PaymentFails ───────► Failed
//!      │                        └── Cancels ────────────► Cancelled
//!      └── and straight to any of the three, which are final
//! ```

use turnstile_engine::CodecError;

use crate::row::{Row, RowReader};

/// Where an order is in its life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// It holds its ticket and can be paid.
    Created,
    /// Its payment has begun.
    PendingPayment,
    /// It is paid and keeps its ticket.
    Completed,
    /// Its payment failed.
    Failed,
    /// Its buyer cancelled it, or its time was over.
    Cancelled,
}

/// What moves an order on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    PaymentBegins,
    PaymentSucceeds,
    PaymentFails,
    Cancels,
}

impl OrderStatus {
    /// All of them, in the order of the life cycle.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::PendingPayment,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The status after `step`, if that is a legal one.
    pub(super) fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Created, Step::PaymentBegins) => Some(Self::PendingPayment),
            (Self::Created | Self::PendingPayment, Step::PaymentSucceeds) => Some(Self::Completed),
            (Self::Created | Self::PendingPayment, Step::PaymentFails) => Some(Self::Failed),
            (Self::Created | Self::PendingPayment, Step::Cancels) => Some(Self::Cancelled),
            (Self::PendingPayment, Step::PaymentBegins)
            | (Self::Completed | Self::Failed | Self::Cancelled, _) => None,
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether an order with this status has its ticket.
    #[must_use]
    pub fn holds_ticket(self) -> bool {
        matches!(self, Self::Created | Self::PendingPayment | Self::Completed)
    }

    /// The status as the wire contract writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::PendingPayment => "pending_payment",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Row for OrderStatus {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Created => 0,
            Self::PendingPayment => 1,
            Self::Completed => 2,
            Self::Failed => 3,
            Self::Cancelled => 4,
        });
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        Ok(match from.byte()? {
            0 => Self::Created,
            1 => Self::PendingPayment,
            2 => Self::Completed,
            3 => Self::Failed,
            4 => Self::Cancelled,
            other => return Err(from.fault(format!("{other} is no status"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::OrderStatus::{Cancelled, Completed, Created, Failed, PendingPayment};
    use super::Step::{Cancels, PaymentBegins, PaymentFails, PaymentSucceeds};

    #[test]
    fn the_legal_steps_are_these() {
        let steps = [PaymentBegins, PaymentSucceeds, PaymentFails, Cancels];
        let table = [
            (
                Created,
                [
                    Some(PendingPayment),
                    Some(Completed),
                    Some(Failed),
                    Some(Cancelled),
                ],
            ),
            (
                PendingPayment,
                [None, Some(Completed), Some(Failed), Some(Cancelled)],
            ),
            (Completed, [None; 4]),
            (Failed, [None; 4]),
            (Cancelled, [None; 4]),
        ];
        for (from, expected) in table {
            assert_eq!(steps.map(|step| from.after(step)), expected, "{from:?}");
            assert_eq!(from.is_final(), expected == [None; 4], "{from:?}");
        }
    }
}
