//! Splits a topology into its connected parts and finds its faults.
//!
//! Processors are connected when one forwards to the other, when they share a
//! store, or when they read the same source. Subtopologies are numbered by their
//! first processor in the order of declaration, so the numbers are the same on
//! every instance that runs the same declaration.

use std::collections::{BTreeMap, BTreeSet};

use turnstile_state::StoreTag;

use super::faults::TopologyFault;
use super::graph::{SourceDef, SubtopologyDef, TopicName, Topology};
use super::handles::StreamEnd;
use crate::SubtopologyId;
use crate::source::ErrorPolicy;

/// What name faults call stores.
const STORES: &str = "stores";

/// The connected parts.
pub(super) fn connected(topology: &Topology) -> Vec<SubtopologyDef> {
    let mut part_of: Vec<usize> = (0..topology.processors.len()).collect();
    let mut join = |members: &[usize]| {
        let parts: BTreeSet<usize> = members
            .iter()
            .filter_map(|member| part_of.get(*member).copied())
            .collect();
        if let Some(first) = parts.first() {
            for part in part_of.iter_mut().filter(|part| parts.contains(part)) {
                *part = *first;
            }
        }
    };
    let users = |uses: &dyn Fn(usize) -> bool| -> Vec<usize> {
        (0..topology.processors.len())
            .filter(|index| uses(*index))
            .collect()
    };
    for store in 0..topology.stores.len() {
        join(&users(&|index| {
            topology
                .processors
                .get(index)
                .is_some_and(|p| p.stores.contains(&store))
        }));
    }
    for source in 0..topology.sources.len() {
        join(&users(&|index| {
            topology
                .processors
                .get(index)
                .is_some_and(|p| p.inputs.contains(&StreamEnd::Source(source)))
        }));
    }
    for outlet in 0..topology.outlets.len() {
        join(&users(&|index| {
            topology.processors.get(index).is_some_and(|p| {
                p.inputs.contains(&StreamEnd::Outlet(outlet)) || p.outlets.contains(&outlet)
            })
        }));
    }
    let parts: BTreeSet<usize> = part_of.iter().copied().collect();
    (0..)
        .zip(parts)
        .map(|(id, part)| {
            let processors: Vec<usize> = (0..)
                .zip(&part_of)
                .filter(|(_, of)| **of == part)
                .map(|(index, _)| index)
                .collect();
            part_with(topology, SubtopologyId(id), processors)
        })
        .collect()
}

fn part_with(topology: &Topology, id: SubtopologyId, processors: Vec<usize>) -> SubtopologyDef {
    let mut sources = BTreeSet::new();
    let mut stores = BTreeSet::new();
    for processor in processors
        .iter()
        .filter_map(|index| topology.processors.get(*index))
    {
        stores.extend(processor.stores.iter().copied());
        sources.extend(processor.inputs.iter().filter_map(|input| match input {
            StreamEnd::Source(source) => Some(*source),
            StreamEnd::Outlet(_) => None,
        }));
    }
    SubtopologyDef {
        id,
        sources: sources.into_iter().collect(),
        processors,
        stores: stores.into_iter().collect(),
    }
}

/// Gives sources of repartition topics the error policy of what is upstream: they stop if all
/// sources of the writers do, because a dead letter there would be of a record that must not be
/// lost.
pub(super) fn inherit_policies(topology: &mut Topology) {
    let is_outside = |source: &SourceDef| matches!(source.origin, TopicName::Outside(_));
    let stops = |source: &SourceDef| !is_outside(source) || source.policy == ErrorPolicy::Stop;
    let mut stopping: Vec<bool> = topology.sources.iter().map(stops).collect();
    // Each round takes the policy from those with a writer that does not stop.
    loop {
        let behind = |part: &SubtopologyDef| {
            let mut sources = part.sources.iter();
            sources.all(|source| stopping.get(*source) == Some(&true))
        };
        let sources = topology.sources.iter().zip(&stopping);
        let next: Vec<bool> = sources
            .map(|(source, stops)| {
                let mut writers = topology.subtopologies.iter();
                *stops
                    && (is_outside(source)
                        || writers
                            .all(|part| !topology.sends_to(part, &source.origin) || behind(part)))
            })
            .collect();
        if next == stopping {
            break;
        }
        stopping = next;
    }
    for (source, stops) in topology.sources.iter_mut().zip(stopping) {
        if stops {
            source.policy = ErrorPolicy::Stop;
        }
    }
}

