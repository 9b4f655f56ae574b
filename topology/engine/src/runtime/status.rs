//! What an instance reports about itself: for readiness checks and humans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use serde::Serialize;

use crate::{TaskId, TaskStatus, TimestampMs};

/// One task that the instance holds in at least one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// Which one.
    pub task: TaskId,
    /// Where it is in its life cycle, by name.
    pub status: &'static str,
    /// Why it does not run, for humans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The state of an instance at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Whether every consumer group has assigned and every task that is owned runs.
    pub ready: bool,
    /// What is wrong or still pending, for humans; empty when ready.
    pub problems: Vec<String>,
    /// The tasks, by id.
    pub tasks: Vec<TaskReport>,
}

/// What a stream thread reports about itself.
#[derive(Default)]
pub(crate) struct ThreadReport {
    /// Whether all its groups have assigned.
    pub(crate) joined: bool,
    /// What is wrong, for humans.
    pub(crate) problem: Option<String>,
    /// How many tasks it has held in part for longer than a session.
    pub(crate) misfits: usize,
    /// By when a timer of its tasks is or was certainly due.
    pub(crate) due_by: Option<TimestampMs>,
    /// The tasks of which it holds anything, and why they do not run.
    pub(crate) tasks: BTreeMap<TaskId, (TaskStatus, Option<String>)>,
}

struct ThreadState {
    report: ThreadReport,
    /// When the report was last known to hold.
    heard: Instant,
}

impl ThreadState {
    fn of(report: ThreadReport) -> Self {
        Self {
            report,
            heard: Instant::now(),
        }
    }

    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }
}

/// Where the stream threads report to, several times a second unless something blocks them.
#[derive(Clone)]
pub(crate) struct StatusBoard {
    threads: Arc<RwLock<BTreeMap<usize, ThreadState>>>,
    /// A thread that is silent for longer is stuck: its last report is worth nothing.
    patience: Duration,
}

impl StatusBoard {
    pub(crate) fn new(threads: usize, patience: Duration) -> Self {
        let begin = |thread| (thread, ThreadState::of(ThreadReport::default()));
        Self {
            threads: Arc::new(RwLock::new((0..threads).map(begin).collect())),
            patience,
        }
    }

    /// Replaces the report of a thread.
    pub(crate) fn set_thread(&self, thread: usize, report: ThreadReport) {
        let state = ThreadState::of(report);
        self.threads.write().insert(thread, state);
    }

    /// Confirms that the report of a thread still holds.
    pub(crate) fn confirm(&self, thread: usize) {
        if let Some(state) = self.threads.write().get_mut(&thread) {
            state.heard = Instant::now();
        }
    }

    /// Whether any thread has been silent for so long that it is stuck.
    pub(crate) fn any_stuck(&self, now: Instant) -> bool {
        let threads = self.threads.read();
        let mut threads = threads.values();
        threads.any(|thread| thread.silence(now) > self.patience)
    }

    /// What the instance is doing, as far as its threads have reported it.
    pub(crate) fn status(&self, now: Instant) -> InstanceStatus {
        let threads = self.threads.read();
        let mut problems = Vec::new();
        let mut tasks = Vec::new();
        for (number, thread) in threads.iter() {
            let silence = thread.silence(now);
            if silence > self.patience {
                problems.push(format!(
                    "stream thread {number} has not reported for {} s: it waits for the disk or for brokers",
                    silence.as_secs()
                ));
            }
            let report = &thread.report;
            if !report.joined {
                problems.push(format!(
                    "stream thread {number} has no assignment of all its groups yet"
                ));
            }
            problems.extend(report.problem.clone());
            for (task, (status, reason)) in &report.tasks {
                if *status != TaskStatus::Running {
                    problems.push(format!("task {task} is {status}"));
                }
                tasks.push(TaskReport {
                    task: *task,
                    status: status.name(),
                    reason: reason.clone(),
                });
            }
        }
        tasks.sort_by_key(|report| report.task);
        InstanceStatus {
            ready: problems.is_empty(),
            problems,
            tasks,
        }
    }

