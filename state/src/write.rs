//! The write of a row: its key, and its new value or that it is deleted.
//!
//! Hundreds of thousands of writes are kept, and move from the overlay to a batch, and from
//! there to a buffer. So each is a single allocation:
//!
//! ```text
//! length of the key, times two (4 bytes); plus one if the row is deleted
//! the key
//! the value
//! ```

const HEADER_BYTES: usize = size_of::<u32>();

/// The write of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write(Box<[u8]>);

impl Write {
    /// The write that sets `key` to `value`.
    pub(crate) fn put(key: &[u8], value: &[u8]) -> Self {
        Self::new(key, value, false)
    }

    /// The write that deletes `key`.
    pub(crate) fn delete(key: &[u8]) -> Self {
        Self::new(key, &[], true)
    }

    fn new(key: &[u8], value: &[u8], is_delete: bool) -> Self {
        let key_len = u32::try_from(key.len()).ok();
        let doubled = key_len.and_then(|len| len.checked_mul(2));
        let header = doubled.expect("a key is shorter than 2 GiB") | u32::from(is_delete);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + value.len());
        bytes.extend_from_slice(&header.to_ne_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    /// The key, and the new value; `None` deletes the key.
    pub(crate) fn entry(&self) -> (&[u8], Option<&[u8]>) {
        let (header, bytes) = self.0.split_first_chunk().expect("a write has a header");
        let header = u32::from_ne_bytes(*header);
        let (key, value) = bytes.split_at((header >> 1) as usize);
        let is_delete = header & 1 == 1;
        (key, (!is_delete).then_some(value))
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.entry().0
    }

    pub(crate) fn value(&self) -> Option<&[u8]> {
        self.entry().1
    }

    /// A copy of both.
    pub(crate) fn to_boxes(&self) -> (Box<[u8]>, Option<Box<[u8]>>) {
        let (key, value) = self.entry();
        (key.into(), value.map(Into::into))
    }

    /// The size of all of it, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_value_come_back() {
        for key in [&b""[..], b"k", &[255; 300]] {
            let delete = Write::delete(key);
            assert_eq!(delete.entry(), (key, None));
            for value in [&b""[..], b"v", &[0; 300]] {
                let put = Write::put(key, value);
                assert_eq!(put.entry(), (key, Some(value)));
                assert_eq!((put.key(), put.value()), put.entry());
                assert_ne!(put, delete);
            }
        }
    }
}
