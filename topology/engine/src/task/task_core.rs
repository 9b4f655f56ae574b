//! The processors of a task with all that they work on, and how a message gets from one to the
//! next.

use std::any::Any;
use std::fmt::Display;
use std::sync::Arc;

use turnstile_state::{Backend, Overlay, StoreId};

use super::context::{Context, RecordContext};
use super::error::TaskError;
use super::scratch::Scratch;
use super::unit::Unit;
use super::{bounds, dead_letter};
use crate::partitioner::partition_of;
use crate::processor::{ProcessorError, Timer};
use crate::record::{DeadLetter, InputRecord, OutputRecord};
use crate::timer::Timers;
use crate::topology::{
    Edge, Node, PlanSource, PlanStoreKind, ProcessorDef, SourceRole, SubtopologyPlan, Topology,
};
use crate::{TaskId, TimestampMs};

/// Timers of one processor that a scan loads into memory at once.
const NEAR_TIMERS: usize = 4_096;

/// The parts of a task that its processors work on.
pub(crate) struct TaskCore {
    pub(super) id: TaskId,
    pub(super) topology: Arc<Topology>,
    pub(super) plan: Arc<SubtopologyPlan>,
    pub(super) overlay: Overlay,
    /// By processor of the topology; those of other subtopologies have none.
    nodes: Vec<Option<Box<dyn Node>>>,
    pub(super) timers: Vec<Option<Timers>>,
    /// By store of the topology.
    pub(super) store_ids: Vec<Option<StoreId>>,
    pub(super) outputs: Vec<OutputRecord>,
    /// For those dead letters among them that are not of the record that is processed.
    pub(super) letter_causes: Vec<LetterCause>,
    pub(super) scratch: Scratch,
    /// A fault of a processor that was forwarded to: the sender cannot do without it.
    pub(super) fault: Option<ProcessorError>,
}

