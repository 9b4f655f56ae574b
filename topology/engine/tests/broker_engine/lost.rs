//! What brokers have lost, or somebody has deleted: nothing is done twice or passed over for it,
//! and no last copy is removed.

use std::path::Path;
use std::time::Duration;

use turnstile_state::TaskDirName;

use crate::application::Counting;
use crate::cluster::{Cluster, eventually};
use crate::crash::PARTITIONS;

const LIMIT: Duration = Duration::from_secs(60);

/// Counts a word once, and stops.
fn count_once(cluster: &Cluster, word: &str) {
    let counting = Counting::start(cluster, "a");
    cluster.send(&counting.words(), word, "x");
    cluster.read_committed(&counting.counts(), 1);
    counting.stop();
}

/// Starts an instance that does not go on; what it says.
fn why_it_stops(cluster: &Cluster) -> String {
    let counting = Counting::launch(cluster, "a", |_| {});
    let reason = counting.why_it_stops();
    counting.stop();
    reason
}

/// The folder of the stores of a task.
fn stores(cluster: &Cluster, partition: i32) -> std::path::PathBuf {
    let partition = u32::try_from(partition).expect("not negative");
    cluster
        .state("a")
        .join(TaskDirName::new(0, partition).to_string())
}

/// What is on the disk of an instance may be the last copy: it is left as it is.
#[test]
fn a_changelog_that_is_gone_stops_the_instance_and_leaves_its_stores() {
    let cluster = Cluster::new("no-changelog");
    count_once(&cluster, "w1");
    let changelog = format!("{}-stores-changelog", cluster.application());
    cluster.delete_topic(&changelog);
    let reason = why_it_stops(&cluster);
    assert!(reason.contains(&changelog), "{reason}");
    assert!(reason.contains("last copy"), "{reason}");
    let is_there = |partition| Path::exists(&stores(&cluster, partition));
    assert!((0..PARTITIONS).all(is_there));
    // Neither the first time nor the second.
    assert!(why_it_stops(&cluster).contains("last copy"));
}

/// Brokers forget the positions of groups that had no members for long. To begin at the start of
/// the topics would count again what is counted.
#[test]
fn positions_that_are_gone_stop_the_instance() {
    let cluster = Cluster::new("no-positions");
    count_once(&cluster, "w1");
    let groups = ["words", "resets"].map(|name| format!("{}-{name}-group", cluster.application()));
    for is_empty in [false, true] {
        for group in &groups {
            eventually("the group has no members", LIMIT, || {
                cluster.delete_group(group)
            });
        }
        if is_empty {
            // All of it is restored first.
            cluster.lose_state("a");
        }
        let reason = why_it_stops(&cluster);
        assert!(
            groups.iter().all(|group| reason.contains(group)),
            "{reason}"
        );
        assert!(reason.contains("offsets.retention.minutes"), "{reason}");
    }
    let words = format!("{}-words", cluster.application());
    cluster.move_group(&groups[0], &words, |partition| {
        cluster.end(&words, partition).0
    });
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "x");
    let counted = |count: &str| ("w1".to_owned(), count.to_owned());
    assert_eq!(
        cluster.read_committed(&counting.counts(), 2),
        [counted("1"), counted("2")]
    );
    counting.stop();
}

/// A topic that was made anew ends before the positions of its groups: its records are not
/// passed over until it has grown as long as the old one was.
#[test]
fn a_log_that_ends_before_its_position_stops_the_instance() {
    let cluster = Cluster::new("anew");
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "x");
    cluster.read_committed(&counting.counts(), 1);
    let (group, topic) = (counting.group("words"), counting.words());
    counting.stop();
    cluster.move_group(&group, &topic, |_| 1_000);
    let reason = why_it_stops(&cluster);
    assert!(reason.contains(&format!("{topic}-")), "{reason}");
    assert!(reason.contains("up to offset 1000"), "{reason}");
}

/// What retention removes before it is read nobody can read: the instance goes on with what is there.
#[test]
fn records_that_were_removed_are_passed_over() {
    let cluster = Cluster::new("removed");
    count_once(&cluster, "w1");
    let topic = format!("{}-words", cluster.application());
    for word in ["w2", "w3", "w4"] {
        cluster.send_to(&topic, 0, word, "x");
    }
    cluster.flush();
    cluster.delete_before(&topic, 0, cluster.end(&topic, 0).0 - 1);
    let counting = Counting::start(&cluster, "a");
    let counts = cluster.read_committed(&counting.counts(), 2);
    assert_eq!(counts.len(), 2, "{counts:?}");
    assert_eq!(counts[1], ("w4".to_owned(), "1".to_owned()));
    counting.stop();
}

/// A topic that is deleted while it is read, or made anew with another number of partitions, stops the
/// instance: it would go on without the tasks of the partitions that are gone, or with keys that belong to
/// others.
#[test]
fn a_topic_that_is_not_what_it_was_stops_the_instance() {
    let cluster = Cluster::new("deleted");
    let counting = Counting::start(&cluster, "a");
    cluster.delete_topic(&counting.words());
    let reason = counting.why_it_stops();
    assert!(
        reason.contains(&format!("{} is gone", counting.words())),
        "{reason}"
    );
    assert!(counting.is_misconfigured());
    counting.stop();

    let cluster = Cluster::new("fewer");
    let counting = Counting::start(&cluster, "a");
    cluster.delete_topic(&counting.resets());
    cluster.create_topic(&counting.resets(), 1);
    let reason = counting.why_it_stops();
    let told = format!("{} has 1 partitions now", counting.resets());
    assert!(reason.contains(&told), "{reason}");
    counting.stop();
}

/// The topic of the announcements can be lost alone: that the application has run is seen by its
/// changelog, and its stores are as they were.
#[test]
fn an_application_whose_announcements_are_lost_goes_on() {
    let cluster = Cluster::new("unannounced");
    let counting = Counting::start(&cluster, "a");
    cluster.send(&counting.words(), "w1", "x");
    cluster.read_committed(&counting.counts(), 1);
    counting.stop();
    cluster.delete_topic(&format!("{}-instances", cluster.application()));
    let counting = Counting::start(&cluster, "a");
    assert_eq!(counting.stored("w1"), Some(1));
    cluster.send(&counting.words(), "w1", "x");
    assert_eq!(
        cluster.read_committed(&counting.counts(), 2),
        [
            ("w1".to_owned(), "1".to_owned()),
            ("w1".to_owned(), "2".to_owned())
        ]
    );
    counting.stop();
}