    /// Whether every thread has an assignment of all its groups.
    pub(crate) fn all_joined(&self) -> bool {
        let threads = self.threads.read();
        threads.values().all(|thread| thread.report.joined)
    }

    /// How many tasks have this status.
    pub(crate) fn count(&self, status: TaskStatus) -> usize {
        let threads = self.threads.read();
        threads
            .values()
            .flat_map(|thread| thread.report.tasks.values())
            .filter(|(s, _)| *s == status)
            .count()
    }

    /// How long ago the most overdue timer was due at `now`. A thread that hangs reports no more,
    /// so the timer of its last report becomes more and more overdue.
    pub(crate) fn overdue(&self, now: TimestampMs) -> Duration {
        let threads = self.threads.read();
        let dues = threads.values().filter_map(|thread| thread.report.due_by);
        dues.min().map_or(Duration::ZERO, |due| now.since(due))
    }

    /// How many tasks all threads have held in part for longer than a session.
    pub(crate) fn misfits(&self) -> usize {
        let threads = self.threads.read();
        threads.values().map(|thread| thread.report.misfits).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, SubtopologyId};

    const SESSION: Duration = Duration::from_secs(10);

    fn task(partition: i32) -> TaskId {
        TaskId {
            subtopology: SubtopologyId(0),
            partition: Partition(partition),
        }
    }

    fn joined<const N: usize>(tasks: [(TaskId, (TaskStatus, Option<String>)); N]) -> ThreadReport {
        ThreadReport {
            joined: true,
            tasks: tasks.into(),
            ..ThreadReport::default()
        }
    }

    fn status(board: &StatusBoard) -> InstanceStatus {
        board.status(Instant::now())
    }

    #[test]
    fn an_instance_is_ready_when_all_threads_have_joined_and_all_tasks_run() {
        let board = StatusBoard::new(2, SESSION);
        let found = status(&board);
        assert!(!found.ready);
        assert_eq!(found.problems.len(), 2, "{found:?}");
        board.set_thread(0, joined([(task(1), (TaskStatus::Running, None))]));
        assert!(!status(&board).ready);
        assert!(!board.all_joined());
        board.set_thread(1, joined([]));
        assert!(board.all_joined());
        let found = status(&board);
        assert!(found.ready, "{found:?}");
        assert_eq!(found.problems, [""; 0]);
        assert_eq!(
            found.tasks,
            [TaskReport {
                task: task(1),
                status: "running",
                reason: None
            }]
        );
    }

    #[test]
    fn whatever_keeps_an_instance_from_being_ready_is_named() {
        let board = StatusBoard::new(1, SESSION);
        for of_task in TaskStatus::ALL {
            let reason = Some("why".to_owned());
            board.set_thread(0, joined([(task(3), (of_task, reason))]));
            let found = status(&board);
            assert_eq!(found.ready, of_task == TaskStatus::Running);
            assert_eq!(found.ready, found.problems.is_empty());
            assert!(
                found.ready || found.problems[0].contains("0_3"),
                "{found:?}"
            );
            assert_eq!(found.tasks[0].reason.as_deref(), Some("why"));
        }
        let report = ThreadReport {
            problem: Some("a misfit".to_owned()),
            ..joined([])
        };
        board.set_thread(0, report);
        let found = status(&board);
        assert_eq!(
            (found.ready, found.problems),
            (false, vec!["a misfit".to_owned()])
        );
    }

