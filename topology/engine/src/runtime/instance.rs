//! An instance: the stream threads of one process and what they share.
//!
//! Start:
//!
//! 1. Lock the state directory: from here on the stores belong to this process.
//! 2. Create the topics of the application that are missing.
//! 3. Resolve the topology against the topics that exist, and the record sizes they accept.
//! 4. Begin to open the stores that are on disk, in parallel with all that follows.
//! 5. Check that the groups belong to this application, and create or check the internal topics:
//!    nothing is read, fenced or joined before that.
//! 6. Start the threads; [`stream_thread`] says how one gets to its tasks.
//!
//! Stop: 1. standbys are no longer followed; 2. stream threads commit and close their tasks, and
//! the sampler ends; 3. announcements end; 4. the state directory is released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::Mutex;
use thiserror::Error;
use turnstile_state::{RocksMemory, RocksOptions, StateDir, StateError};

use super::background::Background;
use super::cluster::{Cluster, MessengerFault, start_messenger};
use super::fence::Fence;
use super::first_start::{self, ForeignPosition};
use super::internal_topics::{ensure_external, ensure_internal, sink_bytes_max};
use super::kafka::{Admin, Ends, KafkaFault, check_properties, partition_counts};
use super::lag::LagBoard;
use super::purge::Purger;
use super::sampler::{self, Sampler};
use super::standby::{StandbySetup, Standbys, start_following};
use super::status::StatusBoard;
use super::stream_thread::{self, ThreadSetup};
use super::task_stores::TaskStores;
use super::topic_watch::TopicWatch;
use super::wake::Waker;
use super::{InstanceStatus, Metrics, Queries, StreamsConfig, TopicError, TopicSpec};
use crate::topology::{Plan, Topology, TopologyFault, TopologyFaults, is_topic_name};

/// Topic names have at most 249 bytes, and internal topics need some of them for their own part.
const APPLICATION_ID_BYTES_MAX: usize = 200;

/// What to set instead of a property.
fn instead_of(name: &str) -> &'static str {
    match name {
        "session.timeout.ms" | "heartbeat.interval.ms" => " and set the session timeout",
        _ => "",
    }
}

