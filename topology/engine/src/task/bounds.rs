//! How large what a task reads and writes may be, and how late it may be dated.
//!
//! A broker bounds what is on the wire, and that is compressed: a record of some kilobytes can
//! be one of many megabytes here, and whatever repeats it (a dead letter, a record that is
//! brought to its partition, headers that are passed on) would be refused by the client or by
//! the next broker, for every owner of its partition and for ever. So what is too large is
//! rejected like any other record that cannot be processed.
//!
//! The same with its time: brokers take what is dated an hour ahead at most, unless they are
//! told otherwise, and what was read may be of a topic where they are.

use std::time::Duration;

use crate::TimestampMs;
use crate::processor::ProcessorError;
use crate::record::{Header, InputRecord, MESSAGE_BYTES_MAX};

/// A record, of which a dead letter needs some more room.
pub(super) const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (64 << 10);

/// The headers of a record, which what is sent in consequence has too: a quarter of what topics
/// take of a record unless they are told to take more.
pub(super) const HEADERS_BYTES_MAX: usize = 256 << 10;

/// The class of the fault.
const TOO_LARGE: &str = "too-large";

/// The bytes of headers, about.
pub(super) fn headers_bytes(headers: &[Header]) -> usize {
    let of = |(name, value): &Header| name.len() + value.as_ref().map_or(0, Vec::len);
    headers.iter().map(of).sum()
}

/// Rejects a record that could not be passed on.
pub(super) fn check_record(record: &InputRecord<'_>) -> Result<(), ProcessorError> {
    let headers = headers_bytes(record.headers);
    check("the headers", headers, HEADERS_BYTES_MAX)?;
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let bytes = len(record.key) + len(record.value) + headers;
    check("the record", bytes, RECORD_BYTES_MAX)
}

/// How far ahead of the clock the time of what is sent may be.
const AHEAD_MAX: Duration = Duration::from_mins(50);

/// The time of what is sent for a record of `timestamp`: the same, unless no broker takes it.
pub(super) fn sendable(timestamp: TimestampMs, now: TimestampMs) -> TimestampMs {
    if timestamp > now.plus(AHEAD_MAX) {
        now
    } else {
        timestamp
    }
}

/// Rejects a record that cannot be brought to the partition of `id`.
pub(super) fn check_rekeyed(id: &[u8], record: &InputRecord<'_>) -> Result<(), ProcessorError> {
    let value = record.value.map_or(0, <[u8]>::len);
    let bytes = id.len() + value + headers_bytes(record.headers);
    check("the record under its id", bytes, RECORD_BYTES_MAX)
}

/// Rejects what would be written and could not be.
pub(super) fn check_written(what: &'static str, bytes: usize) -> Result<(), ProcessorError> {
    check(what, bytes, RECORD_BYTES_MAX)
}

fn check(what: &'static str, bytes: usize, limit: usize) -> Result<(), ProcessorError> {
    if bytes <= limit {
        return Ok(());
    }
    Err(ProcessorError::rejected(
        TOO_LARGE,
        format!("{what} would take {bytes} bytes, of at most {limit}"),
    ))
}
