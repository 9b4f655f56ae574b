//! What the timers of all processors are for: a letter and the id that it is about.

use turnstile_engine::{Codec, ProcessorError, Timer};

use crate::ids::{OrderId, TicketId};

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimerKey {
    /// Commands have waited long enough for a ticket.
    TicketWait(TicketId),
    /// Commands have waited long enough for an order.
    OrderWait(OrderId),
    /// Events have waited long enough for an order.
    ParkedEvents(OrderId),
    /// A charge has to be settled now.
    Settlement(OrderId),
    /// A foreign Orders has had enough time to ask for a refund.
    RefundWait(OrderId),
    /// An order expires.
    Expiry(OrderId),
}

impl TimerKey {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (letter, id) = match self {
            Self::TicketWait(ticket) => (b't', ticket.to_bytes()),
            Self::OrderWait(order) => (b'w', order.to_bytes()),
            Self::ParkedEvents(order) => (b'p', order.to_bytes()),
            Self::Settlement(order) => (b's', order.to_bytes()),
            Self::RefundWait(order) => (b'r', order.to_bytes()),
            Self::Expiry(order) => (b'x', order.to_bytes()),
        };
        let mut bytes = vec![letter];
        bytes.extend_from_slice(&id);
        bytes
    }

    /// What a timer that fired is for.
    pub(crate) fn of(timer: &Timer) -> Result<Self, ProcessorError> {
        Self::read(&timer.key).ok_or_else(|| unexpected(timer))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (letter, id) = bytes.split_first()?;
        match letter {
            b't' => TicketId::decode(id).map(Self::TicketWait).ok(),
            b'w' => OrderId::decode(id).map(Self::OrderWait).ok(),
            b'p' => OrderId::decode(id).map(Self::ParkedEvents).ok(),
            b's' => OrderId::decode(id).map(Self::Settlement).ok(),
            b'r' => OrderId::decode(id).map(Self::RefundWait).ok(),
            b'x' => OrderId::decode(id).map(Self::Expiry).ok(),
            _ => None,
        }
    }
}

/// A timer that the processor never set.
pub(crate) fn unexpected(timer: &Timer) -> ProcessorError {
    ProcessorError::UnexpectedTimer {
        key: String::from_utf8_lossy(&timer.key).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_keys_read_as_they_were_written() {
        let order = OrderId::new("o").unwrap();
        for key in [
            TimerKey::TicketWait(TicketId::new("t").unwrap()),
            TimerKey::OrderWait(order.clone()),
            TimerKey::ParkedEvents(order.clone()),
            TimerKey::Settlement(order.clone()),
            TimerKey::RefundWait(order.clone()),
            TimerKey::Expiry(order),
        ] {
            assert_eq!(TimerKey::read(&key.to_bytes()), Some(key));
        }
        assert_eq!(TimerKey::read(b""), None);
        assert_eq!(TimerKey::read(b"t"), None);
        assert_eq!(TimerKey::read(b"?o"), None);
    }
}
