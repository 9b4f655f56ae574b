//! Instances come, go, freeze and come back, under load and without anyone noticing.
//!
//! Every test has load running all the time and callers that ask for keys of all
//! partitions, prints what they saw as one row of a table, and ends in the outside check
//! of the topics. Times are printed, not asserted: they are the machine's as well.

mod broker_trouble;
mod brokers_in_turn;
mod misfits;
mod probe;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::crash::verify;
use crate::instance::{Instance, Launch};
use crate::load::Load;
use crate::{eventually, pause};

use probe::{Probe, Seen};

/// How long things are let run before and after an event.
const CALM: Duration = Duration::from_secs(3);
/// More tickets than any test sends.
const ENOUGH: usize = 100_000;

/// One row of the table that `./dev failover` makes.
fn report(event: &str, seen: &Seen, restored: u64, taken_over: Duration) {
    println!(
        "FAILOVER| {event} | {} | {} | {restored} | {} | {} |",
        seen.reads.as_millis(),
        seen.commands.as_millis(),
        taken_over.as_millis(),
        seen.come_again + seen.pending,
    );
    assert_eq!(seen.failures, [""; 0]);
}

fn launch<'b>(broker: &'b Broker, id: &str) -> Launch<'b> {
    Launch::new(broker, id).set("ORDER_TTL", "4s")
}

/// Waits until these have all tasks between them, each at least one, and none twice.
fn shared_by(instances: &[&Instance], all: &BTreeSet<String>) {
    eventually("the tasks are shared", || {
        let of_each: Vec<BTreeSet<String>> = instances.iter().map(|of| of.running()).collect();
        let count: usize = of_each.iter().map(BTreeSet::len).sum();
        let union: BTreeSet<String> = of_each.iter().flatten().cloned().collect();
        let everyone = of_each.iter().all(|tasks| !tasks.is_empty());
        (everyone && count == all.len() && union == *all).then_some(())
    });
}

/// Waits until what each has standbys of is up to date.
fn standbys_follow(instances: &[&Instance]) {
    eventually("standbys are up to date", || {
        let cluster = instances[0].client().get("/cluster").ok(200);
        let known = cluster["instances"].as_array().cloned().unwrap_or_default();
        let standbys: Vec<_> = known
            .iter()
            .filter_map(|of| of["standbys"].as_array())
            .flatten()
            .collect();
        let fresh = |standby: &&serde_json::Value| standby["stale_ms"].as_u64().is_some();
        (known.len() == instances.len() && !standbys.is_empty() && standbys.iter().all(fresh))
            .then_some(())
    });
}

/// Changelog records that were restored before tasks ran, on these instances.
fn restored(instances: &[&Instance]) -> u64 {
    let of_one = |instance: &&Instance| -> u64 {
        let metrics = instance.client().get("/metrics");
        let lines = metrics.text.lines();
        let counts = lines.filter(|line| line.starts_with("turnstile_restored_records_total"));
        counts
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    };
    instances.iter().map(of_one).sum()
}

