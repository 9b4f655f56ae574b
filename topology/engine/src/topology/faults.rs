//! What can be wrong with a declared topology.

use std::fmt;

use thiserror::Error;

use crate::PunctuationType;

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
    /// A topic has a name that no broker accepts.
    #[error(
        "{topic:?} cannot be the name of a topic: make it of a-z, A-Z, 0-9, '.', '_' and '-', 249 of them at most"
    )]
    InvalidTopic {
        /// The name.
        topic: String,
    },
    /// A source is in no group.
    #[error(
        "the source of topic {topic} has no consumer group: give it the application id, or the group that the topic is to be read in"
    )]
    NoGroup {
        /// The topic.
        topic: String,
    },
    /// A processor was given a handle made by the builder of another topology.
    #[error(
        "processor {processor} is given a {kind} of another topology: declare it with the same builder"
    )]
    ForeignHandle {
        /// The processor.
        processor: String,
        /// `stream`, `store`, `sink` or `outlet`.
        kind: &'static str,
    },
    /// Nothing flows into a processor.
    #[error("processor {processor} has no input: give it a stream or remove it")]
    NoInput {
        /// The processor.
        processor: String,
    },
    /// A stream flows into a processor more than once: each message would be processed that often.
    #[error("{stream} flows into processor {processor} more than once: give it once")]
    DuplicateInput {
        /// The processor.
        processor: String,
        /// The source topic or the outlet.
        stream: String,
    },
    /// A processor would be called endlessly.
    #[error("processor {processor} punctuates without an interval: give it a millisecond or more")]
    NoInterval {
        /// The processor.
        processor: String,
    },
    /// A processor would be called by one clock for several reasons, and could not tell which.
    #[error(
        "processor {processor} punctuates by {kind:?} more than once: declare it once, with the shortest of the intervals"
    )]
    DuplicatePunctuation {
        /// The processor.
        processor: String,
        /// The clock.
        kind: PunctuationType,
    },
    /// Nobody reads a stream.
    #[error("nothing reads {stream}: give it to a processor or remove it")]
    Unread {
        /// The source topic or the outlet.
        stream: String,
    },
    /// No processor uses a store.
    #[error("no processor uses store {store}: declare it at one or remove it")]
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
    /// Messages could circulate for ever within one task.
    #[error(
        "processors {processors} forward to each other in a circle: break it with a repartition topic"
    )]
    Cycle {
        /// The processors on the cycle.
        processors: String,
    },
    /// One subtopology reads a topic twice in the same group.
    #[error(
        "two sources read topic {topic} in group {group} for {processors}, which belong together: share one source"
    )]
    DuplicateSource {
        /// The processors that read it.
        processors: String,
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// Two subtopologies read a topic in one group: each would get part of it.
    #[error(
        "two sources read topic {topic} in group {group}, one for {first} and one for {second}: share one source or use two groups"
    )]
    SplitTopic {
        /// The processors that read one source.
        first: String,
        /// The processors that read the other.
        second: String,
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// A topic does not exist.
    #[error(
        "topic {topic} does not exist: create it, or name it among the topics that the application creates at its start"
    )]
    MissingTopic {
        /// The topic.
        topic: String,
    },
    /// Topics that one task reads together have different numbers of partitions.
    #[error(
        "subtopology {subtopology} ({processors}) reads topics with different partition counts: {topics}; give them the same number, or declare the odd ones `keyed_by` their id"
    )]
    NotCopartitioned {
        /// The subtopology.
        subtopology: u16,
        /// Its processors.
        processors: String,
        /// The topics with their counts.
        topics: String,
    },
}

impl TopologyFault {
    /// Whether the fault persists until somebody changes the topology or the topics. A missing
    /// topic may be about to be created.
    pub(crate) fn is_lasting(&self) -> bool {
        !matches!(self, Self::MissingTopic { .. })
    }
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
