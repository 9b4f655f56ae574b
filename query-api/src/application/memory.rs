//! The application without a broker: the topology test driver stands in for Kafka, and
//! what it commits is read as an instance reads its stores. Faults can be injected, and
//! tasks moved between several instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turnstile_engine::driver::TopologyTestDriver;
use turnstile_engine::runtime::{
    Host, InstanceMetadata, InstancePhase, InstanceStatus, Rehearsal, StandbyReport,
};
use turnstile_engine::{Partition, TaskId, TimestampMs};
use turnstile_state::{
    Backend, Batch, Entry, KeyRange, ScanDirection, StateError, StoreId, StoreStats,
};
use turnstile_ticketing::ids::TicketId;
use turnstile_ticketing::orders::ListedTicket;
use turnstile_ticketing::{Service, Ticketing, TicketingConfig, topology};

use super::{Application, BoxFuture, Owners, Rows, SendFailure, Stores, TopologyForm};
use crate::peers::Peers;

/// The number of partitions of everything.
pub(crate) const PARTITIONS: i32 = 4;

/// A fault that is injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    Healthy,
    /// All tasks are moving.
    NotYet,
    /// All stores are broken.
    Broken,
    /// Commands are written, and never decided.
    Deaf,
    /// Commands cannot be written.
    Mute,
    /// Whether commands are written stays unknown.
    Stalled,
    /// Commands are written, and the producer does not hear of it. They are not decided.
    Unacknowledged,
    /// Reading panics.
    Panics,
}

/// What all instances share: the topics, and with them the committed state.
pub(crate) struct World {
    driver: Mutex<TopologyTestDriver>,
    ticketing: Ticketing,
    fault: Mutex<Fault>,
    rehearsals: Mutex<Vec<Arc<Rehearsal>>>,
}

impl World {
    pub(crate) fn new(services: &[Service]) -> Arc<Self> {
        let topics = turnstile_ticketing::topics::ALL.map(|name| (name.to_owned(), PARTITIONS));
        let ticketing = ticketing(services);
        let driver = TopologyTestDriver::with_topics(ticketing.topology.clone(), topics);
        let mut driver = driver.expect("the topology fits its topics");
        driver.set_now(TimestampMs(1_700_000_000_000));
        Arc::new(Self {
            driver: Mutex::new(driver),
            ticketing,
            fault: Mutex::new(Fault::Healthy),
            rehearsals: Mutex::default(),
        })
    }

    /// Processes what is in the topics.
    pub(crate) fn run(&self) {
        let run = self.driver.lock().run();
        run.expect("every record can be processed");
        self.tell();
    }

    fn step(&self, choice: usize) {
        {
            let mut driver = self.driver.lock();
            driver.step(choice).expect("every record can be processed");
            driver.commit();
        }
        self.tell();
    }

    fn tell(&self) {
        for rehearsal in self.rehearsals.lock().iter() {
            rehearsal.committed();
        }
    }

    fn tasks(&self) -> Vec<(TaskId, Arc<dyn Backend>)> {
        self.driver.lock().backends().collect()
    }
}

fn ticketing(services: &[Service]) -> Ticketing {
    let config = TicketingConfig {
        services: services.iter().copied().collect(),
        ..TicketingConfig::default()
    };
    topology(&config).expect("the topology is right")
}

/// The standbys of a partition, and how far they are behind, if that is known.
type BelievedStandbys = Vec<(Host, Option<u64>)>;

/// What an instance believes of the others.
#[derive(Default)]
pub(crate) struct Beliefs {
    /// Instance and address, by partition.
    owners: Mutex<BTreeMap<i32, Host>>,
    standbys: Mutex<BTreeMap<i32, BelievedStandbys>>,
}

impl Owners for Beliefs {
    fn owner(&self, task: TaskId) -> Option<Host> {
        self.owners.lock().get(&task.partition.0).cloned()
    }

    fn standbys(&self, task: TaskId) -> Vec<(Host, StandbyReport)> {
        let standbys = self.standbys.lock();
        let of_task = standbys.get(&task.partition.0).into_iter().flatten();
        let report = |records_behind| StandbyReport {
            task,
            records_behind,
            stale_ms: Some(0),
        };
        of_task
            .map(|(host, records_behind)| (host.clone(), report(*records_behind)))
            .collect()
    }

    fn instances(&self) -> Vec<InstanceMetadata> {
        let owners = self.owners.lock();
        let instance = |host: &Host| InstanceMetadata {
            instance: host.instance.to_string(),
            address: host.address.as_deref().map(str::to_owned),
            phase: InstancePhase::Running,
            heard_ms_ago: 0,
            tasks: Vec::new(),
            standbys: Vec::new(),
            fits: true,
        };
        owners.values().map(instance).collect()
    }
}

pub(crate) struct MemoryApplication {
    world: Arc<World>,
    rehearsal: Arc<Rehearsal>,
    pub(crate) beliefs: Arc<Beliefs>,
    rows: Rows,
}

impl MemoryApplication {
    /// An instance that has no task yet.
    pub(crate) fn of(world: &Arc<World>, peers: Peers) -> Self {
        let plan = world.driver.lock().plan().clone();
        let rehearsal = Arc::new(Rehearsal::new(plan));
        world.rehearsals.lock().push(rehearsal.clone());
        let beliefs = Arc::new(Beliefs::default());
        let stores = Stores::new(rehearsal.queries(), beliefs.clone(), Arc::new(peers));
        Self {
            world: world.clone(),
            rehearsal,
            beliefs,
            rows: Rows::new(world.ticketing.clone(), stores),
        }
    }

