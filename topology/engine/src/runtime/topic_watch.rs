//! Checks that the topics of the application are still those that its tasks were made for.
//!
//! A topic that is deleted while it is read disappears silently: the client reads on when there is
//! one of that name again, and groups assign what there is. Tasks of partitions that are gone would
//! disappear too, with nobody to report it; and if the topic was recreated with another number of
//! partitions, keys would come to tasks that do not have their rows. So the instance stops, as at a
//! start that finds such topics.
//!
//! A broker that has just started may not know all topics yet, and while ACLs are changed topics
//! may be invisible for a moment. The instance stops for good, so a topic counts as gone only if it
//! was not seen for a minute, at every look; another number of partitions counts when it is found
//! twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kafka::{Admin, KafkaFault};
use crate::topology::Plan;

/// The time between two looks while nothing is wrong. Each asks for all topics of the cluster:
/// asking for one by its name could make brokers create it.
const INTERVAL: Duration = Duration::from_secs(30);
/// The time between two looks while something is wrong.
const RECHECK: Duration = Duration::from_secs(5);
/// How long a topic has to be unseen to count as gone.
const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// A topic that is not what it was.
#[derive(Clone, Copy)]
struct Wrong {
    /// The number of its partitions, if it is seen.
    found: Option<i32>,
    /// Since when this is what is found.
    since: Instant,
}

/// The topics of the application, by name, with the partitions that its tasks need.
pub(crate) struct TopicWatch {
    needed: BTreeMap<String, i32>,
    /// What was wrong at the last look.
    wrong: BTreeMap<String, Wrong>,
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

    /// Looks if it is time; returns what is wrong.
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
        Ok(self.look(&counts, Instant::now()))
    }

    /// What is wrong with these topics of the cluster, and was so at earlier looks.
    fn look(&mut self, counts: &BTreeMap<String, i32>, now: Instant) -> Option<String> {
        let before = std::mem::take(&mut self.wrong);
        let mut told = None;
        for (topic, needed) in &self.needed {
            let found = counts.get(topic).copied();
            if found == Some(*needed) {
                continue;
            }
            let known = before.get(topic).filter(|wrong| wrong.found == found);
            let is_told = known.is_some_and(|wrong| {
                found.is_some() || now.saturating_duration_since(wrong.since) >= UNSEEN_MAX
            });
            if is_told && told.is_none() {
                told = Some((topic, needed, found));
            }
            let wrong = known.copied().unwrap_or(Wrong { found, since: now });
            self.wrong.insert(topic.clone(), wrong);
        }
        let (topic, needed, found) = told?;
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

    /// Has the watch look once each `RECHECK`, for `looks` times; what it tells, and after how long.
    fn tells(
        watch: &mut TopicWatch,
        counts: &BTreeMap<String, i32>,
        looks: u32,
    ) -> Option<(String, Duration)> {
        let begun = Instant::now();
        (0..looks).find_map(|look| {
            let after = RECHECK * look;
            watch
                .look(counts, begun + after)
                .map(|wrong| (wrong, after))
        })
    }

    #[test]
    fn what_has_another_number_of_partitions_at_two_looks_or_is_not_seen_for_a_minute_is_told() {
        for (topic, found, told, told_after) in [
            ("words", None, "words is gone", UNSEEN_MAX),
            ("words", Some(1), "words has 1 partitions", RECHECK),
            ("resets", Some(3), "resets has 3 partitions", RECHECK),
            (
                "app-stores-changelog",
                None,
                "app-stores-changelog is gone",
                UNSEEN_MAX,
            ),
        ] {
            let (mut watch, mut counts) = watch();
            counts.remove(topic);
            counts.extend(found.map(|found| (topic.to_owned(), found)));
            let (wrong, after) = tells(&mut watch, &counts, 100).unwrap();
            assert!(wrong.contains(told), "{wrong}");
            assert_eq!(after, told_after, "{told}");
        }
    }

    #[test]
    fn a_topic_that_is_seen_again_within_a_minute_is_not_told() {
        let (mut watch, counts) = watch();
        let mut without = counts.clone();
        without.remove("words");
        for _ in 0..3 {
            assert_eq!(tells(&mut watch, &without, 12), None);
            assert_eq!(tells(&mut watch, &counts, 1), None);
        }
        // What is wrong then is another matter.
        without.insert("words".to_owned(), 2);
        assert_eq!(tells(&mut watch, &without, 1), None);
        assert!(tells(&mut watch, &without, 1).is_some());
    }

    #[test]
    fn what_a_broker_does_not_know_for_a_moment_is_not_told() {
        let (mut watch, counts) = watch();
        let mut now = Instant::now();
        let mut look = |counts: &BTreeMap<String, i32>| {
            now += UNSEEN_MAX;
            watch.look(counts, now)
        };
        let without = |topic: &str| {
            let mut counts = counts.clone();
            counts.remove(topic);
            counts
        };
        assert_eq!(look(&without("words")), None);
        assert_eq!(look(&counts), None);
        assert_eq!(look(&without("words")), None);
        assert_eq!(look(&without("resets")), None);
        let mut others = counts.clone();
        others.insert("others".to_owned(), 9);
        assert_eq!(look(&others), None);
        assert_eq!(look(&others), None);
    }
}
