//! The nodes of a topology with their types erased, and its subtopologies.
//!
//! A message crosses an edge as `&mut dyn Any` that holds an `Option<T>`: the receiver takes it
//! out, so nothing is boxed on a record's path.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::handles::TopologyKey;
use crate::partitioner::partition_of;
use crate::processor::{Context, Processor, ProcessorError, PunctuationType, Timer};
use crate::record::InputRecord;
use crate::source::{DecodeError, Decoded, Decoder, ErrorPolicy, IdOf};
use crate::{Partition, SubtopologyId};

/// The name, within the application, of the changelog of all stores.
pub(crate) const STORES_CHANGELOG: &str = "stores-changelog";

/// A declared topology: immutable, shared by all tasks.
pub struct Topology {
    pub(crate) key: TopologyKey,
    pub(crate) sources: Vec<SourceDef>,
    pub(crate) processors: Vec<ProcessorDef>,
    pub(crate) stores: Vec<StoreDef>,
    pub(crate) sinks: Vec<SinkDef>,
    pub(crate) outlets: Vec<OutletDef>,
    pub(crate) subtopologies: Vec<SubtopologyDef>,
}

impl Topology {
    /// Whether a processor of `part` sends to `topic`.
    pub(super) fn sends_to(&self, part: &SubtopologyDef, topic: &TopicName) -> bool {
        let processors = part.processors.iter();
        let processors = processors.filter_map(|index| self.processors.get(*index));
        let sinks = processors.flat_map(|processor| &processor.sinks);
        let mut sinks = sinks.filter_map(|index| self.sinks.get(*index));
        sinks.any(|sink| sink.topic == *topic)
    }
}

pub(crate) struct SourceDef {
    pub(crate) origin: TopicName,
    pub(crate) group: String,
    pub(crate) policy: ErrorPolicy,
    /// The name of the repartition topic for records whose id belongs to another partition.
    pub(crate) rekeyed_through: Option<String>,
    pub(crate) handling: Arc<dyn SourceHandling>,
    pub(crate) children: Vec<Edge>,
}

/// Which topic a source reads, or a sink sends to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TopicName {
    /// A topic with this name.
    Outside(String),
    /// The repartition topic with this name within the application.
    Repartition(String),
}

pub(crate) struct ProcessorDef {
    pub(crate) name: String,
    pub(crate) supplier: Arc<dyn Fn() -> Box<dyn Node> + Send + Sync>,
    pub(crate) inputs: Vec<super::handles::StreamEnd>,
    pub(crate) stores: Vec<usize>,
    pub(crate) sinks: Vec<usize>,
    pub(crate) outlets: Vec<usize>,
    pub(crate) timers: bool,
    pub(crate) punctuations: Vec<(PunctuationType, Duration)>,
}

impl ProcessorDef {
    /// The store of the processor's timers, named after it.
    pub(crate) fn timers_store(&self) -> String {
        format!("{}-timers", self.name)
    }

    /// The index by key of those timers.
    pub(crate) fn timers_index(&self) -> String {
        format!("{}-timers-by-key", self.name)
    }
}

pub(crate) struct StoreDef {
    pub(crate) name: String,
}

pub(crate) struct SinkDef {
    pub(crate) topic: TopicName,
}

pub(crate) struct OutletDef {
    pub(crate) name: String,
    pub(crate) children: Vec<Edge>,
}

/// A connected part of a topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubtopologyDef {
    pub(crate) id: SubtopologyId,
    pub(crate) sources: Vec<usize>,
    pub(crate) processors: Vec<usize>,
    pub(crate) stores: Vec<usize>,
}

/// Passes the message in an `Option<T>` to a processor.
pub(crate) type Deliver =
    fn(&mut dyn Node, &mut Context<'_>, &mut dyn Any) -> Result<(), ProcessorError>;

/// An edge to a processor.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    pub(crate) to: usize,
    pub(crate) deliver: Deliver,
    /// Fills a second `Option<T>` with a clone, for streams with several readers.
    pub(crate) duplicate: fn(&dyn Any) -> Box<dyn Any>,
}