/// All faults that can be detected without a cluster.
pub(super) fn faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = name_faults(topology);
    faults.extend(outside_name_faults(topology));
    faults.extend(input_faults(topology));
    for processor in &topology.processors {
        let mut intervals = processor.punctuations.iter().map(|(_, interval)| interval);
        if intervals.any(|interval| interval.as_millis() == 0) {
            faults.push(TopologyFault::NoInterval {
                processor: processor.name.clone(),
            });
        }
        for (index, (kind, _)) in processor.punctuations.iter().enumerate() {
            let before = processor.punctuations.iter().take(index);
            if is_second(before.map(|(other, _)| other), kind) {
                faults.push(TopologyFault::DuplicatePunctuation {
                    processor: processor.name.clone(),
                    kind: *kind,
                });
            }
        }
    }
    for source in topology
        .sources
        .iter()
        .filter(|source| source.children.is_empty())
    {
        faults.push(TopologyFault::Unread {
            stream: topic_name(&source.origin).to_owned(),
        });
    }
    for (index, store) in topology.stores.iter().enumerate() {
        if !topology
            .processors
            .iter()
            .any(|processor| processor.stores.contains(&index))
        {
            faults.push(TopologyFault::UnusedStore {
                store: store.name.clone(),
            });
        }
    }
    for (index, sink) in topology.sinks.iter().enumerate() {
        if !topology
            .processors
            .iter()
            .any(|processor| processor.sinks.contains(&index))
        {
            let (TopicName::Outside(topic) | TopicName::Repartition(topic)) = &sink.topic;
            faults.push(TopologyFault::UnusedSink {
                topic: topic.clone(),
            });
        }
    }
    for (index, outlet) in topology.outlets.iter().enumerate() {
        let owners = topology
            .processors
            .iter()
            .filter(|p| p.outlets.contains(&index))
            .count();
        if owners != 1 {
            faults.push(TopologyFault::OutletOwners {
                outlet: outlet.name.clone(),
                owners,
            });
        }
        if outlet.children.is_empty() {
            faults.push(TopologyFault::Unread {
                stream: outlet.name.clone(),
            });
        }
    }
    faults.extend(cycle(topology));
    faults.extend(source_faults(topology));
    faults
}

fn name_faults(topology: &Topology) -> Vec<TopologyFault> {
    let processors = topology
        .processors
        .iter()
        .map(|processor| ("processors", processor.name.clone()));
    let stores = topology
        .stores
        .iter()
        .map(|store| (STORES, store.name.clone()));
    let sinks = topology.sinks.iter().filter_map(|sink| match &sink.topic {
        TopicName::Repartition(name) => Some(("repartition topics", name.clone())),
        TopicName::Outside(_) => None,
    });
    let rekeyed = topology
        .sources
        .iter()
        .filter_map(|source| source.rekeyed_through.clone());
    let rekeyed = rekeyed.map(|name| ("repartition topics", name));
    let declared: Vec<(&'static str, String)> = processors
        .chain(stores)
        .chain(sinks)
        .chain(rekeyed)
        .collect();
    // A set: two processors with the same name are one fault, and their timers are not another.
    let timed = topology
        .processors
        .iter()
        .filter(|processor| processor.timers);
    let derived: BTreeSet<(&'static str, String)> = timed
        .flat_map(|processor| {
            [
                (STORES, processor.timers_store()),
                (STORES, processor.timers_index()),
            ]
        })
        .collect();

    let mut faults = Vec::new();
    for (kind, name) in &declared {
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            faults.push(TopologyFault::InvalidName {
                kind,
                name: name.clone(),
            });
        }
    }
    let mut seen = BTreeSet::new();
    let mut tags: BTreeMap<StoreTag, String> = BTreeMap::new();
    for (kind, name) in declared.into_iter().chain(derived) {
        if !seen.insert((kind, name.clone())) {
            faults.push(TopologyFault::DuplicateName { kind, name });
        } else if kind == STORES
            && let Some(first) = tags.insert(StoreTag::of(&name), name.clone())
        {
            faults.push(TopologyFault::SameTag {
                first,
                second: name,
            });
        }
    }
    faults
}

fn input_faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = Vec::new();
    for processor in &topology.processors {
        if processor.inputs.is_empty() {
            faults.push(TopologyFault::NoInput {
                processor: processor.name.clone(),
            });
        }
        for (index, input) in processor.inputs.iter().enumerate() {
            if is_second(processor.inputs.iter().take(index), input) {
                faults.push(TopologyFault::DuplicateInput {
                    processor: processor.name.clone(),
                    stream: stream_name(topology, *input).to_owned(),
                });
            }
        }
    }
    faults
}

