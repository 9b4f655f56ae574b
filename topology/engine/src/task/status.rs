//! The life cycle of a task.

use std::fmt;

/// Where a task is in its life cycle; the diagram is at the head of [`crate::task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskStatus {
    /// It is assigned, but not by all of its groups yet, or it waits for others to be restored
    /// with.
    Created,
    /// Its stores are being brought up to date.
    Restoring,
    /// It processes.
    Running,
    /// A group took its partition away, or is about to give it back.
    Suspended,
    /// It is gone from this thread.
    Closed,
}

impl TaskStatus {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Restoring,
        Self::Running,
        Self::Suspended,
        Self::Closed,
    ];

    /// Whether the step to `next` exists.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match next {
            Self::Created => false,
            Self::Restoring => matches!(self, Self::Created | Self::Suspended),
            Self::Running => self == Self::Restoring,
            Self::Suspended => matches!(self, Self::Running | Self::Restoring),
            Self::Closed => self != Self::Closed,
        }
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Restoring => "restoring",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskStatus::{self, Closed, Created, Restoring, Running, Suspended};

    #[test]
    fn only_the_steps_of_the_diagram_exist() {
        let steps = [
            (Created, Restoring),
            (Created, Closed),
            (Restoring, Running),
            (Restoring, Suspended),
            (Restoring, Closed),
            (Running, Suspended),
            (Running, Closed),
            (Suspended, Restoring),
            (Suspended, Closed),
        ];
        for from in TaskStatus::ALL {
            for to in TaskStatus::ALL {
                assert_eq!(
                    from.may_become(to),
                    steps.contains(&(from, to)),
                    "{from} to {to}"
                );
            }
        }
    }
}
