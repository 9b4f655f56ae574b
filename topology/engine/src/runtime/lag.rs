//! How far behind its topics each group is, on the partitions owned here.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::kafka::{EndOffsets, KafkaFault, Position, TopicPartition};
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

    /// All committed positions that are known here.
    pub(crate) fn positions(&self) -> Vec<Position> {
        self.0
            .lock()
            .iter()
            .map(|((_, place), offset)| (place.clone(), *offset))
            .collect()
    }

    /// Sets the gauges to the distance from the committed positions to the last stable offsets,
    /// which it returns.
    pub(crate) fn sample(
        &self,
        ends: &EndOffsets,
        metrics: &Metrics,
    ) -> Result<Vec<Position>, KafkaFault> {
        let committed = self.0.lock().clone();
        let mut places: Vec<TopicPartition> =
            committed.keys().map(|(_, place)| place.clone()).collect();
        places.sort();
        places.dedup();
        let stable = ends.of_led(&places)?;
        let ends: HashMap<TopicPartition, Offset> = stable.iter().cloned().collect();
        metrics.consumer_lag.reset();
        for ((group, place), offset) in committed {
            // Nobody leads it at the moment, so nobody knows.
            let Some(end) = ends.get(&place) else {
                continue;
            };
            metrics
                .consumer_lag
                .with_label_values(&[&*group, &*place.topic, &place.partition.to_string()])
                .set(end.0.saturating_sub(offset.0).max(0));
        }
        Ok(stable)
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use prometheus::core::Collector;

    use super::super::StreamsConfig;
    use super::super::kafka::Ends;
    use super::*;
    use crate::Partition;

    fn place(partition: i32) -> TopicPartition {
        TopicPartition {
            topic: "orders".into(),
            partition: Partition(partition),
        }
    }

    #[test]
    fn positions_are_kept_by_group_and_partition_until_forgotten() {
        let board = LagBoard::default();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        board.committed(&one, &place(0), Offset(5));
        board.committed(&one, &place(0), Offset(9));
        board.committed(&one, &place(1), Offset(1));
        board.committed(&other, &place(0), Offset(3));
        board.forget(&one, &place(1));
        board.forget(&other, &place(1));
        let expected = [((one, place(0)), Offset(9)), ((other, place(0)), Offset(3))];
        assert_eq!(*board.0.lock(), HashMap::from(expected));
    }

    #[test]
    fn what_is_not_owned_any_more_is_not_shown() {
        let board = LagBoard::default();
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let gauge = metrics
            .consumer_lag
            .with_label_values(&["one", "orders", "0"]);
        gauge.set(7);
        // No broker is asked for anything if nothing is owned.
        let config = StreamsConfig::new("app", "localhost:1", "instance", "unused");
        let ends = Ends::new(&config).unwrap();
        assert!(board.sample(&ends.stable, &metrics).unwrap().is_empty());
        assert!(metrics.consumer_lag.collect()[0].get_metric().is_empty());
    }
}
