//! Committed state in memory: for tests, the simulator and stores without a disk.
//!
//! It behaves like the database in everything but durability: batches apply as a
//! whole, scans see one point in time. One lock guards all stores, because a
//! batch changes several of them at once. A scan copies its range when it starts,
//! so it holds no lock while it is read.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::{
    Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId, StoreSpec, StoreStats,
};

/// A [`Backend`] that forgets everything when it is dropped.
#[derive(Debug)]
pub struct MemoryBackend {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    stores: Vec<Store>,
    changelog_offset: Option<i64>,
}

#[derive(Debug, Clone, Default)]
struct Store {
    entries: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Of all keys and values together.
    bytes: u64,
}

impl Store {
    fn put(&mut self, key: Box<[u8]>, value: Box<[u8]>) {
        self.bytes += size(&key) + size(&value);
        let key_size = size(&key);
        if let Some(previous) = self.entries.insert(key, value) {
            self.bytes -= key_size + size(&previous);
        }
    }

    fn delete(&mut self, key: &[u8]) {
        if let Some(previous) = self.entries.remove(key) {
            self.bytes -= size(key) + size(&previous);
        }
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a length fits in 64 bits")
}

impl MemoryBackend {
    /// Empty stores, in the order of their [`StoreId`]s.
    #[must_use]
    pub fn new(stores: &[StoreSpec]) -> Self {
        Self {
            state: RwLock::new(State {
                stores: vec![Store::default(); stores.len()],
                changelog_offset: None,
            }),
        }
    }

    fn read<T>(&self, store: StoreId, read: impl FnOnce(&Store) -> T) -> Result<T, StateError> {
        let stores = &self.state.read().stores;
        stores
            .get(store.index())
            .map(read)
            .ok_or(StateError::UnknownStore(store))
    }
}

impl Backend for MemoryBackend {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.read(store, |store| {
            store.entries.get(key).map(|value| value.to_vec())
        })
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let entries: Vec<Entry> = self.read(store, |store| match range.bounds() {
            Some(bounds) => store
                .entries
                .range::<[u8], _>(bounds)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            None => Vec::new(),
        })?;
        let entries = entries.into_iter().map(Ok);
        Ok(match direction {
            ScanDirection::Forward => Box::new(entries),
            ScanDirection::Reverse => Box::new(entries.rev()),
        })
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        let mut state = self.state.write();
        // All stores are looked up before the first write, so that a batch with a
        // wrong one changes nothing.
        let mut written = batch.writes.iter().map(|(store, _)| store);
        if let Some(unknown) = written.find(|store| store.index() >= state.stores.len()) {
            return Err(StateError::UnknownStore(*unknown));
        }
        for (store, write) in batch.writes {
            let store = state
                .stores
                .get_mut(store.index())
                .expect("the stores of the batch were checked");
            match write.entry() {
                (key, Some(value)) => store.put(key.into(), value.into()),
                (key, None) => store.delete(key),
            }
        }
        state.changelog_offset = batch.changelog_offset.or(state.changelog_offset);
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        Ok(self.state.read().changelog_offset)
    }

    /// Does nothing: there is nothing that could survive.
    fn flush(&self) -> Result<(), StateError> {
        Ok(())
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        let stores = &self.state.read().stores;
        let stats = stores.iter().map(|store| StoreStats {
            keys: u64::try_from(store.entries.len()).expect("a length fits in 64 bits"),
            bytes: store.bytes,
        });
        Ok(stats.collect())
    }
}
