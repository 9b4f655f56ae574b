//! A task in the hands of a thread, with what the thread keeps about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Offset;
use crate::runtime::kafka::TopicPartition;
use crate::runtime::metrics::Metrics;
use crate::task::{Processed, Task, TaskError};

/// A task in the hands of a thread.
pub(super) struct TaskSlot {
    pub(super) task: Task,
    /// Changes with each restore, so that a late result is told from a current one.
    pub(super) epoch: u64,
    /// Records or timers were handled since the last commit.
    pub(super) dirty: bool,
    /// Of each source partition: its group, and the position that is to be committed next.
    pub(super) positions: BTreeMap<TopicPartition, (Arc<str>, Offset)>,
    /// Its stores hold everything of their own before this offset of their changelog.
    pub(super) reached: Option<Offset>,
    /// What became of records since the last commit, by source and result.
    counts: Vec<(usize, Processed, u64)>,
}

impl TaskSlot {
    pub(super) fn new(task: Task) -> Self {
        Self {
            task,
            epoch: 0,
            dirty: false,
            positions: BTreeMap::new(),
            reached: None,
            counts: Vec::new(),
        }
    }

    /// Its stores have been restored.
    pub(super) fn restored(&mut self) -> Result<(), TaskError> {
        let reached = self.task.backend().changelog_offset();
        let reached = reached.map_err(|error| TaskError::of_state(self.task.id(), error))?;
        self.reached = reached.map(Offset);
        Ok(())
    }

    /// Whether its stores do not know yet that they hold everything before this offset of
    /// their changelog.
    pub(super) fn is_behind(&self, at: Offset) -> bool {
        self.task.plan().changelog.is_some() && self.reached.is_none_or(|reached| reached < at)
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

    /// Tells the metrics what was committed.
    pub(super) fn publish_counts(&mut self, metrics: &Metrics) {
        let plan = self.task.plan().clone();
        let subtopology = plan.id.to_string();
        for (source, processed, times) in self.counts.drain(..) {
            if let Some(source) = plan.sources.get(source) {
                metrics.count(&subtopology, &source.topic, processed, times);
            }
        }
    }
}
