//! Resolves a topology against the topics of a cluster.
//!
//! Here names become topics with partition counts. A subtopology has as many tasks as its topics
//! have partitions, which must agree; one that reads only repartition topics has as many as the
//! largest of those that write them. A keyed source whose topic has another count than the sources
//! it meets becomes a subtopology of its own that only re-keys, numbered after the declared ones,
//! whose numbers stay the same. Every other keyed source is read directly, along with its
//! repartition topic for the few records that are in the wrong partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use turnstile_state::StoreTag;

use super::faults::{TopologyFault, TopologyFaults};
use super::graph::{STORES_CHANGELOG, SourceDef, SubtopologyDef, TopicName, Topology};
use super::plan::{
    Plan, PlanSink, PlanSource, PlanStore, PlanStoreKind, SourceRole, SubtopologyPlan,
};
use crate::SubtopologyId;
use crate::record::RECORD_BYTES_MAX;

impl Topology {
    /// Resolves the topology against the partition counts of its external topics.
    ///
    /// # Errors
    ///
    /// All faults at once: missing topics, and topics that must have the same partition count but
    /// do not.
    pub fn resolve(
        self: Arc<Self>,
        application_id: &str,
        partition_counts: &BTreeMap<String, i32>,
    ) -> Result<Plan, TopologyFaults> {
        self.resolve_within(application_id, partition_counts, &BTreeMap::new())
    }

    /// As `resolve`, with limits on the record size of some topics.
    pub(crate) fn resolve_within(
        self: Arc<Self>,
        application_id: &str,
        partition_counts: &BTreeMap<String, i32>,
        record_bytes_max: &BTreeMap<String, usize>,
    ) -> Result<Plan, TopologyFaults> {
        Resolver {
            topology: &self,
            application_id,
            partition_counts,
            record_bytes_max,
            faults: Vec::new(),
        }
        .resolve()
    }
}

struct Resolver<'a> {
    topology: &'a Arc<Topology>,
    application_id: &'a str,
    partition_counts: &'a BTreeMap<String, i32>,
    record_bytes_max: &'a BTreeMap<String, usize>,
    faults: Vec<TopologyFault>,
}