/// Why an instance could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The application id cannot be part of the names of topics.
    #[error(
        "application id {0:?} cannot be part of the names of topics: make it of a-z, A-Z, 0-9, '.', '_' and '-', one at least and 200 at most"
    )]
    InvalidApplicationId(String),
    /// The configuration has no threads: no task would ever run.
    #[error("num_stream_threads is 0: an instance needs at least 1 stream thread")]
    NoStreamThreads,
    /// A property of the client that the engine's guarantees depend on.
    #[error(
        "kafka_properties: {name} is set by the engine, whose promises rest on it: leave it out{}",
        instead_of(name)
    )]
    ReservedProperty {
        /// The property.
        name: String,
    },
    /// A property that the client does not know, or a value that it does not accept.
    #[error(transparent)]
    Property(KafkaFault),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    State(#[from] StateError),
    /// The cluster could not be reached, or refused something other than topics.
    #[error(transparent)]
    Kafka(#[from] KafkaFault),
    /// The application is new on the cluster, but its groups are not.
    #[error(transparent)]
    ForeignPosition(#[from] ForeignPosition),
    /// The cluster has answered, but its topics are not what the application needs.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// The topology does not fit the topics.
    #[error(transparent)]
    Topology(#[from] TopologyFaults),
    /// The operating system refused a thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

impl StartError {
    /// Whether the configuration is wrong or does not fit the cluster, so that another start
    /// changes nothing.
    #[must_use]
    pub fn is_of_configuration(&self) -> bool {
        match self {
            Self::InvalidApplicationId(_)
            | Self::NoStreamThreads
            | Self::ReservedProperty { .. }
            | Self::Property(_)
            | Self::State(
                StateError::OtherApplication { .. }
                | StateError::ForeignFormat { .. }
                | StateError::NewerFormat { .. },
            )
            | Self::ForeignPosition(_) => true,
            Self::Topics(error) => error.is_lasting(),
            Self::Topology(faults) => faults.0.iter().any(TopologyFault::is_lasting),
            Self::State(_) | Self::Kafka(_) | Self::Thread(_) => false,
        }
    }
}

/// Why the threads of an instance have stopped by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamsFailure {
    /// Another process has started under the instance's id. Starting this one again would stop that
    /// one.
    #[error("{0}")]
    Superseded(String),
    /// Brokers reject the configuration, or topics are not what they were when the instance
    /// started: one is gone, was recreated or has another number of partitions. Somebody has to
    /// look into it.
    #[error("{0}")]
    Misconfigured(String),
    /// The disk of the state directory is full, or failing. Starting again would keep the tasks
    /// here, although others can run them.
    #[error("{0}")]
    Disk(String),
    /// Something that no thread can recover from. It may be over after another start.
    #[error("{0}")]
    Failed(String),
}

type OnFailure = Arc<dyn Fn(&StreamsFailure) + Send + Sync>;

#[derive(Default)]
struct Failure {
    reason: Option<StreamsFailure>,
    callbacks: Vec<OnFailure>,
}

/// A running instance.
pub struct Streams {
    plan: Arc<Plan>,
    queries: Queries,
    board: StatusBoard,
    stop: Arc<AtomicBool>,
    failure: Arc<Mutex<Failure>>,
    threads: Vec<(Waker, JoinHandle<()>)>,
    cluster: Cluster,
    standby_thread: Option<Background>,
    /// Kept until the threads have ended: the last thing it announces is that they have.
    messenger: Option<Background>,
}

impl Streams {
    /// Starts an instance of `topology`, after creating those of `topics` that are missing. Returns
    /// when the threads run; they join and restore in the background, as [`Streams::status`] shows.
    /// Blocks; not for async code.
    ///
    /// # Errors
    ///
    /// When the configuration names no threads, and when the state directory, the
    /// cluster or its topics cannot be used.
    pub fn start(
        topology: Arc<Topology>,
        topics: &[TopicSpec],
        config: &StreamsConfig,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let id = &config.application_id;
        if id.len() > APPLICATION_ID_BYTES_MAX || !is_topic_name(id) {
            return Err(StartError::InvalidApplicationId(id.clone()));
        }
        if config.num_stream_threads == 0 {
            return Err(StartError::NoStreamThreads);
        }
        if let Some(name) = config.reserved_property() {
            return Err(StartError::ReservedProperty { name });
        }
        check_properties(config).map_err(StartError::Property)?;
        // 1.
        let state_dir = Arc::new(StateDir::lock(&config.state_dir, &config.application_id)?);
        // 2.
        let admin = Admin::connect(config)?;
        let counts = partition_counts(&admin, config)?;
        let counts = ensure_external(&admin, topics, counts)?;
        // 3.
        let sinks = sink_bytes_max(&admin, &topology.external_sinks())?;
        let plan = topology.resolve_within(&config.application_id, &counts, &sinks)?;
        let plan = Arc::new(plan);
        // 4.
        let memory = RocksMemory::new(config.block_cache_bytes, config.write_buffer_bytes);
        let ends = Ends::new(config)?;
        let log_ends = ends.log.clone();
        let stores = TaskStores::new(
            state_dir,
            plan.clone(),
            RocksOptions::new(memory.clone()),
            Arc::new(move |place| log_ends.of_one(place)),
        );
        stores.open_ahead(stores.on_disk());
        // 5.
        first_start::check(&admin, &plan, config, &counts)?;
        ensure_internal(&admin, &plan, config, counts)?;
        // 6.
        let board = StatusBoard::new(config.num_stream_threads, config.session_timeout);
        let queries = Queries::new(plan.clone());
        let lag = LagBoard::default();
        let cluster = Cluster::new(config, &plan, queries.clone(), board.clone());
        let messenger = start_messenger(cluster.clone(), config, &ends.log)?;
        let standbys = Standbys::new(queries.clone(), metrics.clone());
        let standby_thread = start_following(StandbySetup {
            config: config.clone(),
            plan: plan.clone(),
            cluster: cluster.clone(),
            standbys: standbys.clone(),
            stores: stores.clone(),
            log_ends: ends.log.clone(),
            metrics: metrics.clone(),
        });
        let mut streams = Self {
            plan: plan.clone(),
            queries: queries.clone(),
            board: board.clone(),
            stop: Arc::new(AtomicBool::new(false)),
            failure: Arc::default(),
            threads: Vec::new(),
            cluster: cluster.clone(),
            standby_thread: Some(standby_thread.map_err(StartError::Thread)?),
            messenger: Some(messenger),
        };
        let fence = Fence::new(config, cluster.clone());
        for number in 0..config.num_stream_threads {
            let setup = ThreadSetup {
                number,
                config: config.clone(),
                plan: plan.clone(),
                metrics: metrics.clone(),
                queries: queries.clone(),
                board: board.clone(),
                lag: lag.clone(),
                cluster: cluster.clone(),
                stores: stores.clone(),
                standbys: standbys.clone(),
                fence: fence.clone(),
                ends: ends.clone(),
                stop: streams.stop.clone(),
                waker: Waker::default(),
            };
            streams.spawn_stream_thread(setup)?;
        }
        streams.spawn_sampler(Sampler {
            admin: admin.within(sampler::ANSWER_LIMIT),
            purger: Purger::new(&plan, config.purge_interval),
            topics: TopicWatch::new(&plan),
            plan,
            metrics,
            queries,
            board,
            cluster,
            memory,
            lag,
            ends: ends.within(sampler::ANSWER_LIMIT),
            stores,
        })?;
        Ok(streams)
    }

    fn spawn_stream_thread(&mut self, setup: ThreadSetup) -> Result<(), StartError> {
        let waker = setup.waker.clone();
        let name = format!("stream-{}", setup.number);
        self.spawn(name, waker, move || stream_thread::run(&setup))
    }

    fn spawn_sampler(&mut self, mut sampler: Sampler) -> Result<(), StartError> {
        let waker = Waker::default();
        let (stop, wake) = (self.stop.clone(), waker.clone());
        self.spawn("sampler".to_owned(), waker, move || {
            sampler.run(|| stop.load(Ordering::Relaxed), &wake)
        })
    }

    /// Starts a thread; if it fails, the instance fails.
    fn spawn(
        &mut self,
        name: String,
        waker: Waker,
        work: impl FnOnce() -> Result<(), StreamsFailure> + Send + 'static,
    ) -> Result<(), StartError> {
        let failure = self.failure.clone();
        let stop = self.stop.clone();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let ended = ended
                .unwrap_or_else(|_| Err(StreamsFailure::Failed(format!("thread {name} panicked"))));
            if let Err(reason) = ended {
                // The other threads stop too: otherwise they would get its tasks and stop at the
                // same record, one after the other.
                stop.store(true, Ordering::Relaxed);
                let callbacks = {
                    let mut failure = failure.lock();
                    failure.reason.get_or_insert_with(|| reason.clone());
                    failure.callbacks.clone()
                };
                for callback in callbacks {
                    let callback = std::panic::AssertUnwindSafe(|| callback(&reason));
                    if std::panic::catch_unwind(callback).is_err() {
                        tracing::error!(%reason, "what was to hear that the instance has failed panicked");
                    }
                }
            }
        });
        self.threads
            .push((waker, thread.map_err(StartError::Thread)?));
        Ok(())
    }

    /// The topology on this cluster.
    #[must_use]
    pub fn plan(&self) -> Arc<Plan> {
        self.plan.clone()
    }

    /// Reads the stores of the tasks of this instance.
    #[must_use]
    pub fn queries(&self) -> Queries {
        self.queries.clone()
    }

    /// The instances of the application, and which task runs on which.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        self.cluster.clone()
    }

    /// What the instance is doing at the moment.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let mut status = self.board.status(Instant::now());
        status.problems.extend(self.cluster.problems());
        status.ready = status.problems.is_empty();
        if let Some(reason) = &self.failure.lock().reason {
            status.ready = false;
            status.problems.insert(0, format!("stopped: {reason}"));
        }
        status
    }

    /// Why a thread has stopped for good, if one has. The others then commit and stop as well; what
    /// remains to be done is to drop this, and to end the process or start again.
    #[must_use]
    pub fn failure(&self) -> Option<StreamsFailure> {
        self.failure.lock().reason.clone()
    }

    /// Calls `callback` when a thread stops for good, or at once if one already has; for each such
    /// thread, on that thread, while the others still commit. So it must not end the process, nor
    /// stop or drop this, which waits for the thread: it has to signal another thread to do so.
    pub fn on_failure(&self, callback: impl Fn(&StreamsFailure) + Send + Sync + 'static) {
        let callback: OnFailure = Arc::new(callback);
        let reason = {
            let mut failure = self.failure.lock();
            failure.callbacks.push(callback.clone());
            failure.reason.clone()
        };
        if let Some(reason) = reason {
            callback(&reason);
        }
    }

    /// Commits, flushes and closes all tasks, and waits for it. Blocks.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (waker, _) in &self.threads {
            waker.wake();
        }
        // First, so that it does not follow what the stream threads are closing.
        self.standby_thread = None;
        for (_, thread) in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread panicked while it stopped");
            }
        }
        self.messenger = None;
    }
}

