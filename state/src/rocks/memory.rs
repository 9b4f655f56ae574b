//! The memory that all databases of the process share.
//!
//! Each task has a database of its own, and tasks come and go, so a limit for each
//! database would be either wasteful or no limit. There is one cache, and one
//! budget for the writes that are not on disk yet. Half of that is for the buffers in front
//! of RocksDB, half for what was drained from them and is being flushed; this half is taken
//! out of the cache as it is used, so that memory that flushes do not need caches blocks.
//! What the tasks together may take is therefore one number.
//!
//! While rows are loaded in bulk into any of them, buffers may take most of the room for
//! cached blocks too: nobody reads yet, and the larger what is drained at once, the less often
//! it is merged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{Cache, WriteBufferManager};

/// The one block cache and write budget of a process; clones share them.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    buffers: Arc<Buffers>,
    capacity_bytes: usize,
}

/// What the buffers of all databases hold.
struct Buffers {
    /// At which they are drained.
    limit_bytes: usize,
    /// So much more, while rows are loaded in bulk.
    bulk_bytes: usize,
    /// Of the cache, when no rows are loaded in bulk.
    cache_bytes: usize,
    state: Mutex<BuffersState>,
}

struct BuffersState {
    bytes: BTreeMap<u64, usize>,
    /// Those into which rows are loaded in bulk.
    in_bulk: BTreeSet<u64>,
    cache: Cache,
    next: u64,
}

impl Buffers {
    /// What the cache lends the buffers.
    fn lent_bytes(&self, state: &BuffersState) -> usize {
        if state.in_bulk.is_empty() {
            0
        } else {
            self.bulk_bytes
        }
    }
}

/// What the buffer of one database holds: nothing any more, when this is dropped.
pub(super) struct BufferAccount {
    buffers: Arc<Buffers>,
    number: u64,
}

impl BufferAccount {
    /// Notes how much it holds; says whether it has to be drained: when all together hold too
    /// much, and this one as much as they do on average. So few and large ones are drained.
    pub(super) fn holds(&self, bytes: usize) -> bool {
        let state = &mut *self.buffers.state.lock();
        let limit = self.buffers.limit_bytes + self.buffers.lent_bytes(state);
        let of = &mut state.bytes;
        of.insert(self.number, bytes);
        let total: usize = of.values().sum();
        let number = of.values().filter(|bytes| **bytes > 0).count();
        total > limit && bytes >= total / number.max(1)
    }

    /// Notes whether rows are loaded in bulk; says whether they are into any database.
    pub(super) fn set_in_bulk(&self, in_bulk: bool) -> bool {
        let state = &mut *self.buffers.state.lock();
        let changed = if in_bulk {
            state.in_bulk.insert(self.number)
        } else {
            state.in_bulk.remove(&self.number)
        };
        if changed {
            let lent = self.buffers.lent_bytes(state);
            state.cache.set_capacity(self.buffers.cache_bytes - lent);
        }
        !state.in_bulk.is_empty()
    }
}

impl Drop for BufferAccount {
    fn drop(&mut self) {
        self.set_in_bulk(false);
        self.buffers.state.lock().bytes.remove(&self.number);
    }
}

impl fmt::Debug for BufferAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferAccount({})", self.number)
    }
}

impl RocksMemory {
    /// A budget of `block_cache_bytes` for blocks read from disk, their indexes and
    /// filters, plus `write_buffer_bytes` for writes that are not on disk yet.
    ///
    /// The second is a limit at which databases start to flush, not one at which
    /// writers wait.
    #[must_use]
    pub fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        let (buffers, flushing) = (write_buffer_bytes / 2, write_buffer_bytes.div_ceil(2));
        let cache_bytes = block_cache_bytes.saturating_add(flushing);
        // Readers of many threads look up several blocks for each row: this cache takes no
        // lock for that. With no guess of the size of its entries it grows as it is used.
        let cache = Cache::new_hyper_clock_cache(cache_bytes, 0);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(flushing, false, cache.clone());
        let buffers = Buffers {
            limit_bytes: buffers,
            bulk_bytes: block_cache_bytes / 4 * 3,
            cache_bytes,
            state: Mutex::new(BuffersState {
                bytes: BTreeMap::new(),
                in_bulk: BTreeSet::new(),
                cache: cache.clone(),
                next: 0,
            }),
        };
        Self {
            cache,
            write_buffers,
            buffers: Arc::new(buffers),
            capacity_bytes: cache_bytes.saturating_add(write_buffer_bytes / 2),
        }
    }

    /// An account for the buffer of one more database.
    pub(super) fn account(&self) -> BufferAccount {
        let number = {
            let mut state = self.buffers.state.lock();
            state.next += 1;
            state.next
        };
        BufferAccount {
            buffers: self.buffers.clone(),
            number,
        }
    }

    /// Whether more is drained and not flushed yet than there is room for.
    pub(super) fn flushes_too_much(&self) -> bool {
        self.write_buffers.get_usage() > self.write_buffers.get_buffer_size()
    }

    fn buffered_bytes(&self) -> usize {
        self.buffers.state.lock().bytes.values().sum()
    }

    /// The whole budget, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The bytes in use: blocks, indexes, filters and write buffers.
    #[must_use]
    pub fn usage_bytes(&self) -> usize {
        self.cache.get_usage() + self.buffered_bytes()
    }

    /// The bytes in use that cannot be evicted now, among them the write buffers.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.cache.get_pinned_usage() + self.buffered_bytes()
    }

    /// The bytes of the write buffers.
    #[must_use]
    pub fn write_buffer_usage_bytes(&self) -> usize {
        self.write_buffers.get_usage() + self.buffered_bytes()
    }

    /// The limit of the write buffers.
    #[must_use]
    pub fn write_buffer_capacity_bytes(&self) -> usize {
        self.write_buffers.get_buffer_size() + self.buffers.limit_bytes
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn write_buffers(&self) -> &WriteBufferManager {
        &self.write_buffers
    }
}

impl fmt::Debug for RocksMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksMemory")
            .field("capacity_bytes", &self.capacity_bytes)
            .field("usage_bytes", &self.usage_bytes())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_drained_that_hold_much_when_all_together_hold_too_much() {
        const KIB: usize = 1024;
        let memory = RocksMemory::new(8 << 20, 2048 * KIB);
        let (first, second) = (memory.account(), memory.account());
        assert!(!first.holds(600 * KIB));
        assert!(!second.holds(400 * KIB));
        assert!(!second.holds(500 * KIB), "it holds the lesser part");
        assert_eq!(memory.buffered_bytes(), 1100 * KIB);
        assert!(first.holds(600 * KIB));
        assert!(!first.holds(0));
        assert!(!second.holds(1000 * KIB));
        assert!(second.holds(1100 * KIB), "alone it may hold all there is");
        drop(second);
        assert_eq!(memory.buffered_bytes(), 0);
    }

    #[test]
    fn buffers_take_room_from_the_cache_while_rows_are_loaded_in_bulk() {
        const MIB: usize = 1 << 20;
        let memory = RocksMemory::new(8 * MIB, 2 * MIB);
        let (first, second) = (memory.account(), memory.account());
        assert!(!first.set_in_bulk(false));
        assert!(first.set_in_bulk(true));
        assert!(first.set_in_bulk(true));
        assert!(second.set_in_bulk(true));
        assert!(!first.holds(7 * MIB));
        assert!(first.holds(8 * MIB));
        assert!(first.set_in_bulk(false), "rows are loaded into the other");
        assert!(!first.holds(7 * MIB));
        drop(second);
        assert!(first.holds(2 * MIB));
    }
}
