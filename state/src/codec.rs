//! How typed keys and values become bytes.

use thiserror::Error;

/// Bytes that are not what a [`Codec`] wrote.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("not a readable {what}: {why}")]
pub struct CodecError {
    /// The type that was expected.
    pub what: &'static str,
    /// What is wrong with the bytes.
    pub why: String,
}

/// A type that can be kept in a store.
///
/// For a key the byte order of the encoding is the order of scans. An encoding
/// outlives the process that wrote it: changing one needs a new store.
pub trait Codec: Sized {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads back what [`Codec::encode`] wrote.
    ///
    /// # Errors
    ///
    /// When `bytes` is not such an encoding.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;

    /// The encoding in a buffer of its own.
    fn to_bytes(&self) -> Vec<u8> {
        // Fits most keys and many values: reallocating costs more than unused space.
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        out
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        String::from_utf8(bytes.to_vec()).map_err(|error| CodecError {
            what: "string",
            why: error.to_string(),
        })
    }
}

impl Codec for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl Codec for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        <[u8; 8]>::try_from(bytes)
            .map(u64::from_be_bytes)
            .map_err(|_| CodecError {
                what: "u64",
                why: format!("{} bytes", bytes.len()),
            })
    }
}

impl Codec for () {
    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.is_empty() {
            Ok(())
        } else {
            Err(CodecError {
                what: "unit",
                why: format!("{} bytes", bytes.len()),
            })
        }
    }
}
