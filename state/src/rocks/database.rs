//! A database, and the layers over it: the rows that are not in its files yet.
//!
//! ```text
//! fresh      batches are added here
//! draining   what was fresh, and is being written to a file
//! RocksDB    files
//! ```
//!
//! Readers look from the top down. A drain writes a sorted file, which RocksDB ingests as a
//! whole: nothing is copied into a memtable, from which RocksDB would make that file. The
//! database is never written to in any other way.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rocksdb::{
    DB, ErrorKind, IngestExternalFileOptions, Options, ReadOptions, SstFileWriter,
    WaitForCompactOptions, properties,
};

use super::RocksOptions;
use super::buffer::{Buffer, Scan};
use super::memory::BufferAccount;
use super::options;
use super::rows::{CHANGELOG_OFFSET, RowBounds, RowPrefix, Rows};
use super::sizes;
use crate::merge::{Entries, Merge};
use crate::write::Write;
use crate::{Batch, KeyRange, ScanDirection, StateError, StoreId, StoreStats};

/// A file about to be ingested, in the directory of the database: RocksDB ignores such a name,
/// and the directory of the task keeps its age.
const DRAINED_FILE: &str = "drained.sst";

/// The time between two checks whether files were merged.
const MERGE_STEP_MICROS: u64 = 10_000;

/// A database and what lies over it.
pub(super) struct Database {
    rocks: DB,
    layers: RwLock<Layers>,
    account: BufferAccount,
    /// At so many fresh bytes they are drained, whatever other databases hold.
    buffer_bytes_max: usize,
    /// The directory of the task.
    path: PathBuf,
    stores: Vec<Store>,
    /// Options of lookups of single keys: made once, because they are all alike.
    lookup: ReadOptions,
    /// Options of the files that are drained.
    files: Options,
    /// Whether more files than usual may pile up before they are merged.
    merges_late: Mutex<bool>,
}

/// The rows that are not in the files of a database.
struct Layers {
    fresh: Buffer,
    draining: Option<Arc<Buffer>>,
}

/// What was set apart to be drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetApart {
    /// There is nothing to drain.
    Nothing,
    /// All that was fresh.
    Fresh,
    /// What could not be drained before; what is fresh stays.
    Again,
}

/// A store in RocksDB.
struct Store {
    prefix: RowPrefix,
    /// Whether RocksDB ever had a row of it. If not, lookups can be skipped: the stores for what
    /// goes wrong are empty most of the time.
    has_rows: AtomicBool,
}

impl Layers {
    fn top_down(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.fresh).chain(self.draining.as_deref())
    }

    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<&Write>, StateError> {
        for buffer in self.top_down() {
            if let Some(write) = buffer.store(store)?.get(key) {
                return Ok(Some(write));
            }
        }
        Ok(None)
    }
}

impl Database {
    /// Takes over an open database with the stores of these prefixes, and removes what a crash
    /// left of a file about to be ingested.
    pub(super) fn new(
        rocks: DB,
        path: &Path,
        prefixes: impl Iterator<Item = RowPrefix>,
        options: &RocksOptions,
    ) -> Result<Self, StateError> {
        let store = |prefix| Store {
            prefix,
            has_rows: AtomicBool::new(true),
        };
        let stores: Vec<Store> = prefixes.map(store).collect();
        let database = Self {
            rocks,
            layers: RwLock::new(Layers {
                fresh: Buffer::new(stores.len()),
                draining: None,
            }),
            account: options.memory.account(),
            buffer_bytes_max: options.buffer_bytes_max,
            path: path.to_owned(),
            stores,
            lookup: ReadOptions::default(),
            files: options.of_drained_files(),
            merges_late: Mutex::new(false),
        };
        // The lock of the database is held: nobody else is writing it.
        super::remove_file_if_there(&database.drained_file())?;
        for store in &database.stores {
            let first = database
                .rows(store.prefix.all(), ScanDirection::Forward)
                .next()
                .transpose();
            let first = first.map_err(database.failed_to("look for rows"))?;
            store.has_rows.store(first.is_some(), Ordering::Relaxed);
        }
        Ok(database)
    }

    fn store(&self, store: StoreId) -> Result<&Store, StateError> {
        let found = self.stores.get(store.index());
        found.ok_or(StateError::UnknownStore(store))
    }

