//! The one instance that a process is, and what can be asked of it now.
//!
//! ```text
//! Starting ──► Running ──► Stopping
//!     └───────────┴──────► Failed
//! ```
//!
//! HTTP answers from the first moment to the last, so that probes work while stores
//! are restored and requests under way can end while it stops.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;
use turnstile_engine::runtime::InstanceStatus;
use turnstile_ticketing::Service;

use crate::application::Application;

/// What can be asked of the instance.
pub struct Instance {
    services: BTreeSet<Service>,
    phase: RwLock<Phase>,
}

enum Phase {
    /// And what it waits for, if that is known.
    Starting(Option<String>),
    Running(Arc<dyn Application>),
    /// Requests under way still read.
    Stopping(Option<Arc<dyn Application>>),
    Failed(String),
}

impl Instance {
    /// An instance that is to run these services.
    #[must_use]
    pub fn new(services: BTreeSet<Service>) -> Self {
        Self {
            services,
            phase: RwLock::new(Phase::Starting(None)),
        }
    }

    /// Whether the service is run here.
    #[must_use]
    pub fn runs(&self, service: Service) -> bool {
        self.services.contains(&service)
    }

    /// Notes what the instance waits for while it starts.
    pub fn set_waiting_for(&self, what: String) {
        let mut phase = self.phase.write();
        if let Phase::Starting(_) = &*phase {
            *phase = Phase::Starting(Some(what));
        }
    }

    /// The application has started. A stop that has begun goes on.
    pub fn set_running(&self, application: Arc<dyn Application>) {
        let mut phase = self.phase.write();
        *phase = match &*phase {
            Phase::Starting(_) | Phase::Running(_) => Phase::Running(application),
            Phase::Stopping(_) => Phase::Stopping(Some(application)),
            Phase::Failed(reason) => Phase::Failed(reason.clone()),
        };
    }

    /// The instance stops: it is not ready any more.
    pub fn set_stopping(&self) {
        let mut phase = self.phase.write();
        *phase = match &*phase {
            Phase::Running(application) => Phase::Stopping(Some(application.clone())),
            Phase::Stopping(application) => Phase::Stopping(application.clone()),
            Phase::Starting(_) => Phase::Stopping(None),
            Phase::Failed(reason) => Phase::Failed(reason.clone()),
        };
    }

    /// The application has failed.
    pub fn set_failed(&self, reason: String) {
        *self.phase.write() = Phase::Failed(reason);
    }

    /// The application, or why there is none to ask.
    ///
    /// # Errors
    ///
    /// While it starts, after it has failed, and when it stops before it has started.
    pub fn application(&self) -> Result<Arc<dyn Application>, String> {
        match &*self.phase.read() {
            Phase::Running(application) | Phase::Stopping(Some(application)) => {
                Ok(application.clone())
            }
            Phase::Starting(None) => Err("the instance is starting".to_owned()),
            Phase::Starting(Some(what)) => {
                Err(format!("the instance is starting: waiting for {what}"))
            }
            Phase::Stopping(None) => Err("the instance is stopping".to_owned()),
            Phase::Failed(reason) => Err(format!("the instance has failed: {reason}")),
        }
    }

    /// Whether the instance is about to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(*self.phase.read(), Phase::Stopping(_) | Phase::Failed(_))
    }

    /// What the instance says about itself.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        let mut status = match self.application() {
            Ok(application) => application.status(),
            Err(problem) => {
                return InstanceStatus {
                    ready: false,
                    problems: vec![problem],
                    tasks: Vec::new(),
                };
            }
        };
        if matches!(*self.phase.read(), Phase::Stopping(_)) {
            status.ready = false;
            status
                .problems
                .insert(0, "the instance is stopping".to_owned());
        }
        status
    }
}
