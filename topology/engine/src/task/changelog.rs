//! The sealed writes of a task as changelog records, for the partition that all tasks of its
//! partition number share.
//!
//! A key that was written many times in a transaction makes one record. Within a
//! store deletes precede puts, on which the index of timers relies.

use turnstile_state::{ChangelogRecord, Overlay};

use crate::record::OutputRecord;
use crate::topology::SubtopologyPlan;
use crate::{TaskId, TimestampMs};

pub(super) fn records(
    task: TaskId,
    plan: &SubtopologyPlan,
    overlay: &Overlay,
    now: TimestampMs,
) -> Vec<OutputRecord> {
    let Some(changelog) = &plan.changelog else {
        return Vec::new();
    };
    let mut records = Vec::new();
    for (id, store) in plan.stores_by_id() {
        let Some(tag) = store.tag else {
            continue;
        };
        records.extend(overlay.changes(id).map(|(key, value)| {
            let record = ChangelogRecord {
                store: tag,
                key,
                value,
            };
            OutputRecord {
                topic: changelog.clone(),
                partition: task.partition,
                key: Some(record.encode_key()),
                value: record.encode_value(),
                headers: Vec::new(),
                timestamp: now,
            }
        }));
    }
    records
}
