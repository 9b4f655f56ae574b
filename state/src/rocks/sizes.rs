//! How large the stores of a database are.
//!
//! RocksDB counts the keys of a database, not of a store. The rows of small stores are counted
//! here. Larger stores share the rest of RocksDB's count in proportion to their bytes on disk
//! divided by their average row size, which is estimated from the first few rows.

use rocksdb::{DB, ErrorKind, Range, ReadOptions, properties};

use super::rows::{RowPrefix, Rows};
use crate::{ScanDirection, StoreStats};

/// The number of rows that are sampled: a store with fewer is counted.
const SAMPLE_ROWS: u64 = 64;

/// The most deleted rows in succession that are skipped; then sampling stops.
const SKIPPED_MAX: u64 = 1_000;

/// The least that a row takes, including what RocksDB adds.
const ROW_BYTES_MIN: u64 = 16;

/// What the first rows of a store tell about it.
#[derive(Default)]
struct Sample {
    rows: u64,
    bytes: u64,
    /// Whether there are no more rows.
    is_all: bool,
}

impl Sample {
    fn of(database: &DB, store: RowPrefix) -> Result<Self, rocksdb::Error> {
        let mut options = ReadOptions::default();
        options.set_max_skippable_internal_keys(SKIPPED_MAX);
        let mut rows = Rows::between(database, store.all(), ScanDirection::Forward, options);
        let mut sample = Self::default();
        while sample.rows < SAMPLE_ROWS {
            match rows.next() {
                Some(Ok((key, value))) => {
                    sample.rows += 1;
                    sample.bytes += (key.len() + value.len()) as u64;
                }
                Some(Err(error)) if error.kind() == ErrorKind::Incomplete => return Ok(sample),
                Some(Err(error)) => return Err(error),
                None => {
                    sample.is_all = true;
                    return Ok(sample);
                }
            }
        }
        Ok(sample)
    }

    fn row_bytes(&self) -> u64 {
        (self.bytes / self.rows.max(1)).max(ROW_BYTES_MIN)
    }
}

/// The sizes of these stores in `database`, in their order.
pub(super) fn of_stores(
    database: &DB,
    stores: &[RowPrefix],
) -> Result<Vec<StoreStats>, rocksdb::Error> {
    let samples: Result<Vec<Sample>, _> = stores
        .iter()
        .map(|store| Sample::of(database, *store))
        .collect();
    let samples = samples?;
    let bounds: Vec<_> = stores.iter().map(|store| store.all()).collect();
    let ranges: Vec<Range<'_>> = bounds
        .iter()
        .map(|(start, end)| Range::new(start, end))
        .collect();
    let on_disk = database.get_approximate_sizes(&ranges);
    // The rows that each of the larger stores would have if nothing was compressed or stale.
    let weights: Vec<u64> = samples
        .iter()
        .zip(&on_disk)
        .map(|(sample, bytes)| match sample.is_all {
            true => 0,
            false => bytes / sample.row_bytes(),
        })
        .collect();
    let counted = samples.iter().filter(|sample| sample.is_all);
    let counted: u64 = counted.map(|sample| sample.rows).sum();
    let keys = database
        .property_int_value(properties::ESTIMATE_NUM_KEYS)?
        .unwrap_or(0);
    let shared = u128::from(keys.saturating_sub(counted));
    let weight_of_all: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let stats = samples.iter().zip(weights).zip(on_disk);
    let stats = stats.map(|((sample, weight), on_disk)| {
        if sample.is_all {
            return StoreStats {
                keys: sample.rows,
                bytes: sample.bytes,
            };
        }
        let share = shared * u128::from(weight) / weight_of_all.max(1);
        StoreStats {
            keys: u64::try_from(share).unwrap_or(u64::MAX).max(sample.rows),
            bytes: on_disk,
        }
    });
    Ok(stats.collect())
}
