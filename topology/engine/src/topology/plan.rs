//! A topology on the topics of a cluster: what its tasks are and which topics they
//! read and write, by name and partition count. [`Topology::resolve`] makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use turnstile_state::{StoreId, StoreSpec, StoreTag};

use super::graph::{TopicName, Topology};
use crate::record::RECORD_BYTES_MAX;
use crate::{Partition, SubtopologyId, TaskId};

/// A topology on a cluster: what its tasks are and which topics they touch.
pub struct Plan {
    /// The application id, which prefixes internal topics.
    pub application_id: Arc<str>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) subtopologies: Vec<Arc<SubtopologyPlan>>,
    pub(crate) dead_letters: Arc<str>,
}

/// A subtopology on a cluster.
pub(crate) struct SubtopologyPlan {
    pub(crate) id: SubtopologyId,
    pub(crate) partitions: i32,
    pub(crate) sources: Vec<PlanSource>,
    /// Indices of processors in the topology.
    pub(crate) processors: Vec<usize>,
    pub(crate) stores: Vec<PlanStore>,
    /// The topic that holds the changelog of its stores, if it has any: the same one for the
    /// whole application.
    pub(crate) changelog: Option<Arc<str>>,
    /// By sink of the topology: topic and partition count.
    pub(crate) sinks: Arc<Vec<PlanSink>>,
    pub(crate) dead_letters: Arc<str>,
    pub(crate) dead_letter_partitions: i32,
}

/// A topic that the tasks of a subtopology read.
pub(crate) struct PlanSource {
    pub(crate) topic: Arc<str>,
    pub(crate) group: Arc<str>,
    /// The source node.
    pub(crate) node: usize,
    pub(crate) role: SourceRole,
}

/// How records of a topic get to their partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceRole {
    /// They are already in the right partition.
    Placed,
    /// Those whose id belongs to another partition go through the topic named here.
    Checked(Arc<str>),
    /// All go through the topic named here, which has this many partitions.
    Rekeyed(Arc<str>, i32),
}

/// A store of the tasks of a subtopology.
pub(crate) struct PlanStore {
    pub(crate) name: String,
    pub(crate) kind: PlanStoreKind,
    /// Its tag in the changelog; `None` if it is derived from another store.
    pub(crate) tag: Option<StoreTag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlanStoreKind {
    /// A declared store, by its index in the topology.
    Declared(usize),
    /// The timers of a processor.
    TimerRows(usize),
    /// Their index by key, derived from the rows.
    TimerIndex(usize),
}

/// Where a sink's records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlanSink {
    pub(crate) topic: Arc<str>,
    pub(crate) partitions: i32,
    /// The size limit of a record: key, value and headers.
    pub(crate) record_bytes_max: usize,
}

/// What an internal topic is for; decides its `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InternalTopicKind {
    /// Compacted.
    Changelog,
    /// Deleted as it is read.
    Repartition,
    /// Kept.
    DeadLetters,
    /// Compacted; one for the application, outside its topology.
    Instances,
}

/// A topic that belongs to the application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InternalTopic {
    /// Its name.
    pub name: String,
    /// Its number of partitions.
    pub partitions: i32,
    /// What it is for.
    pub kind: InternalTopicKind,
}

impl Topology {
    /// The topics outside the application that it reads or writes.
    #[must_use]
    pub fn external_topics(&self) -> BTreeSet<&str> {
        let sources = self
            .sources
            .iter()
            .filter_map(|source| match &source.origin {
                TopicName::Outside(name) => Some(name.as_str()),
                TopicName::Repartition(_) => None,
            });
        sources.chain(self.external_sinks()).collect()
    }

    /// The topics outside the application that it writes.
    pub(crate) fn external_sinks(&self) -> BTreeSet<&str> {
        let sinks = self.sinks.iter().filter_map(|sink| match &sink.topic {
            TopicName::Outside(name) => Some(name.as_str()),
            TopicName::Repartition(_) => None,
        });
        sinks.collect()
    }
}

