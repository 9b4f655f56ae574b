//! The threads that drain buffers, and what is to be waited for.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::database::Database;
use crate::StateError;

/// So many drain at the same time, over all databases: most of it is CPU.
const THREADS: usize = 2;

/// The threads that drain buffers, started when there is something to do; clones share them.
/// They end with the last of these.
#[derive(Clone, Default)]
pub(super) struct Flusher {
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
}

struct Job {
    database: Arc<Database>,
    drains: Arc<Drains>,
}

/// How far the draining of one database is.
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
        /// What is fresh when it is done is drained as well.
        again: bool,
    },
    /// What was set apart is on disk, and nothing more is taken on.
    Ending,
    Failed(StateError),
}

impl Flusher {
    /// Has what is fresh in a database drained. Where that is under way, it waits until what was
    /// set apart before is on disk. Says whether there is anything to drain.
    ///
    /// # Errors
    ///
    /// That of an earlier drain that nobody was told of; what it was to drain is kept.
    pub(super) fn drain(
        &self,
        database: &Arc<Database>,
        drains: &Arc<Drains>,
    ) -> Result<bool, StateError> {
        let mut progress = drains.when_idle()?;
        if !database.set_apart() {
            return Ok(false);
        }
        *progress = Progress::UnderWay { again: false };
        let job = Job {
            database: database.clone(),
            drains: drains.clone(),
        };
        if let Err(error) = self.submit(job) {
            *progress = Progress::Idle;
            return Err(StateError::io(database.path())(error));
        }
        Ok(true)
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
            while let Some(job) = next(&to_do) {
                job.run();
            }
        })?;
    }
    Ok(jobs)
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().recv().ok()
}

impl Job {
    fn run(self) {
        let Self { database, drains } = self;
        // Whoever waits would wait for ever for a thread that ended without a word.
        let drained = catch_unwind(AssertUnwindSafe(|| {
            loop {
                database.drain()?;
                if !(drains.goes_on() && database.set_apart()) {
                    return Ok(());
                }
            }
        }));
        let path = database.path().to_owned();
        // Who waits may want to open it anew.
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
    /// Waits until none is under way.
    ///
    /// # Errors
    ///
    /// That of the last one, once.
    pub(super) fn wait(&self) -> Result<(), StateError> {
        self.when_idle().map(drop)
    }

    fn when_idle(&self) -> Result<MutexGuard<'_, Progress>, StateError> {
        let mut progress = self.progress.lock();
        while matches!(*progress, Progress::UnderWay { .. } | Progress::Ending) {
            self.changed.wait(&mut progress);
        }
        match mem::take(&mut *progress) {
            Progress::Failed(error) => Err(error),
            Progress::Idle | Progress::UnderWay { .. } | Progress::Ending => Ok(progress),
        }
    }

    /// Has the one that is under way take on what is fresh then; says whether it will.
    pub(super) fn go_on(&self) -> bool {
        match &mut *self.progress.lock() {
            Progress::UnderWay { again } => {
                *again = true;
                true
            }
            Progress::Idle | Progress::Ending | Progress::Failed(_) => false,
        }
    }

    /// Whether it was told to go on; if not, it ends.
    fn goes_on(&self) -> bool {
        let progress = &mut *self.progress.lock();
        match progress {
            Progress::UnderWay { again } if *again => {
                *again = false;
                true
            }
            _ => {
                *progress = Progress::Ending;
                false
            }
        }
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