/// Runs `scene` under load, then checks the topics.
fn under_load(broker: &Broker, scene: impl FnOnce()) {
    let enough = AtomicBool::new(false);
    let tickets = std::thread::scope(|threads| {
        let load = Load::new(broker, "crash", ENOUGH);
        let load = threads.spawn(|| load.send(Duration::from_millis(15), &enough));
        // However this ends, the load ends too.
        let stop = SetOnDrop(&enough);
        scene();
        drop(stop);
        load.join().expect("the load is sent")
    });
    println!("{} tickets were raced for", tickets.len());
    verify(broker, &tickets);
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Three instances that share all tasks, their standbys up to date.
fn three(broker: &Broker) -> ([Instance; 3], BTreeSet<String>) {
    let a = launch(broker, "a").start();
    let all = a.running();
    let others = ["b", "c"].map(|id| launch(broker, id).spawn());
    let [mut b, mut c] = others;
    b.wait_until_ready();
    c.wait_until_ready();
    shared_by(&[&a, &b, &c], &all);
    standbys_follow(&[&a, &b, &c]);
    ([a, b, c], all)
}

#[test]
fn one_of_three_is_killed_and_comes_back() {
    let broker = Broker::take();
    let ([a, b, c], all) = three(&broker);
    let mut probe = Probe::new(&[&a, &b, &c]);
    let mut back = None;
    under_load(&broker, || {
        pause(CALM * 2);
        probe.start();
        let before = restored(&[&a, &c]);
        let begun = Instant::now();
        b.kill();
        shared_by(&[&a, &c], &all);
        let took = begun.elapsed();
        let tail = restored(&[&a, &c]) - before;
        pause(CALM);
        report("`kill -9` of one of three", &probe.finish(), tail, took);
        // Some thousand changelog records were written by then.
        assert!(tail < 3_000, "{tail} records were restored");

        probe.targets().set(&[&a, &c]);
        probe.start();
        let before = restored(&[&a, &c]);
        let begun = Instant::now();
        let b = launch(&broker, "b").start();
        shared_by(&[&a, &b, &c], &all);
        let took = begun.elapsed();
        let tail = restored(&[&a, &b, &c]) - before;
        pause(CALM);
        report("it comes back", &probe.finish(), tail, took);
        assert!(tail < 3_000, "{tail} records were restored by members");
        back = Some(b);
    });
    for instance in [Some(a), back, Some(c)].into_iter().flatten() {
        instance.stop();
    }
}

#[test]
fn a_fourth_instance_joins_three() {
    let broker = Broker::take();
    let ([a, b, c], all) = three(&broker);
    let mut probe = Probe::new(&[&a, &b, &c]);
    let mut joined = None;
    under_load(&broker, || {
        pause(CALM * 2);
        probe.start();
        let before = restored(&[&a, &b, &c]);
        let begun = Instant::now();
        let d = launch(&broker, "d").start();
        shared_by(&[&a, &b, &c, &d], &all);
        let took = begun.elapsed();
        let tail = restored(&[&a, &b, &c, &d]) - before;
        pause(CALM);
        report("a fourth instance joins", &probe.finish(), tail, took);
        assert!(tail < 3_000, "{tail} records were restored by members");
        joined = Some(d);
    });
    for instance in [Some(a), Some(b), Some(c), joined].into_iter().flatten() {
        instance.stop();
    }
}

#[test]
fn a_rolling_restart_moves_nothing() {
    let broker = Broker::take();
    // Long enough for a restart on a machine that is busy with other things.
    let launch = |id: &str| launch(&broker, id).set("SESSION_TIMEOUT", "20s");
    let mut instances = vec![launch("a").start()];
    let all = instances[0].running();
    instances.extend(["b", "c"].map(|id| launch(id).start()));
    shared_by(&[&instances[0], &instances[1], &instances[2]], &all);
    let revoked = |instances: &[Instance]| -> usize {
        let logs = instances.iter().map(Instance::log);
        logs.map(|log| log.matches("partitions are revoked").count())
            .sum()
    };
    let mut probe = Probe::new(&[&instances[0], &instances[1], &instances[2]]);
    under_load(&broker, || {
        pause(CALM);
        probe.start();
        let mut took = Duration::ZERO;
        let mut records = 0;
        for id in ["a", "b", "c"] {
            let begun = Instant::now();
            let before = revoked(&instances[1..]);
            instances.remove(0).stop();
            let new = launch(id).start();
            records += restored(&[&new]);
            assert_eq!(
                revoked(&instances),
                before,
                "{id} went, and others lost tasks"
            );
            instances.push(new);
            took = took.max(begun.elapsed());
            probe
                .targets()
                .set(&[&instances[0], &instances[1], &instances[2]]);
        }
        shared_by(&[&instances[0], &instances[1], &instances[2]], &all);
        pause(CALM);
        report("rolling restart, each", &probe.finish(), records, took);
    });
    for instance in instances {
        instance.stop();
    }
}

#[test]
fn a_frozen_instance_is_fenced_and_rejoins_by_itself() {
    let broker = Broker::take();
    let ([a, b, mut c], all) = three(&broker);
    let mut probe = Probe::new(&[&a, &b, &c]);
    under_load(&broker, || {
        pause(CALM);
        // Somebody in front sees that it does not answer.
        probe.targets().set(&[&a, &b]);
        probe.start();
        let (before, before_of_c) = (restored(&[&a, &b]), restored(&[&c]));
        let begun = Instant::now();
        c.signal("STOP");
        shared_by(&[&a, &b], &all);
        let took = begun.elapsed();
        let tail = restored(&[&a, &b]) - before;
        pause(CALM);
        report("one of three freezes", &probe.finish(), tail, took);

        probe.targets().set(&[&a, &b, &c]);
        probe.start();
        let before = restored(&[&a, &b]) + before_of_c;
        let begun = Instant::now();
        c.signal("CONT");
        shared_by(&[&a, &b, &c], &all);
        assert!(c.lives());
        let took = begun.elapsed();
        pause(CALM);
        let tail = restored(&[&a, &b, &c]) - before;
        report("it thaws", &probe.finish(), tail, took);
    });
    for instance in [a, b, c] {
        instance.stop();
    }
}

/// Threads and instances can differ freely.
#[test]
fn instances_of_differing_size_share_the_tasks() {
    let broker = Broker::take();
    let large = launch(&broker, "large")
        .set("NUM_STREAM_THREADS", "3")
        .start();
    let all = large.running();
    under_load(&broker, || {
        let small = launch(&broker, "small").start();
        shared_by(&[&large, &small], &all);
        assert!(large.running().len() > small.running().len());
        pause(CALM);
        small.kill();
        eventually("the large one has all", || {
            (large.running() == all).then_some(())
        });
    });
    large.stop();
}

/// Of two with one id exactly one goes on.
#[test]
fn of_two_instances_with_one_id_one_stops() {
    let broker = Broker::take();
    let mut first = launch(&broker, "a").start();
    let all = first.running();
    let own_state = broker.folder().join("second-state");
    let mut left = None;
    under_load(&broker, || {
        pause(CALM);
        let second = launch(&broker, "a").set("STATE_DIR", &own_state.display().to_string());
        let second = second.start();
        let status = first.exit();
        assert_ne!(status.code(), Some(0));
        assert!(first.log().contains("an id of its own"), "{}", first.log());
        assert_eq!(second.running(), all);
        left = Some(second);
    });
    left.expect("one goes on").stop();
}
