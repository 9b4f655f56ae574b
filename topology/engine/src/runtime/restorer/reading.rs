//! Reads changelog partitions to their ends, each once for all tasks that need it.
//!
//! Reading begins at the task that is furthest behind, and each task gets its own records. All
//! tasks of a partition reach its end at the same time, since that is one place.
//!
//! If there is much to read, several threads share the partitions, each with a reader of its own:
//! most of the time is spent in the stores, which the tasks do not share. A thread reads its
//! partitions one after the other, so that few tasks at a time share the memory for what is not on
//! disk yet: the more of it each has, the less often RocksDB merges what it wrote.
//!
//! The tasks of a partition are reported as soon as it is at its end: they run while others are
//! read.
//!
//! A task whose job is called off is left out from the next batch on, and its stores are released.
//! Nothing of it is pending between two batches.

use std::iter;
use std::mem;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::behind::Behind;
use super::results::Results;
use super::worker::{Found, RECHECK, Worker};
use super::{RestoreFault, Ticket, offset_of};
use crate::Offset;
use crate::runtime::kafka::{ChangelogEvent, ChangelogReader, KafkaFault, TopicPartition};
use crate::runtime::restore_listener::RestoreListeners;
use crate::runtime::wake::Waker;
use crate::task::{Dispatch, TaskError};

/// Changelog records that are read before stores are written.
const BATCH_RECORDS: usize = 2_000;

/// This many changelog records are worth a thread and its connection.
const RECORDS_PER_THREAD: i64 = 20_000;

/// From this many records in a partition on, its tasks are loaded in bulk.
const BULK_RECORDS: i64 = 100_000;

/// A changelog partition that is to be read to an end, with the tasks that need it.
pub(super) struct Reading {
    place: TopicPartition,
    end: Offset,
    tasks: Vec<Behind>,
    dispatch: Dispatch,
    /// The offset after the last record that was read.
    next: Offset,
    ended: Ended,
}

/// What the client's report that a partition has ended is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It counts if the client is at the end that was asked for, or past it.
    AtPosition,
    /// It came before that. A broker that has just become the leader may not know yet how much is
    /// committed, and is asked once more before more is read.
    Short,
    /// It counts: reading began when the leader knew of the end. What is in between are gaps.
    Anywhere,
}

impl Reading {
    pub(super) fn of(place: TopicPartition, end: Offset, tasks: Vec<Behind>) -> Self {
        let starts = tasks.iter().map(|task| task.told.start);
        Self {
            next: starts.min().unwrap_or(end),
            dispatch: Dispatch::to(tasks.iter().map(|task| &task.stores)),
            place,
            end,
            tasks,
            ended: Ended::AtPosition,
        }
    }

    /// Tells the listeners of its tasks that they will not be done.
    pub(super) fn suspend(&self, listeners: &RestoreListeners) {
        for task in &self.tasks {
            task.suspend(listeners);
        }
    }

    /// Leaves out the tasks whose jobs were called off.
    fn leave_out_unwanted(&mut self, listeners: &RestoreListeners) {
        let before = self.tasks.len();
        self.tasks.retain(|task| {
            let stays = task.done || task.found.ticket.is_wanted();
            if !stays {
                task.suspend(listeners);
            }
            stays
        });
        if self.tasks.len() < before {
            self.dispatch = Dispatch::to(self.tasks.iter().map(|task| &task.stores));
        }
    }

    /// Returns its tasks, which are done, without their stores.
    fn finish(&mut self) -> Result<Vec<Found>, TaskError> {
        self.set_bulk_load(false)?;
        let tasks = mem::take(&mut self.tasks).into_iter();
        Ok(tasks.map(|task| task.found).collect())
    }

    fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.done)
    }

    /// How many records the stores were given.
    fn records(&self) -> u64 {
        self.tasks.iter().map(|task| task.records).sum()
    }

    /// How many offsets are left before the end.
    fn remaining(&self) -> i64 {
        self.end.0.saturating_sub(self.next.0)
    }

    fn set_bulk_load(&mut self, in_bulk: bool) -> Result<(), TaskError> {
        let mut tasks = self.tasks.iter_mut();
        tasks.try_for_each(|task| task.stores.set_bulk_load(in_bulk))
    }
}

/// What one thread reads, with one reader.
pub(super) struct Share(Vec<Reading>);

impl Share {
    /// The jobs that it serves.
    fn tickets(&self) -> Vec<Ticket> {
        let tasks = self.0.iter().flat_map(|reading| &reading.tasks);
        tasks.map(|task| task.found.ticket.clone()).collect()
    }

