//! Events for an order that does not exist yet, kept until it does, or 24 hours.

use std::time::Duration;

use turnstile_engine::record::{Header, Origin};
use turnstile_engine::{CodecError, InputRecord, Offset, Partition, TimestampMs};

use super::rules::Fact;
use crate::row::{Row, RowReader, row, stored, write_bytes};

/// How long an event waits for its order.
pub(crate) const PARKED: Duration = Duration::from_hours(24);

/// The most events that wait for one order.
const MAX_PARKED: usize = 1000;

/// The most bytes that they have: they are one row, and one changelog record.
const MAX_PARKED_BYTES: usize = 1 << 20;

/// A record as it was read, to become a dead letter unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<Header>,
    pub(super) timestamp: TimestampMs,
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParkedEvent {
    pub(super) fact: Fact,
    pub(super) origin: Origin,
    pub(super) letter: Letter,
    /// When it has waited long enough.
    pub(super) until: TimestampMs,
}

/// The events that wait for one order, in order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ParkedEvents {
    pub(super) events: Vec<ParkedEvent>,
}

impl ParkedEvents {
    /// Adds one, unless that would be too many. What was said before is not said once more, since
    /// an order accepts it once: it waits for as long as if it had come last.
    pub(super) fn park(&mut self, event: ParkedEvent) -> Result<(), String> {
        let mut parked = self.events.iter_mut();
        if let Some(same) = parked.find(|parked| parked.fact == event.fact) {
            same.until = same.until.max(event.until);
            return Ok(());
        }
        let letters = self.events.iter().map(|event| &event.letter);
        let bytes = letters.map(Letter::bytes).sum::<usize>() + event.letter.bytes();
        if self.events.len() >= MAX_PARKED {
            return Err(format!("{MAX_PARKED} events wait already"));
        }
        if bytes > MAX_PARKED_BYTES {
            return Err(format!(
                "the events that wait would have {bytes} bytes, more than {MAX_PARKED_BYTES}"
            ));
        }
        self.events.push(event);
        Ok(())
    }
}

impl Letter {
    pub(super) fn of(record: &InputRecord<'_>) -> Self {
        Self {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.to_vec(),
            timestamp: record.timestamp,
        }
    }

    fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + length(value));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

row!(ParkedEvents { events });
stored!(ParkedEvents, 1);
row!(ParkedEvent {
    fact,
    origin,
    letter,
    until
});

impl Row for Fact {
    fn write(&self, out: &mut Vec<u8>) {
        let (kind, payment) = match self {
            Self::PaymentBegan(payment) => (0, payment),
            Self::PaymentSucceeded(payment) => (1, payment),
            Self::PaymentFailed(payment) => (2, payment),
            Self::Expired => return out.push(3),
        };
        out.push(kind);
        payment.write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        Ok(match from.byte()? {
            0 => Self::PaymentBegan(Row::read(from)?),
            1 => Self::PaymentSucceeded(Row::read(from)?),
            2 => Self::PaymentFailed(Row::read(from)?),
            3 => Self::Expired,
            other => return Err(from.fault(format!("{other} is no fact"))),
        })
    }
}

impl Row for Origin {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.topic.as_bytes(), out);
        TimestampMs(self.partition.0.into()).write(out);
        TimestampMs(self.offset.0).write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let topic = from.text()?.into();
        let TimestampMs(partition) = Row::read(from)?;
        let partition = i32::try_from(partition);
        let partition = partition.map_err(|_| from.fault("a partition is beyond 32 bits"))?;
        let TimestampMs(offset) = Row::read(from)?;
        Ok(Self {
            topic,
            partition: Partition(partition),
            offset: Offset(offset),
        })
    }
}

