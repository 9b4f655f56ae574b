//! Timers fire once, in order, late rather than never, and never early.

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::task::Processed;
use turnstile_engine::{
    Context, ErrorPolicy, Processor, ProcessorError, Sink, Source, Timer, TopologyBuilder,
    TopologyTestDriver,
};

use super::script::{Text, decode, driver, pipe, sent};

fn after(script: &str) -> TopologyTestDriver {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    pipe(&mut driver, script);
    driver.run().expect("no script stops a task");
    driver
}

fn wait(driver: &mut TopologyTestDriver, ms: u64) -> Vec<String> {
    driver
        .advance(Duration::from_millis(ms))
        .expect("no script stops a task");
    sent(driver)
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_timer_fires_once_and_not_before_its_deadline() {
    let mut driver = after("set t 100");
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired t 0 ms late"]);
    assert_eq!(wait(&mut driver, 1_000_000), NOTHING);
    assert_eq!(driver.timers("main"), []);
}

#[test]
fn a_timer_of_now_fires_at_once() {
    let mut driver = after("set t 0");
    assert_eq!(sent(&mut driver), ["fired t 0 ms late"]);
}

#[test]
fn a_timer_fires_late_after_a_stop() {
    let mut driver = after("set t 100; set u 400");
    driver.set_now(driver.now().plus(Duration::from_millis(350)));
    driver.crash_and_restore().unwrap();
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), ["fired t 250 ms late"]);
    assert_eq!(wait(&mut driver, 50), ["fired u 0 ms late"]);
}

