//! The writes of one store by key, in the byte order of keys.
//!
//! An ordered set that keeps the first bytes of each key in its nodes: most comparisons on the
//! way to a key are of two adjacent numbers, and need not touch the rest of the key.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::backend::Bounds;
use crate::write::Write;

/// What a write costs beyond its bytes: its place in the set, and the rounding of its allocation.
const WRITE_OVERHEAD_BYTES: usize = 76;

const HEAD_BYTES: usize = size_of::<u128>();

/// The first bytes of a key, padded with zeros. Keys with different heads are in the order of
/// their heads.
fn head_of(key: &[u8]) -> u128 {
    let head = key.first_chunk().copied().unwrap_or_else(|| {
        let mut head = [0; HEAD_BYTES];
        head.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        head
    });
    u128::from_be_bytes(head)
}

/// A write as the set keeps it.
#[derive(Debug, Clone)]
struct Placed {
    head: u128,
    write: Write,
}

impl Placed {
    fn new(write: Write) -> Self {
        let head = head_of(write.key());
        Self { head, write }
    }
}

/// A key to look up.
struct Probe<'a> {
    head: u128,
    key: &'a [u8],
}

impl<'a> Probe<'a> {
    fn new(key: &'a [u8]) -> Self {
        Self {
            head: head_of(key),
            key,
        }
    }
}

/// What both are compared as.
trait Headed {
    fn head(&self) -> u128;
    fn key(&self) -> &[u8];
}

impl Headed for Placed {
    fn head(&self) -> u128 {
        self.head
    }

    fn key(&self) -> &[u8] {
        self.write.key()
    }
}

impl Headed for Probe<'_> {
    fn head(&self) -> u128 {
        self.head
    }

    fn key(&self) -> &[u8] {
        self.key
    }
}

/// The one order of keys: a lookup finds only what was placed by the same order.
fn compare<H: Headed + ?Sized>(one: &H, other: &H) -> Ordering {
    let heads = one.head().cmp(&other.head());
    heads.then_with(|| one.key().cmp(other.key()))
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

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Placed {}

impl<'a> Borrow<dyn Headed + 'a> for Placed {
    fn borrow(&self) -> &(dyn Headed + 'a) {
        self
    }
}

/// The writes of one store by key, in the byte order of keys.
#[derive(Debug, Clone, Default)]
pub(crate) struct Writes {
    by_key: BTreeSet<Placed>,
    bytes: usize,
}

impl Writes {
    /// The write of `key`, if there is one.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Write> {
        if self.by_key.is_empty() {
            return None;
        }
        let placed = self.by_key.get(&Probe::new(key) as &dyn Headed);
        placed.map(|placed| &placed.write)
    }

    /// Makes `write` the write of its key, and returns the previous one.
    pub(crate) fn insert(&mut self, write: Write) -> Option<Write> {
        self.place(Placed::new(write))
    }

    fn place(&mut self, placed: Placed) -> Option<Write> {
        self.bytes += write_bytes(&placed.write);
        let previous = self.by_key.replace(placed);
        self.removed(previous)
    }

    /// Makes each of these the write of its key; later ones replace earlier ones.
    pub(crate) fn insert_loaded(&mut self, Loaded { mut writes, .. }: Loaded) {
        // Equal keys stay in the order in which they came; the last one is kept.
        writes.sort_by(compare);
        writes.dedup_by(|later, earlier| {
            let is_same = compare(later, earlier).is_eq();
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        if self.by_key.is_empty() {
            self.bytes = writes.iter().map(|placed| write_bytes(&placed.write)).sum();
            self.by_key = writes.into_iter().collect();
        } else {
            for placed in writes {
                self.place(placed);
            }
        }
    }

    /// Takes the write of `key` out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Write> {
        let removed = self.by_key.take(&Probe::new(key) as &dyn Headed);
        self.removed(removed)
    }

    fn removed(&mut self, placed: Option<Placed>) -> Option<Write> {
        let write = placed.map(|placed| placed.write);
        self.bytes -= write.as_ref().map_or(0, write_bytes);
        write
    }

    /// The writes in a range that is possible.
    pub(crate) fn range<'s>(
        &'s self,
        (start, end): Bounds<'_>,
    ) -> impl DoubleEndedIterator<Item = &'s Write> + use<'s> {
        let (start, end) = (start.map(Probe::new), end.map(Probe::new));
        let bounds = (as_headed(&start), as_headed(&end));
        let range = self.by_key.range::<dyn Headed, _>(bounds);
        range.map(|placed| &placed.write)
    }

    /// All writes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Write> {
        self.by_key.iter().map(|placed| &placed.write)
    }

    /// All writes, taken out.
    pub(crate) fn into_writes(self) -> impl Iterator<Item = Write> {
        self.by_key.into_iter().map(|placed| placed.write)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The approximate memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.bytes = 0;
    }
}

