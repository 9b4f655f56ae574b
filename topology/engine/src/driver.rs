//! Runs a topology without a broker, on a clock that the test sets.
//!
//! The driver runs the very tasks that run in production, over topics in memory. What tasks do is
//! uncommitted until [`TopologyTestDriver::commit`]: until then other tasks do not see their
//! outputs, as with read-committed consumers, and a crash loses them. As in production, tasks can
//! go on between the start of a commit and its end ([`TopologyTestDriver::begin_commit`]), and
//! tasks that are connected only through external topics can commit separately
//! ([`TopologyTestDriver::begin_commit_of`]). Changelogs are written and replayed for real,
//! transaction markers leave gaps in offsets, and every order of records that a cluster can produce
//! can be produced with [`TopologyTestDriver::step`].
//!
//! It measures nothing, and knows no threads, groups or rebalances.

mod commits;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use turnstile_state::{Backend, Codec, KeyRange, MemoryBackend, ScanDirection, StoreId};

use self::commits::{CommitUnderWay, component};
pub use self::log::LogRecord;
use self::log::Logs;
use crate::partitioner::partition_of;
use crate::record::{Header, InputRecord, OutputRecord};
use crate::task::{ChangelogRestore, Dispatch, Processed, Task, TaskError};
use crate::topology::{
    Component, Components, Plan, PlanStoreKind, Store, Topology, TopologyFaults,
};
use crate::{Offset, Partition, TaskId, TaskStatus, TimestampMs};

/// How many timers one task fires in one turn.
const TIMERS_PER_TURN: usize = 100;

/// Runs a topology without a broker.
pub struct TopologyTestDriver {
    plan: Arc<Plan>,
    logs: Logs,
    tasks: BTreeMap<TaskId, Task>,
    /// By task and source: the next offset to read, including uncommitted reads.
    read: BTreeMap<(TaskId, usize), Offset>,
    committed: BTreeMap<(TaskId, usize), Offset>,
    components: Components,
    uncommitted: BTreeMap<Component, Vec<OutputRecord>>,
    /// In the order in which they began.
    under_way: Vec<CommitUnderWay>,
    results: BTreeMap<(TaskId, String), Vec<Processed>>,
    taken: BTreeMap<String, usize>,
    now: TimestampMs,
}

impl TopologyTestDriver {
    /// A driver with `partitions` partitions for every external topic, at an arbitrary time.
    ///
    /// # Errors
    ///
    /// When the topology does not fit the topics.
    pub fn new(topology: Arc<Topology>, partitions: i32) -> Result<Self, TopologyFaults> {
        let counts: Vec<(String, i32)> = topology
            .external_topics()
            .into_iter()
            .map(|topic| (topic.to_owned(), partitions))
            .collect();
        Self::with_topics(topology, counts)
    }

    /// A driver with these external topics and their partition counts.
    ///
    /// # Errors
    ///
    /// When the topology does not fit the topics.
    pub fn with_topics(
        topology: Arc<Topology>,
        topics: impl IntoIterator<Item = (String, i32)>,
    ) -> Result<Self, TopologyFaults> {
        Self::with_limits(topology, topics, &BTreeMap::new())
    }

    /// A driver with these external topics and their partition counts. Some of them accept no
    /// larger records than the bytes given here: key, value and headers.
    ///
    /// # Errors
    ///
    /// When the topology does not fit the topics.
    pub fn with_limits(
        topology: Arc<Topology>,
        topics: impl IntoIterator<Item = (String, i32)>,
        record_bytes_max: &BTreeMap<String, usize>,
    ) -> Result<Self, TopologyFaults> {
        let counts: BTreeMap<String, i32> = topics.into_iter().collect();
        let plan = Arc::new(topology.resolve_within("test", &counts, record_bytes_max)?);
        let internal = plan.internal_topics();
        let all = counts.into_iter().chain(
            internal
                .into_iter()
                .map(|topic| (topic.name, topic.partitions)),
        );
        let mut driver = Self {
            logs: Logs::new(all),
            components: Components::of(&plan),
            plan,
            tasks: BTreeMap::new(),
            read: BTreeMap::new(),
            committed: BTreeMap::new(),
            uncommitted: BTreeMap::new(),
            under_way: Vec::new(),
            results: BTreeMap::new(),
            taken: BTreeMap::new(),
            now: TimestampMs(1_700_000_000_000),
        };
        driver
            .open_tasks()
            .expect("empty changelogs can be applied");
        Ok(driver)
    }