    /// Splits partitions into as many shares as they are worth, at most one per core.
    pub(super) fn of(readings: Vec<Reading>) -> Vec<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let remaining: i64 = readings.iter().map(Reading::remaining).sum();
        let worth = usize::try_from(remaining / RECORDS_PER_THREAD).unwrap_or(0);
        let in_each = readings.len().div_ceil(worth.clamp(1, cores));
        let mut left = readings.into_iter();
        let shares = iter::from_fn(|| {
            let share = Vec::from_iter(left.by_ref().take(in_each));
            (!share.is_empty()).then_some(Self(share))
        });
        shares.collect()
    }
}

impl Worker {
    /// Has a thread read a share, or reports why none does.
    pub(super) fn begin_to_read<'scope>(
        &'scope self,
        share: Share,
        results: &'scope Results<'_>,
        scope: &'scope Scope<'scope, '_>,
    ) {
        let tickets = share.tickets();
        let thread = thread::Builder::new().name("restore-read".to_owned());
        let started = thread.spawn_scoped(scope, move || self.read_share(share, results));
        if let Err(error) = started {
            let fault = KafkaFault::Retriable {
                action: "start a thread that reads changelogs",
                reason: error.to_string(),
            };
            results.failed(tickets.into_iter(), fault.into());
        }
    }

    /// Reads partitions to their ends, one after the other, and reports the tasks of each when it
    /// is there; and those of the others, whatever comes of them.
    fn read_share(&self, Share(mut readings): Share, results: &Results<'_>) {
        // A thread that ended silently would leave its tasks waiting for ever.
        let read = catch_unwind(AssertUnwindSafe(|| self.read(&mut readings, results)));
        let read = read.unwrap_or_else(|_| Err(RestoreFault::panicked()));
        if let Err(fault) = read {
            for reading in &readings {
                reading.suspend(&self.listeners);
            }
            let tasks = readings.into_iter().flat_map(|reading| reading.tasks);
            results.failed(tasks.map(|task| task.found.ticket), fault);
        }
    }

    fn read(&self, readings: &mut [Reading], results: &Results<'_>) -> Result<(), RestoreFault> {
        let starts = readings.iter();
        let starts: Vec<(TopicPartition, Option<Offset>)> = starts
            .map(|reading| (reading.place.clone(), Some(reading.next)))
            .collect();
        let reader = ChangelogReader::start(&self.config, &starts, Waker::default())?;
        // All of them at once: the files of those that are loaded are not merged before the last
        // one is, since that would take cores from it.
        for reading in readings.iter_mut() {
            reading.set_bulk_load(reading.remaining() >= BULK_RECORDS)?;
        }
        let mut left = readings;
        while let [reading, next @ ..] = left {
            self.read_to_end(&reader, reading, next)?;
            reader.stop(&reading.place)?;
            let records = reading.records();
            results.restored(reading.finish()?, records);
            left = next;
        }
        reader.close();
        Ok(())
    }

    /// Reads one partition to its end, while others wait for their turn.
    fn read_to_end(
        &self,
        reader: &ChangelogReader,
        reading: &mut Reading,
        others: &mut [Reading],
    ) -> Result<(), RestoreFault> {
        let mut said = Instant::now();
        loop {
            self.leave_out_unwanted(reading, others);
            if reading.is_done() {
                return Ok(());
            }
            self.check_stopped()?;
            let read = self.read_some(reader, reading)?;
            if reading.ended == Ended::Short {
                return self.read_on(reading, others);
            }
            if read == 0 && !reading.is_done() && !self.end_by_position(reader, reading)? {
                reader.wait(RECHECK)?;
            }
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                let (partition, remaining) = (reading.place.partition, reading.remaining());
                tracing::info!(%partition, remaining, "restoring");
            }
        }
    }

    fn leave_out_unwanted(&self, reading: &mut Reading, others: &mut [Reading]) {
        for reading in iter::once(reading).chain(others) {
            reading.leave_out_unwanted(&self.listeners);
        }
    }

    /// Reads on with another reader, from a leader that knows of the end.
    fn read_on(&self, reading: &mut Reading, others: &mut [Reading]) -> Result<(), RestoreFault> {
        let (place, next, end) = (reading.place.clone(), reading.next, reading.end);
        tracing::info!(topic = %place.topic, partition = %place.partition, %next, %end, "a changelog seemed to end early; reading on");
        self.wait_until_stable(&place, end, || {
            self.leave_out_unwanted(reading, others);
            !reading.is_done()
        })?;
        if reading.is_done() {
            return Ok(());
        }
        let starts = [(place, Some(next))];
        // From the leader, which was asked: a nearby follower may not know of that end.
        let mut config = self.config.clone();
        config.kafka_properties.remove("client.rack");
        let reader = ChangelogReader::start(&config, &starts, Waker::default())?;
        reading.ended = Ended::Anywhere;
        self.read_to_end(&reader, reading, others)?;
        reader.close();
        Ok(())
    }

    /// Applies what there is of one partition, at most a batch; returns how many records were read,
    /// including those of other tasks.
    fn read_some(
        &self,
        reader: &ChangelogReader,
        reading: &mut Reading,
    ) -> Result<u64, RestoreFault> {
        let mut read = 0;
        let mut told = false;
        let Reading {
            place,
            end,
            tasks,
            dispatch,
            next,
            ended,
        } = reading;
        reader.read(place, BATCH_RECORDS, |event| -> Result<(), RestoreFault> {
            match event {
                ChangelogEvent::Record { offset, key, value } => {
                    dispatch.hand_out(tasks, offset, key, value)?;
                    *next = Offset(offset.0 + 1);
                    read += 1;
                }
                ChangelogEvent::End => told = true,
            }
            Ok(())
        })?;
        // What is between the last record and the end are markers and gaps.
        let is_done =
            *next >= *end || told && (*ended == Ended::Anywhere || is_past(reader, place, *end)?);
        if is_done {
            *next = (*next).max(*end);
        } else if told {
            *ended = Ended::Short;
        }
        let now = Instant::now();
        for task in tasks {
            task.write(*next, is_done, now, &self.listeners)?;
        }
        Ok(read)
    }

    /// Ends a reading whose position has passed the end with no record to show for it; returns
    /// whether it has.
    fn end_by_position(
        &self,
        reader: &ChangelogReader,
        reading: &mut Reading,
    ) -> Result<bool, RestoreFault> {
        let has_passed = is_past(reader, &reading.place, reading.end)?;
        if has_passed {
            reading.next = reading.end;
            self.read_some(reader, reading)?;
        }
        Ok(has_passed)
    }
}

