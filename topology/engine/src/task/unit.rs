//! What one record or timer does: kept as a whole or undone as a whole.

use turnstile_state::Savepoint;

use super::context::TaskCore;

/// The marks to go back to.
pub(super) struct Unit {
    savepoint: Savepoint,
    outputs: usize,
}

impl Unit {
    pub(super) fn begin(core: &mut TaskCore) -> Self {
        Self {
            savepoint: core.overlay.savepoint(),
            outputs: core.outputs.len(),
        }
    }

    pub(super) fn keep(self, core: &mut TaskCore) {
        core.overlay.release(self.savepoint);
        for timers in core.timers.iter_mut().flatten() {
            timers.keep();
        }
    }

    pub(super) fn undo(self, core: &mut TaskCore) {
        core.overlay.rollback_to(self.savepoint);
        core.outputs.truncate(self.outputs);
        for timers in core.timers.iter_mut().flatten() {
            timers.undo();
        }
    }
}
