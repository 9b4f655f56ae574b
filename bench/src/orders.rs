//! Commands to the ticketing system: tickets, and an order for each of them.
//!
//! Ids are made from numbers, so that the output tells which command it belongs to.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use turnstile_ticketing::topics::TICKET_COMMANDS;

use crate::Outcome;
use crate::reader::client;

/// The prefix of an order's id; its number follows.
const ORDER_PREFIX: &str = "00000000-0000-4000-a000-";

/// Sends commands.
pub(crate) struct Commands {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Commands {
    pub(crate) fn to(brokers: &str) -> Outcome<Self> {
        let producer = client(brokers)
            .set("partitioner", "murmur2")
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("batch.size", "262144")
            .create()?;
        Ok(Self { producer })
    }

    /// Sends a record to the partition of its key.
    pub(crate) fn send(&self, topic: &str, key: &str, value: &str) -> Outcome<()> {
        self.enqueue(BaseRecord::to(topic).key(key).payload(value))
    }

    /// Sends a record without a key to a partition.
    pub(crate) fn send_to(&self, topic: &str, partition: i32, value: &str) -> Outcome<()> {
        self.enqueue(BaseRecord::to(topic).partition(partition).payload(value))
    }

    /// Waits while the queue of the client is full.
    fn enqueue(&self, mut record: BaseRecord<'_, str, str>) -> Outcome<()> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until everything is delivered.
    pub(crate) fn flush(&self) -> Outcome<()> {
        Ok(self.producer.flush(Duration::from_mins(2))?)
    }

    /// Creates the tickets of these numbers.
    pub(crate) fn tickets(&self, numbers: Range<usize>) -> Outcome<()> {
        for number in numbers {
            let ticket = format!("t-{number}");
            let value = format!(
                r#"{{"type":"ticket.create","commandId":"tc-{number}","id":"{ticket}","title":"Concert {number}","price":{}.25,"userId":"u-{}"}}"#,
                number % 200,
                number % 1000
            );
            self.send(TICKET_COMMANDS, &ticket, &value)?;
        }
        self.flush()
    }

    /// Orders the tickets of these numbers, at `rate` per second if given; returns the time of
    /// each command.
    pub(crate) fn orders(&self, numbers: Range<usize>, rate: Option<f64>) -> Outcome<Vec<Instant>> {
        let begun = Instant::now();
        let mut sent = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Some(rate) = rate {
                let due = begun + Duration::from_secs_f64(sent.len() as f64 / rate);
                sleep(due.saturating_duration_since(Instant::now()));
            }
            let value = format!(
                r#"{{"type":"order.create","commandId":"oc-{number}","orderId":"{ORDER_PREFIX}{number:012}","ticketId":"t-{number}","userId":"u-{}"}}"#,
                number % 1000
            );
            sent.push(Instant::now());
            self.send(TICKET_COMMANDS, &format!("t-{number}"), &value)?;
        }
        self.flush()?;
        Ok(sent)
    }
}

/// The number of the order whose event this is.
pub(crate) fn number_of(event: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(event).ok()?;
    let (_, after) = text.split_once(ORDER_PREFIX)?;
    after.get(..12)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_the_number_of_its_order() {
        let event = br#"{"type":"order.created","id":"00000000-0000-4000-a000-000000000417"}"#;
        assert_eq!(number_of(event), Some(417));
        assert_eq!(
            number_of(br#"{"type":"ticket.updated","id":"t-417"}"#),
            None
        );
    }
}
