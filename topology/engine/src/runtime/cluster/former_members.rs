//! The members that an earlier process of this instance has left in the groups.
//!
//! Members are static: a process that starts within the session of the one before it takes their
//! place, and gets what had been assigned to them. The group does not compare what the two
//! subscribe to (KAFKA-12759): nothing of a topic that only the new process reads would be
//! assigned, and nobody would ever rebalance. So a process with another topology waits until the
//! groups have dropped these members.
//!
//! An instance replaces the announcement of the process before it long before it joins. So until
//! then it repeats what that left behind: it may be restarted while it waits.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Cluster;
use super::announcement::{Announcement, InstancePhase};
use crate::TimestampMs;

/// How much longer they may live than what was heard of them says: the last sign of life is up to a
/// second old, and brokers and clocks are not exact.
const GRACE: Duration = Duration::from_secs(2);

/// What an instance repeats of members that it has not replaced yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormerMembers {
    /// The topology that they subscribed for.
    topology: String,
    /// When they were last known to live, by the clock of the instance.
    lived: TimestampMs,
    /// Their own, which may differ from that of the process that replaces them.
    session_timeout_ms: u64,
}

/// What an earlier process of this instance has left in the groups.
#[derive(Debug, Clone)]
pub(super) struct LeftBehind {
    members: FormerMembers,
    lived: Instant,
}

impl LeftBehind {
    /// By the process that has said this, as was heard at `heard`.
    pub(super) fn by(said: &Announcement, heard: Instant) -> Option<Self> {
        let own = || FormerMembers {
            topology: said.topology.clone(),
            lived: said.said,
            session_timeout_ms: said.session_timeout_ms,
        };
        let members = said.former_members.clone().or_else(|| match said.phase {
            InstancePhase::Joining => None,
            InstancePhase::Running | InstancePhase::Stopped => Some(own()),
        })?;
        // Both times are of one clock, whichever that is.
        let before = said.said.since(members.lived);
        Some(Self {
            members,
            lived: heard.checked_sub(before).unwrap_or(heard),
        })
    }

    /// What to repeat of them.
    pub(super) fn into_members(self) -> FormerMembers {
        self.members
    }

    /// How long a process with `topology` has to wait for the end of their session; `None`: it can
    /// take their place.
    pub(super) fn left(&self, topology: &str, now: Instant) -> Option<Duration> {
        if self.members.topology == topology {
            return None;
        }
        let session = Duration::from_millis(self.members.session_timeout_ms);
        let silence = now.saturating_duration_since(self.lived);
        let left = end_of(session).checked_sub(silence);
        left.filter(|left| !left.is_zero())
    }
}

/// How long after the last that was heard of a member with this session timeout the groups have
/// dropped it for sure.
pub(crate) fn end_of(session: Duration) -> Duration {
    session.saturating_add(GRACE)
}

impl Cluster {
    /// How long this instance has to wait until the groups have dropped the members of the process
    /// before it, if those have another topology.
    pub(super) fn until_former_members_end(&self) -> Option<Duration> {
        let left_behind = self.shared.left_behind.lock();
        let own = &self.shared.own.topology;
        left_behind.as_ref()?.left(own, Instant::now())
    }

    /// Hears what another process says under the name of this instance.
    pub(super) fn hear_process_before(&self, said: &Announcement, heard: Instant) {
        // Its members have been replaced once this instance runs.
        if self.shared.entry.is_inside() {
            return;
        }
        if let Some(left_behind) = LeftBehind::by(said, heard) {
            *self.shared.left_behind.lock() = Some(left_behind);
        }
    }
}
