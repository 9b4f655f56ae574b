//! What can go wrong with state, and what to do about it.
//!
//! The texts are for the person who operates the process: each says what was
//! found where, and the remedy. Programs ask [`StateError::is_mended_by_wiping`],
//! which separates a task that restores itself from its changelogs from a fault
//! that only a person can mend.

use std::io;
use std::path::{Path, PathBuf};

use rocksdb::ErrorKind;
use thiserror::Error;

use crate::{CodecError, StoreId};

/// A failed operation on state.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file system operation failed.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A database operation failed, for a reason other than the content of the database.
    #[error("the database failed to {action}")]
    RocksDb {
        /// What it was asked to do.
        action: &'static str,
        /// Why.
        source: rocksdb::Error,
    },
    /// The caller named a store that the backend was not opened with.
    #[error("there is no store at position {} of this task", .0.0)]
    UnknownStore(StoreId),
    /// A name that cannot be used.
    #[error("{name:?} is not a usable {what}: {rule}")]
    InvalidName {
        /// What the name is for.
        what: &'static str,
        /// The name.
        name: String,
        /// What such a name looks like.
        rule: &'static str,
    },
    /// Another process, or another part of this one, holds the state directory.
    #[error(
        "{} is locked by {}: two processes cannot share a state directory: give each one of its own",
        path.display(),
        holder_text(*holder)
    )]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// The process that holds it, if it could be read.
        holder: Option<u32>,
    },
    /// A directory that holds something, but not our state.
    #[error(
        "{} is not ours ({found}): use an empty or new directory, or remove what is in it",
        path.display()
    )]
    ForeignFormat {
        /// The directory.
        path: PathBuf,
        /// What was found instead of our format marker.
        found: String,
    },
    /// State that a newer version of this program wrote.
    #[error(
        "{} has format {found}, this version reads up to {supported}: run the newer version, or remove the directory and restore from the changelogs",
        path.display()
    )]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that can be read.
        supported: u32,
    },
    /// Stores of a task that an older version of this program wrote.
    #[error(
        "{} has format {found}, this version reads {expected} only: wipe the task and restore it from its changelogs",
        path.display()
    )]
    OlderFormat {
        /// The directory of the task.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that can be read.
        expected: u32,
    },
    /// A state directory of another application.
    #[error(
        "{} belongs to the application {found:?}, not to {expected:?}: give each application a state directory of its own",
        path.display()
    )]
    OtherApplication {
        /// The state directory.
        path: PathBuf,
        /// The application that asked for it.
        expected: String,
        /// The application that it belongs to.
        found: String,
    },
    /// The task was last run with other stores.
    #[error(
        "{} has the stores {found:?}, the topology has {expected:?}: wipe the task and restore it from its changelogs",
        path.display()
    )]
    DifferentStores {
        /// The directory of the task.
        path: PathBuf,
        /// The stores that were asked for, sorted.
        expected: Vec<String>,
        /// The stores on disk, sorted.
        found: Vec<String>,
    },
    /// The database of a task holds data that nobody wrote.
    #[error(
        "the database in {} is corrupted ({what}): wipe the task and restore it from its changelogs",
        path.display()
    )]
    Corrupted {
        /// The directory of the task.
        path: PathBuf,
        /// Where it showed.
        what: String,
        /// What the database reported, if it was the one to notice.
        source: Option<rocksdb::Error>,
    },
    /// A key or value that its codec cannot read.
    #[error("a store holds bytes that its codec cannot read")]
    Codec(#[from] CodecError),
}

impl StateError {
    /// Whether wiping the task's directory and restoring it from its changelogs
    /// is the remedy.
    #[must_use]
    pub fn is_mended_by_wiping(&self) -> bool {
        match self {
            Self::OlderFormat { .. } | Self::DifferentStores { .. } | Self::Corrupted { .. } => {
                true
            }
            // What a codec cannot read came from the changelog and would come from it
            // again.
            Self::Codec(_)
            | Self::Io { .. }
            | Self::RocksDb { .. }
            | Self::UnknownStore(_)
            | Self::InvalidName { .. }
            | Self::Locked { .. }
            | Self::ForeignFormat { .. }
            | Self::NewerFormat { .. }
            | Self::OtherApplication { .. } => false,
        }
    }

    /// Whether the disk failed or is full: a restart on it would fail again.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        match self {
            Self::Io { .. } | Self::RocksDb { .. } => true,
            // Damaged state is restored; the others have nothing to do with the disk.
            Self::Corrupted { .. }
            | Self::OlderFormat { .. }
            | Self::DifferentStores { .. }
            | Self::Codec(_)
            | Self::UnknownStore(_)
            | Self::InvalidName { .. }
            | Self::Locked { .. }
            | Self::ForeignFormat { .. }
            | Self::NewerFormat { .. }
            | Self::OtherApplication { .. } => false,
        }
    }

    /// Wraps an error of the file system about `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Wraps an error of the database in `path` that came up in `action`.
    pub(crate) fn rocks(path: &Path, action: &'static str) -> impl FnOnce(rocksdb::Error) -> Self {
        move |source| match source.kind() {
            ErrorKind::Corruption => Self::Corrupted {
                path: path.to_owned(),
                what: format!("found when it was to {action}"),
                source: Some(source),
            },
            _ => Self::RocksDb { action, source },
        }
    }
}

fn holder_text(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_what_to_do() {
        let locked = StateError::Locked {
            path: "/state".into(),
            holder: Some(4711),
        };
        assert_eq!(
            locked.to_string(),
            "/state is locked by process 4711: two processes cannot share a state directory: \
             give each one of its own"
        );
        let newer = StateError::NewerFormat {
            path: "/state".into(),
            found: 3,
            supported: 1,
        };
        assert_eq!(
            newer.to_string(),
            "/state has format 3, this version reads up to 1: run the newer version, \
             or remove the directory and restore from the changelogs"
        );
        assert_eq!(
            StateError::UnknownStore(StoreId(7)).to_string(),
            "there is no store at position 7 of this task"
        );
    }

    #[test]
    fn sources_are_kept() {
        let error = StateError::io(Path::new("/state"))(io::Error::other("disk on fire"));
        let source = std::error::Error::source(&error).expect("an I/O error has a source");
        assert_eq!(source.to_string(), "disk on fire");
    }
}
