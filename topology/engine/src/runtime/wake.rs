//! Wakes a stream thread that waits for several things at once.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Wakes one waiting thread; a call that comes before the wait is not lost.
#[derive(Clone, Default)]
pub(crate) struct Waker(Arc<(Mutex<bool>, Condvar)>);

impl Waker {
    /// Ends the current or else the next wait.
    pub(crate) fn wake(&self) {
        let (woken, changed) = &*self.0;
        *woken.lock() = true;
        changed.notify_one();
    }

    /// Waits until woken, at most `limit`; says whether it was woken.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let (woken, changed) = &*self.0;
        let mut woken = woken.lock();
        if !*woken {
            changed.wait_for(&mut woken, limit);
        }
        std::mem::take(&mut *woken)
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
