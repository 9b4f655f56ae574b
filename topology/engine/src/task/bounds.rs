//! How large what a task reads and writes may be, and how far ahead it may be dated.
//!
//! A broker limits what is on the wire, and that is compressed: a record of some kilobytes can be
//! many megabytes here, and whatever repeats it (a dead letter, a record that is moved to its
//! partition, headers that are passed on) would be refused by the client or by the next broker, for
//! every owner of its partition and for ever. So what is too large is rejected like any other
//! record that cannot be processed.
//!
//! The same applies to its timestamp: by default, brokers accept an hour ahead at most, and what
//! was read may be from a topic that is configured otherwise.

use std::time::Duration;

use crate::TimestampMs;
use crate::processor::ProcessorError;
use crate::record::{Header, RECORD_BYTES_MAX};

/// The limit on the headers of a record that are passed on: a quarter of what topics accept for a
/// record by default.
const HEADERS_BYTES_MAX: usize = 256 << 10;

/// The class of the fault.
const TOO_LARGE: &str = "too-large";

/// What a header takes besides its name and value, at most.
const HEADER_OVERHEAD_BYTES: usize = 12;

/// The bytes of headers, at most.
pub(super) fn headers_bytes(headers: &[Header]) -> usize {
    let of = |(name, value): &Header| {
        HEADER_OVERHEAD_BYTES + name.len() + value.as_ref().map_or(0, Vec::len)
    };
    headers.iter().map(of).sum()
}

/// How far ahead of the clock the timestamp of what is sent may be.
const AHEAD_MAX: Duration = Duration::from_mins(50);

/// The timestamp of what is sent for a record of `timestamp`: the same, unless no broker accepts
/// it.
pub(super) fn sendable(timestamp: TimestampMs, now: TimestampMs) -> TimestampMs {
    if timestamp > now.plus(AHEAD_MAX) {
        now
    } else {
        timestamp
    }
}

/// Rejects a record whose headers would be passed on, with `bytes` besides them, if its topic
/// accepts less.
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

/// Rejects what would be written to a store but could not be written to its changelog.
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
