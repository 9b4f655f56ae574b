//! Interactive queries: reads of the stores of the tasks that run in this process.
//!
//! Queries see committed state only and never touch the thread that processes:
//! they read the backend that the task writes its committed batches to. A task is
//! readable from the moment it runs until it is suspended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use turnstile_state::{Backend, Codec, CodecError, KeyRange, ScanDirection, StateError, StoreId};

use crate::partitioner::partition_of;
use crate::topology::{Plan, PlanStoreKind, Store};
use crate::{Partition, SubtopologyId, TaskId, TaskStatus};

/// Why a query has no answer here.
#[derive(Debug, Error)]
pub enum QueryError {
    /// Another instance owns the partition, or nobody does at the moment.
    #[error("partition {partition} of store {store} is not owned by this instance")]
    NotOwned {
        /// The store.
        store: String,
        /// The partition of the key that was asked for.
        partition: Partition,
    },
    /// The task is here but does not run yet: try again soon.
    #[error("task {task} is {status}")]
    NotRunning {
        /// The task.
        task: TaskId,
        /// What it does instead.
        status: TaskStatus,
    },
    /// The store is not part of the running topology.
    #[error("there is no store {0} in the topology of this instance")]
    UnknownStore(String),
    /// The store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A row is not what its codec writes.
    #[error("store {store} holds a row that cannot be read")]
    UnreadableRow {
        /// The store.
        store: String,
        /// What is wrong with the row.
        #[source]
        source: CodecError,
    },
}

/// A callback for the commit that writes a key.
type Callback = Box<dyn FnOnce() + Send>;

/// A key of a store of a task.
type WatchedKey = (TaskId, StoreId, Vec<u8>);

#[derive(Default)]
struct Watches {
    by_key: HashMap<WatchedKey, Vec<(u64, Callback)>>,
}

enum Presence {
    Running(Arc<dyn Backend>),
    NotRunning(TaskStatus),
}

/// What is shared between the stream threads and the readers.
#[derive(Default)]
struct Shared {
    tasks: RwLock<HashMap<TaskId, Presence>>,
    watches: Mutex<Watches>,
    next_watch: AtomicU64,
}

/// Reads the stores of the tasks of this instance; cheap to clone.
#[derive(Clone)]
pub struct Queries {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
}

/// Where a store is.
struct Place {
    subtopology: SubtopologyId,
    partitions: i32,
    id: StoreId,
}

