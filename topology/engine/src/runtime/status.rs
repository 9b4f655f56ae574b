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
