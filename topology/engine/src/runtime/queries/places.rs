//! Where the stores of a topology are: computed once, since a plan never changes.
//!
//! Only declared stores have a place: nobody reads timer rows.

use std::collections::HashMap;

use turnstile_state::StoreId;

use crate::partitioner::partition_of;
use crate::topology::{Plan, PlanStoreKind};
use crate::{Partition, SubtopologyId, TaskId};

/// Where a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) subtopology: SubtopologyId,
    pub(super) partitions: i32,
    pub(super) id: StoreId,
}

impl Place {
    pub(super) fn task(&self, partition: Partition) -> TaskId {
        TaskId {
            subtopology: self.subtopology,
            partition,
        }
    }

    pub(super) fn task_of(&self, partition_key: &[u8]) -> TaskId {
        self.task(partition_of(partition_key, self.partitions))
    }
}

/// The places of all stores.
pub(super) struct Places {
    /// By the index of the store in the topology.
    by_index: Vec<Option<Place>>,
    /// By its declared name.
    by_name: HashMap<String, Place>,
}

impl Places {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut places = Self {
            by_index: vec![None; plan.topology.stores.len()],
            by_name: HashMap::new(),
        };
        for subtopology in &plan.subtopologies {
            for (id, store) in subtopology.stores_by_id() {
                let PlanStoreKind::Declared(index) = store.kind else {
                    continue;
                };
                let place = Place {
                    subtopology: subtopology.id,
                    partitions: subtopology.partitions,
                    id,
                };
                if let Some(found) = places.by_index.get_mut(index) {
                    *found = Some(place);
                }
                places.by_name.entry(store.name.clone()).or_insert(place);
            }
        }
        places
    }

    /// The place of the store that was declared as number `index`.
    pub(super) fn at(&self, index: usize) -> Option<Place> {
        self.by_index.get(index).copied().flatten()
    }

    /// The place of the store that was declared by this name.
    pub(super) fn named(&self, name: &str) -> Option<Place> {
        self.by_name.get(name).copied()
    }
}