/// Whether exactly one element before this one is equal to it. The second occurrence is the fault;
/// a third is not another.
fn is_second<'a, T: PartialEq + 'a>(before: impl Iterator<Item = &'a T>, this: &T) -> bool {
    before.filter(|other| *other == this).count() == 1
}

/// Whether brokers accept it as the name of a topic.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=249).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_legal)
}

/// The names of topics outside the application, and of groups.
fn outside_name_faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = Vec::new();
    let read = topology.sources.iter().map(|source| &source.origin);
    let written = topology.sinks.iter().map(|sink| &sink.topic);
    let names: BTreeSet<&TopicName> = read.chain(written).collect();
    for name in names {
        if let TopicName::Outside(topic) = name
            && !is_topic_name(topic)
        {
            let topic = topic.clone();
            faults.push(TopologyFault::InvalidTopic { topic });
        }
    }
    for source in &topology.sources {
        if source.group.is_empty() {
            let topic = topic_name(&source.origin).to_owned();
            faults.push(TopologyFault::NoGroup { topic });
        }
    }
    faults
}

/// The names of the processors that read a source.
fn readers_of<'a>(topology: &'a Topology, source: &SourceDef) -> BTreeSet<&'a str> {
    let readers = source.children.iter();
    let readers = readers.filter_map(|edge| topology.processors.get(edge.to));
    readers.map(|processor| processor.name.as_str()).collect()
}

fn joined<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    Vec::from_iter(names).join(", ")
}

fn source_faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = Vec::new();
    let mut readers: BTreeMap<(&TopicName, &str), (SubtopologyId, BTreeSet<&str>)> =
        BTreeMap::new();
    for subtopology in &topology.subtopologies {
        for source in subtopology
            .sources
            .iter()
            .filter_map(|index| topology.sources.get(*index))
        {
            let (topic, group) = (topic_name(&source.origin), source.group.as_str());
            let these = readers_of(topology, source);
            let read = (subtopology.id, these.clone());
            match readers.insert((&source.origin, group), read) {
                Some((id, first)) if id == subtopology.id => {
                    faults.push(TopologyFault::DuplicateSource {
                        processors: joined(first.union(&these).copied()),
                        topic: topic.to_owned(),
                        group: group.to_owned(),
                    });
                }
                Some((_, first)) => faults.push(TopologyFault::SplitTopic {
                    first: joined(first),
                    second: joined(these),
                    topic: topic.to_owned(),
                    group: group.to_owned(),
                }),
                None => {}
            }
        }
    }
    faults
}

fn stream_name(topology: &Topology, end: StreamEnd) -> &str {
    let name = match end {
        StreamEnd::Source(index) => topology
            .sources
            .get(index)
            .map(|source| topic_name(&source.origin)),
        StreamEnd::Outlet(index) => topology
            .outlets
            .get(index)
            .map(|outlet| outlet.name.as_str()),
    };
    name.expect("a stream comes from the builder that it is given to")
}

fn topic_name(origin: &TopicName) -> &str {
    match origin {
        TopicName::Outside(name) | TopicName::Repartition(name) => name,
    }
}

/// A cycle of forwards, if there is one: what remains after repeatedly removing processors that
/// forward to no remaining processor, or that no remaining processor forwards to.
fn cycle(topology: &Topology) -> Option<TopologyFault> {
    let mut forwards: Vec<(usize, usize)> = Vec::new();
    for (from, processor) in topology.processors.iter().enumerate() {
        let outlets = processor
            .outlets
            .iter()
            .filter_map(|outlet| topology.outlets.get(*outlet));
        forwards.extend(
            outlets
                .flat_map(|outlet| &outlet.children)
                .map(|edge| (from, edge.to)),
        );
    }
    loop {
        let senders: BTreeSet<usize> = forwards.iter().map(|(from, _)| *from).collect();
        let receivers: BTreeSet<usize> = forwards.iter().map(|(_, to)| *to).collect();
        let before = forwards.len();
        forwards.retain(|(from, to)| receivers.contains(from) && senders.contains(to));
        if forwards.is_empty() {
            return None;
        }
        if forwards.len() == before {
            let circle = senders
                .into_iter()
                .filter_map(|index| topology.processors.get(index));
            let names: Vec<&str> = circle.map(|processor| processor.name.as_str()).collect();
            return Some(TopologyFault::Cycle {
                processors: names.join(", "),
            });
        }
    }
}
