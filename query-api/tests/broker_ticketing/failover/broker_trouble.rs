//! Brokers that pause, restart, and are away for a minute: instances wait, say so, and
//! go on.

use std::time::{Duration, Instant};

use crate::broker::{Broker, PARTITIONS};
use crate::failover::probe::Probe;
use crate::failover::{CALM, launch, report, restored, shared_by, under_load};
use crate::flow::{order, ticket};
use crate::instance::Instance;
use crate::own_broker::OwnBroker;
use crate::{eventually, pause};

/// How many lines an instance may log of a minute without brokers and of its end: each of its clients has
/// something to say, every few seconds.
const LINES_MAX: usize = 400;

/// CPU seconds that a process has used, and its resident memory in bytes.
fn usage(instance: &Instance) -> (f64, u64) {
    let read = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", instance.pid())).expect("it lives")
    };
    let stat = read("stat");
    let (_, after_name) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: u32 = [11, 12]
        .map(|field: usize| fields[field].parse::<u32>().expect("ticks are a number"))
        .iter()
        .sum();
    let statm = read("statm");
    let pages = statm
        .split(' ')
        .nth(1)
        .expect("statm has the resident pages");
    let pages: u64 = pages.parse().expect("pages are a number");
    (f64::from(ticks) / 100.0, pages * 4096)
}

/// Waits until all say that they are not ready, and that the brokers are the cause.
fn say_so(instances: &[&Instance]) {
    eventually("all say that the brokers are away", || {
        let says = |instance: &&Instance| {
            let health = instance.health()?;
            (health.status == 503 && health.text.contains("brokers")).then_some(())
        };
        instances.iter().all(|of| says(of).is_some()).then_some(())
    });
}

#[test]
fn instances_outlive_pauses_restarts_and_absences_of_all_brokers() {
    let kafka = OwnBroker::start();
    let broker = Broker::at(kafka.address(), |_| PARTITIONS);
    let a = launch(&broker, "a").start();
    let all = a.running();
    let b = launch(&broker, "b").start();
    shared_by(&[&a, &b], &all);
    let mut probe = Probe::new(&[&a, &b]);
    under_load(&broker, || {
        pause(CALM);
        probe.start();
        let restored_before = restored(&[&a, &b]);
        let begun = Instant::now();
        kafka.signal("STOP");
        pause(Duration::from_secs(15));
        kafka.signal("CONT");
        shared_by(&[&a, &b], &all);
        let took = begun.elapsed();
        pause(CALM);
        let tail = restored(&[&a, &b]) - restored_before;
        report("the broker pauses for 15 s", &probe.finish(), tail, took);

        probe.start();
        let restored_before = restored(&[&a, &b]);
        let begun = Instant::now();
        kafka.stop();
        kafka.run();
        shared_by(&[&a, &b], &all);
        let took = begun.elapsed();
        pause(CALM);
        let tail = restored(&[&a, &b]) - restored_before;
        report("the broker restarts", &probe.finish(), tail, took);

        probe.start();
        let restored_before = restored(&[&a, &b]);
        let begun = Instant::now();
        let before = [usage(&a), usage(&b)];
        let said_before = [&a, &b].map(|of| of.log().lines().count());
        kafka.stop();
        say_so(&[&a, &b]);
        pause(Duration::from_secs(60).saturating_sub(begun.elapsed()));
        for ((cpu, memory), instance) in before.iter().zip([&a, &b]) {
            let (cpu_now, memory_now) = usage(instance);
            println!(
                "a minute without brokers: {:.1} CPU seconds, {} MiB more",
                cpu_now - cpu,
                memory_now.saturating_sub(*memory) >> 20
            );
            assert!(cpu_now - cpu < 20.0, "a busy loop");
            assert!(memory_now < memory + (100 << 20), "memory grows");
        }
        kafka.run();
        shared_by(&[&a, &b], &all);
        let took = begun.elapsed();
        for (said, instance) in said_before.iter().zip([&a, &b]) {
            let lines = instance.log().lines().count() - said;
            println!("a minute without brokers: {lines} lines of log");
            assert!(lines < LINES_MAX, "it says the same again and again");
        }
        pause(CALM);
        let tail = restored(&[&a, &b]) - restored_before;
        report(
            "all brokers are away for a minute",
            &probe.finish(),
            tail,
            took,
        );
    });
    a.stop();
    b.stop();
}

/// A broker that loses power loses what it had not on its disk, and writes other records there later. Who has
/// read on in the meantime would pass over them: so he stops, before there are any.
#[test]
fn a_log_that_has_lost_its_end_stops_the_instance() {
    let kafka = OwnBroker::start();
    let broker = Broker::at(kafka.address(), |_| 1);
    let mut instance = launch(&broker, "a").start();
    let (seller, buyer) = (instance.user("seller"), instance.user("buyer"));
    order(&buyer, &ticket(&seller, "Matinee"));
    let read = ["orders-tickets", "expiration-orders"];
    eventually("all events are processed", || {
        let is_done = |group| broker.lag(group).values().all(|lag| *lag == 0);
        read.iter().all(|group| is_done(group)).then_some(())
    });
    kafka.signal("KILL");
    kafka.stop();
    kafka.lose_end("tickets-0");
    kafka.run();
    assert_eq!(instance.exit().code(), Some(1));
    let log = instance.log();
    let reason = log.lines().last().unwrap_or_default();
    assert!(reason.contains("tickets-0 was read up to"), "{reason}");
    assert!(reason.contains("has lost what it held"), "{reason}");
}