/// What dead letters are counted by: the topic, and the class of the fault.
pub(crate) type LetterCause = (Arc<str>, &'static str);

impl TaskCore {
    pub(super) fn new(
        id: TaskId,
        topology: Arc<Topology>,
        plan: Arc<SubtopologyPlan>,
        backend: Arc<dyn Backend>,
    ) -> Self {
        let mut store_ids = vec![None; topology.stores.len()];
        let mut rows: Vec<Option<StoreId>> = vec![None; topology.processors.len()];
        let mut timers: Vec<Option<Timers>> = topology.processors.iter().map(|_| None).collect();
        for (store_id, store) in plan.stores_by_id() {
            match store.kind {
                PlanStoreKind::Declared(index) => set(&mut store_ids, index, Some(store_id)),
                PlanStoreKind::TimerRows(processor) => set(&mut rows, processor, Some(store_id)),
                PlanStoreKind::TimerIndex(processor) => {
                    let rows = rows.get(processor).copied().flatten();
                    let rows = rows.expect("a plan lists the rows of timers before their index");
                    set(
                        &mut timers,
                        processor,
                        Some(Timers::new(rows, store_id, NEAR_TIMERS)),
                    );
                }
            }
        }
        let overlay = Overlay::new(backend, plan.stores.len());
        Self {
            id,
            topology,
            plan,
            overlay,
            nodes: Vec::new(),
            timers,
            store_ids,
            outputs: Vec::new(),
            letter_causes: Vec::new(),
            scratch: Scratch::default(),
            fault: None,
        }
    }

    /// Passes the message in `Option<T>` to all of `edges`.
    pub(super) fn deliver(
        &mut self,
        edges: &[Edge],
        record: &RecordContext<'_>,
        message: &mut dyn Any,
    ) -> Result<(), ProcessorError> {
        let Some((last, others)) = edges.split_last() else {
            return Ok(());
        };
        for edge in others {
            let mut copy = (edge.duplicate)(message);
            self.visit(edge.to, record, |node, context| {
                (edge.deliver)(node, context, &mut *copy)
            })?;
        }
        self.visit(last.to, record, |node, context| {
            (last.deliver)(node, context, message)
        })
    }

    /// Runs `visit` on a processor, which is out of its place meanwhile: the graph has no cycles.
    fn visit(
        &mut self,
        processor: usize,
        record: &RecordContext<'_>,
        visit: impl FnOnce(&mut dyn Node, &mut Context<'_>) -> Result<(), ProcessorError>,
    ) -> Result<(), ProcessorError> {
        let place = self.nodes.get_mut(processor).and_then(Option::take);
        let mut node = place.expect("edges lead to processors of the same task, and in no circle");
        let result = visit(
            &mut *node,
            &mut Context {
                core: self,
                processor,
                record,
            },
        );
        if let Some(place) = self.nodes.get_mut(processor) {
            *place = Some(node);
        }
        result
    }

    /// Runs a callback of a processor as a unit of its own. The outer fault is that its code
    /// panicked, `at` what it was handling.
    pub(super) fn call_guarded(
        &mut self,
        processor: usize,
        at: impl Display,
        times: &RecordContext<'static>,
        callback: impl FnOnce(&mut dyn Node, &mut Context<'_>) -> Result<(), ProcessorError>,
    ) -> Result<Result<(), ProcessorError>, TaskError> {
        let unit = Unit::begin(self);
        let called =
            TaskError::unless_panic(self.id, at, || self.visit(processor, times, callback))?;
        let called = match self.fault.take() {
            Some(fault) => Err(fault),
            None => called,
        };
        unit.end(self, &called);
        Ok(called)
    }

    /// The next due timer of a processor, which is then no longer pending.
    pub(super) fn take_due(
        &mut self,
        processor: usize,
        now: TimestampMs,
    ) -> Result<Option<Timer>, TaskError> {
        let Some(timers) = self.timers.get_mut(processor).and_then(Option::as_mut) else {
            return Ok(None);
        };
        let due = timers.take_due(&mut self.overlay, now, 1);
        let mut due = due.map_err(|error| TaskError::of_state(self.id, error))?;
        Ok(due.pop().map(Timer::from))
    }

    /// Sends a misplaced record to the partition of its id, unchanged but for its key.
    pub(super) fn rekey(
        &mut self,
        source: &PlanSource,
        id: &[u8],
        record: &InputRecord<'_>,
        now: TimestampMs,
    ) {
        let (topic, partitions) = match &source.role {
            SourceRole::Checked(topic) => (topic, self.plan.partitions),
            SourceRole::Rekeyed(topic, partitions) => (topic, *partitions),
            SourceRole::Placed => unreachable!("only a keyed source finds records misplaced"),
        };
        self.outputs.push(OutputRecord {
            topic: topic.clone(),
            partition: partition_of(id, partitions),
            key: Some(id.to_vec()),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.to_vec(),
            timestamp: bounds::sendable(record.timestamp, now),
        });
    }

    pub(super) fn dead_letter(&mut self, letter: DeadLetter, now: TimestampMs) {
        self.outputs.push(dead_letter::of(&self.plan, letter, now));
    }

    /// Writes a dead letter that is not of the record that is processed.
    pub(super) fn dead_letter_of_no_record(&mut self, letter: DeadLetter, now: TimestampMs) {
        self.letter_causes
            .push((letter.origin.topic.clone(), letter.kind));
        self.dead_letter(letter, now);
    }

    /// Makes new processors, and forgets what is uncommitted.
    pub(super) fn begin_anew(&mut self) {
        let Self { topology, plan, .. } = self;
        let node = |(index, processor): (usize, &ProcessorDef)| {
            let is_here = plan.processors.contains(&index);
            is_here.then(|| (processor.supplier)())
        };
        self.nodes = topology.processors.iter().enumerate().map(node).collect();
        self.overlay.clear();
        self.outputs.clear();
        self.letter_causes.clear();
        for timers in self.timers.iter_mut().flatten() {
            timers.reload();
        }
    }
}

fn set<T>(places: &mut [T], index: usize, value: T) {
    if let Some(place) = places.get_mut(index) {
        *place = value;
    }
}
