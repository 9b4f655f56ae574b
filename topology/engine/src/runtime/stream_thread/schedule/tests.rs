use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn pending(number: usize, transaction: Transaction, left: u64, is_awaited: bool) -> Pending {
    Pending {
        component: Component(number),
        transaction,
        left: ms(left),
        is_awaited,
    }
}

/// No commit is under way, and the last ones ended that long ago.
fn resting(since: u64, pending: &[Pending]) -> Schedule {
    let resting = Transaction::ANY.map(|transaction| Resting {
        transaction,
        since: ms(since),
    });
    Schedule {
        interval: INTERVAL,
        is_half_full: false,
        resting: resting.to_vec(),
        pending: pending.to_vec(),
    }
}

fn components(numbers: &[usize]) -> Vec<Component> {
    numbers.iter().copied().map(Component).collect()
}

use Transaction::{Records, Timers};

#[test]
fn nothing_is_due_before_the_interval_is_over_while_there_is_more_to_process() {
    let schedule = resting(90, &[pending(0, Records, 10, true)]);
    assert_eq!(schedule.due(false), []);
    assert_eq!(schedule.left(false), Some(ms(10)));
}

#[test]
fn all_commit_with_the_first_whose_interval_is_over() {
    let waiting = [
        pending(0, Records, 40, false),
        pending(1, Records, 0, false),
        pending(2, Timers, 30, true),
    ];
    let schedule = resting(4, &waiting);
    assert_eq!(schedule.due(false), [(Records, components(&[0, 1]))]);
}

#[test]
fn with_nothing_left_to_process_those_commit_that_somebody_waits_for() {
    let waiting = [
        pending(0, Records, 80, false),
        pending(1, Records, 80, true),
    ];
    assert_eq!(resting(19, &waiting).due(true), []);
    assert_eq!(resting(19, &waiting).left(true), Some(ms(1)));
    let due = [(Records, components(&[1]))];
    assert_eq!(resting(20, &waiting).due(true), due);
}

#[test]
fn timers_rest_for_less() {
    let waiting = [pending(0, Records, 80, true), pending(1, Timers, 80, true)];
    assert_eq!(resting(4, &waiting).due(true), []);
    let due = [(Timers, components(&[1]))];
    assert_eq!(resting(5, &waiting).due(true), due);
}

#[test]
fn nobody_waits_where_so_much_is_uncommitted() {
    let waiting = [
        pending(0, Records, 100, false),
        pending(1, Timers, 100, false),
        pending(2, Records, 100, false),
    ];
    let mut schedule = resting(0, &waiting);
    assert_eq!(schedule.due(false), []);
    schedule.is_half_full = true;
    let due = [(Records, components(&[0, 2])), (Timers, components(&[1]))];
    assert_eq!(schedule.due(false), due);
}

#[test]
fn of_a_transaction_one_commit_is_under_way_at_most() {
    let mut schedule = resting(50, &[pending(0, Records, 0, true)]);
    schedule
        .resting
        .retain(|resting| resting.transaction != Records);
    schedule.is_half_full = true;
    assert_eq!(schedule.due(true), []);
    assert_eq!(schedule.left(true), None);
}

/// Any thread with four components, in milliseconds.
fn any_thread() -> impl Strategy<Value = Schedule> {
    let left = prop_oneof![Just(0_u64), 0..=100_u64];
    let component = (any::<bool>(), any::<bool>(), left, any::<bool>());
    let since = prop_oneof![2 => (0..200_u64).prop_map(Some), 1 => Just(None)];
    let transactions = (since.clone(), since, any::<bool>());
    let of = |hurries| if hurries { Timers } else { Records };
    (vec(component, 4), transactions).prop_map(move |(all, (records, timers, is_half_full))| {
        let free = all.into_iter().enumerate().filter(|(_, (free, ..))| *free);
        let pending = free.map(|(number, (_, hurries, left, is_awaited))| {
            pending(number, of(hurries), left, is_awaited)
        });
        let resting = [(Records, records), (Timers, timers)];
        let resting = resting.into_iter().filter_map(|(transaction, since)| {
            let since = ms(since?);
            Some(Resting { transaction, since })
        });
        Schedule {
            interval: INTERVAL,
            is_half_full,
            resting: resting.collect(),
            pending: pending.collect(),
        }
    })
}

/// The same thread, when nothing has happened for so long.
fn later(schedule: &Schedule, by: Duration) -> Schedule {
    let mut later = schedule.clone();
    for resting in &mut later.resting {
        resting.since += by;
    }
    for pending in &mut later.pending {
        pending.left = pending.left.saturating_sub(by);
    }
    later
}

proptest! {
    /// A thread that sleeps for what is left neither misses a commit nor wakes for none.
    #[test]
    fn what_is_left_is_until_a_commit_is_due(schedule in any_thread(), idle in any::<bool>()) {
        match schedule.left(idle) {
            None => prop_assert_eq!(schedule.due(idle), []),
            Some(Duration::ZERO) => prop_assert_ne!(schedule.due(idle), []),
            Some(left) => {
                prop_assert_eq!(schedule.due(idle), []);
                prop_assert_eq!(later(&schedule, left - ms(1)).due(idle), []);
                prop_assert_ne!(later(&schedule, left).due(idle), []);
            }
        }
    }

    /// Each component in a commit can be, and each that has to be is, unless its transaction is busy.
    #[test]
    fn a_commit_has_those_that_have_to_be_in_it(schedule in any_thread(), idle in any::<bool>()) {
        let due = schedule.due(idle);
        for (transaction, components) in &due {
            let rests = |resting: &Resting| resting.transaction == *transaction;
            prop_assert!(schedule.resting.iter().any(rests));
            prop_assert!(!components.is_empty());
            for component in components {
                let is_pending = schedule.pending.iter().any(|pending| {
                    pending.component == *component && pending.transaction == *transaction
                });
                prop_assert!(is_pending);
            }
        }
        for pending in &schedule.pending {
            let mut resting = schedule.resting.iter();
            let rests = resting.any(|resting| resting.transaction == pending.transaction);
            let has_to_be = pending.left.is_zero() || schedule.is_half_full;
            let is_in = due.iter().any(|(_, components)| components.contains(&pending.component));
            prop_assert!(is_in || !(rests && has_to_be));
        }
    }

    /// An interval is the longest that anything waits, whatever it is.
    #[test]
    fn nothing_waits_for_longer_than_its_interval(schedule in any_thread()) {
        let later = later(&schedule, INTERVAL);
        let due = later.due(false);
        for pending in &schedule.pending {
            let mut resting = schedule.resting.iter();
            if resting.any(|resting| resting.transaction == pending.transaction) {
                let expected = |(transaction, components): &(Transaction, Vec<Component>)| {
                    *transaction == pending.transaction && components.contains(&pending.component)
                };
                prop_assert!(due.iter().any(expected));
            }
        }
    }
}
