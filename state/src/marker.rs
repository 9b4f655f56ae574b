//! The marker that says what a directory is, in which format, and whose.
//!
//! ```text
//! turnstile-state 1       kind and version of the format
//! ticketing               labels, one a line; what they mean depends on the kind
//! ```
//!
//! A marker is complete or absent: it is written under another name, synced and
//! renamed. A directory without one is new if nothing else is in it, and foreign
//! otherwise, so that a mistyped path never mixes state into someone's files and
//! wiping a task never deletes them. Therefore wiping a directory removes the marker last.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::StateError;

const FILE: &str = "FORMAT";

/// The name of a marker until it is complete; a crash can leave one behind.
const UNFINISHED: &str = "FORMAT.new";

/// What an empty directory may hold: an unfinished marker, the lock of a process
/// that stopped before it wrote one, and what a new ext4 volume brings along.
const NOTHING: [&str; 3] = [UNFINISHED, ".lock", "lost+found"];

/// How much of a foreign marker is quoted.
const QUOTED_CHARS: usize = 40;

/// A kind of directory and its format, as this version writes it.
pub(crate) struct Marker {
    pub(crate) kind: &'static str,
    pub(crate) version: u32,
}

/// What a marker says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    /// Of the format: that of [`Marker`], or an older one.
    pub(crate) version: u32,
    pub(crate) labels: Vec<String>,
}

impl Marker {
    /// The marker of `directory`, or `None` if the directory is new.
    pub(crate) fn read(&self, directory: &Path) -> Result<Option<Marked>, StateError> {
        let path = directory.join(FILE);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.refuse_content(directory).map(|()| None);
            }
            Err(error) => return Err(StateError::io(&path)(error)),
        };
        let content = String::from_utf8_lossy(&content);
        let mut lines = content.lines();
        let head = lines.next().unwrap_or_default();
        let version = self.version_in(head).ok_or_else(|| {
            let quoted: String = head.chars().take(QUOTED_CHARS).collect();
            StateError::ForeignFormat {
                path: directory.to_owned(),
                found: format!("its {FILE} file says {quoted:?}, not \"{} …\"", self.kind),
            }
        })?;
        if version > self.version {
            return Err(StateError::NewerFormat {
                path: directory.to_owned(),
                found: version,
                supported: self.version,
            });
        }
        Ok(Some(Marked {
            version,
            labels: lines.map(str::to_owned).collect(),
        }))
    }

    /// Marks `directory`, and makes the mark survive a crash.
    pub(crate) fn write(&self, directory: &Path, labels: &[&str]) -> Result<(), StateError> {
        let mut content = format!("{} {}\n", self.kind, self.version);
        for label in labels {
            content.push_str(label);
            content.push('\n');
        }
        let unfinished = directory.join(UNFINISHED);
        let finished = directory.join(FILE);
        File::create(&unfinished)
            .and_then(|mut file| {
                file.write_all(content.as_bytes())?;
                file.sync_all()
            })
            .map_err(StateError::io(&unfinished))?;
        fs::rename(&unfinished, &finished).map_err(StateError::io(&finished))?;
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(StateError::io(directory))
    }

    fn version_in(&self, head: &str) -> Option<u32> {
        let version = head.strip_prefix(self.kind)?.strip_prefix(' ')?;
        version.parse().ok().filter(|version| *version > 0)
    }

    fn refuse_content(&self, directory: &Path) -> Result<(), StateError> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StateError::io(directory)(error)),
        };
        for entry in entries {
            let name = entry.map_err(StateError::io(directory))?.file_name();
            if !NOTHING.iter().any(|nothing| name == *nothing) {
                return Err(StateError::ForeignFormat {
                    path: directory.to_owned(),
                    found: format!(
                        "it holds {} but no {FILE} file of a {}",
                        name.display(),
                        self.kind
                    ),
                });
            }
        }
        Ok(())
    }
}

/// Deletes everything in `directory` except its marker.
pub(crate) fn remove_content(directory: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(directory).map_err(StateError::io(directory))? {
        let entry = entry.map_err(StateError::io(directory))?;
        if entry.file_name() == FILE {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(StateError::io(&path))?;
        let removed = if kind.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(StateError::io(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker {
        kind: "test-kind",
        version: 2,
    };

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(MARKER.read(directory.path()).unwrap(), None);
        MARKER.write(directory.path(), &["a", "b"]).unwrap();
        assert_eq!(
            MARKER.read(directory.path()).unwrap(),
            Some(Marked {
                version: 2,
                labels: vec!["a".to_owned(), "b".to_owned()]
            })
        );
    }

    #[test]
    fn without_its_content_a_directory_is_still_marked() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("before"), "").unwrap();
        MARKER.write(directory.path(), &["a"]).unwrap();
        fs::create_dir_all(directory.path().join("folder").join("folder")).unwrap();
        fs::write(directory.path().join("folder").join("file"), "").unwrap();
        fs::write(directory.path().join(UNFINISHED), "test-k").unwrap();
        remove_content(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(MARKER.read(directory.path()).unwrap().is_some());
    }

    #[test]
    fn a_directory_that_does_not_exist_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        assert_eq!(MARKER.read(&missing).unwrap(), None);
    }

    #[test]
    fn leftovers_of_a_crash_before_the_marker_are_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(UNFINISHED), "test-k").unwrap();
        fs::write(directory.path().join(".lock"), "1").unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        assert_eq!(MARKER.read(directory.path()).unwrap(), None);
    }

    #[test]
    fn other_content_is_foreign() {
        for content in [
            "",
            "other-kind 1\n",
            "test-kind",
            "test-kind x\n",
            "test-kind 0\n",
            "test-kind2 1\n",
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), content).unwrap();
            let error = MARKER.read(directory.path()).unwrap_err();
            assert!(
                matches!(error, StateError::ForeignFormat { .. }),
                "{content:?}: {error}"
            );
        }
    }

    #[test]
    fn an_older_format_is_read_and_a_newer_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "test-kind 1\n").unwrap();
        let older = MARKER.read(directory.path()).unwrap();
        assert_eq!(older.map(|marked| marked.version), Some(1));
        fs::write(directory.path().join(FILE), "test-kind 3\n").unwrap();
        assert!(matches!(
            MARKER.read(directory.path()),
            Err(StateError::NewerFormat {
                found: 3,
                supported: 2,
                ..
            })
        ));
    }
}
