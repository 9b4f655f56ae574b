//! Reading rows while tasks start, move and stop.
//!
//! A row whose task is on its way is waited for, up to `recovery_wait`; then the
//! answer is 503. A row that another instance owns is 421 at once. A row that is to
//! change is watched, and looked at now and then as well: a watch ends silently when
//! its task moves away.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::Api;
use super::problem::{Problem, ProblemKind};
use crate::application::{Application, Row, Unavailable};

/// How often it looks whether the task has come.
const RECOVERY_POLL: Duration = Duration::from_millis(50);

/// How often a watched row is looked at without having been told.
const WATCH_POLL: Duration = Duration::from_millis(250);

impl Api {
    /// The application, unless there is none to ask.
    pub(super) fn application(&self) -> Result<Arc<dyn Application>, Problem> {
        let application = self.instance().application();
        application.map_err(|why| Problem::with_detail(ProblemKind::Unavailable, why))
    }

    /// What `look` finds.
    pub(super) async fn read<T>(
        &self,
        look: impl Fn(&dyn Application) -> Result<T, Unavailable>,
    ) -> Result<T, Problem> {
        let deadline = Instant::now() + self.shared.recovery_wait;
        loop {
            match look(self.application()?.as_ref()) {
                Err(Unavailable::NotYet(_)) if Instant::now() < deadline => {
                    sleep(RECOVERY_POLL).await;
                }
                found => return found.map_err(problem),
            }
        }
    }

    /// What `look` finds, off the threads that serve, because it looks at many rows.
    pub(super) async fn read_many<T: Send + 'static>(
        &self,
        look: impl Fn(&dyn Application) -> Result<T, Unavailable> + Send + Sync + 'static,
    ) -> Result<T, Problem> {
        let look = Arc::new(look);
        let deadline = Instant::now() + self.shared.recovery_wait;
        loop {
            let (application, look) = (self.application()?, look.clone());
            let found = tokio::task::spawn_blocking(move || look(application.as_ref())).await;
            match found.map_err(|panicked| problem(Unavailable::Failed(Box::new(panicked))))? {
                Err(Unavailable::NotYet(_)) if Instant::now() < deadline => {
                    sleep(RECOVERY_POLL).await;
                }
                found => return found.map_err(problem),
            }
        }
    }

    /// What `look` finds in `row` once it finds something, or `None` when the time is over.
    pub(super) async fn wait_for<T>(
        &self,
        row: &Row,
        deadline: Instant,
        look: impl Fn(&dyn Application) -> Result<Option<T>, Unavailable>,
    ) -> Result<Option<T>, Problem> {
        loop {
            let application = self.application()?;
            let changed = Arc::new(Notify::new());
            let tell = changed.clone();
            // Watching comes before looking, so that no change falls between them. Where
            // the row cannot be watched now, looking says why.
            let watch = application.watch(row, Box::new(move || tell.notify_one()));
            match look(application.as_ref()) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) | Err(Unavailable::NotYet(_) | Unavailable::Elsewhere { .. }) => {}
                Err(error) => return Err(problem(error)),
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let look_again = deadline.min(Instant::now() + WATCH_POLL);
            // Being told and having waited long enough lead to the same: another look.
            timeout_at(look_again, changed.notified()).await.ok();
            drop(watch);
        }
    }
}

/// What a client is told when a row cannot be read.
pub(super) fn problem(unavailable: Unavailable) -> Problem {
    match unavailable {
        Unavailable::Elsewhere { partition } => Problem::misdirected(partition),
        Unavailable::NotYet(why) => Problem::with_detail(ProblemKind::Unavailable, why),
        Unavailable::NoService(service) => {
            let detail = format!("the service {service} is not run here");
            Problem::with_detail(ProblemKind::RouteNotFound, detail)
        }
        Unavailable::Failed(error) => {
            tracing::error!(
                error = error.as_ref() as &dyn std::error::Error,
                "a store cannot be read"
            );
            Problem::new(ProblemKind::Internal)
        }
    }
}
