//! Which transactions a stream thread has, and their transactional ids.

use super::cluster::member_id;
use crate::topology::{Components, Plan};

/// A transaction of a stream thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transaction {
    /// For what is done for records, and everything that is not urgent.
    Records,
    /// For components whose timers have fired: what they send does not wait for the records,
    /// positions and markers of the others.
    Timers,
}

impl Transaction {
    /// Those that a thread of any release and topology can have left open.
    pub(crate) const ANY: [Self; 2] = [Self::Records, Self::Timers];

    /// Those that the threads of an application have. If all tasks commit together anyway or there
    /// are no timers, one is enough.
    pub(crate) fn all(plan: &Plan) -> Vec<Self> {
        if plan.has_timers() && Components::of(plan).number() > 1 {
            Self::ANY.to_vec()
        } else {
            vec![Self::Records]
        }
    }

    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Timers => "timers",
        }
    }

    /// The transactional id on a thread of an instance.
    pub(crate) fn id(self, application_id: &str, instance: &str, thread: usize) -> String {
        let member = member_id(instance, thread);
        match self {
            Self::Records => format!("{application_id}-{member}"),
            // No member has such an id: they end in the numbers of their threads.
            Self::Timers => format!("{application_id}-{member}-timers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_transactions_have_one_id() {
        let mut ids = BTreeSet::new();
        let instances = ["a", "a-0", "a-timers", "a-0-timers"];
        for (instance, thread) in instances.into_iter().flat_map(|of| [(of, 0), (of, 1)]) {
            for transaction in Transaction::ANY {
                let id = transaction.id("app", instance, thread);
                assert!(ids.insert(id.clone()), "{id} is taken");
            }
        }
    }
}
