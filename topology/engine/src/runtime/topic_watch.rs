//! Looks whether the topics of the application are still those that its tasks were made for.
//!
//! A topic that is deleted while it is read goes quietly: the client reads on when there is one of
//! that name again, and groups assign what there is. Tasks of partitions that are gone would be gone as
//! well, with nobody to say so; and where it was made anew with another number of partitions, keys would come to
//! tasks that do not have their rows. So the instance stops, as at a start that finds such topics.
//!
//! A broker that has just started may not know all topics yet: what is wrong counts when it is found
//! twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kafka::{Admin, KafkaFault};
use crate::topology::Plan;

/// Between two looks while nothing is wrong. Each asks for all topics of the cluster: who asks for one
/// by its name could make brokers create it.
const INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks at what is wrong.
const RECHECK: Duration = Duration::from_secs(5);

/// The topics of the application, by name, with the partitions that its tasks need.
pub(crate) struct TopicWatch {
    needed: BTreeMap<String, i32>,
    /// What was wrong at the last look.
    wrong: BTreeMap<String, Option<i32>>,
    last: Instant,
}

impl TopicWatch {
    pub(crate) fn new(plan: &Plan) -> Self {
        let read = plan.source_partitions().into_iter();
        let internal = plan.internal_topics().into_iter();
        Self {
            needed: internal
                .map(|topic| (topic.name, topic.partitions))
                .chain(read.map(|(topic, partitions)| (topic.to_string(), partitions)))
                .collect(),
            wrong: BTreeMap::new(),
            last: Instant::now(),
        }
    }

    /// Looks when it is time; what is wrong.
    pub(crate) fn look_if_due(&mut self, admin: &Admin) -> Result<Option<String>, KafkaFault> {
        let interval = if self.wrong.is_empty() {
            INTERVAL
        } else {
            RECHECK
        };
        if self.last.elapsed() < interval {
            return Ok(None);
        }
        self.last = Instant::now();
        let counts = admin.partition_counts()?;
        Ok(self.look(&counts))
    }

    /// What is wrong with these topics of the cluster, and was so at the last look.
    fn look(&mut self, counts: &BTreeMap<String, i32>) -> Option<String> {
        let found = self.needed.iter().filter_map(|(topic, needed)| {
            let found = counts.get(topic).copied();
            (found != Some(*needed)).then(|| (topic.clone(), found))
        });
        let before = std::mem::replace(&mut self.wrong, found.collect());
        let (topic, found) = self
            .wrong
            .iter()
            .find(|(topic, found)| before.get(*topic) == Some(*found))?;
        let needed = self.needed.get(topic)?;
        let what = match found {
            None => {
                format!(
                    "topic {topic} is gone: somebody has deleted it while the application runs, or its ACLs do not let the instance see it any more"
                )
            }
            Some(found) => format!(
                "topic {topic} has {found} partitions now, and the tasks of the application are made for {needed}: somebody has made it anew, or has added partitions, while the application runs"
            ),
        };
        Some(format!(
            "{what}; stop all instances; where what it held can be spared, make it anew with {needed} partitions, have the groups that read it go on where you want (kafka-consumer-groups.sh --reset-offsets), and start again; to begin anew, use another application id, and have the groups read from the start (--to-earliest)"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quiet;

    fn watch() -> (TopicWatch, BTreeMap<String, i32>) {
        let (plan, _) = quiet::plan(&[("words", 4, &["counts"]), ("resets", 2, &[])]);
        let watch = TopicWatch::new(&plan);
        let counts = watch.needed.clone();
        assert_eq!(counts.get("words"), Some(&4));
        assert_eq!(counts.get("resets"), Some(&2));
        assert_eq!(counts.get("app-stores-changelog"), Some(&4));
        (watch, counts)
    }

    #[test]
    fn what_is_gone_or_has_another_number_of_partitions_at_two_looks_is_told() {
        for (topic, found, told) in [
            ("words", None, "words is gone"),
            ("words", Some(1), "words has 1 partitions"),
            ("resets", Some(3), "resets has 3 partitions"),
            ("app-stores-changelog", None, "app-stores-changelog is gone"),
        ] {
            let (mut watch, mut counts) = watch();
            counts.remove(topic);
            counts.extend(found.map(|found| (topic.to_owned(), found)));
            assert_eq!(watch.look(&counts), None);
            let told_then = watch.look(&counts);
            assert!(
                told_then.is_some_and(|wrong| wrong.contains(told)),
                "{told}"
            );
        }
    }

    #[test]
    fn what_a_broker_does_not_know_for_a_moment_is_not_told() {
        let (mut watch, counts) = watch();
        let without = |topic: &str| {
            let mut counts = counts.clone();
            counts.remove(topic);
            counts
        };
        assert_eq!(watch.look(&without("words")), None);
        assert_eq!(watch.look(&counts), None);
        assert_eq!(watch.look(&without("words")), None);
        assert_eq!(watch.look(&without("resets")), None);
        let mut others = counts.clone();
        others.insert("others".to_owned(), 9);
        assert_eq!(watch.look(&others), None);
        assert_eq!(watch.look(&others), None);
    }
}
