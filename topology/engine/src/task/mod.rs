//! A task: a subtopology at one partition, with its stores, timers and processors.
//!
//! ```text
//!              open              restored             first revoke
//!   Created ─────────► Restoring ─────────► Running ─────────────► Suspended
//!                          ▲  │                │                      │  │
//!                          │  └────────────────┼──────────────────────┼──┼──► Closed
//!                          └───────────────────┼──────────────────────┘  │
//!                            all groups hold    └────────────────────────┘
//!                            the partition again
//! ```
//!
//! A task is synchronous and knows neither Kafka nor the system clock: records and
//! the time come in, output records come out, and until they are committed all writes
//! stay in an overlay. The stream thread decides when to commit; the topology test
//! driver runs the very same code. A commit seals what there is, and takes it over
//! when its transaction is committed; the task may go on between the two.

mod bounds;
mod changelog;
mod context;
mod dead_letter;
mod dispatch;
mod error;
mod punctuation;
mod restore;
mod scratch;
mod status;
mod task_core;
#[cfg(test)]
mod tests;
mod unit;

use std::sync::Arc;

use turnstile_state::{Backend, Batch, StoreId};

pub(crate) use changelog::ChangelogRecords;
pub(crate) use context::Cause;
pub use context::Context;
pub(crate) use dispatch::Dispatch;
pub use error::TaskError;
pub(crate) use restore::{ChangelogRestore, Contents};
pub use status::TaskStatus;
pub(crate) use task_core::LetterCause;

use self::context::RecordContext;
use self::punctuation::Punctuations;
use self::task_core::TaskCore;
use self::unit::Unit;
use crate::processor::{ProcessorError, Timer};
use crate::record::{DeadLetter, InputRecord, Origin, OutputRecord, RECORD_BYTES_MAX};
use crate::source::ErrorPolicy;
use crate::topology::{
    Handled, HandlingError, Home, PlanSource, SourceRole, SubtopologyPlan, Topology,
};
use crate::{Offset, Partition, PunctuationType, TaskId, TimestampMs};

