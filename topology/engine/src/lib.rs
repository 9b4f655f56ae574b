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
//! The words are those of Kafka Streams.

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
