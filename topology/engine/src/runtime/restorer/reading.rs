//! Reads changelogs to their ends, into the stores.

use std::time::{Duration, Instant};

use turnstile_state::Batch;

use super::{RECHECK, RestoreFault, Worker, changelog_of, offset_of};
use crate::Offset;
use crate::runtime::kafka::{ChangelogEvent, ChangelogReader, Position, TopicPartition};
use crate::runtime::restore_listener::{ChangelogRestoration, RestoreListener};
use crate::runtime::wake::Waker;
use crate::task::{ChangelogRestore, TaskError};

/// Changelog records that are written to a store at once.
const BATCH_RECORDS: usize = 2_000;

/// One changelog that is being read.
struct Reading {
    stores: ChangelogRestore,
    /// What the listeners are told of it.
    told: ChangelogRestoration,
    place: TopicPartition,
    batch: Batch,
    /// The offset after the last record of the batch.
    next: Offset,
    /// The records that were applied.
    records: u64,
    done: bool,
}

impl Reading {
    fn of(stores: ChangelogRestore, ends: &[Position]) -> Result<Self, TaskError> {
        let place = changelog_of(&stores);
        let end = offset_of(ends, &place).unwrap_or(Offset(0));
        let next = stores.next.unwrap_or(Offset(0));
        if next > end {
            return Err(stores.is_ahead_of(end));
        }
        let told = ChangelogRestoration {
            task: stores.task,
            stores: stores.stores(),
            changelog: stores.changelog.clone(),
            partition: place.partition,
            start: next,
            end,
        };
        Ok(Self {
            stores,
            told,
            place,
            batch: Batch::new(),
            next,
            records: 0,
            done: next == end,
        })
    }
}

impl Worker {
    /// Reads changelogs to these ends, and tells the listeners whatever comes of it. Says how
    /// many records there were.
    pub(super) fn read_changelogs(
        &self,
        restores: Vec<ChangelogRestore>,
        ends: &[Position],
    ) -> Result<u64, RestoreFault> {
        let readings = restores.into_iter().map(|of| Reading::of(of, ends));
        let mut readings: Vec<Reading> = readings.collect::<Result<_, _>>()?;
        for reading in &readings {
            self.listeners.on_restore_start(&reading.told);
            if reading.done {
                self.listeners.on_restore_end(&reading.told, 0);
            }
        }
        let read = self.read(&mut readings);
        if read.is_err() {
            for reading in readings.iter().filter(|reading| !reading.done) {
                self.listeners
                    .on_restore_suspended(&reading.told, reading.records);
            }
        }
        read?;
        Ok(readings.iter().map(|reading| reading.records).sum())
    }

    fn read(&self, readings: &mut [Reading]) -> Result<(), RestoreFault> {
        let starts: Vec<(TopicPartition, Option<Offset>)> = readings
            .iter()
            .filter(|reading| !reading.done)
            .map(|reading| (reading.place.clone(), reading.stores.next))
            .collect();
        if starts.is_empty() {
            return Ok(());
        }
        let reader = ChangelogReader::start(&self.config, &starts, Waker::default())?;
        let mut said = Instant::now();
        while readings.iter().any(|reading| !reading.done) {
            self.check_cancelled()?;
            let mut read = 0;
            for reading in readings.iter_mut().filter(|reading| !reading.done) {
                read += self.read_some(&reader, reading)?;
            }
            if read == 0 {
                self.end_by_position(&reader, readings)?;
                reader.wait(RECHECK)?;
            }
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                let records: u64 = readings.iter().map(|reading| reading.records).sum();
                let remaining: i64 = readings
                    .iter()
                    .map(|reading| reading.told.end.0.saturating_sub(reading.next.0))
                    .sum();
                tracing::info!(records, remaining, "restoring");
            }
        }
        Ok(())
    }

    /// Applies what there is of one changelog, at most a batch; says how much it was.
    fn read_some(
        &self,
        reader: &ChangelogReader,
        reading: &mut Reading,
    ) -> Result<u64, RestoreFault> {
        let mut records = 0;
        let mut ended = false;
        let Reading {
            stores,
            told,
            place,
            batch,
            next,
            ..
        } = reading;
        reader.read(place, BATCH_RECORDS, |event| -> Result<(), RestoreFault> {
            match event {
                ChangelogEvent::Record { offset, key, value } => {
                    stores.add(batch, key, value)?;
                    *next = Offset(offset.0 + 1);
                    records += 1;
                }
                ChangelogEvent::End => ended = true,
            }
            Ok(())
        })?;
        // What lies between the last record and the end are markers and gaps.
        if ended || *next >= told.end {
            ended = true;
            *next = (*next).max(told.end);
        }
        if records > 0 || ended {
            stores.write(std::mem::take(batch), *next)?;
        }
        reading.records += records;
        reading.done = ended;
        if records > 0 {
            let Reading { told, next, .. } = reading;
            self.listeners.on_batch_restored(told, *next, records);
        }
        if ended {
            self.listeners
                .on_restore_end(&reading.told, reading.records);
        }
        Ok(records)
    }

    /// Ends those readings whose position has passed the end with no record to show for it.
    fn end_by_position(
        &self,
        reader: &ChangelogReader,
        readings: &mut [Reading],
    ) -> Result<(), RestoreFault> {
        let positions = reader.positions()?;
        for reading in readings.iter_mut().filter(|reading| !reading.done) {
            let at = offset_of(&positions, &reading.place);
            if at.is_some_and(|at| at >= reading.told.end) {
                reading.next = reading.told.end;
                self.read_some(reader, reading)?;
            }
        }
        Ok(())
    }
}
