//! The system clock, and the only place that reads it as a time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::TimestampMs;

/// The wall-clock time.
#[must_use]
pub fn now() -> TimestampMs {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    TimestampMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
