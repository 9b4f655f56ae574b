//! Tasks that cannot be followed at the moment: when they are retried, and when that is logged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::TaskId;

/// How long a task whose stores could not be used is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(10);
/// How long the stores of a task may be in other hands before that is worth a warning.
const UNOPENED_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Setbacks {
    /// Until when tasks are left alone.
    aside: BTreeMap<TaskId, Instant>,
    /// Tasks whose stores cannot be opened: since when, or since that was last logged.
    unopened: BTreeMap<TaskId, Instant>,
}

impl Setbacks {
    /// Leaves a task alone for a while.
    pub(super) fn set_aside(&mut self, task: TaskId, now: Instant) {
        self.aside.insert(task, now + LEFT_ALONE);
    }

    /// Whether a task may be tried, for the first time or again.
    pub(super) fn may_try(&self, task: TaskId, now: Instant) -> bool {
        self.aside.get(&task).is_none_or(|until| *until <= now)
    }

    /// Notes that the stores of a task cannot be opened, which is retried at once; returns whether
    /// it is time to log that.
    pub(super) fn cannot_open(&mut self, task: TaskId, now: Instant) -> bool {
        let since = self.unopened.entry(task).or_insert(now);
        let is_long = now.saturating_duration_since(*since) > UNOPENED_MAX;
        if is_long {
            *since = now;
        }
        is_long
    }

    /// Notes that the stores of a task could be opened.
    pub(super) fn has_opened(&mut self, task: TaskId) {
        self.unopened.remove(&task);
    }

    /// Forgets which tasks could not be opened, except for those that still have to be.
    pub(super) fn keep_unopened(&mut self, absent: &BTreeSet<TaskId>) {
        self.unopened.retain(|task, _| absent.contains(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn task(id: &str) -> TaskId {
        id.parse().unwrap()
    }

    #[test]
    fn a_task_that_was_set_aside_is_tried_again_after_a_while_and_others_at_once() {
        let (mut setbacks, now) = (Setbacks::default(), Instant::now());
        let (failed, other) = (task("0_1"), task("0_2"));
        assert!(setbacks.may_try(failed, now));
        setbacks.set_aside(failed, now);
        assert!(!setbacks.may_try(failed, now));
        assert!(!setbacks.may_try(failed, now + LEFT_ALONE - SECOND));
        assert!(setbacks.may_try(other, now));
        let later = now + LEFT_ALONE;
        assert!(setbacks.may_try(failed, later));
        // It has failed again.
        setbacks.set_aside(failed, later);
        assert!(!setbacks.may_try(failed, later + LEFT_ALONE - SECOND));
        assert!(setbacks.may_try(failed, later + LEFT_ALONE));
    }

    /// How often it is said in so many seconds that a task cannot be opened, which is tried each
    /// second.
    fn said(setbacks: &mut Setbacks, task: TaskId, seconds: std::ops::Range<u32>) -> usize {
        let begun = Instant::now();
        let tries = seconds.map(|second| setbacks.cannot_open(task, begun + SECOND * second));
        tries.filter(|is_said| *is_said).count()
    }

    #[test]
    fn stores_that_cannot_be_opened_are_said_once_in_a_while() {
        let mut setbacks = Setbacks::default();
        let task = task("0_1");
        assert_eq!(said(&mut setbacks, task, 0..31), 0);
        assert_eq!(said(&mut Setbacks::default(), task, 0..32), 1);
        assert_eq!(said(&mut Setbacks::default(), task, 0..100), 3);
    }

    #[test]
    fn stores_that_were_opened_meanwhile_or_are_not_wanted_begin_anew() {
        let (mut setbacks, begun) = (Setbacks::default(), Instant::now());
        let (opened, unwanted, other) = (task("0_1"), task("0_2"), task("0_3"));
        for task in [opened, unwanted, other] {
            assert!(!setbacks.cannot_open(task, begun));
        }
        setbacks.has_opened(opened);
        setbacks.keep_unopened(&[opened, other].into());
        let later = begun + UNOPENED_MAX * 2;
        assert!(!setbacks.cannot_open(opened, later));
        assert!(!setbacks.cannot_open(unwanted, later));
        assert!(setbacks.cannot_open(other, later));
    }
}
