//! The directory of one process in which its tasks keep their state.
//!
//! ```text
//! STATE_DIR/
//!   .lock     held for as long as the process lives; holds its process id
//!   FORMAT    the marker: format version, application id
//!   2_3/      one directory a task
//! ```
//!
//! Two processes on one directory would each see the other's half of a store, so
//! a directory has one holder at a time. The lock is the operating system's: it
//! ends with the process however that ends, and never has to be removed by hand.
//! A directory is bound to one application when it is first used, because task
//! names are only unique within one.
//!
//! What a task directory holds is the business of [`RocksBackend`](crate::RocksBackend).

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::marker::Marker;
use crate::{DiskSpace, RocksBackend, StateError};

const MARKER: Marker = Marker {
    kind: "turnstile-state",
    version: 1,
};

const LOCK_FILE: &str = ".lock";

/// The name of a task's directory: subtopology and partition, as in `2_3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskDirName {
    subtopology: u32,
    partition: u32,
}

impl TaskDirName {
    /// The directory of the task of `subtopology` that owns `partition`.
    #[must_use]
    pub fn new(subtopology: u32, partition: u32) -> Self {
        Self {
            subtopology,
            partition,
        }
    }

    /// The number of the subtopology.
    #[must_use]
    pub fn subtopology(self) -> u32 {
        self.subtopology
    }

    /// The partition.
    #[must_use]
    pub fn partition(self) -> u32 {
        self.partition
    }
}

impl fmt::Display for TaskDirName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.subtopology, self.partition)
    }
}

impl FromStr for TaskDirName {
    type Err = StateError;

    fn from_str(name: &str) -> Result<Self, StateError> {
        name.split_once('_')
            .and_then(|(subtopology, partition)| {
                Some(Self::new(
                    subtopology.parse().ok()?,
                    partition.parse().ok()?,
                ))
            })
            // One task has one name: `02_3` and `+2_3` would be others.
            .filter(|parsed| parsed.to_string() == name)
            .ok_or_else(|| StateError::InvalidName {
                what: "task directory",
                name: name.to_owned(),
                rule: "a subtopology and a partition, as in 2_3",
            })
    }
}

/// A state directory that this process holds until it drops this value.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The lock is released when the file is closed.
    _lock: File,
}

impl StateDir {
    /// Takes the directory at `path`, creating it if needed, for `application_id`.
    ///
    /// # Errors
    ///
    /// [`StateError::Locked`] while another holder has it;
    /// [`StateError::ForeignFormat`], [`StateError::NewerFormat`] and
    /// [`StateError::OtherApplication`] when it is not this application's to use;
    /// [`StateError::InvalidName`] for an application id that is empty or has
    /// control characters; [`StateError::Io`].
    pub fn lock(path: impl AsRef<Path>, application_id: &str) -> Result<Self, StateError> {
        let path = path.as_ref();
        if application_id.is_empty() || application_id.contains(char::is_control) {
            return Err(StateError::InvalidName {
                what: "application id",
                name: application_id.to_owned(),
                rule: "at least one character, and no control characters",
            });
        }
        // Asked before anything is created, so that a mistyped path stays as it was.
        MARKER.read(path)?;
        fs::create_dir_all(path).map_err(StateError::io(path))?;
        let lock = take_lock(path)?;
        // Asked again: the holder before us may have written the marker meanwhile.
        let found = MARKER.read(path)?;
        match found.as_ref().map(|found| found.labels.as_slice()) {
            None => MARKER.write(path, &[application_id])?,
            Some([found]) if found == application_id => {}
            Some(labels) => {
                return Err(StateError::OtherApplication {
                    path: path.to_owned(),
                    expected: application_id.to_owned(),
                    found: labels.join("\n"),
                });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much space there is on its file system.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn disk_space(&self) -> Result<DiskSpace, StateError> {
        DiskSpace::of(&self.path)
    }

    /// Where the task `name` keeps its state, whether or not it exists yet.
    #[must_use]
    pub fn task_path(&self, name: &TaskDirName) -> PathBuf {
        self.path.join(name.to_string())
    }

    /// The tasks that have a directory, in order.
    ///
    /// # Errors
    ///
    /// [`StateError::Io`].
    pub fn task_dirs(&self) -> Result<Vec<TaskDirName>, StateError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(StateError::io(&self.path))? {
            let entry = entry.map_err(StateError::io(&self.path))?;
            let is_directory = entry
                .file_type()
                .map_err(StateError::io(&entry.path()))?
                .is_dir();
            let name = entry.file_name();
            if let Some(Ok(name)) = name.to_str().map(TaskDirName::from_str)
                && is_directory
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Deletes the state of the task `name`, which must not be open; a task without
    /// state is no error.
    ///
    /// # Errors
    ///
    /// As [`RocksBackend::destroy`].
    pub fn remove_task(&self, name: &TaskDirName) -> Result<(), StateError> {
        RocksBackend::destroy(&self.task_path(name))
    }
}

/// Locks `.lock` in `directory` and writes our process id into it.
fn take_lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK_FILE);
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(StateError::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder's id is only for the message: the lock is held either way.
            let holder = file
                .read_to_string(&mut holder)
                .ok()
                .and_then(|_| holder.trim().parse().ok());
            return Err(StateError::Locked {
                path: directory.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(StateError::io(&path)(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(StateError::io(&path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_names_have_one_spelling() {
        let name: TaskDirName = "2_13".parse().unwrap();
        assert_eq!(name, TaskDirName::new(2, 13));
        assert_eq!(name.to_string(), "2_13");
        for wrong in [
            "",
            "2",
            "2_",
            "_3",
            "02_3",
            "+2_3",
            "2_-3",
            "2_3_4",
            "../x",
            "2_3 ",
            "2_4294967296",
        ] {
            let error = wrong.parse::<TaskDirName>().unwrap_err();
            assert!(
                matches!(error, StateError::InvalidName { .. }),
                "{wrong:?}: {error}"
            );
        }
    }

    #[test]
    fn task_names_sort_by_number() {
        assert!(TaskDirName::new(2, 9) < TaskDirName::new(2, 10));
        assert!(TaskDirName::new(2, 10) < TaskDirName::new(10, 0));
    }
}
