//! When the periodic callbacks of a task are due.
//!
//! A punctuator that missed several intervals, because the task was away or busy, is called once
//! and goes on from now. If the wall clock was set back, an interval starts anew: nobody waits for
//! the time that it showed before. Neither clock survives a restart: an interval starts anew with
//! the task, that of stream time with its first record.

use std::time::Duration;

use crate::TimestampMs;
use crate::processor::PunctuationType;
use crate::topology::{SubtopologyPlan, Topology};

/// Where stream time ends, so that the deadline after it is later than any stream time: otherwise
/// it would be due for ever once a record has the greatest of all timestamps.
const STREAM_TIME_MAX: TimestampMs = TimestampMs(i64::MAX - 1);

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
    /// The greatest timestamp of a record since the task started, [`STREAM_TIME_MAX`] at most.
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

    /// The greatest timestamp of a record since the task started, which clocks can show.
    pub(super) fn stream_time(&self) -> Option<TimestampMs> {
        self.stream_time
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
        let timestamp = timestamp.min(STREAM_TIME_MAX);
        self.stream_time = self.stream_time.max(Some(timestamp));
        for punctuation in &mut self.all {
            if punctuation.kind == PunctuationType::StreamTime {
                let first = timestamp.plus(punctuation.interval);
                punctuation.next.get_or_insert(first);
            }
        }
    }

    /// Takes those that are due, which then wait for their next interval. None waits for longer
    /// than one.
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
            let latest = clock.plus(punctuation.interval);
            punctuation.next = Some(if next <= clock {
                due.push((punctuation.processor, punctuation.kind));
                let following = next.plus(punctuation.interval);
                if following > clock { following } else { latest }
            } else {
                // It is later than that if the clock was set back.
                next.min(latest)
            });
        }
        due
    }

    /// When [`Punctuations::take_due`] next has something to do on the wall clock, which shows
    /// `now`. A stream-time punctuation is due at once, whatever the wall clock says, or not before
    /// another record.
    pub(super) fn next_due(&self, now: TimestampMs) -> Option<TimestampMs> {
        let dues = self.all.iter().filter_map(|punctuation| {
            let next = punctuation.next?;
            match punctuation.kind {
                PunctuationType::WallClockTime => {
                    // The clock was set back: that has to be noticed at once, or the
                    // interval would seem to begin anew whenever it is asked for.
                    let is_set_back = next > now.plus(punctuation.interval);
                    Some(if is_set_back { now } else { next })
                }
                PunctuationType::StreamTime => {
                    (next <= self.stream_time?).then_some(TimestampMs(i64::MIN))
                }
            }
        });
        dues.min()
    }
}
