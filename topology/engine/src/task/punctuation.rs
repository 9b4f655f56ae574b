//! When the periodic callbacks of a task are due.
//!
//! A punctuator that missed several intervals, because the task was away or busy,
//! is called once and goes on from now.

use std::time::Duration;

use crate::TimestampMs;
use crate::processor::PunctuationType;
use crate::topology::{SubtopologyPlan, Topology};

struct Punctuation {
    processor: usize,
    kind: PunctuationType,
    interval: Duration,
    /// By its own clock; stream time starts with the first record.
    next: Option<TimestampMs>,
}

pub(super) struct Punctuations(Vec<Punctuation>);

impl Punctuations {
    pub(super) fn new(topology: &Topology, plan: &SubtopologyPlan) -> Self {
        let all = plan.processors.iter().flat_map(|index| {
            let processor = topology.processors.get(*index);
            processor
                .into_iter()
                .flat_map(|processor| &processor.punctuations)
                .map(|(kind, interval)| Punctuation {
                    processor: *index,
                    kind: *kind,
                    interval: *interval,
                    next: None,
                })
        });
        Self(all.collect())
    }

    /// Starts the wall clocks.
    pub(super) fn start(&mut self, now: TimestampMs) {
        for punctuation in &mut self.0 {
            punctuation.next = match punctuation.kind {
                PunctuationType::WallClockTime => Some(now.plus(punctuation.interval)),
                PunctuationType::StreamTime => None,
            };
        }
    }

    /// Those that are due, which then wait for their next interval.
    pub(super) fn take_due(
        &mut self,
        now: TimestampMs,
        stream_time: TimestampMs,
    ) -> Vec<(usize, PunctuationType)> {
        let mut due = Vec::new();
        for punctuation in &mut self.0 {
            let clock = match punctuation.kind {
                PunctuationType::WallClockTime => now,
                PunctuationType::StreamTime if stream_time == TimestampMs::default() => continue,
                PunctuationType::StreamTime => stream_time,
            };
            let next = *punctuation
                .next
                .get_or_insert(clock.plus(punctuation.interval));
            if next <= clock {
                due.push((punctuation.processor, punctuation.kind));
                let following = next.plus(punctuation.interval);
                punctuation.next = Some(if following > clock {
                    following
                } else {
                    clock.plus(punctuation.interval)
                });
            }
        }
        due
    }

    /// When the next one on the wall clock is due.
    pub(super) fn next_due(&self) -> Option<TimestampMs> {
        self.0
            .iter()
            .filter(|p| p.kind == PunctuationType::WallClockTime)
            .filter_map(|p| p.next)
            .min()
    }
}
