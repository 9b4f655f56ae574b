//! A topology as people and tools see it: text, JSON and Graphviz's DOT.
//!
//! All three forms are made of one [`TopologyDescription`], so they cannot
//! disagree. It is deterministic: nodes come in the order of their declaration,
//! topics by name. A declared topology is described with the bare names of its
//! internal topics; a [`Plan`] knows their prefix, all partition counts, the tasks
//! and the subtopologies that only re-key.

mod dot;
mod text;

use serde::Serialize;

use super::components::Components;
use super::graph::{Edge, STORES_CHANGELOG, SourceDef, SubtopologyDef, TopicName, Topology};
use super::plan::{InternalTopicKind, Plan, PlanSource, PlanStore, SourceRole, SubtopologyPlan};
use crate::processor::PunctuationType;
use crate::source::ErrorPolicy;
use crate::{SubtopologyId, TaskId};

/// What text, JSON and DOT show.
#[derive(Debug, Serialize)]
struct TopologyDescription {
    /// Only if a cluster is known.
    application_id: Option<String>,
    subtopologies: Vec<SubtopologyDescription>,
    /// By name; only if a cluster is known.
    topics: Vec<TopicDescription>,
}

#[derive(Debug, Serialize)]
struct SubtopologyDescription {
    id: SubtopologyId,
    /// Only if a cluster is known.
    tasks: Vec<TaskId>,
    /// The other subtopologies whose tasks always commit in one transaction with those of this one,
    /// if one stream thread has both; only if a cluster is known. (Not in JSON, which instances use
    /// to tell whether they run the same topology: it follows from the rest.)
    #[serde(skip)]
    commits_with: Vec<SubtopologyId>,
    sources: Vec<SourceDescription>,
    processors: Vec<ProcessorDescription>,
    stores: Vec<StoreDescription>,
}

#[derive(Debug, Serialize)]
struct SourceDescription {
    topic: String,
    group: String,
    on_error: &'static str,
    /// Where records go whose key is not their id.
    rekeys: Option<Rekeying>,
    /// The processors that read it.
    to: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Rekeying {
    records: Rekeyed,
    through: String,
}

/// Which records of a source go through its repartition topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Rekeyed {
    /// Those whose id belongs to another partition.
    Misplaced,
    /// All: the topic has a different number of partitions than its partners.
    All,
}

