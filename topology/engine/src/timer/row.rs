//! A pending timer as a key of the store of rows.
//!
//! ```text
//! | deadline: ms since the epoch, 8 bytes, big-endian | key of the timer |
//! ```
//!
//! So the byte order of rows is the order in which timers fire: by deadline, then
//! key. There is no time before the epoch: an earlier deadline is the epoch.

use turnstile_state::{Codec, CodecError};

use crate::ids::TimestampMs;

const DEADLINE_BYTES: usize = size_of::<u64>();

/// The key of a timer's row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    deadline: TimestampMs,
    key: Vec<u8>,
}

impl Row {
    /// The row of the timer `key`.
    pub(super) fn new(deadline: TimestampMs, key: &[u8]) -> Self {
        Self {
            deadline: clamp(deadline),
            key: key.to_vec(),
        }
    }

    /// The first of all rows there can be.
    pub(super) fn first() -> Self {
        Self::new(TimestampMs(0), &[])
    }

    /// The first of all rows there can be after this one.
    pub(super) fn successor(mut self) -> Self {
        self.key.push(0);
        self
    }

    pub(super) fn deadline(&self) -> TimestampMs {
        self.deadline
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = encode_deadline(self.deadline);
        bytes.extend_from_slice(&self.key);
        bytes
    }

    /// Reads back what [`Row::to_bytes`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let Some((deadline, key)) = bytes.split_at_checked(DEADLINE_BYTES) else {
            return Err(CodecError {
                what: "timer row",
                why: format!("{} bytes", bytes.len()),
            });
        };
        Ok(Self {
            deadline: decode_deadline(deadline)?,
            key: key.to_vec(),
        })
    }
}

/// `deadline`, or the epoch if it is earlier.
pub(super) fn clamp(deadline: TimestampMs) -> TimestampMs {
    deadline.max(TimestampMs(0))
}

/// The bytes of a deadline at or after the epoch.
pub(super) fn encode_deadline(deadline: TimestampMs) -> Vec<u8> {
    u64::try_from(deadline.0)
        .expect("a pending timer's deadline is not before the epoch")
        .to_bytes()
}

/// Reads back what [`encode_deadline`] wrote.
pub(super) fn decode_deadline(bytes: &[u8]) -> Result<TimestampMs, CodecError> {
    let millis = u64::decode(bytes)?;
    i64::try_from(millis)
        .map(TimestampMs)
        .map_err(|_| CodecError {
            what: "deadline",
            why: format!("{millis} is past the end of time"),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_that_nobody_wrote_are_errors() {
        assert!(Row::from_bytes(&[0; 7]).is_err());
        assert!(Row::from_bytes(&[0xff; 9]).is_err());
    }

    proptest! {
        #[test]
        fn rows_are_read_as_written_and_sort_as_their_bytes(
            one in (0..3_i64, "[ab\0]{0,3}"),
            other in (prop_oneof![0..3_i64, any::<i64>()], "[ab\0]{0,3}"),
        ) {
            let row = |(deadline, key): (i64, String)| Row::new(TimestampMs(deadline), key.as_bytes());
            let (one, other) = (row(one), row(other));
            prop_assert_eq!(Row::from_bytes(&other.to_bytes()), Ok(other.clone()));
            prop_assert_eq!(one.cmp(&other), one.to_bytes().cmp(&other.to_bytes()));
            prop_assert!(Row::first() <= other);
            prop_assert!(one < one.clone().successor());
            prop_assert!(one >= other || one.successor() <= other);
        }
    }
}
