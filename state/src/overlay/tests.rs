use super::*;
use crate::{MemoryBackend, StoreSpec, StoreStats};

const A: StoreId = StoreId(0);
const B: StoreId = StoreId(1);

fn overlay() -> Overlay {
    let specs = ["a", "b"].map(|name| StoreSpec {
        name: name.to_owned(),
    });
    Overlay::new(Arc::new(MemoryBackend::new(&specs)), 2)
}

fn changes(overlay: &Overlay, store: StoreId) -> Vec<(&[u8], Option<&[u8]>)> {
    overlay.changes(store).collect()
}

/// Seals the open transaction and commits it.
fn commit(overlay: &mut Overlay) {
    overlay.seal();
    let batch = overlay.take_batch();
    overlay.backend().write(batch).unwrap();
}

#[test]
fn writes_are_read_here_and_nowhere_else() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"v").unwrap();
    assert_eq!(overlay.get(A, b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(overlay.get(B, b"k").unwrap(), None);
    assert_eq!(overlay.backend().get(A, b"k").unwrap(), None);
}

#[test]
fn a_committed_key_can_be_deleted_and_put_again() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"old").unwrap();
    commit(&mut overlay);
    overlay.delete(A, *b"k").unwrap();
    assert_eq!(overlay.get(A, b"k").unwrap(), None);
    overlay.put(A, *b"k", *b"new").unwrap();
    assert_eq!(overlay.get(A, b"k").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn changes_are_deletes_then_puts_each_in_key_order() {
    let mut overlay = overlay();
    overlay.put(A, *b"b", *b"1").unwrap();
    overlay.delete(A, *b"z").unwrap();
    overlay.put(A, *b"a", *b"2").unwrap();
    overlay.delete(A, *b"c").unwrap();
    assert_eq!(changes(&overlay, A), [], "nothing is sealed");
    overlay.seal();
    assert_eq!(
        changes(&overlay, A),
        [
            (&b"c"[..], None),
            (b"z", None),
            (b"a", Some(&b"2"[..])),
            (b"b", Some(b"1")),
        ]
    );
    assert_eq!(changes(&overlay, B), []);
}

#[test]
fn rollback_restores_what_the_savepoint_saw() {
    let mut overlay = overlay();
    overlay.put(A, *b"kept", *b"1").unwrap();
    overlay.delete(B, *b"gone").unwrap();
    let bytes = overlay.bytes();
    let savepoint = overlay.savepoint();
    overlay.put(A, *b"kept", *b"2").unwrap();
    overlay.put(A, *b"kept", *b"333").unwrap();
    overlay.put(A, *b"new", *b"4").unwrap();
    overlay.put(B, *b"gone", *b"5").unwrap();
    overlay.rollback_to(savepoint);
    assert_eq!(overlay.bytes(), bytes);
    overlay.seal();
    assert_eq!(changes(&overlay, A), [(&b"kept"[..], Some(&b"1"[..]))]);
    assert_eq!(changes(&overlay, B), [(&b"gone"[..], None)]);
}

#[test]
fn an_outer_rollback_undoes_what_an_inner_savepoint_released() {
    let mut overlay = overlay();
    let outer = overlay.savepoint();
    let inner = overlay.savepoint();
    overlay.put(A, *b"k", *b"v").unwrap();
    overlay.release(inner);
    overlay.rollback_to(outer);
    assert!(overlay.is_empty());
}

#[test]
fn releasing_the_last_savepoint_forgets_the_undo_log() {
    let mut overlay = overlay();
    let savepoint = overlay.savepoint();
    overlay.put(A, *b"k", *b"v").unwrap();
    overlay.release(savepoint);
    assert_eq!(overlay.undo.len(), 0);
    overlay.put(A, *b"k", *b"w").unwrap();
    assert_eq!(overlay.undo.len(), 0);
    assert_eq!(overlay.len(), 1);
}

#[test]
#[should_panic(expected = "a savepoint is used while it is open")]
fn a_savepoint_ends_with_its_transaction() {
    let mut overlay = overlay();
    let savepoint = overlay.savepoint();
    overlay.clear();
    let _unrelated = overlay.savepoint();
    overlay.rollback_to(savepoint);
}

#[test]
fn take_batch_moves_everything() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"v").unwrap();
    overlay.delete(B, *b"k").unwrap();
    let mut expected = Batch::new();
    expected.put(A, *b"k", *b"v");
    expected.delete(B, *b"k");
    overlay.seal();
    assert_eq!(overlay.take_batch(), expected);
    assert!(overlay.is_empty());
    assert_eq!(overlay.bytes(), 0);
}

#[test]
fn what_is_sealed_is_read_below_what_comes_after_it() {
    let mut overlay = overlay();
    let value = |overlay: &Overlay, key: &[u8]| overlay.get(A, key).unwrap();
    for key in [*b"a", *b"b", *b"c"] {
        overlay.put(A, key, *b"1").unwrap();
    }
    commit(&mut overlay);
    overlay.put(A, *b"b", *b"2").unwrap();
    overlay.delete(A, *b"c").unwrap();
    overlay.seal();
    overlay.put(A, *b"c", *b"3").unwrap();
    overlay.delete(A, *b"a").unwrap();
    assert_eq!(value(&overlay, b"a"), None);
    assert_eq!(value(&overlay, b"b").as_deref(), Some(&b"2"[..]));
    assert_eq!(value(&overlay, b"c").as_deref(), Some(&b"3"[..]));
    for (direction, keys) in [
        (ScanDirection::Forward, *b"bc"),
        (ScanDirection::Reverse, *b"cb"),
    ] {
        let scan = overlay.scan(A, &KeyRange::all(), direction).unwrap();
        let found: Vec<u8> = scan.map(|entry| entry.unwrap().0[0]).collect();
        assert_eq!(found, keys);
    }
}

