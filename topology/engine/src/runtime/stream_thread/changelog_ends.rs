//! How far a thread has written the changelog.
//!
//! All tasks of one partition number write to one changelog partition, in the transactions of their
//! components. If a task's stores hold all their own records up to what another task has written, a
//! restore need not read that again; so all tasks are told how far it was written here.

use std::collections::BTreeMap;

use crate::{Offset, Partition};

/// By changelog partition: the offset after the last record that was written here and is committed.
#[derive(Debug, Default)]
pub(super) struct ChangelogEnds(BTreeMap<Partition, Offset>);

impl ChangelogEnds {
    /// Notes the end of what was committed to a partition.
    pub(super) fn note(&mut self, partition: Partition, end: Option<Offset>) {
        let known = self.0.get(&partition).copied();
        if let Some(end) = end.max(known) {
            self.0.insert(partition, end);
        }
    }

    /// The end of a partition, once anything was written to it.
    pub(super) fn of(&self, partition: Partition) -> Option<Offset> {
        self.0.get(&partition).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_moves_on_and_never_back() {
        let (here, there) = (Partition(0), Partition(1));
        let mut ends = ChangelogEnds::default();
        ends.note(here, None);
        assert_eq!(ends.of(here), None);
        for (told, known) in [(7, 7), (3, 7), (9, 9)] {
            ends.note(here, Some(Offset(told)));
            assert_eq!(ends.of(here), Some(Offset(known)));
        }
        ends.note(here, None);
        assert_eq!(ends.of(here), Some(Offset(9)));
        assert_eq!(ends.of(there), None);
    }
}
