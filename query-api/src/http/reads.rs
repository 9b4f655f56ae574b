//! Reading rows while tasks start, move and stop.
//!
//! If no instance that has a row can give it at the moment, the read waits for it, up to
//! `recovery_wait`; then the answer is 503. A page of a list waits less, and goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Api;
use super::problem::{Problem, ProblemKind};
use crate::application::{Application, Patience, Unavailable};

impl Api {
    /// The application, unless there is none to ask.
    pub(super) fn application(&self) -> Result<Arc<dyn Application>, Problem> {
        let application = self.instance().application();
        application.map_err(|why| Problem::with_detail(ProblemKind::Unavailable, why))
    }

    /// How long a read that begins now waits, for committed rows.
    pub(super) fn patience(&self) -> Patience {
        Patience::until(Instant::now() + self.shared.recovery_wait)
    }

    /// The same for a reader who accepts rows that are at most so stale.
    pub(super) fn patience_with(&self, max_stale: Option<Duration>) -> Patience {
        Patience {
            max_stale,
            ..self.patience()
        }
    }

    /// The same for a page of a list, which can name what is missing.
    pub(super) fn patience_of_page(&self, max_stale: Option<Duration>) -> Patience {
        Patience {
            deadline: Instant::now() + self.shared.recovery_wait.min(PAGE_WAIT),
            max_stale,
        }
    }
}

/// The longest that a page waits for a partition that no instance can give, before it goes on
/// without it: an instance that hangs is asked once in that time, and one that has died is
/// not replaced within it in any case.
const PAGE_WAIT: Duration = Duration::from_secs(2);

/// What a client is told when a row cannot be read.
impl From<Unavailable> for Problem {
    fn from(unavailable: Unavailable) -> Self {
        match unavailable {
            Unavailable::NotYet { .. } => {
                tracing::debug!(
                    error = &unavailable as &dyn std::error::Error,
                    "a read was given up"
                );
                Self::with_detail(ProblemKind::Unavailable, unavailable.to_string())
            }
            Unavailable::NoService(service) => {
                let detail = format!("the service {service} is not run here");
                Self::with_detail(ProblemKind::RouteNotFound, detail)
            }
            Unavailable::Failed(error) => {
                tracing::error!(
                    error = error.as_ref() as &dyn std::error::Error,
                    "a store cannot be read"
                );
                Self::new(ProblemKind::Internal)
            }
        }
    }
}