impl Row for Letter {
    fn write(&self, out: &mut Vec<u8>) {
        write_optional(self.key.as_deref(), out);
        write_optional(self.value.as_deref(), out);
        (self.headers.len() as u64).write(out);
        for (name, value) in &self.headers {
            name.write(out);
            write_optional(value.as_deref(), out);
        }
        self.timestamp.write(out);
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        let key = read_optional(from)?;
        let value = read_optional(from)?;
        let length = from.length()?;
        let headers = (0..length).map(|_| Ok((Row::read(from)?, read_optional(from)?)));
        let headers = headers.collect::<Result<_, CodecError>>()?;
        Ok(Self {
            key,
            value,
            headers,
            timestamp: Row::read(from)?,
        })
    }
}

fn write_optional(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    bytes.is_some().write(out);
    if let Some(bytes) = bytes {
        write_bytes(bytes, out);
    }
}

fn read_optional(from: &mut RowReader<'_>) -> Result<Option<Vec<u8>>, CodecError> {
    if !bool::read(from)? {
        return Ok(None);
    }
    let length = from.length()?;
    from.bytes(length).map(|bytes| Some(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use turnstile_engine::Codec;

    use super::*;
    use crate::ids::PaymentId;

    fn event(payment: usize, value: Vec<u8>) -> ParkedEvent {
        let payment = PaymentId::new(payment.to_string()).unwrap();
        ParkedEvent {
            fact: Fact::PaymentSucceeded(payment),
            origin: Origin {
                topic: "payments".into(),
                partition: Partition(3),
                offset: Offset(9),
            },
            letter: Letter {
                key: None,
                value: Some(value),
                headers: vec![("a".to_owned(), Some(vec![0; 10]))],
                timestamp: TimestampMs(-5),
            },
            until: TimestampMs(77),
        }
    }

    #[test]
    fn no_more_wait_than_a_row_can_hold() {
        let mut many = ParkedEvents::default();
        for payment in 0..MAX_PARKED {
            many.park(event(payment, vec![1; 3])).unwrap();
        }
        let one_more = event(MAX_PARKED, vec![1; 3]);
        assert!(many.park(one_more).unwrap_err().contains("1000"));
        assert_eq!(many.events.len(), MAX_PARKED);
        let mut large = ParkedEvents::default();
        let half = MAX_PARKED_BYTES / 2 - 11;
        for payment in 0..2 {
            large.park(event(payment, vec![1; half])).unwrap();
        }
        let one_more = event(2, Vec::new());
        assert!(large.park(one_more).unwrap_err().contains("bytes"));
        assert_eq!(large.events.len(), 2);
    }

    #[test]
    fn what_comes_again_takes_no_room_and_waits_as_long_as_if_it_had_come_last() {
        let mut parked = ParkedEvents::default();
        for payment in 0..MAX_PARKED {
            parked.park(event(payment, Vec::new())).unwrap();
        }
        let again = ParkedEvent {
            until: TimestampMs(99),
            ..event(0, vec![1; MAX_PARKED_BYTES])
        };
        parked.park(again).unwrap();
        parked.park(event(0, Vec::new())).unwrap();
        let expected = ParkedEvent {
            until: TimestampMs(99),
            ..event(0, Vec::new())
        };
        assert_eq!(parked.events.first(), Some(&expected));
        assert_eq!(parked.events.len(), MAX_PARKED);
    }

    #[test]
    fn parked_events_read_as_they_were_written() {
        let payment = PaymentId::new("p").unwrap();
        let facts = [
            Fact::PaymentBegan(payment.clone()),
            Fact::PaymentSucceeded(payment.clone()),
            Fact::PaymentFailed(payment),
            Fact::Expired,
        ];
        let events = facts.map(|fact| ParkedEvent {
            fact,
            letter: Letter {
                key: None,
                value: Some(vec![0xff, 0]),
                headers: vec![("a".to_owned(), None), ("b".to_owned(), Some(vec![1]))],
                timestamp: TimestampMs(-5),
            },
            ..event(0, Vec::new())
        });
        let parked = ParkedEvents {
            events: events.into(),
        };
        assert_eq!(ParkedEvents::decode(&parked.to_bytes()), Ok(parked));
    }
}
