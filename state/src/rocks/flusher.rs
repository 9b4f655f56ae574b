//! The threads that drain buffers, and waiting for them.
//!
//! A database has at most one drain under way, so its files come in the order of its writes.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::database::{Database, SetApart};
use crate::StateError;

/// The number of drains at the same time, over all databases: most of their work is CPU.
const THREADS: usize = 2;

/// How far these threads yield to others that want a core: nobody waits for their work until
/// buffers are full, and then those who wait leave their cores to them.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The threads that drain buffers, started when there is something to do; clones share them.
/// They end when the last clone is dropped.
#[derive(Clone, Default)]
pub(super) struct Flusher {
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
}

struct Job {
    database: Arc<Database>,
    drains: Arc<Drains>,
}

/// The progress of draining one database.
#[derive(Debug, Default)]
pub(super) struct Drains {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Idle,
    UnderWay {
        /// Whether what is fresh at the end is drained as well.
        again: bool,
    },
    /// What was set apart is on disk. The thread takes on nothing more, but may still hold the
    /// database.
    Ending,
    Failed(StateError),
}

impl Flusher {
    /// Begins to drain what is fresh in a database. If a drain is under way, waits until what was
    /// set apart before is on disk.
    ///
    /// # Errors
    ///
    /// The error of an earlier drain that nobody was told of.
    pub(super) fn begin(
        &self,
        database: &Arc<Database>,
        drains: &Arc<Drains>,
    ) -> Result<SetApart, StateError> {
        let mut progress = drains.when_idle();
        if let Progress::Failed(error) = mem::take(&mut *progress) {
            return Err(error);
        }
        let set_apart = database.set_apart();
        if set_apart == SetApart::Nothing {
            return Ok(set_apart);
        }
        let job = Job {
            database: database.clone(),
            drains: drains.clone(),
        };
        self.submit(job).map_err(StateError::io(database.path()))?;
        *progress = Progress::UnderWay { again: false };
        Ok(set_apart)
    }

    fn submit(&self, job: Job) -> io::Result<()> {
        let mut jobs = self.jobs.lock();
        let jobs = match &mut *jobs {
            Some(jobs) => jobs,
            none => none.insert(start()?),
        };
        let submitted = jobs.send(job);
        submitted.map_err(|_| io::Error::other("the threads that write it have ended"))
    }
}

fn start() -> io::Result<Sender<Job>> {
    let (jobs, to_do) = channel();
    let to_do = Arc::new(Mutex::new(to_do));
    for _ in 0..THREADS {
        let to_do = to_do.clone();
        let thread = thread::Builder::new().name("flush".to_owned());
        thread.spawn(move || {
            stand_back();
            while let Some(job) = next(&to_do) {
                job.run();
            }
        })?;
    }
    Ok(jobs)
}

/// On other systems a process has one priority for all of its threads.
fn stand_back() {
    // If the service manager forbids the call, they compete with the others: slower, but as correct.
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(None, NICENESS).ok();
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().recv().ok()
}

impl Job {
    fn run(self) {
        let Self { database, drains } = self;
        // Waiters would wait forever for a thread that ended silently.
        let drained = catch_unwind(AssertUnwindSafe(|| {
            loop {
                database.drain()?;
                if !drains.goes_on(&database) {
                    return Ok(());
                }
            }
        }));
        let path = database.path().to_owned();
        // Waiters may want to open it anew.
        drop(database);
        drains.end(drained.unwrap_or_else(|_| Err(panicked(path))));
    }
}

fn panicked(path: PathBuf) -> StateError {
    StateError::Io {
        path,
        source: io::Error::other("the thread that writes it panicked"),
    }
}

impl Drains {
    /// Waits until no drain is under way.
    ///
    /// # Errors
    ///
    /// The error of the last one, once.
    pub(super) fn wait(&self) -> Result<(), StateError> {
        match mem::take(&mut *self.when_idle()) {
            Progress::Failed(error) => Err(error),
            Progress::Idle | Progress::UnderWay { .. } | Progress::Ending => Ok(()),
        }
    }

    /// Waits until it is idle or has failed.
    fn when_idle(&self) -> MutexGuard<'_, Progress> {
        let mut progress = self.progress.lock();
        while matches!(*progress, Progress::UnderWay { .. } | Progress::Ending) {
            self.changed.wait(&mut progress);
        }
        progress
    }

    /// Has the drain under way continue with what is fresh at its end; returns whether it will.
    pub(super) fn go_on(&self) -> bool {
        match &mut *self.progress.lock() {
            Progress::UnderWay { again } => {
                *again = true;
                true
            }
            Progress::Idle | Progress::Ending | Progress::Failed(_) => false,
        }
    }

    /// Sets apart what is fresh if told to go on; returns whether there is more to drain.
    fn goes_on(&self, database: &Database) -> bool {
        let mut progress = self.progress.lock();
        let is_told = matches!(*progress, Progress::UnderWay { again: true });
        let goes_on = is_told && database.set_apart() != SetApart::Nothing;
        *progress = if goes_on {
            Progress::UnderWay { again: false }
        } else {
            Progress::Ending
        };
        goes_on
    }

    fn end(&self, result: Result<(), StateError>) {
        *self.progress.lock() = result.map_or_else(Progress::Failed, |()| Progress::Idle);
        self.changed.notify_all();
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flusher")
    }
}
