//! The Orders service by order id: the life cycle of an order, and the only producer of its events.
//!
//! An event for an order that does not exist yet is parked until it does. After
//! 24 hours it becomes a dead letter, as it was read.

use std::time::Duration;

use turnstile_engine::record::DeadLetter;
use turnstile_engine::{
    Context, InputRecord, Processor, ProcessorError, PunctuationType, Sink, Store, Stream, Timer,
    TopologyBuilder,
};

use super::OrdersStores;
use super::hand_off::{self, Placed, Released};
use super::order::{Order, OrderByUser};
use super::parked::{Letter, PARKED, ParkedEvent, ParkedEvents};
use super::rules::{self, Changed, Fact};
use crate::commands::{Command, OrderCancel, OrderCommand};
use crate::events::{ExpirationEvent, OrderEvent, PaymentChange, PaymentEvent};
use crate::ids::OrderId;
use crate::outcome::Answer;
use crate::outcomes::{Outcomes, SWEEP_INTERVAL};
use crate::sources::{Sources, id_bytes, keep_if};
use crate::timer_key::{TimerKey, unexpected};
use crate::topics;

pub(super) fn declare(
    builder: &mut TopologyBuilder,
    sources: &mut Sources,
    stores: &OrdersStores,
    time_to_live: Duration,
    placed: Stream<Placed>,
    released: Sink<Released>,
) {
    let (stores, parked) = (*stores, builder.store("parked-events"));
    let payments = sources.source(topics::PAYMENTS, topics::ORDERS_PAYMENTS, |record| {
        keep_if(PaymentEvent::decode(record)?, |event| {
            Happened::in_payment(event, record)
        })
    });
    let payments = payments.keyed_by("payments-for-orders", |happened| id_bytes(&happened.order));
    let payments = builder.source(payments);
    let expiration = sources.source(topics::EXPIRATION, topics::ORDERS_EXPIRATION, |record| {
        keep_if(ExpirationEvent::decode(record)?, |event| {
            Some(Happened::expired(event, record))
        })
    });
    let expiration = expiration.keyed_by("expiration-for-orders", |happened| {
        id_bytes(&happened.order)
    });
    let expiration = builder.source(expiration);
    let commands = sources.shared(
        topics::ORDER_COMMANDS,
        topics::ORDERS_PAYMENTS,
        OrderCommand::decode,
        cancel_of,
    );
    let commands = commands.keyed_by("order-commands-for-orders", |command| {
        id_bytes(&command.body.order_id)
    });
    let commands = builder.source(commands);
    let published = builder.sink(topics::ORDERS);
    builder
        .processor("life-cycle", move || LifeCycle {
            stores,
            parked,
            outcomes: Outcomes::new(stores.outcomes),
            time_to_live,
            published,
            released,
        })
        .input(placed)
        .input(payments)
        .input(expiration)
        .input(commands)
        .store(stores.orders)
        .store(stores.orders_by_user)
        .store(stores.outcomes)
        .store(parked)
        .sink(published)
        .sink(released)
        .timers()
        .punctuate(PunctuationType::WallClockTime, SWEEP_INTERVAL)
        .done();
}

fn cancel_of(command: &Command<OrderCommand>) -> Option<Command<OrderCancel>> {
    match &command.body {
        OrderCommand::Cancel(body) => Some(command.with(body.clone())),
        OrderCommand::Pay(_) => None,
    }
}

/// A fact about an order, and the record that said it.
#[derive(Debug, Clone)]
struct Happened {
    order: OrderId,
    fact: Fact,
    letter: Letter,
}

impl Happened {
    fn in_payment(event: PaymentEvent, record: &InputRecord<'_>) -> Option<Self> {
        let payment = event.payment_id;
        let fact = match event.change {
            PaymentChange::Created { .. } => Fact::PaymentBegan(payment),
            PaymentChange::Succeeded => Fact::PaymentSucceeded(payment),
            PaymentChange::Failed => Fact::PaymentFailed(payment),
            PaymentChange::Refunded => return None,
        };
        Some(Self {
            order: event.order_id,
            fact,
            letter: Letter::of(record),
        })
    }

    fn expired(event: ExpirationEvent, record: &InputRecord<'_>) -> Self {
        Self {
            order: event.order_id,
            fact: Fact::Expired,
            letter: Letter::of(record),
        }
    }
}

enum Input {
    Placed(Placed),
    Happened(Happened),
    Cancel(Command<OrderCancel>),
}

impl From<Placed> for Input {
    fn from(placed: Placed) -> Self {
        Self::Placed(placed)
    }
}

impl From<Happened> for Input {
    fn from(happened: Happened) -> Self {
        Self::Happened(happened)
    }
}

impl From<Command<OrderCancel>> for Input {
    fn from(command: Command<OrderCancel>) -> Self {
        Self::Cancel(command)
    }
}

struct LifeCycle {
    stores: OrdersStores,
    parked: Store<OrderId, ParkedEvents>,
    outcomes: Outcomes,
    time_to_live: Duration,
    published: Sink<OrderEvent>,
    released: Sink<Released>,
}

impl Processor for LifeCycle {
    type In = Input;

