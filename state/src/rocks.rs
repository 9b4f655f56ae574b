//! Committed state on disk: one RocksDB database a task.
//!
//! ```text
//! 2_3/             the directory of one task
//!   FORMAT         the marker: format version, names of the stores
//!   db/            RocksDB: the rows of all stores, and the changelog offset
//!     drained.sst  a file about to be ingested into it
//! ```
//!
//! A batch goes to a buffer in memory. When the buffers of all databases are full, the ones
//! that hold most are drained: each is written to a file, which RocksDB ingests. Threads that
//! the databases share do this ([`flusher`]); writers that fill buffers faster wait.
//!
//! There is no write-ahead log: the changelogs serve as one. All stores share one key space
//! with their changelog offset, and a file holds everything that was written up to some batch.
//! So after a crash the stores and their offset equal some batch that was written, perhaps not
//! the last one, and the offset says which.
//!
//! Closing does not flush. For an orderly stop, call [`Backend::flush`] first; to abandon a
//! task, just drop it.
//!
//! A directory that is not a task of ours is refused, never wiped or overwritten.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rocksdb::{DB, Options};

use self::database::{Database, SetApart};
use self::flusher::{Drains, Flusher};
use self::rows::{CHANGELOG_OFFSET, RowPrefix};
use crate::marker::{self, Marker};
use crate::{
    Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId, StoreSpec, StoreStats,
};

mod buffer;
mod database;
mod flusher;
mod memory;
mod options;
mod rows;
mod sizes;

pub use memory::RocksMemory;
pub use options::RocksOptions;

/// In version 1 each store had its own column family.
const MARKER: Marker = Marker {
    kind: "turnstile-task",
    version: 2,
};

const DATABASE: &str = "db";

/// A database that is being deleted. Renaming is one step, deleting many files is not.
const DISCARDED_DATABASE: &str = "db.discarded";

/// A [`Backend`] on disk.
///
/// Reads may come from any thread.
#[derive(Debug)]
pub struct RocksBackend {
    database: Arc<Database>,
    drains: Arc<Drains>,
    flusher: Flusher,
    memory: RocksMemory,
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
    /// [`StateError::Corrupted`]; [`StateError::RocksDb`], also when it is already
    /// open; [`StateError::Io`].
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
        let rocks = options
            .to_rocksdb()
            .and_then(|options| DB::open(&options, path.join(DATABASE)))
            .map_err(|error| cannot_open(path, error))?;
        let prefixes = stores.iter().map(|spec| prefix_of(spec, &names));
        Ok(Self {
            database: Arc::new(Database::new(rocks, path, prefixes, options)?),
            drains: Arc::default(),
            flusher: options.flusher.clone(),
            memory: options.memory.clone(),
        })
    }

    /// The changelog offset that the task in the directory `path` has reached, or `None` if it
    /// holds nothing. The task must not be open.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn reached(path: &Path) -> Result<Option<i64>, StateError> {
        let database = path.join(DATABASE);
        if MARKER.read(path)?.is_none() || !database.exists() {
            return Ok(None);
        }
        let rocks = DB::open_for_read_only(&Options::default(), database, false)
            .map_err(|error| cannot_open(path, error))?;
        let found = rocks
            .get(CHANGELOG_OFFSET)
            .map_err(StateError::rocks(path, "read the changelog offset"))?;
        found.map(|found| offset_of(path, &found)).transpose()
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
        unless_missing(&database, fs::rename(&database, &discarded))?;
        // 3. The files, while the marker makes them ours.
        marker::remove_content(path)?;
        // 4. The marker, alone with the directory.
        remove_if_there(path)
    }

    fn begin_drain(&self) -> Result<SetApart, StateError> {
        self.flusher.begin(&self.database, &self.drains)
    }
}

impl Drop for RocksBackend {
    /// Afterwards the database is closed, and can be opened anew.
    fn drop(&mut self) {
        // What was not drained is in the changelog: ignoring an error loses nothing.
        self.drains.wait().ok();
        self.database.account().leave();
    }
}

impl Backend for RocksBackend {
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.database.get(store, key)
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        self.database.scan(store, range, direction)
    }

    fn write(&self, batch: Batch) -> Result<(), StateError> {
        if self.database.add(batch)? {
            // A writer that is faster than files can be merged or written waits, so that the number
            // of files and their memory stay bounded.
            self.database.wait_for_merges()?;
            self.begin_drain()?;
            if self.memory.drains_too_much() {
                self.drains.wait()?;
            }
        }
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        self.database.changelog_offset()
    }

    fn flush(&self) -> Result<(), StateError> {
        // What failed before is retried.
        self.drains.wait().ok();
        loop {
            let set_apart = self.begin_drain()?;
            self.drains.wait()?;
            // Others may write meanwhile: only what was there before counts.
            if set_apart != SetApart::Again {
                return Ok(());
            }
        }
    }

    fn begin_flush(&self) -> Result<(), StateError> {
        if !self.drains.go_on() {
            self.begin_drain()?;
        }
        Ok(())
    }

    fn set_bulk_load(&self, in_bulk: bool) -> Result<(), StateError> {
        let account = self.database.account();
        if in_bulk {
            account.begin_bulk_load(Arc::downgrade(&self.database));
            return Ok(());
        }
        self.database.settle();
        if account.end_bulk_load() {
            // What was loaded makes room for what is still being loaded.
            self.begin_flush()?;
        }
        Ok(())
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        self.database.stats()
    }
}

/// Why a database cannot be opened. If one of its files is missing, which RocksDB reports like
/// any file system error, the database is at fault.
fn cannot_open(path: &Path, error: rocksdb::Error) -> StateError {
    let misses_a_file = error.kind() == rocksdb::ErrorKind::IOError
        && error.as_ref().contains("No such file or directory");
    if misses_a_file {
        return StateError::Corrupted {
            path: path.to_owned(),
            what: "one of its files is missing".to_owned(),
            source: Some(error),
        };
    }
    StateError::rocks(path, "open the database")(error)
}

/// What is under [`CHANGELOG_OFFSET`] in the database of the task in `path`.
fn offset_of(path: &Path, found: &[u8]) -> Result<i64, StateError> {
    match <[u8; 8]>::try_from(found) {
        Ok(bytes) => Ok(i64::from_be_bytes(bytes)),
        Err(_) => Err(StateError::Corrupted {
            path: path.to_owned(),
            what: format!("the changelog offset has {} bytes", found.len()),
            source: None,
        }),
    }
}

/// A store is identified by its name: the order of declaration may change.
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
    unless_missing(directory, fs::remove_dir_all(directory))
}

fn remove_file_if_there(file: &Path) -> Result<(), StateError> {
    unless_missing(file, fs::remove_file(file))
}

fn unless_missing(path: &Path, done: io::Result<()>) -> Result<(), StateError> {
    match done {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(StateError::io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
