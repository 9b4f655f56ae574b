mod entry;
mod former_members;

use std::collections::BTreeMap;

use turnstile_state::{Backend, MemoryBackend};

use super::*;
use crate::runtime::QueryError;
use crate::runtime::status::ThreadReport;
use crate::{Store, TaskStatus, quiet};

/// Instance `a`, and a store of its only task.
struct Fixture {
    cluster: Cluster,
    queries: Queries,
    rows: Store<String, u64>,
    backend: Arc<dyn Backend>,
}

/// Its stream thread counts as stuck when it has said nothing for as long as `patience`.
fn fixture(patience: Duration) -> Fixture {
    fixture_at(None, patience)
}

/// The same, announced at this address.
fn fixture_at(address: Option<&str>, patience: Duration) -> Fixture {
    let (plan, stores) = quiet::plan(&[("topic", 1, &["rows"])]);
    let backend = Arc::new(MemoryBackend::new(&plan.subtopologies[0].store_specs()));
    let mut config = StreamsConfig::new("app", "localhost:1", "a", "state");
    config.advertised_address = address.map(str::to_owned);
    let queries = Queries::new(plan.clone());
    let board = StatusBoard::new(1, patience);
    board.set_thread(0, ThreadReport::default());
    Fixture {
        cluster: Cluster::new(&config, &plan, queries.clone(), board),
        queries,
        rows: stores[0],
        backend,
    }
}

const PATIENCE: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);

fn task() -> TaskId {
    "0_0".parse().unwrap()
}

/// What a process of `name` says: that it has run the task since then, or does not run it.
fn says(name: &str, started: i64, since: Option<TimestampMs>) -> Announcement {
    Announcement {
        version: Announcement::VERSION,
        instance: name.to_owned(),
        started: TimestampMs(started),
        said: clock::now(),
        phase: InstancePhase::Running,
        address: None,
        threads: 1,
        session_timeout_ms: 10_000,
        topology: String::new(),
        tasks: since
            .map(|since| Claim {
                task: task(),
                since,
            })
            .into_iter()
            .collect(),
        standbys: Vec::new(),
        partitions: BTreeMap::new(),
        former_members: None,
    }
}

impl Fixture {
    fn run(&self) {
        self.queries.set_running(task(), self.backend.clone());
    }

    fn hear(&self, said: Announcement) {
        self.hear_at(said, Instant::now());
    }

    fn hear_at(&self, mut said: Announcement, heard: Instant) {
        let name = said.instance.clone();
        said.topology = self.cluster.shared.own.topology.clone();
        self.cluster.hear(&name, Some(said), heard, true);
    }

    fn hear_itself(&self) {
        self.hear(self.cluster.announcement());
    }

