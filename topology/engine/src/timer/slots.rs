//! The timers of a wheel: one block of memory, chained into the wheel's slots.
//!
//! Every timer is a node with a [`NodeIndex`] that stays the same from
//! [`Slots::add`] to [`Slots::remove`]. A node is in the chain of one place, or in
//! none. Chains are linked both ways by index, so that a node leaves its chain
//! without a search; their order means nothing. A bitmap for each level says which
//! places have a chain, so that empty ones cost nothing to skip.
//!
//! Which place a node belongs to is not known here: the caller gives it, and gives the same again
//! when the node leaves.

use super::tick::{LEVELS, Place, SLOTS, Tick};

/// A node of [`Slots`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeIndex(usize);

#[derive(Debug)]
struct Node<K> {
    deadline: Tick,
    key: K,
    previous: Option<NodeIndex>,
    next: Option<NodeIndex>,
}

#[derive(Debug)]
enum Cell<K> {
    Free { next_free: Option<NodeIndex> },
    Taken(Node<K>),
}

#[derive(Debug)]
struct Level {
    /// Bit `n` is set if slot `n` has a chain.
    occupied: u64,
    heads: [Option<NodeIndex>; SLOTS],
}

#[derive(Debug)]
pub(super) struct Slots<K> {
    cells: Vec<Cell<K>>,
    first_free: Option<NodeIndex>,
    levels: Box<[Level; LEVELS]>,
}

impl<K> Slots<K> {
    pub(super) fn new() -> Self {
        let level = |_| Level {
            occupied: 0,
            heads: [None; SLOTS],
        };
        Self {
            cells: Vec::new(),
            first_free: None,
            levels: Box::new(std::array::from_fn(level)),
        }
    }

    /// A new node, in no chain.
    pub(super) fn add(&mut self, deadline: Tick, key: K) -> NodeIndex {
        let cell = Cell::Taken(Node {
            deadline,
            key,
            previous: None,
            next: None,
        });
        let Some(index) = self.first_free else {
            self.cells.push(cell);
            return NodeIndex(self.cells.len() - 1);
        };
        let reused = self.cells.get_mut(index.0).expect("a free cell exists");
        match std::mem::replace(reused, cell) {
            Cell::Free { next_free } => self.first_free = next_free,
            Cell::Taken(_) => unreachable!("the list of free cells holds free cells"),
        }
        index
    }

    /// Forgets a node that is in no chain.
    pub(super) fn remove(&mut self, index: NodeIndex) {
        let cell = self.cells.get_mut(index.0).expect("a node's cell exists");
        *cell = Cell::Free {
            next_free: self.first_free,
        };
        self.first_free = Some(index);
    }

    pub(super) fn deadline(&self, index: NodeIndex) -> Tick {
        self.node(index).deadline
    }

    pub(super) fn key(&self, index: NodeIndex) -> &K {
        &self.node(index).key
    }

    /// Puts a node that is in no chain into that of `place`.
    pub(super) fn link(&mut self, index: NodeIndex, place: Place) {
        let level = self.level_mut(place.level);
        level.occupied |= 1 << place.slot;
        let next = level.head_mut(place.slot).replace(index);
        if let Some(next) = next {
            self.node_mut(next).previous = Some(index);
        }
        let node = self.node_mut(index);
        node.previous = None;
        node.next = next;
    }

    /// Takes a node out of the chain of `place`.
    pub(super) fn unlink(&mut self, index: NodeIndex, place: Place) {
        let node = self.node_mut(index);
        let (previous, next) = (node.previous.take(), node.next.take());
        if let Some(next) = next {
            self.node_mut(next).previous = previous;
        }
        if let Some(previous) = previous {
            self.node_mut(previous).next = next;
            return;
        }
        let level = self.level_mut(place.level);
        *level.head_mut(place.slot) = next;
        if next.is_none() {
            level.occupied &= !(1 << place.slot);
        }
    }

    /// Any node of the chain of `place`, taken out of it.
    pub(super) fn unlink_any(&mut self, place: Place) -> Option<NodeIndex> {
        let index = (*self.level_mut(place.level).head_mut(place.slot))?;
        self.unlink(index, place);
        Some(index)
    }

    /// The first place that has a chain: the lowest slot of the lowest level.
    pub(super) fn first_occupied(&self) -> Option<Place> {
        (0..)
            .zip(self.levels.iter())
            .find_map(|(level, Level { occupied, .. })| {
                (*occupied != 0).then(|| Place {
                    level,
                    slot: occupied.trailing_zeros(),
                })
            })
    }

    fn node(&self, index: NodeIndex) -> &Node<K> {
        match self.cells.get(index.0) {
            Some(Cell::Taken(node)) => node,
            _ => unreachable!("an index is used from add to remove"),
        }
    }

    fn node_mut(&mut self, index: NodeIndex) -> &mut Node<K> {
        match self.cells.get_mut(index.0) {
            Some(Cell::Taken(node)) => node,
            _ => unreachable!("an index is used from add to remove"),
        }
    }

    fn level_mut(&mut self, level: u32) -> &mut Level {
        let level = usize::try_from(level).expect("a level is a small number");
        self.levels
            .get_mut(level)
            .expect("a place is on a level of the wheel")
    }
}

impl Level {
    fn head_mut(&mut self, slot: u32) -> &mut Option<NodeIndex> {
        let slot = usize::try_from(slot).expect("a slot is a small number");
        self.heads
            .get_mut(slot)
            .expect("a place is a slot of its level")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TimestampMs;

    const PLACE: Place = Place { level: 3, slot: 40 };

    fn slots_with_chain(length: u32) -> (Slots<u32>, Vec<NodeIndex>) {
        let mut slots = Slots::new();
        let indices: Vec<_> = (0..length)
            .map(|key| slots.add(Tick::of(TimestampMs(0)), key))
            .collect();
        for index in &indices {
            slots.link(*index, PLACE);
        }
        (slots, indices)
    }

    fn drain(slots: &mut Slots<u32>) -> Vec<u32> {
        let mut keys = Vec::new();
        while let Some(index) = slots.unlink_any(PLACE) {
            keys.push(*slots.key(index));
        }
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_node_leaves_its_chain_from_any_position() {
        for leaving in 0..3 {
            let (mut slots, indices) = slots_with_chain(3);
            slots.unlink(indices[leaving], PLACE);
            slots.remove(indices[leaving]);
            let rest: Vec<u32> = (0..3).filter(|key| *key as usize != leaving).collect();
            assert_eq!(drain(&mut slots), rest);
            assert_eq!(slots.first_occupied(), None);
        }
    }

    #[test]
    fn a_removed_cell_is_used_again() {
        let (mut slots, indices) = slots_with_chain(3);
        slots.unlink(indices[1], PLACE);
        slots.remove(indices[1]);
        let again = slots.add(Tick::of(TimestampMs(0)), 9);
        slots.link(again, PLACE);
        assert_eq!(again, indices[1]);
        assert_eq!(drain(&mut slots), [0, 2, 9]);
    }

    #[test]
    fn the_first_place_is_the_lowest_slot_of_the_lowest_level() {
        let mut slots = Slots::new();
        assert_eq!(slots.first_occupied(), None);
        for place in [
            Place { level: 10, slot: 1 },
            Place { level: 2, slot: 63 },
            Place { level: 2, slot: 7 },
        ] {
            let index = slots.add(Tick::of(TimestampMs(0)), ());
            slots.link(index, place);
            assert_eq!(slots.first_occupied(), Some(place));
        }
    }
}
