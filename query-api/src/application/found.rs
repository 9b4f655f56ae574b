//! What a reader tolerates, and what it gets for it.

use std::time::Duration;

use tokio::time::Instant;

/// How long a reader waits, and which staleness it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// When it gives up.
    pub deadline: Instant,
    /// How stale an answer may be; `None`: not at all.
    pub max_stale: Option<Duration>,
}

impl Patience {
    /// Patience for committed rows, until `deadline`.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            max_stale: None,
        }
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T> {
    /// The row or rows.
    pub value: T,
    /// How stale it is; `None`: it is the committed state.
    pub staleness: Option<Staleness>,
}

/// How stale an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    /// Everything committed this long ago is there. Parts of later transactions may be, so that
    /// rows need not be of one moment.
    pub age: Duration,
    /// How many changes the standby had yet to apply, by its latest report.
    pub records_behind: Option<u64>,
}

impl Staleness {
    /// The staleness of an answer that combines both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let sum = |(one, other): (u64, u64)| one.saturating_add(other);
        Self {
            age: self.age.max(other.age),
            records_behind: self.records_behind.zip(other.records_behind).map(sum),
        }
    }
}

impl<T> Found<T> {
    pub(super) fn current(value: T) -> Self {
        Self {
            value,
            staleness: None,
        }
    }

    /// The same with its value mapped.
    #[must_use]
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Found<U> {
        Found {
            value: map(self.value),
            staleness: self.staleness,
        }
    }

    /// The same with its value mapped, unless `map` fails.
    ///
    /// # Errors
    ///
    /// Those of `map`.
    pub fn try_map<U, E>(self, map: impl FnOnce(T) -> Result<U, E>) -> Result<Found<U>, E> {
        Ok(Found {
            value: map(self.value)?,
            staleness: self.staleness,
        })
    }
}
