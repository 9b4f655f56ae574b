//! Committed state on disk: one RocksDB database a task.
//!
//! ```text
//! 2_3/              the directory of one task
//!   FORMAT          the marker: format version, names of the stores
//!   db/             RocksDB
//!     default       column family: the changelog offset
//!     store-<name>  column family of one store
//! ```
//!
//! A batch goes to a [`Buffer`] in memory. When the buffers of all databases are full, those
//! that hold most are drained: as one batch to RocksDB, which is to flush it at once.
//!
//! There is no write-ahead log: the changelogs are one. A drain changes all column
//! families in memory at once, and a flush writes all of them as of one point in time. So
//! after a crash the stores and their changelog offset equal some batch that was
//! written, perhaps not the last one, and the offset says which.
//!
//! Closing does not flush. Whoever stops in good order calls [`Backend::flush`]
//! first; whoever abandons a task just drops it.
//!
//! A directory that is not a task of ours is refused, never wiped or overwritten.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, IteratorMode, ReadOptions, WriteBatch,
    WriteOptions, properties,
};

use self::buffer::{Buffer, Scan};
use self::memory::BufferAccount;
use crate::marker::Marker;
use crate::merge::{Entries, Merge};
use crate::{
    Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId, StoreSpec, StoreStats,
};

mod buffer;
mod memory;
mod options;

pub use memory::RocksMemory;
pub use options::RocksOptions;

const MARKER: Marker = Marker {
    kind: "turnstile-task",
    version: 1,
};

const DATABASE: &str = "db";

/// A database on its way out. Renaming is one step, deleting many files is not.
const DISCARDED_DATABASE: &str = "db.discarded";

/// RocksDB always has this column family.
const POSITION: &str = "default";

/// The one key of that column family.
const CHANGELOG_OFFSET: &[u8] = b"changelog-offset";

/// A [`Backend`] on disk.
///
/// Reads may come from any thread.
#[derive(Debug)]
pub struct RocksBackend {
    database: DB,
    /// What is written and not drained yet. It lies over the database.
    buffer: RwLock<Buffer>,
    account: BufferAccount,
    memory: RocksMemory,
    /// The bytes at which it is drained whatever others hold.
    buffer_bytes_max: usize,
    path: PathBuf,
    stores: Vec<Store>,
    /// Of lookups of single keys: made once, for they are all alike.
    lookup: Lookup,
}

/// A store in RocksDB.
#[derive(Debug)]
struct Store {
    column_family: String,
    /// Whether RocksDB ever had a row of it. Where it had none nothing need be looked up: the
    /// stores for what goes wrong are empty most of their time.
    has_rows: AtomicBool,
}

/// How a single key is read.
struct Lookup(ReadOptions);

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
    }
}

impl RocksBackend {
    /// Opens the task in the directory `path`, or creates it if the directory is
    /// empty or missing.
    ///
    /// # Errors
    ///
    /// [`StateError::InvalidName`] for a store name that is not `[a-z0-9-]+` or not
    /// unique; [`StateError::ForeignFormat`], [`StateError::NewerFormat`];
    /// [`StateError::DifferentStores`] when a store was added or removed since;
    /// [`StateError::Corrupted`]; [`StateError::RocksDb`], also when it is open
    /// already; [`StateError::Io`].
    pub fn open(
        path: &Path,
        stores: &[StoreSpec],
        options: &RocksOptions,
    ) -> Result<Self, StateError> {
        let names = sorted_names(stores)?;
        match MARKER.read(path)? {
            None => {
                fs::create_dir_all(path).map_err(StateError::io(path))?;
                MARKER.write(path, &names)?;
            }
            Some(found) if found == names => {}
            Some(found) => {
                return Err(StateError::DifferentStores {
                    path: path.to_owned(),
                    expected: names.into_iter().map(str::to_owned).collect(),
                    found,
                });
            }
        }
        remove_if_there(&path.join(DISCARDED_DATABASE))?;
        let stores: Vec<Store> = stores
            .iter()
            .map(|spec| Store {
                column_family: format!("store-{}", spec.name),
                has_rows: AtomicBool::new(true),
            })
            .collect();
        let database = open_database(&path.join(DATABASE), &stores, options)
            .map_err(StateError::rocks(path, "open the database"))?;
        let backend = Self {
            database,
            buffer: RwLock::new(Buffer::new(stores.len())),
            account: options.memory.account(),
            memory: options.memory.clone(),
            buffer_bytes_max: options.buffer_bytes_max,
            path: path.to_owned(),
            stores,
            lookup: Lookup(ReadOptions::default()),
        };
        for store in &backend.stores {
            let first = backend
                .database
                .iterator_cf(backend.column_family(store), IteratorMode::Start)
                .next()
                .transpose();
            let first = first.map_err(backend.rocks("look for rows"))?;
            store.has_rows.store(first.is_some(), Ordering::Relaxed);
        }
        Ok(backend)
    }

