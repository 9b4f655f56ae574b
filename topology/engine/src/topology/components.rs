//! The components of a topology: which subtopologies have to share a transaction.
//!
//! Subtopologies belong together when one sends to a repartition topic that the other reads: if
//! both run on one thread, a record skips the topic, and what both do as a result is committed
//! together or not at all. Subtopologies of different components are connected only through topics
//! outside the application, so nothing requires a common transaction.

use std::collections::BTreeSet;

use super::plan::Plan;
use crate::SubtopologyId;

/// One component of a topology; they are numbered by their first subtopology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Component(pub(crate) usize);

/// The component of each subtopology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Components {
    of: Vec<Component>,
    number: usize,
}

impl Components {
    /// The components of a plan.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut of: Vec<usize> = (0..plan.subtopologies.len()).collect();
        for (writer, from) in plan.subtopologies.iter().enumerate() {
            let written = plan.repartitions_of(from).into_iter();
            let written: BTreeSet<_> = written.map(|(topic, _)| topic).collect();
            for (reader, to) in plan.subtopologies.iter().enumerate() {
                if to
                    .sources
                    .iter()
                    .any(|source| written.contains(&source.topic))
                {
                    join(&mut of, writer, reader);
                }
            }
        }
        let firsts: BTreeSet<usize> = of.iter().copied().collect();
        let numbered = of
            .iter()
            .map(|first| Component(firsts.range(..first).count()));
        Self {
            of: numbered.collect(),
            number: firsts.len(),
        }
    }

    /// How many there are.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = Component> + use<> {
        (0..self.number).map(Component)
    }

    /// The other subtopologies of the component that this one belongs to.
    pub(crate) fn others(&self, subtopology: SubtopologyId) -> Vec<SubtopologyId> {
        let component = self.component(subtopology);
        let all = (0..).map(SubtopologyId).zip(&self.of);
        let others = all.filter(|(id, of)| *id != subtopology && Some(**of) == component);
        others.map(|(id, _)| id).collect()
    }

    /// The component that a subtopology belongs to.
    pub(crate) fn component(&self, subtopology: SubtopologyId) -> Option<Component> {
        self.of.get(usize::from(subtopology.0)).copied()
    }
}

/// Merges two parts, under the smaller number.
fn join(of: &mut [usize], a: usize, b: usize) {
    let (Some(&a), Some(&b)) = (of.get(a), of.get(b)) else {
        return;
    };
    let (to, from) = (a.min(b), a.max(b));
    for part in of.iter_mut().filter(|part| **part == from) {
        *part = to;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::{
        Context, DecodeError, Decoded, Encode, InputRecord, Processor, ProcessorError, Source,
        TopologyBuilder,
    };

    #[derive(Clone)]
    struct Nothing;

    impl Encode for Nothing {
        fn encode(&self, _out: &mut Vec<u8>) {}
    }

    struct Idle;

    impl Processor for Idle {
        type In = Nothing;

        fn process(&mut self, _: &mut Context<'_>, _: Nothing) -> Result<(), ProcessorError> {
            Ok(())
        }
    }

    fn decode(_: &InputRecord<'_>) -> Result<Decoded<Nothing>, DecodeError> {
        Ok(Decoded::Message(Nothing))
    }

    /// Four subtopologies: one reads a and sends to a repartition topic, one reads b, one reads
    /// that topic, one reads c keyed by its ids.
    fn components(c_partitions: i32) -> Components {
        let mut builder = TopologyBuilder::new();
        let a = builder.source(Source::new("a", "a", decode));
        let b = builder.source(Source::new("b", "b", decode));
        let c = Source::new("c", "c", decode).keyed_by("c-by-id", |_| Vec::new());
        let c = builder.source(c);
        let d = builder.source(Source::new("d", "c", decode));
        let (sink, sent) = builder.repartition("sent", "sent", decode);
        builder.processor("a", || Idle).input(a).sink(sink).done();
        builder.processor("b", || Idle).input(b).done();
        builder.processor("sent", || Idle).input(sent).done();
        let of_c = builder.processor("c", || Idle).input(c);
        of_c.input(d).done();
        let topology = Arc::new(builder.build().unwrap());
        let counts = [("a", 2), ("b", 2), ("c", c_partitions), ("d", 2)];
        let counts = counts.map(|(topic, number)| (topic.to_owned(), number));
        let plan = topology.resolve("app", &BTreeMap::from(counts)).unwrap();
        Components::of(&plan)
    }

    fn numbers(components: &Components) -> Vec<usize> {
        let of = (0..).map_while(|id| components.component(SubtopologyId(id)));
        of.map(|Component(number)| number).collect()
    }

    #[test]
    fn subtopologies_that_a_repartition_topic_joins_are_one_component() {
        let components = components(2);
        assert_eq!(numbers(&components), [0, 1, 0, 2]);
        assert_eq!(components.number(), 3);
        assert_eq!(components.all().count(), 3);
        assert_eq!(components.others(SubtopologyId(0)), [SubtopologyId(2)]);
        assert_eq!(components.others(SubtopologyId(1)), []);
        assert_eq!(components.others(SubtopologyId(7)), []);
    }

    #[test]
    fn who_only_re_keys_belongs_to_the_reader() {
        // One more subtopology brings the records of c to the partitions of d.
        let components = components(3);
        assert_eq!(numbers(&components), [0, 1, 0, 2, 2]);
        assert_eq!(components.number(), 3);
    }
}
