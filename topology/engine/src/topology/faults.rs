//! What can be wrong with a declared topology.

use std::fmt;

use thiserror::Error;

/// One fault of a topology, and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopologyFault {
    /// Two things of a kind share a name that has to be unique.
    #[error("there are two {kind} named {name}: rename one")]
    DuplicateName {
        /// `processors`, `stores` or `repartition topics`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name cannot be part of a topic's name.
    #[error("{name:?} cannot be one of the {kind}: make its name of a-z, 0-9 and -")]
    InvalidName {
        /// `processors`, `stores` or `repartition topics`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// Two stores would be taken for each other in a changelog.
    #[error("stores {first} and {second} have the same tag in changelogs: rename one")]
    SameTag {
        /// One store.
        first: String,
        /// The other.
        second: String,
    },
    /// Nothing flows into a processor.
    #[error("processor {processor} has no input")]
    NoInput {
        /// The processor.
        processor: String,
    },
    /// A stream flows into a processor more than once: each message would be processed as often.
    #[error("{stream} flows into processor {processor} more than once: give it once")]
    DuplicateInput {
        /// The processor.
        processor: String,
        /// The source topic or the outlet.
        stream: String,
    },
    /// A processor would be called without end.
    #[error("processor {processor} punctuates without an interval: give it a millisecond or more")]
    NoInterval {
        /// The processor.
        processor: String,
    },
    /// Nobody reads a stream.
    #[error("nothing reads {stream}: give it to a processor or remove it")]
    Unread {
        /// The source topic or the outlet.
        stream: String,
    },
    /// No processor uses a store.
    #[error("no processor uses store {store}")]
    UnusedStore {
        /// The store.
        store: String,
    },
    /// No processor sends to a sink.
    #[error("no processor sends to topic {topic}: declare the sink at one or remove it")]
    UnusedSink {
        /// The topic; of a repartition topic, the name.
        topic: String,
    },
    /// No processor forwards to an outlet, or several do.
    #[error("outlet {outlet} belongs to {owners} processors: it has to be exactly one")]
    OutletOwners {
        /// The outlet.
        outlet: String,
        /// How many declare it.
        owners: usize,
    },
    /// Messages could go round for ever within one task.
    #[error(
        "processors {processors} forward to each other in a circle: break it with a repartition topic"
    )]
    Cycle {
        /// The processors on the circle.
        processors: String,
    },
    /// One subtopology reads a topic twice in the same group.
    #[error(
        "subtopology {subtopology} reads topic {topic} twice in group {group}: share one source"
    )]
    DuplicateSource {
        /// The subtopology.
        subtopology: u16,
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// Two subtopologies read a topic in one group: each would get part of it.
    #[error(
        "subtopologies {first} and {second} both read topic {topic} in group {group}: share one source or use two groups"
    )]
    SplitTopic {
        /// One subtopology.
        first: u16,
        /// The other.
        second: u16,
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// A topic does not exist.
    #[error("topic {topic} does not exist: create it, or let the application create it")]
    MissingTopic {
        /// The topic.
        topic: String,
    },
    /// Topics that one task reads together have different numbers of partitions.
    #[error(
        "subtopology {subtopology} reads topics with different partition counts: {topics}; give them the same number, or declare the odd ones `keyed_by` their id"
    )]
    NotCopartitioned {
        /// The subtopology.
        subtopology: u16,
        /// The topics with their counts.
        topics: String,
    },
}

/// Everything that is wrong with a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyFaults(pub Vec<TopologyFault>);

impl fmt::Display for TopologyFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the topology has {} fault(s)", self.0.len())?;
        for fault in &self.0 {
            write!(f, "; {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for TopologyFaults {}
