//! A small application: counts words, resets counts, sets timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus::Registry;
use turnstile_engine::runtime::{
    Cluster as InstanceDirectory, Metrics, QueryError, StartError, StoreRead, Streams,
    StreamsConfig, StreamsFailure, TopicSpec,
};
use turnstile_engine::{
    Codec, Context, DecodeError, Decoded, Encode, InputRecord, Processor, ProcessorError, Sink,
    Source, Store, Timer, Topology, TopologyBuilder,
};

use crate::cluster::{Cluster, eventually};
use crate::crash::PARTITIONS;

#[derive(Clone)]
enum Input {
    Word(String),
    Later(String, u64),
    Reset(String),
}

impl Input {
    fn word(&self) -> &str {
        match self {
            Self::Word(word) | Self::Later(word, _) | Self::Reset(word) => word,
        }
    }
}

fn decode(record: &InputRecord<'_>) -> Result<Decoded<Input>, DecodeError> {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let (key, value) = (text(record.key), text(record.value));
    match value.split_once(':') {
        Some(("later", ms)) => Ok(Decoded::Message(Input::Later(
            key,
            ms.parse().expect("a test sends a number"),
        ))),
        _ if value == "reset" => Ok(Decoded::Message(Input::Reset(key))),
        _ if value == "poison" => Err(DecodeError {
            kind: "poison",
            message: "poison".to_owned(),
        }),
        _ => Ok(Decoded::Message(Input::Word(key))),
    }
}

struct Count(String);

impl Encode for Count {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// How many words the instances of this process have counted, committed or not.
static COUNTED: AtomicU64 = AtomicU64::new(0);

/// Waits until so many more words are counted; says if they were in the end. (It does not
/// wait for ever: a thread that lets go of tasks processes nothing until it has committed.)
pub(crate) fn wait_until_more_is_counted(number: u64) -> bool {
    let enough = COUNTED.load(Ordering::Relaxed) + number;
    let begun = Instant::now();
    while COUNTED.load(Ordering::Relaxed) < enough && begun.elapsed() < Duration::from_secs(20) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    COUNTED.load(Ordering::Relaxed) >= enough
}

struct Counter {
    store: Store<String, u64>,
    counts: Sink<Count>,
}

impl Processor for Counter {
    type In = Input;

    fn process(&mut self, context: &mut Context<'_>, input: Input) -> Result<(), ProcessorError> {
        let word = input.word().to_owned();
        if let Input::Reset(_) = input {
            return context.delete(self.store, &word);
        }
        let count = context.get(self.store, &word)?.unwrap_or(0) + 1;
        context.put(self.store, &word, &count)?;
        COUNTED.fetch_add(1, Ordering::Relaxed);
        if let Input::Later(_, ms) = input {
            context.schedule(
                word.as_bytes(),
                context.now().plus(Duration::from_millis(ms)),
            )?;
        }
        context.send(self.counts, &word, &Count(count.to_string()))
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        assert!(context.now() >= timer.deadline, "a timer fires early");
        let word = String::from_utf8_lossy(&timer.key).into_owned();
        context.send(self.counts, &word, &Count("timer".to_owned()))
    }
}

/// What of the application an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    Today,
    /// Its processor has another name.
    Tomorrow,
    /// It reads one more topic in the group of the words.
    Letters,
}

/// A running instance of the application.
pub(crate) struct Counting {
    application: String,
    streams: Streams,
    store: Store<String, u64>,
    metrics: Registry,
}

impl Counting {
    /// Starts an instance and waits until it is ready.
    pub(crate) fn start(cluster: &Cluster, instance: &str) -> Self {
        Self::start_with(cluster, instance, |_| {})
    }

    /// Starts an instance with its configuration changed, and waits until it is ready.
    pub(crate) fn start_with(
        cluster: &Cluster,
        instance: &str,
        configure: impl FnOnce(&mut StreamsConfig),
    ) -> Self {
        let counting = Self::launch(cluster, instance, configure);
        counting.wait_until_ready(instance);
        counting
    }

    /// Starts an instance, and waits for nothing.
    pub(crate) fn launch(
        cluster: &Cluster,
        instance: &str,
        configure: impl FnOnce(&mut StreamsConfig),
    ) -> Self {
        let started = Self::try_launch(cluster, instance, configure);
        started.expect("the instance starts")
    }

    /// Starts an instance, if it can start.
    pub(crate) fn try_launch(
        cluster: &Cluster,
        instance: &str,
        configure: impl FnOnce(&mut StreamsConfig),
    ) -> Result<Self, StartError> {
        Self::try_launch_release(cluster, instance, Release::Today, configure)
    }

    /// Starts an instance of another release.
    pub(crate) fn launch_release(cluster: &Cluster, instance: &str, release: Release) -> Self {
        let started = Self::try_launch_release(cluster, instance, release, |_| {});
        started.expect("the instance starts")
    }

