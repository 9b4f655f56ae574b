//! The first step of a restore: the committed positions of jobs.
//!
//! A group is asked for the partitions of all new jobs in one go. The client has an answer once no
//! transaction is pending on any of them, and until then it is silent, as it is when no broker
//! answers. So after a moment the coordinator is asked something that it can answer at once: only
//! if it does not answer that either, it is a fault. If it does, each partition is asked for alone.
//! The jobs whose positions are all known go on.
//!
//! The others wait, and are asked for again, one at a time between the other work of the thread and
//! up to the first position that is still pending, until the transactions have ended or the jobs
//! are called off. What was known of them before is not kept: asking for all of it costs no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker::{Job, Worker};
use super::{RestoreFault, RestoreJob, Ticket};
use crate::Partition;
use crate::runtime::cluster::instances_topic;
use crate::runtime::hanging::HANGING;
use crate::runtime::kafka::{CommittedReader, GroupPosition, TopicPartition};

/// How long new jobs wait together for the transactions that are pending on any of their positions.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a partition that is asked for alone is waited for, at least and at most.
const ALONE_MIN: Duration = Duration::from_millis(200);
const ALONE_MAX: Duration = Duration::from_secs(5);
/// How long a job that waits is left alone before it is asked for again.
const AGAIN: Duration = Duration::from_millis(250);

/// A partition that a group reads.
type GroupPartition = (Arc<str>, TopicPartition);
type Committed = BTreeMap<GroupPartition, GroupPosition>;
/// Where one job goes on, by group.
pub(super) type Positions = Vec<(Arc<str>, TopicPartition, GroupPosition)>;

/// A job whose positions are all known.
pub(super) type Positioned = (Job, Positions);

/// A job that waits for the transactions that are pending on its positions.
pub(super) struct PositionsWait {
    job: Job,
    since: Instant,
    asked: Instant,
    said_to_hang: BTreeSet<GroupPartition>,
}

impl PositionsWait {
    fn new(job: Job, pending: &[GroupPartition]) -> Self {
        for (group, TopicPartition { topic, partition }) in pending {
            tracing::info!(%group, %topic, %partition, "waiting for a pending transaction on a committed position");
        }
        let now = Instant::now();
        Self {
            job,
            since: now,
            asked: now,
            said_to_hang: BTreeSet::new(),
        }
    }

    pub(super) fn ticket(&self) -> &Ticket {
        &self.job.0
    }

    /// Notes which position it still waits for, and logs that if it has been too long.
    fn goes_on(&mut self, pending: &GroupPartition) {
        self.asked = Instant::now();
        let hangs = self.since.elapsed() > HANGING;
        if hangs && self.said_to_hang.insert(pending.clone()) {
            let (group, TopicPartition { topic, partition }) = pending;
            tracing::error!(%group, %topic, %partition, "a transaction on a committed position does not end: brokers have lost its marker on a partition of __consumer_offsets; find it by kafka-transactions.sh find-hanging and end it by kafka-transactions.sh abort");
        }
    }
}

impl Worker {
    /// Finds the jobs whose positions are all known, among the new ones and those that wait.
    pub(super) fn find_positions(
        &self,
        new: Vec<Job>,
        waiting: &mut VecDeque<PositionsWait>,
    ) -> Result<Vec<Positioned>, RestoreFault> {
        let mut found = Vec::new();
        let committed = self.committed(&new)?;
        for job in new {
            match positions_of(&job.1, &committed) {
                Ok(positions) => found.push((job, positions)),
                Err(pending) => waiting.push_back(PositionsWait::new(job, &pending)),
            }
        }
        self.find_again(waiting, &mut found)?;
        Ok(found)
    }

