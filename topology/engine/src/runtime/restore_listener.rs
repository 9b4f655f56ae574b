//! What an application is told about the restoring of its stores.
//!
//! ```text
//! on_restore_start ─► on_batch_restored ─┬─► on_restore_end
//!                        0 or more       └─► on_restore_suspended
//! ```
//!
//! The stores of a task are restored together. Every restore is reported, even if the stores are up
//! to date: then the end follows the start with 0 records in between. Whatever ends a restore early
//! (the task moves away, the cluster does not answer, another task of the same batch is corrupted)
//! suspends it; the next one starts where the stores then are.
//!
//! A listener only observes. It is called on the thread that restores, so it must not block: it
//! hands long work to another thread. If it panics, this is logged, and the restore goes on.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::{Offset, Partition, TaskId};

/// The restore of a task's stores from one offset of the changelog to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangelogRestoration {
    /// The task.
    pub task: TaskId,
    /// Its stores, except those that are derived from others.
    pub stores: Vec<String>,
    /// The topic of the changelog, which all tasks share.
    pub changelog: Arc<str>,
    /// The partition of it that all tasks of this partition number share.
    pub partition: Partition,
    /// When the restore begins, the stores hold all their own records before this offset; 0 for
    /// empty stores.
    pub start: Offset,
    /// Where the partition ends, including records of other tasks and transaction markers. Between
    /// start and end there can be fewer records of the task than offsets, or none at all.
    pub end: Offset,
}

/// Is told how stores are restored from their changelog. It must not block.
pub trait RestoreListener: Send + Sync {
    /// A restore begins.
    fn on_restore_start(&self, _of: &ChangelogRestoration) {}

    /// `records` more are in the stores, which now hold all their own records before the offset
    /// `reached`. While all that is read belongs to other tasks, this is called about once a
    /// second, with 0 records.
    fn on_batch_restored(&self, _of: &ChangelogRestoration, _reached: Offset, _records: u64) {}

    /// The stores are restored, with `total` records.
    fn on_restore_end(&self, _of: &ChangelogRestoration, _total: u64) {}

    /// The restore ended early, after `total` records, which the stores keep unless they are
    /// corrupted.
    fn on_restore_suspended(&self, _of: &ChangelogRestoration, _total: u64) {}
}

impl fmt::Debug for dyn RestoreListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestoreListener")
    }
}

/// Several listeners, each shielded from the panics of the others, and the restore
/// from those of all.
pub(super) struct RestoreListeners(pub(super) Vec<Arc<dyn RestoreListener>>);

impl RestoreListeners {
    fn each(
        &self,
        callback: &'static str,
        of: &ChangelogRestoration,
        call: impl Fn(&dyn RestoreListener),
    ) {
        for listener in &self.0 {
            // A listener that panicked may be in any state; the restore shares nothing with it.
            let called = catch_unwind(AssertUnwindSafe(|| call(listener.as_ref())));
            if called.is_err() {
                tracing::error!(task = %of.task, callback, "a restore listener panicked; the restore goes on");
            }
        }
    }
}

impl RestoreListener for RestoreListeners {
    fn on_restore_start(&self, of: &ChangelogRestoration) {
        self.each("on_restore_start", of, |listener| {
            listener.on_restore_start(of);
        });
    }

    fn on_batch_restored(&self, of: &ChangelogRestoration, reached: Offset, records: u64) {
        self.each("on_batch_restored", of, |listener| {
            listener.on_batch_restored(of, reached, records);
        });
    }

    fn on_restore_end(&self, of: &ChangelogRestoration, total: u64) {
        self.each("on_restore_end", of, |listener| {
            listener.on_restore_end(of, total);
        });
    }

    fn on_restore_suspended(&self, of: &ChangelogRestoration, total: u64) {
        self.each("on_restore_suspended", of, |listener| {
            listener.on_restore_suspended(of, total);
        });
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::SubtopologyId;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn say(&self, call: String) {
            self.0.lock().push(call);
        }
    }

    impl RestoreListener for Heard {
        fn on_restore_start(&self, of: &ChangelogRestoration) {
            self.say(format!("start {} to {}", of.start, of.end));
        }

        fn on_batch_restored(&self, _: &ChangelogRestoration, reached: Offset, records: u64) {
            self.say(format!("{records} to {reached}"));
        }

        fn on_restore_end(&self, _: &ChangelogRestoration, total: u64) {
            self.say(format!("end {total}"));
        }

        fn on_restore_suspended(&self, _: &ChangelogRestoration, total: u64) {
            self.say(format!("suspended {total}"));
        }
    }

    /// Panics at every call.
    struct Panicking;

    impl RestoreListener for Panicking {
        fn on_restore_start(&self, _: &ChangelogRestoration) {
            panic!("at the start");
        }

        fn on_batch_restored(&self, _: &ChangelogRestoration, _: Offset, _: u64) {
            panic!("at a batch");
        }

        fn on_restore_end(&self, _: &ChangelogRestoration, _: u64) {
            panic!("at the end");
        }

        fn on_restore_suspended(&self, _: &ChangelogRestoration, _: u64) {
            panic!("when suspended");
        }
    }

    #[test]
    fn a_panic_of_one_listener_keeps_nothing_from_the_others() {
        let heard = Arc::new(Heard::default());
        let listeners = RestoreListeners(vec![Arc::new(Panicking), heard.clone()]);
        let of = ChangelogRestoration {
            task: TaskId {
                subtopology: SubtopologyId(0),
                partition: Partition(3),
            },
            stores: vec!["rows".to_owned()],
            changelog: "app-rows-changelog".into(),
            partition: Partition(3),
            start: Offset(4),
            end: Offset(9),
        };
        listeners.on_restore_start(&of);
        listeners.on_batch_restored(&of, Offset(7), 2);
        listeners.on_restore_suspended(&of, 2);
        listeners.on_restore_end(&of, 3);
        assert_eq!(
            *heard.0.lock(),
            ["start 4 to 9", "2 to 7", "suspended 2", "end 3"]
        );
    }
}