#[test]
fn nothing_fires_while_the_clock_is_set_back() {
    let mut driver = after("set t 100");
    assert_eq!(wait(&mut driver, 90), NOTHING);
    let before = driver.now();
    driver.set_now(turnstile_engine::TimestampMs(before.0 - 10_000));
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), NOTHING);
    // One that is due before the time which the wheel has seen already.
    pipe(&mut driver, "set u 100");
    driver.run().unwrap();
    assert_eq!(wait(&mut driver, 99), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired u 0 ms late"]);
    assert_eq!(wait(&mut driver, 9_909), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired t 0 ms late"]);
}

#[test]
fn a_cancelled_timer_never_fires() {
    let mut driver = after("set t 100; set u 100; unset t; unset unknown");
    pipe(&mut driver, "unset u");
    driver.run().unwrap();
    assert_eq!(wait(&mut driver, 1_000), NOTHING);
}

#[test]
fn a_moved_timer_fires_at_its_last_deadline_only() {
    let mut driver = after("set later 100; set sooner 100");
    pipe(&mut driver, "set later 300; set sooner 30");
    driver.run().unwrap();
    assert_eq!(wait(&mut driver, 29), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired sooner 0 ms late"]);
    assert_eq!(wait(&mut driver, 269), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired later 0 ms late"]);
    assert_eq!(wait(&mut driver, 1_000), NOTHING);
}

#[test]
fn timers_of_one_turn_fire_by_deadline_and_then_key() {
    let mut driver = after("set b 20; set c 10; set a 20; set d 5");
    let fired = wait(&mut driver, 20);
    assert_eq!(
        fired,
        ["d 15", "c 10", "a 0", "b 0"].map(|timer| format!("fired {timer} ms late"))
    );
}

#[test]
fn a_timer_may_cancel_or_move_another_that_is_due_in_the_same_turn() {
    let mut driver = after("set a 10; set b 11; set c 12; on a unset b, set c 5");
    assert_eq!(wait(&mut driver, 20), ["fired a 10 ms late"]);
    assert_eq!(wait(&mut driver, 4), NOTHING);
    assert_eq!(wait(&mut driver, 1), ["fired c 0 ms late"]);
}

#[test]
fn a_timer_may_set_itself_anew() {
    let mut driver = after("set t 10; on t set t 10");
    for _ in 0..5 {
        assert_eq!(wait(&mut driver, 10), ["fired t 0 ms late"]);
    }
    assert_eq!(driver.timers("main").len(), 1);
}

#[test]
fn processors_have_timers_of_their_own() {
    let mut driver = after("set t 10; pass set t 20");
    assert_eq!(wait(&mut driver, 10), ["fired t 0 ms late"]);
    // Those of `left` and `right`.
    assert_eq!(wait(&mut driver, 10), ["fired t 0 ms late"; 2]);
}

#[test]
fn many_timers_that_are_due_at_once_fire_once_each_and_in_order() {
    let (mut driver, _) = driver(ErrorPolicy::DeadLetter);
    for n in 0..2_500 {
        pipe(&mut driver, &format!("set t{n:04} {}", n % 3));
    }
    while driver.step(0).unwrap() {}
    driver.commit();
    let fired = wait(&mut driver, 10);
    let expected: Vec<String> = (0..3)
        .flat_map(|ms| {
            let of_ms = (0..2_500).filter(move |n| n % 3 == ms);
            of_ms.map(move |n| format!("fired t{n:04} {} ms late", 10 - ms))
        })
        .collect();
    assert_eq!(fired, expected);
    assert_eq!(driver.timers("main"), []);
    assert_eq!(wait(&mut driver, 10), NOTHING);
}

#[test]
fn a_timer_has_no_headers_and_the_time_at_which_it_fired() {
    let mut driver = after("set t 10");
    driver.take("out");
    driver.advance(Duration::from_millis(17)).unwrap();
    let fired = driver.take("out").pop().expect("the timer fired");
    assert_eq!((fired.timestamp, fired.headers), (driver.now(), vec![]));
}

#[test]
fn a_timer_that_is_rejected_is_a_dead_letter_and_stops_nothing() {
    for rejects in ["add a 1, reject", "add a 1, set u 1, pass reject"] {
        let mut driver = after(&format!("on t {rejects}; set t 100"));
        assert_eq!(wait(&mut driver, 100), NOTHING);
        assert_eq!(driver.timers("main"), []);
        let letters = driver.take(&driver.internal("dlq"));
        assert_eq!(letters.len(), 1, "{rejects}");
        let letter = &letters[0];
        assert_eq!(letter.key.as_deref(), Some(b"t".as_slice()));
        assert_eq!(letter.value, None);
        let header = |name: &str| letter.header(&format!("__streams.errors.{name}"));
        assert_eq!(header("topic").as_deref(), Some("main-timers"));
        assert_eq!(header("offset").as_deref(), Some("-1"));
        assert_eq!(header("exception").as_deref(), Some("asked-to"));
        let message = header("message").unwrap();
        assert!(
            message.starts_with("the timer t of main, due at "),
            "{message}"
        );
        driver.crash_and_restore().unwrap();
        pipe(&mut driver, "send a after");
        driver.run().unwrap();
        assert_eq!(driver.results("scripts").last(), Some(&Processed::Done));
        assert_eq!(wait(&mut driver, 1_000), ["main after"]);
        assert_eq!(driver.take(&driver.internal("dlq")).len(), 0);
    }
}

#[test]
fn a_timer_that_is_rejected_stops_a_task_whose_sources_all_stop() {
    let (mut driver, _) = driver(ErrorPolicy::Stop);
    pipe(&mut driver, "on t reject; set t 100");
    driver.run().unwrap();
    let stopped = driver.advance(Duration::from_millis(100)).unwrap_err();
    assert_eq!(
        stopped.to_string(),
        "task 0_0 stopped at the timer t of main: its processor failed"
    );
    // It is pending still.
    driver.crash_and_restore().unwrap();
    assert_eq!(driver.timers("main").len(), 1);
}

#[test]
fn when_a_timer_is_due_can_be_asked() {
    let mut driver =
        after("when t; set t 100; when t; set t 70; when t; unset t; when t; set t 50");
    driver.set_now(driver.now().plus(Duration::from_millis(20)));
    driver.crash_and_restore().unwrap();
    pipe(&mut driver, "when t");
    driver.run().unwrap();
    assert_eq!(
        sent(&mut driver),
        [
            "main never",
            "main in 100 ms",
            "main in 70 ms",
            "main never",
            "main in 30 ms"
        ]
    );
}

/// Sets so many timers of now for each message, and sends its name whenever one fires.
struct Alarms {
    name: &'static str,
    timers: u32,
    out: Sink<Text>,
}

impl Processor for Alarms {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, _: Text) -> Result<(), ProcessorError> {
        let now = context.now();
        (0..self.timers).try_for_each(|number| context.schedule(&number.to_be_bytes(), now))
    }

    fn on_timer(&mut self, context: &mut Context<'_>, _: Timer) -> Result<(), ProcessorError> {
        context.send(self.out, "", &Text(self.name.to_owned()))
    }
}

#[test]
fn many_timers_of_one_processor_do_not_hold_up_those_of_another() {
    const MANY: u32 = 2_000;
    let mut builder = TopologyBuilder::new();
    let ticks = builder.source(Source::new("ticks", "readers", decode));
    let out = builder.sink("out");
    for (name, timers) in [("many", MANY), ("few", 1)] {
        let alarms = move || Alarms { name, timers, out };
        let processor = builder.processor(name, alarms).input(ticks).sink(out);
        processor.timers().done();
    }
    let topology = builder.build().expect("the topology is sound");
    let mut driver = TopologyTestDriver::new(Arc::new(topology), 1).expect("it fits its topics");
    driver.pipe("ticks", None, Some(b"go"));
    driver.run().expect("nothing stops the task");
    let fired = sent(&mut driver);
    assert_eq!(fired.len(), MANY as usize + 1);
    let few = fired.iter().position(|name| name == "few");
    assert!(few.is_some_and(|place| place < fired.len() / 2), "{few:?}");
}
