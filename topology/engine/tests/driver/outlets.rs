//! Forwarding within a task, and what a processor may not use.

use turnstile_engine::task::TaskError;
use turnstile_engine::{
    Context, ErrorPolicy, Outlet, Processor, ProcessorError, Sink, Source, Store, TimestampMs,
    TopologyBuilder, TopologyFault,
};

use super::script::{Text, decode, driver, driver_of, pipe, sent};

#[test]
fn a_message_goes_to_all_readers_in_the_order_of_their_declaration_and_in_depth() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    pipe(
        &mut driver,
        "send k before; pass send k x, send k y; send k after",
    );
    pipe(&mut driver, "add a 1; pass add a 10");
    driver.run().unwrap();
    assert_eq!(
        sent(&mut driver),
        [
            "main before",
            "left x",
            "left y",
            "right x",
            "right y",
            "main after"
        ]
    );
    // They share a store, and each sees what the others wrote.
    assert_eq!(driver.entries(handles.sums), [("a".to_owned(), 21)]);
}

#[test]
fn a_rejection_down_the_line_undoes_the_whole_record() {
    let (mut driver, handles) = driver(ErrorPolicy::DeadLetter);
    // `right` rejects what `left` has passed on already.
    pipe(
        &mut driver,
        "add a 1; send k 1; set t 1; pass add a 1, send k 2, set t 1, pass add a 1 + send k 3 + set t 1, as right reject",
    );
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), [""; 0]);
    assert_eq!(driver.entries(handles.sums), []);
    for processor in ["main", "left", "right", "last"] {
        assert_eq!(driver.timers(processor), []);
    }
    let letters = driver.all(&driver.internal("dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].header("__streams.errors.exception").as_deref(),
        Some("asked-to")
    );
    // The next record finds everything in its place.
    pipe(&mut driver, "pass send k again");
    driver.run().unwrap();
    assert_eq!(sent(&mut driver), ["left again", "right again"]);
}

struct Forward(Outlet<Text>);

impl Processor for Forward {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        context.forward(self.0, text)
    }
}

#[test]
fn circles_are_refused() {
    let mut builder = TopologyBuilder::new();
    let input = builder.source(Source::new("input", "readers", decode));
    let (there, to_second) = builder.outlet("there");
    let (back, to_first) = builder.outlet("back");
    builder
        .processor("first", move || Forward(there))
        .input(input)
        .input(to_first)
        .outlet(there)
        .done();
    builder
        .processor("second", move || Forward(back))
        .input(to_second)
        .outlet(back)
        .done();
    assert_eq!(
        builder.build().err().map(|faults| faults.0),
        Some(vec![TopologyFault::Cycle {
            processors: "first, second".to_owned()
        }])
    );
}

/// Uses what the record names, and declares nothing of it.
struct Careless {
    store: Store<String, String>,
    sink: Sink<Text>,
    outlet: Outlet<Text>,
}

impl Processor for Careless {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        let row = String::new();
        match text.0.as_str() {
            "get" => context.get(self.store, &row).map(drop),
            "put" => context.put(self.store, &row, &row),
            "delete" => context.delete(self.store, &row),
            "send" => context.send(self.sink, "", &text),
            "forward" => context.forward(self.outlet, text),
            "schedule" => context.schedule(b"t", TimestampMs(0)),
            _ => context.cancel(b"t").map(drop),
        }
    }
}

/// Declares for another processor what [`Careless`] uses.
struct Quiet;

impl Processor for Quiet {
    type In = Text;

