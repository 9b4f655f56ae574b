//! The first start of an application on a cluster: nobody may have read in its groups before.
//!
//! Stores and the positions of the groups belong together: what the groups have read is in the
//! stores. Those of a new application are empty. If its groups have positions, from an application
//! with another id or from other software, the records before them would be missing in the stores
//! for good, and nothing would show it.
//!
//! That an application has run is shown by its announcements, and also by its changelog: either
//! topic may be lost alone, and as long as its stores can be restored nothing has to be read again.

use std::collections::BTreeMap;

use thiserror::Error;

use super::cluster::instances_topic;
use super::kafka::{Admin, GroupConsumer, KafkaFault, TopicPartition};
use super::wake::Waker;
use super::{StartError, StreamsConfig};
use crate::topology::Plan;
use crate::{Offset, Partition};

/// A group that has read for somebody else.
#[derive(Debug, Error)]
#[error(
    "group {group} has read {topic}-{partition} up to offset {position}, but no instance of the application {application_id} has run on this cluster: its stores would miss what lies before. Set the application id to that of the application which has read it; or have the group read all of it again (kafka-consumer-groups.sh --reset-offsets --to-earliest)"
)]
pub struct ForeignPosition {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Its partition.
    pub partition: Partition,
    /// The committed position, beyond the start of the partition.
    pub position: Offset,
    /// The application that is new here.
    pub application_id: String,
}

/// Looks for positions of its groups, if the application has stores and is new on the cluster.
pub(crate) fn check(
    admin: &Admin,
    plan: &Plan,
    config: &StreamsConfig,
    counts: &BTreeMap<String, i32>,
) -> Result<(), StartError> {
    let Some(changelog) = plan.changelog() else {
        return Ok(());
    };
    let instances = instances_topic(&config.application_id);
    let has_run = |counts: &BTreeMap<String, i32>| -> Result<bool, KafkaFault> {
        Ok(was_written_to(admin, &instances, counts)?
            || was_written_to(admin, &changelog.name, counts)?)
    };
    if has_run(counts)? {
        return Ok(());
    }
    for (group, topics) in plan.subscriptions() {
        let mut partitions = Vec::new();
        for topic in topics {
            let count = counts.get(&*topic).copied().unwrap_or(0);
            partitions.extend((0..count).map(|partition| TopicPartition {
                topic: topic.clone(),
                partition: Partition(partition),
            }));
        }
        let member = &config.instance_id;
        let member = GroupConsumer::connect(config, group.clone(), member, Waker::default())?;
        let reader = member.committed_reader();
        let passed = reader.first_passed(&partitions, config.request_timeout)?;
        let Some((place, position)) = passed else {
            continue;
        };
        // It may be an instance that started together with this one, which announces itself before
        // it reads.
        if has_run(&admin.partition_counts()?)? {
            return Ok(());
        }
        return Err(StartError::ForeignPosition(ForeignPosition {
            group: group.to_string(),
            topic: place.topic.to_string(),
            partition: place.partition,
            position,
            application_id: config.application_id.clone(),
        }));
    }
    Ok(())
}

/// Whether a topic exists and has ever held anything.
fn was_written_to(
    admin: &Admin,
    topic: &str,
    counts: &BTreeMap<String, i32>,
) -> Result<bool, KafkaFault> {
    for partition in 0..counts.get(topic).copied().unwrap_or(0) {
        if admin.end(topic, Partition(partition))? > Offset(0) {
            return Ok(true);
        }
    }
    Ok(false)
}
