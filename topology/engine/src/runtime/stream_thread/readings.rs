//! Which tasks read which partition, and from where the fetcher has to read it.
//!
//! Tasks of several subtopologies read the same partition, each in its own group and each from the
//! position that its group has committed. The partition is fetched once, from the lowest of these
//! positions, and a task skips what is before its own. A task that begins later, and further
//! behind, makes the fetcher go back.

use crate::runtime::kafka::LaneId;
use crate::{Offset, TaskId};

/// A task that reads a lane, as its source of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) task: TaskId,
    pub(super) source: usize,
}

/// One lane of the fetcher.
#[derive(Debug)]
struct Reading {
    readers: Vec<Reader>,
    /// After the last record that came, or where reading began.
    next: Offset,
}

/// Who reads the lanes of a fetcher.
#[derive(Debug, Default)]
pub(super) struct Readings {
    lanes: Vec<Reading>,
}

impl Readings {
    /// Whether a lane has to be started for a reader that goes on at `next`: nobody reads it, or it
    /// is already past that.
    pub(super) fn has_to_start(&self, lane: Option<LaneId>, next: Offset) -> bool {
        let reading = lane.and_then(|LaneId(lane)| self.lanes.get(lane));
        reading.is_none_or(|reading| reading.readers.is_empty() || reading.next > next)
    }

    /// A lane was started at `next`.
    pub(super) fn started(&mut self, lane: LaneId, next: Offset) {
        self.reading(lane).next = next;
    }

    /// A reader joins a lane.
    pub(super) fn add(&mut self, lane: LaneId, reader: Reader) {
        self.reading(lane).readers.push(reader);
    }

    /// A task stops reading; returns the lanes that nobody reads any more.
    pub(super) fn remove(&mut self, task: TaskId) -> Vec<LaneId> {
        let mut empty = Vec::new();
        for (lane, reading) in (0..).map(LaneId).zip(&mut self.lanes) {
            let before = reading.readers.len();
            reading.readers.retain(|reader| reader.task != task);
            if reading.readers.is_empty() && before > 0 {
                empty.push(lane);
            }
        }
        empty
    }

    /// A record has come; returns who reads it.
    pub(super) fn readers(&mut self, LaneId(lane): LaneId, offset: Offset) -> &[Reader] {
        let Some(reading) = self.lanes.get_mut(lane) else {
            return &[];
        };
        reading.next = Offset(offset.0 + 1);
        &reading.readers
    }

    fn reading(&mut self, LaneId(lane): LaneId) -> &mut Reading {
        if self.lanes.len() <= lane {
            self.lanes.resize_with(lane + 1, || Reading {
                readers: Vec::new(),
                next: Offset(0),
            });
        }
        self.lanes
            .get_mut(lane)
            .expect("the lane was added a moment ago")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Partition, SubtopologyId};

    const LANE: LaneId = LaneId(1);

    fn reader(subtopology: u16) -> Reader {
        Reader {
            task: TaskId {
                subtopology: SubtopologyId(subtopology),
                partition: Partition(0),
            },
            source: 0,
        }
    }

    /// Two readers that began at 10.
    fn readings() -> Readings {
        let mut readings = Readings::default();
        assert!(readings.has_to_start(None, Offset(10)));
        readings.started(LANE, Offset(10));
        for subtopology in [0, 1] {
            readings.add(LANE, reader(subtopology));
        }
        readings
    }

    #[test]
    fn all_readers_of_a_lane_get_its_records() {
        let mut readings = readings();
        let both = [reader(0), reader(1)];
        assert_eq!(readings.readers(LANE, Offset(10)), both);
        assert_eq!(readings.readers(LaneId(0), Offset(3)), []);
        assert_eq!(readings.readers(LaneId(7), Offset(3)), []);
    }

    #[test]
    fn a_lane_goes_back_only_for_who_is_behind_it() {
        let mut readings = readings();
        assert!(!readings.has_to_start(Some(LANE), Offset(10)));
        readings.readers(LANE, Offset(14));
        assert!(!readings.has_to_start(Some(LANE), Offset(15)));
        assert!(!readings.has_to_start(Some(LANE), Offset(99)));
        assert!(readings.has_to_start(Some(LANE), Offset(14)));
    }

    #[test]
    fn a_lane_is_empty_when_its_last_reader_has_gone() {
        let mut readings = readings();
        assert_eq!(readings.remove(reader(0).task), []);
        assert_eq!(readings.remove(reader(0).task), []);
        assert_eq!(readings.remove(reader(1).task), [LANE]);
        assert_eq!(readings.remove(reader(1).task), []);
        // The next reader starts it, wherever it was.
        assert!(readings.has_to_start(Some(LANE), Offset(99)));
        readings.started(LANE, Offset(99));
        assert_eq!(readings.readers(LANE, Offset(99)), []);
    }
}