/// What a task did with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processed {
    /// Its processors handled it.
    Done,
    /// It is nothing for this application, for this reason.
    Skipped(&'static str),
    /// It went to the partition of its id.
    Rekeyed,
    /// It became a dead letter, for this reason.
    DeadLettered(&'static str),
}

/// Stands for no offset, as the client writes it too.
const NO_OFFSET: Offset = Offset(-1);

/// A subtopology at one partition.
pub struct Task {
    id: TaskId,
    core: TaskCore,
    punctuations: Punctuations,
    /// As of the sealed transaction.
    sealed_punctuations: Punctuations,
    /// As of the last commit.
    committed_punctuations: Punctuations,
    /// The index, among the processors, of the one whose timers are next in turn.
    first_to_fire: usize,
    status: TaskStatus,
}

impl Task {
    /// A task over `backend`, which was opened with the stores of the plan.
    pub(crate) fn new(
        id: TaskId,
        topology: Arc<Topology>,
        plan: Arc<SubtopologyPlan>,
        backend: Arc<dyn Backend>,
    ) -> Self {
        let punctuations = Punctuations::new(&topology, &plan);
        Self {
            id,
            core: TaskCore::new(id, topology, plan, backend),
            sealed_punctuations: punctuations.clone(),
            committed_punctuations: punctuations.clone(),
            punctuations,
            first_to_fire: 0,
            status: TaskStatus::Created,
        }
    }

    /// Which task it is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Where it is in its life cycle.
    #[must_use]
    pub fn status(&self) -> TaskStatus {
        self.status
    }

    /// Moves on in the life cycle.
    ///
    /// # Panics
    ///
    /// When the step is not in the diagram above: the caller has lost track of who owns the task.
    pub(crate) fn become_status(&mut self, next: TaskStatus) {
        assert!(
            self.status.may_become(next),
            "task {} cannot go from {} to {next}",
            self.id,
            self.status
        );
        self.status = next;
    }

    pub(crate) fn plan(&self) -> &Arc<SubtopologyPlan> {
        &self.core.plan
    }

    /// The committed state, for readers outside the task.
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        self.core.overlay.backend()
    }

    /// What has to be read from its changelog before the task may run; `None` for a task without
    /// stores.
    pub(crate) fn restore(&self) -> Result<Option<ChangelogRestore>, TaskError> {
        ChangelogRestore::of(self.id, &self.core.plan, self.backend())
    }

    /// Begins to run on a restored backend, with new processors: forgets what an earlier run left
    /// in memory, since another instance may have run it meanwhile.
    pub(crate) fn start(&mut self, now: TimestampMs) {
        self.become_status(TaskStatus::Running);
        self.core.begin_anew();
        self.punctuations.start(now);
        self.committed_punctuations.clone_from(&self.punctuations);
    }

    /// Handles one record of the source at `source` in the plan: as a whole or, if it is rejected,
    /// not at all.
    ///
    /// # Errors
    ///
    /// When the task cannot go on; the record is then not processed.
    pub(crate) fn process(
        &mut self,
        source: usize,
        record: &InputRecord<'_>,
        now: TimestampMs,
    ) -> Result<Processed, TaskError> {
        let origin = self.origin(source, record.offset);
        let cause = Cause {
            origin: &origin,
            key: record.key,
        };
        match self.handle(source, record, cause, now)? {
            Ok(processed) => Ok(processed),
            Err(error) => self.reject(source, &origin, record, error, now),
        }
    }

    /// Handles one record that another task has sent to the source at `source`, without a detour
    /// through its topic: as a whole, or not at all if it is rejected. Then there is no result, and
    /// the record has to come through the topic, whose coordinates its dead letter needs. `cause`
    /// is the record that caused it to be sent.
    ///
    /// # Errors
    ///
    /// When the task cannot go on; the record is then not processed.
    pub(crate) fn take_over(
        &mut self,
        source: usize,
        record: &OutputRecord,
        cause: Cause<'_>,
        now: TimestampMs,
    ) -> Result<Option<Processed>, TaskError> {
        let input = InputRecord {
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp: record.timestamp,
            offset: cause.origin.offset,
            decoded: None,
        };
        match self.handle(source, &input, cause, now)? {
            Ok(processed) => Ok(Some(processed)),
            Err(
                HandlingError::Decode(_)
                | HandlingError::Processor(ProcessorError::Rejected { .. }),
            ) => Ok(None),
            Err(HandlingError::Processor(error)) => {
                Err(TaskError::of_processor(self.id, cause.origin, error))
            }
        }
    }

    /// What identifies a record of the source at `source`.
    pub(crate) fn origin(&self, source: usize, offset: Offset) -> Origin {
        let from = self.core.plan.sources.get(source);
        let from = from.expect("records come from sources of the plan");
        Origin {
            topic: from.topic.clone(),
            partition: self.id.partition,
            offset,
        }
    }

    /// Passes a record to the processors; the outer fault is that their code panicked.
    fn handle(
        &mut self,
        source: usize,
        record: &InputRecord<'_>,
        cause: Cause<'_>,
        now: TimestampMs,
    ) -> Result<Result<Processed, HandlingError>, TaskError> {
        self.assert_running();
        TaskError::unless_panic(self.id, cause.origin, || {
            self.handle_or_undo(source, record, cause, now)
        })
    }

    fn handle_or_undo(
        &mut self,
        source: usize,
        record: &InputRecord<'_>,
        cause: Cause<'_>,
        now: TimestampMs,
    ) -> Result<Processed, HandlingError> {
        let plan = self.core.plan.clone();
        let topology = self.core.topology.clone();
        let from = plan
            .sources
            .get(source)
            .expect("records come from sources of the plan");
        let node = topology
            .sources
            .get(from.node)
            .expect("a plan's sources are nodes of its topology");
        let unit = Unit::begin(&mut self.core);
        let home = home(from, self.id.partition, plan.partitions);
        let (core, punctuations) = (&mut self.core, &mut self.punctuations);
        let handled = node.handling.handle(record, home, &mut |message| {
            // Here, since the time of a record that is not for this task says nothing.
            punctuations.observe(record.timestamp);
            let context = RecordContext {
                timestamp: record.timestamp,
                headers: record.headers,
                key: record.key,
                cause: Some(cause),
                now,
                stream_time: punctuations.stream_time(),
            };
            core.deliver(&node.children, &context, message)
        });
        let handled = handled.and_then(|handled| {
            if let Handled::Misplaced(id) = &handled {
                let bytes = id.len() + record.value.map_or(0, <[u8]>::len);
                let what = "the record under its id";
                bounds::check_sent(what, bytes, record.headers, RECORD_BYTES_MAX)?;
            }
            Ok(handled)
        });
        let handled = match self.core.fault.take() {
            Some(fault) => Err(fault.into()),
            None => handled,
        };
        unit.end(&mut self.core, &handled);
        Ok(match handled? {
            Handled::Processed => Processed::Done,
            Handled::Skipped(reason) => Processed::Skipped(reason),
            Handled::Misplaced(id) => {
                self.core.rekey(from, &id, record, now);
                Processed::Rekeyed
            }
        })
    }

    fn reject(
        &mut self,
        source: usize,
        origin: &Origin,
        record: &InputRecord<'_>,
        error: HandlingError,
        now: TimestampMs,
    ) -> Result<Processed, TaskError> {
        let (kind, reason) = match error {
            HandlingError::Decode(error) => (error.kind, error.message),
            HandlingError::Processor(ProcessorError::Rejected { kind, reason }) => (kind, reason),
            HandlingError::Processor(error) => {
                return Err(TaskError::of_processor(self.id, origin, error));
            }
        };
        let sources = &self.core.topology.sources;
        let node = self.core.plan.sources.get(source);
        let node = node.and_then(|source| sources.get(source.node));
        let node = node.expect("records come from sources of the plan");
        match node.policy {
            ErrorPolicy::DeadLetter => {
                let letter = DeadLetter {
                    origin: origin.clone(),
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers.to_vec(),
                    timestamp: record.timestamp,
                    kind,
                    message: reason,
                };
                self.core.dead_letter(letter, now);
                Ok(Processed::DeadLettered(kind))
            }
            ErrorPolicy::Stop => Err(TaskError::Rejected {
                task: self.id,
                origin: origin.clone(),
                kind,
                reason,
            }),
        }
    }

    /// Fires at most `limit` due timers and calls the punctuators that are due.
    /// Returns how many timers fired; `limit` of them means that more may be due.
    ///
    /// # Errors
    ///
    /// When the task cannot go on.
    pub(crate) fn fire_due(
        &mut self,
        now: TimestampMs,
        limit: usize,
        lateness: &mut dyn FnMut(std::time::Duration),
    ) -> Result<usize, TaskError> {
        self.assert_running();
        let plan = self.core.plan.clone();
        let mut fired = 0;
        let first = self.first_to_fire.min(plan.processors.len());
        self.first_to_fire = 0;
        let (before, from_first) = plan.processors.split_at(first);
        for (place, processor) in (first..).zip(from_first).chain((0..).zip(before)) {
            // One at a time: what a timer does may cancel or move the next.
            while fired < limit {
                let Some(timer) = self.core.take_due(*processor, now)? else {
                    break;
                };
                fired += 1;
                lateness(now.since(timer.deadline));
                self.fire(*processor, timer, now)?;
                if fired == limit {
                    // However many are due for one processor, the others have their turn.
                    self.first_to_fire = place + 1;
                }
            }
        }
        for (processor, kind) in self.punctuations.take_due(now) {
            let topology = self.core.topology.clone();
            let name = name_of(&topology, processor);
            let at = format_args!("a {kind:?} punctuation of {name}");
            let mut times = RecordContext::at(now, self.punctuations.stream_time());
            if kind == PunctuationType::StreamTime {
                times.timestamp = times.stream_time.unwrap_or(now);
            }
            let called = self
                .core
                .call_guarded(processor, at, &times, |node, context| {
                    node.on_punctuate(context, kind)
                })?;
            called.map_err(|error| TaskError::of_processor(self.id, at, error))?;
        }
        Ok(fired)
    }

    /// Fires a timer. If it is rejected, as it would be every time, it becomes a dead letter,
    /// unless nothing that the task reads may be lost.
    fn fire(&mut self, processor: usize, timer: Timer, now: TimestampMs) -> Result<(), TaskError> {
        let topology = self.core.topology.clone();
        let name = name_of(&topology, processor);
        let Timer { key, deadline } = timer.clone();
        let at = format_args!("the timer {} of {name}", key.escape_ascii());
        let times = RecordContext::at(now, self.punctuations.stream_time());
        let called = self
            .core
            .call_guarded(processor, at, &times, |node, context| {
                node.on_timer(context, timer)
            })?;
        let (kind, message) = match called {
            Ok(()) => return Ok(()),
            Err(ProcessorError::Rejected { kind, reason }) if !self.all_sources_stop() => {
                (kind, format!("{at}, due at {deadline}: {reason}"))
            }
            Err(error) => return Err(TaskError::of_processor(self.id, at, error)),
        };
        let letter = DeadLetter {
            origin: Origin {
                topic: format!("{name}-timers").into(),
                partition: self.id.partition,
                offset: NO_OFFSET,
            },
            key: Some(key),
            value: None,
            headers: Vec::new(),
            timestamp: deadline,
            kind,
            message,
        };
        self.core.dead_letter_of_no_record(letter, now);
        Ok(())
    }

    fn all_sources_stop(&self) -> bool {
        let nodes = &self.core.topology.sources;
        let mut sources = self.core.plan.sources.iter();
        sources.all(|source| {
            let node = nodes.get(source.node);
            node.is_some_and(|node| node.policy == ErrorPolicy::Stop)
        })
    }

    /// When [`Task::fire_due`] next has something to do, seen from `now`, or earlier; never later.
    pub(crate) fn next_due(&self, now: TimestampMs) -> Option<TimestampMs> {
        let timers = self
            .core
            .timers
            .iter()
            .flatten()
            .filter_map(crate::timer::Timers::next_deadline)
            .min();
        let punctuations = self.punctuations.next_due(now);
        timers.into_iter().chain(punctuations).min()
    }

    /// By when a timer or a wall-clock punctuation is certainly due, seen from `now`: at or after
    /// the time at which one of them is.
    pub(crate) fn due_by(&self, now: TimestampMs) -> Option<TimestampMs> {
        let timers = self.core.timers.iter().flatten();
        let timers = timers.filter_map(crate::timer::Timers::due_by).min();
        let punctuations = self.punctuations.next_due(now);
        // A stream-time punctuation is due at once, and not at any time of the clock.
        let punctuations = punctuations.filter(|due| due.0 > i64::MIN);
        timers.into_iter().chain(punctuations).min()
    }

    /// Moves out the records that were sent since the last call.
    pub(crate) fn take_outputs_into(&mut self, sent: &mut impl Extend<OutputRecord>) {
        sent.extend(self.core.outputs.drain(..));
    }

    /// Moves out the causes of the dead letters that were sent since the last call and that no
    /// [`Processed::DeadLettered`] accounts for.
    pub(crate) fn take_letter_causes(&mut self) -> impl Iterator<Item = LetterCause> {
        self.core.letter_causes.drain(..)
    }

    /// Whether anything written to stores is not sealed.
    pub(crate) fn has_writes(&self) -> bool {
        !self.core.overlay.is_empty()
    }

    /// The memory that uncommitted writes take, in bytes.
    pub(crate) fn uncommitted_bytes(&self) -> usize {
        self.core.overlay.bytes()
    }

    /// Ends the transaction: what follows is the next one's, and is committed after it.
    pub(crate) fn seal(&mut self) {
        self.core.overlay.seal();
        self.sealed_punctuations.clone_from(&self.punctuations);
    }

    /// The sealed writes as changelog records.
    pub(crate) fn changelog_records(&self, now: TimestampMs) -> Option<ChangelogRecords> {
        ChangelogRecords::of(self.id, &self.core.plan, &self.core.overlay, now)
    }

    /// The keys of the sealed writes.
    pub(crate) fn written_keys(&self) -> Vec<(StoreId, Vec<u8>)> {
        let stores = self.core.plan.stores_by_id().map(|(id, _)| id);
        stores
            .flat_map(|id| {
                self.core
                    .overlay
                    .changes(id)
                    .map(move |(key, _)| (id, key.to_vec()))
            })
            .collect()
    }

    /// The sealed writes as one batch that reaches this changelog offset: to be written once
    /// the transaction that holds their changelog records is committed.
    pub(crate) fn take_batch(&mut self, reached: Option<Offset>) -> Batch {
        self.committed_punctuations
            .clone_from(&self.sealed_punctuations);
        let mut batch = self.core.overlay.take_batch();
        if let Some(next_offset) = reached {
            batch.set_changelog_offset(next_offset.0);
        }
        batch
    }

    /// Forgets everything since the last commit.
    pub(crate) fn abort(&mut self) {
        self.core.begin_anew();
        self.punctuations.clone_from(&self.committed_punctuations);
        self.first_to_fire = 0;
    }

    fn assert_running(&self) {
        assert!(
            self.status == TaskStatus::Running,
            "task {} is {}, not running",
            self.id,
            self.status
        );
    }
}

fn name_of(topology: &Topology, processor: usize) -> &str {
    let processor = topology.processors.get(processor);
    processor.map_or("", |processor| &processor.name)
}

fn home(source: &PlanSource, partition: Partition, partitions: i32) -> Home {
    match source.role {
        SourceRole::Placed => Home::Anywhere,
        SourceRole::Checked(_) => Home::Partition(partition, partitions),
        SourceRole::Rekeyed(..) => Home::Elsewhere,
    }
}

impl From<crate::timer::DueTimer> for Timer {
    fn from(due: crate::timer::DueTimer) -> Self {
        Self {
            key: due.key,
            deadline: due.deadline,
        }
    }
}
