//! How much space there is on the file system that holds the state.

use std::path::Path;

use crate::StateError;

/// The space on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// What this process may still write; blocks reserved for the system do not count.
    pub free_bytes: u64,
    /// The total size.
    pub size_bytes: u64,
}

impl DiskSpace {
    /// The space on the file system that `path` is on.
    pub(crate) fn of(path: &Path) -> Result<Self, StateError> {
        let found =
            rustix::fs::statvfs(path).map_err(|error| StateError::io(path)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self {
            free_bytes: bytes(found.f_bavail),
            size_bytes: bytes(found.f_blocks),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_at_most_as_much_room_as_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let space = DiskSpace::of(folder.path()).unwrap();
        assert!(space.free_bytes > 0, "{space:?}");
        assert!(space.free_bytes <= space.size_bytes, "{space:?}");
        // In bytes: no file system that tests run on is smaller.
        assert!(space.size_bytes > 1 << 20, "{space:?}");
    }

    #[test]
    fn what_is_not_there_has_no_room() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            DiskSpace::of(&folder.path().join("missing")),
            Err(StateError::Io { .. })
        ));
    }
}
