//! The topics of the application: created at startup, or checked to be as they should.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::cluster::instances_topic;
use super::kafka::{Admin, CreateFault, KafkaFault, NewTopicSpec, TopicSettings};
use super::task_stores::TOMBSTONES_KEPT;
use super::{StreamsConfig, TopicSpec};
use crate::record::MESSAGE_BYTES_MAX;
use crate::topology::{InternalTopic, InternalTopicKind, Plan};

/// What is wrong with the topics of the cluster.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    /// A topic cannot be created with the number of replicas that it should have.
    #[error(
        "topic {topic} cannot be created with {replicas} replicas: set the replication factor to no more than there are brokers, or start as many"
    )]
    TooFewBrokers {
        /// The topic.
        topic: String,
        /// How many replicas it should have.
        replicas: i32,
    },
    /// An internal topic has another partition count than its stores or readers.
    #[error(
        "internal topic {topic} has {found} partitions, but its tasks need {needed}: the partition count of an input topic has changed, or the topic belongs to another application; to begin anew, stop all instances, use another application id, and have the groups read from the start (kafka-consumer-groups.sh --reset-offsets --to-earliest)"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// Its partitions.
        found: i32,
        /// What the topology needs.
        needed: i32,
    },
    /// An internal topic would lose records that are needed, or never delete any.
    #[error(
        "internal topic {topic} has cleanup.policy={found}, but needs {needed}: set it with kafka-configs, or delete the topic if it is empty"
    )]
    CleanupPolicy {
        /// The topic.
        topic: String,
        /// Its policy.
        found: String,
        /// What its use needs.
        needed: &'static str,
    },
}

impl TopicError {
    /// Whether another start finds the same, until somebody changes the configuration or the
    /// topics.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            // The others may be about to start.
            Self::Kafka(_) | Self::TooFewBrokers { .. } => false,
            Self::PartitionCount { .. } | Self::CleanupPolicy { .. } => true,
        }
    }
}

impl From<CreateFault> for TopicError {
    fn from(fault: CreateFault) -> Self {
        match fault {
            CreateFault::TooFewBrokers { topic, replicas } => {
                Self::TooFewBrokers { topic, replicas }
            }
            CreateFault::Kafka(fault) => Self::Kafka(fault),
        }
    }
}

/// Creates those of the application's external topics that are not among `counts`; returns all
/// topics' partition counts.
pub(crate) fn ensure_external(
    admin: &Admin,
    topics: &[TopicSpec],
    counts: BTreeMap<String, i32>,
) -> Result<BTreeMap<String, i32>, TopicError> {
    let missing: Vec<NewTopicSpec> = topics
        .iter()
        .filter(|topic| !counts.contains_key(&topic.name))
        .map(|topic| NewTopicSpec {
            name: topic.name.clone(),
            partitions: topic.partitions,
            settings: Vec::new(),
        })
        .collect();
    create(admin, counts, &missing)
}

/// Creates the missing internal topics of `plan`, and checks the others.
pub(crate) fn ensure_internal(
    admin: &Admin,
    plan: &Plan,
    config: &StreamsConfig,
    counts: BTreeMap<String, i32>,
) -> Result<(), TopicError> {
    let mut topics = plan.internal_topics();
    topics.push(InternalTopic {
        name: instances_topic(&config.application_id),
        partitions: 1,
        kind: InternalTopicKind::Instances,
    });
    let missing: Vec<NewTopicSpec> = topics
        .iter()
        .filter(|topic| !counts.contains_key(&topic.name))
        .map(|topic| NewTopicSpec {
            name: topic.name.clone(),
            partitions: topic.partitions,
            settings: settings(topic.kind),
        })
        .collect();
    let existing: Vec<&InternalTopic> = topics
        .iter()
        .filter(|topic| counts.contains_key(&topic.name))
        .collect();
    let names: Vec<&str> = existing.iter().map(|topic| topic.name.as_str()).collect();
    let found = admin.settings(&names)?;
    for topic in &existing {
        check(topic, &counts, &found)?;
        warn_if_deleted(topic, &found);
    }
    let counts = create(admin, counts, &missing)?;
    // Topics that somebody else created meanwhile are as foreign as any.
    for topic in &topics {
        check(topic, &counts, &found)?;
    }
    tracing::info!(
        created = missing.len(),
        checked = names.len(),
        application = %config.application_id,
        "internal topics are in place"
    );
    Ok(())
}

/// How large records of these topics may be, at most: what a broker limits is a batch, after
/// compression.
pub(crate) fn sink_bytes_max(
    admin: &Admin,
    topics: &BTreeSet<&str>,
) -> Result<BTreeMap<String, usize>, KafkaFault> {
    const SETTING: &str = "max.message.bytes";
    let topics: Vec<&str> = topics.iter().copied().collect();
    let found = admin.settings(&topics)?;
    let limits = topics.into_iter().filter_map(|topic| {
        let limit: usize = found.get(topic, SETTING)?.parse().ok()?;
        Some((topic.to_owned(), limit.saturating_sub(BATCH_OVERHEAD_BYTES)))
    });
    Ok(limits.collect())
}

/// What a batch of one record takes besides its key, value and headers, at most.
const BATCH_OVERHEAD_BYTES: usize = 128;

