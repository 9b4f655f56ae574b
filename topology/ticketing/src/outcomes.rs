//! The outcomes of the commands of one task: each decided once and kept for 24 hours.
//!
//! ```text
//! begin ──► nothing: decided already, the command changes nothing
//!       └─► Undecided ──► keep(answer): stored, with a timer that forgets it
//! ```

use std::time::Duration;

use turnstile_engine::{Context, ProcessorError, Store};

use crate::commands::{Command, CommandBody};
use crate::ids::AttemptId;
use crate::outcome::{Answer, Outcome, OutcomeKey};
use crate::timer_key::TimerKey;

/// How long an outcome is kept.
pub const OUTCOME_KEPT: Duration = Duration::from_hours(24);

/// Outcomes in a store of the processor that owns it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcomes {
    store: Store<OutcomeKey, Outcome>,
}

/// A command that is to be decided now.
pub(crate) struct Undecided {
    key: OutcomeKey,
    /// The attempts that ended in a `404` before.
    earlier: Vec<AttemptId>,
}

impl Outcomes {
    pub(crate) fn new(store: Store<OutcomeKey, Outcome>) -> Self {
        Self { store }
    }

    /// The command, if it is to be decided now.
    pub(crate) fn begin<B: CommandBody>(
        self,
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
        self,
        context: &mut Context<'_>,
        undecided: Undecided,
        command: &Command<B>,
        answer: Answer,
    ) -> Result<(), ProcessorError> {
        let Undecided { key, earlier } = undecided;
        let attempt = command.attempt.clone();
        let outcome = Outcome::new(answer, command.fingerprint(), earlier, attempt);
        context.put(self.store, &key, &outcome)?;
        let forget_at = context.now().plus(OUTCOME_KEPT);
        context.schedule(&TimerKey::Outcome(key).to_bytes(), forget_at)
    }

    /// Forgets an outcome whose time is over.
    pub(crate) fn forget(
        self,
        context: &mut Context<'_>,
        key: &OutcomeKey,
    ) -> Result<(), ProcessorError> {
        context.delete(self.store, key)
    }
}