impl From<MessengerFault> for StartError {
    fn from(fault: MessengerFault) -> Self {
        match fault {
            MessengerFault::Producer(fault) => Self::Kafka(fault),
            MessengerFault::Thread(error) => Self::Thread(error),
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;
    use crate::topology::TopologyBuilder;
    use crate::{Offset, Partition};

    #[test]
    fn an_instance_without_threads_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        // Nothing listens there: asking the cluster first would fail with that instead.
        let mut config = StreamsConfig::new("app", "localhost:1", "instance", &state_dir);
        config.num_stream_threads = 0;
        assert!(matches!(start(&config), Err(StartError::NoStreamThreads)));
        assert!(!state_dir.exists());
    }

    #[test]
    fn an_application_id_that_no_topic_can_have_is_refused_before_anything_is_touched() {
        for id in ["", "my app", "naïve", &"a".repeat(201)] {
            let folder = tempfile::tempdir().unwrap();
            let state_dir = folder.path().join("state");
            let config = StreamsConfig::new(id, "localhost:1", "instance", &state_dir);
            let refused = start(&config).map(drop).unwrap_err();
            let is_it = matches!(&refused, StartError::InvalidApplicationId(of) if of == id);
            assert!(is_it && refused.is_of_configuration(), "{refused}");
            assert!(!state_dir.exists());
        }
    }

    #[test]
    fn a_property_that_would_break_a_promise_is_refused() {
        for name in [
            "isolation.level",
            "enable.idempotence",
            "group.protocol",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut config = StreamsConfig::new("app", "localhost:1", "instance", folder.path());
            let value = "read_uncommitted".to_owned();
            config.kafka_properties.insert(name.to_owned(), value);
            let refused = start(&config).map(drop).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name} is")), "{refused}");
        }
    }

