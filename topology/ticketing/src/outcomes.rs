//! The outcomes of the commands of one task: each decided once and kept for a day.
//!
//! ```text
//! begin ──► nothing: decided already, the command changes nothing
//!       └─► Undecided ──► keep(answer): stored, with its time
//! sweep ──► those that are older than a day are forgotten, some rows a call
//! ```

use std::time::Duration;

use turnstile_engine::{Context, ProcessorError, Store};

use crate::commands::{Command, CommandBody};
use crate::ids::AttemptId;
use crate::outcome::{Answer, Outcome, OutcomeKey};

mod sweep;

use sweep::Sweep;

/// The least time that an outcome is kept.
pub const OUTCOME_KEPT: Duration = Duration::from_hours(24);

/// How often a processor with outcomes calls [`Outcomes::sweep`].
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Outcomes in a store of the processor that owns it.
#[derive(Debug)]
pub(crate) struct Outcomes {
    store: Store<OutcomeKey, Outcome>,
    sweep: Sweep,
}

/// A command that is to be decided now.
pub(crate) struct Undecided {
    key: OutcomeKey,
    /// The attempts that ended in a `404` before.
    earlier: Vec<AttemptId>,
}

impl Outcomes {
    pub(crate) fn new(store: Store<OutcomeKey, Outcome>) -> Self {
        Self {
            store,
            sweep: Sweep::default(),
        }
    }

    /// The command, if it is to be decided now.
    pub(crate) fn begin<B: CommandBody>(
        &self,
        context: &Context<'_>,
        command: &Command<B>,
    ) -> Result<Option<Undecided>, ProcessorError> {
        let key = OutcomeKey {
            key: command.body.key().to_owned(),
            command: command.id.clone(),
        };
        let Some(outcome) = context.get(self.store, &key)? else {
            return Ok(Some(Undecided {
                key,
                earlier: Vec::new(),
            }));
        };
        let is_new = |attempt| !outcome.attempts.contains(attempt);
        if outcome.answer.is_retryable() && command.attempt.as_ref().is_some_and(is_new) {
            return Ok(Some(Undecided {
                key,
                earlier: outcome.attempts,
            }));
        }
        Ok(None)
    }

    /// Keeps the answer to `command`.
    pub(crate) fn keep<B: CommandBody>(
        &self,
        context: &mut Context<'_>,
        undecided: Undecided,
        command: &Command<B>,
        answer: Answer,
    ) -> Result<(), ProcessorError> {
        let Undecided { key, earlier } = undecided;
        let attempt = command.attempt.clone();
        let now = context.now();
        let outcome = Outcome::new(answer, command.fingerprint(), earlier, attempt, now);
        context.put(self.store, &key, &outcome)
    }

    /// Keeps an outcome that was in another row until now.
    pub(crate) fn take_over(
        &self,
        context: &mut Context<'_>,
        key: &OutcomeKey,
        outcome: &Outcome,
    ) -> Result<(), ProcessorError> {
        context.put(self.store, key, outcome)
    }

    /// Forgets some of the outcomes that have expired.
    pub(crate) fn sweep(&mut self, context: &mut Context<'_>) -> Result<(), ProcessorError> {
        self.sweep.go_on(context, self.store)
    }
}
