use prometheus::Registry;
use turnstile_state::MemoryBackend;

use super::super::task_stores::AGE_MAX;
use super::*;
use crate::quiet;

/// The only task of a topology with one store, with its stores, followed since `known_until`.
fn standby(known_until: SystemTime) -> (Standbys, TaskId) {
    let (plan, _) = quiet::plan(&[("words", 1, &["counts"])]);
    let task = plan.tasks()[0];
    let of = plan.subtopology(task.subtopology).unwrap();
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&of.store_specs()));
    let stores = ChangelogRestore::of(task, of, &backend).unwrap().unwrap();
    let place = TopicPartition {
        topic: stores.changelog.clone(),
        partition: task.partition,
    };
    let known_until = KnownUntil::when_opened(None, false, known_until);
    let standby = Standby::of(backend, stores, place, known_until);
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let standbys = Standbys::new(Queries::new(plan), metrics);
    let mut state = standbys.shared.state.lock();
    state.standbys.insert(task, standby);
    drop(state);
    (standbys, task)
}

/// Does something with the standby.
fn with<R>(standbys: &Standbys, task: TaskId, work: impl FnOnce(&mut Standby) -> R) -> R {
    let mut state = standbys.shared.state.lock();
    work(state.standbys.get_mut(&task).unwrap())
}

fn sample(end: i64, time: SystemTime) -> Sample {
    Sample {
        end: Offset(end),
        at: Instant::now(),
        time,
    }
}

#[test]
fn a_standby_hands_over_its_stores_unless_it_is_too_old() {
    let (standbys, task) = standby(SystemTime::now());
    assert!(standbys.take(task).is_some());
    assert!(standbys.take(task).is_none(), "it is gone");
    let (standbys, task) = standby(SystemTime::now() - AGE_MAX * 2);
    assert!(standbys.take(task).is_none());
    let state = standbys.shared.state.lock();
    assert!(state.standbys.is_empty() && state.taken.contains_key(&task));
}

#[test]
fn a_standby_holds_what_there_was_when_the_sample_was_taken_that_it_has_reached() {
    let now = SystemTime::now();
    let (standbys, task) = standby(now);
    with(&standbys, task, |standby| {
        assert_eq!(standby.behind(), None);
        let first = sample(10, now);
        standby.take_sample(Some(first));
        assert_eq!(standby.behind(), Some(10));
        standby.reached = Offset(9);
        assert_eq!(standby.reach_goal(now), None);
        // The first sample stays its goal.
        standby.take_sample(Some(sample(20, now + ACCEPTABLE_AGE)));
        standby.reached = Offset(10);
        assert_eq!(standby.reach_goal(now), Some(first.at));
        assert_eq!(standby.behind(), Some(10));
        assert!(standby.is_fresh());
        assert_eq!(standby.reach_goal(now), None, "there is no new sample");
    });
}

#[test]
fn where_nobody_says_where_the_changelog_ends_nothing_new_is_reached() {
    let now = SystemTime::now();
    let (standbys, task) = standby(now);
    with(&standbys, task, |standby| {
        standby.take_sample(Some(sample(0, now)));
        assert!(standby.end_is_current);
        assert!(standby.reach_goal(now).is_some());
        standby.take_sample(None);
        assert!(!standby.end_is_current);
        assert_eq!(standby.reach_goal(now), None);
        // The last that was known.
        assert_eq!(standby.behind(), Some(0));
    });
}

#[test]
fn what_was_read_after_too_long_a_pause_is_not_taken_for_fresh() {
    let now = SystemTime::now();
    let (standbys, task) = standby(now - AGE_MAX * 2);
    with(&standbys, task, |standby| {
        standby.take_sample(Some(sample(0, now)));
        assert_eq!(standby.reach_goal(now), None);
        assert!(!standby.is_fresh());
        assert!(standby.known_until.is_too_old(now));
    });
}