impl Queries {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            shared: Arc::default(),
        }
    }

    /// The number of partitions of `store`.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn partitions<K, V>(&self, store: Store<K, V>) -> Result<i32, QueryError> {
        Ok(self.place(store)?.partitions)
    }

    /// The partition that `partition_key` belongs to in `store`.
    ///
    /// # Errors
    ///
    /// [`QueryError::UnknownStore`].
    pub fn partition_of<K, V>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
    ) -> Result<Partition, QueryError> {
        Ok(partition_of(
            partition_key.as_bytes(),
            self.place(store)?.partitions,
        ))
    }

    /// The value of `key`, in the partition that `partition_key` belongs to.
    ///
    /// # Errors
    ///
    /// When the task is not here, does not run, or its store fails.
    pub fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
    ) -> Result<Option<V>, QueryError> {
        let place = self.place(store)?;
        let backend = self.running(
            store,
            &place,
            partition_of(partition_key.as_bytes(), place.partitions),
        )?;
        let value = backend.get(place.id, &key.to_bytes())?;
        value
            .map(|value| V::decode(&value))
            .transpose()
            .map_err(|source| self.unreadable(store, source))
    }

    /// At most `limit` entries of `range` in one partition of `store`.
    ///
    /// # Errors
    ///
    /// When the task is not here, does not run, or its store fails.
    pub fn scan<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        partition: Partition,
        range: &KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> Result<Vec<(K, V)>, QueryError> {
        let place = self.place(store)?;
        let backend = self.running(store, &place, partition)?;
        let mut entries = Vec::new();
        for entry in backend.scan(place.id, range, direction)?.take(limit) {
            let (key, value) = entry?;
            let entry = K::decode(&key).and_then(|key| Ok((key, V::decode(&value)?)));
            entries.push(entry.map_err(|source| self.unreadable(store, source))?);
        }
        Ok(entries)
    }

    /// Calls `callback` once, when a commit has written `key` (from any thread, and
    /// it must not block). To wait for a value: watch, then look, then wait.
    /// Dropping the watch ends it.
    ///
    /// # Errors
    ///
    /// When the task is not here or does not run.
    pub fn watch<K: Codec, V>(
        &self,
        store: Store<K, V>,
        partition_key: &str,
        key: &K,
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<Watch, QueryError> {
        let place = self.place(store)?;
        let partition = partition_of(partition_key.as_bytes(), place.partitions);
        self.running(store, &place, partition)?;
        let task = TaskId {
            subtopology: place.subtopology,
            partition,
        };
        let key = (task, place.id, key.to_bytes());
        let number = self.shared.next_watch.fetch_add(1, Ordering::Relaxed);
        let mut watches = self.shared.watches.lock();
        watches
            .by_key
            .entry(key.clone())
            .or_default()
            .push((number, Box::new(callback)));
        Ok(Watch {
            shared: self.shared.clone(),
            key,
            number,
        })
    }

    /// Says that a task does something else than run, or is gone.
    pub(crate) fn set_status(&self, task: TaskId, status: TaskStatus) {
        let mut tasks = self.shared.tasks.write();
        match status {
            TaskStatus::Closed => drop(tasks.remove(&task)),
            status => drop(tasks.insert(task, Presence::NotRunning(status))),
        }
    }

    /// Says that a task runs and can be read.
    pub(crate) fn set_running(&self, task: TaskId, backend: Arc<dyn Backend>) {
        self.shared
            .tasks
            .write()
            .insert(task, Presence::Running(backend));
    }

    /// The tasks that can be read, with their stores.
    pub(crate) fn readable(&self) -> Vec<(TaskId, Arc<dyn Backend>)> {
        let tasks = self.shared.tasks.read();
        let running = tasks.iter().filter_map(|(task, presence)| match presence {
            Presence::Running(backend) => Some((*task, backend.clone())),
            Presence::NotRunning(_) => None,
        });
        running.collect()
    }

    /// Whether anybody waits for a key, so that a commit has to tell its keys.
    pub(crate) fn anyone_waits(&self) -> bool {
        !self.shared.watches.lock().by_key.is_empty()
    }

    /// Tells those who wait for any of `keys` of a task that a commit has written it.
    pub(crate) fn tell(&self, task: TaskId, keys: impl Iterator<Item = (StoreId, Vec<u8>)>) {
        let mut callbacks = Vec::new();
        {
            let mut watches = self.shared.watches.lock();
            for (store, key) in keys {
                callbacks.extend(
                    watches
                        .by_key
                        .remove(&(task, store, key))
                        .into_iter()
                        .flatten(),
                );
            }
        }
        for (_, callback) in callbacks {
            callback();
        }
    }

    fn place<K, V>(&self, store: Store<K, V>) -> Result<Place, QueryError> {
        let kind = PlanStoreKind::Declared(store.index);
        let found = self.plan.subtopologies.iter().find_map(|subtopology| {
            let (id, _) = subtopology
                .stores_by_id()
                .find(|(_, store)| store.kind == kind)?;
            Some(Place {
                subtopology: subtopology.id,
                partitions: subtopology.partitions,
                id,
            })
        });
        found.ok_or_else(|| QueryError::UnknownStore(self.store_name(store)))
    }

    fn running<K, V>(
        &self,
        store: Store<K, V>,
        place: &Place,
        partition: Partition,
    ) -> Result<Arc<dyn Backend>, QueryError> {
        let task = TaskId {
            subtopology: place.subtopology,
            partition,
        };
        match self.shared.tasks.read().get(&task) {
            Some(Presence::Running(backend)) => Ok(backend.clone()),
            Some(Presence::NotRunning(status)) => Err(QueryError::NotRunning {
                task,
                status: *status,
            }),
            None => Err(QueryError::NotOwned {
                store: self.store_name(store),
                partition,
            }),
        }
    }

    fn store_name<K, V>(&self, store: Store<K, V>) -> String {
        let name = self
            .plan
            .topology
            .stores
            .get(store.index)
            .map(|store| store.name.clone());
        name.unwrap_or_else(|| format!("number {}", store.index))
    }

    fn unreadable<K, V>(&self, store: Store<K, V>, source: CodecError) -> QueryError {
        QueryError::UnreadableRow {
            store: self.store_name(store),
            source,
        }
    }
}

