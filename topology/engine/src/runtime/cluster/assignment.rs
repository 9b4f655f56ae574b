//! Where the `range` assignor puts tasks, and where it would put them.
//!
//! The assignor is a function of the member ids and the partition count, so every instance can
//! compute where a task goes when an instance joins or is lost, before it happens: standbys and
//! warm joins are based on this.
//!
//! What it computes is a forecast. Who owns a task is decided by the groups alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::topology::Plan;
use crate::{Partition, TaskId};

/// If more than this many sets of instances could be lost together, only the smaller sets are
/// considered.
const LOSSES_MAX: usize = 5_000;

/// The members of every group, in the assignor's order, with the instance of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    by_id: BTreeMap<String, Arc<str>>,
}

/// The static id of a stream thread in every group.
pub(crate) fn member_id(instance: &str, thread: usize) -> String {
    format!("{instance}-{thread}")
}

impl Members {
    /// The members of these instances, each with its number of stream threads.
    pub(crate) fn of(instances: impl IntoIterator<Item = (Arc<str>, usize)>) -> Self {
        let members = instances.into_iter().flat_map(|(instance, threads)| {
            (0..threads).map(move |thread| (member_id(&instance, thread), instance.clone()))
        });
        Self {
            by_id: members.collect(),
        }
    }

    /// The instances that have members.
    fn instances(&self) -> BTreeSet<Arc<str>> {
        self.by_id.values().cloned().collect()
    }

    fn without(&self, lost: &[Arc<str>]) -> Self {
        let left = self.by_id.iter().filter(|(_, of)| !lost.contains(of));
        Self {
            by_id: left.map(|(id, of)| (id.clone(), of.clone())).collect(),
        }
    }

    /// The instance that gets each of `partitions`, in their order; none without members.
    fn owners(&self, partitions: i32) -> Vec<Arc<str>> {
        let members = self.by_id.len();
        let partitions = usize::try_from(partitions).unwrap_or(0);
        let each = partitions.checked_div(members).unwrap_or(0);
        let with_one_more = partitions.checked_rem(members).unwrap_or(0);
        let shares = self
            .by_id
            .values()
            .enumerate()
            .flat_map(|(rank, instance)| {
                let share = each + usize::from(rank < with_one_more);
                std::iter::repeat_n(instance.clone(), share)
            });
        shares.collect()
    }
}

/// The instance that gets each task of `plan`.
pub(crate) fn owners(plan: &Plan, members: &Members) -> BTreeMap<TaskId, Arc<str>> {
    let mut owners = BTreeMap::new();
    for subtopology in &plan.subtopologies {
        for (partition, instance) in (0..).zip(members.owners(subtopology.partitions)) {
            let task = TaskId {
                subtopology: subtopology.id,
                partition: Partition(partition),
            };
            owners.insert(task, instance);
        }
    }
    owners
}

/// Where each task of `plan` would go if any instances of `members`, up to `losses` of them at a
/// time, were lost: the places of its standbys. Its owner is not among them.
pub(crate) fn standbys(
    plan: &Plan,
    members: &Members,
    losses: usize,
) -> BTreeMap<TaskId, BTreeSet<Arc<str>>> {
    let now = owners(plan, members);
    let mut standbys: BTreeMap<TaskId, BTreeSet<Arc<str>>> = BTreeMap::new();
    for lost in losses_of(&members.instances(), losses) {
        for (task, instance) in owners(plan, &members.without(&lost)) {
            if now.get(&task) != Some(&instance) {
                standbys.entry(task).or_default().insert(instance);
            }
        }
    }
    standbys
}

/// The sets of 1 to `most` of `instances`, small ones first, except the set of all.
fn losses_of(instances: &BTreeSet<Arc<str>>, most: usize) -> Vec<Vec<Arc<str>>> {
    let mut all: Vec<Vec<Arc<str>>> = Vec::new();
    let mut sets: Vec<Vec<Arc<str>>> = vec![Vec::new()];
    for _ in 0..most.min(instances.len().saturating_sub(1)) {
        let mut larger = Vec::new();
        for set in &sets {
            let further = instances.iter().filter(|of| set.last() < Some(of));
            larger.extend(further.map(|of| {
                let mut set = set.clone();
                set.push(of.clone());
                set
            }));
        }
        if all.len() + larger.len() > LOSSES_MAX && !all.is_empty() {
            break;
        }
        all.extend(larger.iter().cloned());
        sets = larger;
    }
    all
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(instances: &[(&str, usize)]) -> Members {
        Members::of(
            instances
                .iter()
                .map(|(name, threads)| ((*name).into(), *threads)),
        )
    }

    fn names(owners: &[Arc<str>]) -> Vec<&str> {
        owners.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn partitions_are_dealt_in_ranges_and_the_first_members_get_the_rest() {
        let three = members(&[("b", 1), ("c", 1), ("a", 1)]);
        assert_eq!(names(&three.owners(4)), ["a", "a", "b", "c"]);
        assert_eq!(
            names(&three.owners(8)),
            ["a", "a", "a", "b", "b", "b", "c", "c"]
        );
        assert_eq!(names(&three.owners(2)), ["a", "b"]);
        assert!(members(&[]).owners(4).is_empty());
    }

    #[test]
    fn members_are_in_the_order_of_their_ids_as_text() {
        let many = members(&[("i", 11), ("i-1", 1)]);
        let ids: Vec<&str> = many.by_id.keys().map(String::as_str).collect();
        assert_eq!(ids[..4], ["i-0", "i-1", "i-1-0", "i-10"]);
    }

    #[test]
    fn sets_of_losses_are_without_repetition_and_leave_somebody() {
        let instances: BTreeSet<Arc<str>> = ["a", "b", "c"].map(Arc::from).into();
        let sets = |most| {
            let sets = losses_of(&instances, most);
            let text = |set: &Vec<Arc<str>>| names(set).concat();
            sets.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(sets(0), [""; 0]);
        assert_eq!(sets(1), ["a", "b", "c"]);
        assert_eq!(sets(2), ["a", "b", "c", "ab", "ac", "bc"]);
        assert_eq!(sets(9), sets(2));
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_shares_differ_by_one_at_most(
            threads in prop::collection::vec(1..4_usize, 1..6),
            partitions in 1..40,
        ) {
            let names: Vec<String> = (0..threads.len()).map(|n| format!("i{n}")).collect();
            let instances = names.iter().map(|name| Arc::from(name.as_str())).zip(threads);
            let members = Members::of(instances);
            let owners = members.owners(partitions);
            prop_assert_eq!(owners.len(), usize::try_from(partitions).unwrap());
            // Ranges: an instance's partitions lie together.
            let mut runs = owners.clone();
            runs.dedup();
            let different: BTreeSet<_> = owners.iter().collect();
            prop_assert_eq!(runs.len(), different.len());
        }
    }
}
