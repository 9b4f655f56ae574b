//! Of three brokers one after the other goes and comes back: what it led and coordinated others do
//! meanwhile, and instances notice little.

use std::time::Instant;

use crate::broker::{Broker, PARTITIONS};
use crate::failover::probe::Probe;
use crate::failover::{CALM, launch, report, restored, shared_by, under_load};
use crate::instance::Instance;
use crate::own_broker::OwnBroker;
use crate::pause;

/// How often a thread may join anew for a broker that goes: for its transaction, whose outcome nobody
/// knows, and for a group whose coordinator was late to be found. Not once a second, until somebody leads.
const REJOINS_MAX: usize = 3;

/// What an instance has said of itself when it joined anew.
fn rejoins(instance: &Instance) -> Vec<String> {
    let log = instance.log();
    let lines = log.lines().filter(|line| line.contains("joining anew"));
    lines.map(str::to_owned).collect()
}

#[test]
fn of_three_brokers_one_after_the_other_goes_while_instances_go_on() {
    let kafka = OwnBroker::three();
    let broker = Broker::at(kafka.address(), |_| PARTITIONS);
    let launch = |id: &str| {
        let launch = launch(&broker, id).set("REPLICATION_FACTOR", "3");
        // It is the brokers that are lost.
        launch.set("SESSION_TIMEOUT", "10s")
    };
    let a = launch("a").start();
    let all = a.running();
    let b = launch("b").start();
    shared_by(&[&a, &b], &all);
    let mut probe = Probe::new(&[&a, &b]);
    under_load(&broker, || {
        for (number, event) in [(1, "stops"), (2, "is killed"), (3, "stops")] {
            broker.wait_until_in_sync();
            pause(CALM);
            let node = kafka.node(number);
            let before = [&a, &b].map(|of| rejoins(of).len());
            let restored_before = restored(&[&a, &b]);
            probe.start();
            let begun = Instant::now();
            if event == "stops" {
                node.stop();
            } else {
                node.signal("KILL");
            }
            broker.wait_until_led_without(number);
            shared_by(&[&a, &b], &all);
            let took = begun.elapsed();
            pause(CALM);
            let tail = restored(&[&a, &b]) - restored_before;
            let event = format!("one of three brokers {event}");
            report(&event, &probe.finish(), tail, took);
            node.run();
            broker.wait_until_in_sync();
            shared_by(&[&a, &b], &all);
            println!("all is as before after {:?}", begun.elapsed());
            for (before, instance) in before.into_iter().zip([&a, &b]) {
                let again = rejoins(instance).split_off(before);
                println!("{}", again.join("\n"));
                assert!(again.len() <= REJOINS_MAX, "{event}: {again:#?}");
            }
        }
    });
    a.stop();
    b.stop();
}