    #[test]
    fn tasks_are_shown_by_id_and_counted_over_all_threads() {
        let board = StatusBoard::new(2, SESSION);
        let running = |partition| (task(partition), (TaskStatus::Running, None));
        let restoring = (task(0), (TaskStatus::Restoring, None));
        board.set_thread(0, joined([running(1), running(3)]));
        board.set_thread(1, joined([running(2), restoring]));
        let shown: Vec<TaskId> = status(&board)
            .tasks
            .iter()
            .map(|report| report.task)
            .collect();
        assert_eq!(shown, [0, 1, 2, 3].map(task));
        assert_eq!(board.count(TaskStatus::Running), 3);
        assert_eq!(board.count(TaskStatus::Restoring), 1);
        assert_eq!(board.count(TaskStatus::Suspended), 0);
        // What is reported replaces what was.
        board.set_thread(0, joined([]));
        assert_eq!(board.count(TaskStatus::Running), 1);
    }

    #[test]
    fn a_thread_that_says_nothing_for_a_session_is_stuck() {
        let board = StatusBoard::new(2, SESSION);
        for thread in [0, 1] {
            board.set_thread(thread, joined([(task(1), (TaskStatus::Running, None))]));
        }
        let reported = Instant::now();
        assert!(board.status(reported + SESSION / 2).ready);
        assert!(!board.any_stuck(reported + SESSION / 2));
        let later = reported + SESSION + Duration::from_secs(2);
        let found = board.status(later);
        assert!(!found.ready);
        assert!(
            found.problems[0].contains("stream thread 0 has not reported for 12 s"),
            "{found:?}"
        );
        assert_eq!(found.problems.len(), 2, "{found:?}");
        assert!(board.any_stuck(later));
        // One that is stuck is enough, and it is named.
        let state = |thread: usize, heard: Instant| {
            let mut threads = board.threads.write();
            threads.get_mut(&thread).unwrap().heard = heard;
        };
        state(0, later);
        let found = board.status(later);
        assert_eq!(found.problems.len(), 1, "{found:?}");
        assert!(found.problems[0].contains("stream thread 1"), "{found:?}");
        assert!(board.any_stuck(later));
        // It is over as soon as the thread goes on, whether it has anything new to say or not.
        let past = Instant::now().checked_sub(2 * SESSION).unwrap();
        for thread in [0, 1] {
            state(thread, past);
        }
        board.confirm(0);
        assert!(board.any_stuck(Instant::now()));
        board.set_thread(1, joined([]));
        assert!(!board.any_stuck(Instant::now()));
        assert!(status(&board).ready);
    }

    #[test]
    fn a_timer_is_overdue_for_as_long_as_it_is_due_whoever_hangs() {
        let board = StatusBoard::new(2, SESSION);
        let now = TimestampMs(1_000_000);
        let at = |seconds: i64| TimestampMs(now.0 + seconds * 1_000);
        assert_eq!(board.overdue(now), Duration::ZERO);
        let report = |due_by| ThreadReport {
            due_by,
            ..joined([])
        };
        board.set_thread(0, report(Some(at(30))));
        board.set_thread(1, report(None));
        assert_eq!(board.overdue(now), Duration::ZERO);
        // It says nothing more, and the other goes on.
        board.set_thread(1, report(Some(at(80))));
        assert_eq!(board.overdue(at(90)), Duration::from_secs(60));
        board.set_thread(0, report(Some(at(91))));
        assert_eq!(board.overdue(at(90)), Duration::from_secs(10));
        // A thread that drops its tasks has no timers.
        board.set_thread(1, ThreadReport::default());
        assert_eq!(board.overdue(at(90)), Duration::ZERO);
    }

    #[test]
    fn misfits_are_those_of_all_threads_whoever_reports_last() {
        let report = |misfits| ThreadReport {
            misfits,
            ..joined([])
        };
        for order in [[(0, 2), (1, 0)], [(1, 0), (0, 2)]] {
            let board = StatusBoard::new(2, SESSION);
            assert_eq!(board.misfits(), 0);
            for (thread, misfits) in order {
                board.set_thread(thread, report(misfits));
            }
            assert_eq!(board.misfits(), 2);
            board.set_thread(1, report(3));
            assert_eq!(board.misfits(), 5);
            // A thread that drops its tasks holds nothing in part.
            board.set_thread(0, ThreadReport::default());
            assert_eq!(board.misfits(), 3);
        }
    }
}
