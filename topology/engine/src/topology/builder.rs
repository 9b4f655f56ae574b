//! Declares a topology, node by node.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use turnstile_state::Codec;

use super::faults::{TopologyFault, TopologyFaults};
use super::graph::{
    Edge, Node, OutletDef, ProcessorDef, SinkDef, SourceDef, StoreDef, TopicName, Topology,
    TypedHandling,
};
use super::handles::{Outlet, Sink, Store, Stream, StreamEnd, TopologyKey};
use super::subtopologies;
use crate::processor::{Processor, PunctuationType};
use crate::record::{Encode, InputRecord};
use crate::source::{DecodeError, Decoded, Source};

/// Declares a topology; [`TopologyBuilder::build`] checks it.
///
/// The handles that it gives out belong to this topology. Giving one to a processor of another
/// topology is a fault of that topology, and a query of another topology's instance does not know
/// the store.
pub struct TopologyBuilder {
    key: TopologyKey,
    sources: Vec<SourceDef>,
    processors: Vec<ProcessorDef>,
    stores: Vec<StoreDef>,
    sinks: Vec<SinkDef>,
    outlets: Vec<OutletDef>,
    faults: Vec<TopologyFault>,
}

impl Default for TopologyBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TopologyBuilder {
    /// An empty declaration.
    #[must_use]
    pub fn new() -> Self {
        Self {
            key: TopologyKey::unique(),
            sources: Vec::new(),
            processors: Vec::new(),
            stores: Vec::new(),
            sinks: Vec::new(),
            outlets: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// A source node.
    pub fn source<T: 'static>(&mut self, source: Source<T>) -> Stream<T> {
        let Source {
            topic,
            group,
            decode,
            keyed_by,
            policy,
        } = source;
        let (id_of, rekeyed_through) = keyed_by.map_or((None, None), |keyed_by| {
            (Some(keyed_by.id_of), Some(keyed_by.repartition))
        });
        self.add_source(SourceDef {
            origin: TopicName::Outside(topic),
            group,
            policy,
            rekeyed_through,
            handling: Arc::new(TypedHandling { decode, id_of }),
            children: Vec::new(),
        })
    }

    /// An internal topic `<application id>-<name>-repartition`: the sink, keyed by what the
    /// readers' stores are keyed by, and the stream that `group` reads. A record that is rejected
    /// there becomes a dead letter, unless all sources upstream of those who write it have
    /// [`ErrorPolicy::Stop`](crate::ErrorPolicy::Stop).
    pub fn repartition<T: Encode + 'static>(
        &mut self,
        name: impl Into<String>,
        group: impl Into<String>,
        decode: impl Fn(&InputRecord<'_>) -> Result<Decoded<T>, DecodeError> + Send + Sync + 'static,
    ) -> (Sink<T>, Stream<T>) {
        let Source {
            topic: name,
            group,
            decode,
            policy,
            ..
        } = Source::new(name, group, decode);
        let sink = self.add_sink(TopicName::Repartition(name.clone()));
        let stream = self.add_source(SourceDef {
            origin: TopicName::Repartition(name),
            group,
            policy,
            rekeyed_through: None,
            handling: Arc::new(TypedHandling {
                decode,
                id_of: None,
            }),
            children: Vec::new(),
        });
        (sink, stream)
    }

    /// A topic that processors send messages to.
    pub fn sink<T: Encode>(&mut self, topic: impl Into<String>) -> Sink<T> {
        self.add_sink(TopicName::Outside(topic.into()))
    }

    /// A state store. All stores of the application share one changelog,
    /// `<application id>-stores-changelog`.
    pub fn store<K: Codec, V: Codec>(&mut self, name: impl Into<String>) -> Store<K, V> {
        self.stores.push(StoreDef { name: name.into() });
        Store::new(self.key, self.stores.len() - 1)
    }

    /// A path from one processor to others: the end to forward to and the stream to read.
    pub fn outlet<T: 'static>(&mut self, name: impl Into<String>) -> (Outlet<T>, Stream<T>) {
        self.outlets.push(OutletDef {
            name: name.into(),
            children: Vec::new(),
        });
        let index = self.outlets.len() - 1;
        let stream = Stream::new(self.key, StreamEnd::Outlet(index));
        (Outlet::new(self.key, index), stream)
    }

