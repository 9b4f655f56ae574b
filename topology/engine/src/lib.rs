//! A stream-processing engine on Kafka.
//!
//! An application declares a [`Topology`]: sources read topics in consumer groups, processors keep
//! state in stores and set timers, sinks write topics. The engine splits the topology into
//! subtopologies and those, by partition, into tasks; stream threads run the tasks that the
//! consumer groups assign to them. Everything between two commits (input positions, stores, timers,
//! outputs) happens exactly once, even across crashes.
//!
//! The layers, from the inside out:
//!
//! - [`topology`]: what is declared, and how it maps to a cluster's topics.
//! - [`task`]: one subtopology at one partition; synchronous, without I/O or clock.
//! - [`driver`]: runs a topology without a broker, for tests.
//! - [`runtime`]: stream threads, commit, restore, on a real Kafka; [`runtime::Streams::start`] is
//!   the entry point.
//!
//! An application needs only this crate and whatever it encodes its rows with; see
//! `examples/sessions.rs`.
//!
//! # Terms
//!
//! Terms are those of Kafka Streams where it has the same concept. Where this engine differs:
//!
//! | here | there |
//! |---|---|
//! | an [`Outlet`] and its [`Stream`] | a child node, and what is forwarded to it |
//! | [`Source::keyed_by`] | `selectKey` and `repartition`, but only for records that are in the wrong partition |
//! | a decoder closure, [`Encode`], [`Codec`] | a `Serde`: for what is read, sent and stored |
//! | [`ErrorPolicy`] | the deserialization and processing exception handlers |
//! | keyed timers ([`Context::schedule`]) | none |
//! | punctuations, declared with the processor: one per clock | punctuators, scheduled and cancelled at run time |
//! | [`TopologyFaults`] | `TopologyException` |
//! | [`runtime::InstanceStatus`], [`runtime::InstanceMetadata`] | `KafkaStreams.State`, `StreamsMetadata` |
//! | a group named with each source | one group, the application id |
//!
//! # Clocks
//!
//! | clock | what it is | used by |
//! |---|---|---|
//! | [`Context::now`] | the wall clock of the instance, fixed for one call | timers, wall-clock punctuations |
//! | [`Context::timestamp`] | the time of the record that is processed | whatever is sent carries it |
//! | [`Context::stream_time`] | the greatest record timestamp since the task began to run | stream-time punctuations |
//!
//! A backlog is processed at the speed of the machine: to measure time between events, use their
//! timestamps; to do something after real time has passed, set a timer.
//!
//! Records of one partition arrive in order. There is no order across partitions, topics and
//! groups: a task takes what is there, some hundred records of each in turn, and does not wait for
//! the older of two. A processor keeps a message that arrives before the row it needs in a store,
//! until the row is there.
//!
//! # Upgrades
//!
//! State is identified by name, and instances whose topologies differ do not run side by side
//! ([`runtime::Cluster`] reports one that waits).
//!
//! | change | effect |
//! |---|---|
//! | a store, or a processor with timers, is renamed | it starts empty; a warning at startup names the old one |
//! | stores are added or removed | the stores of that task are restored from the changelog once |
//! | a codec writes another encoding | old rows stay as they are: [`Codec::decode`] has to read both, or the store needs a new name |
//! | a processor moves to another subtopology | its stores move along if that has the same number of partitions, otherwise the instance refuses |
//! | an input topic gets more partitions | the instance refuses: keys have moved away from their rows |
//! | an [`ErrorPolicy`] or the interval of a punctuation | none: instances that differ in these do run side by side |
//! | the name in [`Source::keyed_by`] or of a repartition topic | what is left in the old topic is no longer read: let it drain first |
//! | a group is renamed | it reads its topics from the start, on top of rows that already reflect them; if a task with rows has no other group, the instance stops |
//!
//! # What it does not have
//!
//! Operators (joins, windows, aggregations), global tables, rows that expire, stores in memory or
//! without a changelog, topic patterns, sinks whose topic or partition is chosen at run time,
//! custom headers, timestamps taken from the payload, at-least-once, a new group that starts
//! elsewhere than at the start of its topics, threads added or removed at run time.
//!
//! # What a `main` does
//!
//! It calls [`runtime::Streams::start`]; registers [`runtime::Streams::on_failure`], to end the
//! process when the instance has stopped by itself; calls [`runtime::Streams::stop`] on a signal;
//! and serves `/metrics` from the [`Registry`]. An instance has up to 256 open files per task. A
//! key is read where its task runs: [`runtime::Queries`] answers locally or says that the task is
//! not here; then [`runtime::Queries::task_for`] names the task and [`runtime::Cluster::owner`] the
//! instance to ask.

pub mod clock;
mod ids;
#[cfg(test)]
mod quiet;
mod timer;

pub mod driver;
pub mod partitioner;
pub mod processor;
pub mod record;
pub mod runtime;
pub mod source;
pub mod task;
pub mod topology;

pub use driver::TopologyTestDriver;
/// Where [`runtime::Metrics`] are registered.
pub use prometheus::Registry;

pub use ids::{InvalidTaskId, Offset, Partition, SubtopologyId, TaskId, TimestampMs};
pub use processor::{Context, Processor, ProcessorError, PunctuationType, Timer};
pub use record::{DecodeCache, Encode, InputRecord};
pub use source::{DecodeError, Decoded, ErrorPolicy, Source};
pub use task::TaskStatus;
pub use topology::{
    Outlet, Plan, Sink, Store, Stream, Topology, TopologyBuilder, TopologyFault, TopologyFaults,
};
pub use turnstile_state::{Codec, CodecError, KeyRange, ScanDirection, StateError};
