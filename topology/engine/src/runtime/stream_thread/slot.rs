//! A task in the hands of a thread, with what the thread keeps about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Offset;
use crate::runtime::kafka::{Slot as DeliverySlot, TopicPartition};
use crate::runtime::metrics::Metrics;
use crate::task::{Processed, Task};

/// Of each source partition: its group, and the position that is to be committed next.
pub(super) type Positions = BTreeMap<TopicPartition, (Arc<str>, Offset)>;

/// What became of records, by source and result.
pub(super) type Counts = Vec<(usize, Processed, u64)>;

/// A task in the hands of a thread.
pub(super) struct TaskSlot {
    pub(super) task: Task,
    /// Changes with each restore, so that a late result is told from a current one.
    pub(super) epoch: u64,
    /// Records or timers were handled since the last commit began.
    pub(super) dirty: bool,
    pub(super) positions: Positions,
    /// Where the offset of its last changelog record is found after a commit.
    pub(super) changelog: Option<DeliverySlot>,
    /// Since the last commit began.
    counts: Counts,
}

impl TaskSlot {
    pub(super) fn new(task: Task) -> Self {
        Self {
            task,
            epoch: 0,
            dirty: false,
            positions: BTreeMap::new(),
            changelog: None,
            counts: Vec::new(),
        }
    }

    /// Remembers what became of a record.
    pub(super) fn count(&mut self, source: usize, processed: Processed) {
        match self
            .counts
            .iter_mut()
            .find(|(of, result, _)| *of == source && *result == processed)
        {
            Some((_, _, times)) => *times += 1,
            None => self.counts.push((source, processed, 1)),
        }
    }

    /// What became of records since the last call.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Tells the metrics what was committed.
    pub(super) fn publish(&self, committed: Counts, metrics: &Metrics) {
        let plan = self.task.plan();
        let subtopology = plan.id.to_string();
        for (source, processed, times) in committed {
            if let Some(source) = plan.sources.get(source) {
                metrics.count(&subtopology, &source.topic, processed, times);
            }
        }
    }
}
