//! Which records can skip a repartition topic.
//!
//! A record that a task sends to a repartition topic is for another task, which often runs on the
//! same thread. Through the topic it becomes visible with the sender's commit and is processed in
//! the transaction after that one. On the shortcut, the reader processes it at once, in the
//! sender's transaction: that saves one commit on the way, and both the record and the position in
//! the topic. Both tasks, and the topic's partitions, keep their owners and fences, so a crash
//! loses both effects or none.
//!
//! Nothing may be overtaken: the records that a task sends reach a reader in the order in which
//! they were sent. So a way is open only while the reader has read everything that senders of this
//! thread have put into the topic, now or when they were tasks of others:
//!
//! 1. When a task begins to run here, whatever its former owner sent is in the topic, before the
//!    end that was found during its restore.
//! 2. What this thread itself sends through the topic ends at an offset that is known when its
//!    transaction is committed.
//! 3. The way is closed until the reader's position is past both.
//!
//! What other instances send meanwhile comes from other tasks, and has no order relative to this.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::runtime::kafka::{Slot, TopicPartition};
use crate::topology::Plan;
use crate::{Offset, Partition, SubtopologyId, TaskId};

/// The way to one partition of a repartition topic.
#[derive(Debug)]
struct Way {
    open: bool,
    /// The reader has to reach this offset before the way opens.
    end: Offset,
    /// Where the offset of the last record that went through the topic is found.
    sent: Option<Slot>,
    /// Whether a record has gone through the topic in the open transaction.
    is_uncommitted: bool,
    /// And in the transaction whose commit is under way.
    is_committing: bool,
}

/// The ways to one repartition topic.
#[derive(Debug)]
struct Ways {
    subtopology: SubtopologyId,
    source: usize,
    /// By partition.
    ways: Vec<Way>,
}

/// The ways to the repartition topics of one component, for one stream thread.
#[derive(Debug)]
pub(super) struct Shortcuts {
    topics: HashMap<Arc<str>, Ways>,
}

impl Shortcuts {
    /// All ways to these subtopologies, closed. A topic that several of them read has none.
    pub(super) fn new(plan: &Plan, is_read_by: impl Fn(SubtopologyId) -> bool) -> Self {
        let closed = || Way {
            open: false,
            end: Offset(0),
            sent: None,
            is_uncommitted: false,
            is_committing: false,
        };
        let repartition = plan.repartition_topics();
        let mut topics: HashMap<Arc<str>, Option<Ways>> = HashMap::new();
        let readers = plan.subtopologies.iter();
        for subtopology in readers.filter(|of| is_read_by(of.id)) {
            for (source, of) in subtopology.sources.iter().enumerate() {
                if !repartition.contains(&*of.topic) {
                    continue;
                }
                match topics.entry(of.topic.clone()) {
                    Entry::Occupied(mut several) => *several.get_mut() = None,
                    Entry::Vacant(first) => {
                        let ways = (0..subtopology.partitions).map(|_| closed()).collect();
                        first.insert(Some(Ways {
                            subtopology: subtopology.id,
                            source,
                            ways,
                        }));
                    }
                }
            }
        }
        let topics = topics.into_iter();
        Self {
            topics: topics
                .filter_map(|(topic, ways)| Some((topic, ways?)))
                .collect(),
        }
    }

    fn way(&mut self, topic: &str, partition: Partition) -> Option<&mut Way> {
        let ways = &mut self.topics.get_mut(topic)?.ways;
        ways.get_mut(usize::try_from(partition.0).ok()?)
    }

    /// The task, and which of its sources, that a record can be passed to at once.
    pub(super) fn reader(&self, topic: &str, partition: Partition) -> Option<(TaskId, usize)> {
        let ways = self.topics.get(topic)?;
        let way = ways.ways.get(usize::try_from(partition.0).ok()?)?;
        let task = TaskId {
            subtopology: ways.subtopology,
            partition,
        };
        way.open.then_some((task, ways.source))
    }

