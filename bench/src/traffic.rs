//! The output of the ticketing system: counts and times of its events.

use std::time::{Duration, Instant};

use rdkafka::Message;
use turnstile_ticketing::topics::{ORDERS, TICKETS};

use crate::Outcome;
use crate::orders::number_of;
use crate::reader::Reader;

/// After this long without any event, something is wrong.
const SILENCE: Duration = Duration::from_mins(2);

/// The topics of the events of tickets and orders.
pub(crate) const EVENTS: [&str; 2] = [TICKETS, ORDERS];

/// The events that each order produces.
pub(crate) const OF_AN_ORDER: [&str; 2] = ["order.created", "ticket.updated"];

/// Reads the events that come from now on.
pub(crate) struct Traffic {
    reader: Reader,
}

/// The time from the first of the awaited events to the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl Span {
    pub(crate) fn seconds(self) -> f64 {
        self.last.duration_since(self.first).as_secs_f64()
    }
}

impl Traffic {
    /// The events that come to these topics from now on.
    pub(crate) fn from_now(brokers: &str, topics: &[impl AsRef<str>]) -> Outcome<Self> {
        let reader = Reader::from_now(brokers, topics)?;
        // The first poll sends the first request.
        reader.next(Duration::ZERO)?;
        Ok(Self { reader })
    }

    /// Waits for this many events of each of these types.
    pub(crate) fn await_all(&self, types: &[&str], count: usize) -> Outcome<Option<Span>> {
        let mut missing: Vec<(String, usize)> = types
            .iter()
            .map(|name| (format!(r#""{name}""#), count))
            .collect();
        let mut span: Option<Span> = None;
        while missing.iter().any(|(_, count)| *count > 0) {
            let record = self.reader.next(SILENCE)?;
            let record = record.ok_or("no event came for two minutes")?;
            let value = record.payload().unwrap_or_default();
            let of_type = missing.iter_mut().find(|(name, _)| is_of_type(value, name));
            let Some((_, count)) = of_type else { continue };
            *count = count.saturating_sub(1);
            let now = Instant::now();
            span = Some(Span {
                first: span.map_or(now, |span| span.first),
                last: now,
            });
        }
        Ok(span)
    }

    /// Waits for `order.created` of the orders from this number on; returns when each was seen.
    pub(crate) fn await_orders(&self, from: usize, count: usize) -> Outcome<Vec<Instant>> {
        let mut seen: Vec<Option<Instant>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            let record = self.reader.next(SILENCE)?;
            let now = Instant::now();
            let record = record.ok_or("no event came for two minutes")?;
            let value = record.payload().unwrap_or_default();
            if !is_of_type(value, r#""order.created""#) {
                continue;
            }
            let number = number_of(value).and_then(|number| number.checked_sub(from));
            if let Some(place) = number.and_then(|number| seen.get_mut(number))
                && place.is_none()
            {
                *place = Some(now);
                missing -= 1;
            }
        }
        Ok(seen.into_iter().flatten().collect())
    }
}

/// Whether an event has this type, which is given with its quotes: the type comes first.
fn is_of_type(event: &[u8], quoted: &str) -> bool {
    let head = event.get(..40).unwrap_or(event);
    head.windows(quoted.len())
        .any(|window| window == quoted.as_bytes())
}
