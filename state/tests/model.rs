//! Random transactions against ordered maps: an overlay over each backend.

mod fixture;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use fixture::specs;
use proptest::prelude::*;
use tempfile::TempDir;
use turnstile_state::{
    Backend, Entry, KeyRange, MemoryBackend, Overlay, Savepoint, ScanDirection, StoreId,
};

type Key = Vec<u8>;

#[derive(Debug, Clone)]
enum Op {
    Put(StoreId, Key, Vec<u8>),
    Delete(StoreId, Key),
    Get(StoreId, Key),
    Scan(StoreId, KeyRange, ScanDirection),
    Savepoint,
    /// Of the open savepoints, counted from the outermost, modulo their number.
    RollbackTo(usize),
    Release(usize),
    /// Ends the transaction, where none has ended that is yet to be committed.
    Seal,
    /// Commits the transaction that has ended; where there is none, the open one.
    Commit,
    /// Of both transactions.
    Abort,
    Flush,
    /// What follows goes on while it is drained; closing waits for that.
    BeginFlush,
    /// Begins or ends a bulk load.
    SetBulkLoad(bool),
    /// Flush, close, open.
    Reopen,
    /// Close and open.
    Crash,
}

/// Short keys of few different bytes, so that ops meet.
fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(prop::sample::select(vec![0, b'a', b'b', 0xff]), 0..3)
}

fn store() -> impl Strategy<Value = StoreId> {
    (0..2_u16).prop_map(StoreId)
}

fn bound() -> impl Strategy<Value = Bound<Key>> {
    prop_oneof![
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
        Just(Bound::Unbounded),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (bound(), bound()).prop_map(|(start, end)| KeyRange { start, end }),
        key().prop_map(|prefix| KeyRange::prefix(&prefix)),
    ]
}

fn direction() -> impl Strategy<Value = ScanDirection> {
    prop::sample::select(vec![ScanDirection::Forward, ScanDirection::Reverse])
}

fn transaction_op() -> impl Strategy<Value = Op> {
    let value = prop::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        8 => (store(), key(), value).prop_map(|(store, key, value)| Op::Put(store, key, value)),
        4 => (store(), key()).prop_map(|(store, key)| Op::Delete(store, key)),
        3 => (store(), key()).prop_map(|(store, key)| Op::Get(store, key)),
        4 => (store(), range(), direction()).prop_map(|(store, range, order)| Op::Scan(store, range, order)),
        2 => Just(Op::Savepoint),
        1 => any::<usize>().prop_map(Op::RollbackTo),
        1 => any::<usize>().prop_map(Op::Release),
        2 => Just(Op::Seal),
        2 => Just(Op::Commit),
        1 => Just(Op::Abort),
    ]
}

fn durable_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => transaction_op(),
        1 => Just(Op::Flush),
        2 => Just(Op::BeginFlush),
        2 => any::<bool>().prop_map(Op::SetBulkLoad),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
    ]
}

#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    stores: [BTreeMap<Key, Vec<u8>>; 2],
    changelog_offset: Option<i64>,
}

impl State {
    fn store(&mut self, store: StoreId) -> &mut BTreeMap<Key, Vec<u8>> {
        self.stores.get_mut(store.index()).expect("two stores")
    }

    fn scan(&mut self, store: StoreId, range: &KeyRange, direction: ScanDirection) -> Vec<Entry> {
        let inside = self
            .store(store)
            .iter()
            .filter(|(key, _)| range.contains(key));
        let mut entries: Vec<Entry> = inside
            .map(|(key, value)| (key.as_slice().into(), value.as_slice().into()))
            .collect();
        if direction == ScanDirection::Reverse {
            entries.reverse();
        }
        entries
    }
}

/// What should be.
#[derive(Default)]
struct Model {
    flushed: State,
    /// What was committed since a flush was begun, which may have been taken along.
    taken_along: Option<Vec<State>>,
    committed: State,
    /// With the transaction that is yet to be committed.
    sealed: Option<State>,
    working: State,
    savepoints: Vec<State>,
}

