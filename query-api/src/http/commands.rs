//! How a command is sent and its outcome awaited.
//!
//! 1. The key is noted; the same key with another body is 422.
//! 2. The outcome is looked for, wherever it is: a retry may find it decided. This also
//!    shows whether its owner can be reached; a command whose outcome could not be read is
//!    503, and not written. Nor is one whose refusal is known without asking, unless it may
//!    have been written before: then its owner decides, since what was refused here could
//!    succeed there. If the outcome belongs to another body, the key, as far as it is noted
//!    here, is released from the body that it came with.
//! 3. The command is written with acks=all.
//! 4. Its outcome is awaited.
//!
//! If 3. or 4. is not done in time, the answer is 504 and names the key to retry with. So it is if
//! anything fails after 3., or if 3. fails and the command may be written all the same: whoever
//! repeated it under another key would have it done twice. Only what was certainly not written is
//! 503.
//!
//! Giving up never takes a command back: if it is in the topic, or still gets there, it is
//! decided.

use tokio::time::{Instant, timeout_at};
use turnstile_engine::Encode;
use turnstile_ticketing::commands::{Command, CommandBody};
use turnstile_ticketing::ids::UserId;
use turnstile_ticketing::outcome::{Answer, Outcome, OutcomeKey, Reply};

use super::Api;
use super::idempotency::{IdempotencyKey, KeyUse, new_attempt};
use super::problem::{Problem, ProblemKind};
use crate::application::{Decider, SendFailure, Unavailable};

/// A command as a route asks for it.
pub(super) struct Submission<'a, B> {
    /// Its name in metrics, and the scope of its key on this instance.
    pub(super) name: &'static str,
    /// Who decides it.
    pub(super) decider: Decider,
    /// The topic that it is written to.
    pub(super) topic: &'static str,
    /// What its caller named it.
    pub(super) key: &'a IdempotencyKey,
    /// Who asks.
    pub(super) caller: &'a UserId,
    /// What is asked for.
    pub(super) body: B,
    /// What a 404 is about.
    pub(super) not_found: ProblemKind,
    /// The answer, if it is known without asking, and nothing was or may yet be decided.
    pub(super) refusal: Option<Problem>,
    /// Until when the outcome is awaited.
    pub(super) deadline: Instant,
}

