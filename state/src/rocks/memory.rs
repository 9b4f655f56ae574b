//! The memory that all databases of the process share.
//!
//! Each task has a database of its own, and tasks come and go, so a limit for each
//! database would be either wasteful or no limit. There is one cache, and one
//! budget for the writes that are not on disk yet, which is taken out of the
//! cache as it is used. What the tasks together may take is therefore one number,
//! and memory that writes do not need caches blocks.

use std::fmt;

use rocksdb::{Cache, WriteBufferManager};

/// The one block cache and write budget of a process; clones share them.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    capacity_bytes: usize,
}

impl RocksMemory {
    /// A budget of `block_cache_bytes` for blocks read from disk, their indexes and
    /// filters, plus `write_buffer_bytes` for writes that are not on disk yet.
    ///
    /// The second is a limit at which databases start to flush, not one at which
    /// writers wait.
    #[must_use]
    pub fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        let capacity_bytes = block_cache_bytes.saturating_add(write_buffer_bytes);
        // Readers of many threads look up several blocks for each row: this cache takes no
        // lock for that. With no guess of the size of its entries it grows as it is used.
        let cache = Cache::new_hyper_clock_cache(capacity_bytes, 0);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            write_buffer_bytes,
            false,
            cache.clone(),
        );
        Self {
            cache,
            write_buffers,
            capacity_bytes,
        }
    }

    /// The whole budget, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The bytes in use: blocks, indexes, filters and write buffers.
    #[must_use]
    pub fn usage_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// The bytes in use that cannot be evicted now, among them the write buffers.
    #[must_use]
    pub fn pinned_bytes(&self) -> usize {
        self.cache.get_pinned_usage()
    }

    /// The bytes of the write buffers.
    #[must_use]
    pub fn write_buffer_usage_bytes(&self) -> usize {
        self.write_buffers.get_usage()
    }

    /// The limit of the write buffers.
    #[must_use]
    pub fn write_buffer_capacity_bytes(&self) -> usize {
        self.write_buffers.get_buffer_size()
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
