//! What is between two commits: invisible until the commit, gone after an abort or a crash.

use std::time::Duration;

use proptest::prelude::*;
use turnstile_engine::task::TaskError;
use turnstile_engine::{ErrorPolicy, Partition, TopologyTestDriver};
use turnstile_state::{ChangelogRecord, StoreTag};

use super::script::{Committed, Handles, committed, driver, pipe, sent, topology};

#[test]
fn nothing_is_seen_before_the_commit() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    let untouched = committed(&driver, handles);
    pipe(&mut driver, "add a 1; set t 5; send a one");
    pipe(&mut driver, "reject");
    while driver.step(0).unwrap() {}
    assert_eq!(committed(&driver, handles), untouched);
    assert!(driver.all(&driver.internal("stores-changelog")).is_empty());
    driver.commit();
    assert_eq!(sent(&mut driver), ["main one"]);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 1)]);
    assert_eq!(driver.timers("main").len(), 1);
    assert_eq!(driver.all(&driver.internal("dlq")).len(), 1);
    // A sum and a timer.
    assert_eq!(driver.all(&driver.internal("stores-changelog")).len(), 2);
}

#[test]
fn a_transaction_reads_its_own_writes() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    for _ in 0..3 {
        pipe(&mut driver, "add a 1");
    }
    driver.run().unwrap();
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 3)]);
    // One record a key and transaction.
    assert_eq!(driver.all(&driver.internal("stores-changelog")).len(), 1);
}

/// Two ways to lose what is uncommitted.
const LOSSES: [fn(&mut TopologyTestDriver); 2] = [TopologyTestDriver::abort, |driver| {
    driver.crash_and_restore().expect("changelogs are readable");
}];

#[test]
fn what_was_lost_comes_again_and_gives_the_same() {
    let scripts = [
        "add a 1; set t 5; send a one",
        "reject",
        "unset t; set u 6; put k v",
    ];
    let (mut undisturbed, handles) = driver(ErrorPolicy::DeadLetter);
    for script in scripts {
        pipe(&mut undisturbed, script);
    }
    undisturbed.run().unwrap();
    let expected = committed(&undisturbed, handles);
    for lose in LOSSES {
        let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
        for script in scripts {
            pipe(&mut driver, script);
        }
        let untouched = committed(&driver, handles);
        while driver.step(0).unwrap() {}
        lose(&mut driver);
        assert_eq!(committed(&driver, handles), untouched);
        assert!(driver.step(0).unwrap(), "the records come again");
        lose(&mut driver);
        driver.run().unwrap();
        assert_eq!(committed(&driver, handles), expected);
    }
}

#[test]
fn what_follows_the_begin_of_a_commit_is_of_the_next_one() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    let untouched = committed(&driver, handles);
    pipe(&mut driver, "add a 1; set t 5; send a one");
    assert!(driver.step(0).unwrap());
    driver.begin_commit();
    // It builds on what is not committed yet.
    pipe(&mut driver, "add a 1; unset t; send a two");
    assert!(driver.step(0).unwrap());
    assert_eq!(committed(&driver, handles), untouched);
    driver.finish_commit();
    assert_eq!(sent(&mut driver), ["main one"]);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 1)]);
    assert_eq!(driver.timers("main").len(), 1);
    driver.commit();
    assert_eq!(sent(&mut driver), ["main two"]);
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 2)]);
    assert_eq!(driver.timers("main"), []);
}

/// The later transaction is lost always, the earlier only before its commit is finished.
#[test]
fn nothing_is_kept_without_what_it_builds_on() {
    let scripts = [
        "add a 1; set t 5; send a one",
        "add a 1; set t 6; send a two",
    ];
    let after = |number: usize| {
        let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
        for script in scripts.iter().take(number) {
            pipe(&mut driver, script);
            assert!(driver.step(0).unwrap());
            driver.commit();
        }
        committed(&driver, handles)
    };
    for (lose, is_finished) in LOSSES
        .into_iter()
        .flat_map(|lose| [(lose, false), (lose, true)])
    {
        let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
        pipe(&mut driver, scripts[0]);
        assert!(driver.step(0).unwrap());
        driver.begin_commit();
        pipe(&mut driver, scripts[1]);
        assert!(driver.step(0).unwrap());
        if is_finished {
            driver.finish_commit();
        }
        lose(&mut driver);
        assert_eq!(committed(&driver, handles), after(usize::from(is_finished)));
        while driver.step(0).unwrap() {
            driver.commit();
        }
        assert_eq!(committed(&driver, handles), after(2));
    }
}

