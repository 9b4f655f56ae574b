//! The engine on a real Kafka, at `KAFKA_BROKERS`: a small application that counts.

mod application;
mod circle;
mod cluster;
mod commit;
mod crash;
mod fence;
mod instances;
mod lost;
mod restore;
mod shared_changelog;
mod shared_topic;
mod slow_backlog;
mod timer_transaction;
mod upgrade;

use std::time::Duration;

use application::Counting;
use cluster::{Cluster, eventually};
use crash::PARTITIONS;
use turnstile_engine::runtime::StartError;

const LIMIT: Duration = Duration::from_secs(60);

/// Counts are written to a topic and a store, and stock tools show no lag when all is done.
#[test]
fn counts_come_out_once_each_and_the_lag_goes_to_zero() {
    let cluster = Cluster::new("counts");
    let counting = Counting::start(&cluster, "a");
    for n in 0..200 {
        cluster.send(&counting.words(), &format!("w{}", n % 10), "x");
    }
    let counts = cluster.read_committed(&counting.counts(), 200);
    let mut last: Vec<String> = counts
        .iter()
        .filter(|(_, value)| value == "20")
        .map(|(key, _)| key.clone())
        .collect();
    last.sort();
    assert_eq!(last, (0..10).map(|n| format!("w{n}")).collect::<Vec<_>>());
    assert_eq!(counting.stored("w3"), Some(20));
    for group in [counting.group("words"), counting.group("resets")] {
        eventually("the lag is zero", LIMIT, || cluster.lag(&group) == Some(0));
    }
    counting.stop();
}

/// A state directory that is gone costs a restore, not a count.
#[test]
fn state_comes_back_from_the_changelogs() {
    let cluster = Cluster::new("restore");
    let counting = Counting::start(&cluster, "a");
    for n in 0..500 {
        cluster.send(&counting.words(), &format!("w{}", n % 7), "x");
    }
    cluster.read_committed(&counting.counts(), 500);
    let before = counting.stored("w3");
    counting.stop();
    cluster.lose_state("a");
    let counting = Counting::start(&cluster, "a");
    assert_eq!(counting.stored("w3"), before);
    cluster.send(&counting.words(), "w3", "x");
    cluster.flush();
    eventually("the count goes on", LIMIT, || {
        counting.stored("w3") == before.map(|count| count + 1)
    });
    counting.stop();
}

/// Two instances share the tasks; when one stops, the other has all of them and goes on counting.
#[test]
fn tasks_move_to_the_instance_that_is_left() {
    let cluster = Cluster::new("move");
    let first = Counting::start(&cluster, "a");
    let second = Counting::start(&cluster, "b");
    eventually("each has tasks", LIMIT, || {
        let (a, b) = (first.running(), second.running());
        a > 0 && b > 0 && a + b == first.tasks()
    });
    for n in 0..300 {
        cluster.send(&first.words(), &format!("w{}", n % 30), "x");
    }
    cluster.read_committed(&first.counts(), 300);
    second.stop();
    eventually("the first has all tasks", LIMIT, || {
        first.running() == first.tasks()
    });
    for n in 0..300 {
        cluster.send(&first.words(), &format!("w{}", n % 30), "x");
    }
    let counts = cluster.read_committed(&first.counts(), 600);
    assert_eq!(counts.iter().filter(|(_, value)| value == "20").count(), 30);
    assert_eq!(counts.len(), 600, "no count comes twice");
    first.stop();
}

/// A value that cannot be decoded lies in the dead letters, with where it came from.
#[test]
fn bad_records_become_dead_letters() {
    let cluster = Cluster::new("dlq");
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "poison");
    cluster.send(&counting.words(), "w1", "x");
    assert_eq!(
        cluster.read_committed(&counting.counts(), 1),
        [("w1".to_owned(), "1".to_owned())]
    );
    assert_eq!(
        cluster.read_committed(&counting.dead_letters(), 1),
        [("w1".to_owned(), "poison".to_owned())]
    );
    counting.stop();
}

