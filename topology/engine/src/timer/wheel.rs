//! A hierarchical timer wheel: keyed one-shot timers in memory.
//!
//! After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987);
//! where a deadline lives is worked out in [`tick`](super::tick).
//!
//! - The wheel stands at its *cursor*. Timers after it are in slots; timers that it
//!   has reached are in the *due* set, ordered by deadline, then key.
//! - The cursor moves from occupied slot to occupied slot: empty time is crossed
//!   in one step, however long. Where it arrives it opens the slot: each timer is
//!   due, or moves to a lower level. A timer moves at most once a level, so insert,
//!   cancel and tick cost O(1), amortised. What is due at one moment is sorted:
//!   O(log d) a timer for d of them.
//! - What fires, and in which order, is a function of the timers that were
//!   inserted and cancelled: neither of the order of the insertions, nor of how the
//!   time was cut into calls, nor of the iteration order of a hash map.
//! - A timer fires only if its deadline is at or before the `now` of that very
//!   call. Time may go backwards between calls: then nothing fires until it has
//!   caught up.
//!
//! The wheel reads no clock, runs no callbacks, and remembers nothing after a crash.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::slots::{NodeIndex, Slots};
use super::tick::{Place, Tick};
use crate::ids::TimestampMs;

/// Pending timers of keys of type `K`, at most one a key.
#[derive(Debug)]
pub(crate) struct TimerWheel<K> {
    cursor: Tick,
    /// The node of every pending timer.
    nodes: HashMap<K, NodeIndex>,
    /// All nodes; those after the cursor are in chains.
    slots: Slots<K>,
    /// The timers at or before the cursor.
    due: BTreeSet<(Tick, K)>,
}

impl<K: Clone + Ord + Hash> TimerWheel<K> {
    /// An empty wheel that stands at `now`.
    pub(crate) fn new(now: TimestampMs) -> Self {
        Self {
            cursor: Tick::of(now),
            nodes: HashMap::new(),
            slots: Slots::new(),
            due: BTreeSet::new(),
        }
    }

    /// Sets the timer of `key`, replacing any that it has.
    pub(crate) fn insert(&mut self, deadline: TimestampMs, key: K) {
        self.cancel(&key);
        let node = self.slots.add(Tick::of(deadline), key.clone());
        self.nodes.insert(key, node);
        self.place(node);
    }

