//! Where the changelog partitions end, as far as anybody can say.
//!
//! All are asked for together. If one of them has no leader, or a leader that does not answer, the
//! others should not wait for it: then each is asked for alone, for a short time. Those without an
//! answer are left out from then on, and asked for alone once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Offset;
use crate::runtime::kafka::{EndOffsets, TopicPartition};

/// How long a partition that is asked for alone is waited for.
const ALONE_LIMIT: Duration = Duration::from_secs(1);
/// How long partitions are asked for one after the other if they could not be asked for together.
/// The rest have their turn with the next question.
const SEARCH_LIMIT: Duration = Duration::from_secs(3);
/// How long a partition without an answer is left out.
const LEFT_OUT: Duration = Duration::from_secs(5);

pub(super) struct LogEnds<'a> {
    ends: EndOffsets,
    /// Gives up soon.
    alone: EndOffsets,
    silent: Silent,
    /// Whether answers are not wanted any more.
    stop: &'a AtomicBool,
}

impl<'a> LogEnds<'a> {
    /// Asks for all together for as long as `limit`.
    pub(super) fn new(ends: &EndOffsets, limit: Duration, stop: &'a AtomicBool) -> Self {
        Self {
            ends: ends.within(limit),
            alone: ends.within(ALONE_LIMIT.min(limit)),
            silent: Silent::default(),
            stop,
        }
    }

    /// The ends of those of `places` for which there is an answer.
    pub(super) fn of(
        &mut self,
        places: &BTreeSet<TopicPartition>,
    ) -> BTreeMap<TopicPartition, Offset> {
        let due = self.silent.due(places, Instant::now());
        let together: Vec<TopicPartition> = self.silent.others(places);
        // If some are silent already, more may be for the same reason.
        let asked = if self.silent.any() {
            &self.alone
        } else {
            &self.ends
        };
        let mut ends = BTreeMap::new();
        match asked.of_led(&together) {
            Ok(positions) => ends.extend(positions),
            Err(fault) => {
                tracing::debug!(%fault, "changelog partitions are asked for one by one");
            }
        }
        let missing = together.into_iter();
        let missing = missing.filter(|place| !ends.contains_key(place)).collect();
        self.ask_alone(missing, SEARCH_LIMIT, &mut ends);
        self.ask_alone(due, ALONE_LIMIT, &mut ends);
        ends
    }

    /// Asks for one partition after the other, for as long as `limit` and one answer more.
    fn ask_alone(
        &mut self,
        places: Vec<TopicPartition>,
        limit: Duration,
        ends: &mut BTreeMap<TopicPartition, Offset>,
    ) {
        let begun = Instant::now();
        let (mut heard, mut lost) = (Vec::new(), Vec::new());
        let mut reason = None;
        for place in places {
            if begun.elapsed() >= limit || self.stop.load(Ordering::Relaxed) {
                break;
            }
            match self.alone.of_one(&place) {
                Ok(end) => {
                    if self.silent.remove(&place) {
                        heard.push(name_of(&place));
                    }
                    ends.insert(place, end);
                }
                Err(fault) => {
                    if self.silent.add(&place, Instant::now()) {
                        lost.push(name_of(&place));
                        reason = Some(fault);
                    }
                }
            }
        }
        if let Some(reason) = reason {
            let partitions = lost.join(" ");
            tracing::warn!(partitions, %reason, "nobody says where changelog partitions end: their standbys cannot be brought up to date until somebody does; all others are followed");
        }
        if !heard.is_empty() {
            let partitions = heard.join(" ");
            tracing::info!(partitions, "known again: where changelog partitions end");
        }
    }
}

fn name_of(place: &TopicPartition) -> String {
    format!("{}-{}", place.topic, place.partition)
}

/// The partitions that last had no answer, and when they are asked for again.
#[derive(Default)]
struct Silent(BTreeMap<TopicPartition, Instant>);

impl Silent {
    fn any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Those of `places` that last had an answer, or were never asked for.
    fn others(&self, places: &BTreeSet<TopicPartition>) -> Vec<TopicPartition> {
        let others = places.iter().filter(|place| !self.0.contains_key(place));
        others.cloned().collect()
    }

    /// Those of `places` that are to be asked for again, the longest waiting first.
    fn due(&self, places: &BTreeSet<TopicPartition>, now: Instant) -> Vec<TopicPartition> {
        let silent = self.0.iter();
        let due = silent.filter(|(place, again)| **again <= now && places.contains(place));
        let mut due: Vec<(&TopicPartition, &Instant)> = due.collect();
        due.sort_by_key(|(_, again)| **again);
        due.into_iter().map(|(place, _)| place.clone()).collect()
    }

    /// Notes that there was no answer for `place`; returns whether there was one before.
    fn add(&mut self, place: &TopicPartition, now: Instant) -> bool {
        self.0.insert(place.clone(), now + LEFT_OUT).is_none()
    }

    /// Notes that there was an answer for `place`; returns whether there was none before.
    fn remove(&mut self, place: &TopicPartition) -> bool {
        self.0.remove(place).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;

    fn place(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: "stores-changelog".into(),
            partition: Partition(partition),
        }
    }

    fn places(partitions: &[i32]) -> Vec<TopicPartition> {
        partitions.iter().copied().map(place).collect()
    }

    #[test]
    fn a_partition_without_an_answer_is_left_out_until_it_is_due_and_said_once() {
        let (mut silent, now) = (Silent::default(), Instant::now());
        let all: BTreeSet<TopicPartition> = places(&[0, 1, 2]).into_iter().collect();
        assert!(silent.add(&place(1), now));
        assert!(silent.any());
        assert_eq!(silent.others(&all), places(&[0, 2]));
        assert!(silent.due(&all, now).is_empty());
        let later = now + LEFT_OUT;
        assert_eq!(silent.due(&all, later), places(&[1]));
        assert!(!silent.add(&place(1), later));
        assert!(silent.due(&all, later).is_empty());
        assert!(silent.remove(&place(1)));
        assert!(!silent.remove(&place(1)));
        assert_eq!(silent.others(&all), places(&[0, 1, 2]));
    }

    #[test]
    fn all_partitions_without_an_answer_have_their_turn() {
        let (mut silent, begun) = (Silent::default(), Instant::now());
        let all: BTreeSet<TopicPartition> = places(&[0, 1, 2]).into_iter().collect();
        for (second, partition) in (0..).zip([2, 0, 1]) {
            silent.add(&place(partition), begun + Duration::from_secs(second));
        }
        let mut now = begun + LEFT_OUT * 2;
        assert_eq!(silent.due(&all, now), places(&[2, 0, 1]));
        for expected in [[0, 1, 2], [1, 2, 0], [2, 0, 1]] {
            let first = silent.due(&all, now).swap_remove(0);
            silent.add(&first, now);
            now += LEFT_OUT * 2;
            assert_eq!(silent.due(&all, now), places(&expected));
        }
        // Whoever does not want a partition does not wait for it.
        let others = places(&[1, 7]).into_iter().collect();
        assert_eq!(silent.due(&others, now), places(&[1]));
        assert_eq!(silent.others(&others), places(&[7]));
    }
}