    fn try_launch_release(
        cluster: &Cluster,
        instance: &str,
        release: Release,
        configure: impl FnOnce(&mut StreamsConfig),
    ) -> Result<Self, StartError> {
        let application = cluster.application();
        let (topology, store) = topology(&application, release);
        let mut config = StreamsConfig::new(
            &application,
            cluster.brokers(),
            instance,
            cluster.state(instance),
        );
        config.session_timeout = Duration::from_secs(6);
        config.purge_interval = Duration::from_secs(1);
        configure(&mut config);
        let topics = ["words", "resets", "counts", "letters"].map(|name| TopicSpec {
            name: format!("{application}-{name}"),
            partitions: PARTITIONS,
        });
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).expect("a new registry takes the metrics");
        Ok(Self {
            application,
            streams: Streams::start(topology, &topics, &config, metrics)?,
            store,
            metrics: registry,
        })
    }

    pub(crate) fn wait_until_ready(&self, instance: &str) {
        let mut last = Vec::new();
        eventually("the instance is ready", Duration::from_secs(60), || {
            assert_eq!(self.streams.failure(), None);
            let status = self.streams.status();
            if last != status.problems {
                println!("{instance}: {:?}", status.problems);
                last = status.problems;
            }
            status.ready
        });
    }

    pub(crate) fn stop(self) {
        self.streams.stop();
    }

    pub(crate) fn words(&self) -> String {
        format!("{}-words", self.application)
    }

    /// What [`Release::Letters`] counts besides.
    pub(crate) fn letters(&self) -> String {
        format!("{}-letters", self.application)
    }

    pub(crate) fn resets(&self) -> String {
        format!("{}-resets", self.application)
    }

    pub(crate) fn counts(&self) -> String {
        format!("{}-counts", self.application)
    }

    pub(crate) fn dead_letters(&self) -> String {
        format!("{}-dlq", self.application)
    }

    pub(crate) fn group(&self, name: &str) -> String {
        format!("{}-{name}-group", self.application)
    }

    pub(crate) fn stored(&self, word: &str) -> Option<u64> {
        self.stored_here(word).expect("the task runs here")
    }

    /// The same where the task may run elsewhere.
    pub(crate) fn stored_here(&self, word: &str) -> Result<Option<u64>, QueryError> {
        let queries = self.streams.queries();
        queries.get(self.store, word, &word.to_owned())
    }

    /// What a standby here holds, unless it may be staler than that.
    pub(crate) fn stored_on_standby(
        &self,
        word: &str,
        max_stale: Duration,
    ) -> Result<Option<u64>, QueryError> {
        let queries = self.streams.queries();
        let partition = queries.partition_of(self.store, word)?;
        let read = StoreRead::Keys(vec![word.to_owned().to_bytes()]);
        let request = queries.request(self.store, partition, read)?;
        let answer = queries.answer(&request, Some(max_stale))?;
        assert!(answer.stale.is_some(), "the task runs here");
        let row = answer.rows.first();
        Ok(row.map(|(_, count)| u64::decode(count).expect("a count")))
    }

    /// What it knows of the other instances.
    pub(crate) fn neighbours(&self) -> InstanceDirectory {
        self.streams.cluster()
    }

    /// Why it has stopped by itself, if it has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.streams.failure().map(|failure| failure.to_string())
    }

    /// Waits until it has stopped by itself; why it has.
    pub(crate) fn why_it_stops(&self) -> String {
        // A topic that is gone is looked for every half a minute, and then for a minute more.
        eventually("it says why it stops", Duration::from_secs(120), || {
            self.failure().is_some()
        });
        self.failure().unwrap_or_default()
    }

    /// Whether it has stopped as brokers do not take what is configured.
    pub(crate) fn is_misconfigured(&self) -> bool {
        let failure = self.streams.failure();
        matches!(failure, Some(StreamsFailure::Misconfigured(_)))
    }

    /// How often a thread has dropped its tasks and joined anew.
    pub(crate) fn rejoins(&self) -> f64 {
        let families = self.metrics.gather().into_iter();
        let rejoins = families.filter(|family| family.name() == "turnstile_rejoins_total");
        let counts = rejoins.map(|family| {
            let by_reason = family.get_metric().iter();
            by_reason
                .map(|of| of.get_counter().get_value())
                .sum::<f64>()
        });
        counts.sum()
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.streams.status().problems
    }

    pub(crate) fn tasks(&self) -> usize {
        self.streams.plan().tasks().len()
    }

    pub(crate) fn running(&self) -> usize {
        self.streams
            .status()
            .tasks
            .iter()
            .filter(|task| task.status == "running")
            .count()
    }
}

/// One subtopology that is read in two groups.
fn topology(application: &str, release: Release) -> (Arc<Topology>, Store<String, u64>) {
    let mut builder = TopologyBuilder::new();
    let store = builder.store("counts");
    let counts = builder.sink(format!("{application}-counts"));
    let group = |name: &str| format!("{application}-{name}-group");
    let words = builder.source(Source::new(
        format!("{application}-words"),
        group("words"),
        decode,
    ));
    let resets = Source::new(format!("{application}-resets"), group("resets"), decode)
        .keyed_by("resets", |input: &Input| input.word().as_bytes().to_vec());
    let resets = builder.source(resets);
    let letters = (release == Release::Letters).then(|| {
        let topic = format!("{application}-letters");
        builder.source(Source::new(topic, group("words"), decode))
    });
    let name = match release {
        Release::Today | Release::Letters => "counter",
        Release::Tomorrow => "counter-of-tomorrow",
    };
    let mut counter = builder
        .processor(name, move || Counter { store, counts })
        .input(words)
        .input(resets);
    if let Some(letters) = letters {
        counter = counter.input(letters);
    }
    counter.store(store).sink(counts).timers().done();
    (
        Arc::new(builder.build().expect("the topology is sound")),
        store,
    )
}
