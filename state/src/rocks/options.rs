//! How the databases of tasks are set up.
//!
//! Most of it is fixed, because it is right for every task of a stream application: many small databases in one process, point lookups
//! of keys that often do not exist, values that compress well.

use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, DBCompactionStyle, DBCompressionType,
    DataBlockIndexType, LogLevel, Options, UniversalCompactOptions,
};

use super::RocksMemory;
use super::flusher::Flusher;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Of a database, as RocksDB has them unless told otherwise.
pub(super) const LEVELS: usize = 7;

/// What was drained is soon merged with others.
const FRESH_COMPRESSION: DBCompressionType = DBCompressionType::None;

/// From so many sorted files on some are merged: the smaller ones first, and all where there is as much in
/// them as in the largest ([`SPACE_MAX_PERCENT`]). A row is so written a few times, where it would be with each fourth
/// drain if all that was drained were merged into one sorted level.
pub(super) const UNMERGED_FILES: u32 = 8;

/// What files may hold beyond the largest one, in percent of it.
const SPACE_MAX_PERCENT: i32 = 100;

/// What RocksDB calls that number.
pub(super) const UNMERGED_FILES_OPTION: &str = "level0_file_num_compaction_trigger";

/// So many while rows are loaded in bulk: fewer than the 36 at which writers wait.
pub(super) const UNMERGED_FILES_IN_BULK: u32 = 16;

/// The options that have no setters of their own. Files that RocksDB writes itself are written in pieces of
/// 64 KiB: each database has three that are always open, and it would keep up to a mebibyte for each
/// that it merges. And its identity, which its manifest has, gets no file of its own, to be written and
/// synced whenever a task begins with an empty disk.
const WITHOUT_SETTER: &str = "writable_file_max_buffer_size=65536;write_identity_file=false";

/// What a compaction reads ahead of each of its files.
const READ_AHEAD_BYTES: usize = 256 * KIB;

/// How the databases of tasks are set up.
#[derive(Debug, Clone)]
pub struct RocksOptions {
    /// Shared by all databases of the process.
    pub memory: RocksMemory,
    /// The files that one database keeps open at most.
    pub max_open_files: i32,
    /// RocksDB's threads in the background, over all databases. It keeps one of two for flushes, of
    /// which there are none.
    pub background_jobs: i32,
    /// The writes in the buffer of one database, in bytes, at which it is drained, even if the shared budget would allow more.
    pub buffer_bytes_max: usize,
    /// Shared by all databases that are opened with these options or clones of them.
    pub(super) flusher: Flusher,
}

impl RocksOptions {
    /// The defaults, with the given memory.
    #[must_use]
    pub fn new(memory: RocksMemory) -> Self {
        Self {
            memory,
            max_open_files: 256,
            background_jobs: 2,
            buffer_bytes_max: 16 * MIB,
            flusher: Flusher::default(),
        }
    }

    /// The options of a database.
    pub(super) fn to_rocksdb(&self) -> Result<Options, rocksdb::Error> {
        let mut options = Options::default().get_options_from_string(WITHOUT_SETTER)?;
        options.create_if_missing(true);
        options.set_max_open_files(self.max_open_files);
        options.set_max_background_jobs(self.background_jobs);
        options.set_skip_stats_update_on_db_open(true);
        // Databases are opened beside each other; to start threads for the few files of each
        // takes longer than to open them.
        options.set_max_file_opening_threads(1);
        options.set_compaction_readahead_size(READ_AHEAD_BYTES);
        options.set_bytes_per_sync(1024 * 1024);
        // One small log a database: there are as many databases as tasks.
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(MIB);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_max_manifest_file_size(16 * MIB);

        // RocksDB keeps the indexes and filters of drained files at hand that are not much larger
        // than this. It is given files only, so nothing is ever in such a buffer.
        options.set_write_buffer_size(64 * MIB);
        let mut compression = [DBCompressionType::Lz4; LEVELS];
        compression[0] = FRESH_COMPRESSION;
        options.set_compression_per_level(&compression);
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(UNMERGED_FILES.cast_signed());
        let mut merging = UniversalCompactOptions::default();
        merging.set_max_size_amplification_percent(SPACE_MAX_PERCENT);
        options.set_universal_compaction_options(&merging);
        options.set_block_based_table_factory(&self.tables());
        Ok(options)
    }

    /// The options of the files that are drained.
    pub(super) fn of_drained_files(&self) -> Options {
        let mut options = Options::default();
        options.set_block_based_table_factory(&self.tables());
        options.set_compression_type(FRESH_COMPRESSION);
        options
    }

    fn tables(&self) -> BlockBasedOptions {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(self.memory.cache());
        tables.set_block_size(8 * KIB);
        // Most lookups are of whole keys: a byte a key tells where in its block one lies.
        tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        // Ten bits a key let one lookup in a hundred of a missing key reach the disk. Ribbon
        // filters are a third smaller, but to build them was a fifth of what merging costs.
        tables.set_bloom_filter(10.0, false);
        // Indexes and filters count against the shared budget. They are whole, since a
        // lookup in one that is in parts costs another one in the cache; those of the files
        // that are drained stay at hand.
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::FlushAndSimilar);
        tables.set_optimize_filters_for_memory(true);
        tables
    }
}
