//! Other topologies in the groups: who joins when, and what is assigned then.

use std::time::Duration;

use crate::application::{Counting, Release};
use crate::cluster::{Cluster, eventually, has_assignment};

const LIMIT: Duration = Duration::from_secs(60);

/// The members of a process are still in the groups when the next one starts, and a group does not
/// assign anew when they are replaced.
#[test]
fn a_topic_that_a_release_adds_to_a_group_is_read_after_a_quick_restart() {
    let cluster = Cluster::new("more-topics");
    let before = Counting::start(&cluster, "a");
    before.stop();
    let after = Counting::launch_release(&cluster, "a", Release::Letters);
    after.wait_until_ready("a");
    assert_eq!(after.running(), after.tasks());
    for n in 0..20 {
        cluster.send(&after.letters(), &format!("w{n}"), "x");
    }
    let counts = cluster.read_committed(&after.counts(), 20);
    assert!(counts.iter().all(|(_, count)| count == "1"), "{counts:?}");
    after.stop();
}

/// Nothing is known of the process that left its members, as when the announcements are lost.
#[test]
fn a_member_that_is_given_what_it_does_not_read_joins_again() {
    let cluster = Cluster::new("fewer-topics");
    let elsewhere = format!("{}-elsewhere", cluster.application());
    cluster.create_topic(&elsewhere, 4);
    let group = format!("{}-words-group", cluster.application());
    let former = cluster.usurper(&group, "a-0", &elsewhere);
    eventually("it is a member", LIMIT, || {
        former.poll(Duration::ZERO);
        has_assignment(&former)
    });
    drop(former);
    let counting = Counting::start(&cluster, "a");
    assert!(counting.rejoins() > 0.0, "nothing of the former member");
    cluster.send(&counting.words(), "w1", "x");
    assert_eq!(
        cluster.read_committed(&counting.counts(), 1),
        [("w1".to_owned(), "1".to_owned())]
    );
    counting.stop();
}