#[derive(Debug, Serialize)]
struct ProcessorDescription {
    name: String,
    /// What flows in: topics of sources and outlets of processors.
    from: Vec<InputDescription>,
    stores: Vec<String>,
    timers: Option<String>,
    punctuators: Vec<PunctuatorDescription>,
    forwards: Vec<ForwardDescription>,
    /// The topics of its sinks.
    sends: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum InputDescription {
    Topic(String),
    Processor(String),
}

#[derive(Debug, Serialize)]
struct PunctuatorDescription {
    clock: &'static str,
    every_ms: u64,
}

#[derive(Debug, Serialize)]
struct ForwardDescription {
    outlet: String,
    to: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StoreDescription {
    name: String,
    /// None for a store that is derived from another.
    changelog: Option<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct TopicDescription {
    name: String,
    partitions: i32,
    kind: &'static str,
}

impl Topology {
    /// The declaration as text: its subtopologies and what connects their nodes.
    #[must_use]
    pub fn describe_text(&self) -> String {
        self.description(None).text()
    }

    /// The same for one application, with the full names of its internal topics.
    #[must_use]
    pub fn describe_text_of(&self, application_id: &str) -> String {
        self.description(Some(application_id)).text()
    }

    fn description(&self, application_id: Option<&str>) -> TopologyDescription {
        let names = Names {
            topology: self,
            application_id,
        };
        names.topology()
    }
}

impl Plan {
    /// The topology on its cluster as text, with tasks, topics and partition counts.
    #[must_use]
    pub fn describe_text(&self) -> String {
        self.description().text()
    }

    /// The same as JSON, for tools.
    #[must_use]
    pub fn describe_json(&self) -> serde_json::Value {
        json_of(&self.description())
    }

    /// What instances that run side by side have to agree on, as JSON.
    pub(super) fn identity(&self) -> serde_json::Value {
        let mut description = self.description();
        for subtopology in &mut description.subtopologies {
            for source in &mut subtopology.sources {
                source.on_error = "";
            }
            for processor in &mut subtopology.processors {
                for punctuator in &mut processor.punctuators {
                    punctuator.every_ms = 0;
                }
            }
        }
        json_of(&description)
    }

    /// The same as a graph in Graphviz's DOT.
    #[must_use]
    pub fn describe_dot(&self) -> String {
        self.description().dot()
    }

    fn description(&self) -> TopologyDescription {
        let names = Names {
            topology: &self.topology,
            application_id: Some(&self.application_id),
        };
        let components = Components::of(self);
        TopologyDescription {
            application_id: Some(self.application_id.to_string()),
            subtopologies: self
                .subtopologies
                .iter()
                .map(|subtopology| names.planned(self, &components, subtopology))
                .collect(),
            topics: self.topics(),
        }
    }

    /// Every topic that the tasks read or write, by name.
    fn topics(&self) -> Vec<TopicDescription> {
        let mut topics: Vec<TopicDescription> = Vec::new();
        for topic in self.internal_topics() {
            let kind = match topic.kind {
                InternalTopicKind::Changelog => "changelog",
                InternalTopicKind::Repartition => "repartition",
                InternalTopicKind::DeadLetters => "dead-letters",
                InternalTopicKind::Instances => "instances",
            };
            topics.push(TopicDescription {
                name: topic.name,
                partitions: topic.partitions,
                kind,
            });
        }
        let mut external = |name: &str, partitions| {
            if !topics.iter().any(|topic| topic.name == name) {
                topics.push(TopicDescription {
                    name: name.to_owned(),
                    partitions,
                    kind: "external",
                });
            }
        };
        for subtopology in &self.subtopologies {
            for source in &subtopology.sources {
                external(&source.topic, subtopology.partitions);
            }
            for sink in subtopology.sinks.iter() {
                external(&sink.topic, sink.partitions);
            }
        }
        topics.sort();
        topics
    }
}

fn json_of(description: &TopologyDescription) -> serde_json::Value {
    serde_json::to_value(description).expect("a description is made of lists, texts and numbers")
}

/// Resolves indices to names.
struct Names<'a> {
    topology: &'a Topology,
    application_id: Option<&'a str>,
}

impl Names<'_> {
    fn topology(&self) -> TopologyDescription {
        TopologyDescription {
            application_id: self.application_id.map(str::to_owned),
            subtopologies: self
                .topology
                .subtopologies
                .iter()
                .map(|part| self.declared(part))
                .collect(),
            topics: Vec::new(),
        }
    }

    fn declared(&self, part: &SubtopologyDef) -> SubtopologyDescription {
        let sources = part
            .sources
            .iter()
            .filter_map(|index| self.topology.sources.get(*index));
        let stores = part
            .stores
            .iter()
            .filter_map(|index| self.topology.stores.get(*index));
        let processors = part
            .processors
            .iter()
            .filter_map(|index| self.topology.processors.get(*index));
        let timers = processors
            .filter(|processor| processor.timers)
            .map(|processor| processor.timers_store());
        let stores = stores.map(|store| store.name.clone()).chain(timers);
        let sources: Vec<SourceDescription> =
            sources.map(|source| self.source(source, None)).collect();
        SubtopologyDescription {
            id: part.id,
            tasks: Vec::new(),
            commits_with: Vec::new(),
            processors: self.processors(&part.processors, &sources),
            sources,
            stores: stores
                .map(|name| StoreDescription {
                    changelog: Some(self.named(STORES_CHANGELOG)),
                    name,
                })
                .collect(),
        }
    }

    fn planned(
        &self,
        plan: &Plan,
        components: &Components,
        part: &SubtopologyPlan,
    ) -> SubtopologyDescription {
        let sources = part.sources.iter().filter_map(|planned| {
            Some(self.source(self.topology.sources.get(planned.node)?, Some(planned)))
        });
        let sources: Vec<SourceDescription> = sources.collect();
        SubtopologyDescription {
            id: part.id,
            tasks: plan
                .tasks()
                .into_iter()
                .filter(|task| task.subtopology == part.id)
                .collect(),
            commits_with: components.others(part.id),
            processors: self.processors(&part.processors, &sources),
            sources,
            stores: part.stores.iter().map(|of| store(part, of)).collect(),
        }
    }

