//! How one write of a store looks in the changelog of the application.
//!
//! ```text
//!            record key                         record value
//! put        tag of the store (4), store key    format (1 byte, now 1), then the store value
//! delete     tag of the store (4), store key    null: a tombstone, which compaction may drop in time
//! ```
//!
//! All stores of all tasks of one partition number share a changelog partition. So a
//! transaction touches one partition for all of them, and what brokers do, they do per
//! partition: a batch, a marker, a fetch.
//!
//! A tag follows from the name of the store alone, so that stores can be declared in
//! another order. The format byte lets a later version lay out values differently and
//! still restore from the records of this one. It also makes the value of a put never
//! empty, so that a put of an empty value cannot be taken for a delete by a client that
//! does not tell empty from null.
//!
//! This module neither knows topics nor skips what it cannot read: a changelog
//! with one unreadable record is not a changelog, and restoring from it would be
//! a wrong state.

use std::fmt;

use thiserror::Error;

/// The layout of values that this version writes.
const FORMAT: u8 = 1;

/// What a store is called in changelog records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreTag(u32);

impl StoreTag {
    /// The tag of the store with this name. Two names can have the same tag; whoever puts
    /// stores into one changelog has to rule that out.
    #[must_use]
    pub fn of(store: &str) -> Self {
        // FNV-1a: the same in every build.
        let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Self(store.bytes().fold(0x811c_9dc5, fnv))
    }
}

impl fmt::Display for StoreTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// One write of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangelogRecord<'a> {
    /// The store.
    pub store: StoreTag,
    /// The key in the store.
    pub key: &'a [u8],
    /// The new value in the store; `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

/// A record that [`ChangelogRecord`] did not write.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableChangelog {
    /// The record has no key, or one that is too short to name a store.
    #[error("a changelog record names no store: something else writes to this topic")]
    MissingStore,
    /// The value is empty, not even a format byte.
    #[error("a changelog record has an empty value: something else writes to this topic")]
    MissingFormat,
    /// The value is in a layout of a newer version, or of something else.
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
    /// The key of the record.
    #[must_use]
    pub fn encode_key(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(size_of::<u32>() + self.key.len());
        self.append_key(&mut encoded);
        encoded
    }

    /// Appends the key of the record to `out`.
    pub fn append_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.store.0.to_be_bytes());
        out.extend_from_slice(self.key);
    }

    /// The value of the record; `None` is null.
    #[must_use]
    pub fn encode_value(&self) -> Option<Vec<u8>> {
        self.value.map(|value| {
            let mut encoded = Vec::with_capacity(1 + value.len());
            self.append_value(&mut encoded);
            encoded
        })
    }

    /// Appends the value of the record to `out`: nothing for null, otherwise at least one byte.
    pub fn append_value(&self, out: &mut Vec<u8>) {
        if let Some(value) = self.value {
            out.push(FORMAT);
            out.extend_from_slice(value);
        }
    }

    /// Reads the key and value of a record.
    ///
    /// # Errors
    ///
    /// When the record is not one that was encoded here.
    pub fn decode(
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<Self, UnreadableChangelog> {
        let key = key.and_then(<[u8]>::split_first_chunk);
        let (tag, key) = key.ok_or(UnreadableChangelog::MissingStore)?;
        let value = match value.map(<[u8]>::split_first) {
            None => None,
            Some(None) => return Err(UnreadableChangelog::MissingFormat),
            Some(Some((&FORMAT, value))) => Some(value),
            Some(Some((&found, _))) => return Err(UnreadableChangelog::UnknownFormat { found }),
        };
        let store = StoreTag(u32::from_be_bytes(*tag));
        Ok(Self { store, key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_back() {
        for value in [None, Some(&b""[..]), Some(b"\x00"), Some(b"value")] {
            for key in [&b""[..], b"key"] {
                let store = StoreTag::of("orders");
                let record = ChangelogRecord { store, key, value };
                let (key, value) = (record.encode_key(), record.encode_value());
                assert_eq!(
                    ChangelogRecord::decode(Some(&key), value.as_deref()),
                    Ok(record)
                );
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let put = ChangelogRecord {
            store: StoreTag::of("a"),
            key: b"k",
            value: Some(b"v"),
        };
        assert_eq!(put.encode_key(), b"\xe4\x0c\x29\x2ck");
        assert_eq!(put.encode_value().as_deref(), Some(&b"\x01v"[..]));
        let delete = ChangelogRecord { value: None, ..put };
        assert_eq!(delete.encode_value(), None);
        assert_eq!(put.store.to_string(), "e40c292c");
    }

    #[test]
    fn foreign_records_are_refused() {
        let decode = ChangelogRecord::decode;
        for key in [None, Some(&b""[..]), Some(b"abc")] {
            assert_eq!(
                decode(key, Some(b"\x01v")),
                Err(UnreadableChangelog::MissingStore)
            );
            assert_eq!(decode(key, None), Err(UnreadableChangelog::MissingStore));
        }
        assert_eq!(
            decode(Some(b"taggk"), Some(b"")),
            Err(UnreadableChangelog::MissingFormat)
        );
        assert_eq!(
            decode(Some(b"taggk"), Some(b"{\"json\":1}")),
            Err(UnreadableChangelog::UnknownFormat { found: b'{' })
        );
    }
}