impl Api {
    /// When a command that is accepted now has to be answered.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.shared.command_timeout
    }

    /// Has a command decided.
    pub(super) async fn decide<B: CommandBody>(
        &self,
        submission: Submission<'_, B>,
    ) -> Result<Answer, Problem> {
        let undecided = self.measures().command(submission.name);
        let (name, key, caller) = (submission.name, submission.key, submission.caller);
        let not_found = submission.not_found;
        let answer = self
            .answer(submission)
            .await
            .map_err(|problem| problem.ask_again_with(key.as_str()));
        let uses = &self.shared.key_uses;
        match answer.as_ref().err().map(Problem::kind) {
            Some(kind) if kind == not_found => uses.forget(name, &key.command(caller)),
            Some(kind) if !is_kept(kind) => uses.release(name, &key.command(caller)),
            _ => {}
        }
        let result = answer
            .as_ref()
            .err()
            .map_or("ok", |problem| problem.kind().slug());
        undecided.end(result);
        answer
    }

    async fn answer<B: CommandBody>(
        &self,
        submission: Submission<'_, B>,
    ) -> Result<Answer, Problem> {
        let Submission {
            name,
            decider,
            topic,
            key,
            caller,
            body,
            not_found,
            refusal,
            deadline,
        } = submission;
        let command = Command {
            id: key.command(caller),
            attempt: Some(new_attempt()),
            body,
        };
        let fingerprint = command.fingerprint();
        let outcome_key = OutcomeKey {
            key: command.body.key().to_owned(),
            command: command.id.clone(),
        };
        let attempt = command.attempt.clone().expect("it was given one above");
        let uses = &self.shared.key_uses;
        let answer_in = |outcome: &Outcome| match outcome.reply_to(fingerprint, &attempt) {
            Reply::Answer(answer) => {
                Some(Problem::of_answer(answer, not_found).map_or_else(|| Ok(answer.clone()), Err))
            }
            Reply::OtherBody => {
                uses.release_from(name, &outcome_key.command, fingerprint);
                Some(Err(Problem::new(ProblemKind::IdempotencyKeyReused)))
            }
            Reply::NotYet => None,
        };

        // 1.
        let key_use = if key.is_given() {
            uses.note(name, &command.id, fingerprint)
        } else {
            KeyUse::New
        };
        if key_use == KeyUse::OtherBody {
            return Err(Problem::new(ProblemKind::IdempotencyKeyReused));
        }
        // 2.
        let application = self.application()?;
        let rows = application.rows();
        let decided = rows.outcome(decider, &outcome_key, self.patience()).await?;
        if let Some(answer) = decided.as_ref().and_then(answer_in) {
            return answer;
        }
        if let Some(problem) = refusal
            && key_use == KeyUse::New
        {
            // The key stays bound to the body: a retry with that is refused again.
            return Err(problem);
        }
        // 3.
        let note_sent = || uses.note_sent(name, &outcome_key.command, fingerprint);
        if key.is_given() {
            note_sent();
        }
        // Nobody can retry with a key that was made up before a problem names it.
        let unknown = |problem: Problem| {
            note_sent();
            problem
        };
        let mut value = Vec::new();
        command.encode(&mut value);
        let sent = application.send(topic, &outcome_key.key, value);
        // A late command is written all the same, if the brokers are back before they give up.
        let sent = timeout_at(deadline, sent).await;
        let sent = sent.map_err(|_| unknown(outcome_pending()))?;
        sent.map_err(|failure| unknown(not_written(name, &failure)))?;
        // 4.
        let answer = rows
            .await_outcome(decider, &outcome_key, deadline, |outcome| {
                outcome.as_ref().and_then(answer_in)
            })
            .await
            .map_err(|failure| unknown(outcome_unreadable(name, &failure)))?;
        answer.unwrap_or_else(|| Err(unknown(outcome_pending())))
    }
}

/// The answer to a command whose outcome did not come in time.
pub(super) fn outcome_pending() -> Problem {
    let detail = "the command may be decided yet; ask again with this Idempotency-Key";
    Problem::with_detail(ProblemKind::OutcomePending, detail)
}

/// The answer to a command that is written, if it cannot be read what became of it.
pub(super) fn outcome_unreadable(command: &'static str, failure: &Unavailable) -> Problem {
    tracing::error!(
        command,
        error = failure as &dyn std::error::Error,
        "what became of a command cannot be read"
    );
    outcome_pending()
}

/// An outcome that the command cannot have.
pub(super) fn unexpected_answer(command: &'static str) -> Problem {
    tracing::error!(command, "the outcome is that of another command");
    Problem::new(ProblemKind::Internal)
}

fn not_written(command: &'static str, failure: &SendFailure) -> Problem {
    tracing::warn!(
        command,
        may_be_written = failure.may_be_written,
        error = failure as &dyn std::error::Error,
        "a command could not be written"
    );
    if failure.may_be_written {
        return outcome_pending();
    }
    Problem::with_detail(ProblemKind::Unavailable, "the command could not be written")
}

/// Whether a key with this outcome stays bound to its body.
fn is_kept(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::PaymentDeclined
            | ProblemKind::Forbidden
            | ProblemKind::TicketExists
            | ProblemKind::TicketReserved
            | ProblemKind::OrderFinished
            | ProblemKind::OrderNotPayable
            | ProblemKind::IdempotencyKeyReused
            | ProblemKind::OutcomePending
            | ProblemKind::InvalidValue
    )
}