impl Model {
    fn flush(&mut self) {
        self.flushed = self.committed.clone();
        self.taken_along = None;
    }

    fn begin_flush(&mut self) {
        self.flush();
        self.taken_along = Some(Vec::new());
    }

    fn commit(&mut self, state: State) {
        if let Some(taken_along) = &mut self.taken_along {
            taken_along.push(state.clone());
        }
        self.committed = state;
    }

    /// Goes on from the state that is on disk, which is one of those that may be.
    fn crash(&mut self, offset_on_disk: Option<i64>) {
        let mut later = self.taken_along.take().into_iter().flatten();
        if self.flushed.changelog_offset != offset_on_disk {
            let on_disk = later.find(|state| state.changelog_offset == offset_on_disk);
            self.flushed = on_disk.expect("what is on disk was committed, and is not too old");
        }
        self.end_transactions_at(self.flushed.clone());
    }

    fn end_transactions_at(&mut self, committed: State) {
        self.committed = committed;
        self.sealed = None;
        self.working = self.committed.clone();
        self.savepoints.clear();
    }
}

/// What is.
struct System {
    overlay: Overlay,
    savepoints: Vec<Savepoint>,
    directory: Option<TempDir>,
}

impl System {
    fn in_memory() -> Self {
        Self::over(Arc::new(MemoryBackend::new(&specs(&["a", "b"]))), None)
    }

    fn on_disk() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::over(open(directory.path()), Some(directory))
    }

    fn over(backend: Arc<dyn Backend>, directory: Option<TempDir>) -> Self {
        Self {
            overlay: Overlay::new(backend, 2),
            savepoints: Vec::new(),
            directory,
        }
    }

    fn reopened(self) -> Self {
        let directory = self.directory.expect("only a durable system is reopened");
        // The database is closed before it is opened again.
        drop(self.overlay);
        Self::over(open(directory.path()), Some(directory))
    }
}

fn open(path: &Path) -> Arc<dyn Backend> {
    Arc::new(fixture::open(path).expect("the database opens"))
}

fn step(mut system: System, model: &mut Model, op: Op) -> System {
    match op {
        Op::Put(store, key, value) => {
            system
                .overlay
                .put(store, key.clone(), value.clone())
                .expect("put");
            model.working.store(store).insert(key, value);
        }
        Op::Delete(store, key) => {
            system.overlay.delete(store, key.clone()).expect("delete");
            model.working.store(store).remove(&key);
        }
        Op::Get(store, key) => {
            let found = system.overlay.get(store, &key).expect("get");
            assert_eq!(found.as_ref(), model.working.store(store).get(&key));
        }
        Op::Scan(store, range, direction) => {
            let found = entries(system.overlay.scan(store, &range, direction));
            assert_eq!(found, model.working.scan(store, &range, direction));
        }
        Op::Savepoint => {
            system.savepoints.push(system.overlay.savepoint());
            model.savepoints.push(model.working.clone());
        }
        Op::RollbackTo(which) => {
            if let Some((savepoint, state)) = close(&mut system, model, which) {
                system.overlay.rollback_to(savepoint);
                model.working = state;
            }
        }
        Op::Release(which) => {
            if let Some((savepoint, _)) = close(&mut system, model, which) {
                system.overlay.release(savepoint);
            }
        }
        Op::Seal => seal(&mut system, model),
        Op::Commit => {
            seal(&mut system, model);
            let next_offset = model.committed.changelog_offset.unwrap_or(0) + 1;
            let mut sealed = model.sealed.take().expect("one is sealed");
            sealed.changelog_offset = Some(next_offset);
            model.commit(sealed);
            let mut batch = system.overlay.take_batch();
            batch.set_changelog_offset(next_offset);
            system.overlay.backend().write(batch).expect("write");
        }
        Op::Abort => {
            model.end_transactions_at(model.committed.clone());
            system.overlay.clear();
            system.savepoints.clear();
        }
        Op::Flush => {
            system.overlay.backend().flush().expect("flush");
            model.flush();
        }
        Op::BeginFlush => {
            system.overlay.backend().begin_flush().expect("flush");
            model.begin_flush();
        }
        Op::SetBulkLoad(in_bulk) => {
            let set = system.overlay.backend().set_bulk_load(in_bulk);
            set.expect("a bulk load");
        }
        Op::Reopen => {
            system.overlay.backend().flush().expect("flush");
            model.flush();
            model.end_transactions_at(model.flushed.clone());
            system = system.reopened();
        }
        Op::Crash => {
            system = system.reopened();
            let offset = system.overlay.backend().changelog_offset();
            model.crash(offset.expect("offset"));
        }
    }
    system
}

