//! Why an instance has no answer to a read, and what the reader does about it: it goes on, as
//! another may have one, until its patience is over. Only if a store fails here does it give up
//! at once, unless it would take the answer of a standby.

use std::error::Error;
use std::time::Duration;

use turnstile_engine::Partition;
use turnstile_engine::runtime::QueryError;

use super::Unavailable;

/// How long to wait before all of it is repeated.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The same if a store has failed, which its instance logs each time.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// Why an instance has no answer.
pub(super) enum Missing {
    /// It does not have the task, or not yet, or cannot be asked.
    NotYet(String),
    /// Its store has failed.
    Failed(Box<dyn Error + Send + Sync>),
}

impl Missing {
    /// Why a task cannot be read here.
    pub(super) fn of(error: QueryError) -> Self {
        match error {
            QueryError::NotOwned { .. } | QueryError::NotRunning { .. } => {
                Self::NotYet(error.to_string())
            }
            QueryError::UnknownStore(_)
            | QueryError::State(_)
            | QueryError::UnreadableRow { .. } => Self::Failed(error.into()),
        }
    }

    /// The same, unless a store has failed here, where nobody but a standby can help.
    pub(super) fn or_give_up(self, max_stale: Option<Duration>) -> Result<Self, Unavailable> {
        match (self, max_stale) {
            (Self::Failed(error), None) => Err(Unavailable::Failed(error)),
            (missing, _) => Ok(missing),
        }
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::NotYet(_) => RETRY_PAUSE,
            Self::Failed(_) => FAILED_PAUSE,
        }
    }

    /// The same for a reader whose patience is over.
    pub(super) fn unavailable(self, partition: Partition) -> Unavailable {
        match self {
            Self::NotYet(why) => Unavailable::NotYet { partition, why },
            Self::Failed(error) => Unavailable::Failed(error),
        }
    }
}
