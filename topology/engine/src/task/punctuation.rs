//! When the periodic callbacks of a task are due.
//!
//! A punctuator that missed several intervals, because the task was away or busy,
//! is called once and goes on from now. Neither clock survives a restart: an
//! interval begins anew with the task, that of stream time with its first record.

use std::time::Duration;

use crate::TimestampMs;
use crate::processor::PunctuationType;
use crate::topology::{SubtopologyPlan, Topology};

#[derive(Clone)]
struct Punctuation {
    processor: usize,
    kind: PunctuationType,
    interval: Duration,
    /// By its own clock; stream time starts with the first record.
    next: Option<TimestampMs>,
}

/// The periodic callbacks of a task.
#[derive(Clone)]
pub(super) struct Punctuations {
    all: Vec<Punctuation>,
    /// The greatest timestamp of a record since the task started.
    stream_time: Option<TimestampMs>,
}

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
        Self {
            all: all.collect(),
            stream_time: None,
        }
    }

    /// Starts the wall clocks; those of stream time wait for a record.
    pub(super) fn start(&mut self, now: TimestampMs) {
        self.stream_time = None;
        for punctuation in &mut self.all {
            punctuation.next = match punctuation.kind {
                PunctuationType::WallClockTime => Some(now.plus(punctuation.interval)),
                PunctuationType::StreamTime => None,
            };
        }
    }

    /// A record with this time has come.
    pub(super) fn observe(&mut self, timestamp: TimestampMs) {
        self.stream_time = self.stream_time.max(Some(timestamp));
        for punctuation in &mut self.all {
            if punctuation.kind == PunctuationType::StreamTime {
                let first = timestamp.plus(punctuation.interval);
                punctuation.next.get_or_insert(first);
            }
        }
    }

    /// Those that are due, which then wait for their next interval.
    pub(super) fn take_due(&mut self, now: TimestampMs) -> Vec<(usize, PunctuationType)> {
        let mut due = Vec::new();
        for punctuation in &mut self.all {
            let clock = match punctuation.kind {
                PunctuationType::WallClockTime => Some(now),
                PunctuationType::StreamTime => self.stream_time,
            };
            let (Some(clock), Some(next)) = (clock, punctuation.next) else {
                continue;
            };
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

    /// When the next one is due on the wall clock. One of stream time is due at
    /// once, whatever the wall clock says, or not before another record.
    pub(super) fn next_due(&self) -> Option<TimestampMs> {
        let dues = self.all.iter().filter_map(|punctuation| {
            let next = punctuation.next?;
            match punctuation.kind {
                PunctuationType::WallClockTime => Some(next),
                PunctuationType::StreamTime => {
                    (next <= self.stream_time?).then_some(TimestampMs(i64::MIN))
                }
            }
        });
        dues.min()
    }
}
