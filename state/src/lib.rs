//! Key-value state of stream processors.
//!
//! The model, bottom up:
//!
//! - A [`Backend`] is the *committed* state of one task: an ordered map for each
//!   of its stores, plus the offset of their changelog that the maps reflect.
//!   [`RocksBackend`] keeps it on disk (one database a task) behind a buffer,
//!   [`MemoryBackend`] in memory. A [`Batch`] changes all stores and the offset together
//!   or not at all, so a backend always equals some point of its changelog and knows which:
//!   for a running task a point between two transactions, for a restore or a standby any
//!   point of the committed records.
//! - An [`Overlay`] holds the writes of the open transaction on top of a backend:
//!   whoever writes reads its own writes, everyone else reads the backend. Commit
//!   turns the overlay into one [`Batch`]; abort forgets it.
//! - [`ChangelogRecord`] is how one write looks in a changelog topic.
//! - A [`StateDir`] is the locked directory of one process that holds the
//!   databases of its tasks.
//!
//! This crate knows no Kafka, no clock and no async runtime. Keys and values are
//! bytes; [`Codec`] is how typed ones become bytes.

mod backend;
mod batch;
mod changelog;
mod codec;
mod disk_space;
mod error;
mod marker;
mod memory;
mod merge;
mod overlay;
mod rocks;
mod state_dir;
mod write;
mod writes;

pub use backend::{Backend, Entry, KeyRange, ScanDirection, StoreId, StoreSpec, StoreStats};
pub use batch::Batch;
pub use changelog::{ChangelogRecord, StoreTag, UnreadableChangelog};
pub use codec::{Codec, CodecError};
pub use disk_space::DiskSpace;
pub use error::StateError;
pub use memory::MemoryBackend;
pub use overlay::{Overlay, Savepoint};
pub use rocks::{RocksBackend, RocksMemory, RocksOptions};
pub use state_dir::{StateDir, TaskDirName};