    /// The only instance, which has all tasks.
    pub(crate) fn alone(services: &[Service], peers: Peers) -> Self {
        let application = Self::of(&World::new(services), peers);
        (0..PARTITIONS).for_each(|partition| application.own(partition));
        application
    }

    fn for_each(&self, partition: i32, act: impl Fn(TaskId, Arc<dyn Backend>)) {
        let tasks = self.world.tasks().into_iter();
        tasks
            .filter(|(task, _)| task.partition == Partition(partition))
            .for_each(|(task, backend)| act(task, backend));
    }

    /// The tasks of a partition run here from now on.
    pub(crate) fn own(&self, partition: i32) {
        self.for_each(partition, |task, backend| self.rehearsal.run(task, backend));
    }

    /// The tasks of a partition do not run here any more.
    pub(crate) fn leave(&self, partition: i32) {
        self.for_each(partition, |task, _| self.rehearsal.leave(task));
    }

    /// The tasks of a partition have standbys here that were up to date this long ago.
    pub(crate) fn follow(&self, partition: i32, age: Duration) {
        let as_of = std::time::Instant::now().checked_sub(age);
        let as_of = as_of.expect("the machine runs for longer");
        self.for_each(partition, |task, backend| {
            self.rehearsal.follow(task, backend, as_of);
        });
    }

    /// This instance believes that `host` runs the tasks of a partition.
    pub(crate) fn believe(&self, partition: i32, host: Option<Host>) {
        let mut owners = self.beliefs.owners.lock();
        match host {
            Some(host) => drop(owners.insert(partition, host)),
            None => drop(owners.remove(&partition)),
        }
    }

    /// This instance believes in these standbys of a partition.
    pub(crate) fn believe_in_standbys(&self, partition: i32, standbys: BelievedStandbys) {
        self.beliefs.standbys.lock().insert(partition, standbys);
    }

    /// Whether anybody waits for a row here.
    pub(crate) fn anyone_waits(&self) -> bool {
        self.rehearsal.anyone_waits()
    }

    pub(crate) fn plant(&self, fault: Fault) {
        *self.world.fault.lock() = fault;
        for (task, backend) in self.world.tasks() {
            match fault {
                Fault::NotYet => self.rehearsal.restore(task),
                Fault::Broken => self.rehearsal.run(task, Arc::new(Broken { panics: false })),
                Fault::Panics => self.rehearsal.run(task, Arc::new(Broken { panics: true })),
                Fault::Healthy
                | Fault::Deaf
                | Fault::Mute
                | Fault::Stalled
                | Fault::Unacknowledged => {
                    self.rehearsal.run(task, backend);
                }
            }
        }
    }

    /// Appends a command as another service would, without processing it.
    pub(crate) fn pipe(&self, topic: &str, key: &str, command: &str) {
        let mut driver = self.world.driver.lock();
        driver.pipe(topic, Some(key), Some(command.as_bytes()));
    }

    /// Processes what a fault has left in the topics.
    pub(crate) fn run(&self) {
        self.world.run();
    }

    /// Processes and commits one record that a fault has left in the topics: of the tasks that have
    /// one, by subtopology, the one at `choice` modulo their number.
    pub(crate) fn step(&self, choice: usize) {
        self.world.step(choice);
    }

    /// Lets time pass.
    pub(crate) fn advance(&self, time: Duration) {
        let advanced = self.world.driver.lock().advance(time);
        advanced.expect("every record can be processed");
    }

    /// The committed state of a ticket in the catalog of Orders.
    pub(crate) fn listed_ticket(&self, id: &TicketId) -> Option<ListedTicket> {
        let stores = self.world.ticketing.orders;
        let store = stores.expect("Orders is run").catalog;
        let entry = self.world.driver.lock().get(store, id.as_str(), id)?;
        entry.listed()
    }
}

impl Application for MemoryApplication {
    fn rows(&self) -> &Rows {
        &self.rows
    }

    fn status(&self) -> InstanceStatus {
        InstanceStatus {
            ready: true,
            problems: Vec::new(),
            tasks: Vec::new(),
        }
    }

    fn topology(&self, form: TopologyForm) -> String {
        format!("{form:?}")
    }

    fn send<'a>(
        &'a self,
        topic: &'static str,
        key: &'a str,
        command: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), SendFailure>> {
        let fault = *self.world.fault.lock();
        let failure = |may_be_written| SendFailure {
            may_be_written,
            source: "no broker".into(),
        };
        match fault {
            Fault::Mute => return Box::pin(async move { Err(failure(false)) }),
            Fault::Stalled => return Box::pin(std::future::pending()),
            _ => {}
        }
        let mut driver = self.world.driver.lock();
        driver.pipe(topic, Some(key), Some(&command));
        drop(driver);
        match fault {
            Fault::Unacknowledged => return Box::pin(async move { Err(failure(true)) }),
            Fault::Deaf => {}
            _ => self.run(),
        }
        Box::pin(async { Ok(()) })
    }
}

/// Stores that cannot be read.
struct Broken {
    panics: bool,
}

impl Broken {
    fn fail<T>(&self, store: StoreId) -> Result<T, StateError> {
        assert!(!self.panics, "planted");
        Err(StateError::UnknownStore(store))
    }
}

impl Backend for Broken {
    fn get(&self, store: StoreId, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.fail(store)
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        _: &KeyRange,
        _: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        self.fail(store)
    }

    fn write(&self, _: Batch) -> Result<(), StateError> {
        self.fail(StoreId(0))
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        self.fail(StoreId(0))
    }

    fn flush(&self) -> Result<(), StateError> {
        self.fail(StoreId(0))
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        self.fail(StoreId(0))
    }
}
