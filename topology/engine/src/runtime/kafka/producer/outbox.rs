//! What was sent, and has not been given to a client yet.

use super::Slot;
use crate::record::OutputRecord;
use crate::task::ChangelogRecords;

/// What has yet to be given to the client, and the slot that tracks its offset.
pub(super) enum Held {
    Record(OutputRecord, Option<Slot>),
    Changelog(ChangelogRecords, Slot),
}

/// What a held record costs in addition to its bytes.
const OVERHEAD_BYTES: usize = 160;

/// Records that were sent, and are not in any transaction yet.
#[derive(Default)]
pub(crate) struct Outbox {
    held: Vec<Held>,
    bytes: usize,
}

impl Outbox {
    /// Adds a record.
    pub(crate) fn send(&mut self, record: OutputRecord, slot: Option<Slot>) {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        self.bytes += OVERHEAD_BYTES + len(&record.key) + len(&record.value);
        self.held.push(Held::Record(record, slot));
    }

    /// Adds the changelog of a task.
    pub(crate) fn send_changelog(&mut self, records: ChangelogRecords, slot: Slot) {
        self.bytes += records.bytes();
        self.held.push(Held::Changelog(records, slot));
    }

    /// Moves all that is in another outbox into this one.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.bytes += std::mem::take(&mut other.bytes);
        self.held.append(&mut other.held);
    }

    /// How many records are in it; the changelog of a task counts as one.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn take(&mut self) -> Vec<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }
}
