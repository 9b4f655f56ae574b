//! Why a task cannot go on; the variants are named by the remedy.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;
use turnstile_state::{StateError, UnreadableChangelog};

use crate::processor::ProcessorError;
use crate::record::Origin;
use crate::{Offset, TaskId};

/// Why a task cannot go on.
#[derive(Debug, Error)]
pub enum TaskError {
    /// A record was rejected at a source that must not lose any: fix it or the code, then start
    /// again.
    #[error("task {task} stopped at {origin}: {kind}: {reason}")]
    Rejected {
        /// The task.
        task: TaskId,
        /// The record.
        origin: Origin,
        /// The class of the fault.
        kind: &'static str,
        /// What is wrong with the record.
        reason: String,
    },
    /// The application's code is wrong.
    #[error("task {task} stopped at {at}: its processor failed")]
    Processor {
        /// The task.
        task: TaskId,
        /// What it was handling.
        at: String,
        /// What the processor said.
        source: ProcessorError,
    },
    /// The application's code panicked: fix it, or skip what it cannot handle.
    #[error("task {task} stopped at {at}: its code panicked: {message}")]
    Panicked {
        /// The task.
        task: TaskId,
        /// What it was handling.
        at: String,
        /// What the code said.
        message: String,
    },
    /// The stores of the task are damaged, or belong to another history: wipe them and restore from
    /// the changelog.
    #[error("the stores of task {task} are corrupted")]
    Corrupted {
        /// The task.
        task: TaskId,
        /// What could not be read.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The changelog holds a record that no task of this release wrote, and would still hold it
    /// after a restore from scratch: start the release that wrote it.
    #[error("{changelog}-{}@{offset} cannot be read: it is of another release, or not of this application", task.partition)]
    Changelog {
        /// The task.
        task: TaskId,
        /// The topic.
        changelog: String,
        /// Where the record lies.
        offset: Offset,
        /// What is wrong with it.
        source: UnreadableChangelog,
    },
    /// The changelog is gone, so the stores on disk may be the last copy: investigate before
    /// removing any of them.
    #[error(
        "{changelog}-{} holds nothing, but the stores of task {task} hold its records up to offset {reached}: the topic was deleted and made anew, or brokers have lost it. What instances have in their state directories may be the last copy: save it first. To go on without it stop all instances, remove their state directories, and have the groups read from the start what topics still have (kafka-consumer-groups.sh --reset-offsets --to-earliest)",
        task.partition
    )]
    ChangelogLost {
        /// The task.
        task: TaskId,
        /// The topic.
        changelog: String,
        /// The stores hold all their own records before this offset.
        reached: Offset,
    },
    /// The disk failed: fix that, then start again.
    #[error("the stores of task {task} failed")]
    State {
        /// The task.
        task: TaskId,
        /// What failed.
        source: StateError,
    },
}

impl TaskError {
    /// The task that cannot go on.
    #[must_use]
    pub fn task(&self) -> TaskId {
        match self {
            Self::Rejected { task, .. }
            | Self::Processor { task, .. }
            | Self::Panicked { task, .. }
            | Self::Corrupted { task, .. }
            | Self::Changelog { task, .. }
            | Self::ChangelogLost { task, .. }
            | Self::State { task, .. } => *task,
        }
    }

    /// `at` is what the processor was handling.
    pub(crate) fn of_processor(task: TaskId, at: impl Display, error: ProcessorError) -> Self {
        match error {
            ProcessorError::State(error) => Self::of_state(task, error),
            // A row that the codec cannot read came from the changelog, and would again.
            source => Self::Processor {
                task,
                at: at.to_string(),
                source,
            },
        }
    }

    /// Returns the result of `call`, or a fault if it panicked.
    pub(super) fn unless_panic<R>(
        task: TaskId,
        at: impl Display,
        call: impl FnOnce() -> R,
    ) -> Result<R, Self> {
        // Whatever the code left half done is dropped with its task.
        catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let message = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Self::Panicked {
                task,
                at: at.to_string(),
                message: message.unwrap_or_else(|| "something that is no text".to_owned()),
            }
        })
    }

    pub(crate) fn of_state(task: TaskId, error: StateError) -> Self {
        if error.is_mended_by_wiping() {
            Self::Corrupted {
                task,
                source: Box::new(error),
            }
        } else {
            Self::State {
                task,
                source: error,
            }
        }
    }
}
