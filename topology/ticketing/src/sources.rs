//! How the services read topics: each in its own group, a bad record reported once.
//!
//! Several services read the same topic, each in its own group, and each meets the
//! same unreadable record. The service that was declared first makes the dead letter;
//! the others skip the record and count it as [`UNREADABLE`].

use std::collections::BTreeSet;

use turnstile_engine::{Codec, DecodeError, Decoded, InputRecord, Source};

use crate::events::NOT_NEEDED;

/// The reason under which unreadable records are counted if another service of this
/// application makes their dead letter.
pub const UNREADABLE: &str = "unreadable";

/// Which topics have a reader that makes the dead letters.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    reported: BTreeSet<&'static str>,
}

impl Sources {
    /// A source of `topic` in `group`.
    pub(crate) fn source<T>(
        &mut self,
        topic: &'static str,
        group: &'static str,
        decode: impl Fn(&InputRecord<'_>) -> Result<Decoded<T>, DecodeError> + Send + Sync + 'static,
    ) -> Source<T> {
        let reports = self.reported.insert(topic);
        Source::new(topic, group, move |record| match decode(record) {
            Err(_) if !reports => Ok(Decoded::Skip(UNREADABLE)),
            decoded => decoded,
        })
    }

    /// A source of a topic that several services read: each takes what it wants of the
    /// decoded records.
    pub(crate) fn shared<E: 'static, T>(
        &mut self,
        topic: &'static str,
        group: &'static str,
        decode: fn(&InputRecord<'_>) -> Result<Decoded<E>, DecodeError>,
        wanted: impl Fn(&E) -> Option<T> + Send + Sync + 'static,
    ) -> Source<T> {
        self.source(topic, group, move |record| {
            Ok(match &*record.decoded_once(decode) {
                Ok(Decoded::Message(message)) => {
                    wanted(message).map_or(Decoded::Skip(NOT_NEEDED), Decoded::Message)
                }
                Ok(Decoded::Skip(reason)) => Decoded::Skip(reason),
                Err(error) => return Err(error.clone()),
            })
        })
    }
}

/// What `wanted` makes of a message; a message of which it makes nothing is skipped.
pub(crate) fn keep_if<T, U>(
    decoded: Decoded<T>,
    wanted: impl FnOnce(T) -> Option<U>,
) -> Result<Decoded<U>, DecodeError> {
    Ok(match decoded {
        Decoded::Message(message) => {
            wanted(message).map_or(Decoded::Skip(NOT_NEEDED), Decoded::Message)
        }
        Decoded::Skip(reason) => Decoded::Skip(reason),
    })
}

/// The bytes that an id is partitioned by.
pub(crate) fn id_bytes(id: &impl Codec) -> Vec<u8> {
    id.to_bytes()
}
