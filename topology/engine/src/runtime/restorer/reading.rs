//! Reads changelog partitions to their ends, each once for all tasks that need it.
//!
//! Reading begins where the task is that is furthest behind, and each task is handed its own
//! records. All tasks of a partition are at its end at the same time, as that is one place.
//!
//! Where there is much to read, several threads share the partitions, each with a reader of
//! its own: most of the time goes to the stores, which the tasks do not share. A thread reads its
//! partitions one after the other, so that few tasks at a time share the memory for what is not
//! on disk yet: the more of it each has, the less often RocksDB merges what it wrote.
//!
//! A task whose job is called off is left out from the next batch on, and its stores are let
//! go. Nothing of it is pending between two batches.

use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use super::worker::{RECHECK, Worker};
use super::{CalledOff, RestoreFault, offset_of};
use crate::Offset;
use crate::runtime::kafka::{ChangelogEvent, ChangelogReader, KafkaFault, TopicPartition};
use crate::runtime::restore_listener::{ChangelogRestoration, RestoreListener, RestoreListeners};
use crate::runtime::wake::Waker;
use crate::task::{ChangelogRestore, Dispatch, TaskError};

/// Changelog records that are read before stores are written.
const BATCH_RECORDS: usize = 2_000;

/// So many changelog records are worth a thread and its connection.
const RECORDS_PER_THREAD: i64 = 20_000;

/// From so many records in a partition on its tasks are loaded in bulk.
const BULK_RECORDS: i64 = 100_000;

/// A task that is behind the end of its changelog.
struct Behind {
    stores: ChangelogRestore,
    called_off: CalledOff,
    /// What the listeners are told of it.
    told: ChangelogRestoration,
    /// The records that were applied.
    records: u64,
    done: bool,
}

impl AsMut<ChangelogRestore> for Behind {
    fn as_mut(&mut self) -> &mut ChangelogRestore {
        &mut self.stores
    }
}

impl Behind {
    fn of(stores: ChangelogRestore, called_off: CalledOff, end: Offset) -> Result<Self, TaskError> {
        let start = stores.next.unwrap_or(Offset(0));
        if start > end {
            return Err(stores.is_ahead_of(end));
        }
        let told = ChangelogRestoration {
            task: stores.task,
            stores: stores.stores(),
            changelog: stores.changelog.clone(),
            partition: stores.task.partition,
            start,
            end,
        };
        Ok(Self {
            stores,
            called_off,
            told,
            records: 0,
            done: false,
        })
    }

    /// Writes what was taken, if anything was or the end is reached.
    fn write(
        &mut self,
        next: Offset,
        ended: bool,
        listeners: &RestoreListeners,
    ) -> Result<(), TaskError> {
        if self.stores.pending() == 0 && !ended {
            return Ok(());
        }
        let records = self.stores.write(next)?;
        self.records += records;
        if records > 0 {
            listeners.on_batch_restored(&self.told, next, records);
        }
        if ended {
            self.done = true;
            listeners.on_restore_end(&self.told, self.records);
        }
        Ok(())
    }
}

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

/// What the client's word that a partition has ended is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It counts where the client is at the end that was asked for, or past it.
    AtPosition,
    /// It was given before that. A broker that has just become the leader may not know yet how
    /// much is committed, and is asked once more before more is read.
    Short,
    /// It counts: reading began when the leader knew of the end. What lies between are gaps.
    Anywhere,
}

impl Reading {
    /// # Errors
    ///
    /// When stores hold more than the partition.
    pub(super) fn of(
        place: TopicPartition,
        end: Offset,
        stores: Vec<(ChangelogRestore, CalledOff)>,
    ) -> Result<Self, TaskError> {
        let tasks = stores.into_iter();
        let tasks = tasks.map(|(stores, called_off)| Behind::of(stores, called_off, end));
        let tasks: Vec<Behind> = tasks.collect::<Result<_, _>>()?;
        let starts = tasks.iter().map(|task| task.told.start);
        Ok(Self {
            next: starts.min().unwrap_or(end),
            dispatch: Dispatch::to(tasks.iter().map(|task| &task.stores)),
            place,
            end,
            tasks,
            ended: Ended::AtPosition,
        })
    }

    /// Tells the listeners that it begins, and of the tasks that have nothing to read, which
    /// are left out, that it ends.
    fn begin(&mut self, listeners: &RestoreListeners) {
        for task in &self.tasks {
            listeners.on_restore_start(&task.told);
        }
        self.leave_out(
            |task| task.told.start == task.told.end,
            |task| listeners.on_restore_end(&task.told, 0),
        );
    }

    /// Tells the listeners of the tasks that are not done that they will not be.
    fn suspend(&mut self, listeners: &RestoreListeners) {
        for task in self.tasks.iter().filter(|task| !task.done) {
            listeners.on_restore_suspended(&task.told, task.records);
        }
    }

    /// Leaves out the tasks whose jobs were called off.
    fn leave_out_unwanted(&mut self, listeners: &RestoreListeners) {
        self.leave_out(
            |task| !task.done && task.called_off.is_set(),
            |task| listeners.on_restore_suspended(&task.told, task.records),
        );
    }

    fn leave_out(&mut self, which: impl Fn(&Behind) -> bool, tell: impl Fn(&Behind)) {
        let before = self.tasks.len();
        self.tasks.retain(|task| {
            let stays = !which(task);
            if !stays {
                tell(task);
            }
            stays
        });
        if self.tasks.len() < before {
            self.dispatch = Dispatch::to(self.tasks.iter().map(|task| &task.stores));
        }
    }

