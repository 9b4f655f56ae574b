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

    /// Waits until woken, at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let (woken, changed) = &*self.0;
        let mut woken = woken.lock();
        if !*woken {
            changed.wait_for(&mut woken, limit);
        }
        *woken = false;
    }
}