fn settings(kind: InternalTopicKind) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        (CLEANUP_POLICY, cleanup_policy(kind).to_owned()),
        ("max.message.bytes", MESSAGE_BYTES_MAX.to_string()),
    ];
    match kind {
        InternalTopicKind::Changelog => {
            settings.push(("min.cleanable.dirty.ratio", "0.5".to_owned()));
            let kept = TOMBSTONES_KEPT.as_millis().to_string();
            settings.push(("delete.retention.ms", kept));
        }
        InternalTopicKind::Repartition => {
            // Records that were not read yet must not be deleted.
            settings.push((RETENTION, FOR_EVER.to_owned()));
            settings.push((RETENTION_BYTES, FOR_EVER.to_owned()));
        }
        InternalTopicKind::Instances => {
            // Everybody reads all of it at startup, so it is kept short.
            settings.push(("min.cleanable.dirty.ratio", "0.01".to_owned()));
            settings.push(("segment.ms", "600000".to_owned()));
        }
        InternalTopicKind::DeadLetters => {
            // They have the timestamp of the original record, which may be old.
            settings.push((RETENTION, FOR_EVER.to_owned()));
            settings.push((RETENTION_BYTES, FOR_EVER.to_owned()));
        }
    }
    settings
}

const CLEANUP_POLICY: &str = "cleanup.policy";
const RETENTION: &str = "retention.ms";
const RETENTION_BYTES: &str = "retention.bytes";
const FOR_EVER: &str = "-1";

/// Warns of an existing topic from which brokers delete what nobody has read yet:
///
/// - Records of a repartition topic, by age or size. Those that were read are deleted by the
///   application.
/// - Dead letters by the timestamp of the original record: an old one would be gone before anybody
///   has seen it. If brokers set the timestamp, all are kept equally long.
fn warn_if_deleted(topic: &InternalTopic, settings: &TopicSettings) {
    let of = |setting| settings.get(&topic.name, setting);
    let limited = |setting| of(setting).filter(|limit| *limit != FOR_EVER);
    let (age, size) = (limited(RETENTION), limited(RETENTION_BYTES));
    match topic.kind {
        InternalTopicKind::Repartition if age.is_some() || size.is_some() => {
            tracing::warn!(
                topic = topic.name,
                retention_ms = age,
                retention_bytes = size,
                "records of a repartition topic are deleted before they are read if they have to wait for long: set retention.ms=-1 and retention.bytes=-1 with kafka-configs"
            );
        }
        InternalTopicKind::DeadLetters
            if age.is_some() && of("message.timestamp.type") != Some("LogAppendTime") =>
        {
            tracing::warn!(
                topic = topic.name,
                retention_ms = age,
                "dead letters are deleted by the time of the record that they are, those of old records at once: set retention.ms=-1 with kafka-configs"
            );
        }
        InternalTopicKind::Repartition
        | InternalTopicKind::DeadLetters
        | InternalTopicKind::Changelog
        | InternalTopicKind::Instances => {}
    }
}

fn cleanup_policy(kind: InternalTopicKind) -> &'static str {
    match kind {
        InternalTopicKind::Changelog | InternalTopicKind::Instances => "compact",
        InternalTopicKind::Repartition | InternalTopicKind::DeadLetters => "delete",
    }
}

fn check(
    topic: &InternalTopic,
    counts: &BTreeMap<String, i32>,
    settings: &TopicSettings,
) -> Result<(), TopicError> {
    if let Some(found) = counts
        .get(&topic.name)
        .copied()
        .filter(|found| *found != topic.partitions)
    {
        return Err(TopicError::PartitionCount {
            topic: topic.name.clone(),
            found,
            needed: topic.partitions,
        });
    }
    let needed = cleanup_policy(topic.kind);
    match settings.get(&topic.name, CLEANUP_POLICY) {
        Some(found) if found != needed && topic.kind != InternalTopicKind::DeadLetters => {
            Err(TopicError::CleanupPolicy {
                topic: topic.name.clone(),
                found: found.to_owned(),
                needed,
            })
        }
        _ => Ok(()),
    }
}

/// Creates topics and waits until brokers know them; returns the counts with theirs.
fn create(
    admin: &Admin,
    mut counts: BTreeMap<String, i32>,
    missing: &[NewTopicSpec],
) -> Result<BTreeMap<String, i32>, TopicError> {
    admin.create(missing)?;
    let known = admin.wait_until_known(missing)?;
    for NewTopicSpec {
        name, partitions, ..
    } in missing
    {
        if let Some(found) = known.get(name).filter(|found| *found != partitions) {
            tracing::warn!(
                topic = name,
                partitions = found,
                wanted = partitions,
                "somebody else has created a topic meanwhile"
            );
        }
    }
    counts.extend(known);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_be_kept_is_not_deleted_by_time() {
        use InternalTopicKind::{Changelog, DeadLetters, Instances, Repartition};
        for kind in [Changelog, DeadLetters, Instances, Repartition] {
            let settings: BTreeMap<_, _> = settings(kind).into_iter().collect();
            let is_compacted = settings.get("cleanup.policy").unwrap() == "compact";
            for setting in ["retention.ms", "retention.bytes"] {
                let retention = settings.get(setting).map(String::as_str);
                assert!(is_compacted || retention == Some("-1"), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_topic_that_somebody_else_has_created_meanwhile_is_checked_for_its_partitions() {
        let topic = InternalTopic {
            name: "app-stores-changelog".to_owned(),
            partitions: 4,
            kind: InternalTopicKind::Changelog,
        };
        let counts = |partitions| BTreeMap::from([(topic.name.clone(), partitions)]);
        // Its policy was not asked for.
        let policies = TopicSettings::default();
        check(&topic, &counts(4), &policies).unwrap();
        let error = check(&topic, &counts(1), &policies).unwrap_err();
        let TopicError::PartitionCount { found, needed, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((found, needed), (1, 4));
    }
}