    fn is_done(&self) -> bool {
        self.tasks.iter().all(|task| task.done)
    }

    /// How many offsets lie before the end.
    fn remaining(&self) -> i64 {
        self.end.0.saturating_sub(self.next.0)
    }

    /// Has what is loaded in bulk make room for what is still to be loaded.
    fn begin_flush(&self) -> Result<(), TaskError> {
        let mut tasks = self.tasks.iter();
        tasks.try_for_each(|task| task.stores.begin_flush_of_bulk())
    }

    fn set_bulk_load(&mut self, in_bulk: bool) -> Result<(), TaskError> {
        let mut tasks = self.tasks.iter_mut();
        tasks.try_for_each(|task| task.stores.set_bulk_load(in_bulk))
    }
}

impl Worker {
    /// Reads changelogs to their ends, and tells the listeners whatever comes of it. Says how
    /// many records the stores were given.
    pub(super) fn read_changelogs(&self, mut readings: Vec<Reading>) -> Result<u64, RestoreFault> {
        for reading in &mut readings {
            reading.begin(&self.listeners);
        }
        readings.retain(|reading| !reading.tasks.is_empty());
        let read = self.read_side_by_side(&mut readings);
        if read.is_err() {
            for reading in &mut readings {
                reading.suspend(&self.listeners);
            }
        }
        read?;
        Ok(records_of(&readings))
    }

    /// Reads all partitions, on as many threads as they are worth, one a core at most.
    fn read_side_by_side(&self, readings: &mut [Reading]) -> Result<(), RestoreFault> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let remaining: i64 = readings.iter().map(Reading::remaining).sum();
        let worth = remaining / RECORDS_PER_THREAD;
        let threads = usize::try_from(worth).unwrap_or(0).clamp(1, cores);
        if threads == 1 || readings.len() < 2 {
            return self.read(readings);
        }
        thread::scope(|scope| {
            let shares = readings.chunks_mut(readings.len().div_ceil(threads));
            let reading: Vec<_> = shares
                .map(|share| scope.spawn(|| self.read(share)))
                .collect();
            // All of them end before any fault is told: nobody writes to the stores then.
            let ended: Vec<_> = reading
                .into_iter()
                .map(|thread| {
                    let ended = thread.join();
                    ended.unwrap_or_else(|_| Err(RestoreFault::panicked()))
                })
                .collect();
            ended.into_iter().collect()
        })
    }

    fn read(&self, readings: &mut [Reading]) -> Result<(), RestoreFault> {
        let starts = readings.iter();
        let starts: Vec<(TopicPartition, Option<Offset>)> = starts
            .map(|reading| (reading.place.clone(), Some(reading.next)))
            .collect();
        if starts.is_empty() {
            return Ok(());
        }
        let reader = ChangelogReader::start(&self.config, &starts, Waker::default())?;
        for reading in readings.iter_mut() {
            reading.set_bulk_load(reading.remaining() >= BULK_RECORDS)?;
        }
        let left = (0..readings.len()).rev();
        for (left, reading) in left.zip(readings.iter_mut()) {
            self.read_to_end(&reader, reading)?;
            reader.stop(&reading.place)?;
            if left > 0 {
                reading.begin_flush()?;
            }
        }
        reader.close();
        // Not before: merging files of what is loaded would take cores from what is not.
        let mut readings = readings.iter_mut();
        readings.try_for_each(|reading| reading.set_bulk_load(false))?;
        Ok(())
    }

    fn read_to_end(
        &self,
        reader: &ChangelogReader,
        reading: &mut Reading,
    ) -> Result<(), RestoreFault> {
        let mut said = Instant::now();
        loop {
            reading.leave_out_unwanted(&self.listeners);
            if reading.is_done() {
                return Ok(());
            }
            self.check_stopped()?;
            let read = self.read_some(reader, reading)?;
            if reading.ended == Ended::Short {
                return self.read_on(reading);
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

    /// Reads on with another reader, from a leader that knows of the end.
    fn read_on(&self, reading: &mut Reading) -> Result<(), RestoreFault> {
        let (place, next, end) = (reading.place.clone(), reading.next, reading.end);
        tracing::info!(topic = %place.topic, partition = %place.partition, %next, %end, "a changelog seemed to end early; reading on");
        self.wait_until_stable(&place, end, || {
            reading.leave_out_unwanted(&self.listeners);
            !reading.is_done()
        })?;
        if reading.is_done() {
            return Ok(());
        }
        let starts = [(place, Some(next))];
        // From the leader, which was asked: a follower that is near may not know of that end.
        let mut config = self.config.clone();
        config.kafka_properties.remove("client.rack");
        let reader = ChangelogReader::start(&config, &starts, Waker::default())?;
        reading.ended = Ended::Anywhere;
        self.read_to_end(&reader, reading)?;
        reader.close();
        Ok(())
    }

    /// Applies what there is of one partition, at most a batch; says how many records were
    /// read, those of others included.
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
        // What lies between the last record and the end are markers and gaps.
        let is_done =
            *next >= *end || told && (*ended == Ended::Anywhere || is_past(reader, place, *end)?);
        if is_done {
            *next = (*next).max(*end);
        } else if told {
            *ended = Ended::Short;
        }
        for task in tasks {
            task.write(*next, is_done, &self.listeners)?;
        }
        Ok(read)
    }

    /// Ends a reading whose position has passed the end with no record to show for it; says
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

/// The records that the stores were given.
fn records_of(readings: &[Reading]) -> u64 {
    let tasks = readings.iter().flat_map(|reading| &reading.tasks);
    tasks.map(|task| task.records).sum()
}
