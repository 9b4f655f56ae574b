//! A stream-processing engine on Kafka.
//!
//! An application declares a [`Topology`]: sources read topics in consumer groups,
//! processors keep state in stores and set timers, sinks write topics. The engine
//! cuts it into subtopologies and those, by partition, into tasks; stream threads
//! run the tasks that the consumer groups assign to them. Everything between two
//! commits (input positions, stores, timers, outputs) happens exactly once, also
//! across crashes.
//!
//! The layers, from the inside out:
//!
//! - [`topology`]: what is declared, and how it lies on a cluster's topics.
//! - [`task`]: one subtopology at one partition; synchronous, without I/O or clock.
//! - [`driver`]: runs a topology without a broker, for tests.
//! - [`runtime`]: stream threads, commit, restore, on a real Kafka;
//!   [`runtime::Streams::start`] is the way in.
//!
//! An application needs this crate only, and whatever it encodes its rows with:
//! `examples/sessions.rs` is one.
//!
//! # Words
//!
//! They are those of Kafka Streams where it has one for the same thing. Where this engine differs:
//!
//! | here | there |
//! |---|---|
//! | an [`Outlet`] and its [`Stream`] | a child node, and what is forwarded to it |
//! | [`Source::keyed_by`] | `selectKey` and `repartition`, for those records only that lie elsewhere |
//! | a decoder closure, [`Encode`], [`Codec`] | a `Serde`: for what is read, sent, stored |
//! | [`ErrorPolicy`] | the handlers of deserialization and processing exceptions |
//! | keyed timers ([`Context::schedule`]) | none |
//! | punctuations, declared with the processor: one for each clock | punctuators, scheduled and cancelled at run time |
//! | [`TopologyFaults`] | `TopologyException` |
//! | [`runtime::InstanceStatus`], [`runtime::InstanceMetadata`] | `KafkaStreams.State`, `StreamsMetadata` |
//! | groups that are named with each source | one group, the application id |
//!
//! # Clocks
//!
//! | clock | is | who goes by it |
//! |---|---|---|
//! | [`Context::now`] | the wall clock of the instance, fixed for one call | timers, punctuations of wall-clock time |
//! | [`Context::timestamp`] | the time of the record that is processed | what is sent has it |
//! | [`Context::stream_time`] | the greatest of those since the task began to run | punctuations of stream time |
//!
//! A backlog is processed at the speed of the machine: whoever measures time between events takes
//! their timestamps, and whoever has to do something after a time that really passes sets a timer.
//!
//! Records of one partition come in their order. Between partitions, topics and groups there is
//! none: a task takes what is there, some hundred records of each in turn, and does not wait for the
//! older of two. What comes before the row that it needs is kept in a store until that is there.
//!
//! # Another release
//!
//! State is known by names, and instances that differ do not run side by side
//! ([`runtime::Cluster`] tells of one that waits).
//!
//! | what changes | what becomes of it |
//! |---|---|
//! | a store, or a processor with timers, gets another name | it begins empty; a warning at the start names the old one |
//! | stores are added or removed | those of the task are restored from the changelog once |
//! | what a codec writes | old rows stay as they are: [`Codec::decode`] has to read both, or the store needs a new name |
//! | a processor moves to another subtopology | its stores come along if that has as many partitions, else the instance refuses |
//! | an input topic gets more partitions | the instance refuses: keys have moved away from their rows |
//! | an [`ErrorPolicy`] or the interval of a punctuation | nothing: instances that differ in these do run side by side |
//! | the name in [`Source::keyed_by`] or of a repartition topic | what is in the old topic is not read any more: let it run empty before |
//! | a group gets another name | it reads its topics from the start, over rows that know them already; where a task with rows has no other group, the instance stops |
//!
//! # What it does not have
//!
//! Operators (joins, windows, aggregations), global tables, rows that expire, stores in memory or
//! without a changelog, topic patterns, sinks whose topic or partition is chosen at run time, headers of one's
//! own, timestamps taken from the payload, at-least-once, another start of a new group than the start of its topics,
//! threads that come and go at run time.
//!
//! # What a `main` does
//!
//! [`runtime::Streams::start`]; [`runtime::Streams::on_failure`], to end the process when the
//! instance has stopped by itself; [`runtime::Streams::stop`] at a signal; `/metrics` from the
//! [`Registry`]. An instance has up to 256 open files a task. A key is asked for where its task runs:
//! [`runtime::Queries`] answers here or says that it is not here; then [`runtime::Queries::task_for`] names
//! the task and [`runtime::Cluster::owner`] whom to ask.

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
