//! What a processor sees of its task.

use turnstile_state::{Codec, KeyRange, Overlay, ScanDirection, StateError, StoreId};

use super::bounds;
use super::task_core::TaskCore;
use super::unit::UnitWithin;
use crate::partitioner::partition_of;
use crate::processor::ProcessorError;
use crate::record::{DeadLetter, Encode, Header, Origin, OutputRecord};
use crate::timer::Timers;
use crate::topology::{Outlet, OutletDef, PlanSink, ProcessorDef, Sink, Store};
use crate::{TaskId, TimestampMs};

/// The record that a task has read, and for which others may have been sent to it since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cause<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) key: Option<&'a [u8]>,
}

/// The record that is being processed, or the absence of one.
pub(crate) struct RecordContext<'a> {
    pub(super) timestamp: TimestampMs,
    pub(super) headers: &'a [Header],
    pub(super) key: Option<&'a [u8]>,
    pub(super) cause: Option<Cause<'a>>,
    pub(super) now: TimestampMs,
    pub(super) stream_time: Option<TimestampMs>,
}

impl RecordContext<'static> {
    /// No record: a timer or punctuator at these times.
    pub(super) fn at(now: TimestampMs, stream_time: Option<TimestampMs>) -> Self {
        Self {
            timestamp: now,
            headers: &[],
            key: None,
            cause: None,
            now,
            stream_time,
        }
    }
}

/// What a processor sees of its task while it handles a record, a timer or a punctuation.
pub struct Context<'a> {
    pub(super) core: &'a mut TaskCore,
    pub(super) processor: usize,
    pub(super) record: &'a RecordContext<'a>,
}

