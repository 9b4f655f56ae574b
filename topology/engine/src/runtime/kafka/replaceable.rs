//! A client that many share, and that is replaced when it is of no more use.

use std::sync::Arc;

use parking_lot::RwLock;

use super::fault::KafkaFault;

/// A client that many share.
pub(super) struct Replaceable<C> {
    make: Box<dyn Fn() -> Result<Arc<C>, KafkaFault> + Send + Sync>,
    /// Why one is of no more use, if it is not.
    trouble: fn(&C) -> Option<String>,
    client: RwLock<Arc<C>>,
}

impl<C> Replaceable<C> {
    /// Makes the first one.
    pub(super) fn new(
        make: impl Fn() -> Result<Arc<C>, KafkaFault> + Send + Sync + 'static,
        trouble: fn(&C) -> Option<String>,
    ) -> Result<Self, KafkaFault> {
        let client = RwLock::new(make()?);
        Ok(Self {
            make: Box::new(make),
            trouble,
            client,
        })
    }

    /// The client, or a new one in place of one that is of no more use.
    pub(super) fn get(&self) -> Arc<C> {
        let client = self.client.read().clone();
        if (self.trouble)(&client).is_none() {
            return client;
        }
        let mut client = self.client.write();
        // Somebody else may have replaced it meanwhile.
        if let Some(reason) = (self.trouble)(&client) {
            tracing::warn!(reason, "a client is of no more use: going on with another");
            match (self.make)() {
                Ok(another) => *client = another,
                Err(fault) => tracing::error!(%fault, "there is no other client"),
            }
        }
        client.clone()
    }
}
