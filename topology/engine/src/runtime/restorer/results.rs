//! What the threads of a restore report to the stream thread.

use crossbeam_channel::Sender;

use super::worker::Found;
use super::{RestoreFault, RestoreResult, Ticket};
use crate::runtime::wake::Waker;

/// Where results go.
pub(super) struct Results<'a> {
    to: &'a Sender<RestoreResult>,
    waker: &'a Waker,
}

impl<'a> Results<'a> {
    pub(super) fn to(to: &'a Sender<RestoreResult>, waker: &'a Waker) -> Self {
        Self { to, waker }
    }

    /// Reports tasks that are restored, for which this many records were read; or that none of them
    /// is, if one of them must not run.
    pub(super) fn restored(&self, tasks: Vec<Found>, records: u64) {
        if let Err(fault) = tasks.iter().try_for_each(Found::check) {
            return self.failed(tasks.into_iter().map(|task| task.ticket), fault);
        }
        if let Some(longest) = tasks.iter().map(Found::waited).max() {
            tracing::info!(
                tasks = tasks.len(),
                records,
                seconds = longest.as_secs_f64(),
                "tasks are restored"
            );
        }
        let results = tasks.into_iter().map(Found::into_result);
        self.send(results.filter(RestoreResult::is_wanted));
    }

    /// Reports that these are not restored. One fault stands for all: the stream thread decides
    /// what becomes of its tasks.
    pub(super) fn failed(&self, tickets: impl Iterator<Item = Ticket>, fault: RestoreFault) {
        let mut fault = Some(fault);
        let wanted = tickets.filter(Ticket::is_wanted);
        self.send(wanted.map(|ticket| RestoreResult {
            ticket,
            outcome: Err(fault.take().unwrap_or(RestoreFault::Cancelled)),
        }));
    }

    fn send(&self, results: impl Iterator<Item = RestoreResult>) {
        let mut any = false;
        for result in results {
            // If nobody listens any more, nobody waits for it.
            any |= self.to.send(result).is_ok();
        }
        if any {
            self.waker.wake();
        }
    }
}
