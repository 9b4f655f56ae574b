//! Two subtopologies whose tasks share the partitions of one changelog.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turnstile_engine::runtime::{
    ChangelogRestoration, Metrics, RestoreListener, Streams, StreamsConfig, StreamsFailure,
    TopicSpec,
};
use turnstile_engine::{
    Context, DecodeError, Decoded, ErrorPolicy, InputRecord, Offset, Processor, ProcessorError,
    Source, Store, Topology, TopologyBuilder,
};

use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);
const SIDES: [&str; 2] = ["left", "right"];
/// The partitions of each topic, and so of the changelog.
const PARTITIONS: [i32; 2] = [1; 2];
/// A value that nobody can read.
const POISON: &str = "poison";

/// Keeps the last value of each key.
struct Keeper(Store<String, String>);

impl Processor for Keeper {
    type In = (String, String);

    fn process(
        &mut self,
        context: &mut Context<'_>,
        (key, value): (String, String),
    ) -> Result<(), ProcessorError> {
        context.put(self.0, &key, &value)
    }
}

/// What was said of the task of each side: where it started, where it ended, its records.
type Told = BTreeMap<u16, (Offset, Offset, u64)>;

#[derive(Default)]
struct Recorder(Mutex<Told>);

impl RestoreListener for Recorder {
    fn on_restore_end(&self, of: &ChangelogRestoration, total: u64) {
        assert!(of.changelog.ends_with("-stores-changelog"));
        let mut told = self.0.lock().expect("no callback panics");
        told.insert(of.task.subtopology.0, (of.start, of.end, total));
    }
}

/// A running instance: each side keeps what is sent to its topic.
struct Sides {
    application: String,
    streams: Streams,
    stores: [Store<String, String>; 2],
    recorder: Arc<Recorder>,
}

impl Sides {
    /// Starts an instance and waits until it is ready.
    fn start(cluster: &Cluster) -> Self {
        let sides = Self::launch(cluster, PARTITIONS, 1);
        sides.wait_until_ready();
        sides
    }

    /// Starts an instance; the topics get so many partitions if they are not there.
    fn launch(cluster: &Cluster, partitions: [i32; 2], threads: usize) -> Self {
        let application = cluster.application();
        let (topology, stores) = topology(&application);
        let recorder = Arc::new(Recorder::default());
        let state = cluster.state("a");
        let mut config = StreamsConfig::new(&application, cluster.brokers(), "a", state);
        config.session_timeout = Duration::from_secs(6);
        config.num_stream_threads = threads;
        config.restore_listener = Some(recorder.clone());
        let topics = SIDES.into_iter().zip(partitions);
        let topics = topics.map(|(side, partitions)| TopicSpec {
            name: format!("{application}-{side}"),
            partitions,
        });
        let topics: Vec<TopicSpec> = topics.collect();
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("the registry is new");
        let streams = Streams::start(topology, &topics, &config, metrics);
        Self {
            application,
            streams: streams.expect("the instance starts"),
            stores,
            recorder,
        }
    }

    fn wait_until_ready(&self) {
        eventually("the instance is ready", LIMIT, || {
            assert_eq!(self.streams.failure(), None);
            self.streams.status().ready
        });
    }

    /// Sends `values` to a side, a commit after the other, under a key each, and waits for
    /// the last one.
    fn send(&self, cluster: &Cluster, side: usize, values: std::ops::Range<usize>) {
        let last = values.end - 1;
        let name = SIDES.get(side).expect("there is such a side");
        let topic = format!("{}-{name}", self.application);
        for n in values {
            cluster.send(&topic, &format!("k{}", n % 10), &n.to_string());
            if n % 10 == 0 {
                cluster.flush();
            }
        }
        cluster.flush();
        eventually("all are kept", LIMIT, || {
            self.kept(side, last % 10) == Some(last.to_string())
        });
    }

    fn kept(&self, side: usize, key: usize) -> Option<String> {
        let key = format!("k{key}");
        let store = *self.stores.get(side).expect("there is such a side");
        let queries = self.streams.queries();
        queries.get(store, &key, &key).expect("the task runs here")
    }

    /// That a side holds the last ten of so many values.
    fn assert_kept(&self, side: usize, values: usize) {
        for n in values - 10..values {
            assert_eq!(self.kept(side, n % 10), Some(n.to_string()), "{side}");
        }
    }

    fn told(&self) -> Told {
        self.recorder.0.lock().expect("no callback panics").clone()
    }
}

fn topology(application: &str) -> (Arc<Topology>, [Store<String, String>; 2]) {
    let mut builder = TopologyBuilder::new();
    let stores = SIDES.map(|side| {
        let decode = |record: &InputRecord<'_>| {
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            match text(record.value) {
                value if value == POISON => Err(DecodeError {
                    kind: POISON,
                    message: POISON.to_owned(),
                }),
                value => Ok(Decoded::Message((text(record.key), value))),
            }
        };
        let topic = format!("{application}-{side}");
        let source = Source::new(topic, format!("{application}-{side}"), decode);
        let source = builder.source(source.on_error(ErrorPolicy::Stop));
        let store = builder.store(side);
        let processor = builder.processor(side, move || Keeper(store));
        processor.input(source).store(store).done();
        store
    });
    let topology = builder.build().expect("the topology is sound");
    (Arc::new(topology), stores)
}

/// The folder of the task of a side.
fn folder(cluster: &Cluster, side: usize) -> PathBuf {
    let all = walk(&cluster.state("a"));
    let name = format!("{side}_0");
    let mut folders = all.into_iter().filter(|path| path.is_dir());
    let found = folders.find(|path| path.file_name().is_some_and(|of| *of == *name));
    found.expect("the task has a folder")
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let to = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("a file can be copied");
        }
    }
}

