//! How far behind its topics each group is, on the partitions owned here.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::kafka::{EndOffsets, KafkaFault, TopicPartition};
use super::metrics::Metrics;
use crate::Offset;

type Key = (Arc<str>, TopicPartition);

/// The committed positions of the partitions owned here.
#[derive(Clone, Default)]
pub(crate) struct LagBoard(Arc<Mutex<HashMap<Key, Offset>>>);

impl LagBoard {
    /// A commit has reached `offset`.
    pub(crate) fn committed(&self, group: &Arc<str>, place: &TopicPartition, offset: Offset) {
        self.0.lock().insert((group.clone(), place.clone()), offset);
    }

    /// The partition is no longer owned here.
    pub(crate) fn forget(&self, group: &Arc<str>, place: &TopicPartition) {
        self.0.lock().remove(&(group.clone(), place.clone()));
    }

    /// Sets the gauges to the distance from the committed positions to the ends of the committed records.
    pub(crate) fn sample(&self, ends: &EndOffsets, metrics: &Metrics) -> Result<(), KafkaFault> {
        let committed = self.0.lock().clone();
        let mut places: Vec<TopicPartition> =
            committed.keys().map(|(_, place)| place.clone()).collect();
        places.sort();
        places.dedup();
        let ends: HashMap<TopicPartition, Offset> = ends.of(&places)?.into_iter().collect();
        metrics.consumer_lag.reset();
        for ((group, place), offset) in committed {
            let end = ends.get(&place).copied().unwrap_or(offset);
            metrics
                .consumer_lag
                .with_label_values(&[&*group, &*place.topic, &place.partition.to_string()])
                .set(end.0.saturating_sub(offset.0).max(0));
        }
        Ok(())
    }
}
