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
use crate::record::{Header, RECORD_BYTES_MAX};

/// The headers of a record that are passed on: a quarter of what topics take of a record unless
/// they are told to take more.
const HEADERS_BYTES_MAX: usize = 256 << 10;

/// The class of the fault.
const TOO_LARGE: &str = "too-large";

/// What a header takes beside its name and value, at most.
const HEADER_OVERHEAD_BYTES: usize = 12;

/// The bytes of headers, at most.
pub(super) fn headers_bytes(headers: &[Header]) -> usize {
    let of = |(name, value): &Header| {
        HEADER_OVERHEAD_BYTES + name.len() + value.as_ref().map_or(0, Vec::len)
    };
    headers.iter().map(of).sum()
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

/// Rejects a record of which the headers would be passed on, with so many bytes beside them, where its
/// topic takes less.
pub(super) fn check_sent(
    what: &'static str,
    bytes: usize,
    headers: &[Header],
    limit: usize,
) -> Result<(), ProcessorError> {
    let headers = headers_bytes(headers);
    check("the headers", headers, HEADERS_BYTES_MAX)?;
    check(what, bytes + headers, limit)
}

/// Rejects what would be written to a store and could not be to its changelog.
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
