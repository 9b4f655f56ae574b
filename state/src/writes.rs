//! The writes of one store by key, in the byte order of keys.
//!
//! An ordered map that keeps the first bytes of each key in its nodes: most comparisons on the
//! way to a key are of two numbers that lie side by side, and need not go where the rest of the
//! key is.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use crate::backend::Bounds;

/// The new value of a key; `None` deletes it.
pub(crate) type Value = Option<Box<[u8]>>;

/// What an entry costs beside its bytes: its place in the map and two allocations.
const ENTRY_OVERHEAD_BYTES: usize = 112;

const HEAD_BYTES: usize = size_of::<u128>();

/// The first bytes of a key, filled up with zeros. Keys with different heads are in the order
/// of these.
fn head_of(key: &[u8]) -> u128 {
    let head = key.first_chunk().copied().unwrap_or_else(|| {
        let mut head = [0; HEAD_BYTES];
        head.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        head
    });
    u128::from_be_bytes(head)
}

/// A key as the map keeps it.
#[derive(Debug, Clone)]
struct Key {
    head: u128,
    bytes: Box<[u8]>,
}

/// A key to look up.
struct Probe<'a> {
    head: u128,
    bytes: &'a [u8],
}

impl<'a> Probe<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            head: head_of(bytes),
            bytes,
        }
    }
}

/// What both are compared as.
trait Headed {
    fn head(&self) -> u128;
    fn bytes(&self) -> &[u8];
}

impl Headed for Key {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Headed for Probe<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn bytes(&self) -> &[u8] {
        self.bytes
    }
}

/// The one order of keys: a lookup finds only what was put in its place by the same.
fn compare<H: Headed + ?Sized>(one: &H, other: &H) -> Ordering {
    let heads = one.head().cmp(&other.head());
    heads.then_with(|| one.bytes().cmp(other.bytes()))
}

impl Ord for dyn Headed + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for dyn Headed + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Headed + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Headed + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl<'a> Borrow<dyn Headed + 'a> for Key {
    fn borrow(&self) -> &(dyn Headed + 'a) {
        self
    }
}

/// The writes of one store by key, in the byte order of keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    by_key: BTreeMap<Key, Value>,
    bytes: usize,
}

impl Writes {
    /// What is written to `key`, if anything is.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&Probe::new(key) as &dyn Headed)
    }

    /// Makes `value` the write of `key`, and returns the one before.
    pub(crate) fn insert(&mut self, key: Box<[u8]>, value: Value) -> Option<Value> {
        let key_len = key.len();
        self.bytes += entry_bytes(key_len, &value);
        let key = Key {
            head: head_of(&key),
            bytes: key,
        };
        let previous = self.by_key.insert(key, value);
        self.bytes -= previous
            .as_ref()
            .map_or(0, |value| entry_bytes(key_len, value));
        previous
    }

    /// Takes the write of `key` out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Value> {
        let removed = self.by_key.remove(&Probe::new(key) as &dyn Headed);
        self.bytes -= removed
            .as_ref()
            .map_or(0, |value| entry_bytes(key.len(), value));
        removed
    }

    /// The writes in a range that is possible.
    pub(crate) fn range<'s>(
        &'s self,
        (start, end): Bounds<'_>,
    ) -> impl DoubleEndedIterator<Item = (&'s [u8], &'s Value)> + use<'s> {
        let (start, end) = (start.map(Probe::new), end.map(Probe::new));
        let bounds = (as_headed(&start), as_headed(&end));
        let range = self.by_key.range::<dyn Headed, _>(bounds);
        range.map(|(key, value)| (&*key.bytes, value))
    }

    /// All writes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Value)> {
        let all = self.by_key.iter();
        all.map(|(key, value)| (&*key.bytes, value))
    }

    /// All writes, taken apart.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Box<[u8]>, Value)> {
        let all = self.by_key.into_iter();
        all.map(|(key, value)| (key.bytes, value))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.bytes = 0;
    }
}

fn as_headed<'a>(bound: &'a Bound<Probe<'a>>) -> Bound<&'a (dyn Headed + 'a)> {
    bound.as_ref().map(|probe| probe as &dyn Headed)
}

fn entry_bytes(key_len: usize, value: &Value) -> usize {
    ENTRY_OVERHEAD_BYTES + key_len + value.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keys around the length of a head, with the byte that heads are filled up with.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0), Just(1), Just(255)], 0..20)
    }

    proptest! {
        #[test]
        fn writes_are_an_ordered_map(
            writes in proptest::collection::vec((key(), proptest::option::of(0..3_u8), any::<bool>()), 0..60),
            start in key(),
            end in key(),
        ) {
            let mut ours = Writes::default();
            let mut model: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
            for (key, value, inserts) in writes {
                let value: Value = value.map(|byte| vec![byte; 3].into());
                if inserts {
                    prop_assert_eq!(ours.insert(key.clone().into(), value.clone()), model.insert(key, value));
                } else {
                    prop_assert_eq!(ours.remove(&key), model.remove(&key));
                }
            }
            prop_assert_eq!(ours.len(), model.len());
            let bytes: usize = model.iter().map(|(key, value)| entry_bytes(key.len(), value)).sum();
            prop_assert_eq!(ours.bytes(), bytes);
            for (key, value) in &model {
                prop_assert_eq!(ours.get(key), Some(value));
            }
            prop_assert_eq!(ours.get(&start), model.get(&start));
            let all: Vec<_> = ours.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect();
            prop_assert_eq!(&all, &model.clone().into_iter().collect::<Vec<_>>());
            if start < end {
                let bounds = (Bound::Excluded(start.as_slice()), Bound::Included(end.as_slice()));
                let found: Vec<_> = ours.range(bounds).rev().map(|(key, _)| key.to_vec()).collect();
                let expected: Vec<_> = model.range::<[u8], _>(bounds).rev().map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
