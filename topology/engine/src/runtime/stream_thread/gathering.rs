//! When owned tasks are restored: those of one partition number together.
//!
//! They share a changelog partition, which is read once for all that are restored at the same time.
//! But groups assign one by one, so the tasks of a partition number become owned moments apart. So
//! a task with stores waits until
//!
//! - all tasks with stores of its partition number are owned, or
//! - all groups have assigned: no other is to come, or
//! - it, or one that it waits with, has waited for [`PATIENCE`]: a group that is stuck must not
//!   hold up the services of the others for long.
//!
//! A task without stores does not wait. A task that waits has not begun to restore: if a group
//! takes it away, it simply waits no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::{Partition, TaskId};

/// How long a task waits for those that it shares a changelog partition with.
const PATIENCE: Duration = Duration::from_secs(1);

/// The owned tasks that are yet to be restored.
pub(super) struct Gathering {
    /// All tasks with stores.
    stateful: BTreeMap<Partition, BTreeSet<TaskId>>,
    waiting: BTreeSet<TaskId>,
    /// By partition number with tasks that wait: since when.
    since: BTreeMap<Partition, Instant>,
}

impl Gathering {
    /// For an application whose tasks with stores are these.
    pub(super) fn of(stateful: impl IntoIterator<Item = TaskId>) -> Self {
        let mut by_partition: BTreeMap<Partition, BTreeSet<TaskId>> = BTreeMap::new();
        for task in stateful {
            by_partition.entry(task.partition).or_default().insert(task);
        }
        Self {
            stateful: by_partition,
            waiting: BTreeSet::new(),
            since: BTreeMap::new(),
        }
    }

    /// A task is owned, and is to be restored.
    pub(super) fn add(&mut self, task: TaskId) {
        self.waiting.insert(task);
    }

    /// Whether no task waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes out the tasks that are to be restored now. `owned` are all tasks that are owned,
    /// `complete` says whether all groups have assigned.
    pub(super) fn take_ready(
        &mut self,
        owned: &BTreeSet<TaskId>,
        complete: bool,
        now: Instant,
    ) -> Vec<TaskId> {
        let Self {
            stateful,
            waiting,
            since,
        } = self;
        waiting.retain(|task| owned.contains(task));
        for task in &*waiting {
            since.entry(task.partition).or_insert(now);
        }
        let mut ready = Vec::new();
        waiting.retain(|task| {
            let mates = stateful.get(&task.partition);
            let mates = mates.filter(|mates| mates.contains(task));
            let all_are_owned = mates.is_none_or(|mates| mates.is_subset(owned));
            let since = since.get(&task.partition);
            let waited = since.map(|since| now.saturating_duration_since(*since));
            let is_ready =
                complete || all_are_owned || waited.is_some_and(|waited| waited >= PATIENCE);
            if is_ready {
                ready.push(*task);
            }
            !is_ready
        });
        since.retain(|partition, _| waiting.iter().any(|task| task.partition == *partition));
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(ids: &[&str]) -> BTreeSet<TaskId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    /// Subtopologies 0, 1 and 2 have stores and two partitions; 3 has no stores.
    fn gathering(waiting: &[&str]) -> Gathering {
        let stateful = tasks(&["0_0", "0_1", "1_0", "1_1", "2_0", "2_1"]);
        let mut gathering = Gathering::of(stateful);
        tasks(waiting)
            .into_iter()
            .for_each(|task| gathering.add(task));
        gathering
    }

    fn ready(gathering: &mut Gathering, owned: &[&str], complete: bool, now: Instant) -> String {
        let ready = gathering.take_ready(&tasks(owned), complete, now);
        let ready: Vec<String> = ready.iter().map(ToString::to_string).collect();
        ready.join(" ")
    }

    #[test]
    fn tasks_of_a_partition_are_restored_when_all_of_them_are_owned() {
        let now = Instant::now();
        let mut of = gathering(&["0_0", "0_1", "1_1"]);
        assert_eq!(ready(&mut of, &["0_0", "0_1", "1_1"], false, now), "");
        of.add("2_1".parse().unwrap());
        let owned = ["0_0", "0_1", "1_1", "2_1"];
        assert_eq!(ready(&mut of, &owned, false, now), "0_1 1_1 2_1");
        assert!(!of.is_empty());
        of.add("1_0".parse().unwrap());
        of.add("2_0".parse().unwrap());
        let owned = ["0_0", "1_0", "2_0"];
        assert_eq!(ready(&mut of, &owned, false, now), "0_0 1_0 2_0");
        assert!(of.is_empty());
    }

    #[test]
    fn one_that_runs_already_is_not_waited_for() {
        let mut of = gathering(&["0_0", "1_0"]);
        let owned = ["0_0", "1_0", "2_0"];
        assert_eq!(ready(&mut of, &owned, false, Instant::now()), "0_0 1_0");
    }

    #[test]
    fn none_waits_for_one_that_will_not_come() {
        let mut of = gathering(&["0_0", "1_1"]);
        assert_eq!(
            ready(&mut of, &["0_0", "1_1"], true, Instant::now()),
            "0_0 1_1"
        );
    }

    #[test]
    fn a_group_that_is_stuck_holds_up_the_others_for_a_moment_only() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut of = gathering(&["0_0"]);
        assert_eq!(ready(&mut of, &["0_0"], false, start), "");
        of.add("1_0".parse().unwrap());
        of.add("1_1".parse().unwrap());
        let owned = ["0_0", "1_0", "1_1"];
        assert_eq!(ready(&mut of, &owned, false, after(999)), "");
        assert_eq!(ready(&mut of, &owned, false, after(1_000)), "0_0 1_0");
        assert_eq!(ready(&mut of, &owned, false, after(1_998)), "");
        assert_eq!(ready(&mut of, &owned, false, after(1_999)), "1_1");
    }

    #[test]
    fn one_that_comes_late_waits_anew() {
        let start = Instant::now();
        let mut of = gathering(&["0_0"]);
        assert_eq!(ready(&mut of, &["0_0"], false, start), "");
        assert_eq!(ready(&mut of, &["0_0"], false, start + PATIENCE), "0_0");
        of.add("1_0".parse().unwrap());
        let (owned, later) = (["0_0", "1_0"], start + PATIENCE * 3);
        assert_eq!(ready(&mut of, &owned, false, later), "");
        assert_eq!(ready(&mut of, &owned, false, later + PATIENCE), "1_0");
    }

    #[test]
    fn what_was_taken_away_is_not_restored() {
        let now = Instant::now();
        let mut of = gathering(&["0_0", "1_0"]);
        assert_eq!(ready(&mut of, &["0_0", "1_0"], false, now), "");
        assert_eq!(ready(&mut of, &["0_0"], true, now), "0_0");
        assert!(of.is_empty());
        assert_eq!(ready(&mut of, &["0_0", "1_0", "2_0"], true, now), "");
    }

    #[test]
    fn a_task_without_stores_does_not_wait() {
        let mut of = gathering(&["0_0", "3_0"]);
        assert_eq!(
            ready(&mut of, &["0_0", "3_0"], false, Instant::now()),
            "3_0"
        );
    }
}
