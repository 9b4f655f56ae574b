//! The uncommitted writes of a task as changelog records.
//!
//! A key that was written many times in a transaction makes one record. Within a
//! store deletes precede puts, on which the index of timers relies.

use turnstile_state::{ChangelogRecord, Overlay, StoreId};

use crate::record::OutputRecord;
use crate::topology::SubtopologyPlan;
use crate::{TaskId, TimestampMs};

pub(super) fn records(
    task: TaskId,
    plan: &SubtopologyPlan,
    overlay: &Overlay,
    now: TimestampMs,
) -> Vec<(StoreId, OutputRecord)> {
    let mut records = Vec::new();
    for (id, store) in plan.stores_by_id() {
        let Some(changelog) = &store.changelog else {
            continue;
        };
        records.extend(overlay.changes(id).map(|(key, value)| {
            let record = ChangelogRecord { key, value };
            let output = OutputRecord {
                topic: changelog.clone(),
                partition: task.partition,
                key: Some(key.to_vec()),
                value: record.encode_value(),
                headers: Vec::new(),
                timestamp: now,
            };
            (id, output)
        }));
    }
    records
}