impl Context<'_> {
    /// The wall-clock time, fixed for the duration of one call.
    #[must_use]
    pub fn now(&self) -> TimestampMs {
        self.record.now
    }

    /// The timestamp of the record, as set by its producer or the broker; for a stream-time
    /// punctuation, [`Context::stream_time`]; for a wall-clock punctuation or a timer,
    /// [`Context::now`]. Whatever is sent carries it.
    #[must_use]
    pub fn timestamp(&self) -> TimestampMs {
        self.record.timestamp
    }

    /// The greatest timestamp of a record that the task has processed since it began to run here,
    /// including this one, regardless of its topic; `None` before the first. Records that cannot be
    /// decoded, are skipped or belong to another partition do not count. It does not survive a
    /// restart.
    #[must_use]
    pub fn stream_time(&self) -> Option<TimestampMs> {
        self.record.stream_time
    }

    /// The key of the record as it was read, even if another processor has forwarded its message.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.record.key
    }

    /// Where the record was read; `None` for a timer or punctuation. A record that another task of
    /// the thread has sent can skip its repartition topic: then this is the origin of the record
    /// that caused it to be sent.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.record.cause.map(|cause| cause.origin)
    }

    /// The key of the record at [`Context::origin`]. It differs from [`Context::key`] where the
    /// record has skipped a repartition topic, which would have given it another one.
    #[must_use]
    pub fn origin_key(&self) -> Option<&[u8]> {
        self.record.cause.and_then(|cause| cause.key)
    }

    /// The task that runs the processor.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        self.core.id
    }

    /// The value of `key` in `store`, including the writes of this transaction.
    ///
    /// # Errors
    ///
    /// When the store fails or the value cannot be read.
    pub fn get<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        key: &K,
    ) -> Result<Option<V>, ProcessorError> {
        let id = self.store_id(store)?;
        let overlay = &self.core.overlay;
        let scratch = &self.core.scratch;
        let value = scratch.with(|bytes| key.encode(bytes), |key| overlay.get(id, key))?;
        value
            .map(|value| V::decode(&value))
            .transpose()
            .map_err(|source| self.unreadable(store, source))
    }

    /// Sets `key` to `value` in `store`.
    ///
    /// # Errors
    ///
    /// When the processor does not declare the store; [`ProcessorError::Rejected`] of kind
    /// `too-large` when key and value exceed what a changelog record can hold, 16 MiB less 64 KiB.
    pub fn put<K: Codec, V: Codec>(
        &mut self,
        store: Store<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), ProcessorError> {
        let id = self.store_id(store)?;
        let TaskCore {
            scratch, overlay, ..
        } = &mut *self.core;
        scratch.with_entry(key, value, |key, value| {
            bounds::check_written("the row", key.len() + value.len())?;
            Ok(overlay.put(id, key, value)?)
        })
    }

    /// Deletes `key` from `store`.
    ///
    /// # Errors
    ///
    /// When the processor does not declare the store; [`ProcessorError::Rejected`] of kind
    /// `too-large` for a key that no row can have ([`Context::put`]).
    pub fn delete<K: Codec, V: Codec>(
        &mut self,
        store: Store<K, V>,
        key: &K,
    ) -> Result<(), ProcessorError> {
        let id = self.store_id(store)?;
        let TaskCore {
            scratch, overlay, ..
        } = &mut *self.core;
        scratch.with(
            |bytes| key.encode(bytes),
            |key| {
                bounds::check_written("the key of the row", key.len())?;
                Ok(overlay.delete(id, key)?)
            },
        )
    }

    /// Returns at most `limit` entries of `store` in `range`, in the order of their encoded keys or
    /// in reverse, including the writes of this transaction.
    ///
    /// # Errors
    ///
    /// When the store fails or an entry cannot be read.
    pub fn scan<K: Codec, V: Codec>(
        &self,
        store: Store<K, V>,
        range: &KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> Result<Vec<(K, V)>, ProcessorError> {
        let id = self.store_id(store)?;
        let mut entries = Vec::new();
        for entry in self.core.overlay.scan(id, range, direction)?.take(limit) {
            let (key, value) = entry?;
            let entry = K::decode(&key).and_then(|key| Ok((key, V::decode(&value)?)));
            entries.push(entry.map_err(|source| self.unreadable(store, source))?);
        }
        Ok(entries)
    }

    /// Sends `message` to `sink`, to the partition of `key` by murmur2, with the timestamp and
    /// headers of the record that is being processed. (A timestamp that is nearly an hour ahead,
    /// which brokers refuse, is replaced by [`Context::now`].)
    ///
    /// There is always a key, and the headers are those that came in, or none
    /// ([`Context::send_without_headers`]). Records without a key, or with other headers, have to
    /// be written outside the topology.
    ///
    /// # Errors
    ///
    /// When the processor does not declare the sink; [`ProcessorError::Rejected`] of kind
    /// `too-large` when key, value and headers exceed what the topic accepts (its
    /// `max.message.bytes` when the instance started, before compression; in any case 16 MiB less
    /// 64 KiB), or the headers alone exceed 256 KiB. If the limit of the broker was lowered since,
    /// it refuses the record, and that stops the instance.
    pub fn send<T: Encode>(
        &mut self,
        sink: Sink<T>,
        key: impl AsRef<[u8]>,
        message: &T,
    ) -> Result<(), ProcessorError> {
        self.send_with(sink, key.as_ref(), message, self.record.headers)
    }

    /// Sends `message` as [`Context::send`] does, but without headers: for what has to be sent
    /// even if the headers of the record are too large to be passed on.
    ///
    /// # Errors
    ///
    /// Those of [`Context::send`], if key and value alone are too large.
    pub fn send_without_headers<T: Encode>(
        &mut self,
        sink: Sink<T>,
        key: impl AsRef<[u8]>,
        message: &T,
    ) -> Result<(), ProcessorError> {
        self.send_with(sink, key.as_ref(), message, &[])
    }

    /// Sends a record without a value, a tombstone: in a compacted topic it removes what was sent
    /// with this key.
    ///
    /// # Errors
    ///
    /// Those of [`Context::send`].
    pub fn send_tombstone<T>(
        &mut self,
        sink: Sink<T>,
        key: impl AsRef<[u8]>,
    ) -> Result<(), ProcessorError> {
        self.send_value(sink, key.as_ref(), None, self.record.headers)
    }

    fn send_with<T: Encode>(
        &mut self,
        sink: Sink<T>,
        key: &[u8],
        message: &T,
        headers: &[Header],
    ) -> Result<(), ProcessorError> {
        let value = self.core.scratch.boxed(|bytes| message.encode(bytes));
        self.send_value(sink, key, Some(value.into_vec()), headers)
    }

    fn send_value<T>(
        &mut self,
        sink: Sink<T>,
        key: &[u8],
        value: Option<Vec<u8>>,
        headers: &[Header],
    ) -> Result<(), ProcessorError> {
        let index = sink.index_in(self.core.topology.key);
        let found = index.and_then(|index| self.core.plan.sinks.get(index));
        let declared = |_: &&PlanSink| self.declaration().sinks.contains(&sink.index);
        let Some(target) = found.filter(declared) else {
            return Err(self.undeclared("sink", found.map(|target| target.topic.to_string())));
        };
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        bounds::check_sent(
            "the record to send",
            bytes,
            headers,
            target.record_bytes_max,
        )?;
        let output = OutputRecord {
            topic: target.topic.clone(),
            partition: partition_of(key, target.partitions),
            key: Some(key.to_vec()),
            value,
            headers: headers.to_vec(),
            timestamp: bounds::sendable(self.record.timestamp, self.record.now),
        };
        self.core.outputs.push(output);
        Ok(())
    }

    /// Passes `message` to the processors that read the outlet's stream, immediately. If one of
    /// them fails, everything that they all did for it is undone. A caller that can do without a
    /// rejected message may go on; any other fault stops the task, whatever the caller does with
    /// the error.
    ///
    /// # Errors
    ///
    /// [`ProcessorError::Rejected`] as returned by those processors, [`ProcessorError::Stopping`]
    /// for any other fault of theirs, or an error when this processor does not declare the outlet.
    pub fn forward<T: 'static>(
        &mut self,
        outlet: Outlet<T>,
        message: T,
    ) -> Result<(), ProcessorError> {
        let topology = self.core.topology.clone();
        let index = outlet.index_in(topology.key);
        let found = index.and_then(|index| topology.outlets.get(index));
        let declared = |_: &&OutletDef| self.declaration().outlets.contains(&outlet.index);
        let Some(target) = found.filter(declared) else {
            return Err(self.undeclared("outlet", found.map(|target| target.name.clone())));
        };
        let unit = UnitWithin::begin(self.core);
        let message = &mut Some(message);
        let delivered = self.core.deliver(&target.children, self.record, message);
        let Err(error) = delivered else {
            unit.keep(self.core);
            return Ok(());
        };
        unit.undo(self.core);
        if let ProcessorError::Rejected { .. } = error {
            return Err(error);
        }
        self.core.fault.get_or_insert(error);
        Err(ProcessorError::Stopping)
    }

    /// Sets a durable timer that fires once, when the wall clock shows `deadline` or later: it is
    /// based on [`Context::now`], never on the time of records. A timer that is pending under the
    /// same key is moved.
    ///
    /// # Errors
    ///
    /// When the timer store fails or the processor does not declare timers;
    /// [`ProcessorError::Rejected`] of kind `too-large` for a key beyond the limit of
    /// [`Context::put`].
    pub fn schedule(&mut self, key: &[u8], deadline: TimestampMs) -> Result<(), ProcessorError> {
        bounds::check_written("the key of the timer", key.len())?;
        self.with_timers(|timers, overlay| timers.schedule(overlay, key, deadline))
    }

    /// Cancels the timer under `key`. Returns whether one was pending.
    ///
    /// # Errors
    ///
    /// When the timer store fails or the processor does not declare timers.
    pub fn cancel(&mut self, key: &[u8]) -> Result<bool, ProcessorError> {
        self.with_timers(|timers, overlay| timers.cancel(overlay, key))
    }

    /// When the timer under `key` fires, if one is pending.
    ///
    /// # Errors
    ///
    /// When the timer store fails or the processor does not declare timers.
    pub fn deadline(&mut self, key: &[u8]) -> Result<Option<TimestampMs>, ProcessorError> {
        self.with_timers(|timers, overlay| timers.deadline_of(overlay, key))
    }

    /// Writes a record that was kept for later, and turned out never to be processable, to the dead
    /// letters. (A record that is being processed is rejected instead:
    /// [`ProcessorError::Rejected`].)
    pub fn dead_letter(&mut self, letter: DeadLetter) {
        self.core.dead_letter_of_no_record(letter, self.record.now);
    }

    /// The headers of the record that is being processed.
    #[must_use]
    pub fn headers(&self) -> &[Header] {
        self.record.headers
    }

    fn with_timers<R>(
        &mut self,
        change: impl FnOnce(&mut Timers, &mut Overlay) -> Result<R, StateError>,
    ) -> Result<R, ProcessorError> {
        match self.core.timers.get_mut(self.processor) {
            Some(Some(timers)) => Ok(change(timers, &mut self.core.overlay)?),
            Some(None) | None => {
                let name = self.declaration().timers_store();
                Err(self.undeclared("timers", Some(name)))
            }
        }
    }

    fn store_id<K, V>(&self, store: Store<K, V>) -> Result<StoreId, ProcessorError> {
        let index = store.index_in(self.core.topology.key);
        let index = index.filter(|index| self.declaration().stores.contains(index));
        let id = index.and_then(|index| self.core.store_ids.get(index).copied().flatten());
        id.ok_or_else(|| self.undeclared("store", self.store_name(store)))
    }

    fn store_name<K, V>(&self, store: Store<K, V>) -> Option<String> {
        let topology = &self.core.topology;
        let store = topology.stores.get(store.index_in(topology.key)?);
        store.map(|store| store.name.clone())
    }

    fn unreadable<K, V>(
        &self,
        store: Store<K, V>,
        source: turnstile_state::CodecError,
    ) -> ProcessorError {
        ProcessorError::UnreadableRow {
            store: self.store_name(store).unwrap_or_default(),
            source,
        }
    }

    /// A handle without a name was made by the builder of another topology.
    fn undeclared(&self, kind: &'static str, name: Option<String>) -> ProcessorError {
        ProcessorError::Undeclared {
            processor: self.declaration().name.clone(),
            kind,
            name: name.unwrap_or_else(|| "of another topology".to_owned()),
        }
    }

    fn declaration(&self) -> &ProcessorDef {
        let declaration = self.core.topology.processors.get(self.processor);
        declaration.expect("a context belongs to a processor of the topology")
    }
}
