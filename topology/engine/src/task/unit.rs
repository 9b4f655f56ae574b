//! What one record or timer does: kept as a whole or undone as a whole.
//!
//! What a processor forwards is a unit within it: its sender may do without it.

use turnstile_state::Savepoint;

use super::task_core::TaskCore;
use crate::timer::Timers;

/// The marks to go back to.
pub(super) struct Unit {
    savepoint: Savepoint,
    outputs: usize,
    letter_causes: usize,
}

impl Unit {
    pub(super) fn begin(core: &mut TaskCore) -> Self {
        Self {
            savepoint: core.overlay.savepoint(),
            outputs: core.outputs.len(),
            letter_causes: core.letter_causes.len(),
        }
    }

    /// Keeps what was done if it succeeded, otherwise undoes it.
    pub(super) fn end<R, E>(self, core: &mut TaskCore, result: &Result<R, E>) {
        if result.is_ok() {
            self.keep(core);
        } else {
            self.undo(core);
        }
    }

    fn keep(self, core: &mut TaskCore) {
        core.overlay.release(self.savepoint);
        for timers in core.timers.iter_mut().flatten() {
            timers.keep();
        }
    }

    fn undo(self, core: &mut TaskCore) {
        self.undo_but_timers(core);
        for timers in core.timers.iter_mut().flatten() {
            timers.undo_from(0);
        }
    }

    fn undo_but_timers(self, core: &mut TaskCore) {
        core.overlay.rollback_to(self.savepoint);
        core.outputs.truncate(self.outputs);
        core.letter_causes.truncate(self.letter_causes);
    }
}

/// A unit within another one.
pub(super) struct UnitWithin {
    unit: Unit,
    /// By processor.
    timers: Vec<usize>,
}

impl UnitWithin {
    pub(super) fn begin(core: &mut TaskCore) -> Self {
        let timers = core.timers.iter();
        let timers = timers.map(|timers| timers.as_ref().map_or(0, Timers::changes));
        Self {
            timers: timers.collect(),
            unit: Unit::begin(core),
        }
    }

    /// Makes it part of the other one from now on.
    pub(super) fn keep(self, core: &mut TaskCore) {
        core.overlay.release(self.unit.savepoint);
    }

    pub(super) fn undo(self, core: &mut TaskCore) {
        self.unit.undo_but_timers(core);
        for (timers, changes) in core.timers.iter_mut().zip(self.timers) {
            if let Some(timers) = timers {
                timers.undo_from(changes);
            }
        }
    }
}