    /// A source as declared, or as one of the topics that it reads on a cluster.
    fn source(&self, source: &SourceDef, planned: Option<&PlanSource>) -> SourceDescription {
        let rekeying = |records, through: String| Some(Rekeying { records, through });
        let (topic, rekeys, reads) = match planned {
            None => {
                let through = source
                    .rekeyed_through
                    .as_ref()
                    .map(|name| self.repartition(name));
                let rekeys = through.and_then(|through| rekeying(Rekeyed::Misplaced, through));
                (self.topic(&source.origin), rekeys, true)
            }
            Some(planned) => {
                let rekeys = match &planned.role {
                    SourceRole::Placed => None,
                    SourceRole::Checked(through) => {
                        rekeying(Rekeyed::Misplaced, through.to_string())
                    }
                    SourceRole::Rekeyed(through, _) => rekeying(Rekeyed::All, through.to_string()),
                };
                (
                    planned.topic.to_string(),
                    rekeys,
                    !matches!(planned.role, SourceRole::Rekeyed(..)),
                )
            }
        };
        SourceDescription {
            topic,
            group: source.group.clone(),
            on_error: match source.policy {
                ErrorPolicy::DeadLetter => "dead-letter",
                ErrorPolicy::Stop => "stop",
            },
            rekeys,
            to: if reads {
                self.targets(&source.children)
            } else {
                Vec::new()
            },
        }
    }

    fn processors(
        &self,
        indices: &[usize],
        sources: &[SourceDescription],
    ) -> Vec<ProcessorDescription> {
        let known = indices
            .iter()
            .filter_map(|index| Some((*index, self.topology.processors.get(*index)?)));
        known
            .map(|(index, processor)| ProcessorDescription {
                name: processor.name.clone(),
                from: self.inputs(index, sources),
                stores: name_all(&processor.stores, &self.topology.stores, |store| {
                    store.name.clone()
                }),
                timers: processor.timers.then(|| processor.timers_store()),
                punctuators: processor
                    .punctuations
                    .iter()
                    .map(|(clock, every)| PunctuatorDescription {
                        clock: match clock {
                            PunctuationType::WallClockTime => "wall-clock",
                            PunctuationType::StreamTime => "stream",
                        },
                        every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
                    })
                    .collect(),
                forwards: name_all(&processor.outlets, &self.topology.outlets, |outlet| {
                    ForwardDescription {
                        outlet: outlet.name.clone(),
                        to: self.targets(&outlet.children),
                    }
                }),
                sends: name_all(&processor.sinks, &self.topology.sinks, |sink| {
                    match &sink.topic {
                        TopicName::Outside(name) => name.clone(),
                        TopicName::Repartition(name) => self.repartition(name),
                    }
                }),
            })
            .collect()
    }

    /// What flows into a processor: first from topics, then from processors.
    fn inputs(&self, processor: usize, sources: &[SourceDescription]) -> Vec<InputDescription> {
        let name = self
            .topology
            .processors
            .get(processor)
            .map_or("", |processor| &processor.name);
        let sources = sources
            .iter()
            .filter(|source| source.to.iter().any(|to| to == name));
        let senders = self.topology.processors.iter().filter(|sender| {
            let outlets = sender
                .outlets
                .iter()
                .filter_map(|outlet| self.topology.outlets.get(*outlet));
            outlets
                .flat_map(|outlet| &outlet.children)
                .any(|edge| edge.to == processor)
        });
        sources
            .map(|source| InputDescription::Topic(source.topic.clone()))
            .chain(senders.map(|sender| InputDescription::Processor(sender.name.clone())))
            .collect()
    }

    fn targets(&self, edges: &[Edge]) -> Vec<String> {
        let targets = edges
            .iter()
            .filter_map(|edge| self.topology.processors.get(edge.to));
        targets.map(|processor| processor.name.clone()).collect()
    }

    fn topic(&self, origin: &TopicName) -> String {
        match origin {
            TopicName::Outside(name) => name.clone(),
            TopicName::Repartition(name) => self.repartition(name),
        }
    }

    fn repartition(&self, name: &str) -> String {
        self.named(&format!("{name}-repartition"))
    }

    /// What an internal topic is called.
    fn named(&self, name: &str) -> String {
        match self.application_id {
            Some(application_id) => format!("{application_id}-{name}"),
            None => name.to_owned(),
        }
    }
}

fn store(plan: &SubtopologyPlan, store: &PlanStore) -> StoreDescription {
    let changelog = plan.changelog.as_deref().filter(|_| store.tag.is_some());
    StoreDescription {
        name: store.name.clone(),
        changelog: changelog.map(str::to_owned),
    }
}

fn name_all<T, N>(indices: &[usize], all: &[T], name: impl Fn(&T) -> N) -> Vec<N> {
    indices
        .iter()
        .filter_map(|index| all.get(*index))
        .map(name)
        .collect()
}