    /// Forgets the timer of `key`; returns whether it had one.
    pub(crate) fn cancel<Q>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let Some((key, node)) = self.nodes.remove_entry(key) else {
            return false;
        };
        let deadline = self.slots.deadline(node);
        match Place::of(deadline, self.cursor) {
            Some(place) => self.slots.unlink(node, place),
            None => assert!(
                self.due.remove(&(deadline, key)),
                "what the cursor has reached is due"
            ),
        }
        self.slots.remove(node);
        true
    }

    /// Appends to `fired` the timers with a deadline at or before `now`, by deadline,
    /// then key, at most `limit` of them, and forgets them. The rest fires in the next call.
    pub(crate) fn advance(
        &mut self,
        now: TimestampMs,
        limit: usize,
        fired: &mut Vec<(TimestampMs, K)>,
    ) {
        let now = Tick::of(now);
        let full = fired.len().saturating_add(limit);
        loop {
            while fired.len() < full
                && let Some(timer) = self.pop_due(now)
            {
                fired.push(timer);
            }
            if fired.len() >= full {
                return;
            }
            match self.slots.first_occupied() {
                Some(place) if place.start(self.cursor) <= now => self.open(place),
                _ => break,
            }
        }
        // All slots start later than `now`, so their timers stay where they are.
        self.cursor = self.cursor.max(now);
    }

    /// A time no later than any pending timer, and at most a slot before the earliest one; `None`
    /// if there is no timer. Calling [`advance`](Self::advance) at each such time fires every timer
    /// at its deadline, after at most one call per level.
    pub(crate) fn next_deadline_hint(&self) -> Option<TimestampMs> {
        self.next_deadline(Place::start)
    }

    /// A time no earlier than the earliest pending timer, and at most a slot after it; `None` if
    /// there is no timer.
    pub(crate) fn next_deadline_at_latest(&self) -> Option<TimestampMs> {
        self.next_deadline(Place::end)
    }

    /// The deadline of the earliest timer if the cursor has reached it, or else this bound of its slot.
    fn next_deadline(&self, bound: fn(Place, Tick) -> Tick) -> Option<TimestampMs> {
        let due = self.due.first().map(|(deadline, _)| *deadline);
        let slot = || self.slots.first_occupied();
        let next = due.or_else(|| slot().map(|place| bound(place, self.cursor)));
        next.map(Tick::timestamp)
    }

    /// The number of pending timers.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn pop_due(&mut self, now: Tick) -> Option<(TimestampMs, K)> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (deadline, key) = self.due.pop_first()?;
        let node = self.nodes.remove(&key).expect("a due timer has a node");
        self.slots.remove(node);
        Some((deadline.timestamp(), key))
    }

    /// Moves the cursor to the start of the first occupied slot, and its timers to where they belong then.
    fn open(&mut self, first: Place) {
        self.cursor = first.start(self.cursor);
        while let Some(node) = self.slots.unlink_any(first) {
            self.place(node);
        }
    }

    /// Puts a node that is in no chain where it belongs.
    fn place(&mut self, node: NodeIndex) {
        let deadline = self.slots.deadline(node);
        match Place::of(deadline, self.cursor) {
            Some(place) => self.slots.link(node, place),
            None => {
                self.due.insert((deadline, self.slots.key(node).clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::timer::tick::LEVELS;

    fn advance(wheel: &mut TimerWheel<u8>, now: i64, limit: usize) -> Vec<(i64, u8)> {
        let mut fired = Vec::new();
        wheel.advance(TimestampMs(now), limit, &mut fired);
        fired
            .into_iter()
            .map(|(deadline, key)| (deadline.0, key))
            .collect()
    }

    fn wheel_with(now: i64, timers: &[(i64, u8)]) -> TimerWheel<u8> {
        let mut wheel = TimerWheel::new(TimestampMs(now));
        for (deadline, key) in timers {
            wheel.insert(TimestampMs(*deadline), *key);
        }
        wheel
    }

    #[test]
    fn a_timer_fires_at_its_deadline_and_once() {
        let mut wheel = wheel_with(0, &[(120_000, 1)]);
        assert_eq!(advance(&mut wheel, 119_999, 10), []);
        assert_eq!(advance(&mut wheel, 120_000, 10), [(120_000, 1)]);
        assert_eq!(advance(&mut wheel, 120_001, 10), []);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn what_is_due_comes_by_deadline_then_key_and_within_the_limit() {
        let mut wheel = wheel_with(100, &[(300, 9), (300, 1), (50, 2), (200, 7), (301, 3)]);
        assert_eq!(advance(&mut wheel, 300, 3), [(50, 2), (200, 7), (300, 1)]);
        assert_eq!(advance(&mut wheel, 300, 3), [(300, 9)]);
        assert_eq!(advance(&mut wheel, 301, 0), []);
        assert_eq!(advance(&mut wheel, 301, 3), [(301, 3)]);
    }

    #[test]
    fn a_second_timer_of_a_key_replaces_the_first() {
        let mut wheel = wheel_with(0, &[(10, 1), (5000, 1)]);
        assert_eq!(wheel.len(), 1);
        assert_eq!(advance(&mut wheel, 4999, 10), []);
        assert_eq!(advance(&mut wheel, 5000, 10), [(5000, 1)]);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire_whether_it_is_due_or_not() {
        let mut wheel = wheel_with(0, &[(10, 1), (10, 2), (10, 3), (90_000, 4)]);
        assert_eq!(advance(&mut wheel, 10, 1), [(10, 1)]);
        assert!(wheel.cancel(&2));
        assert!(wheel.cancel(&4));
        assert!(!wheel.cancel(&4));
        assert_eq!(advance(&mut wheel, 100_000, 10), [(10, 3)]);
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing_early() {
        let mut wheel = wheel_with(0, &[(50, 1), (60, 2)]);
        assert_eq!(advance(&mut wheel, 1000, 1), [(50, 1)]);
        wheel.insert(TimestampMs(40), 3);
        assert_eq!(advance(&mut wheel, 30, 10), []);
        assert_eq!(advance(&mut wheel, 40, 10), [(40, 3)]);
        assert_eq!(advance(&mut wheel, 59, 10), []);
        assert_eq!(advance(&mut wheel, 60, 10), [(60, 2)]);
    }

    #[test]
    fn all_of_time_is_crossed_in_a_few_steps() {
        // A step a tick would not end within the age of the universe.
        let mut wheel = wheel_with(i64::MIN, &[(i64::MAX, 1), (0, 2), (i64::MIN, 3)]);
        assert_eq!(
            advance(&mut wheel, i64::MAX - 1, 10),
            [(i64::MIN, 3), (0, 2)]
        );
        assert_eq!(advance(&mut wheel, i64::MAX, 10), [(i64::MAX, 1)]);
        assert_eq!(wheel.next_deadline_hint(), None);
    }

    #[test]
    fn a_sleeper_that_follows_the_hint_wakes_in_time_and_rarely() {
        let deadline = 1_700_000_123_456;
        let mut wheel = wheel_with(1_700_000_000_000, &[(deadline, 1)]);
        let mut calls = 0;
        while let Some(hint) = wheel.next_deadline_hint() {
            assert!(hint.0 <= deadline);
            calls += 1;
            assert!(calls <= LEVELS);
            if let [(fired, 1)] = advance(&mut wheel, hint.0, 10)[..] {
                assert_eq!((fired, hint.0), (deadline, deadline));
            }
        }
        assert_eq!(wheel.len(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A deadline, relative to the clock.
        Insert(i64, u8),
        Cancel(u8),
        /// A move of the clock, and a limit.
        Advance(i64, usize),
        AdvanceToHint,
    }

    /// Spans of every size that a level of the wheel is made for, and a few backwards.
    fn span() -> impl Strategy<Value = i64> {
        prop_oneof![
            4 => (0..62_u32, any::<u64>()).prop_map(|(bits, noise)| (noise & ((1 << bits) - 1)).cast_signed()),
            4 => 0..200_i64,
            1 => -5000..0_i64,
            1 => Just(i64::MAX),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (span(), 0..24_u8).prop_map(|(span, key)| Step::Insert(span, key)),
            1 => (0..24_u8).prop_map(Step::Cancel),
            2 => (span(), 0..6_usize).prop_map(|(span, limit)| Step::Advance(span, limit)),
            2 => Just(Step::AdvanceToHint),
        ]
    }

    /// The same timers in an ordered map: what the wheel is measured against.
    #[derive(Default)]
    struct Model {
        deadlines: BTreeMap<u8, i64>,
    }

    impl Model {
        fn advance(&mut self, now: i64, limit: usize) -> Vec<(i64, u8)> {
            let mut due: Vec<_> = self
                .deadlines
                .iter()
                .map(|(key, deadline)| (*deadline, *key))
                .collect();
            due.retain(|(deadline, _)| *deadline <= now);
            due.sort_unstable();
            due.truncate(limit);
            for (_, key) in &due {
                self.deadlines.remove(key);
            }
            due
        }
    }

    proptest! {
        #[test]
        fn a_wheel_is_an_ordered_map_of_timers(
            start in prop_oneof![Just(i64::MIN), Just(-1_i64), Just(1_700_000_000_000_i64), any::<i64>()],
            steps in vec(step(), 1..120),
        ) {
            let mut wheel = TimerWheel::new(TimestampMs(start));
            let mut model = Model::default();
            let mut clock = start;
            for step in steps {
                match step {
                    Step::Insert(span, key) => {
                        let deadline = clock.saturating_add(span);
                        wheel.insert(TimestampMs(deadline), key);
                        model.deadlines.insert(key, deadline);
                    }
                    Step::Cancel(key) => {
                        prop_assert_eq!(wheel.cancel(&key), model.deadlines.remove(&key).is_some());
                    }
                    Step::Advance(span, limit) => {
                        clock = clock.saturating_add(span);
                        prop_assert_eq!(advance(&mut wheel, clock, limit), model.advance(clock, limit));
                    }
                    Step::AdvanceToHint => {
                        clock = wheel.next_deadline_hint().map_or(clock, |hint| hint.0);
                        prop_assert_eq!(advance(&mut wheel, clock, 3), model.advance(clock, 3));
                    }
                }
                prop_assert_eq!(wheel.len(), model.deadlines.len());
                let next = model.deadlines.values().min().copied();
                let hint = wheel.next_deadline_hint().map(|hint| hint.0);
                prop_assert_eq!(hint.is_some(), next.is_some());
                prop_assert!(hint <= next);
                let latest = wheel.next_deadline_at_latest().map(|latest| latest.0);
                prop_assert_eq!(latest.is_some(), next.is_some());
                prop_assert!(next <= latest);
            }
        }
    }
}