    /// A record goes through the topic: the way is closed until the reader has read it. Returns
    /// where its offset will be found, for a repartition topic.
    pub(super) fn close(
        &mut self,
        topic: &str,
        partition: Partition,
        slot: impl FnOnce() -> Slot,
    ) -> Option<Slot> {
        let way = self.way(topic, partition)?;
        way.open = false;
        way.is_uncommitted = true;
        Some(*way.sent.get_or_insert_with(slot))
    }

    /// A task begins to run here; its former owner may have sent what is before `end`.
    pub(super) fn begins(&mut self, place: &TopicPartition, end: Offset) {
        if let Some(way) = self.way(&place.topic, place.partition)
            && way.end < end
        {
            way.open = false;
            way.end = end;
        }
    }

    fn ways(&mut self) -> impl Iterator<Item = &mut Way> {
        self.topics.values_mut().flat_map(|topic| &mut topic.ways)
    }

    /// The commit of all records that were sent up to now has begun.
    pub(super) fn sealed(&mut self) {
        for way in self.ways() {
            way.is_committing = std::mem::take(&mut way.is_uncommitted);
        }
    }

    /// The records whose commit was under way are committed, up to these offsets.
    pub(super) fn committed(&mut self, next_offset: impl Fn(Slot) -> Option<Offset>) {
        for way in self.ways().filter(|way| way.is_committing) {
            let sent = way.sent.and_then(&next_offset);
            way.end = way.end.max(sent.unwrap_or(way.end));
            way.is_committing = false;
        }
    }