#[test]
fn a_timer_that_fired_in_a_lost_transaction_fires_again() {
    for lose in LOSSES {
        let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
        pipe(&mut driver, "set t 5");
        driver.run().unwrap();
        driver.set_now(driver.now().plus(Duration::from_millis(5)));
        assert!(driver.fire_due().unwrap());
        lose(&mut driver);
        assert_eq!(sent(&mut driver), [""; 0]);
        assert_eq!(driver.timers("main").len(), 1);
        driver.run().unwrap();
        assert_eq!(sent(&mut driver), ["fired t 0 ms late"]);
        driver.run().unwrap();
        assert_eq!(sent(&mut driver), [""; 0]);
    }
}

#[test]
fn stores_are_restored_from_changelogs_and_nothing_else() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, "add a 1; add b 2; put k v");
    driver.run().unwrap();
    // Nobody but the task writes a changelog; so what only stands there shows where a restore reads.
    let changelog = driver.internal("stores-changelog");
    let record = |key: &'static [u8], value| ChangelogRecord {
        store: StoreTag::of("sums"),
        key,
        value,
    };
    let rows = driver.all(&changelog);
    let b = record(b"b", None).encode_key();
    let row = rows.iter().find(|row| row.key.as_deref() == Some(&b));
    let row = row.expect("a row was written").clone();
    let deleted = record(b"a", None).encode_key();
    driver.pipe_to(&changelog, Partition(0), Some(&deleted), None, &[]);
    let put = record(b"c", None).encode_key();
    driver.pipe_to(
        &changelog,
        Partition(0),
        Some(&put),
        row.value.as_deref(),
        &[],
    );
    // What a store wrote that the topology does not have any more.
    let gone = ChangelogRecord {
        store: StoreTag::of("gone"),
        ..record(b"a", Some(b"1"))
    };
    driver.pipe_to(
        &changelog,
        Partition(0),
        Some(&gone.encode_key()),
        gone.encode_value().as_deref(),
        &[],
    );
    driver.crash_and_restore().unwrap();
    assert_eq!(
        driver.entries(handles.sums),
        [("b".to_owned(), 2), ("c".to_owned(), 2)]
    );
}

#[test]
fn a_changelog_record_that_no_task_wrote_is_an_error() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    let changelog = driver.internal("stores-changelog");
    let timer = ChangelogRecord {
        store: StoreTag::of("main-timers"),
        key: b"short",
        value: None,
    };
    let key = timer.encode_key();
    driver.pipe_to(&changelog, Partition(0), Some(&key), None, &[]);
    assert!(driver.crash_and_restore().is_err());
}

