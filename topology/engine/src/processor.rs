//! Processors: the user's code.
//!
//! A processor gets the messages of its input streams one at a time, reads and writes its stores,
//! sends to sinks, forwards to outlets and sets timers, all through its [`Context`]. A call takes
//! effect as a whole or not at all; the contents of a transaction become visible at once when it
//! commits.
//!
//! A processor is synchronous and deterministic given its stores and [`Context::now`]: it keeps
//! what must survive in its stores, never in itself, because its task may be closed here and opened
//! on another machine at any time. A new processor is made whenever the task begins to run, so a
//! cache in its fields is never older than that.

use thiserror::Error;
use turnstile_state::{CodecError, StateError};

use crate::TimestampMs;
pub use crate::task::Context;

/// A keyed one-shot timer that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timer {
    /// The key it was scheduled under.
    pub key: Vec<u8>,
    /// When it was due; it fires at [`Context::now`], which is at or after that.
    pub deadline: TimestampMs,
}

/// The clock of a periodic callback. Both clocks, and the intervals, start anew whenever a task
/// begins to run, here or on another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PunctuationType {
    /// The system clock: it advances even when no records arrive.
    WallClockTime,
    /// The greatest timestamp of a record that the task has processed since it began to run
    /// ([`Context::stream_time`]): it advances only as records arrive, and the first interval
    /// begins with the first of them.
    StreamTime,
}

/// The user's code at one node of a topology.
pub trait Processor: Send + 'static {
    /// What its input streams carry, or what they convert into.
    type In: 'static;

    /// Handles one message.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Rejected`] for a message that cannot be processed: everything done for it
    /// so far is undone, and the error policy of its source decides. Any other error stops the
    /// instance.
    ///
    /// # Panics
    ///
    /// A panic, here or in the other methods, stops the instance regardless of the error policy.
    fn process(
        &mut self,
        context: &mut Context<'_>,
        message: Self::In,
    ) -> Result<(), ProcessorError>;

    /// Handles a timer that is due. The timer is no longer pending.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Rejected`] for a timer that cannot be handled, also if returned by a
    /// processor that it forwards to: everything done for it so far is undone, and the timer
    /// becomes a dead letter under its key, with the topic `<processor>-timers` and no offset. Any
    /// other error stops the instance, and so does this one if all sources of the subtopology have
    /// [`ErrorPolicy::Stop`](crate::ErrorPolicy::Stop).
    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        // A processor that schedules timers has to say what they do.
        let _ = context;
        Err(ProcessorError::UnexpectedTimer {
            key: String::from_utf8_lossy(&timer.key).into_owned(),
        })
    }

    /// Called at every interval that was declared with `punctuate`.
    ///
    /// # Errors
    ///
    /// Any error stops the instance.
    fn on_punctuate(
        &mut self,
        context: &mut Context<'_>,
        kind: PunctuationType,
    ) -> Result<(), ProcessorError> {
        let _ = context;
        Err(ProcessorError::UnexpectedPunctuation { kind })
    }
}

/// Why a processor could not do its work.
#[derive(Debug, Error)]
pub enum ProcessorError {
    /// This message can never be processed: the source's error policy decides. A timer becomes a
    /// dead letter, unless all sources of its subtopology have the policy to stop.
    #[error("rejected: {reason}")]
    Rejected {
        /// The class of the fault, for counting and for the dead letter's header `exception`.
        kind: &'static str,
        /// What is wrong with it, for humans.
        reason: String,
    },
    /// A store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A row of a store is not what its codec writes.
    #[error(
        "store {store} holds a row that cannot be read: another release wrote it in another encoding; read that too, or give the store another name, under which it begins empty"
    )]
    UnreadableRow {
        /// The store.
        store: String,
        /// What is wrong with the row.
        #[source]
        source: CodecError,
    },
    /// The processor used something that the topology does not connect it with.
    #[error(
        "processor {processor} uses the {kind} {name}, which its declaration does not mention: add it there"
    )]
    Undeclared {
        /// The processor.
        processor: String,
        /// `store`, `sink`, `outlet` or `timers`.
        kind: &'static str,
        /// What it used.
        name: String,
    },
    /// A processor that this one forwarded to failed in a way that stops the task.
    #[error("a processor that was forwarded to has failed, and the task stops")]
    Stopping,
    /// A timer fired at a processor that has no `on_timer`.
    #[error("a timer fired with key {key}, but the processor does not implement on_timer")]
    UnexpectedTimer {
        /// The key, as text.
        key: String,
    },
    /// A punctuation reached a processor that has no `on_punctuate`.
    #[error(
        "a {kind:?} punctuation is declared, but the processor does not implement on_punctuate"
    )]
    UnexpectedPunctuation {
        /// Its clock.
        kind: PunctuationType,
    },
}

impl ProcessorError {
    /// An error for a message that can never be processed.
    pub fn rejected(kind: &'static str, reason: impl Into<String>) -> Self {
        Self::Rejected {
            kind,
            reason: reason.into(),
        }
    }
}