impl Resolver<'_> {
    fn resolve(mut self) -> Result<Plan, TopologyFaults> {
        let topology = self.topology;
        let counts = self.task_counts();
        let sinks = Arc::new(self.sinks(&counts));
        let (mut sources, mut rekeyed) = (Vec::new(), Vec::new());
        for (part, partitions) in topology.subtopologies.iter().zip(&counts) {
            let (read, odd) = self.sources(part, *partitions);
            sources.push(read);
            rekeyed.extend(odd);
        }
        let rekeyed_counts = rekeyed.iter().map(|(_, partitions)| *partitions);
        let dead_letter_partitions = counts
            .iter()
            .copied()
            .chain(rekeyed_counts)
            .max()
            .unwrap_or(1);
        let dead_letters: Arc<str> = format!("{}-dlq", self.application_id).into();
        let changelog: Arc<str> = format!("{}-{STORES_CHANGELOG}", self.application_id).into();
        let rekeying =
            |id: SubtopologyId, partitions: i32, sources: Vec<PlanSource>| SubtopologyPlan {
                id,
                partitions,
                sources,
                processors: Vec::new(),
                stores: Vec::new(),
                changelog: None,
                sinks: sinks.clone(),
                dead_letters: dead_letters.clone(),
                dead_letter_partitions,
            };
        let mut planned = Vec::new();
        for ((part, partitions), sources) in topology.subtopologies.iter().zip(counts).zip(sources)
        {
            let stores = self.stores(part);
            planned.push(SubtopologyPlan {
                processors: part.processors.clone(),
                changelog: (!stores.is_empty()).then(|| changelog.clone()),
                stores,
                ..rekeying(part.id, partitions, sources)
            });
        }
        for (source, partitions) in rekeyed {
            let id =
                u16::try_from(planned.len()).expect("there are fewer than 65,536 subtopologies");
            planned.push(rekeying(SubtopologyId(id), partitions, vec![source]));
        }
        if !self.faults.is_empty() {
            return Err(TopologyFaults(self.faults));
        }
        Ok(Plan {
            application_id: self.application_id.into(),
            topology: topology.clone(),
            subtopologies: planned.into_iter().map(Arc::new).collect(),
            dead_letters,
        })
    }

    /// How many tasks each subtopology has.
    fn task_counts(&mut self) -> Vec<i32> {
        let topology = self.topology;
        let own: Vec<Option<i32>> = topology
            .subtopologies
            .iter()
            .map(|part| self.own_count(part))
            .collect();
        let mut counts: Vec<i32> = own.iter().map(|count| count.unwrap_or(0)).collect();
        // Counts only grow, and never beyond the largest, so the loop terminates.
        loop {
            let next: Vec<i32> = topology
                .subtopologies
                .iter()
                .zip(&own)
                .map(|(part, own)| {
                    let writers = topology.subtopologies.iter().zip(&counts);
                    let feeding = writers
                        .filter(|(writer, _)| self.feeds(writer, part))
                        .map(|(_, count)| *count);
                    own.or(feeding.max()).unwrap_or(0)
                })
                .collect();
            if next == counts {
                return counts.into_iter().map(|count| count.max(1)).collect();
            }
            counts = next;
        }
    }

    /// The partition count of the topics that a subtopology reads from outside: that of its fixed
    /// sources, otherwise of its largest keyed source.
    fn own_count(&mut self, part: &SubtopologyDef) -> Option<i32> {
        let mut fixed = BTreeMap::new();
        let mut keyed = None;
        for (_, source) in sources_of(self.topology, part) {
            let TopicName::Outside(topic) = &source.origin else {
                continue;
            };
            let Some(count) = self.count(topic) else {
                continue;
            };
            if source.rekeyed_through.is_some() {
                keyed = keyed.max(Some(count));
            } else {
                fixed.insert(topic, count);
            }
        }
        let counts: BTreeSet<i32> = fixed.values().copied().collect();
        if counts.len() > 1 {
            let topics: Vec<String> = fixed
                .iter()
                .map(|(topic, count)| format!("{topic} {count}"))
                .collect();
            let processors = part.processors.iter();
            let processors = processors.filter_map(|index| self.topology.processors.get(*index));
            let processors: Vec<&str> = processors.map(|of| of.name.as_str()).collect();
            self.faults.push(TopologyFault::NotCopartitioned {
                subtopology: part.id.0,
                processors: processors.join(", "),
                topics: topics.join(", "),
            });
        }
        counts.first().copied().or(keyed)
    }

    /// Whether `writer` sends to a repartition topic that `reader` reads.
    fn feeds(&self, writer: &SubtopologyDef, reader: &SubtopologyDef) -> bool {
        sources_of(self.topology, reader).any(|(_, source)| {
            matches!(source.origin, TopicName::Repartition(_))
                && self.topology.sends_to(writer, &source.origin)
        })
    }

    /// Whether `reader` reads the repartition topic that a sink sends to.
    fn reads(&self, reader: &SubtopologyDef, topic: &TopicName) -> bool {
        let TopicName::Repartition(name) = topic else {
            return false;
        };
        sources_of(self.topology, reader).any(
            |(_, source)| matches!(&source.origin, TopicName::Repartition(read) if read == name),
        )
    }

    fn sinks(&mut self, counts: &[i32]) -> Vec<PlanSink> {
        let topology = self.topology;
        let mut sinks = Vec::new();
        for sink in &topology.sinks {
            sinks.push(match &sink.topic {
                TopicName::Outside(topic) => PlanSink {
                    topic: topic.as_str().into(),
                    partitions: self.count(topic).unwrap_or(1),
                    record_bytes_max: self
                        .record_bytes_max
                        .get(topic)
                        .map_or(RECORD_BYTES_MAX, |max| RECORD_BYTES_MAX.min(*max)),
                },
                TopicName::Repartition(name) => {
                    let mut readers = topology.subtopologies.iter().zip(counts);
                    let reader = readers.find(|(part, _)| self.reads(part, &sink.topic));
                    PlanSink {
                        topic: self.repartition(name),
                        partitions: reader.map_or(1, |(_, count)| *count),
                        record_bytes_max: RECORD_BYTES_MAX,
                    }
                }
            });
        }
        sinks
    }

    /// What the tasks of a subtopology read, and which of its sources are re-keyed
    /// by tasks of their own, with the partition counts of those.
    fn sources(
        &mut self,
        part: &SubtopologyDef,
        partitions: i32,
    ) -> (Vec<PlanSource>, Vec<(PlanSource, i32)>) {
        let (mut read, mut rekeyed) = (Vec::new(), Vec::new());
        for (node, source) in sources_of(self.topology, part) {
            let plan = |topic, role| PlanSource {
                topic,
                group: source.group.as_str().into(),
                node,
                role,
            };
            let (topic, count): (Arc<str>, _) = match &source.origin {
                TopicName::Outside(topic) => (
                    topic.as_str().into(),
                    self.count(topic).unwrap_or(partitions),
                ),
                TopicName::Repartition(name) => (self.repartition(name), partitions),
            };
            let Some(name) = &source.rekeyed_through else {
                read.push(plan(topic, SourceRole::Placed));
                continue;
            };
            let through = self.repartition(name);
            if count == partitions {
                read.push(plan(topic, SourceRole::Checked(through.clone())));
            } else {
                rekeyed.push((
                    plan(topic, SourceRole::Rekeyed(through.clone(), partitions)),
                    count,
                ));
            }
            read.push(plan(through, SourceRole::Placed));
        }
        (read, rekeyed)
    }

    fn stores(&self, part: &SubtopologyDef) -> Vec<PlanStore> {
        let durable = |name: &str, kind| PlanStore {
            name: name.to_owned(),
            kind,
            tag: Some(StoreTag::of(name)),
        };
        let mut stores = Vec::new();
        for (index, store) in part
            .stores
            .iter()
            .filter_map(|i| Some((*i, self.topology.stores.get(*i)?)))
        {
            stores.push(durable(&store.name, PlanStoreKind::Declared(index)));
        }
        for (index, processor) in part
            .processors
            .iter()
            .filter_map(|i| Some((*i, self.topology.processors.get(*i)?)))
        {
            if processor.timers {
                stores.push(durable(
                    &processor.timers_store(),
                    PlanStoreKind::TimerRows(index),
                ));
                stores.push(PlanStore {
                    name: processor.timers_index(),
                    kind: PlanStoreKind::TimerIndex(index),
                    tag: None,
                });
            }
        }
        stores
    }

    /// The partition count of a topic outside the application; a fault, once, if there is no such
    /// topic.
    fn count(&mut self, topic: &str) -> Option<i32> {
        let count = self.partition_counts.get(topic).copied();
        if count.is_none() {
            let fault = TopologyFault::MissingTopic {
                topic: topic.to_owned(),
            };
            if !self.faults.contains(&fault) {
                self.faults.push(fault);
            }
        }
        count
    }

    fn repartition(&self, name: &str) -> Arc<str> {
        format!("{}-{name}-repartition", self.application_id).into()
    }
}

/// The source nodes of a subtopology, with their indices.
fn sources_of<'a>(
    topology: &'a Topology,
    part: &SubtopologyDef,
) -> impl Iterator<Item = (usize, &'a SourceDef)> {
    part.sources
        .iter()
        .filter_map(|index| Some((*index, topology.sources.get(*index)?)))
}