    /// Deletes the task in the directory `path`, which must not be open; a missing
    /// or empty directory is left as it is.
    ///
    /// A crash in between leaves a directory that opens as an empty task.
    ///
    /// # Errors
    ///
    /// [`StateError::ForeignFormat`] and [`StateError::NewerFormat`] for what is not
    /// ours to delete; [`StateError::Io`].
    pub fn destroy(path: &Path) -> Result<(), StateError> {
        if MARKER.read(path)?.is_none() {
            return Ok(());
        }
        // 1. What an earlier attempt left.
        let discarded = path.join(DISCARDED_DATABASE);
        remove_if_there(&discarded)?;
        // 2. In one step, the task is empty.
        let database = path.join(DATABASE);
        match fs::rename(&database, &discarded) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(StateError::io(&database)(error)),
        }
        // 3. The files, and last the marker that makes them ours.
        remove_if_there(&discarded)?;
        remove_if_there(path)
    }

    fn store(&self, store: StoreId) -> Result<&Store, StateError> {
        let found = self.stores.get(store.index());
        found.ok_or(StateError::UnknownStore(store))
    }

    fn column_family(&self, store: &Store) -> &ColumnFamily {
        self.column_family_named(&store.column_family)
    }

    fn column_family_named(&self, name: &str) -> &ColumnFamily {
        self.database
            .cf_handle(name)
            .expect("column families are opened with the database and never dropped")
    }

    fn rocks(&self, action: &'static str) -> impl FnOnce(rocksdb::Error) -> StateError {
        StateError::rocks(&self.path, action)
    }

    /// Gives RocksDB what is in the buffer.
    fn drain(&self) -> Result<(), StateError> {
        // Readers go on: until it is taken out they find it here, afterwards there.
        let buffer = self.buffer.upgradable_read();
        if buffer.is_empty() {
            return Ok(());
        }
        let mut writes = WriteBatch::with_capacity_bytes(buffer.bytes());
        for (store, of_store) in self.stores.iter().zip(buffer.stores()) {
            let column_family = self.column_family(store);
            if !of_store.is_empty() {
                store.has_rows.store(true, Ordering::Relaxed);
            }
            for (key, value) in of_store.iter() {
                match value {
                    Some(value) => writes.put_cf(column_family, key, value),
                    None => writes.delete_cf(column_family, key),
                }
            }
        }
        if let Some(next_offset) = buffer.changelog_offset() {
            let position = self.column_family_named(POSITION);
            writes.put_cf(position, CHANGELOG_OFFSET, next_offset.to_be_bytes());
        }
        self.database
            .write_opt(writes, &without_log())
            .map_err(self.rocks("write a batch"))?;
        let drained = RwLockUpgradableReadGuard::upgrade(buffer).take();
        self.account.holds(0);
        drop(drained);
        Ok(())
    }

    /// Writes to disk what RocksDB has in memory; `wait`: and waits until it is there.
    fn flush_memory(&self, wait: bool) -> Result<(), StateError> {
        let mut column_families = vec![self.column_family_named(POSITION)];
        for store in &self.stores {
            column_families.push(self.column_family(store));
        }
        let column_families: Vec<&&ColumnFamily> = column_families.iter().collect();
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.database
            .flush_cfs_opt(&column_families, &options)
            .map_err(self.rocks("flush"))
    }
}

