//! Two instances on one broker: they share the tasks, and take over from each other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::audit::Audit;
use crate::broker::Broker;
use crate::crash::{a_while, stores_agree, verify};
use crate::instance::{Instance, Launch, lose_state};
use crate::load::Load;
use crate::{eventually, pause};

fn launch<'b>(broker: &'b Broker, id: &str) -> Launch<'b> {
    Launch::new(broker, id).set("ORDER_TTL", "4s")
}

/// Waits until the two have all tasks between them, and none twice.
fn share(one: &Instance, other: &Instance, all: &BTreeSet<String>) {
    eventually("the tasks are shared", || {
        let (mine, theirs) = (one.running(), other.running());
        let once = mine.len() + theirs.len() == all.len();
        let union: BTreeSet<_> = mine.union(&theirs).cloned().collect();
        (once && union == *all && !mine.is_empty() && !theirs.is_empty()).then_some(())
    });
}

#[test]
fn when_one_stops_or_is_killed_under_load_nothing_is_lost_or_doubled() {
    let broker = Broker::take();
    let one = launch(&broker, "a").start();
    let all = one.running();
    let enough = AtomicBool::new(false);
    let (one, tickets) = std::thread::scope(|threads| {
        let load = Load::new(&broker, "crash", 5_000);
        let load = threads.spawn(|| load.send(Duration::from_millis(15), &enough));
        // However this ends, the load ends too.
        let _stop = SetOnDrop(&enough);

        let other = launch(&broker, "b").start();
        share(&one, &other, &all);
        println!("b has joined");
        pause(a_while());
        other.stop();
        eventually("a has all tasks", || (one.running() == all).then_some(()));
        println!("b was stopped");

        let other = launch(&broker, "b").start();
        share(&one, &other, &all);
        println!("b is back");
        pause(a_while());
        one.kill();
        lose_state(&broker, "a");
        eventually("b has all tasks", || (other.running() == all).then_some(()));
        println!("a was killed");

        let one = launch(&broker, "a").start();
        share(&one, &other, &all);
        println!("a is back");
        pause(a_while());
        other.kill();
        eventually("a has all tasks", || (one.running() == all).then_some(()));
        println!("b was killed");
        enough.store(true, Ordering::Relaxed);
        (one, load.join().expect("the load is sent"))
    });
    verify(&broker, &tickets);
    stores_agree(&one, &Audit::of(&broker));
    one.stop();
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
