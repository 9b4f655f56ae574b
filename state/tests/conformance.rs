//! What every backend does, and every overlay on top of one.

mod fixture;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fixture::specs;
use tempfile::TempDir;
use turnstile_state::{
    Backend, Batch, Codec, Entry, KeyRange, MemoryBackend, Overlay, RocksBackend, ScanDirection,
    StateError, StoreId,
};

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);
const UNKNOWN: StoreId = StoreId(2);

/// A backend with the stores a and b, and what it lives in.
struct Fixture {
    backend: Arc<dyn Backend>,
    _directory: Option<TempDir>,
}

fn memory() -> Fixture {
    Fixture {
        backend: Arc::new(MemoryBackend::new(&specs(&["a", "b"]))),
        _directory: None,
    }
}

fn rocks() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    Fixture {
        backend: Arc::new(fixture::open(directory.path()).expect("a new database")),
        _directory: Some(directory),
    }
}

/// One that keeps nothing in its buffer.
fn drained_rocks() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    let mut options = fixture::options();
    options.buffer_bytes_max = 1;
    let backend = RocksBackend::open(directory.path(), &specs(&["a", "b"]), &options);
    Fixture {
        backend: Arc::new(backend.expect("a new database")),
        _directory: Some(directory),
    }
}

/// Something that is written and read by key: a backend, or an overlay.
trait Map {
    fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) -> Result<(), StateError>;
    fn delete(&mut self, store: StoreId, key: &[u8]) -> Result<(), StateError>;
    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;
    fn scan(
        &self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Vec<Entry>, StateError>;
}

/// Each write is a batch.
impl Map for Arc<dyn Backend> {
    fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.put(store, key, value);
        self.write(batch)
    }

    fn delete(&mut self, store: StoreId, key: &[u8]) -> Result<(), StateError> {
        let mut batch = Batch::new();
        batch.delete(store, key);
        self.write(batch)
    }

    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.as_ref().get(store, key)
    }

    fn scan(
        &self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Vec<Entry>, StateError> {
        self.as_ref().scan(store, range, direction)?.collect()
    }
}

/// Every seventh write ends a transaction, which is committed with the next end: so the
/// open transaction, the sealed one and the backend all hold something.
struct Layered {
    overlay: Overlay,
    writes: usize,
    sealed: bool,
}

impl Layered {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            overlay: Overlay::new(backend, 2),
            writes: 0,
            sealed: false,
        }
    }

    fn written(&mut self) -> Result<(), StateError> {
        self.writes += 1;
        if self.writes.is_multiple_of(7) {
            if self.sealed {
                let batch = self.overlay.take_batch();
                self.overlay.backend().write(batch)?;
            }
            self.overlay.seal();
            self.sealed = true;
        }
        Ok(())
    }
}

impl Map for Layered {
    fn put(&mut self, store: StoreId, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.overlay.put(store, key, value)?;
        self.written()
    }

    fn delete(&mut self, store: StoreId, key: &[u8]) -> Result<(), StateError> {
        self.overlay.delete(store, key)?;
        self.written()
    }

    fn get(&self, store: StoreId, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.overlay.get(store, key)
    }

    fn scan(
        &self,
        store: StoreId,
        range: &KeyRange,
        direction: ScanDirection,
    ) -> Result<Vec<Entry>, StateError> {
        self.overlay.scan(store, range, direction)?.collect()
    }
}

