//! Until when a standby is known to hold everything.
//!
//! A changelog keeps the tombstone of a deleted row for a day. A standby that could not read for
//! longer, because its partition had no leader or the process was suspended, would read on past
//! tombstones that are gone, and bring their rows back. So what holds for stores on disk holds for
//! open ones: when they have been behind for too long they are not used.
//!
//! The wall clock counts, since the monotonic clock rests while a machine is suspended. A clock
//! that is set back makes nothing older.

use std::time::{Duration, SystemTime};

use crate::runtime::task_stores::AGE_MAX;

/// Until when stores that follow their changelog are known to hold everything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownUntil(SystemTime);

impl KnownUntil {
    /// For stores that are opened `now`, and were unused for `age` before, if there were any.
    /// Stores that hold no records yet have missed none of them.
    pub(super) fn when_opened(age: Option<Duration>, holds_records: bool, now: SystemTime) -> Self {
        let age = age.filter(|_| holds_records).unwrap_or_default();
        Self(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Takes in that by `now` the stores hold everything that existed when a sample was taken, at
    /// `sampled`. Returns whether that counts: stores that are too old may have read past
    /// tombstones.
    pub(super) fn reach(&mut self, sampled: SystemTime, now: SystemTime) -> bool {
        let counts = !self.is_too_old(now);
        if counts {
            self.0 = sampled;
        }
        counts
    }

    /// Whether the stores may miss a tombstone by `now`.
    pub(super) fn is_too_old(self, now: SystemTime) -> bool {
        now.duration_since(self.0).is_ok_and(|age| age > AGE_MAX)
    }

    /// The moment, for the note of the stores.
    pub(super) fn time(self) -> SystemTime {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + AGE_MAX * 1_000
    }

    #[test]
    fn stores_are_as_old_when_they_are_opened_as_they_were_on_disk() {
        let now = start();
        for (age, holds_records, expected) in [
            (Some(MINUTE), true, now - MINUTE),
            (Some(AGE_MAX * 2), true, now - AGE_MAX * 2),
            // They have been wiped, or nothing was ever restored to them.
            (Some(AGE_MAX * 2), false, now),
            (None, false, now),
            (None, true, now),
            // The note cannot be read.
            (Some(Duration::MAX), true, SystemTime::UNIX_EPOCH),
        ] {
            let opened = KnownUntil::when_opened(age, holds_records, now);
            assert_eq!(opened.time(), expected, "{age:?} {holds_records}");
        }
    }

    #[test]
    fn a_standby_that_is_not_brought_up_to_date_gets_too_old() {
        let known = KnownUntil::when_opened(Some(MINUTE), true, start());
        assert!(!known.is_too_old(start()));
        assert!(!known.is_too_old(start() + AGE_MAX - MINUTE));
        assert!(known.is_too_old(start() + AGE_MAX));
        // One that restores from scratch has as long from when it was opened.
        let known = KnownUntil::when_opened(None, false, start());
        assert!(!known.is_too_old(start() + AGE_MAX));
        assert!(known.is_too_old(start() + AGE_MAX + MINUTE));
    }

    #[test]
    fn a_standby_that_reaches_one_sample_after_the_other_does_not_get_old() {
        let mut known = KnownUntil::when_opened(None, false, start());
        let mut now = start();
        for _ in 0..10 {
            let sampled = now + AGE_MAX / 2;
            now = sampled + MINUTE;
            assert!(known.reach(sampled, now));
            assert_eq!(known.time(), sampled);
        }
    }

    #[test]
    fn what_is_reached_after_too_long_a_pause_does_not_count() {
        let mut known = KnownUntil::when_opened(None, false, start());
        let sampled = start() + MINUTE;
        assert!(known.reach(sampled, sampled));
        let thawed = sampled + AGE_MAX * 2;
        assert!(!known.reach(thawed, thawed));
        assert_eq!(known.time(), sampled);
        assert!(known.is_too_old(thawed));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_old() {
        let mut known = KnownUntil::when_opened(None, false, start());
        let before = start() - AGE_MAX * 2;
        assert!(!known.is_too_old(before));
        assert!(known.reach(before, before));
        assert_eq!(known.time(), before);
    }
}
