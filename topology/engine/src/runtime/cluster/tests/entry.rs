//! Who goes into the groups if instances run different topologies.

use super::*;

const OLD: &[&str] = &["rows"];
const NEW: &[&str] = &["rows", "more-rows"];

/// An instance with these stores.
fn instance(name: &str, stores: &[&str]) -> Cluster {
    let (plan, _) = quiet::plan(&[("topic", 1, stores)]);
    let config = StreamsConfig::new("app", "localhost:1", name, "state");
    let board = StatusBoard::new(1, PATIENCE);
    Cluster::new(&config, &plan, Queries::new(plan.clone()), board)
}

/// All hear what `from` says now.
fn announce(from: &Cluster, all: &[&Cluster]) {
    hear(&from.announcement(), all);
}

fn hear(said: &Announcement, all: &[&Cluster]) {
    for cluster in all {
        let said = said.clone();
        cluster.hear(&said.instance.clone(), Some(said), Instant::now(), true);
    }
}

fn is_in(cluster: &Cluster) -> bool {
    cluster.admission(Duration::ZERO).is_some()
}

fn enter(cluster: &Cluster, all: &[&Cluster]) {
    assert!(cluster.may_join());
    cluster.begin_to_enter();
    announce(cluster, all);
    assert!(is_in(cluster));
}

fn waits_for(cluster: &Cluster, name: &str) -> bool {
    let named = format!("instance {name} runs another topology");
    !cluster.may_join() && cluster.problems().iter().any(|of| of.starts_with(&named))
}

#[test]
fn an_instance_waits_for_all_that_run_another_topology_even_the_younger_ones() {
    let (d, n, e) = (
        instance("d", OLD),
        instance("n", NEW),
        instance("restarted-e", OLD),
    );
    let all = [&d, &n, &e];
    enter(&d, &all);
    announce(&n, &all);
    assert!(waits_for(&n, "d"));
    // It is younger than the one that waits, and fits the one that runs.
    announce(&e, &all);
    enter(&e, &all);
    d.stop();
    announce(&d, &all);
    assert!(waits_for(&n, "restarted-e"));
    assert!(!is_in(&n));
    e.stop();
    announce(&e, &all);
    enter(&n, &all);
}

#[test]
fn the_elder_goes_first_if_none_runs() {
    let (a, b, c) = (instance("a", OLD), instance("b", NEW), instance("c", OLD));
    let all = [&a, &b, &c];
    for joining in all {
        announce(joining, &all);
    }
    assert!(waits_for(&b, "a"));
    assert!(waits_for(&c, "b"));
    enter(&a, &all);
    enter(&c, &all);
    assert!(waits_for(&b, "a") && waits_for(&b, "c"));
}

#[test]
fn of_two_that_have_not_heard_of_each_other_the_first_to_announce_itself_goes_in() {
    let (a, b) = (instance("a", OLD), instance("b", NEW));
    let all = [&a, &b];
    // Neither knows of the other: the younger need not wait for the elder.
    for cluster in all {
        assert!(cluster.may_join());
        cluster.begin_to_enter();
        assert!(!is_in(cluster));
    }
    // What is said is in one log, and each may have it from there later than the other.
    let log = [b.announcement(), a.announcement()];
    for said in &log {
        hear(said, &[&b]);
    }
    assert!(is_in(&b));
    for said in &log {
        hear(said, &[&a]);
    }
    assert!(!is_in(&a));
    assert!(waits_for(&a, "b"));
    assert_eq!(a.announcement().phase, InstancePhase::Joining);
    // The one that is in goes on, although it hears of the other.
    assert!(is_in(&b));

    b.stop();
    announce(&b, &all);
    // What it has said of itself before could be heard as if it were said now.
    assert!(!a.may_join());
    a.begin_to_enter();
    assert_eq!(a.announcement().phase, InstancePhase::Joining);
    announce(&a, &all);
    enter(&a, &all);
}

#[test]
fn who_was_cut_off_starts_over_once_none_of_its_threads_is_in() {
    let (a, b) = (instance("a", OLD), instance("b", NEW));
    a.begin_to_enter();
    announce(&a, &[&a]);
    let admission = a.admission(Duration::ZERO).expect("it is alone");
    // This one does not hear of it.
    b.begin_to_enter();
    announce(&b, &[&b, &a]);
    assert!(!a.may_join());
    a.step_back();
    assert_eq!(a.announcement().phase, InstancePhase::Running);
    drop(admission);
    a.step_back();
    let said = a.announcement();
    assert_eq!(said.phase, InstancePhase::Joining);
    assert!(waits_for(&a, "b"));
    announce(&a, &[&a, &b]);
    b.stop();
    announce(&b, &[&a, &b]);
    enter(&a, &[&a, &b]);

    // Its members are left in the groups until it comes back.
    let next = instance("a", NEW);
    let said = Announcement {
        started: TimestampMs(1),
        ..said
    };
    hear(&said, &[&next]);
    assert!(next.until_former_members_end().is_some());
}
