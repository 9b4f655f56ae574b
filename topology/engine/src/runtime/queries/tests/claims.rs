//! Who reads a task that several processes claim, and one that is restored where it ran.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::runtime::queries::Process;
use crate::{TimestampMs, clock};

const MINUTE: Duration = Duration::from_secs(60);

fn process(instance: &str, started: i64) -> Process {
    Process {
        instance: instance.into(),
        started: TimestampMs(started),
    }
}

impl Fixture {
    /// Since when the task of a key runs here.
    fn since(&self, key: &str) -> Option<TimestampMs> {
        self.queries.claims().get(&task_of(key)).copied()
    }

    /// A process says that it runs the tasks of these keys, and since when.
    fn hear(&self, of: &Process, claims: &[(&str, TimestampMs)]) {
        self.hear_in(of, claims, true);
    }

    fn hear_in(&self, of: &Process, claims: &[(&str, TimestampMs)], may_heal: bool) {
        let claims = claims.iter().map(|(key, since)| (task_of(key), *since));
        let claims: BTreeMap<TaskId, TimestampMs> = claims.collect();
        self.queries.hear_claims(of, &claims, may_heal);
    }

    fn is_turned_away(&self, key: &str, status: TaskStatus) -> bool {
        matches!(
            self.get(key),
            Err(QueryError::NotRunning { task, status: found })
                if task == task_of(key) && found == status
        )
    }
}

fn later() -> TimestampMs {
    clock::now().plus(MINUTE)
}

#[test]
fn what_another_process_has_begun_to_run_since_is_not_read_here() {
    let fixture = fixture();
    let (b, c) = (process("b", 1), process("c", 1));
    fixture.run("a");
    let (watch, told) = fixture.watch("a");
    let watch = watch.unwrap();
    let since = fixture.since("a").unwrap();
    // An earlier claim is by a process that has lost the task; and another task is another task.
    fixture.hear(&b, &[("a", since), ("c", later())]);
    assert_ne!(task_of("a"), task_of("c"));
    assert_eq!(fixture.get("a").unwrap(), None);
    assert_eq!(told.load(Ordering::Relaxed), 0);
    assert!(fixture.queries.outdone().is_empty());

    fixture.hear(&b, &[("a", later())]);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    assert!(fixture.watch("a").0.is_err());
    assert_eq!(told.load(Ordering::Relaxed), 1);
    let outdone = BTreeSet::from([(task_of("a"), Arc::<str>::from("b"))]);
    assert_eq!(fixture.queries.outdone(), outdone);
    // Not on the word of any other process, nor of a successor of that one.
    fixture.hear(&c, &[]);
    fixture.hear(&process("b", 2), &[]);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    // Its claim was kept: it may be the clocks that differ.
    assert_eq!(fixture.since("a"), Some(since));
    fixture.hear(&b, &[("c", later())]);
    assert_eq!(fixture.get("a").unwrap(), None);
    assert!(fixture.queries.outdone().is_empty());
    drop(watch);
}

#[test]
fn each_claim_is_taken_back_by_whom_it_is_of() {
    let fixture = fixture();
    let (b, c) = (process("b", 1), process("c", 1));
    fixture.run("a");
    fixture.hear(&b, &[("a", later())]);
    fixture.hear(&c, &[("a", later())]);
    fixture.hear(&b, &[]);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    fixture.hear_in(&c, &[], false);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    fixture.hear(&c, &[]);
    assert!(fixture.get("a").is_ok());
}

#[test]
fn a_task_that_waits_here_while_another_process_runs_it_is_lost() {
    let fixture = fixture();
    let b = process("b", 1);
    for suspended_first in [true, false] {
        fixture.run("a");
        let suspend = || {
            let status = TaskStatus::Suspended;
            fixture.queries.set_status(task_of("a"), status);
        };
        if suspended_first {
            suspend();
            assert!(fixture.get("a").is_ok());
        }
        let since = fixture.since("a").unwrap();
        let claimed = since.plus(MINUTE);
        fixture.hear(&b, &[("a", claimed)]);
        if !suspended_first {
            suspend();
        }
        // Whatever becomes of it there: it comes back by a restore, or not at all.
        for claims in [vec![("a", claimed)], vec![]] {
            fixture.hear(&b, &claims);
            assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
            assert_eq!(fixture.since("a"), None);
            assert!(fixture.queries.outdone().is_empty());
        }
    }
}

#[test]
fn who_begins_to_run_a_task_has_begun_later_than_all_before_whatever_their_clocks() {
    let fixture = fixture();
    let b = process("b", 1);
    let claimed = later();
    fixture.hear(&b, &[("a", claimed)]);
    fixture.hear(&process("c", 1), &[("a", TimestampMs(1))]);
    let now = clock::now();
    fixture.run("a");
    fixture.run("c");
    assert_eq!(fixture.since("a").unwrap().since(claimed).as_millis(), 1);
    assert!(fixture.since("c").unwrap().since(now) < MINUTE);
    // One that has not noticed yet says the same again and again.
    fixture.hear(&b, &[("a", claimed)]);
    assert!(fixture.get("a").is_ok());
    // It runs here anew after somebody else had it.
    fixture.hear(&b, &[("a", claimed.plus(MINUTE))]);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    fixture.run("a");
    assert!(fixture.get("a").is_ok());
    fixture.hear(&b, &[("a", claimed.plus(MINUTE))]);
    assert!(fixture.get("a").is_ok());
}

#[test]
fn a_task_is_not_read_while_it_is_restored_where_it_ran() {
    let fixture = fixture();
    fixture.run("a");
    let since = fixture.since("a");
    let (watch, told) = fixture.watch("a");
    let become_status = |status| fixture.queries.set_status(task_of("a"), status);
    become_status(TaskStatus::Suspended);
    assert!(fixture.get("a").is_ok());
    assert_eq!(told.load(Ordering::Relaxed), 0);
    become_status(TaskStatus::Restoring);
    assert!(fixture.is_turned_away("a", TaskStatus::Restoring));
    assert_eq!(told.load(Ordering::Relaxed), 1);
    // A cancelled restore leaves its stores wherever it was.
    become_status(TaskStatus::Suspended);
    assert!(fixture.is_turned_away("a", TaskStatus::Suspended));
    // Others know all the while that it is here.
    assert_eq!(fixture.since("a"), since);
    fixture.run("a");
    assert!(fixture.get("a").is_ok());
    drop(watch.unwrap());
}
