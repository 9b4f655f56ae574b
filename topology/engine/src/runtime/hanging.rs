//! Transactions that hang on partitions that are read here.
//!
//! Records are read up to the last stable offset of a partition: where its first pending
//! transaction begins. A transaction that never ends, because brokers have lost its marker or its
//! producer hangs, stops the tasks that read the partition, but shows no lag, which is counted up
//! to there. So the last stable offset is compared with the end of the log.
//!
//! Pure: the caller passes these offsets and the time.

use std::collections::BTreeMap;
use std::mem;
use std::time::{Duration, Instant};

use super::kafka::{Position, TopicPartition};
use crate::Offset;

/// A transaction that is pending for longer hangs: it has no owner that will end it, nor will
/// brokers.
pub(crate) const HANGING: Duration = Duration::from_secs(60);
/// If brokers were not asked for longer, they may have been away: then they end nothing.
const UNASKED_MAX: Duration = Duration::from_secs(30);

/// A partition on which a transaction is pending.
struct Pending {
    /// Where it begins.
    stable: Offset,
    /// When it was first seen.
    since: Instant,
    hangs: bool,
}

/// The partitions that are read here on which transactions are pending.
#[derive(Default)]
pub(crate) struct Hanging {
    pending: BTreeMap<TopicPartition, Pending>,
    /// When brokers were last asked.
    asked: Option<Instant>,
}

impl Hanging {
    /// Takes in the last stable offsets of the partitions that are read here, and the ends of their
    /// logs. Returns those on which a transaction hangs that did not before.
    pub(crate) fn take_in(
        &mut self,
        stable: &[Position],
        ends: &[Position],
        now: Instant,
    ) -> Vec<TopicPartition> {
        let unasked = self.asked.replace(now);
        let unasked = unasked.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if unasked > UNASKED_MAX {
            self.pending.retain(|_, pending| pending.hangs);
        }
        let ends: BTreeMap<&TopicPartition, Offset> =
            ends.iter().map(|(place, end)| (place, *end)).collect();
        let mut before = mem::take(&mut self.pending);
        let mut begun = Vec::new();
        for (place, stable) in stable {
            if ends.get(place).is_none_or(|end| stable >= end) {
                continue;
            }
            // Another one begins elsewhere.
            let known = before.remove(place);
            let known = known.filter(|pending| pending.stable == *stable);
            let mut pending = known.unwrap_or(Pending {
                stable: *stable,
                since: now,
                hangs: false,
            });
            if !pending.hangs && now.saturating_duration_since(pending.since) > HANGING {
                pending.hangs = true;
                begun.push(place.clone());
            }
            self.pending.insert(place.clone(), pending);
        }
        begun
    }

    /// On how many partitions a transaction hangs.
    pub(crate) fn number(&self) -> usize {
        let pending = self.pending.values();
        pending.filter(|pending| pending.hangs).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;

    const SAMPLE: Duration = Duration::from_secs(2);

    fn place(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: "orders".into(),
            partition: Partition(partition),
        }
    }

    /// The brokers, as they are asked again and again.
    struct Samples {
        hanging: Hanging,
        now: Instant,
    }

    impl Samples {
        fn new() -> Self {
            Self {
                hanging: Hanging::default(),
                now: Instant::now(),
            }
        }

        /// Asks once, after a sample's time: the partitions from 0 on are stable there, and end
        /// there. The numbers of those on which a transaction hangs since.
        fn ask(&mut self, partitions: &[(i64, i64)]) -> Vec<i32> {
            self.now += SAMPLE;
            let (mut stable, mut ends) = (Vec::new(), Vec::new());
            for (partition, (stable_end, log_end)) in (0..).zip(partitions) {
                stable.push((place(partition), Offset(*stable_end)));
                ends.push((place(partition), Offset(*log_end)));
            }
            // Brokers answer in no particular order.
            ends.reverse();
            let begun = self.hanging.take_in(&stable, &ends, self.now);
            begun.iter().map(|place| place.partition.0).collect()
        }

        /// Asks for so long, and gets the same answer each time.
        fn ask_for(&mut self, time: Duration, partitions: &[(i64, i64)]) -> Vec<i32> {
            let until = self.now + time;
            let mut begun = Vec::new();
            while self.now < until {
                begun.extend(self.ask(partitions));
            }
            begun
        }
    }

    #[test]
    fn a_transaction_hangs_that_is_pending_for_longer_than_a_minute() {
        let mut samples = Samples::new();
        let partitions = [(5, 9), (7, 7)];
        assert_eq!(samples.ask_for(HANGING + SAMPLE, &partitions), [0; 0]);
        assert_eq!(samples.hanging.number(), 0);
        // It is told of once, and shown for as long as it lasts, whatever comes behind it.
        assert_eq!(samples.ask(&partitions), [0]);
        assert_eq!(samples.ask_for(HANGING * 3, &[(5, 20), (7, 7)]), [0; 0]);
        assert_eq!(samples.hanging.number(), 1);
        assert_eq!(samples.ask(&[(20, 20), (7, 7)]), [0; 0]);
        assert_eq!(samples.hanging.number(), 0);
    }

    #[test]
    fn transactions_that_end_do_not_hang_however_many_follow() {
        let mut samples = Samples::new();
        let mut offset = 0;
        for _ in 0..10 {
            // One of them is always pending.
            offset += 3;
            let begun = samples.ask_for(HANGING / 2, &[(offset, offset + 2)]);
            assert_eq!(begun, [0; 0]);
        }
        assert_eq!(samples.hanging.number(), 0);
        assert_eq!(
            samples.ask_for(HANGING, &[(offset, offset + 2)]),
            [0],
            "the last one does"
        );
    }

    #[test]
    fn what_is_read_elsewhere_is_no_matter_here() {
        let mut samples = Samples::new();
        let both = [(5, 9), (1, 2)];
        assert_eq!(samples.ask_for(HANGING + SAMPLE * 2, &both), [0, 1]);
        assert_eq!(samples.ask(&both[..1]), [0; 0]);
        assert_eq!(samples.hanging.number(), 1);
        // It comes back: nobody has looked meanwhile.
        assert_eq!(samples.ask_for(HANGING, &both), [0; 0]);
        assert_eq!(samples.ask_for(SAMPLE * 2, &both), [1]);
    }

    #[test]
    fn the_time_in_which_brokers_do_not_answer_does_not_count() {
        let mut samples = Samples::new();
        let hangs = (5, 9);
        samples.ask_for(HANGING * 2, &[hangs]);
        let both = [hangs, (3, 4)];
        assert_eq!(samples.ask(&both), [0; 0]);
        samples.now += HANGING * 10;
        assert_eq!(samples.ask(&both), [0; 0]);
        // What did hang still does, and is not told of again.
        assert_eq!(samples.hanging.number(), 1);
        assert_eq!(samples.ask_for(HANGING + SAMPLE, &both), [1]);
    }
}
