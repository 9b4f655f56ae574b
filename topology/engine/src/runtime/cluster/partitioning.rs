//! Over how many partitions the stores of the application are divided.
//!
//! The rows of a store are where their keys belong, and that changes with the number of partitions.
//! If an input topic got more, some tasks would start with empty stores, and others would hold rows
//! of keys that no longer come to them. The changelog cannot tell: it is shared by all stores, and
//! has as many partitions as the widest of them.
//!
//! So every instance repeats in its announcements what it has heard, and adds its own when it
//! joins the groups.

use std::collections::BTreeMap;

/// What was announced. A store that the topology no longer has is remembered, as its rows are.
#[derive(Debug, Default)]
pub(super) struct Partitioning(BTreeMap<String, i32>);

impl Partitioning {
    /// An instance has announced `partitions`. What was heard first holds.
    pub(super) fn hear(&mut self, partitions: &BTreeMap<String, i32>) {
        for (store, count) in partitions {
            if !self.0.contains_key(store) {
                self.0.insert(store.clone(), *count);
            }
        }
    }

    /// What to announce.
    pub(super) fn known(&self) -> &BTreeMap<String, i32> {
        &self.0
    }

    /// Those of earlier releases that `planned` no longer has.
    pub(super) fn left(&self, planned: &BTreeMap<String, i32>) -> Vec<String> {
        let known = self.0.keys();
        known
            .filter(|of| !planned.contains_key(*of))
            .cloned()
            .collect()
    }

    /// What is wrong with stores that are divided as `planned`, for humans.
    pub(super) fn fault(&self, planned: &BTreeMap<String, i32>) -> Option<String> {
        let mut stores = planned.iter();
        stores.find_map(|(store, needed)| {
            let found = self.0.get(store).filter(|found| *found != needed)?;
            Some(format!(
                "store {store} is divided over {found} partitions, and its input topics have {needed} now: keys have moved away from their rows; to begin anew, stop all instances, use another application id, and have the groups read from the start (kafka-consumer-groups.sh --reset-offsets --to-earliest)"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<const N: usize>(stores: [(&str, i32); N]) -> BTreeMap<String, i32> {
        stores
            .map(|(store, count)| (store.to_owned(), count))
            .into()
    }

    #[test]
    fn a_store_that_was_renamed_is_left() {
        let mut partitioning = Partitioning::default();
        partitioning.hear(&of([("a", 4), ("b", 4)]));
        assert_eq!(partitioning.left(&of([("b", 4), ("c", 4)])), ["a"]);
    }

    #[test]
    fn a_store_stays_divided_as_it_was_first() {
        let mut partitioning = Partitioning::default();
        assert_eq!(partitioning.fault(&of([("a", 4), ("b", 8)])), None);
        partitioning.hear(&of([("a", 4), ("b", 8)]));
        // Of an instance that does not know better.
        partitioning.hear(&of([("a", 8)]));
        assert_eq!(partitioning.fault(&of([("a", 4), ("new", 2)])), None);
        let fault = partitioning.fault(&of([("a", 8), ("b", 8)])).unwrap();
        let expected = "store a is divided over 4 partitions, and its input topics have 8 now";
        assert!(fault.starts_with(expected), "{fault}");
        assert_eq!(*partitioning.known(), of([("a", 4), ("b", 8)]));
    }
}