/// Ends the watch it stands for when it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    key: WatchedKey,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.shared.watches.lock();
        if let Some(waiting) = watches.by_key.get_mut(&self.key) {
            waiting.retain(|(number, _)| *number != self.number);
            if waiting.is_empty() {
                watches.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use turnstile_state::{Batch, MemoryBackend};

    use super::*;
    use crate::{
        Context, Decoded, InputRecord, Processor, ProcessorError, Source, TopologyBuilder,
    };

    struct Quiet;

    impl Processor for Quiet {
        type In = ();

        fn process(&mut self, _: &mut Context<'_>, (): ()) -> Result<(), ProcessorError> {
            Ok(())
        }
    }

    const ID: StoreId = StoreId(1);

    /// The queries of an instance that owns all tasks of one topic with four partitions
    /// or none of them; the store asked for is the second one.
    struct Fixture {
        queries: Queries,
        rows: Store<String, u64>,
        backend: Arc<dyn Backend>,
    }

    fn fixture() -> Fixture {
        let mut builder = TopologyBuilder::new();
        let source = builder.source(Source::new("topic", "group", |_: &InputRecord<'_>| {
            Ok(Decoded::<()>::Skip("not read"))
        }));
        let others = builder.store::<String, u64>("others");
        let rows = builder.store("rows");
        builder
            .processor("quiet", || Quiet)
            .input(source)
            .store(others)
            .store(rows)
            .done();
        let topology = Arc::new(builder.build().unwrap());
        let counts = [("topic".to_owned(), 4)].into();
        let plan = Arc::new(topology.resolve("app", &counts).unwrap());
        let backend = Arc::new(MemoryBackend::new(&plan.subtopologies[0].store_specs()));
        Fixture {
            queries: Queries::new(plan),
            rows,
            backend,
        }
    }

    fn task_of(key: &str) -> TaskId {
        TaskId {
            subtopology: SubtopologyId(0),
            partition: partition_of(key.as_bytes(), 4),
        }
    }

    impl Fixture {
        fn run(&self, key: &str) {
            self.queries.set_running(task_of(key), self.backend.clone());
        }

        fn get(&self, key: &str) -> Result<Option<u64>, QueryError> {
            self.queries.get(self.rows, key, &key.to_owned())
        }

        fn commit(&self, key: &str, value: &[u8]) {
            let mut batch = Batch::new();
            batch.put(ID, key.as_bytes(), value);
            self.backend.write(batch).unwrap();
            let keys = [(ID, key.as_bytes().to_vec())];
            self.queries.tell(task_of(key), keys.into_iter());
        }

        /// A watch of `key` and how often it was told.
        fn watch(&self, key: &str) -> (Result<Watch, QueryError>, Arc<AtomicUsize>) {
            let told = Arc::new(AtomicUsize::new(0));
            let tell = told.clone();
            let watch = self
                .queries
                .watch(self.rows, key, &key.to_owned(), move || {
                    tell.fetch_add(1, Ordering::Relaxed);
                });
            (watch, told)
        }
    }

    #[test]
    fn only_a_running_task_of_this_instance_answers() {
        let fixture = fixture();
        assert!(matches!(
            fixture.get("a"),
            Err(QueryError::NotOwned { store, partition })
                if store == "rows" && partition == task_of("a").partition
        ));
        for status in [TaskStatus::Restoring, TaskStatus::Suspended] {
            fixture.queries.set_status(task_of("a"), status);
            assert!(matches!(
                fixture.get("a"),
                Err(QueryError::NotRunning { task, status: found })
                    if task == task_of("a") && found == status
            ));
            assert!(fixture.watch("a").0.is_err());
        }
        fixture.run("a");
        assert_eq!(fixture.get("a").unwrap(), None);
        fixture
            .queries
            .set_status(task_of("a"), TaskStatus::Suspended);
        assert!(fixture.get("a").is_err());
        fixture.queries.set_status(task_of("a"), TaskStatus::Closed);
        assert!(matches!(fixture.get("a"), Err(QueryError::NotOwned { .. })));
        assert!(fixture.queries.readable().is_empty());
    }

    #[test]
    fn what_is_committed_is_read_from_its_own_store_and_partition() {
        let fixture = fixture();
        fixture.run("a");
        fixture.commit("a", &7_u64.to_bytes());
        fixture.commit("b", &8_u64.to_bytes());
        assert_eq!(fixture.get("a").unwrap(), Some(7));
        let Fixture { queries, rows, .. } = &fixture;
        assert_eq!(queries.partitions(*rows).unwrap(), 4);
        let partition = queries.partition_of(*rows, "a").unwrap();
        assert_eq!(partition, task_of("a").partition);
        let scan = |direction, limit| {
            let all = KeyRange::all();
            queries
                .scan(*rows, partition, &all, direction, limit)
                .unwrap()
        };
        let (a, b) = (("a".to_owned(), 7), ("b".to_owned(), 8));
        assert_eq!(scan(ScanDirection::Forward, 9), [a.clone(), b.clone()]);
        assert_eq!(scan(ScanDirection::Forward, 1), [a]);
        assert_eq!(scan(ScanDirection::Reverse, 1), [b]);
    }

    #[test]
    fn an_unreadable_row_names_its_store() {
        let fixture = fixture();
        fixture.run("a");
        fixture.commit("a", b"short");
        assert!(matches!(
            fixture.get("a"),
            Err(QueryError::UnreadableRow { store, .. }) if store == "rows"
        ));
    }

    #[test]
    fn a_store_of_another_topology_is_unknown() {
        let fixture = fixture();
        let foreign = Store::<String, u64>::new(2);
        assert!(matches!(
            fixture.queries.get(foreign, "a", &"a".to_owned()),
            Err(QueryError::UnknownStore(_))
        ));
    }

    #[test]
    fn a_watch_is_told_once_by_the_commit_that_writes_its_key() {
        let fixture = fixture();
        fixture.run("a");
        fixture.commit("a", &1_u64.to_bytes());
        assert!(!fixture.queries.anyone_waits());
        let (watch, told) = fixture.watch("a");
        let (other_watch, other_told) = fixture.watch("a");
        assert!(fixture.queries.anyone_waits());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        // Another key, another store, another task.
        let key = || b"a".to_vec();
        let elsewhere = [(ID, b"b".to_vec()), (StoreId(0), key())];
        fixture.queries.tell(task_of("a"), elsewhere.into_iter());
        let next = TaskId {
            partition: Partition((task_of("a").partition.0 + 1) % 4),
            ..task_of("a")
        };
        fixture.queries.tell(next, [(ID, key())].into_iter());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        fixture.commit("a", &2_u64.to_bytes());
        fixture.commit("a", &3_u64.to_bytes());
        for told in [told, other_told] {
            assert_eq!(told.load(Ordering::Relaxed), 1);
        }
        assert!(!fixture.queries.anyone_waits());
        drop((watch.unwrap(), other_watch.unwrap()));
    }

    #[test]
    fn a_callback_may_look_at_what_was_committed_and_watch_again() {
        let fixture = Arc::new(fixture());
        fixture.run("a");
        let (looked, seen) = std::sync::mpsc::channel();
        let looking = fixture.clone();
        let watch = fixture
            .queries
            .watch(fixture.rows, "a", &"a".to_owned(), move || {
                let again = looking.watch("a").0;
                looked
                    .send((looking.get("a").unwrap(), again.is_ok()))
                    .unwrap();
            });
        fixture.commit("a", &5_u64.to_bytes());
        assert_eq!(seen.try_recv(), Ok((Some(5), true)));
        drop(watch.unwrap());
    }

    #[test]
    fn a_dropped_watch_is_not_told_and_leaves_nothing() {
        let fixture = fixture();
        fixture.run("a");
        let (watch, told) = fixture.watch("a");
        let (other_watch, other_told) = fixture.watch("a");
        drop(watch.unwrap());
        assert!(fixture.queries.anyone_waits());
        fixture.commit("a", &1_u64.to_bytes());
        assert_eq!(told.load(Ordering::Relaxed), 0);
        assert_eq!(other_told.load(Ordering::Relaxed), 1);
        drop(other_watch.unwrap());
        drop(fixture.watch("a").0.unwrap());
        assert!(!fixture.queries.anyone_waits());
    }
}
