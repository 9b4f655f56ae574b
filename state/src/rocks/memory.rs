//! The memory that all databases of the process share.
//!
//! Each task has its own database, and tasks come and go, so a limit per database would be
//! either wasteful or no limit. Instead there is one cache, and one budget for the writes that
//! are not on disk yet: half for what is fresh, half for what is being drained. So one number
//! limits what all tasks together may take.
//!
//! While rows are loaded in bulk into any database, buffers may also take most of the block
//! cache: few read yet, and the more is drained at once, the less often it is merged. The files
//! of databases that were loaded are not merged either before all are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rocksdb::Cache;

use super::database::Database;

/// The one block cache and write budget of a process; clones share them.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    buffers: Arc<Buffers>,
}

/// What the buffers of all databases hold.
struct Buffers {
    /// Of what is fresh, at which buffers are drained; and of what is being drained.
    limit_bytes: usize,
    /// How much more while rows are loaded in bulk.
    bulk_bytes: usize,
    /// The size of the cache when no rows are loaded in bulk.
    cache_bytes: usize,
    state: Mutex<BuffersState>,
    /// Held while merging resumes in all databases that were loaded: none of them is closed meanwhile.
    merging: Mutex<()>,
}

struct BuffersState {
    held: BTreeMap<u64, Held>,
    /// The databases into which rows are loaded in bulk.
    in_bulk: BTreeSet<u64>,
    /// The databases into which rows were loaded since there are any of those.
    loaded: BTreeMap<u64, Weak<Database>>,
    cache: Cache,
    next: u64,
}

/// What one database holds, in bytes.
#[derive(Default)]
struct Held {
    fresh: usize,
    draining: usize,
}

impl BuffersState {
    fn fresh_bytes(&self) -> usize {
        self.held.values().map(|held| held.fresh).sum()
    }

    fn draining_bytes(&self) -> usize {
        self.held.values().map(|held| held.draining).sum()
    }
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

    /// Sets the capacity of the cache to what it does not lend.
    fn lend(&self, state: &mut BuffersState) {
        let capacity = self.cache_bytes - self.lent_bytes(state);
        state.cache.set_capacity(capacity);
    }
}

/// What the buffer of one database holds: nothing any more once this is dropped.
pub(super) struct BufferAccount {
    buffers: Arc<Buffers>,
    number: u64,
}

impl BufferAccount {
    /// Notes how much is fresh; returns whether it has to be drained: if all databases together hold
    /// too much, and this one at least its share of the limit. So drains are few and large; and a
    /// database that holds much and is no longer written to leaves the others less.
    pub(super) fn holds(&self, bytes: usize) -> bool {
        let state = &mut *self.buffers.state.lock();
        let limit = self.buffers.limit_bytes + self.buffers.lent_bytes(state);
        state.held.entry(self.number).or_default().fresh = bytes;
        let total = state.fresh_bytes();
        let fresh = state.held.values().filter(|held| held.fresh > 0);
        total > limit && bytes >= limit / fresh.count().max(1)
    }

    /// Notes that this much is to be drained, and nothing is fresh.
    pub(super) fn sets_apart(&self, bytes: usize) {
        let held = Held {
            fresh: 0,
            draining: bytes,
        };
        self.buffers.state.lock().held.insert(self.number, held);
    }

    /// Notes that nothing is being drained any more.
    pub(super) fn has_drained(&self) {
        let state = &mut *self.buffers.state.lock();
        state.held.entry(self.number).or_default().draining = 0;
    }

    /// Whether rows are loaded in bulk into this database.
    pub(super) fn is_in_bulk(&self) -> bool {
        self.buffers.state.lock().in_bulk.contains(&self.number)
    }

    /// Whether rows were loaded in bulk into this database, and a bulk load of any still goes on.
    pub(super) fn is_loaded(&self) -> bool {
        self.buffers.state.lock().loaded.contains_key(&self.number)
    }

    /// Notes that rows are loaded in bulk into this database, which is `database`.
    pub(super) fn begin_bulk_load(&self, database: Weak<Database>) {
        let state = &mut *self.buffers.state.lock();
        state.in_bulk.insert(self.number);
        state.loaded.insert(self.number, database);
        self.buffers.lend(state);
    }

    /// Notes that the bulk load has ended; returns whether one of another database goes on.
    /// The last one resumes merging in all databases that were loaded.
    pub(super) fn end_bulk_load(&self) -> bool {
        let buffers = &*self.buffers;
        let _merging = buffers.merging.lock();
        let loaded = {
            let state = &mut *buffers.state.lock();
            if !state.in_bulk.remove(&self.number) || !state.in_bulk.is_empty() {
                return !state.in_bulk.is_empty();
            }
            buffers.lend(state);
            std::mem::take(&mut state.loaded)
        };
        for database in loaded.values().filter_map(Weak::upgrade) {
            // A disk that fails here fails at the next drain too, and that is reported.
            database.merge_as_usual().ok();
        }
        false
    }

    /// To be called before the database is closed: nobody else may keep it open then.
    pub(super) fn leave(&self) {
        self.end_bulk_load();
        let _merging = self.buffers.merging.lock();
        self.buffers.state.lock().loaded.remove(&self.number);
    }
}

