//! Dead letters: records that could not be processed, with where they came from.

use super::bounds::{headers_bytes, sendable};
use crate::record::{DeadLetter, Header, OutputRecord, RECORD_BYTES_MAX};
use crate::topology::SubtopologyPlan;
use crate::{Partition, TimestampMs};

/// The longest description of a fault, in bytes: some quote what they are about.
const MESSAGE_BYTES: usize = 1_024;

/// The record, key and value unchanged, with headers that say what happened to it. One that is too
/// large has only these headers.
pub(super) fn of(plan: &SubtopologyPlan, letter: DeadLetter, now: TimestampMs) -> OutputRecord {
    let header = |name: &str, value: String| -> Header {
        (format!("__streams.errors.{name}"), Some(value.into_bytes()))
    };
    let DeadLetter {
        origin,
        key,
        value,
        mut headers,
        timestamp,
        kind,
        mut message,
    } = letter;
    let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let bytes = len(&key) + len(&value) + headers_bytes(&headers);
    let fits = bytes <= RECORD_BYTES_MAX;
    if !fits {
        headers.clear();
        headers.push(header("omitted", format!("{bytes} bytes")));
    }
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
    headers.extend([
        header("topic", origin.topic.to_string()),
        header("partition", origin.partition.to_string()),
        header("offset", origin.offset.to_string()),
        header("exception", kind.to_owned()),
        header("message", message),
    ]);
    let partition = Partition(origin.partition.0 % plan.dead_letter_partitions);
    OutputRecord {
        topic: plan.dead_letters.clone(),
        partition,
        key: key.filter(|_| fits),
        value: value.filter(|_| fits),
        headers,
        timestamp: sendable(timestamp, now),
    }
}