    fn process(&mut self, _: &mut Context<'_>, _: Text) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[test]
fn what_is_used_and_not_declared_is_named_with_its_processor() {
    let uses = [
        ("get", "store", "rows"),
        ("put", "store", "rows"),
        ("delete", "store", "rows"),
        ("send", "sink", "out"),
        ("forward", "outlet", "passed"),
        ("schedule", "timers", "careless-timers"),
        ("cancel", "timers", "careless-timers"),
    ];
    for (used, kind, name) in uses {
        let mut builder = TopologyBuilder::new();
        let input = builder.source(Source::new("input", "readers", decode));
        let (store, sink) = (builder.store("rows"), builder.sink("out"));
        let (outlet, stream) = builder.outlet("passed");
        builder
            .processor("careless", move || Careless {
                store,
                sink,
                outlet,
            })
            .input(input)
            .done();
        builder
            .processor("owner", || Quiet)
            .input(input)
            .store(store)
            .sink(sink)
            .outlet(outlet)
            .timers()
            .done();
        builder.processor("reader", || Quiet).input(stream).done();
        let mut driver = driver_of(builder);
        driver.pipe("input", None, Some(used.as_bytes()));
        match driver.run() {
            Err(TaskError::Processor {
                source:
                    ProcessorError::Undeclared {
                        processor,
                        kind: found,
                        name: named,
                    },
                ..
            }) => assert_eq!(
                (processor.as_str(), found, named.as_str()),
                ("careless", kind, name)
            ),
            other => panic!("{used} is possible: {other:?}"),
        }
    }
}

/// Goes on whatever becomes of what it forwards.
struct Heedless {
    outlet: Outlet<Text>,
    sink: Sink<Text>,
}

impl Processor for Heedless {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, text: Text) -> Result<(), ProcessorError> {
        context.forward(self.outlet, text.clone()).ok();
        context.send(self.sink, "", &text)
    }
}

#[test]
fn a_fault_down_the_line_stops_the_task_whatever_its_sender_makes_of_it() {
    let mut builder = TopologyBuilder::new();
    let input = builder.source(Source::new("input", "readers", decode));
    let (store, sink) = (builder.store("rows"), builder.sink("out"));
    let (outlet, passed) = builder.outlet("passed");
    let (none, nobody) = builder.outlet("none");
    builder
        .processor("heedless", move || Heedless { outlet, sink })
        .input(input)
        .outlet(outlet)
        .sink(sink)
        .done();
    builder
        .processor("careless", move || Careless {
            store,
            sink,
            outlet: none,
        })
        .input(passed)
        .done();
    builder
        .processor("owner", || Quiet)
        .input(nobody)
        .store(store)
        .done();
    let keeper = builder.source(Source::new("other", "readers", decode));
    builder
        .processor("keeper", move || Forward(none))
        .input(keeper)
        .outlet(none)
        .done();
    let mut driver = driver_of(builder);
    driver.pipe("input", None, Some(b"get"));
    let stopped = driver.run();
    assert!(
        matches!(
            &stopped,
            Err(TaskError::Processor { source: ProcessorError::Undeclared { processor, .. }, .. })
                if processor == "careless"
        ),
        "{stopped:?}"
    );
}

/// Says how many messages it has had.
struct Forgetful {
    sink: Sink<Text>,
    had: usize,
}

impl Processor for Forgetful {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, _: Text) -> Result<(), ProcessorError> {
        self.had += 1;
        context.send(self.sink, "", &Text(self.had.to_string()))
    }
}

#[test]
fn what_a_processor_had_in_its_fields_is_gone_with_the_transaction() {
    let mut builder = TopologyBuilder::new();
    let input = builder.source(Source::new("input", "readers", decode));
    let sink = builder.sink("out");
    builder
        .processor("forgetful", move || Forgetful { sink, had: 0 })
        .input(input)
        .sink(sink)
        .done();
    let mut driver = driver_of(builder);
    driver.pipe("input", None, Some(b"x"));
    assert!(driver.step(0).expect("nothing stops the task"));
    driver.abort();
    driver.run().expect("nothing stops the task");
    assert_eq!(sent(&mut driver), ["1"]);
}

#[test]
fn a_store_of_another_topology_is_none_of_this() {
    let foreign = TopologyBuilder::new().store("rows");
    let mut builder = TopologyBuilder::new();
    let input = builder.source(Source::new("input", "readers", decode));
    let (store, sink) = (builder.store::<String, String>("rows"), builder.sink("out"));
    let (outlet, stream) = builder.outlet("passed");
    builder
        .processor("careless", move || Careless {
            store: foreign,
            sink,
            outlet,
        })
        .input(input)
        .store(store)
        .sink(sink)
        .outlet(outlet)
        .done();
    builder.processor("reader", || Quiet).input(stream).done();
    let mut driver = driver_of(builder);
    driver.pipe("input", None, Some(b"put"));
    let stopped = driver.run();
    assert!(
        matches!(
            &stopped,
            Err(TaskError::Processor { source: ProcessorError::Undeclared { name, .. }, .. })
                if name == "of another topology"
        ),
        "{stopped:?}"
    );
}