/// Whether the client is at this end of a partition, or past it.
fn is_past(
    reader: &ChangelogReader,
    place: &TopicPartition,
    end: Offset,
) -> Result<bool, KafkaFault> {
    let at = offset_of(&reader.positions()?, place);
    Ok(at.is_some_and(|at| at >= end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use turnstile_state::{Backend, MemoryBackend};

    use super::super::CalledOff;
    use super::super::behind::{Begun, TasksBeingRead};
    use super::*;
    use crate::quiet;
    use crate::task::ChangelogRestore;

    #[test]
    fn stores_are_read_into_for_one_job_at_a_time() {
        let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
        let of = &plan.subtopologies[0];
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
        let task = plan.tasks()[0];
        let being_read = TasksBeingRead::default();
        let begin = |end| {
            let ticket = Ticket {
                task,
                called_off: CalledOff::default(),
                submitted: Instant::now(),
                stores: None,
            };
            let found = Found::of(&ticket, Vec::new(), Vec::new());
            let stores = ChangelogRestore::of(task, of, &backend).unwrap().unwrap();
            let listeners = RestoreListeners(Vec::new());
            Behind::begin(found, stores, Offset(end), &being_read, &listeners).unwrap()
        };
        let is_current = matches!(begin(0), Begun::Current(_));
        assert!(is_current, "there is nothing to read");
        assert!(!being_read.contains(task));
        let place = TopicPartition {
            topic: "app-stores-changelog".into(),
            partition: task.partition,
        };
        let reading = || match begin(3) {
            Begun::Behind(behind) => Reading::of(place.clone(), Offset(3), vec![*behind]),
            Begun::Current(_) => unreachable!("there is something to read"),
        };
        let mut finished = reading();
        assert!(being_read.contains(task));
        let found = finished.finish().unwrap();
        assert_eq!(found.len(), 1);
        assert!(!being_read.contains(task), "it is told, and may run");
        // A job that is called off is left out between two batches.
        let mut unwanted = reading();
        for task in &unwanted.tasks {
            task.found.ticket.called_off.set();
        }
        assert!(being_read.contains(task));
        unwanted.leave_out_unwanted(&RestoreListeners(Vec::new()));
        assert!(!being_read.contains(task));
    }
}