macro_rules! conformance {
    (maps: $($map:ident),+; backends: $($backend:ident),+;) => {
        conformance!(@maps memory_backend, |fixture: &super::Fixture| fixture.backend.clone(), memory, $($map)+);
        conformance!(@maps rocks_backend, |fixture: &super::Fixture| fixture.backend.clone(), rocks, $($map)+);
        conformance!(@maps drained_rocks_backend, |fixture: &super::Fixture| fixture.backend.clone(), drained_rocks, $($map)+);
        conformance!(@maps overlay_over_memory, |fixture: &super::Fixture| super::Layered::new(fixture.backend.clone()), memory, $($map)+);
        conformance!(@maps overlay_over_rocks, |fixture: &super::Fixture| super::Layered::new(fixture.backend.clone()), rocks, $($map)+);
        mod memory_only { $(#[test] fn $backend() { super::$backend(&*super::memory().backend); })+ }
        mod rocks_only { $(#[test] fn $backend() { super::$backend(&*super::rocks().backend); })+ }
    };
    (@maps $module:ident, $make:expr, $fixture:ident, $($map:ident)+) => {
        mod $module {
            $(#[test] fn $map() {
                let fixture = super::$fixture();
                let make = $make;
                super::$map(&mut make(&fixture));
            })+
        }
    };
}

conformance! {
    maps: what_is_put_is_read, a_delete_removes, stores_are_apart, empty_keys_and_values_are_entries,
        scans_honour_every_kind_of_bound, large_values_survive, an_unknown_store_is_an_error;
    backends: a_batch_with_an_unknown_store_changes_nothing, the_last_write_of_a_batch_wins,
        an_empty_batch_is_fine, the_last_offset_is_kept, a_scan_sees_one_point_in_time,
        readers_see_whole_batches, stats_follow_the_writes, a_flush_changes_nothing_that_is_read,
        a_bulk_load_changes_nothing_that_is_read;
}

fn what_is_put_is_read(map: &mut dyn Map) {
    assert_eq!(map.get(A, b"k").expect("get"), None);
    for value in [&b"1"[..], b"2", b"3", b"4"] {
        map.put(A, b"k", value).expect("put");
        assert_eq!(map.get(A, b"k").expect("get").as_deref(), Some(value));
    }
}

fn a_delete_removes(map: &mut dyn Map) {
    for _ in 0..4 {
        map.put(A, b"k", b"v").expect("put");
        map.delete(A, b"k").expect("delete");
        assert_eq!(map.get(A, b"k").expect("get"), None);
        map.delete(A, b"never there").expect("delete");
    }
    let left = map.scan(A, &KeyRange::all(), ScanDirection::Forward);
    assert_eq!(left.expect("scan"), []);
}

fn stores_are_apart(map: &mut dyn Map) {
    map.put(A, b"k", b"a").expect("put");
    map.put(B, b"k", b"b").expect("put");
    map.put(B, b"only b", b"b").expect("put");
    map.delete(B, b"k").expect("delete");
    assert_eq!(map.get(A, b"k").expect("get").as_deref(), Some(&b"a"[..]));
    assert_eq!(map.get(B, b"k").expect("get"), None);
    assert_eq!(map.get(A, b"only b").expect("get"), None);
}

fn empty_keys_and_values_are_entries(map: &mut dyn Map) {
    map.put(A, b"", b"").expect("put");
    assert_eq!(map.get(A, b"").expect("get"), Some(Vec::new()));
    let entries = map.scan(A, &KeyRange::all(), ScanDirection::Reverse);
    assert_eq!(entries.expect("scan"), [(Box::default(), Box::default())]);
}

fn scans_honour_every_kind_of_bound(map: &mut dyn Map) {
    let keys: [&[u8]; 10] = [
        b"",
        b"\x00",
        b"a",
        b"a\x00",
        b"a\xff",
        b"a\xff\xff",
        b"b",
        b"ba",
        b"\xff",
        b"\xff\xff",
    ];
    let mut expected = BTreeMap::new();
    for (position, key) in keys.iter().enumerate() {
        map.put(A, key, key).expect("put");
        if position % 4 == 1 {
            map.delete(A, key).expect("delete");
        } else {
            expected.insert(key.to_vec(), key.to_vec());
        }
    }
    let bounds = |key: &[u8]| [Bound::Included(key.to_vec()), Bound::Excluded(key.to_vec())];
    let bounds: Vec<Bound<Vec<u8>>> = keys
        .into_iter()
        .chain([&b"aa"[..]])
        .flat_map(bounds)
        .chain([Bound::Unbounded])
        .collect();
    let pairs = bounds
        .iter()
        .flat_map(|start| bounds.iter().map(move |end| (start, end)));
    let between = pairs.map(|(start, end)| KeyRange {
        start: start.clone(),
        end: end.clone(),
    });
    let prefixes = keys.into_iter().map(KeyRange::prefix);
    for range in between.chain(prefixes) {
        let inside = expected.iter().filter(|(key, _)| range.contains(key));
        let mut entries: Vec<Entry> = inside
            .map(|(key, value)| (key.as_slice().into(), value.as_slice().into()))
            .collect();
        let forward = map.scan(A, &range, ScanDirection::Forward).expect("scan");
        assert_eq!(forward, entries, "{range:?}");
        entries.reverse();
        let reverse = map.scan(A, &range, ScanDirection::Reverse).expect("scan");
        assert_eq!(reverse, entries, "{range:?}");
    }
}

fn large_values_survive(map: &mut dyn Map) {
    let value: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    map.put(A, b"large", &value).expect("put");
    assert!(map.get(A, b"large").expect("get") == Some(value));
}

fn an_unknown_store_is_an_error(map: &mut dyn Map) {
    let range = KeyRange::all();
    let errors = [
        map.put(UNKNOWN, b"k", b"v").err(),
        map.delete(UNKNOWN, b"k").err(),
        map.get(UNKNOWN, b"k").err(),
        map.scan(UNKNOWN, &range, ScanDirection::Forward).err(),
    ];
    for error in errors {
        assert!(
            matches!(error, Some(StateError::UnknownStore(UNKNOWN))),
            "{error:?}"
        );
    }
}

fn a_batch_with_an_unknown_store_changes_nothing(backend: &dyn Backend) {
    let mut batch = Batch::new();
    batch.put(A, *b"k", *b"v");
    batch.set_changelog_offset(1);
    batch.put(UNKNOWN, *b"k", *b"v");
    let error = backend.write(batch).expect_err("the batch is wrong");
    assert!(matches!(error, StateError::UnknownStore(UNKNOWN)));
    assert_eq!(backend.get(A, b"k").expect("get"), None);
    assert_eq!(backend.changelog_offset().expect("offset"), None);
}

fn the_last_write_of_a_batch_wins(backend: &dyn Backend) {
    let mut batch = Batch::new();
    batch.put(A, *b"put", *b"1");
    batch.delete(A, *b"put");
    batch.put(A, *b"put", *b"2");
    batch.put(A, *b"deleted", *b"1");
    batch.delete(A, *b"deleted");
    batch.set_changelog_offset(1);
    batch.set_changelog_offset(2);
    backend.write(batch).expect("write");
    assert_eq!(
        backend.get(A, b"put").expect("get").as_deref(),
        Some(&b"2"[..])
    );
    assert_eq!(backend.get(A, b"deleted").expect("get"), None);
    assert_eq!(backend.changelog_offset().expect("offset"), Some(2));
}

fn an_empty_batch_is_fine(backend: &dyn Backend) {
    backend.write(Batch::new()).expect("write");
    assert_eq!(backend.changelog_offset().expect("offset"), None);
}

fn the_last_offset_is_kept(backend: &dyn Backend) {
    for offset in [0, i64::MAX, 17] {
        let mut batch = Batch::new();
        batch.set_changelog_offset(offset);
        backend.write(batch).expect("write");
        let mut without = Batch::new();
        without.put(B, *b"k", *b"v");
        without.delete(B, *b"k");
        backend.write(without).expect("write");
        assert_eq!(backend.changelog_offset().expect("offset"), Some(offset));
    }
    let rows = backend.scan(A, &KeyRange::all(), ScanDirection::Forward);
    assert_eq!(rows.expect("scan").count(), 0, "offsets are no entries");
}

fn a_scan_sees_one_point_in_time(backend: &dyn Backend) {
    let mut batch = Batch::new();
    for key in *b"abc" {
        batch.put(A, [key], *b"old");
    }
    backend.write(batch).expect("write");
    for direction in [ScanDirection::Forward, ScanDirection::Reverse] {
        let mut scan = backend.scan(A, &KeyRange::all(), direction).expect("scan");
        let first = scan.next().expect("three entries").expect("an entry");
        let mut batch = Batch::new();
        batch.put(A, *b"b", *b"new");
        batch.put(A, *b"bb", *b"new");
        batch.delete(A, *b"a");
        batch.delete(A, *b"c");
        backend.write(batch).expect("write");
        backend.flush().expect("flush");
        let rest: Vec<Entry> = scan.collect::<Result<_, _>>().expect("entries");
        assert_eq!(rest.len(), 2, "{rest:?}");
        assert!(
            rest.iter()
                .chain([&first])
                .all(|(_, value)| **value == *b"old"),
            "{rest:?}"
        );
        let mut batch = Batch::new();
        for key in *b"abc" {
            batch.put(A, [key], *b"old");
        }
        batch.delete(A, *b"bb");
        backend.write(batch).expect("write");
    }
}

fn readers_see_whole_batches(backend: &dyn Backend) {
    readers_see_so_many_whole_batches(backend, 2_000);
}

/// Each of which moves from the buffer to RocksDB while it is read.
#[test]
fn readers_see_whole_batches_while_they_are_drained() {
    readers_see_so_many_whole_batches(&*drained_rocks().backend, 100);
}

fn readers_see_so_many_whole_batches(backend: &dyn Backend, batches: u64) {
    let write = |value: u64| {
        let mut batch = Batch::new();
        for key in 0..8 {
            batch.put(A, [key], value.to_be_bytes());
        }
        backend.write(batch).expect("write");
    };
    write(0);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            (1..=batches).for_each(write);
            done.store(true, Ordering::Release);
        });
        let mut last_round = false;
        let mut seen = None;
        while !last_round {
            last_round = done.load(Ordering::Acquire);
            let scan = backend
                .scan(A, &KeyRange::all(), ScanDirection::Forward)
                .expect("scan");
            let values: Vec<Box<[u8]>> = scan.map(|entry| entry.expect("an entry").1).collect();
            assert_eq!(values.len(), 8);
            assert!(
                values.windows(2).all(|pair| pair.first() == pair.last()),
                "{values:?}"
            );
            let value = values
                .first()
                .map(|value| u64::decode(value).expect("a number"));
            assert!(value >= seen, "{value:?} was read after {seen:?}");
            seen = value;
        }
    });
    let value = backend.get(A, &[7]).expect("get");
    assert_eq!(value, Some(batches.to_be_bytes().to_vec()));
}

