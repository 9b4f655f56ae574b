//! Passes the records of a changelog partition to the tasks whose stores they belong to.
//!
//! All tasks of one partition number share a changelog partition. It is read once for those of them
//! that follow it, starting from the one that is furthest behind; each record goes to the task that
//! has a store with its tag, unless that holds it already. All others are skipped: records of tasks
//! that do not follow it here, and of stores that the topology no longer has.
//!
//! It is given the tasks with every record and holds none of them, so that they can come and go
//! between two batches.

use turnstile_state::{ChangelogRecord, StoreTag};

use super::error::TaskError;
use super::restore::ChangelogRestore;
use crate::Offset;

/// Knows which of several tasks has the store of a tag.
pub(crate) struct Dispatch {
    /// Sorted by tag; the topology ensures that no two stores have the same one.
    owners: Vec<(StoreTag, Owner)>,
}

/// A store among those of several tasks.
#[derive(Clone, Copy)]
struct Owner {
    task: usize,
    store: usize,
}

impl Dispatch {
    /// To these tasks, which have to be passed to [`Self::hand_out`] in this order.
    pub(crate) fn to<'a>(tasks: impl IntoIterator<Item = &'a ChangelogRestore>) -> Self {
        let tasks = (0..).zip(tasks);
        let owners = tasks.flat_map(|(task, of)| {
            let stores = (0..).zip(of.tags());
            stores.map(move |(store, tag)| (tag, Owner { task, store }))
        });
        let mut owners: Vec<(StoreTag, Owner)> = owners.collect();
        owners.sort_unstable_by_key(|(tag, _)| *tag);
        Self { owners }
    }

    fn owner(&self, tag: StoreTag) -> Option<Owner> {
        let found = self.owners.binary_search_by_key(&tag, |(tag, _)| *tag);
        let (_, owner) = self.owners.get(found.ok()?)?;
        Some(*owner)
    }

    /// Passes a record to the one of `tasks` that it is for, if any is.
    ///
    /// # Errors
    ///
    /// When the record is none that a task wrote.
    pub(crate) fn hand_out<T: AsMut<ChangelogRestore>>(
        &self,
        tasks: &mut [T],
        offset: Offset,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), TaskError> {
        let record = match ChangelogRecord::decode(key, value) {
            Ok(record) => record,
            // Nobody can tell whose it is, and none of them can be restored past it.
            Err(error) => {
                let mut tasks = tasks.iter_mut().map(AsMut::as_mut);
                let first = tasks.find(|task| !task.holds(offset));
                return first.map_or(Ok(()), |task| Err(task.cannot_read(offset, error)));
            }
        };
        let Some(owner) = self.owner(record.store) else {
            return Ok(());
        };
        let task = tasks.get_mut(owner.task);
        task.map_or(Ok(()), |task| {
            task.as_mut().take(owner.store, offset, &record)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use turnstile_state::{Backend, MemoryBackend, StoreId};

    use super::*;
    use crate::topology::Plan;
    use crate::{Partition, SubtopologyId, TaskId, quiet};

    /// Two subtopologies: one with the stores `left` and `middle`, one with `right`.
    fn plan() -> Arc<Plan> {
        quiet::plan(&[("a", 1, &["left", "middle"]), ("b", 1, &["right"])]).0
    }

    struct Behind {
        task: ChangelogRestore,
        backend: Arc<dyn Backend>,
    }

    impl AsMut<ChangelogRestore> for Behind {
        fn as_mut(&mut self) -> &mut ChangelogRestore {
            &mut self.task
        }
    }

    impl Behind {
        fn holds(&self, store: u16, key: &[u8]) -> bool {
            let row = self.backend.get(StoreId(store), key).unwrap();
            row.is_some()
        }
    }

    /// The task of a subtopology on stores that hold everything before `next`.
    fn task(plan: &Plan, subtopology: u16, next: Option<i64>) -> Behind {
        let id = TaskId {
            subtopology: SubtopologyId(subtopology),
            partition: Partition(0),
        };
        let of = plan.subtopology(id.subtopology).unwrap();
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
        let mut task = ChangelogRestore::of(id, of, &backend).unwrap().unwrap();
        if let Some(next) = next {
            task.write(Offset(next)).unwrap();
        }
        Behind { task, backend }
    }

    fn hand_out(tasks: &mut [Behind], offset: i64, store: &str, key: &[u8]) {
        let record = ChangelogRecord {
            store: StoreTag::of(store),
            key,
            value: Some(b"value"),
        };
        let dispatch = Dispatch::to(tasks.iter().map(|of| &of.task));
        let (key, value) = (record.encode_key(), record.encode_value());
        dispatch
            .hand_out(tasks, Offset(offset), Some(&key), value.as_deref())
            .unwrap();
    }

    fn pending<const N: usize>(tasks: &[Behind; N]) -> [u64; N] {
        tasks.each_ref().map(|of| of.task.pending())
    }

    #[test]
    fn a_record_goes_to_the_task_that_has_its_store_and_to_no_other() {
        let plan = plan();
        let mut tasks = [task(&plan, 0, None), task(&plan, 1, None)];
        hand_out(&mut tasks, 0, "right", b"r");
        hand_out(&mut tasks, 1, "middle", b"m");
        hand_out(&mut tasks, 2, "of another topology", b"x");
        hand_out(&mut tasks, 3, "left", b"l");
        assert_eq!(pending(&tasks), [2, 1]);
        for of in &mut tasks {
            of.task.write(Offset(4)).unwrap();
            assert_eq!(of.backend.changelog_offset().unwrap(), Some(4));
        }
        assert_eq!(pending(&tasks), [0, 0]);
        let [first, second] = &tasks;
        assert!(first.holds(0, b"l") && first.holds(1, b"m") && second.holds(0, b"r"));
        assert!(!first.holds(0, b"r") && !first.holds(0, b"x") && !second.holds(0, b"l"));
    }

    #[test]
    fn what_a_task_holds_already_is_not_written_again() {
        let plan = plan();
        let mut tasks = [task(&plan, 0, Some(10)), task(&plan, 1, Some(3))];
        for offset in 3..12 {
            let store = if offset % 2 == 0 { "left" } else { "right" };
            hand_out(&mut tasks, offset, store, b"key");
        }
        // Of the even ones 10; of the odd ones 3, 5, 7, 9 and 11.
        assert_eq!(pending(&tasks), [1, 5]);
        let [_, second] = &mut tasks;
        second.task.forget_pending();
        assert_eq!(second.task.write(Offset(12)).unwrap(), 0);
        assert!(!second.holds(0, b"key"));
    }

    #[test]
    fn a_record_that_no_task_wrote_is_a_fault() {
        let plan = plan();
        let mut tasks = [task(&plan, 0, Some(8)), task(&plan, 1, Some(7))];
        let dispatch = Dispatch::to(tasks.iter().map(|of| &of.task));
        let mut unreadable =
            |offset| dispatch.hand_out(&mut tasks, Offset(offset), Some(b"tag"), None);
        assert!(unreadable(6).is_ok(), "it is news to nobody");
        let fault = unreadable(7).unwrap_err();
        assert!(matches!(fault, TaskError::Changelog { task, .. } if task.subtopology.0 == 1));
        assert_eq!(unreadable(8).unwrap_err().task().subtopology.0, 0);
    }
}
