//! A topology whose records say what its processors do.
//!
//! A record's value is a script: commands parted by `;`, words by blanks. The
//! processor `main` runs it; `pass` forwards the rest of the script, its commands
//! parted by `,`, to `left` and then `right`, and `left` passes on to `last`, with
//! commands parted by `+`.
//!
//! | command | does |
//! |---|---|
//! | `add K N` | adds N to the row K of the shared store |
//! | `put K TEXT` | sets the row K of the store of texts |
//! | `drop K` | deletes that row |
//! | `send K TEXT` | sends `<processor> TEXT` under the key K |
//! | `bare K TEXT` | does so without headers |
//! | `set K MS` | sets the timer K in MS milliseconds |
//! | `unset K` | cancels it |
//! | `on K SCRIPT` | what the timer K does when it fires, its commands parted by `,` |
//! | `pass SCRIPT` | forwards; nobody listens to `right` and `last` |
//! | `as NAME COMMAND` | is for the processor of that name |
//! | `twice COMMAND` | runs it with its text doubled |
//! | `ends` | sends the keys of the least and the greatest row of the shared store |
//! | `when K` | sends in how many milliseconds the timer K is due |
//! | `try COMMAND` | runs it, and sends `<processor> gave up` under `k` if it fails |
//! | `panic` | panics |
//! | `reject` | rejects the message |

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::{
    Context, DecodeError, Decoded, Encode, ErrorPolicy, InputRecord, KeyRange, Outlet, Processor,
    ProcessorError, ScanDirection, Sink, Source, Store, Timer, Topology, TopologyBuilder,
    TopologyTestDriver,
};

/// A message that is text.
#[derive(Clone)]
pub(crate) struct Text(pub(crate) String);

impl Encode for Text {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

pub(crate) fn decode(record: &InputRecord<'_>) -> Result<Decoded<Text>, DecodeError> {
    match record.value.map(std::str::from_utf8) {
        Some(Ok(text)) if text.starts_with("skip") => Ok(Decoded::Skip("asked-to")),
        Some(Ok(text)) => Ok(Decoded::Message(Text(text.to_owned()))),
        Some(Err(error)) => Err(DecodeError {
            kind: "not-text",
            message: error.to_string(),
        }),
        None => Err(DecodeError {
            kind: "null-value",
            message: "a script is text".to_owned(),
        }),
    }
}

/// What the processors of the topology use.
#[derive(Clone, Copy)]
pub(crate) struct Handles {
    pub(crate) sums: Store<String, u64>,
    pub(crate) texts: Store<String, String>,
    pub(crate) out: Sink<Text>,
}

#[derive(Clone)]
struct Interpreter {
    name: &'static str,
    /// Parts the commands of a script.
    separator: char,
    handles: Handles,
    pass: Option<Outlet<Text>>,
}

impl Interpreter {
    fn run(
        &self,
        context: &mut Context<'_>,
        script: &str,
        separator: char,
    ) -> Result<(), ProcessorError> {
        script
            .split(separator)
            .try_for_each(|command| self.command(context, command.trim()))
    }

    fn says(&self, text: &str) -> Text {
        Text(format!("{} {text}", self.name))
    }

    fn command(&self, context: &mut Context<'_>, command: &str) -> Result<(), ProcessorError> {
        let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
        let (key, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = || {
            text.parse::<u64>()
                .map_err(|error| ProcessorError::rejected("not-a-number", error.to_string()))
        };
        match verb {
            "add" => {
                let row = key.to_owned();
                let sum = context.get(self.handles.sums, &row)?.unwrap_or(0) + number()?;
                context.put(self.handles.sums, &row, &sum)
            }
            "put" => context.put(self.handles.texts, &key.to_owned(), &text.to_owned()),
            "drop" => context.delete(self.handles.texts, &key.to_owned()),
            "send" => context.send(self.handles.out, key, &self.says(text)),
            "bare" => context.send_without_headers(self.handles.out, key, &self.says(text)),
            "set" => {
                let deadline = context.now().plus(Duration::from_millis(number()?));
                context.schedule(key.as_bytes(), deadline)
            }
            "unset" => context.cancel(key.as_bytes()).map(drop),
            "on" => context.put(self.handles.texts, &format!("on {key}"), &text.to_owned()),
            "pass" => match self.pass {
                Some(pass) => context.forward(pass, Text(rest.to_owned())),
                None => Ok(()),
            },
            "as" if key != self.name => Ok(()),
            "as" => self.command(context, text),
            "twice" => {
                let text = rest.splitn(3, ' ').last().unwrap_or_default();
                self.command(context, &format!("{rest}{text}"))
            }
            "ends" => {
                let key_at = |direction| {
                    let found = context.scan(self.handles.sums, &KeyRange::all(), direction, 1)?;
                    Ok::<_, ProcessorError>(found.into_iter().map(|(key, _)| key).collect())
                };
                let least: String = key_at(ScanDirection::Forward)?;
                let greatest: String = key_at(ScanDirection::Reverse)?;
                self.command(context, &format!("send k {least} to {greatest}"))
            }
            "when" => {
                let deadline = context.deadline(key.as_bytes())?;
                let left = deadline.map(|deadline| deadline.since(context.now()).as_millis());
                let left = left.map_or("never".to_owned(), |ms| format!("in {ms} ms"));
                self.command(context, &format!("send k {left}"))
            }
            "try" => match self.command(context, rest) {
                Ok(()) => Ok(()),
                Err(_) => self.command(context, "send k gave up"),
            },
            "panic" => panic!("as the script says"),
            "reject" => Err(ProcessorError::rejected("asked-to", self.name)),
            unknown => Err(ProcessorError::rejected("no-command", unknown)),
        }
    }
}

impl Processor for Interpreter {
    type In = Text;

