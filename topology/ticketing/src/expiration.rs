//! The Expiration service, keyed by order id: one durable timer for each live order.
//!
//! `order.created` sets it and the order's end cancels it. An order whose timer has
//! fired or whose end was read is over for good: a late or second `order.created`
//! for it sets no timer. A timer never fires before `expiresAt`, and after a stop it
//! fires late rather than never.

use turnstile_engine::{
    Context, Processor, ProcessorError, Sink, Store, Timer, TimestampMs, TopologyBuilder,
};

use crate::events::{ExpirationEvent, OrderChange, OrderEvent};
use crate::ids::OrderId;
use crate::sources::{Sources, id_bytes};
use crate::timer_key::{TimerKey, unexpected};
use crate::topics;

/// The stores of Expiration, keyed by order id.
#[derive(Debug, Clone, Copy)]
pub struct ExpirationStores {
    /// The orders that no longer need a timer: a row for each, kept forever.
    pub timed_out_or_ended: Store<OrderId, ()>,
}

/// Declares the service.
pub(crate) fn declare(builder: &mut TopologyBuilder, sources: &mut Sources) -> ExpirationStores {
    let stores = ExpirationStores {
        timed_out_or_ended: builder.store("timed-out-or-ended"),
    };
    let orders = sources.shared(
        topics::ORDERS,
        topics::EXPIRATION_ORDERS,
        OrderEvent::decode,
        Wanted::of,
    );
    let orders = orders.keyed_by("orders-for-expiration", |wanted| id_bytes(&wanted.order));
    let orders = builder.source(orders);
    let published = builder.sink(topics::EXPIRATION);
    builder
        .processor("expiration", move || Expiration { stores, published })
        .input(orders)
        .store(stores.timed_out_or_ended)
        .sink(published)
        .timers()
        .done();
    stores
}

/// What an event of an order requires of its timer.
#[derive(Debug, Clone)]
struct Wanted {
    order: OrderId,
    /// When the timer is to fire; never, once the order has ended.
    deadline: Option<TimestampMs>,
}

impl Wanted {
    fn of(event: &OrderEvent) -> Option<Self> {
        let deadline = match event.change {
            OrderChange::Created { expires_at, .. } => Some(expires_at),
            OrderChange::Completed { .. }
            | OrderChange::Cancelled { .. }
            | OrderChange::Failed { .. } => None,
            OrderChange::Pending { .. } | OrderChange::RefundDue { .. } => return None,
        };
        Some(Self {
            order: event.order_id.clone(),
            deadline,
        })
    }
}

struct Expiration {
    stores: ExpirationStores,
    published: Sink<ExpirationEvent>,
}

impl Processor for Expiration {
    type In = Wanted;

    fn process(&mut self, context: &mut Context<'_>, wanted: Wanted) -> Result<(), ProcessorError> {
        let Wanted { order, deadline } = wanted;
        if context
            .get(self.stores.timed_out_or_ended, &order)?
            .is_some()
        {
            return Ok(());
        }
        let timer = TimerKey::Expiry(order.clone()).to_bytes();
        if let Some(deadline) = deadline {
            return context.schedule(&timer, deadline);
        }
        context.cancel(&timer)?;
        context.put(self.stores.timed_out_or_ended, &order, &())
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        let TimerKey::Expiry(order_id) = TimerKey::of(&timer)? else {
            return Err(unexpected(&timer));
        };
        context.put(self.stores.timed_out_or_ended, &order_id, &())?;
        let key = order_id.clone();
        context.send(self.published, key.as_str(), &ExpirationEvent { order_id })
    }
}
