//! Deletes from repartition topics what every reader has committed.
//!
//! Repartition topics keep their records without a time limit, because what was not read yet must
//! not be lost; so what was read has to be deleted. Each is read by one group only, whose committed
//! positions are therefore the limit.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::kafka::{Admin, KafkaFault, Position};
use super::lag::LagBoard;
use crate::topology::Plan;

/// Deletes what was read from the repartition topics that are owned here.
pub(crate) struct Purger {
    interval: Duration,
    topics: BTreeSet<String>,
    last: Instant,
    /// What was deleted last, so that quiet topics cost nothing.
    purged: Vec<Position>,
}

impl Purger {
    pub(crate) fn new(plan: &Plan, interval: Duration) -> Self {
        Self {
            interval,
            topics: plan.repartition_topics(),
            last: Instant::now(),
            purged: Vec::new(),
        }
    }

    /// Deletes, if it is time.
    pub(crate) fn purge_if_due(&mut self, admin: &Admin, lag: &LagBoard) -> Result<(), KafkaFault> {
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
        admin.delete_before(&read)?;
        tracing::debug!(partitions = read.len(), "purged repartition topics");
        self.purged
            .retain(|(place, _)| !read.iter().any(|(of, _)| of == place));
        self.purged.extend(read);
        Ok(())
    }
}
