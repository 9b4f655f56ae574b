//! Committed state on disk: one RocksDB database a task.
//!
//! ```text
//! 2_3/       the directory of one task
//!   FORMAT   the marker: format version, names of the stores
//!   db/      RocksDB: the rows of all stores, and the changelog offset
//! ```
//!
//! A batch goes to a [`Buffer`] in memory. When the buffers of all databases are full, those
//! that hold most are drained: as one batch to RocksDB, which is to flush it at once.
//!
//! There is no write-ahead log: the changelogs are one. All stores lie in one key space with
//! their changelog offset; a drain is one write to it, and a flush makes what was written up
//! to some drain one file. So after a crash the stores and their offset equal some batch that
//! was written, perhaps not the last one, and the offset says which.
//!
//! Closing does not flush. Whoever stops in good order calls [`Backend::flush`]
//! first; whoever abandons a task just drops it.
//!
//! A directory that is not a task of ours is refused, never wiped or overwritten.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use rocksdb::{DB, FlushOptions, ReadOptions, WriteBatch, WriteOptions};

use self::buffer::{Buffer, Scan};
use self::memory::BufferAccount;
use self::rows::{CHANGELOG_OFFSET, RowBounds, RowPrefix, Rows};
use crate::marker::{self, Marker};
use crate::merge::{Entries, Merge};
use crate::{
    Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId, StoreSpec, StoreStats,
};

mod buffer;
mod memory;
mod options;
mod rows;
mod sizes;

pub use memory::RocksMemory;
pub use options::RocksOptions;

/// Of version 1 each store had a column family of its own.
const MARKER: Marker = Marker {
    kind: "turnstile-task",
    version: 2,
};

const DATABASE: &str = "db";

/// A database on its way out. Renaming is one step, deleting many files is not.
const DISCARDED_DATABASE: &str = "db.discarded";

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
    prefix: RowPrefix,
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
    /// unique; [`StateError::ForeignFormat`], [`StateError::NewerFormat`],
    /// [`StateError::OlderFormat`];
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
            Some(found) if found.version < MARKER.version => {
                return Err(StateError::OlderFormat {
                    path: path.to_owned(),
                    found: found.version,
                    expected: MARKER.version,
                });
            }
            Some(found) if found.labels == names => {}
            Some(found) => {
                return Err(StateError::DifferentStores {
                    path: path.to_owned(),
                    expected: names.into_iter().map(str::to_owned).collect(),
                    found: found.labels,
                });
            }
        }
        remove_if_there(&path.join(DISCARDED_DATABASE))?;
        let stores: Vec<Store> = stores
            .iter()
            .map(|spec| Store {
                prefix: prefix_of(spec, &names),
                has_rows: AtomicBool::new(true),
            })
            .collect();
        let database = options
            .to_rocksdb()
            .and_then(|options| DB::open(&options, path.join(DATABASE)))
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
                .rows(store.prefix.all(), ScanDirection::Forward)
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
        // 3. The files, while the marker makes them ours.
        marker::remove_content(path)?;
        // 4. The marker, alone with the directory.
        remove_if_there(path)
    }

    fn store(&self, store: StoreId) -> Result<&Store, StateError> {
        let found = self.stores.get(store.index());
        found.ok_or(StateError::UnknownStore(store))
    }

    fn rows(&self, bounds: RowBounds, direction: ScanDirection) -> Rows<'_> {
        Rows::between(&self.database, bounds, direction, ReadOptions::default())
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
        if let Some(next_offset) = buffer.changelog_offset() {
            writes.put(CHANGELOG_OFFSET, next_offset.to_be_bytes());
        }
        // In the order of their keys, which puts them in place fastest.
        let mut by_prefix: Vec<_> = self.stores.iter().zip(buffer.stores()).collect();
        by_prefix.sort_unstable_by_key(|(store, _)| store.prefix);
        for (store, of_store) in by_prefix {
            if !of_store.is_empty() {
                store.has_rows.store(true, Ordering::Relaxed);
            }
            for write in of_store.iter() {
                let row = store.prefix.row(write.key());
                match write.value() {
                    Some(value) => writes.put(row, value),
                    None => writes.delete(row),
                }
            }
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
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.database
            .flush_opt(&options)
            .map_err(self.rocks("flush"))
    }
}

impl Backend for RocksBackend {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(write) = self.buffer.read().store(store)?.get(key) {
            return Ok(write.value().map(<[u8]>::to_vec));
        }
        let store = self.store(store)?;
        // The buffer's lock orders this after the drain that took the row out of it.
        if !store.has_rows.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.database
            .get_opt(store.prefix.row(key), &self.lookup.0)
            .map_err(self.rocks("read a key"))
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let prefix = self.store(store)?.prefix;
        let Some(bounds) = prefix.rows(range) else {
            return Ok(Box::new(std::iter::empty()));
        };
        // Nothing is written between the two, so both are as of one point in time.
        let (writes, entries) = {
            let buffer = self.buffer.read();
            let entries = self.rows(bounds, direction);
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
            .get(CHANGELOG_OFFSET)
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

    fn begin_flush(&self) -> Result<(), StateError> {
        self.drain()?;
        self.flush_memory(false)
    }

    fn set_bulk_load(&self, in_bulk: bool) -> Result<(), StateError> {
        let others = self.account.set_in_bulk(in_bulk);
        if others && !in_bulk {
            // What is loaded makes room for what is still being loaded.
            self.begin_flush()?;
        }
        let unmerged = if in_bulk {
            options::UNMERGED_FILES_IN_BULK
        } else {
            options::UNMERGED_FILES
        };
        self.database
            .set_options(&[(options::UNMERGED_FILES_OPTION, &unmerged.to_string())])
            .map_err(self.rocks("set how many files are merged"))
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        let prefixes: Vec<RowPrefix> = self.stores.iter().map(|store| store.prefix).collect();
        let in_database = sizes::of_stores(&self.database, &prefixes);
        let mut stats = in_database.map_err(self.rocks("tell the sizes of stores"))?;
        let buffer = self.buffer.read();
        for (stats, writes) in stats.iter_mut().zip(buffer.stores()) {
            stats.keys += writes.len() as u64;
            stats.bytes += writes.bytes() as u64;
        }
        Ok(stats)
    }
}

/// Writes go to memory only, until a flush; and they come in order.
fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options.set_memtable_insert_hint_per_batch(true);
    options
}

/// A store is found by its name: the order in which they are declared may change.
fn prefix_of(store: &StoreSpec, sorted_names: &[&str]) -> RowPrefix {
    let before = sorted_names
        .iter()
        .take_while(|name| **name < store.name.as_str());
    RowPrefix::at(u16::try_from(before.count()).expect("stores are counted in 16 bits"))
}

/// The names of the stores, sorted.
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