    fn process(&mut self, context: &mut Context<'_>, script: Text) -> Result<(), ProcessorError> {
        self.run(context, &script.0, self.separator)
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let key = String::from_utf8_lossy(&timer.key).into_owned();
        let late = context.now().since(timer.deadline).as_millis();
        let fired = Text(format!("fired {key} {late} ms late"));
        context.send(self.handles.out, &key, &fired)?;
        match context.get(self.handles.texts, &format!("on {key}"))? {
            Some(script) => self.run(context, &script, ','),
            None => Ok(()),
        }
    }
}

/// The topology over the topic `scripts`, with its handles.
pub(crate) fn topology(policy: ErrorPolicy) -> (Arc<Topology>, Handles) {
    let mut builder = TopologyBuilder::new();
    let scripts = builder.source(Source::new("scripts", "readers", decode).on_error(policy));
    let handles = Handles {
        sums: builder.store("sums"),
        texts: builder.store("texts"),
        out: builder.sink("out"),
    };
    let (pass, passed) = builder.outlet("pass");
    let (pass_on, passed_on) = builder.outlet("pass-on");
    let main = Interpreter {
        name: "main",
        separator: ';',
        handles,
        pass: Some(pass),
    };
    let other = |name, separator, pass| Interpreter {
        name,
        separator,
        pass,
        ..main.clone()
    };
    let left = other("left", ',', Some(pass_on));
    let right = other("right", ',', None);
    let last = other("last", '+', None);
    builder
        .processor("main", move || main.clone())
        .input(scripts)
        .store(handles.sums)
        .store(handles.texts)
        .sink(handles.out)
        .outlet(pass)
        .timers()
        .done();
    builder
        .processor("left", move || left.clone())
        .input(passed)
        .store(handles.sums)
        .store(handles.texts)
        .sink(handles.out)
        .outlet(pass_on)
        .timers()
        .done();
    builder
        .processor("right", move || right.clone())
        .input(passed)
        .store(handles.sums)
        .store(handles.texts)
        .sink(handles.out)
        .timers()
        .done();
    builder
        .processor("last", move || last.clone())
        .input(passed_on)
        .store(handles.sums)
        .store(handles.texts)
        .sink(handles.out)
        .timers()
        .done();
    let topology = builder.build().expect("the topology is sound");
    (Arc::new(topology), handles)
}

/// A driver of what was declared, whose topics have one partition.
pub(crate) fn driver_of(builder: TopologyBuilder) -> TopologyTestDriver {
    let topology = builder.build().expect("the topology is sound");
    TopologyTestDriver::new(Arc::new(topology), 1).expect("the topology fits its topics")
}

/// A driver over one partition: one task sees all records in order.
pub(crate) fn driver(policy: ErrorPolicy) -> (TopologyTestDriver, Handles) {
    let (topology, handles) = topology(policy);
    let driver = TopologyTestDriver::new(topology, 1).expect("the topology fits its topics");
    (driver, handles)
}

/// Appends a script without a key.
pub(crate) fn pipe(driver: &mut TopologyTestDriver, script: &str) {
    driver.pipe("scripts", None, Some(script.as_bytes()));
}

/// The values of what was sent and committed since the last call.
pub(crate) fn sent(driver: &mut TopologyTestDriver) -> Vec<String> {
    let records = driver.take("out");
    records.iter().map(|record| record.value_text()).collect()
}

/// Everything that is committed: rows, pending timers, outputs and dead letters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    sums: Vec<(String, u64)>,
    texts: Vec<(String, String)>,
    timers: Vec<(String, i64, String)>,
    /// By partition, in order.
    outputs: Vec<(i32, String, String)>,
    dead_letters: Vec<(i32, String)>,
}

pub(crate) fn committed(driver: &TopologyTestDriver, handles: Handles) -> Committed {
    let mut timers = Vec::new();
    for processor in ["main", "left", "right", "last"] {
        let pending = driver.timers(processor).into_iter();
        timers.extend(pending.map(|(deadline, key)| (processor.to_owned(), deadline.0, key)));
    }
    let mut outputs: Vec<(i32, String, String)> = driver
        .all("out")
        .iter()
        .map(|record| (record.partition.0, record.key_text(), record.value_text()))
        .collect();
    outputs.sort_by_key(|(partition, _, _)| *partition);
    let mut dead_letters: Vec<(i32, String)> = driver
        .all(&driver.internal("dlq"))
        .iter()
        .map(|record| (record.partition.0, record.value_text()))
        .collect();
    dead_letters.sort_by_key(|(partition, _)| *partition);
    Committed {
        sums: driver.entries(handles.sums),
        texts: driver.entries(handles.texts),
        timers,
        outputs,
        dead_letters,
    }
}
