//! Ends the open transactions of instances that are gone.
//!
//! An instance that is lost leaves its transaction open until that times out, which brokers check
//! only every ten seconds. Until then its tasks cannot be restored, because no position is stable
//! and no changelog can be read to its end, and nobody reads past what it had sent to any topic. An
//! instance that gets its tasks takes over its transactional ids, which ends the transaction at
//! once.
//!
//! That is done only if two things say that it is gone: the groups, which have given its tasks to
//! this instance, and its silence for a whole session. If it is alive after all, it is fenced, as
//! it would be by its groups, and joins anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::StreamsConfig;
use super::cluster::{Cluster, Silent};
use super::kafka::{BATCH_BYTES, FencingProducer, KafkaFault, Slots, TransactionalProducer};
use super::transactions::Transaction;
use super::wake::Waker;
use crate::TaskId;

/// Ends the open transactions of instances that are gone; cheap to clone.
#[derive(Clone)]
pub(crate) struct Fence {
    config: Arc<StreamsConfig>,
    cluster: Cluster,
    /// Those that were fenced, or are being fenced.
    fenced: Arc<Mutex<BTreeSet<Silent>>>,
}

impl Fence {
    pub(crate) fn new(config: &StreamsConfig, cluster: Cluster) -> Self {
        Self {
            config: Arc::new(config.clone()),
            cluster,
            fenced: Arc::default(),
        }
    }

    /// Fences the silent instances that ran any of `tasks`, which are assigned here now. Does not
    /// wait for it.
    pub(crate) fn fence_former_owners(&self, tasks: &[TaskId]) {
        // One that has come back can be lost again.
        self.fenced
            .lock()
            .retain(|silent| self.cluster.is_silent(silent));
        for silent in self.cluster.silent_owners(tasks) {
            if !self.fenced.lock().insert(silent.clone()) {
                continue;
            }
            let fence = self.clone();
            let work = move || fence.fence(&silent);
            if let Err(error) = thread::Builder::new().name("fence".to_owned()).spawn(work) {
                tracing::error!(%error, "cannot start a thread to end the transactions of a lost instance");
            }
        }
    }

    fn fence(&self, silent: &Silent) {
        let instance = &silent.instance;
        tracing::info!(%instance, "an instance is gone: ending its transactions");
        let application_id = &self.config.application_id;
        let threads = 0..silent.threads;
        let ids = threads.flat_map(|thread| {
            let transactions = Transaction::ANY.into_iter();
            transactions.map(move |transaction| transaction.id(application_id, instance, thread))
        });
        for id in ids {
            let ended: Result<TransactionalProducer, KafkaFault> = TransactionalProducer::begin(
                &self.config,
                &id,
                BATCH_BYTES,
                Slots::default(),
                Waker::default(),
            )
            .and_then(FencingProducer::wait);
            if let Err(fault) = ended {
                tracing::warn!(%instance, %fault, "could not end a transaction of a lost instance; trying again");
                self.fenced.lock().remove(silent);
                return;
            }
        }
    }
}