    /// Finds jobs that have waited, up to the first that goes on waiting, since asking for one
    /// takes time. That one has its next turn after the others.
    fn find_again(
        &self,
        waiting: &mut VecDeque<PositionsWait>,
        found: &mut Vec<Positioned>,
    ) -> Result<(), RestoreFault> {
        while let Some(mut wait) = waiting.pop_front_if(|wait| wait.asked.elapsed() >= AGAIN) {
            match self.positions_unless_pending(&wait.job.1)? {
                Ok(positions) => found.push((wait.job, positions)),
                Err(pending) => {
                    wait.goes_on(&pending);
                    waiting.push_back(wait);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The committed positions of one job, or the first of them on which a transaction is pending.
    fn positions_unless_pending(
        &self,
        job: &RestoreJob,
    ) -> Result<Result<Positions, GroupPartition>, RestoreFault> {
        let mut positions = Positions::new();
        for (reader, partitions) in &job.sources {
            let patience = self.patience(reader)?;
            for place in partitions {
                let group = reader.group.clone();
                match self.committed_alone(reader, place, patience)? {
                    Some(at) => positions.push((group, place.clone(), at)),
                    None => return Ok(Err((group, place.clone()))),
                }
            }
        }
        Ok(Ok(positions))
    }

    /// Where new jobs go on, except for those on which transactions are pending.
    fn committed(&self, jobs: &[Job]) -> Result<Committed, RestoreFault> {
        let limit = self.config.request_timeout;
        let begun = Instant::now();
        let mut committed = Committed::new();
        for (reader, partitions) in by_group(jobs) {
            let patience = PATIENCE.saturating_sub(begun.elapsed()).max(ALONE_MIN);
            let together = reader.committed(&partitions, patience.min(limit), limit)?;
            let positions = match together {
                Some(positions) => positions,
                None => self.stable(&reader, &partitions)?,
            };
            let positions = positions.into_iter();
            let positions = positions.map(|(place, at)| ((reader.group.clone(), place), at));
            committed.extend(positions);
            self.check_stopped()?;
        }
        Ok(committed)
    }

    /// The committed positions of one group on those of `partitions` without a pending transaction.
    fn stable(
        &self,
        reader: &CommittedReader,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, GroupPosition)>, RestoreFault> {
        let patience = self.patience(reader)?;
        let mut stable = Vec::with_capacity(partitions.len());
        for place in partitions {
            let position = self.committed_alone(reader, place, patience)?;
            stable.extend(position.map(|at| (place.clone(), at)));
        }
        Ok(stable)
    }

    /// How long a partition of a group that is asked for alone is waited for: a few times as long
    /// as the group's coordinator takes to answer.
    fn patience(&self, reader: &CommittedReader) -> Result<Duration, RestoreFault> {
        let unread = TopicPartition {
            topic: instances_topic(&self.config.application_id).into(),
            partition: Partition(0),
        };
        let answer_time = reader.answer_time(unread, self.config.request_timeout)?;
        Ok((answer_time * 4).clamp(ALONE_MIN, ALONE_MAX))
    }

    /// Where a group goes on reading one partition, unless a transaction is pending on it.
    fn committed_alone(
        &self,
        reader: &CommittedReader,
        place: &TopicPartition,
        patience: Duration,
    ) -> Result<Option<GroupPosition>, RestoreFault> {
        self.check_stopped()?;
        let limit = self.config.request_timeout;
        let positions = reader.committed(slice::from_ref(place), patience, limit)?;
        let position = positions.and_then(|positions| positions.into_iter().next());
        Ok(position.map(|(_, at)| at))
    }
}

/// The source partitions of all jobs, by group.
fn by_group(jobs: &[Job]) -> Vec<(CommittedReader, Vec<TopicPartition>)> {
    let mut groups: Vec<(CommittedReader, Vec<TopicPartition>)> = Vec::new();
    for (reader, partitions) in jobs.iter().flat_map(|(_, job)| &job.sources) {
        match groups.iter_mut().find(|(of, _)| of.group == reader.group) {
            Some((_, all)) => all.extend_from_slice(partitions),
            None => groups.push((reader.clone(), partitions.clone())),
        }
    }
    groups
}

/// What the groups of one job have committed on its partitions; or the partitions for which that is
/// not known.
fn positions_of(job: &RestoreJob, committed: &Committed) -> Result<Positions, Vec<GroupPartition>> {
    let mut positions = Positions::new();
    let mut pending = Vec::new();
    for (reader, partitions) in &job.sources {
        for place in partitions {
            let read = (reader.group.clone(), place.clone());
            match committed.get(&read) {
                Some(at) => positions.push((read.0, read.1, *at)),
                None => pending.push(read),
            }
        }
    }
    if pending.is_empty() {
        Ok(positions)
    } else {
        Err(pending)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CalledOff;
    use super::*;
    use crate::Offset;
    use crate::runtime::StreamsConfig;
    use crate::runtime::kafka::{Ends, GroupConsumer, KafkaFault};
    use crate::runtime::wake::Waker;
    use crate::{SubtopologyId, TaskId};

    fn place(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition: Partition(partition),
        }
    }

    fn read(group: &str, topic: &str, partition: i32) -> GroupPartition {
        (group.into(), place(topic, partition))
    }

    /// Nobody answers there.
    fn config() -> StreamsConfig {
        let mut config = StreamsConfig::new("app", "localhost:1", "instance", "unused");
        config.request_timeout = Duration::from_millis(200);
        config
    }

    fn reader(group: &str) -> CommittedReader {
        let member = GroupConsumer::connect(&config(), group.into(), "member", Waker::default());
        member.unwrap().committed_reader()
    }

    /// A job that reads two topics in each of these groups.
    fn job(groups: &[&CommittedReader], partition: i32) -> Job {
        let task = TaskId {
            subtopology: SubtopologyId(0),
            partition: Partition(partition),
        };
        let ticket = Ticket {
            task,
            called_off: CalledOff::default(),
            submitted: Instant::now(),
            stores: None,
        };
        let sources = groups.iter().map(|reader| {
            let places = ["orders", "payments"].map(|topic| place(topic, partition));
            ((*reader).clone(), places.to_vec())
        });
        let job = RestoreJob {
            task,
            usable_until: std::time::SystemTime::now(),
            restore: None,
            sources: sources.collect(),
            repartitions: Vec::new(),
        };
        (ticket, job)
    }

    #[test]
    fn a_job_goes_on_when_all_positions_of_all_its_groups_are_known() {
        let (_, job) = job(&[&reader("one"), &reader("other")], 3);
        let all = [
            (
                read("one", "orders", 3),
                GroupPosition::Committed(Offset(5)),
            ),
            (
                read("one", "payments", 3),
                GroupPosition::LogStart(Offset(0)),
            ),
            (
                read("other", "orders", 3),
                GroupPosition::Committed(Offset(7)),
            ),
            (
                read("other", "payments", 3),
                GroupPosition::Committed(Offset(9)),
            ),
        ];
        let mut committed = Committed::new();
        // Another partition does not matter.
        committed.insert(
            read("one", "orders", 2),
            GroupPosition::Committed(Offset(1)),
        );
        for known in 0..all.len() {
            let pending = positions_of(&job, &committed).unwrap_err();
            let expected = all[known..].iter().map(|(read, _)| read.clone());
            assert_eq!(pending, expected.collect::<Vec<_>>());
            committed.insert(all[known].0.clone(), all[known].1);
        }
        let positions = positions_of(&job, &committed).unwrap();
        let expected = all.map(|((group, place), at)| (group, place, at));
        assert_eq!(positions, expected);
    }

    #[test]
    fn each_group_is_asked_once_for_all_jobs() {
        let (one, other) = (reader("one"), reader("other"));
        let asked = by_group(&[job(&[&one, &other], 0), job(&[&one], 1)]);
        let asked = asked.iter();
        let asked = asked.map(|(reader, partitions)| (&*reader.group, partitions.len()));
        assert_eq!(asked.collect::<Vec<_>>(), [("one", 4), ("other", 2)]);
    }

    #[test]
    fn brokers_that_are_away_are_no_pending_transaction() {
        let ends = Ends::new(&config()).unwrap();
        let worker = Worker::new(&config(), Vec::new(), ends, CalledOff::default());
        let reader = reader("group");
        let mut waiting = VecDeque::new();
        let mut fault_of = |new: Vec<Job>, known: Option<Job>| {
            waiting.extend(known.map(|job| {
                let mut wait = PositionsWait::new(job, &[]);
                wait.asked = wait
                    .asked
                    .checked_sub(AGAIN)
                    .expect("it is later than that");
                wait
            }));
            let found = worker.find_positions(new, &mut waiting);
            found.map(|found| found.len()).unwrap_err()
        };
        for fault in [
            fault_of(vec![job(&[&reader], 0)], None),
            fault_of(Vec::new(), Some(job(&[&reader], 1))),
        ] {
            let is_of_the_cluster =
                matches!(&fault, RestoreFault::Kafka(KafkaFault::Retriable { .. }));
            assert!(is_of_the_cluster, "{fault}");
        }
    }
}
