//! Where a task encodes what it writes and sends.

use std::cell::Cell;

use turnstile_state::Codec;

/// Where keys, values and messages are encoded before their length is known, so that each is
/// allocated once.
#[derive(Default)]
pub(super) struct Scratch(Cell<Vec<u8>>);

impl Scratch {
    /// Returns what `use_encoded` makes of what `encode` writes.
    pub(super) fn with<R>(
        &self,
        encode: impl FnOnce(&mut Vec<u8>),
        use_encoded: impl FnOnce(&[u8]) -> R,
    ) -> R {
        let mut bytes = self.0.take();
        bytes.clear();
        encode(&mut bytes);
        let result = use_encoded(&bytes);
        self.0.set(bytes);
        result
    }

    /// Returns what `use_entry` makes of a key and its value.
    pub(super) fn with_entry<R>(
        &self,
        key: &impl Codec,
        value: &impl Codec,
        use_entry: impl FnOnce(&[u8], &[u8]) -> R,
    ) -> R {
        let key_len = Cell::new(0);
        self.with(
            |bytes| {
                key.encode(bytes);
                key_len.set(bytes.len());
                value.encode(bytes);
            },
            |bytes| {
                let (key, value) = bytes.split_at(key_len.get());
                use_entry(key, value)
            },
        )
    }

    /// What `encode` writes, in a buffer of its own.
    pub(super) fn boxed(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Box<[u8]> {
        self.with(encode, |bytes| bytes.into())
    }
}