    /// Whether its rows are answered here.
    fn answers(&self) -> bool {
        match self.queries.get(self.rows, "a", &"a".to_owned()) {
            Ok(row) => {
                assert_eq!(row, None);
                true
            }
            Err(QueryError::NotRunning { status, .. }) => {
                assert_eq!(status, TaskStatus::Suspended);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn owner(&self) -> Option<String> {
        let owner = self.cluster.owner(task());
        owner.map(|of| of.instance.to_string())
    }

    fn problems(&self) -> String {
        self.cluster.problems().join("\n")
    }
}

#[test]
fn what_a_neighbour_runs_since_is_not_answered_here_until_it_takes_that_back() {
    let fixture = fixture(PATIENCE);
    fixture.run();
    fixture.hear_itself();
    let before = TimestampMs(clock::now().0 - 60_000);
    fixture.hear(says("b", 1, Some(before)));
    assert!(fixture.answers());
    assert_eq!(fixture.owner().as_deref(), Some("a"));
    assert_eq!(fixture.problems(), "");

    // The stream thread says nothing, and this thread still hears itself.
    let since = clock::now().plus(MINUTE);
    fixture.hear(says("b", 1, Some(since)));
    fixture.hear_itself();
    assert!(!fixture.answers());
    assert_eq!(fixture.owner().as_deref(), Some("b"));
    let problems = fixture.problems();
    assert!(
        problems.contains("task 0_0") && problems.contains("instance b"),
        "{problems}"
    );

    fixture.hear(says("b", 1, None));
    assert!(fixture.answers());
    assert_eq!(fixture.owner().as_deref(), Some("a"));
    assert_eq!(fixture.problems(), "");
}

#[test]
fn what_a_neighbour_has_run_is_not_answered_here_when_it_is_lost_or_begins_anew() {
    let fixture = fixture(PATIENCE);
    fixture.run();
    fixture.hear_itself();
    let said = says("b", 1, Some(clock::now().plus(MINUTE)));
    let long_ago = Instant::now().checked_sub(MINUTE).unwrap();
    fixture.hear_at(said, long_ago);
    // Nobody takes it for the owner any more; but what it wrote is not here.
    assert_eq!(fixture.owner().as_deref(), Some("a"));
    assert!(!fixture.answers());
    fixture.hear(says("b", 2, None));
    assert!(!fixture.answers());
    // It is, once it has been restored.
    fixture.run();
    assert!(fixture.answers());
}

#[test]
fn a_thread_that_is_stuck_does_not_get_its_tasks_back() {
    let fixture = fixture(Duration::ZERO);
    fixture.run();
    fixture.hear(says("b", 1, Some(clock::now().plus(MINUTE))));
    std::thread::sleep(Duration::from_millis(1));
    // Its tasks may have moved on to a third one, which has not said so yet.
    fixture.hear(says("b", 1, None));
    assert!(!fixture.answers());
}

#[test]
fn a_later_process_of_the_same_name_is_another() {
    let fixture = fixture(PATIENCE);
    fixture.run();
    let started = fixture.cluster.announcement().started.0;
    let since = clock::now().plus(MINUTE);
    fixture.hear(says("a", started + 1, Some(since)));
    assert!(!fixture.answers());
    // And an earlier one is ignored while that one lives.
    fixture.hear(says("a", started - 1, Some(since.plus(MINUTE))));
    fixture.run();
    assert!(fixture.answers());
    assert_eq!(
        fixture.queries.claims().get(&task()),
        Some(&TimestampMs(since.0 + 1))
    );
}

#[test]
fn who_takes_a_task_over_is_its_owner_whatever_the_clock_of_the_one_before() {
    let fixture = fixture(PATIENCE);
    let since = clock::now().plus(60 * MINUTE);
    fixture.hear(says("b", 1, Some(since)));
    fixture.run();
    fixture.hear_itself();
    // It hangs, and has not noticed yet.
    fixture.hear(says("b", 1, Some(since)));
    assert!(fixture.answers());
    assert_eq!(fixture.owner().as_deref(), Some("a"));
}

#[test]
fn an_address_is_for_one_instance_and_the_later_one_says_so() {
    let own_address = "host:8080";
    let says_at = |name: &str, started: i64, address: Option<&str>| Announcement {
        address: address.map(str::to_owned),
        ..says(name, started, None)
    };
    let fixture = fixture_at(Some(own_address), PATIENCE);
    fixture.hear_itself();
    let later = clock::now().plus(MINUTE).0;
    fixture.hear(says_at("a-later-one", later, Some(own_address)));
    fixture.hear(says_at("elsewhere", 1, Some("host:8081")));
    fixture.hear(says_at("nowhere", 1, None));
    assert_eq!(fixture.problems(), "");

    fixture.hear(says_at("b", 1, Some(own_address)));
    let problems = fixture.problems();
    for part in ["instance b ", own_address, "advertised address"] {
        assert!(problems.contains(part), "{problems}");
    }

    // It has stopped, was moved, or is lost.
    let mut stopped = says_at("b", 1, Some(own_address));
    stopped.phase = InstancePhase::Stopped;
    fixture.hear(stopped);
    assert_eq!(fixture.problems(), "");
    fixture.hear(says_at("b", 2, Some("host:8082")));
    assert_eq!(fixture.problems(), "");
    let long_ago = Instant::now().checked_sub(MINUTE).unwrap();
    fixture.hear_at(says_at("b", 3, Some(own_address)), long_ago);
    assert_eq!(fixture.problems(), "");

    // An instance without an address shares none.
    let unannounced = fixture_at(None, PATIENCE);
    unannounced.hear_itself();
    unannounced.hear(says_at("b", 1, None));
    assert_eq!(unannounced.problems(), "");
}

#[test]
fn who_was_cut_off_forgets_nobody_before_it_has_heard_what_was_said_meanwhile() {
    let days = MINUTE * 60 * 48;
    let fixture = fixture(PATIENCE);
    let begun = Instant::now();
    let forgotten = || {
        let names = fixture.cluster.to_forget(begun).into_iter();
        names.map(|name| name.to_string()).collect::<Vec<_>>()
    };
    fixture.hear_at(says("b", 1, None), begun);
    assert_eq!(forgotten(), [""; 0]);
    // It reads its own announcements of that time first; those of the others come after them.
    let later = begun + days;
    let mut own = fixture.cluster.announcement();
    own.said = TimestampMs(own.said.0 - i64::try_from(days.as_millis()).unwrap());
    fixture.hear_at(own, later);
    assert_eq!(forgotten(), [""; 0]);
    fixture.hear_at(fixture.cluster.announcement(), later);
    assert_eq!(forgotten(), ["b"]);
    fixture.cluster.hear("b", None, later, true);
    assert_eq!(forgotten(), [""; 0]);
}

#[test]
fn who_is_forgotten_is_not_fenced_any_more() {
    let fixture = fixture(PATIENCE);
    let long_ago = Instant::now().checked_sub(MINUTE).unwrap();
    fixture.hear_at(says("b", 1, Some(TimestampMs(1))), long_ago);
    let silent = fixture.cluster.silent_owners(&[task()]);
    assert_eq!(silent.len(), 1);
    assert!(fixture.cluster.is_silent(&silent[0]));
    fixture.cluster.hear("b", None, Instant::now(), true);
    assert!(!fixture.cluster.is_silent(&silent[0]));
    assert!(fixture.cluster.silent_owners(&[task()]).is_empty());
}