    #[test]
    fn what_a_new_start_does_not_mend_is_of_the_configuration() {
        let topic = || "app-stores-changelog".to_owned();
        let too_few_brokers = TopicError::TooFewBrokers {
            topic: topic(),
            replicas: 3,
        };
        let said = too_few_brokers.to_string();
        assert!(said.contains("replication factor"), "{said}");
        let unequal = TopologyFault::NotCopartitioned {
            subtopology: 0,
            processors: "p".to_owned(),
            topics: "a 1, b 2".to_owned(),
        };
        let missing = || TopologyFault::MissingTopic { topic: topic() };
        let lasting: [StartError; 6] = [
            TopologyFaults(vec![missing(), unequal]).into(),
            ForeignPosition {
                group: "group".to_owned(),
                topic: "topic".to_owned(),
                partition: Partition(0),
                position: Offset(1),
                application_id: "app".to_owned(),
            }
            .into(),
            StateError::NewerFormat {
                path: "state".into(),
                found: 9,
                supported: 2,
            }
            .into(),
            StateError::OtherApplication {
                path: "state".into(),
                expected: "app".to_owned(),
                found: "other".to_owned(),
            }
            .into(),
            TopicError::PartitionCount {
                topic: topic(),
                found: 1,
                needed: 4,
            }
            .into(),
            TopicError::CleanupPolicy {
                topic: topic(),
                found: "delete".to_owned(),
                needed: "compact",
            }
            .into(),
        ];
        for error in lasting {
            assert!(error.is_of_configuration(), "{error}");
        }

        let fault = || KafkaFault::Retriable {
            action: "list topics",
            reason: "nobody answers".to_owned(),
        };
        let locked = StateError::Locked {
            path: "state".into(),
            holder: None,
        };
        for error in [
            StartError::Kafka(fault()),
            StartError::Topics(TopicError::Kafka(fault())),
            StartError::Topics(too_few_brokers),
            StartError::State(locked),
            StartError::Topology(TopologyFaults(vec![missing()])),
        ] {
            assert!(!error.is_of_configuration(), "{error}");
        }
    }

    fn start(config: &StreamsConfig) -> Result<Streams, StartError> {
        Streams::start(
            Arc::new(TopologyBuilder::new().build().unwrap()),
            &[],
            config,
            Metrics::new(&Registry::new()).unwrap(),
        )
    }
}