/// Ends the transaction of both sides, where none has ended that is yet to be committed.
fn seal(system: &mut System, model: &mut Model) {
    if model.sealed.is_none() {
        model.sealed = Some(model.working.clone());
        model.savepoints.clear();
        system.overlay.seal();
        system.savepoints.clear();
    }
}

/// Takes a savepoint out of both sides, and those within it.
fn close(system: &mut System, model: &mut Model, which: usize) -> Option<(Savepoint, State)> {
    let depth = which.checked_rem(system.savepoints.len())?;
    let savepoint = system.savepoints.drain(depth..).next()?;
    let state = model.savepoints.drain(depth..).next()?;
    Some((savepoint, state))
}

fn entries<E: std::fmt::Debug>(
    scan: Result<impl Iterator<Item = Result<Entry, E>>, E>,
) -> Vec<Entry> {
    let entries = scan.expect("scan");
    entries.map(|entry| entry.expect("an entry")).collect()
}

fn check(system: &System, model: &mut Model) {
    let all = KeyRange::all();
    let forward = ScanDirection::Forward;
    let mut sealed = 0;
    for store in (0..2).map(StoreId) {
        sealed += system.overlay.changes(store).count();
        let seen = entries(system.overlay.scan(store, &all, forward));
        assert_eq!(seen, model.working.scan(store, &all, forward));
        let committed = entries(system.overlay.backend().scan(store, &all, forward));
        assert_eq!(committed, model.committed.scan(store, &all, forward));
        check_changes(system, model, store);
    }
    let offset = system.overlay.backend().changelog_offset().expect("offset");
    assert_eq!(offset, model.committed.changelog_offset);
    let open = system.overlay.len();
    assert_eq!(system.overlay.is_empty(), open == 0);
    assert_eq!(system.overlay.bytes() == 0, open + sealed == 0);
}

/// The changes are ordered, and lead from the committed state to the sealed one.
fn check_changes(system: &System, model: &mut Model, store: StoreId) {
    let changes: Vec<(&[u8], Option<&[u8]>)> = system.overlay.changes(store).collect();
    let order: Vec<(bool, &[u8])> = changes
        .iter()
        .map(|(key, value)| (value.is_some(), *key))
        .collect();
    assert!(order.is_sorted(), "{changes:?}");
    let mut replayed = model.committed.store(store).clone();
    for (key, value) in changes {
        match value {
            Some(value) => replayed.insert(key.to_vec(), value.to_vec()),
            None => replayed.remove(key),
        };
    }
    let sealed = model.sealed.as_mut().unwrap_or(&mut model.committed);
    assert_eq!(replayed, *sealed.store(store));
}

fn run(mut system: System, ops: Vec<Op>) {
    let mut model = Model::default();
    for op in ops {
        system = step(system, &mut model, op);
        check(&system, &mut model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn overlay_over_memory(ops in prop::collection::vec(transaction_op(), 0..80)) {
        run(System::in_memory(), ops);
    }
}

proptest! {
    // Each case opens several databases.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn overlay_over_rocks(ops in prop::collection::vec(durable_op(), 0..80)) {
        run(System::on_disk(), ops);
    }
}
