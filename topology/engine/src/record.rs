//! Records as they are read from and written to Kafka.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::{Offset, Partition, TimestampMs};

/// The largest record that the application writes, in bytes. A record from another topic grows by
/// what is added to describe it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The largest record that is sent: a dead letter needs some extra room.
pub(crate) const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (64 << 10);

/// A header of a record: its name, and its value unless it is null.
pub type Header = (String, Option<Vec<u8>>);

/// Where a record was read: this identifies it for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition of the topic.
    pub partition: Partition,
    /// The offset in the partition.
    pub offset: Offset,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.topic, self.partition, self.offset)
    }
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
    /// Its timestamp, as set by the producer or the broker.
    pub timestamp: TimestampMs,
    /// Its offset in the partition of the task that gets it.
    pub offset: Offset,
    /// What earlier readers of the same record decoded it to.
    pub decoded: Option<&'a DecodeCache>,
}

/// The decoded form of one record, shared by its readers: on a stream thread several tasks read the
/// same record one after the other.
#[derive(Default)]
pub struct DecodeCache(RefCell<Option<Rc<dyn Any>>>);

impl fmt::Debug for DecodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecodeCache")
    }
}

impl InputRecord<'_> {
    /// Returns what `decode` makes of the record. If an earlier reader has decoded it to the same
    /// type, that result is returned: a type has one decoder.
    pub fn decoded_once<T: 'static>(&self, decode: impl FnOnce(&Self) -> T) -> Rc<T> {
        let cached = self.decoded.and_then(|cache| cache.0.borrow().clone());
        if let Some(Ok(cached)) = cached.map(Rc::downcast) {
            return cached;
        }
        let decoded = Rc::new(decode(self));
        if let Some(cache) = self.decoded {
            cache.0.replace(Some(decoded.clone()));
        }
        decoded
    }
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
    /// Its timestamp.
    pub timestamp: TimestampMs,
}

/// A record that can never be processed, with where it was read. In `<application id>-dlq` it has
/// its key, value and headers, and the headers `__streams.errors.topic`, `.partition`, `.offset`,
/// `.exception` (the class) and `.message`. One that is too large for a record has only these, and
/// `.omitted`, which gives its size.
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
    /// Its timestamp.
    pub timestamp: TimestampMs,
    /// The class of the fault.
    pub kind: &'static str,
    /// What is wrong with it, for humans.
    pub message: String,
}

/// A message that can be sent.
pub trait Encode {
    /// Appends its wire form to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_decoded_once_for_all_who_want_the_same_of_it() {
        let cache = DecodeCache::default();
        let mut record = InputRecord {
            key: None,
            value: Some(b"7"),
            headers: &[],
            timestamp: TimestampMs(0),
            offset: Offset(0),
            decoded: Some(&cache),
        };
        let mut times = 0;
        let mut length = |record: &InputRecord<'_>| {
            *record.decoded_once(|record| {
                times += 1;
                record.value.map_or(0, <[u8]>::len)
            })
        };
        assert_eq!([length(&record), length(&record)], [1, 1]);
        assert_eq!(*record.decoded_once(|_| "something else"), "something else");
        record.decoded = None;
        assert_eq!([length(&record), length(&record)], [1, 1]);
        assert_eq!(times, 3);
    }
}
