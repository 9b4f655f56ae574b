//! How the databases of tasks are set up.
//!
//! Most options are fixed, because they are right for every task of a stream application: many
//! small databases in one process, point lookups of keys that often do not exist, values that
//! compress well.

use rocksdb::{
    BlockBasedOptions, BlockBasedTablePinningTier, DBCompactionStyle, DBCompressionType,
    DataBlockIndexType, LogLevel, Options, UniversalCompactOptions,
};

use super::RocksMemory;
use super::flusher::Flusher;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The levels of a database, by RocksDB's default.
pub(super) const LEVELS: usize = 7;

/// Drained files are soon merged with others.
const FRESH_COMPRESSION: DBCompressionType = DBCompressionType::None;

/// At so many sorted files some are merged: the smaller ones first, and all if these hold as much
/// as the largest ([`SPACE_MAX_PERCENT`]). So a row is rewritten a few times; if all drained files
/// were merged into one sorted level, it would be rewritten at every fourth drain.
pub(super) const UNMERGED_FILES: u32 = 8;

/// What files may hold beyond the largest one, in percent of it.
const SPACE_MAX_PERCENT: i32 = 100;

/// RocksDB's name for that number.
pub(super) const UNMERGED_FILES_OPTION: &str = "level0_file_num_compaction_trigger";

/// That number during bulk loads: below the 36 at which writers wait.
pub(super) const UNMERGED_FILES_IN_BULK: u32 = 16;

/// The options that have no setters of their own. Files that RocksDB writes itself are written in
/// pieces of 64 KiB: each database always has three open, and it would use up to 1 MiB for each
/// that it merges. The identity of a database, which its manifest has too, gets no file of its
/// own, which would be written and synced whenever a task begins with an empty disk.
const WITHOUT_SETTER: &str = "writable_file_max_buffer_size=65536;write_identity_file=false";

/// How far a compaction reads ahead in each of its files.
const READ_AHEAD_BYTES: usize = 256 * KIB;

/// How the databases of tasks are set up.
#[derive(Debug, Clone)]
pub struct RocksOptions {
    /// Shared by all databases of the process.
    pub memory: RocksMemory,
    /// The most files that one database keeps open.
    pub max_open_files: i32,
    /// RocksDB's background threads, over all databases. Of two it reserves one for flushes, which
    /// never happen.
    pub background_jobs: i32,
    /// The bytes at which the buffer of one database is drained, even if the shared budget allows
    /// more.
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
        // Databases are opened in parallel; starting threads for the few files of each takes
        // longer than opening them.
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

        // RocksDB pins the indexes and filters of drained files that are not much larger than
        // this. It only ingests files, so nothing is ever in such a buffer.
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
        // Most lookups are of whole keys: one byte per key tells where in its block it is.
        tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        // With ten bits per key, one in a hundred lookups of a missing key reaches the disk.
        // Ribbon filters are a third smaller, but building them took a fifth of the merge cost.
        tables.set_bloom_filter(10.0, false);
        // Indexes and filters count against the shared budget. They are not partitioned, since
        // a lookup in a partitioned one costs another cache lookup; those of drained files
        // stay pinned.
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::FlushAndSimilar);
        tables.set_optimize_filters_for_memory(true);
        tables
    }
}