/// Writes of one store in order of arrival, while nobody reads any of them: putting many in place
/// at once costs less than placing each one.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    writes: Vec<Placed>,
    bytes: usize,
}

impl Loaded {
    pub(crate) fn push(&mut self, write: Write) {
        self.bytes += write_bytes(&write);
        self.writes.push(Placed::new(write));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The approximate memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn as_headed<'a>(bound: &'a Bound<Probe<'a>>) -> Bound<&'a (dyn Headed + 'a)> {
    bound.as_ref().map(|probe| probe as &dyn Headed)
}

fn write_bytes(write: &Write) -> usize {
    WRITE_OVERHEAD_BYTES + write.len()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Keys around the length of a head, with the byte that heads are padded with.
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
            let mut model: BTreeMap<Vec<u8>, Write> = BTreeMap::new();
            for (key, value, inserts) in writes {
                let write = value.map_or_else(|| Write::delete(&key), |byte| Write::put(&key, &[byte; 3]));
                if inserts {
                    prop_assert_eq!(ours.insert(write.clone()), model.insert(key, write));
                } else {
                    prop_assert_eq!(ours.remove(&key), model.remove(&key));
                }
            }
            prop_assert_eq!(ours.len(), model.len());
            prop_assert_eq!(ours.bytes(), model.values().map(write_bytes).sum::<usize>());
            for (key, write) in &model {
                prop_assert_eq!(ours.get(key), Some(write));
            }
            prop_assert_eq!(ours.get(&start), model.get(&start));
            prop_assert!(ours.iter().eq(model.values()));
            if start < end {
                let bounds = (Bound::Excluded(start.as_slice()), Bound::Included(end.as_slice()));
                prop_assert!(ours.range(bounds).rev().eq(model.range::<[u8], _>(bounds).rev().map(|(_, write)| write)));
            }
            prop_assert!(ours.into_writes().eq(model.into_values()));
        }

        #[test]
        fn what_is_loaded_is_what_is_inserted(
            before in proptest::collection::vec((key(), 0..3_u8), 0..3),
            loaded in proptest::collection::vec((key(), proptest::option::of(0..3_u8)), 0..60),
        ) {
            let mut one_by_one = Writes::default();
            for (key, byte) in before {
                one_by_one.insert(Write::put(&key, &[byte; 3]));
            }
            let mut at_once = one_by_one.clone();
            let mut tail = Loaded::default();
            for (key, value) in loaded {
                let write = value.map_or_else(|| Write::delete(&key), |byte| Write::put(&key, &[byte; 3]));
                one_by_one.insert(write.clone());
                tail.push(write);
            }
            at_once.insert_loaded(tail);
            prop_assert_eq!(at_once.bytes(), one_by_one.bytes());
            prop_assert_eq!(at_once.len(), one_by_one.len());
            prop_assert!(at_once.iter().eq(one_by_one.iter()));
        }
    }
}
