//! A task in the hands of a thread, with what the thread keeps about it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::record::OutputRecord;
use crate::runtime::kafka::TopicPartition;
use crate::runtime::metrics::Metrics;
use crate::runtime::restorer::Restoring;
use crate::runtime::said::is_new;
use crate::runtime::task_stores::AGE_MAX;
use crate::task::{LetterCause, Processed, Task, TaskError};
use crate::{Offset, TaskStatus, TimestampMs};

/// How long a task that has nothing to do goes without a commit. Its stores count as left alone
/// since the last one, and are of no use when they were for [`AGE_MAX`].
const CERTAIN_MAX: Duration = AGE_MAX.checked_div(12).expect("it is not divided by 0");

/// How far a task has come in one of its source partitions.
#[derive(Debug, Clone)]
pub(super) struct SourcePosition {
    pub(super) place: TopicPartition,
    pub(super) group: Arc<str>,
    /// The next offset to commit.
    pub(super) next: Offset,
}

/// The outcomes of records, the causes of other dead letters, and the timers that have fired.
#[derive(Default)]
pub(super) struct Counts {
    /// By source and result.
    records: Vec<(usize, Processed, u64)>,
    letters: Vec<LetterCause>,
    /// How late each timer was.
    latenesses: Vec<Duration>,
}

/// A task in the hands of a thread.
pub(super) struct TaskSlot {
    pub(super) task: Task,
    /// While it is restored; dropping this calls the restore off.
    pub(super) restoring: Option<Restoring>,
    /// Whether records or timers were handled since the last commit began.
    pub(super) dirty: bool,
    /// By source; empty while the task does not run.
    pub(super) positions: Vec<SourcePosition>,
    /// Its stores hold all their own records before this offset of their changelog.
    pub(super) reached: Option<Offset>,
    /// When the last flush of its stores began; before that, when it came here.
    pub(super) flushed: Instant,
    /// When it was last certain that the task is here: the beginning of its last commit, which
    /// would have been refused otherwise. A session may have ended, and another have written for
    /// the task, before this process hears of it.
    pub(super) certain: Option<SystemTime>,
    /// Up to when its stores are kept up to date once that flush has ended, if they are.
    pub(super) kept_until: Option<SystemTime>,
    /// Since the last commit began.
    counts: Counts,
}

impl TaskSlot {
    pub(super) fn new(task: Task) -> Self {
        Self {
            task,
            restoring: None,
            dirty: false,
            positions: Vec::new(),
            reached: None,
            flushed: Instant::now(),
            certain: None,
            kept_until: None,
            counts: Counts::default(),
        }
    }

    /// Where the task is in a partition.
    pub(super) fn position(&self, place: &TopicPartition) -> Option<Offset> {
        let mut positions = self.positions.iter();
        let found = positions.find(|position| position.place == *place);
        found.map(|position| position.next)
    }

    /// Its stores have been restored.
    pub(super) fn restored(&mut self) -> Result<(), TaskError> {
        let reached = self.task.backend().changelog_offset();
        let reached = reached.map_err(|error| TaskError::of_state(self.task.id(), error))?;
        self.reached = reached.map(Offset);
        Ok(())
    }

    /// Whether its stores do not yet know that they hold everything before this offset of their
    /// changelog.
    pub(super) fn is_behind(&self, at: Offset) -> bool {
        self.task.plan().changelog.is_some() && self.reached.is_none_or(|reached| reached < at)
    }

    /// Makes it take part in the next commit if it was last certain too long before `now` that it
    /// is here.
    pub(super) fn make_certain(&mut self, now: SystemTime) {
        let is_running = self.task.status() == TaskStatus::Running;
        let since = self.certain.map(|time| now.duration_since(time));
        let is_old = since.is_some_and(|since| since.is_ok_and(|since| since > CERTAIN_MAX));
        self.dirty |= is_running && is_old;
    }

    /// Makes it take part in the next commit if its stores know less of their changelog than `end`.
    pub(super) fn catch_up(&mut self, end: Option<Offset>) {
        let is_running = self.task.status() == TaskStatus::Running;
        self.dirty |= is_running && end.is_some_and(|end| self.is_behind(end));
    }

    /// Counts the outcome of a record.
    pub(super) fn count(&mut self, source: usize, processed: Processed) {
        let records = &mut self.counts.records;
        match records
            .iter_mut()
            .find(|(of, result, _)| *of == source && *result == processed)
        {
            Some((_, _, times)) => *times += 1,
            None => records.push((source, processed, 1)),
        }
    }

    /// Fires up to `limit` timers that are due, and punctuators; returns how many timers.
    pub(super) fn fire_due(&mut self, now: TimestampMs, limit: usize) -> Result<usize, TaskError> {
        let latenesses = &mut self.counts.latenesses;
        self.task
            .fire_due(now, limit, &mut |lateness| latenesses.push(lateness))
    }

    /// Takes out what the task has sent, and remembers the dead letters that no record accounts
    /// for.
    pub(super) fn take_outputs_into(&mut self, sent: &mut impl Extend<OutputRecord>) {
        self.task.take_outputs_into(sent);
        self.counts.letters.extend(self.task.take_letter_causes());
    }

    /// The outcomes of records since the last call.
    pub(super) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Reports to the metrics what was committed.
    pub(super) fn publish(&self, committed: Counts, metrics: &Metrics) {
        let plan = self.task.plan();
        let subtopology = plan.id.to_string();
        for (source, processed, times) in committed.records {
            if let Some(source) = plan.sources.get(source) {
                if let Processed::DeadLettered(reason) = processed {
                    log_dead_letter(&subtopology, &source.topic, reason);
                }
                metrics.count(&subtopology, &source.topic, processed, times);
            }
        }
        for (topic, kind) in committed.letters {
            log_dead_letter(&subtopology, &topic, kind);
            metrics.count(&subtopology, &topic, Processed::DeadLettered(kind), 1);
        }
        metrics.count_timers(&subtopology, &committed.latenesses);
    }
}

/// The metric tells how many there are.
fn log_dead_letter(subtopology: &str, topic: &str, reason: &str) {
    if is_new(&format!("dead letter: {subtopology} {topic} {reason}")) {
        tracing::warn!(
            subtopology,
            topic,
            reason,
            "records have become dead letters"
        );
    }
}

#[cfg(test)]
mod tests {
    use turnstile_state::MemoryBackend;

    use super::*;
    use crate::quiet;

    #[test]
    fn a_task_that_has_nothing_to_do_takes_part_in_a_commit_now_and_then() {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let id = plan.tasks()[0];
        let of = plan.subtopology(id.subtopology).unwrap();
        let backend = Arc::new(MemoryBackend::new(&of.store_specs()));
        let task = Task::new(id, plan.topology.clone(), of.clone(), backend);
        let mut slot = TaskSlot::new(task);
        let now = SystemTime::now();
        slot.certain = Some(now - CERTAIN_MAX * 2);
        slot.make_certain(now);
        assert!(!slot.dirty, "it does not run");
        slot.task.become_status(TaskStatus::Restoring);
        slot.task.start(TimestampMs(0));
        for (certain, is_dirty) in [
            // Its first commit is due anyway.
            (None, false),
            (Some(now), false),
            (Some(now + CERTAIN_MAX * 2), false),
            (Some(now - CERTAIN_MAX * 2), true),
        ] {
            slot.certain = certain;
            slot.make_certain(now);
            assert_eq!(slot.dirty, is_dirty, "{certain:?}");
        }
    }
}
