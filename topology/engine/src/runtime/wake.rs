//! Wakes a stream thread that waits for several things at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes one waiting thread; a call before the wait is not lost.
#[derive(Clone, Default)]
pub(crate) struct Waker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    woken: Mutex<Woken>,
    changed: Condvar,
    urgently: Condvar,
}

#[derive(Default)]
struct Woken {
    at_all: bool,
    urgently: bool,
}

impl Waker {
    /// Ends the current wait, or otherwise the next.
    pub(crate) fn wake(&self) {
        self.0.woken.lock().at_all = true;
        self.0.changed.notify_one();
    }

    /// Ends the current wait, or otherwise the next, and a lull too.
    pub(crate) fn wake_urgently(&self) {
        let mut woken = self.0.woken.lock();
        woken.at_all = true;
        woken.urgently = true;
        self.0.changed.notify_one();
        self.0.urgently.notify_one();
    }

    /// Waits until woken, at most `limit`; returns whether it was woken.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let mut woken = self.0.woken.lock();
        if !woken.at_all {
            self.0.changed.wait_for(&mut woken, limit);
        }
        std::mem::take(&mut woken.at_all)
    }

    /// Lets `limit` pass, unless woken urgently. Calls that are not urgent cost their callers
    /// nothing meanwhile, because this thread sleeps through them.
    pub(crate) fn lull(&self, limit: Duration) {
        let mut woken = self.0.woken.lock();
        if !woken.urgently {
            self.0.urgently.wait_for(&mut woken, limit);
        }
        woken.urgently = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Far longer than the test takes: a wait that is not woken fails it in the end.
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_before_the_wait_is_not_lost() {
        let waker = Waker::default();
        waker.wake();
        waker.wake();
        // There is no time for a call to come now.
        assert!(waker.wait(Duration::ZERO));
        // However many calls there were, they end one wait.
        assert!(!waker.wait(Duration::ZERO));
    }

    #[test]
    fn a_lull_ends_for_urgent_calls_only() {
        let waker = Waker::default();
        waker.wake_urgently();
        assert!(waker.wait(Duration::ZERO));
        waker.lull(LIMIT);
        waker.wake();
        let (lulled, done) = mpsc::channel();
        let lulling = waker.clone();
        let thread = thread::spawn(move || {
            lulling.lull(LIMIT);
            lulled.send(()).unwrap();
        });
        assert!(done.recv_timeout(Duration::from_millis(50)).is_err());
        waker.wake_urgently();
        done.recv().unwrap();
        thread.join().unwrap();
        // What came in the lull ends the next wait.
        assert!(waker.wait(Duration::ZERO));
    }

    #[test]
    fn a_call_ends_the_wait_of_another_thread() {
        let waker = Waker::default();
        let (waited, done) = mpsc::channel();
        let waiting = waker.clone();
        let thread = thread::spawn(move || {
            for _ in 0..100 {
                waited.send(waiting.wait(LIMIT)).unwrap();
            }
        });
        for _ in 0..100 {
            waker.wake();
            assert!(done.recv().unwrap());
        }
        thread.join().unwrap();
    }
}