impl Edge {
    pub(crate) fn new<P: Processor, T: Clone + Into<P::In> + 'static>(to: usize) -> Self {
        Self {
            to,
            deliver: deliver::<P, T>,
            duplicate: duplicate::<T>,
        }
    }
}

fn deliver<P: Processor, T: Into<P::In> + 'static>(
    node: &mut dyn Node,
    context: &mut Context<'_>,
    message: &mut dyn Any,
) -> Result<(), ProcessorError> {
    let processor = node
        .as_any()
        .downcast_mut::<P>()
        .expect("an edge leads to the processor it was made for");
    let message = message
        .downcast_mut::<Option<T>>()
        .and_then(Option::take)
        .expect("an edge carries a message of the type it was made for");
    processor.process(context, message.into())
}

fn duplicate<T: Clone + 'static>(message: &dyn Any) -> Box<dyn Any> {
    let message = message
        .downcast_ref::<Option<T>>()
        .expect("an edge carries a message of the type it was made for");
    Box::new(message.clone())
}

/// A processor without its message type.
pub(crate) trait Node: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError>;
    fn on_punctuate(
        &mut self,
        context: &mut Context<'_>,
        kind: PunctuationType,
    ) -> Result<(), ProcessorError>;
}

impl<P: Processor> Node for P {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        Processor::on_timer(self, context, timer)
    }

    fn on_punctuate(
        &mut self,
        context: &mut Context<'_>,
        kind: PunctuationType,
    ) -> Result<(), ProcessorError> {
        Processor::on_punctuate(self, context, kind)
    }
}

/// The outcome for a record at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handled {
    /// The processors have handled it.
    Processed,
    /// It is nothing for this application, for this reason.
    Skipped(&'static str),
    /// Its id, given here, belongs to another partition.
    Misplaced(Vec<u8>),
}

/// Why a record could not be handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlingError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Processor(#[from] ProcessorError),
}

/// The partition that a record has to be in to be handled here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// This one, out of this many.
    Partition(Partition, i32),
    /// None: every record goes to where its id belongs.
    Elsewhere,
    /// Whichever it is in.
    Anywhere,
}

/// A source's decoder and id function, with the message type erased.
pub(crate) trait SourceHandling: Send + Sync {
    /// Decodes `record` and, if it is in its home partition, passes it on as an `Option<T>`.
    fn handle(
        &self,
        record: &InputRecord<'_>,
        home: Home,
        hand_on: &mut dyn FnMut(&mut dyn Any) -> Result<(), ProcessorError>,
    ) -> Result<Handled, HandlingError>;
}

pub(crate) struct TypedHandling<T> {
    pub(crate) decode: Decoder<T>,
    pub(crate) id_of: Option<IdOf<T>>,
}

impl<T: 'static> SourceHandling for TypedHandling<T> {
    fn handle(
        &self,
        record: &InputRecord<'_>,
        home: Home,
        hand_on: &mut dyn FnMut(&mut dyn Any) -> Result<(), ProcessorError>,
    ) -> Result<Handled, HandlingError> {
        let message = match (self.decode)(record)? {
            Decoded::Message(message) => message,
            Decoded::Skip(reason) => return Ok(Handled::Skipped(reason)),
        };
        if let Some(id_of) = &self.id_of {
            match home {
                Home::Anywhere => {}
                Home::Elsewhere => return Ok(Handled::Misplaced(id_of(&message))),
                Home::Partition(partition, partitions) => {
                    let id = id_of(&message);
                    if partition_of(&id, partitions) != partition {
                        return Ok(Handled::Misplaced(id));
                    }
                }
            }
        }
        hand_on(&mut Some(message))?;
        Ok(Handled::Processed)
    }
}
