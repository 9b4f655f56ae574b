//! Which instances exist and what they have, according to the announcements read so far.
//!
//! An instance counts as alive until its session timeout has passed since it was last heard of;
//! after that, its claims are void. Of two instances that claim a task, the one that began later
//! has it: the other has not yet noticed that it lost it.
//!
//! The last announcement of an instance that is gone for good is forgotten after a day, here and in
//! the topic: instances that get a new name at each start would fill both.
//!
//! Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TRANSACTIONS_END;
use super::announcement::{Announcement, InstancePhase, StandbyReport};
use super::assignment::Members;
use crate::TaskId;

/// An instance that was silent for longer is forgotten. Nobody needs to know it any more: its place
/// in the groups has ended with its session, its transactions by [`TRANSACTIONS_END`], after which
/// they are not fenced either. Its claims matter only if it comes back, and then it makes them
/// anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// An instance that was heard of.
#[derive(Debug, Clone)]
pub(crate) struct Neighbour {
    pub(crate) name: Arc<str>,
    pub(crate) address: Option<Arc<str>>,
    pub(crate) heard: Instant,
    /// Whether it was said while this process listened; otherwise it was said before.
    pub(crate) live: bool,
    pub(crate) said: Announcement,
}

impl Neighbour {
    /// Whether its members are in the groups as far as anybody knows.
    fn is_alive(&self, now: Instant) -> bool {
        let patience = Duration::from_millis(self.said.session_timeout_ms);
        now.saturating_duration_since(self.heard) <= patience
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.said.phase == InstancePhase::Stopped
    }

    /// Whether it answers requests.
    fn answers(&self, now: Instant) -> bool {
        self.is_alive(now) && !self.has_stopped()
    }

    fn is_member(&self, now: Instant) -> bool {
        self.is_alive(now) && self.said.phase != InstancePhase::Joining
    }
}

/// Everything that was announced.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    neighbours: BTreeMap<Arc<str>, Neighbour>,
}

impl Directory {
    /// Takes in what `name` said, or that it is forgotten. `heard` is when; `live` says whether it
    /// was said while this process listened. Returns whether it counts.
    pub(crate) fn hear(
        &mut self,
        name: &str,
        said: Option<Announcement>,
        heard: Instant,
        live: bool,
    ) -> bool {
        let Some(said) = said else {
            self.neighbours.remove(name);
            return true;
        };
        let known = self.neighbours.get(name);
        // What a process says after another has started under its name does not count, as long as
        // the other lives.
        let is_outdone = |known: &Neighbour| {
            let lives = known.live && known.is_alive(heard) && !known.has_stopped();
            lives && said.started < known.said.started
        };
        if known.is_some_and(is_outdone) {
            return false;
        }
        let name: Arc<str> = known.map_or_else(|| name.into(), |known| known.name.clone());
        let neighbour = Neighbour {
            address: said.address.as_deref().map(Arc::from),
            name: name.clone(),
            heard,
            live,
            said,
        };
        self.neighbours.insert(name, neighbour);
        true
    }