    fn rows(&self, bounds: RowBounds, direction: ScanDirection) -> Rows<'_> {
        Rows::between(&self.rocks, bounds, direction, ReadOptions::default())
    }

    fn drained_file(&self) -> PathBuf {
        self.path.join(super::DATABASE).join(DRAINED_FILE)
    }

    fn failed_to(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> StateError {
        move |error| StateError::rocks(&self.path, action)(error)
    }

    /// The layers, with everything in place.
    fn layers(&self) -> RwLockReadGuard<'_, Layers> {
        let layers = self.layers.read();
        if layers.fresh.is_settled() {
            return layers;
        }
        drop(layers);
        let mut layers = self.layers.write();
        layers.fresh.settle();
        RwLockWriteGuard::downgrade(layers)
    }

    pub(super) fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(write) = self.layers().get(store, key)? {
            return Ok(write.value().map(<[u8]>::to_vec));
        }
        let store = self.store(store)?;
        // The lock orders this after the drain that took the row out of the layers.
        if !store.has_rows.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.rocks
            .get_opt(store.prefix.row(key), &self.lookup)
            .map_err(self.failed_to("read a key"))
    }

    pub(super) fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Entries<'a>, StateError> {
        let prefix = self.store(store)?.prefix;
        let Some(bounds) = prefix.rows(range) else {
            return Ok(Box::new(std::iter::empty()));
        };
        // The layers are locked, so all are as of one point in time: what RocksDB ingests
        // meanwhile is still in them.
        let (over, rows) = {
            let layers = self.layers();
            let rows = self.rows(bounds, direction);
            let over: Result<Vec<_>, StateError> = layers
                .top_down()
                .map(|buffer| buffer.store(store).cloned())
                .collect();
            (over?, rows)
        };
        let rows = rows.map(|entry| entry.map_err(self.failed_to("scan a store")));
        let mut entries: Entries<'a> = Box::new(rows);
        for writes in over.into_iter().rev().filter(|writes| !writes.is_empty()) {
            let writes = Scan::new(writes, range, direction);
            entries = Box::new(Merge::new(entries, writes, direction));
        }
        Ok(entries)
    }

    /// Adds a batch; returns whether so much is fresh now that it has to be drained.
    pub(super) fn add(&self, batch: Batch) -> Result<bool, StateError> {
        let in_bulk = self.account.is_in_bulk();
        let mut layers = self.layers.write();
        layers.fresh.add(batch, in_bulk)?;
        let bytes = layers.fresh.bytes();
        Ok(self.account.holds(bytes) || bytes >= self.buffer_bytes_max)
    }

    /// The directory of the task.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn account(&self) -> &BufferAccount {
        &self.account
    }

    /// Sets apart what is fresh to be drained, unless something still is.
    pub(super) fn set_apart(&self) -> SetApart {
        let mut layers = self.layers.write();
        if layers.draining.is_some() {
            return SetApart::Again;
        }
        if layers.fresh.is_empty() {
            return SetApart::Nothing;
        }
        layers.fresh.settle();
        let buffer = layers.fresh.take();
        self.account.sets_apart(buffer.bytes());
        layers.draining = Some(Arc::new(buffer));
        SetApart::Fresh
    }

    /// Gives RocksDB what was set apart, as one file on disk. On an error it stays set apart and may
    /// be given again: the file that RocksDB ingests last lies over those before.
    pub(super) fn drain(&self) -> Result<(), StateError> {
        let Some(buffer) = self.layers.read().draining.clone() else {
            return Ok(());
        };
        let file = self.drained_file();
        let taken_in = self.take_in(&file, &buffer);
        if taken_in.is_err() {
            // A full disk needs the space.
            super::remove_file_if_there(&file).ok();
            return taken_in;
        }
        // Until now readers found the rows here, from now on in RocksDB.
        let drained = self.layers.write().draining.take();
        drop((drained, buffer));
        self.account.has_drained();
        Ok(())
    }

    fn take_in(&self, file: &Path, buffer: &Buffer) -> Result<(), StateError> {
        // It may be another link to a file that was ingested: the content must stay.
        super::remove_file_if_there(file)?;
        self.write_file(file, buffer)?;
        keep_at_hand(file)?;
        self.merge_late_in_bulk()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Nobody makes snapshots; scans keep the files that existed when they began.
        options.set_snapshot_consistency(false);
        self.rocks
            .ingest_external_file_opts(&options, vec![file])
            .map_err(self.failed_to("take a file in"))
    }

    /// Waits while compaction is so far behind that RocksDB would stop its writers. It does not
    /// stop those who ingest files.
    pub(super) fn wait_for_merges(&self) -> Result<(), StateError> {
        let mut step = WaitForCompactOptions::default();
        step.set_timeout(MERGE_STEP_MICROS);
        loop {
            let stopped = self
                .rocks
                .property_int_value(properties::IS_WRITE_STOPPED)
                .map_err(self.failed_to("tell whether it can be written to"))?;
            if stopped == Some(0) {
                return Ok(());
            }
            match self.rocks.wait_for_compact(&step) {
                Err(error) if error.kind() != ErrorKind::TimedOut => {
                    return Err(self.failed_to("merge files")(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn write_file(&self, path: &Path, buffer: &Buffer) -> Result<(), StateError> {
        let failed = self.failed_to("write a file");
        let mut file = SstFileWriter::create(&self.files);
        file.open(path).map_err(&failed)?;
        if let Some(next_offset) = buffer.changelog_offset() {
            let row = file.put(CHANGELOG_OFFSET, next_offset.to_be_bytes());
            row.map_err(&failed)?;
        }
        let mut by_prefix: Vec<_> = self.stores.iter().zip(buffer.stores()).collect();
        by_prefix.sort_unstable_by_key(|(store, _)| store.prefix);
        for (store, writes) in by_prefix {
            if !writes.is_empty() {
                store.has_rows.store(true, Ordering::Relaxed);
            }
            for write in writes.iter() {
                let row = store.prefix.row(write.key());
                let added = match write.value() {
                    Some(value) => file.put(row, value),
                    None => file.delete(row),
                };
                added.map_err(&failed)?;
            }
        }
        file.finish().map_err(failed)
    }

    pub(super) fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        let over = {
            let layers = self.layers.read();
            layers.top_down().find_map(Buffer::changelog_offset)
        };
        if over.is_some() {
            return Ok(over);
        }
        let found = self
            .rocks
            .get(CHANGELOG_OFFSET)
            .map_err(self.failed_to("read the changelog offset"))?;
        found
            .map(|found| super::offset_of(&self.path, &found))
            .transpose()
    }

    /// During bulk loads, lets more files than usual pile up, once the next one would have them
    /// merged. Not earlier: RocksDB then writes all its options to a new file, and most loads make
    /// fewer files.
    fn merge_late_in_bulk(&self) -> Result<(), StateError> {
        let merges_late = &mut *self.merges_late.lock();
        if *merges_late || !self.account.is_loaded() {
            return Ok(());
        }
        if self.sorted_runs()? + 1 >= u64::from(options::UNMERGED_FILES) {
            self.set_unmerged_files(options::UNMERGED_FILES_IN_BULK)?;
            *merges_late = true;
        }
        Ok(())
    }

    /// How many files a lookup may have to search: those of a sorted level count as one.
    fn sorted_runs(&self) -> Result<u64, StateError> {
        let mut runs = 0;
        for level in 0..options::LEVELS {
            let files = self
                .rocks
                .property_int_value(properties::num_files_at_level(level))
                .map_err(self.failed_to("count its files"))?;
            let files = files.unwrap_or(0);
            runs += if level == 0 { files } else { files.min(1) };
        }
        Ok(runs)
    }

    /// Has files merged as soon as usual again.
    pub(super) fn merge_as_usual(&self) -> Result<(), StateError> {
        let merges_late = &mut *self.merges_late.lock();
        if std::mem::take(merges_late) {
            self.set_unmerged_files(options::UNMERGED_FILES)?;
        }
        Ok(())
    }

    /// Puts what was loaded in bulk in place, for readers.
    pub(super) fn settle(&self) {
        drop(self.layers());
    }

    fn set_unmerged_files(&self, files: u32) -> Result<(), StateError> {
        self.rocks
            .set_options(&[(options::UNMERGED_FILES_OPTION, &files.to_string())])
            .map_err(self.failed_to("set an option"))
    }

    pub(super) fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        let prefixes: Vec<RowPrefix> = self.stores.iter().map(|store| store.prefix).collect();
        let on_disk = sizes::of_stores(&self.rocks, &prefixes);
        let mut stats = on_disk.map_err(self.failed_to("tell the sizes of stores"))?;
        let layers = self.layers();
        for buffer in layers.top_down() {
            for (stats, writes) in stats.iter_mut().zip(buffer.stores()) {
                stats.keys += writes.len() as u64;
                stats.bytes += writes.bytes() as u64;
            }
        }
        Ok(stats)
    }
}

/// Reads a file, so that it is in the page cache: RocksDB has told the system to drop what was
/// written, and lookups of fresh rows would wait for the disk.
fn keep_at_hand(path: &Path) -> Result<(), StateError> {
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
    read.map(drop).map_err(StateError::io(path))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rocksdb::WaitForCompactOptions;

    use crate::rocks::options;
    use crate::{Backend, Batch, RocksBackend, RocksMemory, RocksOptions, StoreId, StoreSpec};

    /// Options with which each write becomes a file.
    fn options() -> RocksOptions {
        let mut options = RocksOptions::new(RocksMemory::new(8 << 20, 8 << 20));
        options.buffer_bytes_max = 1;
        options
    }

    fn backend(directory: &std::path::Path, options: &RocksOptions) -> RocksBackend {
        let specs = [StoreSpec {
            name: "a".to_owned(),
        }];
        RocksBackend::open(directory, &specs, options).unwrap()
    }

    /// Writes a row that all files have, so that each file lies over those before.
    fn write(backend: &RocksBackend) {
        let mut batch = Batch::new();
        batch.put(StoreId(0), *b"k", *b"v");
        backend.write(batch).unwrap();
        backend.flush().unwrap();
    }

    fn unmerged(backend: &RocksBackend) -> u64 {
        backend.database.sorted_runs().unwrap()
    }

    #[test]
    fn who_writes_waits_until_files_are_merged() {
        const FILES: u64 = 10;
        let directory = tempfile::tempdir().unwrap();
        let backend = backend(directory.path(), &options());
        let rocks = &backend.database.rocks;
        let merge_from = |files: &str| {
            let options = [
                options::UNMERGED_FILES_OPTION,
                "level0_slowdown_writes_trigger",
                "level0_stop_writes_trigger",
            ];
            rocks.set_options(&options.map(|option| (option, files)))
        };
        merge_from("1000").unwrap();
        for _ in 0..FILES {
            write(&backend);
        }
        assert_eq!(unmerged(&backend), FILES);
        merge_from("4").unwrap();
        write(&backend);
        let left = unmerged(&backend);
        assert!(left < 4, "{left}");
    }

    #[test]
    fn files_pile_up_until_all_rows_are_loaded_in_bulk() {
        const FILES: u64 = 10;
        let directory = tempfile::tempdir().unwrap();
        let options = options();
        let open = |name: &str| backend(&directory.path().join(name), &options);
        let (first, second) = (open("first"), open("second"));
        for backend in [&first, &second] {
            backend.set_bulk_load(true).unwrap();
            for _ in 0..FILES {
                write(backend);
            }
        }
        let merged = |backend: &RocksBackend| {
            let wait = WaitForCompactOptions::default();
            backend.database.rocks.wait_for_compact(&wait).unwrap();
            unmerged(backend)
        };
        first.set_bulk_load(false).unwrap();
        write(&first);
        assert_eq!(merged(&first), FILES + 1, "the other is not loaded yet");
        second.set_bulk_load(false).unwrap();
        for backend in [&first, &second] {
            write(backend);
            let left = merged(backend);
            assert!(left < u64::from(options::UNMERGED_FILES), "{left}");
        }
    }

    #[test]
    fn files_are_merged_where_a_bulk_load_is_broken_off() {
        const FILES: u64 = 10;
        let directory = tempfile::tempdir().unwrap();
        let options = options();
        let open = |name: &str| backend(&directory.path().join(name), &options);
        let (first, second) = (open("first"), open("second"));
        first.set_bulk_load(true).unwrap();
        second.set_bulk_load(true).unwrap();
        for _ in 0..FILES {
            write(&first);
        }
        first.set_bulk_load(false).unwrap();
        drop(second);
        write(&first);
        let wait = WaitForCompactOptions::default();
        first.database.rocks.wait_for_compact(&wait).unwrap();
        assert!(unmerged(&first) < u64::from(options::UNMERGED_FILES));
    }
}
