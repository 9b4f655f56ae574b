//! The processor of Payments and its place in the topology.
//!
//! A payment may be requested before the copy has the order, since the order is
//! answered as soon as Orders has it. So a payment for an unknown order waits for a
//! short time. A charge that the gateway leaves open is settled by a timer: the stream
//! thread never waits.
//!
//! What the gateway does cannot be undone if the record is rejected. So whatever may be rejected
//! comes before it.

use std::sync::Arc;
use std::time::Duration;

use turnstile_engine::{
    Context, Processor, ProcessorError, PunctuationType, Sink, Store, Timer, TopologyBuilder,
};

use super::charges::{ChargeEnd, MadeCharge, OrderCharges};
use super::gateway::{ChargeAnswer, Gateway, Settlement};
use super::payable::PayableOrder;
use crate::commands::{Command, OrderCommand, PaymentCreate};
use crate::events::{OrderChange, OrderEvent, PaymentChange, PaymentEvent};
use crate::ids::{OrderId, PaymentId};
use crate::outcome::{Answer, Outcome, OutcomeKey};
use crate::outcomes::{Outcomes, SWEEP_INTERVAL, Undecided};
use crate::sources::{Sources, id_bytes};
use crate::timer_key::{TimerKey, unexpected};
use crate::topics;
use crate::waiting::Waiting;

/// The stores of Payments, keyed by order id.
#[derive(Debug, Clone, Copy)]
pub struct PaymentsStores {
    /// The orders as Payments knows them.
    pub payable_orders: Store<OrderId, PayableOrder>,
    /// What was charged for them.
    pub charges: Store<OrderId, OrderCharges>,
    /// The outcomes of `payment.create`, except for payments for which an order was charged:
    /// those outcomes are kept with the charges.
    pub outcomes: Store<OutcomeKey, Outcome>,
}

/// The configuration of Payments.
pub(crate) struct PaymentsConfig {
    pub(crate) gateway: Arc<dyn Gateway>,
    /// How long the gateway may take to answer.
    pub(crate) charge_timeout: Duration,
    /// How long a payment for an unknown order waits for it.
    pub(crate) order_wait: Duration,
    /// How long a foreign Orders has to ask for a refund before the money is refunded unasked;
    /// `None` if our Orders runs here, which always asks.
    pub(crate) refund_wait: Option<Duration>,
}

crate::row::stored!(Waiting<PaymentCreate>, 1);

/// Declares the service.
pub(crate) fn declare(
    builder: &mut TopologyBuilder,
    sources: &mut Sources,
    config: PaymentsConfig,
) -> PaymentsStores {
    let stores = PaymentsStores {
        payable_orders: builder.store("payable-orders"),
        charges: builder.store("charges"),
        outcomes: builder.store("payment-outcomes"),
    };
    let waiting = builder.store("waiting-payments");
    let orders = sources.shared(
        topics::ORDERS,
        topics::PAYMENTS_ORDERS,
        OrderEvent::decode,
        |event| Some(event.clone()),
    );
    let orders = orders.keyed_by("orders-for-payments", |event| id_bytes(&event.order_id));
    let orders = builder.source(orders);
    let commands = sources.shared(
        topics::ORDER_COMMANDS,
        topics::PAYMENTS_ORDERS,
        OrderCommand::decode,
        payment_of,
    );
    let commands = commands.keyed_by("order-commands-for-payments", |command| {
        id_bytes(&command.body.order_id)
    });
    let commands = builder.source(commands);
    let published = builder.sink(topics::PAYMENTS);
    let PaymentsConfig {
        gateway,
        charge_timeout,
        order_wait,
        refund_wait,
    } = config;
    builder
        .processor("payments", move || Payments {
            stores,
            waiting,
            outcomes: Outcomes::new(stores.outcomes),
            gateway: gateway.clone(),
            charge_timeout,
            order_wait,
            refund_wait,
            published,
        })
        .input(orders)
        .input(commands)
        .store(stores.payable_orders)
        .store(stores.charges)
        .store(stores.outcomes)
        .store(waiting)
        .sink(published)
        .timers()
        .punctuate(PunctuationType::WallClockTime, SWEEP_INTERVAL)
        .done();
    stores
}