/// What can happen to an application.
#[derive(Debug, Clone)]
enum Step {
    Pipe(String, &'static str),
    Process(usize),
    FireDue,
    Commit,
    Wait(u16),
    Abort,
    Crash,
}

fn command() -> impl Strategy<Value = String> {
    let key = "[ab]";
    prop_oneof![
        4 => (key, 1..9_u8).prop_map(|(key, n)| format!("add {key} {n}")),
        1 => (key, 1..9_u8).prop_map(|(key, n)| format!("put {key} {n}")),
        1 => key.prop_map(|key| format!("drop {key}")),
        3 => (key, 1..9_u8).prop_map(|(key, n)| format!("send {key} {n}")),
        4 => ("[t-v]", 0..300_u16).prop_map(|(key, ms)| format!("set {key} {ms}")),
        2 => "[t-v]".prop_map(|key| format!("unset {key}")),
        2 => ("[t-v]", key, "[t-v]", 1..90_u8)
            .prop_map(|(timer, row, other, ms)| format!("on {timer} add {row} 1, set {other} {ms}")),
        2 => ("[t-v]", "[t-v]").prop_map(|(timer, other)| format!("on {timer} unset {other}")),
        1 => Just("reject".to_owned()),
    ]
}

fn script() -> impl Strategy<Value = String> {
    let parts = |separator| {
        prop::collection::vec(command(), 1..4).prop_map(move |c: Vec<String>| c.join(separator))
    };
    // A timer's own script is parted by commas, so it cannot be forwarded.
    let plain =
        "[ab]".prop_map(|key| format!("add {key} 1, set t 40, pass add {key} 1 + send {key} last"));
    prop_oneof![
        5 => parts(";"),
        2 => (parts(";"), plain).prop_map(|(first, rest)| format!("{first}; pass {rest}")),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (script(), prop::sample::select(vec!["x", "y", "z"])).prop_map(|(script, key)| Step::Pipe(script, key)),
        8 => (0..9_usize).prop_map(Step::Process),
        3 => Just(Step::FireDue),
        3 => Just(Step::Commit),
        3 => (0..200_u16).prop_map(Step::Wait),
        1 => Just(Step::Abort),
        2 => Just(Step::Crash),
    ]
}

fn open(partitions: i32) -> (TopologyTestDriver, Handles) {
    let (topology, handles) = topology(ErrorPolicy::DeadLetter);
    let driver =
        TopologyTestDriver::new(topology, partitions).expect("the topology fits its topics");
    (driver, handles)
}

fn wait(driver: &mut TopologyTestDriver, ms: u16) {
    driver.set_now(driver.now().plus(Duration::from_millis(u64::from(ms))));
}

/// Commits at [`Step::Commit`] and [`Step::Wait`] all there is to do then; with
/// `losses`, what is done in between is lost each time.
fn run_to_each_commit(steps: &[Step], losses: bool) -> Result<Committed, TaskError> {
    let (mut driver, handles) = open(2);
    for step in steps {
        match step {
            Step::Pipe(script, key) => {
                driver.pipe("scripts", Some(key), Some(script.as_bytes()));
            }
            Step::Process(choice) if losses => drop(driver.step(*choice)?),
            Step::FireDue if losses => drop(driver.fire_due()?),
            Step::Abort if losses => driver.abort(),
            Step::Crash if losses => driver.crash_and_restore()?,
            Step::Commit | Step::Wait(_) => {
                driver.abort();
                driver.run()?;
                if let Step::Wait(ms) = step {
                    wait(&mut driver, *ms);
                    driver.run()?;
                }
            }
            Step::Process(_) | Step::FireDue | Step::Abort | Step::Crash => {}
        }
    }
    driver.abort();
    driver.run()?;
    Ok(committed(&driver, handles))
}

/// Time stands still and records have one order: where transactions end, and how, changes nothing.
fn run_in_transactions(steps: &[Step], transactions: bool) -> Result<Committed, TaskError> {
    let (mut driver, handles) = open(1);
    for step in steps {
        match step {
            Step::Pipe(script, key) => {
                driver.pipe("scripts", Some(key), Some(script.as_bytes()));
            }
            Step::Process(_) => drop(driver.step(0)?),
            Step::Abort if transactions => driver.abort(),
            Step::Crash if transactions => driver.crash_and_restore()?,
            Step::Commit if transactions => driver.commit(),
            Step::FireDue | Step::Commit | Step::Abort | Step::Crash | Step::Wait(_) => {}
        }
    }
    driver.run()?;
    Ok(committed(&driver, handles))
}

/// Takes every step; with `crashes`, each commit is followed by a crash.
fn run_all(steps: &[Step], crashes: bool) -> Result<Committed, TaskError> {
    let (mut driver, handles) = open(2);
    for step in steps {
        match step {
            Step::Pipe(script, key) => {
                driver.pipe("scripts", Some(key), Some(script.as_bytes()));
            }
            Step::Process(choice) => drop(driver.step(*choice)?),
            Step::FireDue => drop(driver.fire_due()?),
            Step::Wait(ms) => wait(&mut driver, *ms),
            Step::Abort => driver.abort(),
            Step::Crash | Step::Commit => {
                driver.commit();
                if crashes {
                    driver.crash_and_restore()?;
                }
            }
        }
    }
    driver.run()?;
    Ok(committed(&driver, handles))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_is_lost_is_done_again(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(
            run_to_each_commit(&steps, true).unwrap(),
            run_to_each_commit(&steps, false).unwrap()
        );
    }

    #[test]
    fn where_transactions_end_changes_nothing(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(
            run_in_transactions(&steps, true).unwrap(),
            run_in_transactions(&steps, false).unwrap()
        );
    }

    #[test]
    fn a_restored_task_goes_on_as_if_nothing_had_happened(steps in prop::collection::vec(step(), 1..60)) {
        prop_assert_eq!(run_all(&steps, true).unwrap(), run_all(&steps, false).unwrap());
    }
}
