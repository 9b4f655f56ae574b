//! What instances send each other: postcard, by position, without names.
//!
//! ```text
//! POST /internal/v1/read   ReadRequest ──► ReadReply
//! ```
//!
//! A change of these types, or of those of the engine in them, needs another version in the
//! path: instances of differing builds run side by side during a rolling replacement.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use turnstile_engine::runtime::{StoreAnswer, StoreRequest};

/// The path of reads.
pub const READ_PATH: &str = "/internal/v1/read";

/// Says that an instance asks, and that the instance that is asked must not ask further.
pub const HOP_HEADER: &str = "x-turnstile-hop";

/// The only number of hops there is.
pub const HOP: &str = "1";

/// Names the request that a client made.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// Names the client, as the instance that asks has authenticated it.
pub const CALLER_HEADER: &str = "x-caller-id";

/// A read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadRequest {
    /// What is to be read.
    pub request: StoreRequest,
    /// Set if the answer is to wait for a change. Only a read of one key can wait.
    pub wait: Option<Wait>,
    /// How stale a standby that answers may be; `None`: only the running task may answer.
    pub max_stale: Option<Duration>,
}

/// What an answer waits for: the row to differ from what is known, for a limited time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// The row as it is known; `None`: there was no such row.
    pub known: Option<Fingerprint>,
    /// How long at most.
    pub limit: Duration,
}

/// What tells two values of a row apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// The fingerprint of a value: half of its SHA-256.
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        let digest = Sha256::digest(value);
        let (half, _) = digest
            .split_first_chunk()
            .expect("SHA-256 is longer than its half");
        Self(*half)
    }

    /// The fingerprint of the only row of an answer, if it has one.
    #[must_use]
    pub fn of_row(answer: &StoreAnswer) -> Option<Self> {
        answer.rows.first().map(|(_, value)| Self::of(value))
    }
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadReply {
    /// The rows.
    Answer(StoreAnswer),
    /// No rows, and why.
    Refusal(Refusal),
}

/// Why an instance does not answer another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It does not have the partition: ask the instance that has it now.
    #[error("{0}")]
    NotHere(String),
    /// It has the partition, but cannot be read yet: ask again.
    #[error("{0}")]
    NotYet(String),
    /// It runs another topology.
    #[error("there is no store {0} there")]
    UnknownStore(String),
    /// It is asked too much at once.
    #[error("it is asked too much at once")]
    Busy,
    /// The request makes no sense to it.
    #[error("it does not understand: {0}")]
    Malformed(String),
    /// The store failed.
    #[error("its store failed: {0}")]
    Failed(String),
}

/// The message as it is sent.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(message).expect("what is sent has a length and no maps of text")
}

/// The message that was sent as these bytes.
///
/// # Errors
///
/// When `bytes` are not what [`encode`] writes, or have something after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(postcard::Error::DeserializeBadEncoding)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use proptest::prelude::*;
    use turnstile_engine::Partition;
    use turnstile_engine::runtime::{RowRange, StoreRead};

    use super::*;

    fn request(read: StoreRead) -> ReadRequest {
        ReadRequest {
            request: StoreRequest {
                store: "orders".to_owned(),
                partition: Partition(3),
                read,
            },
            wait: None,
            max_stale: None,
        }
    }

    fn range() -> RowRange {
        RowRange {
            start: Bound::Excluded(b"a".to_vec()),
            end: Bound::Unbounded,
            is_reverse: true,
            limit: 51,
        }
    }

    #[test]
    fn the_bytes_of_version_1_stay_what_they_are() {
        let mut keys = request(StoreRead::Keys(vec![b"ab".to_vec(), Vec::new()]));
        keys.wait = Some(Wait {
            known: Some(Fingerprint([7; 16])),
            limit: Duration::from_millis(1_500),
        });
        let mut expected = b"\x06orders\x06\x00\x02\x02ab\x00\x01\x01".to_vec();
        expected.extend([7; 16]);
        expected.extend(b"\x01\x80\xca\xb5\xee\x01\x00");
        assert_eq!(encode(&keys), expected);
        let mut rows = request(StoreRead::Range(range()));
        rows.max_stale = Some(Duration::from_secs(2));
        assert_eq!(
            encode(&rows),
            b"\x06orders\x06\x01\x02\x01a\x00\x01\x33\x00\x01\x02\x00"
        );
        let indexed = request(StoreRead::Indexed {
            range: range(),
            prefix_bytes: 2,
            rows: "o".to_owned(),
        });
        assert_eq!(
            encode(&indexed),
            b"\x06orders\x06\x02\x02\x01a\x00\x01\x33\x02\x01o\x00\x00"
        );
        let answer = ReadReply::Answer(StoreAnswer {
            rows: vec![(b"k".as_slice().into(), b"va".as_slice().into())],
            stale: None,
        });
        assert_eq!(encode(&answer), b"\x00\x01\x01k\x02va\x00");
        let refusals = [
            Refusal::NotHere("x".to_owned()),
            Refusal::NotYet("x".to_owned()),
            Refusal::UnknownStore("x".to_owned()),
            Refusal::Busy,
            Refusal::Malformed("x".to_owned()),
            Refusal::Failed("x".to_owned()),
        ];
        for (number, refusal) in (0..).zip(refusals) {
            let text: &[u8] = if refusal == Refusal::Busy {
                b""
            } else {
                b"\x01x"
            };
            let expected = [&[1, number], text].concat();
            let reply = ReadReply::Refusal(refusal);
            assert_eq!(encode(&reply), expected);
            assert_eq!(decode(&expected), Ok(reply));
        }
    }

    #[test]
    fn two_values_have_two_fingerprints() {
        let known = Fingerprint::of(b"a");
        assert_eq!(known, Fingerprint::of(b"a"));
        assert_ne!(known, Fingerprint::of(b"b"));
        assert_ne!(known, Fingerprint::of(b""));
        assert_eq!(known.0[..4], [0xca, 0x97, 0x81, 0x12]);
    }

    proptest! {
        #[test]
        fn requests_read_as_they_were_written(
            store in ".{0,20}", partition: i32, keys: Vec<Vec<u8>>, prefix_bytes: usize,
            known: Option<[u8; 16]>, millis in 0..u64::from(u32::MAX), is_reverse: bool,
        ) {
            let range = RowRange { is_reverse, ..range() };
            let reads = [
                StoreRead::Keys(keys),
                StoreRead::Range(range.clone()),
                StoreRead::Indexed { range, prefix_bytes, rows: store.clone() },
            ];
            for read in reads {
                let request = ReadRequest {
                    request: StoreRequest { store: store.clone(), partition: Partition(partition), read },
                    wait: Some(Wait { known: known.map(Fingerprint), limit: Duration::from_millis(millis) }),
                    max_stale: Some(Duration::from_millis(millis)),
                };
                let mut bytes = encode(&request);
                prop_assert_eq!(decode(&bytes), Ok(request));
                bytes.push(0);
                prop_assert!(decode::<ReadRequest>(&bytes).is_err());
            }
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            decode::<ReadRequest>(&bytes).ok();
            decode::<ReadReply>(&bytes).ok();
        }
    }
}