    /// Opens the ways whose readers have reached the end; `position` is where they are.
    pub(super) fn open(&mut self, position: impl Fn(TaskId, &TopicPartition) -> Option<Offset>) {
        for (topic, ways) in &mut self.topics {
            let closed = (0..).map(Partition).zip(&mut ways.ways);
            let closed = closed.filter(|(_, way)| !way.open);
            let known = closed.filter(|(_, way)| !way.is_uncommitted && !way.is_committing);
            for (partition, way) in known {
                let task = TaskId {
                    subtopology: ways.subtopology,
                    partition,
                };
                let place = TopicPartition {
                    topic: topic.clone(),
                    partition,
                };
                way.open = position(task, &place).is_some_and(|at| at >= way.end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Context, Decoded, Encode, Processor, ProcessorError, Sink, Source, TopologyBuilder,
    };

    const HERE: Partition = Partition(1);

    #[derive(Clone)]
    struct Nothing;

    impl Encode for Nothing {
        fn encode(&self, _out: &mut Vec<u8>) {}
    }

    struct Relay(Option<Sink<Nothing>>);

    impl Processor for Relay {
        type In = Nothing;

        fn process(&mut self, context: &mut Context<'_>, _: Nothing) -> Result<(), ProcessorError> {
            match self.0 {
                Some(next) => context.send(next, "key", &Nothing),
                None => Ok(()),
            }
        }
    }

    /// One subtopology that sends to another, at two partitions.
    fn plan() -> Plan {
        let decode = |_: &crate::InputRecord<'_>| Ok(Decoded::Message(Nothing));
        let mut builder = TopologyBuilder::new();
        let numbers = builder.source(Source::new("numbers", "g1", decode));
        let (relayed, arrived) = builder.repartition("relayed", "g2", decode);
        builder
            .processor("first", move || Relay(Some(relayed)))
            .input(numbers)
            .sink(relayed)
            .done();
        let last = builder.processor("last", || Relay(None));
        last.input(arrived).done();
        let topology = Arc::new(builder.build().unwrap());
        let counts = [("numbers".to_owned(), 2)].into();
        topology.resolve("app", &counts).unwrap()
    }

    /// Ways of an application whose first subtopology sends to its second.
    struct Fixture {
        shortcuts: Shortcuts,
        topic: Arc<str>,
        slots: usize,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                shortcuts: Shortcuts::new(&plan(), |_| true),
                topic: "app-relayed-repartition".into(),
                slots: 0,
            }
        }

        fn place(&self) -> TopicPartition {
            TopicPartition {
                topic: self.topic.clone(),
                partition: HERE,
            }
        }

        fn is_open(&self) -> bool {
            self.shortcuts.reader(&self.topic, HERE).is_some()
        }

        /// The reader runs here and is at this offset; `None`: it does not run here.
        fn look(&mut self, position: Option<i64>) {
            let reader = TaskId {
                subtopology: SubtopologyId(1),
                partition: HERE,
            };
            self.shortcuts.open(|task, place| {
                let asked = task == reader && place.partition == HERE;
                position.filter(|_| asked).map(Offset)
            });
        }

        fn send_through_topic(&mut self) {
            let slot = Slot::numbered(self.slots);
            self.slots += 1;
            let found = self.shortcuts.close(&self.topic, HERE, || slot);
            assert_eq!(found, Some(Slot::numbered(0)), "one for all");
        }

        fn finish_commit(&mut self, reached: Option<i64>) {
            self.shortcuts.committed(|_| reached.map(Offset));
        }
    }

    #[test]
    fn what_a_task_can_write_to_is_known() {
        let plan = plan();
        let written = |of: u16| plan.repartitions_of(plan.subtopology(SubtopologyId(of)).unwrap());
        let all = [0, 1].map(|n| ("app-relayed-repartition".into(), Partition(n)));
        assert_eq!(written(0), all);
        assert_eq!(written(1), []);
    }

    #[test]
    fn a_way_opens_where_the_reader_runs_and_leads_to_it() {
        let mut ways = Fixture::new();
        assert!(!ways.is_open());
        ways.look(None);
        assert!(!ways.is_open());
        ways.look(Some(0));
        let reader = TaskId {
            subtopology: SubtopologyId(1),
            partition: HERE,
        };
        assert_eq!(ways.shortcuts.reader(&ways.topic, HERE), Some((reader, 0)));
        assert_eq!(ways.shortcuts.reader(&ways.topic, Partition(0)), None);
        assert_eq!(ways.shortcuts.reader("numbers", HERE), None);
    }

    #[test]
    fn what_a_former_owner_sent_is_not_overtaken() {
        let mut ways = Fixture::new();
        ways.look(Some(5));
        ways.shortcuts.begins(&ways.place(), Offset(7));
        assert!(!ways.is_open());
        for (position, opens) in [(6, false), (7, true)] {
            ways.look(Some(position));
            assert_eq!(ways.is_open(), opens, "at {position}");
        }
        // The reader is past that.
        ways.shortcuts.begins(&ways.place(), Offset(7));
        assert!(ways.is_open());
    }

    #[test]
    fn what_went_through_the_topic_is_not_overtaken() {
        let mut ways = Fixture::new();
        ways.look(Some(0));
        ways.send_through_topic();
        ways.send_through_topic();
        assert!(!ways.is_open());
        // Nobody knows yet where they are.
        ways.look(Some(1_000));
        assert!(!ways.is_open());
        ways.shortcuts.sealed();
        ways.look(Some(1_000));
        assert!(!ways.is_open());
        ways.finish_commit(Some(12));
        ways.look(Some(11));
        assert!(!ways.is_open());
        ways.look(Some(12));
        assert!(ways.is_open());
    }

    #[test]
    fn what_was_sent_while_a_commit_was_under_way_is_not_overtaken() {
        let mut ways = Fixture::new();
        ways.look(Some(0));
        ways.send_through_topic();
        ways.shortcuts.sealed();
        ways.send_through_topic();
        // The reader is past the first, but not the second.
        ways.finish_commit(Some(12));
        ways.look(Some(12));
        assert!(!ways.is_open());
        ways.shortcuts.sealed();
        ways.finish_commit(Some(15));
        ways.look(Some(12));
        assert!(!ways.is_open());
        ways.look(Some(15));
        assert!(ways.is_open());
    }

    #[test]
    fn a_topic_that_is_no_repartition_topic_has_no_way() {
        let mut ways = Fixture::new();
        let slot = ways
            .shortcuts
            .close("numbers", HERE, || unreachable!("no way, no slot"));
        assert_eq!(slot, None);
    }
}
