//! Answers the reads of other instances: from local stores, never by asking further.
//!
//! A read that waits for a change watches the row, and also polls it now and then: a task
//! that moves away tells nobody, and those who wait for it have to ask its next owner. An
//! instance that stops lets nobody wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use turnstile_engine::runtime::{QueryError, StoreAnswer, StoreRead};

use super::Stores;
use super::stores::{WATCH_POLL, look};
use crate::peers::{Fingerprint, ReadReply, ReadRequest, Refusal, Wait};

/// The longest that a read waits, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(60);

impl Stores {
    /// The answer to a read of another instance.
    pub async fn answer(&self, read: &ReadRequest, is_stopping: impl Fn() -> bool) -> ReadReply {
        let answer = match read.wait {
            None => look(self.queries(), &read.request, read.max_stale)
                .await
                .map_err(refusal),
            Some(wait) => self.answer_when_changed(read, wait, is_stopping).await,
        };
        answer.map_or_else(ReadReply::Refusal, ReadReply::Answer)
    }

    async fn answer_when_changed(
        &self,
        read: &ReadRequest,
        wait: Wait,
        is_stopping: impl Fn() -> bool,
    ) -> Result<StoreAnswer, Refusal> {
        let ReadRequest { request, .. } = read;
        let StoreRead::Keys(keys) = &request.read else {
            return Err(Refusal::Malformed("only one key can be watched".to_owned()));
        };
        let [key] = keys.as_slice() else {
            return Err(Refusal::Malformed("only one key can be watched".to_owned()));
        };
        let deadline = Instant::now() + wait.limit.min(WAIT_MAX);
        loop {
            let changed = Arc::new(Notify::new());
            let tell = changed.clone();
            // Watching comes before looking, so that no change falls between them.
            let tell = move || tell.notify_one();
            let watch = self
                .queries()
                .watch_key(&request.store, request.partition, key, tell)
                .map_err(refusal)?;
            let answer = self.queries().answer(request, None).map_err(refusal)?;
            let now = Instant::now();
            if Fingerprint::of_row(&answer) != wait.known || now >= deadline || is_stopping() {
                return Ok(answer);
            }
            let look_again = deadline.min(now + WATCH_POLL);
            // A notification and a time-out lead to the same: another look.
            timeout_at(look_again, changed.notified()).await.ok();
            drop(watch);
        }
    }
}

fn refusal(error: QueryError) -> Refusal {
    match error {
        QueryError::NotOwned { .. } => Refusal::NotHere(error.to_string()),
        QueryError::NotRunning { .. } => Refusal::NotYet(error.to_string()),
        QueryError::UnknownStore(store) => Refusal::UnknownStore(store),
        QueryError::State(_) | QueryError::UnreadableRow { .. } => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a store cannot be read for another instance"
            );
            Refusal::Failed(error.to_string())
        }
    }
}
