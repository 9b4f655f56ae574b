//! The topics of the application: created at start, or found to be as they should.

use std::collections::BTreeMap;

use thiserror::Error;

use super::cluster::instances_topic;
use super::kafka::{Admin, KafkaFault, NewTopicSpec};
use super::task_stores::TOMBSTONES_KEPT;
use super::{StreamsConfig, TopicSpec};
use crate::record::MESSAGE_BYTES_MAX;
use crate::topology::{InternalTopic, InternalTopicKind, Plan};

/// What is wrong with the topics of the cluster.
#[derive(Debug, Error)]
pub enum TopicError {
    /// The cluster could not be asked.
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
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
    /// An internal topic would lose records that are needed, or never any.
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

/// Creates those of the application's external topics that do not exist; all topics' partition counts.
pub(crate) fn ensure_external(
    admin: &Admin,
    topics: &[TopicSpec],
) -> Result<BTreeMap<String, i32>, TopicError> {
    let counts = admin.partition_counts()?;
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
    let policies = admin.setting(&names, "cleanup.policy")?;
    for topic in existing {
        check(topic, &counts, &policies)?;
    }
    create(admin, counts, &missing)?;
    tracing::info!(
        created = missing.len(),
        checked = names.len(),
        application = %config.application_id,
        "internal topics are in place"
    );
    Ok(())
}

fn settings(kind: InternalTopicKind) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("cleanup.policy", cleanup_policy(kind).to_owned()),
        ("max.message.bytes", MESSAGE_BYTES_MAX.to_string()),
    ];
    match kind {
        InternalTopicKind::Changelog => {
            settings.push(("min.cleanable.dirty.ratio", "0.5".to_owned()));
            let kept = TOMBSTONES_KEPT.as_millis().to_string();
            settings.push(("delete.retention.ms", kept));
        }
        InternalTopicKind::Repartition => {
            // What was not read yet must not be deleted by time.
            settings.push(("retention.ms", "-1".to_owned()));
        }
        InternalTopicKind::Instances => {
            // Everybody reads all of it at start, so it is kept short.
            settings.push(("min.cleanable.dirty.ratio", "0.01".to_owned()));
            settings.push(("segment.ms", "600000".to_owned()));
        }
        InternalTopicKind::DeadLetters => {}
    }
    settings
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
    policies: &BTreeMap<String, String>,
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
    match policies.get(&topic.name) {
        Some(found) if found != needed && topic.kind != InternalTopicKind::DeadLetters => {
            Err(TopicError::CleanupPolicy {
                topic: topic.name.clone(),
                found: found.clone(),
                needed,
            })
        }
        _ => Ok(()),
    }
}

/// Creates topics and waits until brokers know them; the counts with them.
fn create(
    admin: &Admin,
    mut counts: BTreeMap<String, i32>,
    missing: &[NewTopicSpec],
) -> Result<BTreeMap<String, i32>, TopicError> {
    admin.create(missing)?;
    admin.wait_until_known(missing)?;
    counts.extend(
        missing
            .iter()
            .map(|topic| (topic.name.clone(), topic.partitions)),
    );
    Ok(counts)
}