    /// A processor; `supplier` makes one whenever a task begins to run. It is dropped when the task
    /// is taken away, even if the task later comes back to the same instance.
    pub fn processor<P: Processor>(
        &mut self,
        name: impl Into<String>,
        supplier: impl Fn() -> P + Send + Sync + 'static,
    ) -> ProcessorBuilder<'_, P> {
        self.processors.push(ProcessorDef {
            name: name.into(),
            supplier: Arc::new(move || Box::new(supplier()) as Box<dyn Node>),
            inputs: Vec::new(),
            stores: Vec::new(),
            sinks: Vec::new(),
            outlets: Vec::new(),
            timers: false,
            punctuations: Vec::new(),
        });
        let index = self.processors.len() - 1;
        ProcessorBuilder {
            builder: self,
            index,
            processor: PhantomData,
        }
    }

    /// Checks the declaration and splits it into subtopologies.
    ///
    /// # Errors
    ///
    /// All faults at once.
    pub fn build(self) -> Result<Topology, TopologyFaults> {
        let Self {
            key,
            sources,
            processors,
            stores,
            sinks,
            outlets,
            mut faults,
        } = self;
        let mut topology = Topology {
            key,
            sources,
            processors,
            stores,
            sinks,
            outlets,
            subtopologies: Vec::new(),
        };
        topology.subtopologies = subtopologies::connected(&topology);
        subtopologies::inherit_policies(&mut topology);
        faults.extend(subtopologies::faults(&topology));
        if faults.is_empty() {
            Ok(topology)
        } else {
            Err(TopologyFaults(faults))
        }
    }

    fn add_source<T>(&mut self, source: SourceDef) -> Stream<T> {
        self.sources.push(source);
        Stream::new(self.key, StreamEnd::Source(self.sources.len() - 1))
    }

    fn add_sink<T>(&mut self, topic: TopicName) -> Sink<T> {
        self.sinks.push(SinkDef { topic });
        Sink::new(self.key, self.sinks.len() - 1)
    }
}

/// The connections of a processor.
pub struct ProcessorBuilder<'a, P> {
    builder: &'a mut TopologyBuilder,
    index: usize,
    processor: PhantomData<P>,
}

impl<P: Processor> ProcessorBuilder<'_, P> {
    /// The processor reads the messages of `stream`.
    ///
    /// A processor has one input type, [`Processor::In`]. If it reads several streams of different
    /// types, that is an enum with a variant for each, and a `From` for each type:
    ///
    /// ```
    /// # struct Order; struct Payment;
    /// enum Input {
    ///     Ordered(Order),
    ///     Paid(Payment),
    /// }
    ///
    /// impl From<Order> for Input {
    ///     fn from(order: Order) -> Self {
    ///         Self::Ordered(order)
    ///     }
    /// }
    ///
    /// impl From<Payment> for Input {
    ///     fn from(payment: Payment) -> Self {
    ///         Self::Paid(payment)
    ///     }
    /// }
    /// ```
    ///
    /// A message is cloned if its stream is read by several processors.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn input<T: Clone + Into<P::In> + 'static>(self, stream: Stream<T>) -> Self {
        if stream.topology != self.builder.key {
            return self.foreign("stream");
        }
        let edge = Edge::new::<P, T>(self.index);
        let children = match stream.from {
            StreamEnd::Source(index) => self
                .builder
                .sources
                .get_mut(index)
                .map(|source| &mut source.children),
            StreamEnd::Outlet(index) => self
                .builder
                .outlets
                .get_mut(index)
                .map(|outlet| &mut outlet.children),
        };
        children
            .expect("a stream is of a node of its builder")
            .push(edge);
        self.change(|processor| processor.inputs.push(stream.from))
    }

    /// It reads and writes `store`, which processors of one task may share.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn store<K, V>(self, store: Store<K, V>) -> Self {
        match store.index_in(self.builder.key) {
            Some(index) => self.change(|processor| processor.stores.push(index)),
            None => self.foreign("store"),
        }
    }

    /// It sends to `sink`.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn sink<T>(self, sink: Sink<T>) -> Self {
        match sink.index_in(self.builder.key) {
            Some(index) => self.change(|processor| processor.sinks.push(index)),
            None => self.foreign("sink"),
        }
    }

    /// It forwards to `outlet`.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn outlet<T>(self, outlet: Outlet<T>) -> Self {
        match outlet.index_in(self.builder.key) {
            Some(index) => self.change(|processor| processor.outlets.push(index)),
            None => self.foreign("outlet"),
        }
    }

    /// It schedules keyed one-shot timers, kept in the store `<processor>-timers`.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn timers(self) -> Self {
        self.change(|processor| processor.timers = true)
    }

    /// It is called every `interval`.
    #[must_use = "a processor is declared when all its connections are"]
    pub fn punctuate(self, kind: PunctuationType, interval: Duration) -> Self {
        self.change(|processor| processor.punctuations.push((kind, interval)))
    }

    /// Ends the declaration of this processor.
    pub fn done(self) {}

    fn foreign(self, kind: &'static str) -> Self {
        let processor = self.builder.processors.get(self.index);
        let processor = processor.map(|processor| processor.name.clone());
        let fault = TopologyFault::ForeignHandle {
            processor: processor.unwrap_or_default(),
            kind,
        };
        self.builder.faults.push(fault);
        self
    }

    fn change(self, change: impl FnOnce(&mut ProcessorDef)) -> Self {
        let processor = self.builder.processors.get_mut(self.index);
        change(processor.expect("the processor was added when its declaration began"));
        self
    }
}