    /// The topology on the driver's topics.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> TimestampMs {
        self.now
    }

    /// Sets the time, possibly backwards, and does nothing else.
    pub fn set_now(&mut self, now: TimestampMs) {
        self.now = now;
    }

    /// Appends a record to `topic`, as a foreign producer would: to the partition of its key by
    /// murmur2, or to partition 0 without a key. Nothing is processed yet.
    ///
    /// # Panics
    ///
    /// When there is no such topic.
    pub fn pipe(
        &mut self,
        topic: &str,
        key: Option<&str>,
        value: Option<&[u8]>,
    ) -> (Partition, Offset) {
        let partitions = self.logs.partitions(topic);
        let partition = key.map_or(Partition(0), |key| partition_of(key.as_bytes(), partitions));
        self.pipe_to(topic, partition, key.map(str::as_bytes), value, &[])
    }

    /// Appends a record with the current time to one partition of `topic`.
    ///
    /// # Panics
    ///
    /// When there is no such partition.
    pub fn pipe_to(
        &mut self,
        topic: &str,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) -> (Partition, Offset) {
        self.pipe_at(topic, partition, key, value, headers, self.now)
    }

    /// Appends a record with the given time to one partition of `topic`.
    ///
    /// # Panics
    ///
    /// When there is no such partition.
    pub fn pipe_at(
        &mut self,
        topic: &str,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
        timestamp: TimestampMs,
    ) -> (Partition, Offset) {
        let offset = self.logs.append(OutputRecord {
            topic: topic.into(),
            partition,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: headers.to_vec(),
            timestamp,
        });
        (partition, offset)
    }

    /// Processes and commits until nothing is left: all records and all due timers.
    ///
    /// # Errors
    ///
    /// When a task stops.
    pub fn run(&mut self) -> Result<(), TaskError> {
        loop {
            let mut any = false;
            while self.step(0)? {
                any = true;
            }
            any |= self.fire_due()?;
            if !any && !self.has_uncommitted() {
                return Ok(());
            }
            self.commit();
        }
    }

    /// Lets time pass, then runs.
    ///
    /// # Errors
    ///
    /// When a task stops.
    pub fn advance(&mut self, time: Duration) -> Result<(), TaskError> {
        self.now = self.now.plus(time);
        self.run()
    }

    /// Processes one record. Each task and source has one record that can come next; of these, it
    /// takes the one at `choice` modulo their number. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// When a task stops.
    pub fn step(&mut self, choice: usize) -> Result<bool, TaskError> {
        let ready = self.ready();
        let Some((id, source, record)) = ready.get(choice.checked_rem(ready.len()).unwrap_or(0))
        else {
            return Ok(false);
        };
        let (id, source, record) = (*id, *source, record.clone());
        let component = component(&self.components, id);
        let task = self
            .tasks
            .get_mut(&id)
            .expect("every task of the plan is open");
        let input = InputRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp: record.timestamp,
            offset: record.offset,
            decoded: None,
        };
        let processed = task.process(source, &input, self.now)?;
        let topic = task
            .plan()
            .sources
            .get(source)
            .map(|source| source.topic.to_string());
        self.results
            .entry((id, topic.unwrap_or_default()))
            .or_default()
            .push(processed);
        task.take_outputs_into(self.uncommitted.entry(component).or_default());
        self.read.insert((id, source), Offset(record.offset.0 + 1));
        Ok(true)
    }

    /// Fires the timers and punctuators that are due. Returns whether a timer fired, or any of them
    /// wrote or sent anything.
    ///
    /// # Errors
    ///
    /// When a task stops.
    pub fn fire_due(&mut self) -> Result<bool, TaskError> {
        let mut any = false;
        for (id, task) in &mut self.tasks {
            let component = component(&self.components, *id);
            let sent = self.uncommitted.entry(component).or_default();
            while task.next_due(self.now).is_some_and(|due| due <= self.now) {
                let fired = task.fire_due(self.now, TIMERS_PER_TURN, &mut |_| {})?;
                any |= fired > 0 || task.has_writes();
                let before = sent.len();
                task.take_outputs_into(sent);
                any |= sent.len() > before;
            }
        }
        Ok(any)
    }

    /// Aborts the open transaction, and those whose commits have begun, without a trace; their
    /// records are read again.
    pub fn abort(&mut self) {
        self.under_way.clear();
        self.uncommitted.clear();
        self.read.clone_from(&self.committed);
        for task in self.tasks.values_mut() {
            task.abort();
        }
    }

    /// Forgets everything but the topics, and restores the tasks from their changelogs: whatever is
    /// uncommitted is lost and its records are read again.
    ///
    /// # Errors
    ///
    /// When a changelog cannot be applied.
    pub fn crash_and_restore(&mut self) -> Result<(), TaskError> {
        self.under_way.clear();
        self.uncommitted.clear();
        self.read.clone_from(&self.committed);
        self.tasks.clear();
        self.open_tasks()
    }

    /// The committed records of `topic` that were not taken before, in commit order.
    ///
    /// # Panics
    ///
    /// When there is no such topic.
    pub fn take(&mut self, topic: &str) -> Vec<LogRecord> {
        let all = self.logs.all(topic);
        let taken = self.taken.insert(topic.to_owned(), all.len()).unwrap_or(0);
        all.into_iter().skip(taken).collect()
    }

    /// All committed records of `topic`, in commit order.
    ///
    /// # Panics
    ///
    /// When there is no such topic.
    #[must_use]
    pub fn all(&self, topic: &str) -> Vec<LogRecord> {
        self.logs.all(topic)
    }

    /// The full name of an internal topic, given a name such as `dlq` or `stores-changelog`.
    #[must_use]
    pub fn internal(&self, name: &str) -> String {
        format!("{}-{name}", self.plan.application_id)
    }

    /// The outcome of each record of `topic`, in order, over all tasks, including aborted attempts.
    #[must_use]
    pub fn results(&self, topic: &str) -> Vec<Processed> {
        self.results
            .iter()
            .filter(|((_, of), _)| of == topic)
            .flat_map(|(_, results)| results.clone())
            .collect()
    }

    /// The committed value of `key`, in the partition that `partition_key` belongs to.
    ///
    /// # Panics
    ///
    /// When the store is not part of the topology or its row cannot be read.
    #[must_use]
    pub fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: impl AsRef<[u8]>,
        key: &K,
    ) -> Option<V> {
        let (backend, id) = self
            .store_tasks(store)
            .find(|(task, partitions, _)| {
                task.id().partition == partition_of(partition_key.as_ref(), *partitions)
            })
            .map(|(task, _, id)| (task.backend(), id))
            .expect("the store belongs to the topology");
        let value = backend
            .get(id, &key.to_bytes())
            .expect("a memory backend can be read");
        value.map(|value| V::decode(&value).expect("the row is what the codec wrote"))
    }

    /// The committed stores of all tasks.
    #[doc(hidden)]
    pub fn backends(&self) -> impl Iterator<Item = (TaskId, Arc<dyn Backend>)> {
        let tasks = self.tasks.iter();
        tasks.map(|(id, task)| (*id, task.backend().clone()))
    }

    /// All committed entries of `store`, by partition and key.
    ///
    /// # Panics
    ///
    /// When a row cannot be read.
    #[must_use]
    pub fn entries<K: Codec, V: Codec>(&self, store: Store<K, V>) -> Vec<(K, V)> {
        let mut entries = Vec::new();
        for (task, _, id) in self.store_tasks(store) {
            for (key, value) in rows(task.backend(), id) {
                let key = K::decode(&key).expect("the key is what the codec wrote");
                entries.push((
                    key,
                    V::decode(&value).expect("the row is what the codec wrote"),
                ));
            }
        }
        entries
    }

    /// The committed pending timers of `processor`: deadline and key, in firing order within a
    /// task.
    #[must_use]
    pub fn timers(&self, processor: &str) -> Vec<(TimestampMs, String)> {
        let mut timers = Vec::new();
        for task in self.tasks.values() {
            for (id, store) in task.plan().stores_by_id() {
                let PlanStoreKind::TimerRows(index) = store.kind else {
                    continue;
                };
                if self
                    .plan
                    .topology
                    .processors
                    .get(index)
                    .is_none_or(|p| p.name != processor)
                {
                    continue;
                }
                timers.extend(rows(task.backend(), id).into_iter().filter_map(|(row, _)| {
                    let (deadline, key) = row.split_first_chunk::<8>()?;
                    let deadline = TimestampMs(i64::try_from(u64::from_be_bytes(*deadline)).ok()?);
                    Some((deadline, String::from_utf8_lossy(key).into_owned()))
                }));
            }
        }
        timers
    }

    /// Whether a commit would change anything.
    fn has_uncommitted(&self) -> bool {
        !self.under_way.is_empty()
            || self.read != self.committed
            || self.uncommitted.values().any(|sent| !sent.is_empty())
            || self.tasks.values().any(Task::has_writes)
    }

    fn store_tasks<K, V>(&self, store: Store<K, V>) -> impl Iterator<Item = (&Task, i32, StoreId)> {
        let index = store.index_in(self.plan.topology.key);
        let index = index.expect("the store is of the topology of this driver");
        let kind = PlanStoreKind::Declared(index);
        self.tasks.values().filter_map(move |task| {
            let (id, _) = task
                .plan()
                .stores_by_id()
                .find(|(_, store)| store.kind == kind)?;
            Some((task, task.plan().partitions, id))
        })
    }

    /// The next record of every task and source that has one.
    fn ready(&self) -> Vec<(TaskId, usize, LogRecord)> {
        let mut ready = Vec::new();
        for (id, task) in &self.tasks {
            for (source, of) in task.plan().sources.iter().enumerate() {
                let next = self.read.get(&(*id, source)).copied().unwrap_or(Offset(0));
                if let Some(record) = self.logs.first_from(&of.topic, id.partition, next) {
                    ready.push((*id, source, record.clone()));
                }
            }
        }
        ready
    }

    fn open_tasks(&mut self) -> Result<(), TaskError> {
        let ids: BTreeSet<TaskId> = self.plan.tasks().into_iter().collect();
        for id in ids {
            let plan = self
                .plan
                .subtopology(id.subtopology)
                .expect("tasks are of subtopologies of the plan");
            let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::new(&plan.store_specs()));
            let mut task = Task::new(id, self.plan.topology.clone(), plan.clone(), backend);
            task.become_status(TaskStatus::Restoring);
            self.tasks.insert(id, task);
        }
        self.restore()?;
        for task in self.tasks.values_mut() {
            task.start(self.now);
        }
        Ok(())
    }

    /// Reads each partition of the changelog once, for all tasks.
    fn restore(&self) -> Result<(), TaskError> {
        let mut by_partition: BTreeMap<Partition, Vec<ChangelogRestore>> = BTreeMap::new();
        for task in self.tasks.values() {
            let restores = by_partition.entry(task.id().partition).or_default();
            restores.extend(task.restore()?);
        }
        for (partition, mut tasks) in by_partition {
            let Some(changelog) = tasks.first().map(|task| task.changelog.clone()) else {
                continue;
            };
            let dispatch = Dispatch::to(&tasks);
            let mut next = Offset(0);
            while let Some(record) = self.logs.first_from(&changelog, partition, next) {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                dispatch.hand_out(&mut tasks, record.offset, key, value)?;
                next = Offset(record.offset.0 + 1);
            }
            for task in &mut tasks {
                task.write(next)?;
            }
        }
        Ok(())
    }
}

fn rows(backend: &Arc<dyn Backend>, store: StoreId) -> Vec<turnstile_state::Entry> {
    let rows = backend.scan(store, &KeyRange::all(), ScanDirection::Forward);
    rows.expect("a memory backend can be read")
        .map(|row| row.expect("a memory backend can be read"))
        .collect()
}
