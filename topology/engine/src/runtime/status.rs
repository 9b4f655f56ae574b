//! What an instance says of itself: for readiness checks and people.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use serde::Serialize;

use crate::{TaskId, TaskStatus};

/// One task that the instance holds in at least one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskReport {
    /// Which one.
    pub task: TaskId,
    /// Where it is in its life cycle, by name.
    pub status: &'static str,
    /// Why it does not run, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The state of an instance at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Whether every consumer group has assigned and every task that is owned runs.
    pub ready: bool,
    /// What is wrong or still to come, for a person; empty when ready.
    pub problems: Vec<String>,
    /// The tasks, by id.
    pub tasks: Vec<TaskReport>,
}

#[derive(Default)]
struct ThreadState {
    joined: bool,
    problem: Option<String>,
    tasks: BTreeMap<TaskId, (TaskStatus, Option<String>)>,
}

/// Where the stream threads report to.
#[derive(Clone, Default)]
pub(crate) struct StatusBoard {
    threads: Arc<RwLock<BTreeMap<usize, ThreadState>>>,
}

impl StatusBoard {
    pub(crate) fn new(threads: usize) -> Self {
        let board = Self::default();
        board
            .threads
            .write()
            .extend((0..threads).map(|thread| (thread, ThreadState::default())));
        board
    }

    /// Replaces what is known of a thread.
    pub(crate) fn set_thread(
        &self,
        thread: usize,
        joined: bool,
        problem: Option<String>,
        tasks: BTreeMap<TaskId, (TaskStatus, Option<String>)>,
    ) {
        self.threads.write().insert(
            thread,
            ThreadState {
                joined,
                problem,
                tasks,
            },
        );
    }

    pub(crate) fn status(&self) -> InstanceStatus {
        let threads = self.threads.read();
        let mut problems = Vec::new();
        let mut tasks = Vec::new();
        for (number, thread) in threads.iter() {
            if !thread.joined {
                problems.push(format!(
                    "stream thread {number} has no assignment of all its groups yet"
                ));
            }
            problems.extend(thread.problem.clone());
            for (task, (status, reason)) in &thread.tasks {
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
        self.threads.read().values().all(|thread| thread.joined)
    }

    /// How many tasks have this status.
    pub(crate) fn count(&self, status: TaskStatus) -> usize {
        let threads = self.threads.read();
        threads
            .values()
            .flat_map(|thread| thread.tasks.values())
            .filter(|(s, _)| *s == status)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, SubtopologyId};

    fn task(partition: i32) -> TaskId {
        TaskId {
            subtopology: SubtopologyId(0),
            partition: Partition(partition),
        }
    }

    #[test]
    fn an_instance_is_ready_when_all_threads_have_joined_and_all_tasks_run() {
        let board = StatusBoard::new(2);
        let status = board.status();
        assert!(!status.ready);
        assert_eq!(status.problems.len(), 2, "{status:?}");
        let running = [(task(1), (TaskStatus::Running, None))];
        board.set_thread(0, true, None, running.into());
        assert!(!board.status().ready);
        assert!(!board.all_joined());
        board.set_thread(1, true, None, [].into());
        assert!(board.all_joined());
        let status = board.status();
        assert!(status.ready, "{status:?}");
        assert_eq!(status.problems, [""; 0]);
        assert_eq!(
            status.tasks,
            [TaskReport {
                task: task(1),
                status: "running",
                reason: None
            }]
        );
    }

    #[test]
    fn whatever_keeps_an_instance_from_being_ready_is_named() {
        let board = StatusBoard::new(1);
        for status in TaskStatus::ALL {
            let reason = Some("why".to_owned());
            board.set_thread(0, true, None, [(task(3), (status, reason))].into());
            let found = board.status();
            assert_eq!(found.ready, status == TaskStatus::Running);
            assert_eq!(found.ready, found.problems.is_empty());
            assert!(
                found.ready || found.problems[0].contains("0_3"),
                "{found:?}"
            );
            assert_eq!(found.tasks[0].reason.as_deref(), Some("why"));
        }
        board.set_thread(0, true, Some("a misfit".to_owned()), [].into());
        let found = board.status();
        assert_eq!(
            (found.ready, found.problems),
            (false, vec!["a misfit".to_owned()])
        );
    }

    #[test]
    fn tasks_are_shown_by_id_and_counted_over_all_threads() {
        let board = StatusBoard::new(2);
        let running = |partition| (task(partition), (TaskStatus::Running, None));
        let restoring = (task(0), (TaskStatus::Restoring, None));
        board.set_thread(0, true, None, [running(1), running(3)].into());
        board.set_thread(1, true, None, [running(2), restoring].into());
        let shown: Vec<TaskId> = board
            .status()
            .tasks
            .iter()
            .map(|report| report.task)
            .collect();
        assert_eq!(shown, [0, 1, 2, 3].map(task));
        assert_eq!(board.count(TaskStatus::Running), 3);
        assert_eq!(board.count(TaskStatus::Restoring), 1);
        assert_eq!(board.count(TaskStatus::Suspended), 0);
        // What is reported replaces what was.
        board.set_thread(0, true, None, [].into());
        assert_eq!(board.count(TaskStatus::Running), 1);
    }
}
