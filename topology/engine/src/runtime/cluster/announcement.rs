//! What an instance tells the others: the records of `<application id>-instances`.
//!
//! Key: the instance id. Value: JSON, with a version; unknown fields are skipped, so that instances
//! of different builds understand each other. A tombstone removes an instance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::former_members::FormerMembers;
use crate::{TaskId, TimestampMs};

/// The version that is written. A newer one is read as far as it is known.
const VERSION: u32 = 1;

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstancePhase {
    /// It restores what it is going to own, and is in no group yet.
    Joining,
    /// It is a member of the groups, or about to be.
    Running,
    /// It has committed and closed its tasks. Its members stay in the groups until their
    /// session ends, so that it can come back to the same tasks.
    Stopped,
}

/// A task that runs on an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) task: TaskId,
    /// When it began to run there. Of two claims the later one holds.
    pub(crate) since: TimestampMs,
}

/// A task whose stores an instance keeps up to date without running it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StandbyReport {
    /// The task.
    pub task: TaskId,
    /// How many offsets its stores are behind the end of their changelog partition, including those
    /// of other tasks and of markers; `None` while unknown.
    pub records_behind: Option<u64>,
    /// How long ago it had everything, in milliseconds; `None`: not yet.
    pub stale_ms: Option<u64>,
}

/// What an instance tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) version: u32,
    pub(crate) instance: String,
    /// When the process started: distinguishes a restart from the process before it.
    pub(crate) started: TimestampMs,
    /// When this was said, by the clock of the instance.
    pub(crate) said: TimestampMs,
    pub(crate) phase: InstancePhase,
    /// `host:port` at which it answers the others; `None`: it answers nobody.
    #[serde(default)]
    pub(crate) address: Option<String>,
    pub(crate) threads: usize,
    /// The groups drop its members this long after it was last heard of.
    pub(crate) session_timeout_ms: u64,
    /// Which topology it runs on which topics.
    pub(crate) topology: String,
    #[serde(default)]
    pub(crate) tasks: Vec<Claim>,
    #[serde(default, with = "reports")]
    pub(crate) standbys: Vec<StandbyReport>,
    /// Over how many partitions each store is divided, including stores of earlier topologies.
    #[serde(default)]
    pub(crate) partitions: BTreeMap<String, i32>,
    /// The members in the groups that it has not replaced yet; `None`: they are its own, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) former_members: Option<FormerMembers>,
}

/// Reports as they are announced: the maximum stands for what is not known, as there has to be a
/// number for builds that know of no other way to say so.
mod reports {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::StandbyReport;
    use crate::TaskId;

    const UNKNOWN: u64 = u64::MAX;

    #[derive(Serialize, Deserialize)]
    struct Announced {
        task: TaskId,
        records_behind: u64,
        stale_ms: Option<u64>,
    }

    pub(super) fn serialize<S: Serializer>(
        reports: &[StandbyReport],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(reports.iter().map(|report| Announced {
            task: report.task,
            records_behind: report.records_behind.unwrap_or(UNKNOWN),
            stale_ms: report.stale_ms,
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<StandbyReport>, D::Error> {
        let announced = Vec::<Announced>::deserialize(deserializer)?.into_iter();
        let report = |of: Announced| StandbyReport {
            task: of.task,
            records_behind: Some(of.records_behind).filter(|records| *records != UNKNOWN),
            stale_ms: of.stale_ms,
        };
        Ok(announced.map(report).collect())
    }
}

impl Announcement {
    pub(crate) const VERSION: u32 = VERSION;

    /// Since when `task` runs there, if it is claimed.
    pub(crate) fn since(&self, task: TaskId) -> Option<TimestampMs> {
        let claims = self.tasks.iter().filter(|claim| claim.task == task);
        claims.map(|claim| claim.since).max()
    }

    /// All that is claimed.
    pub(crate) fn claims(&self) -> BTreeMap<TaskId, TimestampMs> {
        let claims = self.tasks.iter();
        claims.map(|claim| (claim.task, claim.since)).collect()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers, texts and lists of them are JSON")
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_read_as_they_are_written_and_unknown_fields_are_skipped() {
        let written = Announcement {
            version: VERSION,
            instance: "a".to_owned(),
            started: TimestampMs(7),
            said: TimestampMs(8),
            phase: InstancePhase::Running,
            address: Some("host:1".to_owned()),
            threads: 2,
            session_timeout_ms: 10_000,
            topology: "abc".to_owned(),
            tasks: vec![Claim {
                task: "0_1".parse().unwrap(),
                since: TimestampMs(9),
            }],
            standbys: vec![StandbyReport {
                task: "2_3".parse().unwrap(),
                records_behind: Some(4),
                stale_ms: None,
            }],
            partitions: BTreeMap::from([("orders".to_owned(), 4)]),
            former_members: None,
        };
        let mut json: serde_json::Value = serde_json::from_slice(&written.encode()).unwrap();
        assert_eq!(json["tasks"][0]["task"], "0_1");
        assert_eq!(json["phase"], "running");
        json["of_a_later_version"] = serde_json::json!([1]);
        let read = Announcement::decode(json.to_string().as_bytes()).unwrap();
        assert_eq!(read, written);
        assert!(Announcement::decode(b"{}").is_err());

        // What is not known is a number to others, and none to those who ask.
        let mut unknown = written;
        let report = unknown.standbys.first_mut().unwrap();
        report.records_behind = None;
        let shown = serde_json::to_value(*report).unwrap();
        assert_eq!(shown["records_behind"], serde_json::Value::Null);
        let json: serde_json::Value = serde_json::from_slice(&unknown.encode()).unwrap();
        assert_eq!(json["standbys"][0]["records_behind"], u64::MAX);
        let read = Announcement::decode(&unknown.encode()).unwrap();
        assert_eq!(read, unknown);
    }
}
