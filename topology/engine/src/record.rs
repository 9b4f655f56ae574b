//! Records as they come from and go to Kafka.

use std::sync::Arc;

use crate::{Offset, Partition, TimestampMs};

/// A header of a record: its name, and its value unless null.
pub type Header = (String, Option<Vec<u8>>);

/// Where a record was read: what identifies it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition of the topic.
    pub partition: Partition,
    /// The offset in the partition.
    pub offset: Offset,
}

/// A record that was read from a topic; it borrows from the consumer's buffer.
#[derive(Debug, Clone, Copy)]
pub struct InputRecord<'a> {
    /// The key, unless null.
    pub key: Option<&'a [u8]>,
    /// The value, unless null.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [Header],
    /// Its time as the producer or the broker stamped it.
    pub timestamp: TimestampMs,
    /// Its offset in the partition of the task that gets it.
    pub offset: Offset,
}

/// A record on its way to a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition of the topic.
    pub partition: Partition,
    /// The key, unless null.
    pub key: Option<Vec<u8>>,
    /// The value, unless null.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its time.
    pub timestamp: TimestampMs,
}

/// A record that can never be processed, with where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was read.
    pub origin: Origin,
    /// Its key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Its value, unchanged.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its time.
    pub timestamp: TimestampMs,
    /// The class of the fault.
    pub kind: &'static str,
    /// What is wrong with it, for a person.
    pub message: String,
}

/// A message that can be sent.
pub trait Encode {
    /// Appends its wire form to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}