impl Drop for BufferAccount {
    fn drop(&mut self) {
        self.leave();
        self.buffers.state.lock().held.remove(&self.number);
    }
}

impl fmt::Debug for BufferAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferAccount({})", self.number)
    }
}

impl RocksMemory {
    /// A budget of `block_cache_bytes` for blocks read from disk, their indexes and
    /// filters, plus `write_buffer_bytes` for writes that are not on disk yet: at half of the
    /// latter draining begins, and writers wait for it while the other half is being drained.
    #[must_use]
    pub fn new(block_cache_bytes: usize, write_buffer_bytes: usize) -> Self {
        // Readers on many threads look up several blocks per row: this cache takes no lock for
        // that. Without an estimate of the size of its entries it grows as it is used.
        let cache = Cache::new_hyper_clock_cache(block_cache_bytes, 0);
        let buffers = Buffers {
            limit_bytes: write_buffer_bytes / 2,
            bulk_bytes: block_cache_bytes / 4 * 3,
            cache_bytes: block_cache_bytes,
            merging: Mutex::default(),
            state: Mutex::new(BuffersState {
                held: BTreeMap::new(),
                in_bulk: BTreeSet::new(),
                loaded: BTreeMap::new(),
                cache: cache.clone(),
                next: 0,
            }),
        };
        Self {
            cache,
            buffers: Arc::new(buffers),
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

    /// Whether more is being drained than the limit allows.
    pub(super) fn drains_too_much(&self) -> bool {
        self.buffers.state.lock().draining_bytes() > self.buffers.limit_bytes
    }

    /// The bytes of cached blocks, indexes and filters.
    #[must_use]
    pub fn block_cache_usage_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// The limit of these: less while rows are loaded in bulk.
    #[must_use]
    pub fn block_cache_capacity_bytes(&self) -> usize {
        let lent = self.buffers.lent_bytes(&self.buffers.state.lock());
        self.buffers.cache_bytes - lent
    }

    /// The bytes of writes that are not on disk yet.
    #[must_use]
    pub fn write_buffer_usage_bytes(&self) -> usize {
        let state = self.buffers.state.lock();
        state.fresh_bytes() + state.draining_bytes()
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl fmt::Debug for RocksMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksMemory")
            .field("block_cache_usage_bytes", &self.block_cache_usage_bytes())
            .field("write_buffer_usage_bytes", &self.write_buffer_usage_bytes())
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
        assert_eq!(memory.write_buffer_usage_bytes(), 1100 * KIB);
        assert!(first.holds(600 * KIB));
        assert!(!first.holds(0));
        assert!(!second.holds(1000 * KIB));
        assert!(second.holds(1100 * KIB), "alone it may hold all there is");
        second.sets_apart(1100 * KIB);
        assert!(memory.drains_too_much());
        assert!(
            !second.holds(600 * KIB),
            "the other half is for what is drained"
        );
        assert_eq!(memory.write_buffer_usage_bytes(), 1700 * KIB);
        second.has_drained();
        assert!(!memory.drains_too_much());
        assert_eq!(memory.write_buffer_usage_bytes(), 600 * KIB);
        drop(second);
        assert_eq!(memory.write_buffer_usage_bytes(), 0);
    }

    #[test]
    fn one_that_is_full_and_quiet_does_not_let_the_others_fill_up() {
        const KIB: usize = 1024;
        let limit = 1024 * KIB;
        let memory = RocksMemory::new(8 << 20, 2 * limit);
        let quiet = memory.account();
        assert!(!quiet.holds(800 * KIB));
        let mut others = [(); 19].map(|()| (memory.account(), 0));
        for _ in 0..1000 {
            for (other, fresh) in &mut others {
                *fresh += 8 * KIB;
                if other.holds(*fresh) {
                    other.sets_apart(*fresh);
                    other.has_drained();
                    *fresh = 0;
                }
            }
            assert!(memory.write_buffer_usage_bytes() < 2 * limit);
        }
    }

    #[test]
    fn buffers_take_room_from_the_cache_while_rows_are_loaded_in_bulk() {
        const MIB: usize = 1 << 20;
        let memory = RocksMemory::new(8 * MIB, 2 * MIB);
        let (first, second) = (memory.account(), memory.account());
        assert!(!first.end_bulk_load());
        first.begin_bulk_load(Weak::new());
        first.begin_bulk_load(Weak::new());
        second.begin_bulk_load(Weak::new());
        assert_eq!(memory.block_cache_capacity_bytes(), 2 * MIB);
        assert!(!first.holds(7 * MIB));
        assert!(first.holds(8 * MIB));
        assert!(first.end_bulk_load(), "rows are loaded into the other");
        assert!(first.is_loaded() && !first.is_in_bulk());
        assert!(!first.holds(7 * MIB));
        drop(second);
        assert_eq!(memory.block_cache_capacity_bytes(), 8 * MIB);
        assert!(!first.is_loaded());
        assert!(first.holds(2 * MIB));
    }
}
