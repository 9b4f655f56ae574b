//! The sealed writes of a task as changelog records, for the partition that all tasks of its
//! partition number share.
//!
//! A key that was written many times in a transaction makes one record. Within a
//! store deletes precede puts, on which the index of timers relies.

use std::sync::Arc;

use turnstile_state::{ChangelogRecord, Overlay};

use crate::record::OutputRecord;
use crate::topology::SubtopologyPlan;
use crate::{Partition, TaskId, TimestampMs};

/// Changelog records of one task, in the order in which they are sent. They are stored
/// contiguously, since there are many of them and each is small.
#[derive(Debug)]
pub(crate) struct ChangelogRecords {
    /// The changelog.
    pub(crate) topic: Arc<str>,
    /// The partition of the changelog.
    pub(crate) partition: Partition,
    /// The time of all records.
    pub(crate) timestamp: TimestampMs,
    bytes: Vec<u8>,
    ends: Vec<Ends>,
}

/// Where a record ends; it begins where the one before it ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    key: usize,
    /// The same as for the key if the record has none: a value is never empty.
    value: usize,
}

impl ChangelogRecords {
    /// For what is sealed, if any of it belongs in a changelog.
    pub(super) fn of(
        task: TaskId,
        plan: &SubtopologyPlan,
        overlay: &Overlay,
        now: TimestampMs,
    ) -> Option<Self> {
        let changelog = plan.changelog.as_ref()?;
        let mut records = Self {
            topic: changelog.clone(),
            partition: task.partition,
            timestamp: now,
            bytes: Vec::new(),
            ends: Vec::new(),
        };
        for (id, store) in plan.stores_by_id() {
            let Some(tag) = store.tag else {
                continue;
            };
            for (key, value) in overlay.changes(id) {
                records.add(&ChangelogRecord {
                    store: tag,
                    key,
                    value,
                });
            }
        }
        (!records.ends.is_empty()).then_some(records)
    }

    fn add(&mut self, record: &ChangelogRecord<'_>) {
        record.append_key(&mut self.bytes);
        let key = self.bytes.len();
        record.append_value(&mut self.bytes);
        let value = self.bytes.len();
        self.ends.push(Ends { key, value });
    }

    /// Key and value of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut start = 0;
        self.ends.iter().map(move |Ends { key, value }| {
            let bytes = |range| self.bytes.get(range).unwrap_or_default();
            let record = (
                bytes(start..*key),
                (value > key).then(|| bytes(*key..*value)),
            );
            start = *value;
            record
        })
    }

    /// Each as a record of its own.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = OutputRecord> {
        self.iter().map(|(key, value)| OutputRecord {
            topic: self.topic.clone(),
            partition: self.partition,
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
            timestamp: self.timestamp,
        })
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<Ends>()
    }
}