    /// Those that are alive, by name.
    pub(crate) fn alive(&self, now: Instant) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values().filter(move |of| of.is_alive(now))
    }

    /// Those that ran when they were last heard of, and are not alive.
    pub(crate) fn silent(&self, now: Instant) -> impl Iterator<Item = &Neighbour> {
        let running = |of: &&Neighbour| of.said.phase == InstancePhase::Running;
        let neighbours = self.neighbours.values().filter(running);
        neighbours.filter(move |of| !of.is_alive(now))
    }

    /// Those that are to be forgotten, by a process that has listened since `since` and has heard
    /// everything that was said until then.
    ///
    /// The age of what was said before `since` is the difference between two clocks, and one may be
    /// wrong by days. So an instance that lives is given time to speak, and one that has just died
    /// is remembered for as long as necessary, whatever the clocks say.
    pub(crate) fn to_forget(
        &self,
        since: Instant,
        until: Instant,
    ) -> impl Iterator<Item = &Neighbour> {
        let has_listened = until.saturating_duration_since(since) > TRANSACTIONS_END;
        self.neighbours.values().filter(move |of| {
            let silence = until.saturating_duration_since(of.heard);
            has_listened && !of.is_alive(until) && silence > FORGOTTEN_AFTER
        })
    }

    /// An instance by its name, dead or alive.
    pub(crate) fn named(&self, name: &str) -> Option<&Neighbour> {
        self.neighbours.get(name)
    }

    /// The instance that runs `task`.
    pub(crate) fn owner(&self, task: TaskId, now: Instant) -> Option<&Neighbour> {
        let answering = self.neighbours.values().filter(|of| of.answers(now));
        answering
            .filter_map(|of| Some((of.said.since(task)?, of)))
            .max_by_key(|(since, of)| (*since, of.heard))
            .map(|(_, of)| of)
    }

    /// The standbys of `task`, those that are least behind first.
    pub(crate) fn standbys(&self, task: TaskId, now: Instant) -> Vec<(&Neighbour, StandbyReport)> {
        let answering = self.neighbours.values().filter(|of| of.answers(now));
        let mut found: Vec<_> = answering
            .filter_map(|of| {
                let report = of.said.standbys.iter().find(|report| report.task == task)?;
                Some((of, *report))
            })
            .collect();
        found.sort_by_key(|(_, report)| {
            let unless_unknown = |number: Option<u64>| number.unwrap_or(u64::MAX);
            (
                unless_unknown(report.stale_ms),
                unless_unknown(report.records_behind),
            )
        });
        found
    }

    /// The members of the groups, plus those of an instance that is going to join.
    pub(crate) fn members_with(&self, now: Instant, joining: Option<(Arc<str>, usize)>) -> Members {
        let present = self.neighbours.values().filter(|of| of.is_member(now));
        let present = present.map(|of| (of.name.clone(), of.said.threads));
        Members::of(present.chain(joining))
    }
}

#[cfg(test)]
mod tests {
    use super::super::announcement::Claim;
    use super::*;
    use crate::TimestampMs;

    fn says(started: i64, tasks: &[(&str, i64)]) -> Announcement {
        Announcement {
            version: Announcement::VERSION,
            instance: String::new(),
            started: TimestampMs(started),
            said: TimestampMs(started),
            phase: InstancePhase::Running,
            address: None,
            threads: 1,
            session_timeout_ms: 1_000,
            topology: String::new(),
            tasks: tasks
                .iter()
                .map(|(task, since)| Claim {
                    task: task.parse().unwrap(),
                    since: TimestampMs(*since),
                })
                .collect(),
            standbys: Vec::new(),
            partitions: BTreeMap::new(),
            former_members: None,
        }
    }

