//! Which tasks a thread owns, from what each of its consumer groups assigned to it.
//!
//! A subtopology may be read in several groups, and the groups assign one by one, so they can
//! differ while they converge. A task is owned only while its partition is held in **all** source
//! groups of its subtopology; while it is held in some, it waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::kafka::TopicPartition;
use crate::TaskId;
use crate::topology::{Plan, SubtopologyPlan};

/// How much of a task a thread holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hold {
    /// All of its sources.
    Owned,
    /// Some of them; these groups have not assigned the rest.
    Partial(BTreeSet<Arc<str>>),
}

/// Why no task reads a partition that a group has assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The topology does not read the topic in this group: the assignment was made for what an
    /// earlier process with the same member subscribed to.
    Topic,
    /// The topic has more partitions than when the topology was resolved.
    BeyondPlan,
}

/// What the groups of one thread have assigned to it.
pub(crate) struct Ownership {
    plan: Arc<Plan>,
    /// By group that has assigned: its assignment.
    assigned: BTreeMap<Arc<str>, BTreeSet<TopicPartition>>,
}

impl Ownership {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            assigned: BTreeMap::new(),
        }
    }

    pub(crate) fn assign(
        &mut self,
        group: &Arc<str>,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) {
        self.assigned
            .insert(group.clone(), partitions.into_iter().collect());
    }

    pub(crate) fn revoke(&mut self, group: &Arc<str>) {
        self.assigned.remove(group);
    }

    /// Whether every group has assigned.
    pub(crate) fn all_groups_assigned(&self) -> bool {
        let subscriptions = self.plan.subscriptions();
        subscriptions.keys().all(|group| self.has_assigned(group))
    }

    /// Whether a group has assigned.
    pub(crate) fn has_assigned(&self, group: &Arc<str>) -> bool {
        self.assigned.contains_key(group)
    }

    /// The tasks of which the thread holds anything.
    pub(crate) fn holds(&self) -> BTreeMap<TaskId, Hold> {
        let tasks = self.plan.tasks().into_iter();
        tasks
            .filter_map(|task| Some((task, self.hold(task)?)))
            .collect()
    }

    /// The first of `partitions` that no task reads in this group, and why.
    pub(crate) fn unread<'p>(
        &self,
        group: &Arc<str>,
        partitions: &'p [TopicPartition],
    ) -> Option<(&'p TopicPartition, Unread)> {
        let unread = |place: &TopicPartition| {
            let readers = self.plan.subtopologies.iter().filter(|subtopology| {
                let mut sources = subtopology.sources.iter();
                sources.any(|of| of.group == *group && of.topic == place.topic)
            });
            let Some(widest) = readers.map(|of| of.partitions).max() else {
                return Some(Unread::Topic);
            };
            (place.partition.0 >= widest).then_some(Unread::BeyondPlan)
        };
        let mut found = partitions.iter();
        found.find_map(|place| Some((place, unread(place)?)))
    }

    /// Whether a group has assigned what the task reads in it, but not here.
    pub(crate) fn is_elsewhere(&self, task: TaskId) -> bool {
        let Some(subtopology) = self.plan.subtopology(task.subtopology) else {
            return true;
        };
        let mut sources = source_partitions(subtopology, task).into_iter();
        sources.any(|(group, place)| {
            let assigned = self.assigned.get(&group);
            assigned.is_some_and(|held| !held.contains(&place))
        })
    }

    fn hold(&self, task: TaskId) -> Option<Hold> {
        let subtopology = self.plan.subtopology(task.subtopology)?;
        let sources = source_partitions(subtopology, task);
        let (held, missing): (Vec<_>, Vec<_>) = sources.into_iter().partition(|(group, place)| {
            self.assigned
                .get(group)
                .is_some_and(|held| held.contains(place))
        });
        if held.is_empty() {
            return None;
        }
        if missing.is_empty() {
            return Some(Hold::Owned);
        }
        Some(Hold::Partial(
            missing.into_iter().map(|(group, _)| group).collect(),
        ))
    }
}

/// The partitions that a task reads, with the group of each.
pub(crate) fn source_partitions(
    subtopology: &SubtopologyPlan,
    task: TaskId,
) -> Vec<(Arc<str>, TopicPartition)> {
    let sources = subtopology.sources.iter();
    sources
        .map(|source| {
            let place = TopicPartition {
                topic: source.topic.clone(),
                partition: task.partition,
            };
            (source.group.clone(), place)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Decoded, Encode, Partition, Processor, ProcessorError, Source, SubtopologyId,
        TopologyBuilder,
    };

    #[derive(Clone)]
    struct Nothing;

    impl Encode for Nothing {
        fn encode(&self, _out: &mut Vec<u8>) {}
    }

    impl Processor for Nothing {
        type In = Nothing;

        fn process(
            &mut self,
            _: &mut crate::Context<'_>,
            _: Nothing,
        ) -> Result<(), ProcessorError> {
            Ok(())
        }
    }

    /// One subtopology that reads `a` in group `g1` and `b` in group `g2`.
    fn ownership() -> Ownership {
        let mut builder = TopologyBuilder::new();
        let a = builder.source(Source::new("a", "g1", |_| Ok(Decoded::Message(Nothing))));
        let b = builder.source(Source::new("b", "g2", |_| Ok(Decoded::Message(Nothing))));
        builder.processor("p", || Nothing).input(a).input(b).done();
        let topology = Arc::new(builder.build().unwrap());
        let counts = [("a".to_owned(), 2), ("b".to_owned(), 2)].into();
        Ownership::new(Arc::new(topology.resolve("app", &counts).unwrap()))
    }

    fn place(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition: Partition(partition),
        }
    }

    fn task(partition: i32) -> TaskId {
        TaskId {
            subtopology: SubtopologyId(0),
            partition: Partition(partition),
        }
    }

    #[test]
    fn a_task_is_owned_only_while_all_groups_hold_its_partition() {
        let mut ownership = ownership();
        let (g1, g2): (Arc<str>, Arc<str>) = ("g1".into(), "g2".into());
        assert!(ownership.holds().is_empty());
        ownership.assign(&g1, [place("a", 0), place("a", 1)]);
        let waits = Hold::Partial(["g2".into()].into());
        assert_eq!(
            ownership.holds(),
            [(task(0), waits.clone()), (task(1), waits.clone())].into()
        );
        assert!(!ownership.all_groups_assigned());
        assert!(!ownership.is_elsewhere(task(0)));
        ownership.assign(&g2, [place("b", 1)]);
        assert!(ownership.is_elsewhere(task(0)));
        assert!(!ownership.is_elsewhere(task(1)));
        assert_eq!(
            ownership.holds(),
            [(task(0), waits), (task(1), Hold::Owned)].into()
        );
        assert!(ownership.all_groups_assigned());
        let more = [place("a", 1), place("a", 2)];
        let beyond = place("a", 2);
        let expected = Some((&beyond, Unread::BeyondPlan));
        assert_eq!(ownership.unread(&g1, &more), expected);
        assert_eq!(ownership.unread(&g1, &more[..1]), None);
        // The topic is read in the other group.
        let foreign = [place("a", 0), place("b", 0)];
        let expected = Some((&foreign[1], Unread::Topic));
        assert_eq!(ownership.unread(&g1, &foreign), expected);
        ownership.revoke(&g1);
        assert_eq!(
            ownership.holds(),
            [(task(1), Hold::Partial(["g1".into()].into()))].into()
        );
        ownership.revoke(&g2);
        assert!(ownership.holds().is_empty());
    }
}