fn payment_of(command: &Command<OrderCommand>) -> Option<Command<PaymentCreate>> {
    match &command.body {
        OrderCommand::Pay(body) => Some(command.with(body.clone())),
        OrderCommand::Cancel(_) => None,
    }
}

enum Input {
    Order(OrderEvent),
    Pay(Command<PaymentCreate>),
}

impl From<OrderEvent> for Input {
    fn from(event: OrderEvent) -> Self {
        Self::Order(event)
    }
}

impl From<Command<PaymentCreate>> for Input {
    fn from(command: Command<PaymentCreate>) -> Self {
        Self::Pay(command)
    }
}

struct Payments {
    stores: PaymentsStores,
    waiting: Store<OrderId, Waiting<PaymentCreate>>,
    outcomes: Outcomes,
    gateway: Arc<dyn Gateway>,
    charge_timeout: Duration,
    order_wait: Duration,
    refund_wait: Option<Duration>,
    published: Sink<PaymentEvent>,
}

impl Processor for Payments {
    type In = Input;

    fn process(&mut self, context: &mut Context<'_>, input: Input) -> Result<(), ProcessorError> {
        match input {
            Input::Order(event) => self.copy(context, &event),
            Input::Pay(command) => self.pay(context, &command),
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        match TimerKey::of(&timer)? {
            TimerKey::OrderWait(order) => self.give_up(context, order),
            TimerKey::Settlement(order) => self.settle(context, &order),
            TimerKey::RefundWait(order) => self.give_back(context, &order),
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

impl Payments {
    fn copy(&self, context: &mut Context<'_>, event: &OrderEvent) -> Result<(), ProcessorError> {
        let order = &event.order_id;
        let existing = context.get(self.stores.payable_orders, order)?;
        let mut is_latest = false;
        let was_known = existing
            .as_ref()
            .is_some_and(|existing| existing.user_id.is_some());
        if let Some(copy) = PayableOrder::after(existing, event) {
            is_latest = copy.version == event.version;
            context.put(self.stores.payable_orders, order, &copy)?;
            if !was_known && copy.user_id.is_some() {
                self.end_waiting(context, order)?;
            }
        }
        match &event.change {
            OrderChange::RefundDue { payment_id, .. } => self.refund(context, order, payment_id),
            OrderChange::Cancelled { .. } | OrderChange::Failed { .. } if is_latest => {
                self.await_refund_due(context, order)
            }
            OrderChange::Completed { .. } if is_latest && self.refund_wait.is_some() => {
                let timer = TimerKey::RefundWait(order.clone()).to_bytes();
                context.cancel(&timer).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn end_waiting(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
    ) -> Result<(), ProcessorError> {
        let Some(waiting) = context.get(self.waiting, order)? else {
            return Ok(());
        };
        context.delete(self.waiting, order)?;
        context.cancel(&TimerKey::OrderWait(order.clone()).to_bytes())?;
        for command in waiting.into_commands() {
            self.pay(context, &command)?;
        }
        Ok(())
    }

    fn pay(
        &self,
        context: &mut Context<'_>,
        command: &Command<PaymentCreate>,
    ) -> Result<(), ProcessorError> {
        let order = &command.body.order_id;
        let charges = context.get(self.stores.charges, order)?;
        let mut charges = charges.unwrap_or_default();
        if charges.are_for(&command.id) {
            return Ok(());
        }
        let Some(undecided) = self.outcomes.begin(context, command)? else {
            return Ok(());
        };
        let copy = context.get(self.stores.payable_orders, order)?;
        let Some(copy) = copy.filter(|copy| copy.user_id.is_some()) else {
            return self.wait(context, undecided, command);
        };
        let (mut made, charge) = match charges.begin(&copy, command) {
            Ok(begun) => begun,
            Err(refused) => return self.refuse(context, undecided, command, refused),
        };
        // First, since it is what may be rejected: how the charge ends is said in fewer bytes.
        self.publish_created(context, order, &made)?;
        let end = match self.gateway.charge(&charge) {
            ChargeAnswer::Succeeded => Some(PaymentChange::Succeeded),
            ChargeAnswer::Declined => Some(PaymentChange::Failed),
            ChargeAnswer::Open => None,
        };
        if let Some(end) = end {
            made.ended = Some(self.end(context, order, &made.payment, end)?);
        } else {
            let settle_at = context.now().plus(self.charge_timeout);
            context.schedule(&TimerKey::Settlement(order.clone()).to_bytes(), settle_at)?;
        }
        charges.charged = Some(made);
        context.put(self.stores.charges, order, &charges)
    }

    /// Refuses `command`, unless it turns out that it was charged for in a transaction that was
    /// lost, before the reason to refuse it now was read. Then the money is there, and either
    /// Orders says what becomes of it, or nobody does and it is refunded. While another charge is
    /// open, it is not known yet which of the two applies: the command waits.
    fn refuse(
        &self,
        context: &mut Context<'_>,
        undecided: Undecided,
        command: &Command<PaymentCreate>,
        refused: Answer,
    ) -> Result<(), ProcessorError> {
        let mut made = MadeCharge::of(command);
        let was_made = match refused {
            Answer::Conflict(_) => self.gateway.settle(&made.payment) == Settlement::Succeeded,
            // It may be requested again, and charged then.
            Answer::NotFound => self.gateway.has_succeeded(&made.payment),
            _ => false,
        };
        if !was_made {
            return self.outcomes.keep(context, undecided, command, refused);
        }
        let order = &command.body.order_id;
        let mut charges = context.get(self.stores.charges, order)?.unwrap_or_default();
        let is_open = |made: &MadeCharge| made.ended.is_none();
        if charges.charged.as_ref().is_some_and(is_open) && self.put_off(context, command)? {
            return Ok(());
        }
        self.publish_created(context, order, &made)?;
        made.ended = Some(self.end(context, order, &made.payment, PaymentChange::Succeeded)?);
        if charges.charged.is_none() {
            charges.charged = Some(made);
            context.put(self.stores.charges, order, &charges)?;
            return match refused {
                Answer::Conflict(_) => self.await_refund_due(context, order),
                _ => Ok(()),
            };
        }
        let payment = made.payment.clone();
        let answer = Answer::PaymentMade(made.record);
        self.outcomes.keep(context, undecided, command, answer)?;
        if self.refund_wait.is_some() {
            self.refund(context, order, &payment)?;
        }
        Ok(())
    }

    /// An order that has ended and is not completed has no use for money. Our Orders asks for a
    /// refund; a foreign one may not, and has some time to do so.
    fn await_refund_due(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
    ) -> Result<(), ProcessorError> {
        let Some(wait) = self.refund_wait else {
            return Ok(());
        };
        let charges = context.get(self.stores.charges, order)?;
        let made = charges.and_then(|charges| charges.charged);
        if !made.is_some_and(|made| made.may_have_succeeded()) {
            return Ok(());
        }
        let until = context.now().plus(wait);
        context.schedule(&TimerKey::RefundWait(order.clone()).to_bytes(), until)
    }

    /// Refunds an order that has ended, because nobody asked for a refund.
    fn give_back(&self, context: &mut Context<'_>, order: &OrderId) -> Result<(), ProcessorError> {
        let charges = context.get(self.stores.charges, order)?;
        let Some(made) = charges.and_then(|charges| charges.charged) else {
            return Ok(());
        };
        match made.ended {
            Some(end) if end.succeeded => self.refund(context, order, &made.payment),
            Some(_) => Ok(()),
            None => self.await_refund_due(context, order),
        }
    }

    /// Publishes how a charge has ended.
    fn end(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
        payment: &PaymentId,
        end: PaymentChange,
    ) -> Result<ChargeEnd, ProcessorError> {
        let succeeded = matches!(end, PaymentChange::Succeeded);
        self.publish(context, order, payment, end)?;
        let at = context.now();
        Ok(ChargeEnd { succeeded, at })
    }

    /// Settles the open charge of `order`: the time for the gateway's answer is over.
    fn settle(&self, context: &mut Context<'_>, order: &OrderId) -> Result<(), ProcessorError> {
        let Some(mut charges) = context.get(self.stores.charges, order)? else {
            return Ok(());
        };
        let made = charges.charged.as_mut();
        let Some(made) = made.filter(|made| made.ended.is_none()) else {
            return Ok(());
        };
        let end = match self.gateway.settle(&made.payment) {
            Settlement::Succeeded => PaymentChange::Succeeded,
            Settlement::Failed => PaymentChange::Failed,
        };
        made.ended = Some(self.end(context, order, &made.payment, end)?);
        context.put(self.stores.charges, order, &charges)
    }

    fn refund(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
        payment: &PaymentId,
    ) -> Result<(), ProcessorError> {
        let mut charges = context.get(self.stores.charges, order)?.unwrap_or_default();
        if !charges.refund(payment) {
            return Ok(());
        }
        context.put(self.stores.charges, order, &charges)?;
        self.publish(context, order, payment, PaymentChange::Refunded)?;
        self.gateway.refund(payment);
        Ok(())
    }

    fn wait(
        &self,
        context: &mut Context<'_>,
        undecided: Undecided,
        command: &Command<PaymentCreate>,
    ) -> Result<(), ProcessorError> {
        if self.put_off(context, command)? {
            return Ok(());
        }
        self.refuse(context, undecided, command, Answer::NotFound)
    }

    /// Decides `command` later, unless too many wait.
    fn put_off(
        &self,
        context: &mut Context<'_>,
        command: &Command<PaymentCreate>,
    ) -> Result<bool, ProcessorError> {
        let order = &command.body.order_id;
        let waiting = context.get(self.waiting, order)?;
        let mut waiting = waiting.unwrap_or_else(Waiting::none);
        if !waiting.add(command, context.now().plus(self.order_wait)) {
            return Ok(false);
        }
        self.put_waiting(context, order.clone(), &waiting)?;
        Ok(true)
    }

    /// Payments that have waited long enough for `order` learn that there is none.
    fn give_up(&self, context: &mut Context<'_>, order: OrderId) -> Result<(), ProcessorError> {
        let Some(mut waiting) = context.get(self.waiting, &order)? else {
            return Ok(());
        };
        let due = waiting.take_due(context.now());
        self.put_waiting(context, order, &waiting)?;
        for command in due {
            if let Some(undecided) = self.outcomes.begin(context, &command)? {
                self.refuse(context, undecided, &command, Answer::NotFound)?;
            }
        }
        Ok(())
    }

    fn put_waiting(
        &self,
        context: &mut Context<'_>,
        order: OrderId,
        waiting: &Waiting<PaymentCreate>,
    ) -> Result<(), ProcessorError> {
        let Some(next) = waiting.next_deadline() else {
            return context.delete(self.waiting, &order);
        };
        context.put(self.waiting, &order, waiting)?;
        context.schedule(&TimerKey::OrderWait(order).to_bytes(), next)
    }

    fn publish_created(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
        made: &MadeCharge,
    ) -> Result<(), ProcessorError> {
        let created = PaymentChange::Created {
            id: Some(made.record.clone()),
        };
        self.publish(context, order, &made.payment, created)
    }

    fn publish(
        &self,
        context: &mut Context<'_>,
        order: &OrderId,
        payment: &PaymentId,
        change: PaymentChange,
    ) -> Result<(), ProcessorError> {
        let (order_id, payment_id) = (order.clone(), payment.clone());
        let event = PaymentEvent {
            order_id,
            payment_id,
            change,
        };
        context.send(self.published, order.as_str(), &event)
    }
}