impl Plan {
    /// All tasks, by subtopology and partition.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskId> {
        self.subtopologies
            .iter()
            .flat_map(|subtopology| {
                (0..subtopology.partitions).map(|partition| TaskId {
                    subtopology: subtopology.id,
                    partition: Partition(partition),
                })
            })
            .collect()
    }

    /// The tasks that have stores, which follow their changelog.
    pub(crate) fn stateful_tasks(&self) -> impl Iterator<Item = TaskId> {
        self.tasks().into_iter().filter(|task| {
            let of = self.subtopology(task.subtopology);
            of.is_some_and(|subtopology| subtopology.changelog.is_some())
        })
    }

    /// Over how many partitions each store of a changelog is divided.
    pub(crate) fn store_partitions(&self) -> BTreeMap<String, i32> {
        let subtopologies = self.subtopologies.iter();
        let stores = subtopologies.flat_map(|of| {
            let stores = of.stores.iter().filter(|store| store.tag.is_some());
            stores.map(|store| (store.name.clone(), of.partitions))
        });
        stores.collect()
    }

    /// Whether any processor has timers.
    pub(crate) fn has_timers(&self) -> bool {
        let mut processors = self.topology.processors.iter();
        processors.any(|processor| processor.timers)
    }

    /// The topics that each consumer group reads.
    #[must_use]
    pub fn subscriptions(&self) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        let mut subscriptions: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for source in self
            .subtopologies
            .iter()
            .flat_map(|subtopology| &subtopology.sources)
        {
            subscriptions
                .entry(source.group.clone())
                .or_default()
                .insert(source.topic.clone());
        }
        subscriptions
    }

    /// The largest record that all written topics accept.
    pub(crate) fn record_bytes_max(&self) -> usize {
        let sinks = self.subtopologies.iter().flat_map(|of| of.sinks.iter());
        let least = sinks.map(|sink| sink.record_bytes_max).min();
        least.unwrap_or(RECORD_BYTES_MAX)
    }

    /// The partition count of each topic that is read: the number of tasks that read it.
    pub(crate) fn source_partitions(&self) -> BTreeMap<Arc<str>, i32> {
        let subtopologies = self.subtopologies.iter();
        let sources = subtopologies.flat_map(|of| {
            let topics = of.sources.iter().map(|source| source.topic.clone());
            topics.map(|topic| (topic, of.partitions))
        });
        sources.collect()
    }

    /// A text of 16 hex digits that is the same on two instances if they run the same topology on
    /// the same topics, and hardly ever otherwise. Error policies and punctuation intervals are not
    /// part of it: they may differ while a release is rolled out.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        // FNV-1a: the same in every build, which the standard library's hash is not.
        let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let text = self.identity().to_string();
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
        format!("{hash:016x}")
    }

    /// The topics that belong to the application's topology.
    #[must_use]
    pub fn internal_topics(&self) -> Vec<InternalTopic> {
        let mut topics = BTreeSet::new();
        let partitions = self
            .subtopologies
            .iter()
            .map(|subtopology| subtopology.dead_letter_partitions)
            .max()
            .unwrap_or(1);
        topics.insert(InternalTopic {
            name: self.dead_letters.to_string(),
            partitions,
            kind: InternalTopicKind::DeadLetters,
        });
        for subtopology in &self.subtopologies {
            let mut add = |name: &Arc<str>, kind| {
                topics.insert(InternalTopic {
                    name: name.to_string(),
                    partitions: subtopology.partitions,
                    kind,
                });
            };
            for source in &subtopology.sources {
                let node = self.topology.sources.get(source.node);
                if node.is_some_and(|node| matches!(node.origin, TopicName::Repartition(_))) {
                    add(&source.topic, InternalTopicKind::Repartition);
                }
                if let SourceRole::Checked(rekeyed) = &source.role {
                    add(rekeyed, InternalTopicKind::Repartition);
                }
            }
        }
        // A source that is re-keyed as a whole is read where its partners are.
        for source in self
            .subtopologies
            .iter()
            .flat_map(|subtopology| &subtopology.sources)
        {
            if let SourceRole::Rekeyed(topic, partitions) = &source.role {
                topics.insert(InternalTopic {
                    name: topic.to_string(),
                    partitions: *partitions,
                    kind: InternalTopicKind::Repartition,
                });
            }
        }
        topics.extend(self.changelog());
        topics.into_iter().collect()
    }

    /// The changelog of all stores, if there are any: with a partition for each partition number of
    /// tasks that have stores.
    pub(crate) fn changelog(&self) -> Option<InternalTopic> {
        let stateful = self.subtopologies.iter().filter_map(|subtopology| {
            let changelog = subtopology.changelog.as_ref()?;
            Some((subtopology.partitions, changelog))
        });
        let (partitions, changelog) = stateful.max_by_key(|(partitions, _)| *partitions)?;
        Some(InternalTopic {
            name: changelog.to_string(),
            partitions,
            kind: InternalTopicKind::Changelog,
        })
    }

    /// The names of all repartition topics.
    pub(crate) fn repartition_topics(&self) -> BTreeSet<String> {
        let topics = self.internal_topics().into_iter();
        topics
            .filter(|topic| topic.kind == InternalTopicKind::Repartition)
            .map(|topic| topic.name)
            .collect()
    }

    /// The partitions of repartition topics that tasks of a subtopology can write to.
    pub(crate) fn repartitions_of(
        &self,
        subtopology: &SubtopologyPlan,
    ) -> Vec<(Arc<str>, Partition)> {
        let processors = subtopology.processors.iter();
        let sinks = processors
            .filter_map(|index| self.topology.processors.get(*index))
            .flat_map(|processor| &processor.sinks)
            .filter(|index| {
                let sink = self.topology.sinks.get(**index);
                sink.is_some_and(|sink| matches!(sink.topic, TopicName::Repartition(_)))
            })
            .filter_map(|index| subtopology.sinks.get(*index))
            .map(|sink| (sink.topic.clone(), sink.partitions));
        let rekeyed = subtopology
            .sources
            .iter()
            .filter_map(|source| match &source.role {
                SourceRole::Placed => None,
                SourceRole::Checked(topic) => Some((topic.clone(), subtopology.partitions)),
                SourceRole::Rekeyed(topic, partitions) => Some((topic.clone(), *partitions)),
            });
        let topics: BTreeSet<(Arc<str>, i32)> = sinks.chain(rekeyed).collect();
        let partitions = topics.into_iter().flat_map(|(topic, partitions)| {
            (0..partitions).map(move |partition| (topic.clone(), Partition(partition)))
        });
        partitions.collect()
    }

    pub(crate) fn subtopology(&self, id: SubtopologyId) -> Option<&Arc<SubtopologyPlan>> {
        self.subtopologies.get(usize::from(id.0))
    }
}

impl SubtopologyPlan {
    /// The groups that a task of this subtopology reads in.
    pub(crate) fn groups(&self) -> BTreeSet<&Arc<str>> {
        self.sources.iter().map(|source| &source.group).collect()
    }

    /// The stores as a backend expects them.
    pub(crate) fn store_specs(&self) -> Vec<StoreSpec> {
        self.stores
            .iter()
            .map(|store| StoreSpec {
                name: store.name.clone(),
            })
            .collect()
    }

    /// The stores with their ids in the backend.
    pub(crate) fn stores_by_id(&self) -> impl Iterator<Item = (StoreId, &PlanStore)> {
        (0..).map(StoreId).zip(&self.stores)
    }
}