/// Whoever is behind gets its own records from where it is, whatever the others need.
#[test]
fn tasks_of_a_partition_are_restored_from_where_each_of_them_is() {
    let cluster = Cluster::new("shared");
    let sides = Sides::start(&cluster);
    sides.send(&cluster, 0, 0..100);
    sides.send(&cluster, 1, 0..100);
    sides.streams.stop();
    let backup = tempfile::tempdir().expect("a temporary folder can be made");
    copy(&folder(&cluster, 1), backup.path());

    // One has nothing, the other everything.
    fs::remove_dir_all(folder(&cluster, 0)).expect("the state can be removed");
    let sides = Sides::start(&cluster);
    sides.assert_kept(0, 100);
    sides.assert_kept(1, 100);
    let (left, right) = (sides.told()[&0], sides.told()[&1]);
    assert_eq!(left.0, Offset(0));
    assert!(left.2 >= 10, "{left:?}");
    assert_eq!((right.1, right.2), (left.1, 0), "{right:?}");
    sides.send(&cluster, 1, 100..200);
    sides.send(&cluster, 0, 100..200);
    sides.streams.stop();

    // One has nothing, the other a part.
    fs::remove_dir_all(folder(&cluster, 0)).expect("the state can be removed");
    let right = folder(&cluster, 1);
    fs::remove_dir_all(&right).expect("the state can be removed");
    copy(backup.path(), &right);
    let sides = Sides::start(&cluster);
    sides.assert_kept(0, 200);
    sides.assert_kept(1, 200);
    let (left, right) = (sides.told()[&0], sides.told()[&1]);
    assert_eq!(left.0, Offset(0));
    assert!(right.0 > Offset(0) && right.2 >= 10, "{right:?}");
    assert!(left.2 >= 20, "{left:?}");
    sides.streams.stop();
}

/// What others have written since a task wrote last is not read for it again and again.
#[test]
fn a_task_that_has_nothing_to_write_keeps_up_with_those_that_have() {
    let cluster = Cluster::new("quiet");
    let sides = Sides::start(&cluster);
    sides.send(&cluster, 0, 0..10);
    sides.send(&cluster, 1, 0..500);
    sides.streams.stop();
    let sides = Sides::start(&cluster);
    for (side, (start, end, records)) in sides.told() {
        // The last transaction has a marker.
        assert!(end.0 - start.0 <= 1, "{side}: {start} to {end}");
        assert_eq!(records, 0, "{side}");
    }
    sides.assert_kept(0, 10);
    sides.streams.stop();
}

/// What both write in one transaction, each of them knows to the end of.
#[test]
fn tasks_that_write_together_know_how_far_both_have_written() {
    let cluster = Cluster::new("together");
    let sides = Sides::start(&cluster);
    for n in 0..100 {
        for side in SIDES {
            let topic = format!("{}-{side}", sides.application);
            cluster.send(&topic, &format!("k{}", n % 10), &n.to_string());
        }
    }
    cluster.flush();
    // The last of them are committed as it stops, those of both sides together.
    sides.streams.stop();
    let sides = Sides::start(&cluster);
    for (side, (start, end, _)) in sides.told() {
        assert!(end.0 - start.0 <= 1, "{side}: {start} to {end}");
    }
    eventually("all are kept", LIMIT, || {
        (0..SIDES.len()).all(|side| sides.kept(side, 9) == Some("99".to_owned()))
    });
    sides.streams.stop();
}

/// The changelog has as many partitions as the wider side, and so it fits still when the narrower one
/// has grown. But then rows of that would lie where their keys do not come any more.
#[test]
fn a_topic_that_has_grown_as_wide_as_the_changelog_stops_the_instance() {
    let cluster = Cluster::new("grown");
    let widths = [1, 2];
    let sides = Sides::launch(&cluster, widths, 1);
    sides.wait_until_ready();
    sides.send(&cluster, 0, 0..10);
    sides.streams.stop();
    cluster.grow_topic(&format!("{}-left", cluster.application()), 2);
    // Neither the first time nor the second, with an empty disk.
    for _ in 0..2 {
        let sides = Sides::launch(&cluster, widths, 1);
        eventually("the instance stops", LIMIT, || {
            sides.streams.failure().is_some()
        });
        let failure = sides.streams.failure();
        let Some(StreamsFailure::Misconfigured(reason)) = failure else {
            panic!("{failure:?}");
        };
        let expected = "store left is divided over 1 partitions, and its input topics have 2";
        assert!(reason.starts_with(expected), "{reason}");
        sides.streams.stop();
        cluster.lose_state("a");
    }
}

/// Another thread would get its tasks otherwise, stop at the same record, and leave the instance
/// half alive.
#[test]
fn a_thread_that_stops_for_good_stops_the_others() {
    let cluster = Cluster::new("one-for-all");
    let sides = Sides::launch(&cluster, [2; 2], 2);
    sides.wait_until_ready();
    let running = || {
        let tasks = sides.streams.status().tasks.into_iter();
        tasks.filter(|task| task.status == "running").count()
    };
    assert_eq!(running(), 4);
    let topic = format!("{}-left", cluster.application());
    cluster.send_to(&topic, 0, "k", POISON);
    eventually("the instance has no task left", LIMIT, || running() == 0);
    let failure = sides.streams.failure().expect("it says why").to_string();
    assert!(failure.contains(POISON), "{failure}");
    sides.streams.stop();
}