fn stats_follow_the_writes(backend: &dyn Backend) {
    let stats = |store: StoreId| {
        let stats = backend.stats().expect("stats");
        *stats.get(store.index()).expect("a store")
    };
    assert_eq!(stats(A).keys, 0);
    let mut batch = Batch::new();
    for key in 0..100_u64 {
        batch.put(A, key.to_be_bytes(), [1; 1000]);
    }
    backend.write(batch).expect("write");
    let after = stats(A);
    assert_eq!(after.keys, 100);
    assert!(after.bytes >= 100_000, "{after:?}");
    assert_eq!(stats(B).keys, 0);
}

fn a_flush_changes_nothing_that_is_read(backend: &dyn Backend) {
    backend.flush().expect("a flush of nothing");
    let mut batch = Batch::new();
    batch.put(A, *b"k", *b"v");
    batch.set_changelog_offset(9);
    backend.write(batch).expect("write");
    backend.flush().expect("flush");
    assert_eq!(
        backend.get(A, b"k").expect("get").as_deref(),
        Some(&b"v"[..])
    );
    assert_eq!(backend.get(B, b"k").expect("get"), None);
    assert_eq!(backend.changelog_offset().expect("offset"), Some(9));
}

fn a_bulk_load_changes_nothing_that_is_read(backend: &dyn Backend) {
    backend.set_bulk_load(true).expect("begin");
    for number in 0..30_u64 {
        let mut batch = Batch::new();
        for row in 0..2_000_u64 {
            batch.put(A, row.to_be_bytes(), number.to_be_bytes().repeat(50));
            batch.put(B, [row.to_be_bytes(), number.to_be_bytes()].concat(), *b"v");
        }
        batch.delete(A, number.to_be_bytes());
        batch.set_changelog_offset(i64::try_from(number).expect("few batches"));
        backend.write(batch).expect("write");
        assert_eq!(backend.get(A, &number.to_be_bytes()).expect("get"), None);
    }
    let all = |store| {
        let entries = backend.scan(store, &KeyRange::all(), ScanDirection::Forward);
        entries.expect("scan").map(|entry| entry.expect("an entry"))
    };
    for _ in 0..2 {
        assert_eq!(all(A).count(), 1_999);
        assert!(all(A).all(|(_, value)| value.starts_with(&29_u64.to_be_bytes())));
        assert_eq!(all(B).count(), 60_000);
        assert_eq!(backend.changelog_offset().expect("offset"), Some(29));
        backend.set_bulk_load(false).expect("end");
    }
}