#[test]
fn the_batch_is_that_of_the_sealed_transaction() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"first").unwrap();
    overlay.seal();
    overlay.put(A, *b"k", *b"second").unwrap();
    overlay.put(A, *b"l", *b"second").unwrap();
    let mut expected = Batch::new();
    expected.put(A, *b"k", *b"first");
    assert_eq!(changes(&overlay, A), [(&b"k"[..], Some(&b"first"[..]))]);
    assert_eq!(overlay.take_batch(), expected);
    assert_eq!(overlay.len(), 2);
    assert_eq!(changes(&overlay, A), []);
}

#[test]
fn a_rollback_ends_at_the_seal() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"first").unwrap();
    overlay.seal();
    let savepoint = overlay.savepoint();
    overlay.put(A, *b"k", *b"second").unwrap();
    overlay.rollback_to(savepoint);
    assert!(overlay.is_empty());
    assert_eq!(
        overlay.get(A, b"k").unwrap().as_deref(),
        Some(&b"first"[..])
    );
}

#[test]
fn an_abort_drops_the_sealed_transaction_too() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"first").unwrap();
    overlay.seal();
    overlay.put(A, *b"l", *b"second").unwrap();
    overlay.clear();
    assert_eq!(overlay.bytes(), 0);
    assert_eq!(overlay.get(A, b"k").unwrap(), None);
    // Another one can be sealed.
    overlay.seal();
    assert!(overlay.take_batch().is_empty());
}

#[test]
#[should_panic(expected = "committed before the next one is sealed")]
fn only_one_transaction_is_sealed() {
    let mut overlay = overlay();
    overlay.seal();
    overlay.seal();
}

#[test]
#[should_panic(expected = "sealed before it is committed")]
fn what_is_open_is_not_committed() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", *b"v").unwrap();
    drop(overlay.take_batch());
}

#[test]
fn bytes_grow_and_shrink_with_the_writes() {
    let mut overlay = overlay();
    overlay.put(A, *b"k", vec![0; 1000]).unwrap();
    let large = overlay.bytes();
    assert!((1001..1200).contains(&large), "{large}");
    overlay.put(A, *b"k", vec![0; 10]).unwrap();
    assert_eq!(overlay.bytes(), large - 990);
    overlay.delete(A, *b"k").unwrap();
    assert_eq!(overlay.bytes(), large - 1000);
    overlay.seal();
    overlay.put(A, *b"l", vec![0; 1000]).unwrap();
    assert_eq!(overlay.bytes(), 2 * large - 1000);
    drop(overlay.take_batch());
    assert_eq!(overlay.bytes(), large);
    overlay.clear();
    assert_eq!(overlay.bytes(), 0);
}

#[test]
fn an_unknown_store_is_refused() {
    let mut overlay = overlay();
    let unknown = StoreId(2);
    assert!(matches!(
        overlay.get(unknown, b"k"),
        Err(StateError::UnknownStore(StoreId(2)))
    ));
    assert!(matches!(
        overlay.put(unknown, *b"k", *b"v"),
        Err(StateError::UnknownStore(_))
    ));
    assert!(matches!(
        overlay.delete(unknown, *b"k"),
        Err(StateError::UnknownStore(_))
    ));
    let scan = overlay.scan(unknown, &KeyRange::all(), ScanDirection::Forward);
    assert!(matches!(scan.err(), Some(StateError::UnknownStore(_))));
}

/// Scans yield one entry, then an error, then entries that nobody should see.
struct Failing;

impl Backend for Failing {
    fn get(&self, _: StoreId, _: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(None)
    }

    fn scan<'a>(
        &'a self,
        store: StoreId,
        _: &KeyRange,
        _: ScanDirection,
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StateError>> + 'a>, StateError> {
        let entry = |key: &[u8]| Ok((key.into(), Box::default()));
        let error = Err(StateError::UnknownStore(store));
        Ok(Box::new([entry(b"a"), error, entry(b"c")].into_iter()))
    }

    fn write(&self, _: Batch) -> Result<(), StateError> {
        Ok(())
    }

    fn changelog_offset(&self) -> Result<Option<i64>, StateError> {
        Ok(None)
    }

    fn flush(&self) -> Result<(), StateError> {
        Ok(())
    }

    fn stats(&self) -> Result<Vec<StoreStats>, StateError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_scan_ends_with_its_first_error() {
    let mut overlay = Overlay::new(Arc::new(Failing), 1);
    overlay.put(A, *b"b", *b"v").unwrap();
    let scan = overlay
        .scan(A, &KeyRange::all(), ScanDirection::Forward)
        .unwrap();
    let outcomes: Vec<bool> = scan.map(|entry| entry.is_ok()).collect();
    assert_eq!(outcomes, [true, false]);
}
