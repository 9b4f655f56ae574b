//! The declaration of an application: sources, processors, stores, sinks.
//!
//! [`TopologyBuilder`] gives out typed handles; what they connect is a [`Topology`], split into
//! subtopologies. It names topics but knows nothing of partitions: a [`Plan`] is the topology
//! resolved against the topics of a cluster.

mod builder;
mod components;
mod describe;
mod faults;
mod graph;
mod handles;
mod plan;
mod resolve;
mod subtopologies;

pub use builder::{ProcessorBuilder, TopologyBuilder};
pub use faults::{TopologyFault, TopologyFaults};
pub use graph::Topology;
pub use handles::{Outlet, Sink, Store, Stream};
pub use plan::{InternalTopic, InternalTopicKind, Plan};

pub(crate) use components::{Component, Components};
pub(crate) use graph::{Edge, Handled, HandlingError, Home, Node, OutletDef, ProcessorDef};
pub(crate) use plan::{
    PlanSink, PlanSource, PlanStore, PlanStoreKind, SourceRole, SubtopologyPlan,
};
pub(crate) use subtopologies::is_topic_name;