    fn owner<'a>(directory: &'a Directory, task: &str, now: Instant) -> Option<&'a str> {
        let owner = directory.owner(task.parse().unwrap(), now);
        owner.map(|of| of.name.as_ref())
    }

    #[test]
    fn the_later_claim_holds_whoever_spoke_last() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.hear("b", Some(says(1, &[("0_0", 20)])), now, true);
        directory.hear("a", Some(says(1, &[("0_0", 10), ("0_1", 10)])), now, true);
        assert_eq!(owner(&directory, "0_0", now), Some("b"));
        assert_eq!(owner(&directory, "0_1", now), Some("a"));
        assert_eq!(owner(&directory, "0_2", now), None);
        // A claim is given back by saying so.
        directory.hear("b", Some(says(1, &[])), now, true);
        assert_eq!(owner(&directory, "0_0", now), Some("a"));
    }

    #[test]
    fn who_is_not_heard_of_for_a_session_has_nothing() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.hear("a", Some(says(1, &[("0_0", 10)])), now, true);
        let just = now + Duration::from_millis(1_000);
        assert_eq!(owner(&directory, "0_0", just), Some("a"));
        let later = now + Duration::from_millis(1_001);
        assert_eq!(owner(&directory, "0_0", later), None);
        assert_eq!(directory.alive(later).count(), 0);
        assert_eq!(directory.silent(just).count(), 0);
        assert_eq!(directory.silent(later).count(), 1);
        assert_eq!(directory.members_with(later, None), Members::of([]));
        directory.hear("a", None, now, true);
        assert!(directory.named("a").is_none());
    }

    #[test]
    fn a_restart_silences_the_process_before() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        directory.hear("a", Some(says(2, &[])), now, true);
        directory.hear("a", Some(says(1, &[("0_0", 99)])), now, true);
        assert_eq!(owner(&directory, "0_0", now), None);
        directory.hear("a", Some(says(3, &[("0_0", 99)])), now, true);
        assert_eq!(owner(&directory, "0_0", now), Some("a"));
        // But not one that is long silent, whatever its clock said.
        let later = now + Duration::from_millis(1_001);
        directory.hear("a", Some(says(2, &[("0_1", 1)])), later, true);
        assert_eq!(owner(&directory, "0_1", later), Some("a"));
        // Nor does what was said before anybody listened.
        directory.hear("b", Some(says(9, &[])), now, false);
        directory.hear("b", Some(says(1, &[("0_2", 1)])), now, true);
        assert_eq!(owner(&directory, "0_2", now), Some("b"));
    }

    #[test]
    fn a_stopped_instance_answers_nothing_but_keeps_its_place_in_the_groups() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        let mut stopped = says(1, &[("0_0", 10)]);
        stopped.phase = InstancePhase::Stopped;
        directory.hear("a", Some(stopped), now, true);
        assert_eq!(owner(&directory, "0_0", now), None);
        assert_eq!(
            directory.members_with(now, None),
            Members::of([("a".into(), 1)])
        );
        let mut joining = says(1, &[]);
        joining.phase = InstancePhase::Joining;
        directory.hear("b", Some(joining), now, true);
        assert_eq!(
            directory.members_with(now, None),
            Members::of([("a".into(), 1)])
        );
        let with = directory.members_with(now, Some(("b".into(), 1)));
        assert_eq!(with, Members::of([("a".into(), 1), ("b".into(), 1)]));
    }

    fn to_forget(directory: &Directory, since: Instant, until: Instant) -> Vec<&str> {
        let names = directory.to_forget(since, until);
        names.map(|of| of.name.as_ref()).collect()
    }

    #[test]
    fn who_is_silent_for_a_day_is_forgotten_whatever_he_did_last() {
        const MOMENT: Duration = Duration::from_millis(1);
        let (mut directory, now) = (Directory::default(), Instant::now());
        let mut stopped = says(1, &[]);
        stopped.phase = InstancePhase::Stopped;
        directory.hear("stopped", Some(stopped), now, true);
        directory.hear("lost", Some(says(1, &[("0_0", 10)])), now, true);
        let mut patient = says(1, &[]);
        patient.session_timeout_ms = u64::MAX;
        directory.hear("patient", Some(patient), now, true);
        directory.hear("alive", Some(says(1, &[])), now + FORGOTTEN_AFTER, true);
        let day = now + FORGOTTEN_AFTER;
        assert_eq!(to_forget(&directory, now, day), [""; 0]);
        assert_eq!(
            to_forget(&directory, now, day + MOMENT),
            ["lost", "stopped"]
        );
        // An instance that comes back is remembered, and a forgotten one is not to be forgotten
        // again.
        directory.hear("lost", Some(says(1, &[("0_0", 10)])), day, true);
        directory.hear("stopped", None, day, true);
        assert_eq!(to_forget(&directory, now, day + MOMENT), [""; 0]);
        assert!(FORGOTTEN_AFTER > TRANSACTIONS_END);
    }

    #[test]
    fn a_clock_that_is_wrong_makes_nobody_forgotten_who_lives_or_has_just_died() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        // Said a moment before this process listened, and two days ago by its clock.
        for name in ["alive", "dead"] {
            directory.hear(name, Some(says(1, &[])), now, false);
        }
        let since = now + FORGOTTEN_AFTER * 2;
        assert_eq!(to_forget(&directory, since, since), [""; 0]);
        let until = since + TRANSACTIONS_END;
        assert_eq!(to_forget(&directory, since, until), [""; 0]);
        directory.hear("alive", Some(says(1, &[])), until, true);
        let later = until + Duration::from_millis(1);
        assert_eq!(to_forget(&directory, since, later), ["dead"]);
    }

    #[test]
    fn standbys_come_freshest_first() {
        let (mut directory, now) = (Directory::default(), Instant::now());
        let task: TaskId = "0_0".parse().unwrap();
        for (name, stale_ms, records_behind) in [
            ("a", None, Some(0)),
            ("b", Some(50), None),
            ("c", Some(50), Some(9)),
            ("d", Some(5), Some(10)),
        ] {
            let mut said = says(1, &[]);
            said.standbys.push(StandbyReport {
                task,
                records_behind,
                stale_ms,
            });
            directory.hear(name, Some(said), now, true);
        }
        let found = directory.standbys(task, now);
        let names: Vec<&str> = found.iter().map(|(of, _)| of.name.as_ref()).collect();
        assert_eq!(names, ["d", "c", "b", "a"]);
    }
}
