//! Whether an instance takes the place of the members that a process before it has left behind.

use super::*;

const OTHER: &str = "another topology";
const SESSION: Duration = Duration::from_secs(10);

impl Fixture {
    /// Hears what was said under its own name before it started, so long ago.
    fn hear_of_before(&self, mut said: Announcement, ago: Duration) {
        said.said = TimestampMs(said.said.0 - i64::try_from(ago.as_millis()).unwrap());
        let heard = Instant::now().checked_sub(ago).unwrap();
        self.cluster.hear("a", Some(said), heard, false);
    }

    /// What it leaves to the next process, which hears it at once.
    fn restart(self) -> Self {
        let mut said = self.cluster.announcement();
        said.started = TimestampMs(said.started.0 - 1);
        let next = fixture(PATIENCE);
        next.hear_of_before(said, Duration::ZERO);
        next
    }
}

fn of_topology(topology: &str, phase: InstancePhase) -> Announcement {
    Announcement {
        phase,
        topology: topology.to_owned(),
        ..says("a", 1, None)
    }
}

#[test]
fn members_of_another_topology_are_waited_for_until_their_session_has_ended() {
    for phase in [InstancePhase::Running, InstancePhase::Stopped] {
        let fixture = fixture(PATIENCE);
        assert!(fixture.cluster.may_join());
        fixture.hear_of_before(of_topology(OTHER, phase), SESSION);
        assert!(!fixture.cluster.may_join());
        let left = fixture.cluster.until_former_members_end().unwrap();
        assert!(left < end_of(SESSION) - SESSION, "{left:?}");
        let problems = fixture.problems();
        assert!(problems.contains("the process before"), "{problems}");

        fixture.hear_of_before(of_topology(OTHER, phase), end_of(SESSION));
        assert!(fixture.cluster.may_join());
        assert_eq!(fixture.problems(), "");
    }
}

#[test]
fn the_session_is_that_of_the_members_themselves() {
    let fixture = fixture(PATIENCE);
    let mut said = of_topology(OTHER, InstancePhase::Stopped);
    said.session_timeout_ms = 60_000;
    fixture.hear_of_before(said.clone(), end_of(SESSION));
    assert!(!fixture.cluster.may_join());
    said.session_timeout_ms = u64::MAX;
    fixture.hear_of_before(said, MINUTE);
    assert!(!fixture.cluster.may_join());
}

#[test]
fn members_of_the_same_topology_are_replaced_at_once() {
    let fixture = fixture(PATIENCE);
    let same = fixture.cluster.shared.own.topology.clone();
    for phase in [InstancePhase::Running, InstancePhase::Stopped] {
        fixture.hear_of_before(of_topology(&same, phase), Duration::ZERO);
        assert!(fixture.cluster.may_join());
    }
    // One that has not joined has left nothing.
    let joining = of_topology(OTHER, InstancePhase::Joining);
    fixture.hear_of_before(joining, Duration::ZERO);
    assert!(fixture.cluster.may_join());
}

#[test]
fn what_was_left_behind_is_not_forgotten_in_restarts_before_it_joins() {
    let fixture = fixture(PATIENCE);
    let mut said = of_topology(OTHER, InstancePhase::Running);
    said.session_timeout_ms = 60_000;
    fixture.hear_of_before(said, SESSION);
    let fixture = fixture.restart();
    assert!(!fixture.cluster.may_join());
    let left = fixture.cluster.until_former_members_end().unwrap();
    assert!(left <= end_of(MINUTE) - SESSION, "{left:?}");
    // One that stops before it has joined leaves nothing of its own.
    fixture.cluster.stop();
    let fixture = fixture.restart();
    assert!(!fixture.cluster.may_join());

    // Once it has joined, the members are its own.
    fixture.cluster.begin_to_enter();
    fixture.hear_itself();
    let fixture = fixture.restart();
    assert!(fixture.cluster.may_join());
}
