//! Cuts a topology into its connected parts and finds its faults.
//!
//! Processors are connected when one forwards to the other, when they share a
//! store, or when they read the same source. Subtopologies are numbered by their
//! first processor in the order of declaration, so the numbers are the same on
//! every instance that runs the same declaration.

use std::collections::{BTreeMap, BTreeSet};

use turnstile_state::StoreTag;

use super::faults::TopologyFault;
use super::graph::{SinkTopic, SourceOrigin, SubtopologyDef, Topology};
use super::handles::StreamEnd;
use crate::SubtopologyId;

/// What faults of names call stores.
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

/// All faults that can be told without a cluster.
pub(super) fn faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = name_faults(topology);
    faults.extend(input_faults(topology));
    for processor in &topology.processors {
        let mut intervals = processor.punctuations.iter().map(|(_, interval)| interval);
        if intervals.any(|interval| interval.as_millis() == 0) {
            faults.push(TopologyFault::NoInterval {
                processor: processor.name.clone(),
            });
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
            let (SinkTopic::Topic(topic) | SinkTopic::Repartition(topic)) = &sink.topic;
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
        SinkTopic::Repartition(name) => Some(("repartition topics", name.clone())),
        SinkTopic::Topic(_) => None,
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
    // A set: processors of the same name are one fault, and their timers not another.
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
            let before = processor.inputs.iter().take(index);
            // The second one is the fault, and a third not another.
            if before.filter(|other| *other == input).count() == 1 {
                faults.push(TopologyFault::DuplicateInput {
                    processor: processor.name.clone(),
                    stream: stream_name(topology, *input).to_owned(),
                });
            }
        }
    }
    faults
}

fn source_faults(topology: &Topology) -> Vec<TopologyFault> {
    let mut faults = Vec::new();
    let mut readers: BTreeMap<(&SourceOrigin, &str), SubtopologyId> = BTreeMap::new();
    for subtopology in &topology.subtopologies {
        for source in subtopology
            .sources
            .iter()
            .filter_map(|index| topology.sources.get(*index))
        {
            let (topic, group) = (topic_name(&source.origin), source.group.as_str());
            match readers.insert((&source.origin, group), subtopology.id) {
                Some(first) if first == subtopology.id => {
                    faults.push(TopologyFault::DuplicateSource {
                        subtopology: first.0,
                        topic: topic.to_owned(),
                        group: group.to_owned(),
                    });
                }
                Some(first) => faults.push(TopologyFault::SplitTopic {
                    first: first.0,
                    second: subtopology.id.0,
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

fn topic_name(origin: &SourceOrigin) -> &str {
    match origin {
        SourceOrigin::Topic(name) | SourceOrigin::Repartition(name) => name,
    }
}

/// A circle of forwards, if there is one: what is left when processors that
/// forward to nobody left, or to which nobody left forwards, are taken away again
/// and again.
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
