//! Where a deadline lives in the wheel: arithmetic, and nothing else.
//!
//! Ground rules:
//!
//! - A tick is one millisecond. A [`Tick`] is a timestamp shifted to be unsigned,
//!   so every timestamp is a tick, in the same order.
//! - A tick is a number of eleven digits in base 64. Digit 0 is the last one.
//! - The wheel stands at a tick, its *cursor*. A later deadline lives on the level
//!   of the first digit, read from the left, in which the two differ, in the slot
//!   numbered by the deadline's digit there.
//!
//! What follows from them, and what the wheel is built on:
//!
//! - The slot's number is greater than the cursor's digit on that level: no slot
//!   is ever meant for the next turn.
//! - All deadlines on one level are earlier than all on the levels above it.
//! - A slot of level 0 is a single tick.
//! - A deadline stays in its place while the cursor moves towards the start of
//!   its slot. Once the cursor stands there, it belongs to a lower level, or is due.

use crate::ids::TimestampMs;

/// Slots of a level: the values of a digit.
pub(super) const SLOTS: usize = 1 << DIGIT_BITS;

/// Levels of the wheel: digits of a tick.
pub(super) const LEVELS: usize = 11;

const DIGIT_BITS: u32 = 6;
const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;
const SIGN: u64 = 1 << 63;

/// A millisecond, counted from the smallest timestamp there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Tick(u64);

impl Tick {
    pub(super) fn of(timestamp: TimestampMs) -> Self {
        Self(timestamp.0.cast_unsigned() ^ SIGN)
    }

    pub(super) fn timestamp(self) -> TimestampMs {
        TimestampMs((self.0 ^ SIGN).cast_signed())
    }
}

/// A slot of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Below [`LEVELS`].
    pub(super) level: u32,
    /// Below [`SLOTS`].
    pub(super) slot: u32,
}

impl Place {
    /// The place of `deadline` in a wheel that stands at `cursor`; `None` if it is not later.
    pub(super) fn of(deadline: Tick, cursor: Tick) -> Option<Self> {
        if deadline <= cursor {
            return None;
        }
        let level = (deadline.0 ^ cursor.0).ilog2() / DIGIT_BITS;
        let digit = (deadline.0 >> (level * DIGIT_BITS)) & DIGIT_MASK;
        let slot = u32::try_from(digit).expect("a digit has six bits");
        Some(Self { level, slot })
    }

    /// The first tick of the slot, in a wheel that stands at `cursor`.
    pub(super) fn start(self, cursor: Tick) -> Tick {
        let above = (self.level + 1) * DIGIT_BITS;
        // The top level has no digits above it: there the shifts are wider than a tick.
        let prefix = cursor
            .0
            .checked_shr(above)
            .and_then(|digits| digits.checked_shl(above))
            .unwrap_or(0);
        Tick(prefix | u64::from(self.slot) << (self.level * DIGIT_BITS))
    }

    /// The last tick of the slot, in a wheel that stands at `cursor`.
    pub(super) fn end(self, cursor: Tick) -> Tick {
        let below = (1 << (self.level * DIGIT_BITS)) - 1;
        Tick(self.start(cursor).0 | below)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(level: u32, slot: u32) -> Option<Place> {
        Some(Place { level, slot })
    }

    #[test]
    fn a_deadline_lives_where_it_first_differs_from_the_cursor() {
        assert_eq!(Place::of(Tick(0), Tick(0)), None);
        assert_eq!(Place::of(Tick(5), Tick(6)), None);
        assert_eq!(Place::of(Tick(1), Tick(0)), place(0, 1));
        assert_eq!(Place::of(Tick(63), Tick(0)), place(0, 63));
        assert_eq!(Place::of(Tick(64), Tick(0)), place(1, 1));
        assert_eq!(Place::of(Tick(64), Tick(63)), place(1, 1));
        assert_eq!(Place::of(Tick(65), Tick(64)), place(0, 1));
        assert_eq!(Place::of(Tick(64 * 64), Tick(0)), place(2, 1));
        assert_eq!(
            Place::of(Tick(64 * 64 + 64 * 7 + 9), Tick(64 * 64)),
            place(1, 7)
        );
        assert_eq!(Place::of(Tick(u64::MAX), Tick(0)), place(10, 15));
        assert_eq!(Place::of(Tick(u64::MAX), Tick(u64::MAX - 1)), place(0, 63));
    }

    #[test]
    fn a_slot_starts_at_its_first_tick() {
        let start = |level, slot, cursor| Place { level, slot }.start(Tick(cursor)).0;
        assert_eq!(start(0, 9, 64 * 3 + 5), 64 * 3 + 9);
        assert_eq!(start(1, 4, 64 * 3 + 5), 64 * 4);
        assert_eq!(start(2, 1, 64 * 3 + 5), 64 * 64);
        assert_eq!(start(10, 15, 77), 15 << 60);
    }

    #[test]
    fn a_slot_ends_at_its_last_tick() {
        let end = |level, slot, cursor| Place { level, slot }.end(Tick(cursor)).0;
        assert_eq!(end(0, 9, 64 * 3 + 5), 64 * 3 + 9);
        assert_eq!(end(1, 4, 64 * 3 + 5), 64 * 5 - 1);
        assert_eq!(end(10, 15, 77), u64::MAX);
    }

    #[test]
    fn every_timestamp_is_a_tick_in_the_same_order() {
        let ordered = [i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX].map(TimestampMs);
        for timestamp in ordered {
            assert_eq!(Tick::of(timestamp).timestamp(), timestamp);
        }
        assert!(ordered.is_sorted_by_key(|timestamp| Tick::of(*timestamp)));
    }

    /// Two ticks that share a random number of leading bits, the smaller one first.
    fn two_ticks() -> impl Strategy<Value = (Tick, Tick)> {
        (any::<u64>(), any::<u64>(), 0..64_u32).prop_map(|(one, noise, shared)| {
            let other = one ^ (noise >> shared);
            (Tick(one.min(other)), Tick(one.max(other)))
        })
    }

    proptest! {
        #[test]
        fn a_place_is_ahead_of_the_cursor_and_holds_its_deadline((cursor, deadline) in two_ticks()) {
            prop_assume!(cursor < deadline);
            let place = Place::of(deadline, cursor).expect("the deadline is later");
            let start = place.start(cursor);
            prop_assert!(cursor < start && start <= deadline);
            prop_assert!((deadline.0 - start.0).checked_shr(place.level * DIGIT_BITS).unwrap_or(0) == 0);
            // In its own slot's start, a deadline is due or on a lower level.
            if let Some(next) = Place::of(deadline, start) {
                prop_assert!(next.level < place.level);
            }
        }

        #[test]
        fn a_place_stays_while_the_cursor_is_before_its_slot((cursor, deadline) in two_ticks(), part in any::<u64>()) {
            prop_assume!(cursor < deadline);
            let place = Place::of(deadline, cursor).expect("the deadline is later");
            let before_start = Tick(cursor.0 + part % (place.start(cursor).0 - cursor.0));
            prop_assert_eq!(Place::of(deadline, before_start), Some(place));
            prop_assert_eq!(place.start(before_start), place.start(cursor));
        }
    }
}