impl Backend for RocksBackend {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(value) = self.buffer.read().store(store)?.get(key) {
            return Ok(value.as_deref().map(<[u8]>::to_vec));
        }
        let store = self.store(store)?;
        // The buffer's lock orders this after the drain that took the row out of it.
        if !store.has_rows.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.database
            .get_cf_opt(self.column_family(store), key, &self.lookup.0)
            .map_err(self.rocks("read a key"))
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let column_family = self.column_family(self.store(store)?);
        let Some((start, end)) = range.bounds() else {
            return Ok(Box::new(std::iter::empty()));
        };
        // RocksDB includes the lower end and excludes the upper one.
        let mut options = ReadOptions::default();
        match start {
            Bound::Included(start) => options.set_iterate_lower_bound(start),
            Bound::Excluded(start) => options.set_iterate_lower_bound(next_key(start)),
            Bound::Unbounded => {}
        }
        match end {
            Bound::Included(end) => options.set_iterate_upper_bound(next_key(end)),
            Bound::Excluded(end) => options.set_iterate_upper_bound(end),
            Bound::Unbounded => {}
        }
        let mode = match direction {
            ScanDirection::Forward => IteratorMode::Start,
            ScanDirection::Reverse => IteratorMode::End,
        };
        // Nothing is written between the two, so both are as of one point in time.
        let (writes, entries) = {
            let buffer = self.buffer.read();
            let entries = self.database.iterator_cf_opt(column_family, options, mode);
            (buffer.store(store)?.clone(), entries)
        };
        let entries: Entries<'a> =
            Box::new(entries.map(|entry| entry.map_err(self.rocks("scan a store"))));
        if writes.is_empty() {
            return Ok(entries);
        }
        let writes = Scan::new(writes, range, direction);
        Ok(Box::new(Merge::new(entries, writes, direction)))
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        let bytes = {
            let mut buffer = self.buffer.write();
            buffer.add(batch)?;
            buffer.bytes()
        };
        let too_much = self.account.holds(bytes);
        if too_much || bytes >= self.buffer_bytes_max {
            self.drain()?;
            // Who writes faster than can be flushed waits, so that memory stays bounded.
            self.flush_memory(self.memory.flushes_too_much())?;
        }
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        let buffered = self.buffer.read().changelog_offset();
        if buffered.is_some() {
            return Ok(buffered);
        }
        let found = self
            .database
            .get_cf(self.column_family_named(POSITION), CHANGELOG_OFFSET)
            .map_err(self.rocks("read the changelog offset"))?;
        let Some(found) = found else {
            return Ok(None);
        };
        match <[u8; 8]>::try_from(found.as_slice()) {
            Ok(bytes) => Ok(Some(i64::from_be_bytes(bytes))),
            Err(_) => Err(StateError::Corrupted {
                path: self.path.clone(),
                what: format!("the changelog offset has {} bytes", found.len()),
                source: None,
            }),
        }
    }

    fn flush(&self) -> Result<(), StateError> {
        self.drain()?;
        self.flush_memory(true)
    }

    fn stats(&self, store: StoreId) -> Result<StoreStats, StateError> {
        let (keys_buffered, bytes_buffered) = {
            let buffer = self.buffer.read();
            let writes = buffer.store(store)?;
            (writes.len() as u64, writes.bytes() as u64)
        };
        let column_family = self.column_family(self.store(store)?);
        let [keys, on_disk, in_memory] = [
            properties::ESTIMATE_NUM_KEYS,
            properties::TOTAL_SST_FILES_SIZE,
            properties::CUR_SIZE_ALL_MEM_TABLES,
        ]
        .map(|property| {
            self.database
                .property_int_value_cf(column_family, property)
                .map(|value| value.expect("RocksDB knows the properties that it documents"))
                .map_err(self.rocks("read a property"))
        });
        Ok(StoreStats {
            keys: keys? + keys_buffered,
            bytes: on_disk? + in_memory? + bytes_buffered,
        })
    }
}

/// Writes go to memory only, until a flush; and they come in order.
fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_memtable_insert_hint_per_batch(true);
    options
}

fn open_database(
    path: &Path,
    stores: &[Store],
    options: &RocksOptions,
) -> Result<DB, rocksdb::Error> {
    let options = options.to_rocksdb()?;
    let names = stores.iter().map(|store| store.column_family.as_str());
    let column_families = names
        .chain([POSITION])
        .map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    DB::open_cf_descriptors(&options, path, column_families)
}

/// The smallest key after `key`.
fn next_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Sorted, because a store is found by its name: the order may change freely.
fn sorted_names(stores: &[StoreSpec]) -> Result<Vec<&str>, StateError> {
    let invalid = |name: &str, rule| StateError::InvalidName {
        what: "store name",
        name: name.to_owned(),
        rule,
    };
    let mut names: Vec<&str> = stores.iter().map(|spec| spec.name.as_str()).collect();
    names.sort_unstable();
    for name in &names {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || !name.bytes().all(allowed) {
            return Err(invalid(name, "lower-case letters, digits and hyphens"));
        }
    }
    for (name, next) in names.iter().zip(names.iter().skip(1)) {
        if name == next {
            return Err(invalid(name, "unique among the stores of its task"));
        }
    }
    Ok(names)
}

fn remove_if_there(directory: &Path) -> Result<(), StateError> {
    match fs::remove_dir_all(directory) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateError::io(directory)(error)),
    }
}