/// What a topic does not take would stop each owner of its task in turn. And what it takes one by one it is not
/// given in batches that are too large.
#[test]
fn what_a_topic_does_not_take_becomes_a_dead_letter() {
    let cluster = Cluster::new("too-large");
    let counts = format!("{}-counts", cluster.application());
    cluster.create_topic_with(&counts, PARTITIONS, &[("max.message.bytes", "1024")]);
    let counting = Counting::start(&cluster, "a");
    // Nothing that a compression would make small.
    let large: String = (0..300).map(|n| format!("{:x}-", n * 7_919)).collect();
    cluster.send(&counting.words(), &large, "x");
    for n in 0..1_000 {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    assert_eq!(cluster.read_committed(&counts, 1_000).len(), 1_000);
    assert_eq!(
        cluster.read_committed(&counting.dead_letters(), 1),
        [(large, "x".to_owned())]
    );
    assert_eq!(counting.failure(), None);
    counting.stop();
}

/// An application of a new id has empty stores: where its groups have read for another, what they
/// have read would be missing, unless they read it again.
#[test]
fn a_new_application_does_not_go_on_where_another_has_stopped() {
    let cluster = Cluster::new("renamed");
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "x");
    cluster.read_committed(&counting.counts(), 1);
    let (group, topic) = (counting.group("words"), counting.words());
    counting.stop();
    let renamed = || {
        Counting::try_launch(&cluster, "b", |config| {
            config.application_id = format!("{}-renamed", config.application_id);
        })
    };
    match renamed().map(Counting::stop) {
        Err(StartError::ForeignPosition(found)) => {
            assert_eq!((found.group, found.topic), (group.clone(), topic.clone()));
        }
        other => panic!("{other:?}"),
    }
    cluster.move_group(&group, &topic, |_| 0);
    let counting = renamed().expect("nothing is passed over");
    counting.wait_until_ready("b");
    assert_eq!(
        cluster.read_committed(&counting.counts(), 2),
        [
            ("w1".to_owned(), "1".to_owned()),
            ("w1".to_owned(), "1".to_owned())
        ]
    );
    counting.stop();
}

/// To start again changes nothing: who does so by himself need not try.
#[test]
fn a_session_that_brokers_do_not_take_is_of_the_configuration() {
    let cluster = Cluster::new("session");
    // `group.max.session.timeout.ms` is half an hour.
    let counting = Counting::launch(&cluster, "a", |config| {
        config.session_timeout = Duration::from_mins(45);
    });
    let reason = counting.why_it_stops();
    assert!(
        reason.contains("set the session timeout within"),
        "{reason}"
    );
    assert!(counting.is_misconfigured());
    counting.stop();
}

/// A timer that was pending when the instance stopped fires when it is back.
#[test]
fn timers_survive_a_restart() {
    let cluster = Cluster::new("timers");
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "later:3000");
    cluster.flush();
    eventually("the timer is stored", LIMIT, || {
        counting.stored("w1") == Some(1)
    });
    counting.stop();
    let counting = Counting::start(&cluster, "a");
    let counts = cluster.read_committed(&counting.counts(), 2);
    assert_eq!(counts.last(), Some(&("w1".to_owned(), "timer".to_owned())));
    counting.stop();
}

/// Records of a topic with another partition count find their task through a repartition
/// topic where that runs on another instance, and without a way through it where it does not.
#[test]
fn a_topic_with_another_partition_count_is_rekeyed() {
    let cluster = Cluster::new("rekey");
    cluster.create_topic(&format!("{}-resets", cluster.application()), 7);
    let counting = Counting::start(&cluster, "a");
    let repartition = format!("{}-resets-repartition", cluster.application());
    reset(&cluster, &[&counting], 20);
    let sent = || (0..4).map(|n| cluster.end(&repartition, n).0).sum::<i64>();
    assert_eq!(sent(), 0);
    let other = Counting::start(&cluster, "b");
    eventually("the tasks are shared", LIMIT, || {
        counting.running() > 0 && counting.running() + other.running() == counting.tasks()
    });
    reset(&cluster, &[&counting, &other], 200);
    assert!(sent() > 0);
    eventually("what was read is deleted", LIMIT, || {
        cluster.kept(&repartition) == 0
    });
    counting.stop();
    other.stop();
}

/// Counts some words, and resets them.
fn reset(cluster: &Cluster, instances: &[&Counting], words: usize) {
    let counting = instances.first().expect("there is one");
    let stored = |n: usize| {
        let mut here = instances.iter().map(|of| of.stored_here(&format!("w{n}")));
        here.find_map(Result::ok)
    };
    for n in 0..words {
        cluster.send(&counting.words(), &format!("w{n}"), "x");
    }
    cluster.flush();
    eventually("all are counted", LIMIT, || {
        (0..words).all(|n| stored(n).is_some_and(|count| count.is_some()))
    });
    for n in 0..words {
        cluster.send(&counting.resets(), &format!("w{n}"), "reset");
    }
    cluster.flush();
    eventually("all are reset", LIMIT, || {
        (0..words).all(|n| stored(n).is_some_and(|count| count.is_none()))
    });
}
