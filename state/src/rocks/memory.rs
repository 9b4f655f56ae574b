//! The memory that all databases of the process share.
//!
//! Each task has a database of its own, and tasks come and go, so a limit for each
//! database would be either wasteful or no limit. There is one cache, and one
//! budget for the writes that are not on disk yet. Half of that is for the buffers in front
//! of RocksDB, half for what was drained from them and is being flushed; this half is taken
//! out of the cache as it is used, so that memory that flushes do not need caches blocks.
//! What the tasks together may take is therefore one number.

use std::collections::BTreeMap;
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
    state: Mutex<BuffersState>,
}

#[derive(Default)]
struct BuffersState {
    bytes: BTreeMap<u64, usize>,
    next: u64,
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
        let of = &mut self.buffers.state.lock().bytes;
        of.insert(self.number, bytes);
        let total: usize = of.values().sum();
        let number = of.values().filter(|bytes| **bytes > 0).count();
        total > self.buffers.limit_bytes && bytes >= total / number.max(1)
    }
}

impl Drop for BufferAccount {
    fn drop(&mut self) {
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
        let capacity_bytes = block_cache_bytes.saturating_add(flushing);
        // Readers of many threads look up several blocks for each row: this cache takes no
        // lock for that. With no guess of the size of its entries it grows as it is used.
        let cache = Cache::new_hyper_clock_cache(capacity_bytes, 0);
        let write_buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(flushing, false, cache.clone());
        let buffers = Buffers {
            limit_bytes: buffers,
            state: Mutex::default(),
        };
        Self {
            cache,
            write_buffers,
            buffers: Arc::new(buffers),
            capacity_bytes: capacity_bytes.saturating_add(write_buffer_bytes / 2),
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
}
