//! Who may use a state directory, and what is in it.

mod fixture;

use std::fs;

use turnstile_state::{StateDir, StateError, TaskDirName};

#[test]
fn a_held_directory_says_who_holds_it() {
    let directory = tempfile::tempdir().unwrap();
    let held = StateDir::lock(directory.path(), "ticketing").unwrap();
    let error = StateDir::lock(directory.path(), "ticketing").unwrap_err();
    let StateError::Locked { path, holder } = &error else {
        panic!("{error}");
    };
    assert_eq!(path, directory.path());
    assert_eq!(*holder, Some(std::process::id()));
    assert!(
        error.to_string().contains("give each one of its own"),
        "{error}"
    );
    drop(held);
    StateDir::lock(directory.path(), "ticketing").unwrap();
}

#[test]
fn the_lock_of_a_dead_process_is_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    drop(StateDir::lock(directory.path(), "ticketing").unwrap());
    fs::write(directory.path().join(".lock"), "99999999999").unwrap();
    let _held = StateDir::lock(directory.path(), "ticketing").unwrap();
    let content = fs::read_to_string(directory.path().join(".lock")).unwrap();
    assert_eq!(content, format!("{}\n", std::process::id()));
}

#[test]
fn a_directory_belongs_to_one_application() {
    let directory = tempfile::tempdir().unwrap();
    drop(StateDir::lock(directory.path(), "ticketing").unwrap());
    let error = StateDir::lock(directory.path(), "word-count").unwrap_err();
    let StateError::OtherApplication {
        expected, found, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (expected.as_str(), found.as_str()),
        ("word-count", "ticketing")
    );
    StateDir::lock(directory.path(), "ticketing").unwrap();
}

#[test]
fn a_foreign_directory_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), "").unwrap();
    let error = StateDir::lock(directory.path(), "ticketing").unwrap_err();
    assert!(matches!(error, StateError::ForeignFormat { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("FORMAT"),
        "turnstile-state 2\nticketing\n",
    )
    .unwrap();
    let error = StateDir::lock(directory.path(), "ticketing").unwrap_err();
    assert!(
        matches!(
            error,
            StateError::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_task_directory_is_no_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    drop(fixture::open(directory.path()).unwrap());
    let error = StateDir::lock(directory.path(), "ticketing").unwrap_err();
    assert!(matches!(error, StateError::ForeignFormat { .. }), "{error}");
}

#[test]
fn application_ids_are_checked() {
    let directory = tempfile::tempdir().unwrap();
    for id in ["", "two\nlines"] {
        let error = StateDir::lock(directory.path(), id).unwrap_err();
        assert!(matches!(error, StateError::InvalidName { .. }), "{error}");
    }
}

#[test]
fn tasks_are_listed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::lock(directory.path().join("state"), "ticketing").unwrap();
    assert_eq!(state.task_dirs().unwrap(), []);
    let names = [
        TaskDirName::new(2, 3),
        TaskDirName::new(2, 10),
        TaskDirName::new(10, 0),
    ];
    for name in names.iter().rev() {
        drop(fixture::open(&state.task_path(name)).unwrap());
    }
    fs::create_dir(state.path().join("02_3")).unwrap();
    fs::write(state.path().join("7_7"), "a file").unwrap();
    assert_eq!(state.task_dirs().unwrap(), names);
    state.remove_task(&names[1]).unwrap();
    state.remove_task(&names[1]).unwrap();
    assert_eq!(state.task_dirs().unwrap(), [names[0], names[2]]);
}