    fn process(&mut self, context: &mut Context<'_>, input: Input) -> Result<(), ProcessorError> {
        match input {
            Input::Placed(placed) => self.place(context, placed),
            Input::Happened(happened) => self.learn(context, happened),
            Input::Cancel(command) => self.cancel(context, &command),
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        match TimerKey::of(&timer)? {
            TimerKey::ParkedEvents(order) => self.bury(context, &order),
            _ => Err(unexpected(&timer)),
        }
    }

    fn on_punctuate(
        &mut self,
        context: &mut Context<'_>,
        _: PunctuationType,
    ) -> Result<(), ProcessorError> {
        self.outcomes.sweep(context)
    }
}

impl LifeCycle {
    fn place(&self, context: &mut Context<'_>, placed: Placed) -> Result<(), ProcessorError> {
        if let Some(existing) = context.get(self.stores.orders, &placed.order_id)? {
            return match rules::surplus(&existing, placed) {
                Some(released) => self.release(context, &released),
                None => Ok(()),
            };
        }
        let changed = rules::create(placed, context.now(), self.time_to_live);
        let order_id = changed.order.id.clone();
        let by_user = OrderByUser {
            user_id: changed.order.user_id.clone(),
            order_id: order_id.clone(),
        };
        context.put(self.stores.orders_by_user, &by_user, &())?;
        let mut order = self.publish(context, changed)?;
        let Some(parked) = context.get(self.parked, &order_id)? else {
            return Ok(());
        };
        context.delete(self.parked, &order_id)?;
        context.cancel(&TimerKey::ParkedEvents(order_id).to_bytes())?;
        for event in parked.events {
            if let Some(changed) = rules::apply(order.clone(), event.fact) {
                order = self.publish(context, changed)?;
            }
        }
        Ok(())
    }

    fn learn(&self, context: &mut Context<'_>, happened: Happened) -> Result<(), ProcessorError> {
        let Some(order) = context.get(self.stores.orders, &happened.order)? else {
            return self.park(context, happened);
        };
        if let Some(changed) = rules::apply(order, happened.fact) {
            self.publish(context, changed)?;
        }
        Ok(())
    }

    fn cancel(
        &self,
        context: &mut Context<'_>,
        command: &Command<OrderCancel>,
    ) -> Result<(), ProcessorError> {
        let Some(undecided) = self.outcomes.begin(context, command)? else {
            return Ok(());
        };
        let OrderCancel { order_id, user_id } = &command.body;
        let order = context.get(self.stores.orders, order_id)?;
        let answer = match rules::cancel(order, user_id) {
            Err(refused) => refused,
            Ok(changed) => {
                self.publish(context, changed)?;
                Answer::OrderCancelled
            }
        };
        self.outcomes.keep(context, undecided, command, answer)
    }

    fn publish(
        &self,
        context: &mut Context<'_>,
        changed: Changed,
    ) -> Result<Order, ProcessorError> {
        let Changed {
            order,
            event,
            released,
        } = changed;
        context.put(self.stores.orders, &order.id, &order)?;
        hand_off::send(context, self.published, order.id.as_str(), &event)?;
        if let Some(released) = released {
            self.release(context, &released)?;
        }
        Ok(order)
    }

    fn release(
        &self,
        context: &mut Context<'_>,
        released: &Released,
    ) -> Result<(), ProcessorError> {
        hand_off::send(
            context,
            self.released,
            released.ticket_id.as_str(),
            released,
        )
    }

    fn park(&self, context: &mut Context<'_>, happened: Happened) -> Result<(), ProcessorError> {
        let Happened {
            order,
            fact,
            letter,
        } = happened;
        let origin = context.origin().cloned();
        let origin = origin.expect("an event is parked while its record is processed");
        // Not the key that it was given to get here: the dead letter has the coordinates of the
        // record as it was first read, and should have its key.
        let letter = Letter {
            key: context.origin_key().map(<[u8]>::to_vec),
            ..letter
        };
        let mut parked = context.get(self.parked, &order)?.unwrap_or_default();
        let until = context.now().plus(PARKED);
        let is_first = parked.events.is_empty();
        let event = ParkedEvent {
            fact,
            origin,
            letter,
            until,
        };
        parked.park(event).map_err(|why| {
            let reason = format!("{why} for order {order}");
            ProcessorError::rejected("too_many_parked", reason)
        })?;
        if is_first {
            context.schedule(&TimerKey::ParkedEvents(order.clone()).to_bytes(), until)?;
        }
        context.put(self.parked, &order, &parked)
    }

    /// The events that have waited long enough for `order` become dead letters.
    fn bury(&self, context: &mut Context<'_>, order: &OrderId) -> Result<(), ProcessorError> {
        let Some(mut parked) = context.get(self.parked, order)? else {
            return Ok(());
        };
        let now = context.now();
        for event in parked.events.extract_if(.., |event| event.until <= now) {
            let Letter {
                key,
                value,
                headers,
                timestamp,
            } = event.letter;
            context.dead_letter(DeadLetter {
                origin: event.origin,
                key,
                value,
                headers,
                timestamp,
                kind: "order_unknown",
                message: format!("order {order} was not created within 24 hours"),
            });
        }
        let Some(next) = parked.events.iter().map(|event| event.until).min() else {
            return context.delete(self.parked, order);
        };
        context.schedule(&TimerKey::ParkedEvents(order.clone()).to_bytes(), next)?;
        context.put(self.parked, order, &parked)
    }
}
