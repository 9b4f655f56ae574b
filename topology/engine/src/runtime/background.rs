//! Threads of an instance other than those that process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::wake::Waker;

/// A thread that works until it is told to stop. Dropping it tells it, and waits until it
/// has ended.
pub(crate) struct Background {
    name: &'static str,
    stop: Arc<AtomicBool>,
    /// Ends its waits.
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts a thread with this name; `work` has to end soon after its argument turns true and
    /// `waker` was woken.
    pub(crate) fn start(
        name: &'static str,
        waker: Waker,
        work: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&stopped))?;
        Ok(Self {
            name,
            stop,
            waker,
            thread: Some(thread),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!(thread = self.name, "a thread panicked");
        }
    }
}

/// Does, on a thread of its own, what nobody waits for and what ends by itself.
pub(super) fn aside(name: &'static str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::warn!(name, %error, "cannot start a thread");
    }
}
