//! Deletes from repartition topics what every reader has committed.
//!
//! Repartition topics keep their records without limit of time, because what was
//! not read yet must not be lost; so what was read has to be deleted. Each is read by
//! one group only, whose committed positions are therefore the limit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::kafka::{Admin, KafkaFault, Position};
use super::lag::LagBoard;
use crate::topology::{InternalTopicKind, Plan};

/// Deletes what was read from the repartition topics that are owned here.
pub(crate) struct Purger {
    admin: Admin,
    interval: Duration,
    topics: BTreeSet<String>,
    last: Instant,
    /// What was deleted last, so that quiet topics cost nothing.
    purged: Vec<Position>,
}

impl Purger {
    pub(crate) fn new(admin: Admin, plan: &Plan, interval: Duration) -> Self {
        let topics = plan.internal_topics().into_iter();
        let topics = topics
            .filter(|topic| topic.kind == InternalTopicKind::Repartition)
            .map(|topic| topic.name)
            .collect();
        Self {
            admin,
            interval,
            topics,
            last: Instant::now(),
            purged: Vec::new(),
        }
    }

    /// Deletes, when it is time.
    pub(crate) fn purge_if_due(&mut self, lag: &LagBoard) -> Result<(), KafkaFault> {
        if self.last.elapsed() < self.interval {
            return Ok(());
        }
        self.last = Instant::now();
        let read: Vec<Position> = lag
            .positions()
            .into_iter()
            .filter(|(place, offset)| offset.0 > 0 && self.topics.contains(&*place.topic))
            .filter(|position| !self.purged.contains(position))
            .collect();
        if read.is_empty() {
            return Ok(());
        }
        self.admin.delete_before(&read)?;
        tracing::debug!(partitions = read.len(), "purged repartition topics");
        self.purged
            .retain(|(place, _)| !read.iter().any(|(of, _)| of == place));
        self.purged.extend(read);
        Ok(())
    }
}
