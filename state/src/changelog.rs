//! How one write of a store looks in its changelog topic.
//!
//! ```text
//!            record key    record value
//! put        store key     format (1 byte, now 1), then the store value
//! delete     store key     null: a tombstone, which compaction may drop in time
//! ```
//!
//! The format byte lets a later version lay out values differently and still
//! restore from the records of this one. It also makes the value of a put never
//! empty, so that a put of an empty value cannot be taken for a delete by a
//! client that does not tell empty from null.
//!
//! This module neither knows topics nor skips what it cannot read: a changelog
//! with one unreadable record is not a changelog, and restoring from it would be
//! a wrong state.

use thiserror::Error;

/// The layout of values that this version writes.
const FORMAT: u8 = 1;

/// One write of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogRecord<'a> {
    /// The key in the store, and of the record.
    pub key: &'a [u8],
    /// The new value in the store; `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

/// A record that [`ChangelogRecord`] did not write.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableChangelog {
    /// The record has no key.
    #[error("a changelog record has no key: something else writes to this topic")]
    MissingKey,
    /// The value is empty, not even a format byte.
    #[error("a changelog record has an empty value: something else writes to this topic")]
    MissingFormat,
    /// The value is in a layout of a newer version, or of someone else.
    #[error(
        "a changelog record has format {found}, this version reads {FORMAT}: \
         a newer version or something else writes to this topic"
    )]
    UnknownFormat {
        /// The format byte.
        found: u8,
    },
}

impl<'a> ChangelogRecord<'a> {
    /// The value of the record; `None` is null. Its key is [`ChangelogRecord::key`].
    #[must_use]
    pub fn encode_value(&self) -> Option<Vec<u8>> {
        self.value.map(|value| {
            let mut encoded = Vec::with_capacity(1 + value.len());
            encoded.push(FORMAT);
            encoded.extend_from_slice(value);
            encoded
        })
    }

    /// Reads the key and value of a record.
    ///
    /// # Errors
    ///
    /// When the record is not one that [`ChangelogRecord::encode_value`] made.
    pub fn decode(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<Self, UnreadableChangelog> {
        let key = key.ok_or(UnreadableChangelog::MissingKey)?;
        let value = match value.map(<[u8]>::split_first) {
            None => None,
            Some(None) => return Err(UnreadableChangelog::MissingFormat),
            Some(Some((&FORMAT, value))) => Some(value),
            Some(Some((&found, _))) => return Err(UnreadableChangelog::UnknownFormat { found }),
        };
        Ok(Self { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_back() {
        for value in [None, Some(&b""[..]), Some(b"\x00"), Some(b"value")] {
            for key in [&b""[..], b"key"] {
                let record = ChangelogRecord { key, value };
                let encoded = record.encode_value();
                assert_eq!(
                    ChangelogRecord::decode(Some(key), encoded.as_deref()),
                    Ok(record)
                );
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let put = ChangelogRecord {
            key: b"k",
            value: Some(b"v"),
        };
        assert_eq!(put.encode_value().as_deref(), Some(&b"\x01v"[..]));
        let delete = ChangelogRecord {
            key: b"k",
            value: None,
        };
        assert_eq!(delete.encode_value(), None);
    }

    #[test]
    fn foreign_records_are_refused() {
        let decode = ChangelogRecord::decode;
        assert_eq!(
            decode(None, Some(b"\x01v")),
            Err(UnreadableChangelog::MissingKey)
        );
        assert_eq!(decode(None, None), Err(UnreadableChangelog::MissingKey));
        assert_eq!(
            decode(Some(b"k"), Some(b"")),
            Err(UnreadableChangelog::MissingFormat)
        );
        assert_eq!(
            decode(Some(b"k"), Some(b"{\"json\":1}")),
            Err(UnreadableChangelog::UnknownFormat { found: b'{' })
        );
    }
}
