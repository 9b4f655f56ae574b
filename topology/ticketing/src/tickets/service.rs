//! The processor of Tickets and its place in the topology.

use turnstile_engine::{
    Context, Processor, ProcessorError, PunctuationType, Sink, Store, TopologyBuilder,
};

use super::rules::{self, Changed};
use super::ticket::TicketEntry;
use crate::commands::{Command, TicketCommand, TicketWrite};
use crate::events::{OrderChange, OrderEvent, TicketEvent};
use crate::ids::{OrderId, TicketId};
use crate::outcome::{Answer, Decision, Outcome, OutcomeKey};
use crate::outcomes::{Outcomes, SWEEP_INTERVAL};
use crate::sources::{Sources, id_bytes};
use crate::topics;

/// The stores of Tickets, keyed by ticket id.
#[derive(Debug, Clone, Copy)]
pub struct TicketsStores {
    /// The tickets.
    pub tickets: Store<TicketId, TicketEntry>,
    /// The outcomes of `ticket.create` and `ticket.update`, except for the creation of tickets
    /// that were not edited since: that outcome is kept with the ticket.
    pub outcomes: Store<OutcomeKey, Outcome>,
    /// The orders that have ended: a row for each, kept forever. An `order.created` may
    /// be read long after its order's end, and must reserve nothing then.
    pub ended_orders: Store<OrderId, ()>,
    /// The orders that hold a ticket which does not exist yet, as often as they came.
    early_holders: Store<TicketId, EarlyHolders>,
}

#[derive(Debug, Clone, Default)]
struct EarlyHolders {
    orders: Vec<OrderId>,
}

crate::row::row!(EarlyHolders { orders });
crate::row::stored!(EarlyHolders, 1);

/// Declares the service.
pub(crate) fn declare(builder: &mut TopologyBuilder, sources: &mut Sources) -> TicketsStores {
    let stores = TicketsStores {
        tickets: builder.store("tickets"),
        outcomes: builder.store("ticket-outcomes"),
        ended_orders: builder.store("ended-orders"),
        early_holders: builder.store("early-holders"),
    };
    let orders = sources.shared(
        topics::ORDERS,
        topics::TICKETS_ORDERS,
        OrderEvent::decode,
        Moves::of,
    );
    let orders =
        builder.source(orders.keyed_by("orders-by-ticket", |moves| id_bytes(&moves.ticket)));
    let commands = sources.shared(
        topics::TICKET_COMMANDS,
        topics::TICKETS_ORDERS,
        TicketCommand::decode,
        |command| match command.body {
            TicketCommand::Create(_) | TicketCommand::Update(_) => Some(command.clone()),
            TicketCommand::Order(_) => None,
        },
    );
    let by_ticket = |command: &Command<TicketCommand>| id_bytes(command.body.ticket_id());
    let commands = builder.source(commands.keyed_by("ticket-commands-for-tickets", by_ticket));
    let published = builder.sink(topics::TICKETS);
    builder
        .processor("tickets", move || Tickets {
            stores,
            outcomes: Outcomes::new(stores.outcomes),
            published,
        })
        .input(orders)
        .input(commands)
        .store(stores.tickets)
        .store(stores.outcomes)
        .store(stores.ended_orders)
        .store(stores.early_holders)
        .sink(published)
        .punctuate(PunctuationType::WallClockTime, SWEEP_INTERVAL)
        .done();
    stores
}

/// What an event of Orders means for a ticket.
#[derive(Debug, Clone)]
pub(crate) struct Moves {
    ticket: TicketId,
    order: OrderId,
    way: Way,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    In,
    Out,
}

impl Moves {
    fn of(event: &OrderEvent) -> Option<Self> {
        let (ticket, way) = match &event.change {
            OrderChange::Created { ticket_id, .. } => (ticket_id, Way::In),
            OrderChange::Cancelled { ticket_id, .. } | OrderChange::Failed { ticket_id, .. } => {
                (ticket_id, Way::Out)
            }
            OrderChange::Pending { .. }
            | OrderChange::Completed { .. }
            | OrderChange::RefundDue { .. } => return None,
        };
        Some(Self {
            ticket: ticket.clone(),
            order: event.order_id.clone(),
            way,
        })
    }
}

#[derive(Debug, Clone)]
enum Input {
    Command(Command<TicketCommand>),
    Moves(Moves),
}

impl From<Command<TicketCommand>> for Input {
    fn from(command: Command<TicketCommand>) -> Self {
        Self::Command(command)
    }
}

impl From<Moves> for Input {
    fn from(moves: Moves) -> Self {
        Self::Moves(moves)
    }
}

struct Tickets {
    stores: TicketsStores,
    outcomes: Outcomes,
    published: Sink<TicketEvent>,
}

impl Processor for Tickets {
    type In = Input;

    fn process(&mut self, context: &mut Context<'_>, input: Input) -> Result<(), ProcessorError> {
        match input {
            Input::Command(command) => self.decide(context, &command),
            Input::Moves(Moves {
                ticket,
                order,
                way: Way::In,
            }) => self.hold(context, &ticket, order),
            Input::Moves(Moves {
                ticket,
                order,
                way: Way::Out,
            }) => self.release(context, &ticket, &order),
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

impl Tickets {
    fn decide(
        &self,
        context: &mut Context<'_>,
        command: &Command<TicketCommand>,
    ) -> Result<(), ProcessorError> {
        let existing = context.get(self.stores.tickets, command.body.ticket_id())?;
        let decided = |entry: &TicketEntry| entry.outcome_of(&command.id).is_some();
        if existing.as_ref().is_some_and(decided) {
            return Ok(());
        }
        let Some(undecided) = self.outcomes.begin(context, command)? else {
            return Ok(());
        };
        let done = match &command.body {
            TicketCommand::Create(write) => self.create(context, existing, write, command)?,
            TicketCommand::Update(write) => self.edit(context, existing, write)?,
            TicketCommand::Order(_) => unreachable!("the source passes over commands of Orders"),
        };
        match done {
            Done::Created => Ok(()),
            Done::Answered(answer) => self.outcomes.keep(context, undecided, command, answer),
        }
    }

    fn create(
        &self,
        context: &mut Context<'_>,
        existing: Option<TicketEntry>,
        write: &TicketWrite,
        command: &Command<TicketCommand>,
    ) -> Result<Done, ProcessorError> {
        let existing = existing.map(|entry| entry.ticket);
        let changed = match rules::create(existing.as_ref(), write) {
            Ok(changed) => changed,
            Err(refused) => return Ok(Done::Answered(refused)),
        };
        let creation = Decision::on(command, context.now());
        let entry = self.publish(context, changed, Some(creation))?;
        self.admit_early_holders(context, entry)?;
        Ok(Done::Created)
    }

    fn edit(
        &self,
        context: &mut Context<'_>,
        mut existing: Option<TicketEntry>,
        write: &TicketWrite,
    ) -> Result<Done, ProcessorError> {
        let creation = existing.as_mut().and_then(TicketEntry::take_creation);
        let changed = match rules::edit(existing.map(|entry| entry.ticket), write) {
            Ok(changed) => changed,
            Err(refused) => return Ok(Done::Answered(refused)),
        };
        if let Some((command, outcome)) = creation {
            let key = write.ticket_id.as_str().to_owned();
            let key = OutcomeKey { key, command };
            self.outcomes.take_over(context, &key, &outcome)?;
        }
        let entry = self.publish(context, changed, None)?;
        Ok(Done::Answered(Answer::TicketUpdated(entry.ticket)))
    }

    fn admit_early_holders(
        &self,
        context: &mut Context<'_>,
        mut entry: TicketEntry,
    ) -> Result<(), ProcessorError> {
        let ticket = entry.ticket.id.clone();
        let Some(early) = context.get(self.stores.early_holders, &ticket)? else {
            return Ok(());
        };
        context.delete(self.stores.early_holders, &ticket)?;
        for order in early.orders {
            if let Some(changed) = rules::hold(entry.ticket.clone(), &order) {
                entry = self.publish(context, changed, entry.creation)?;
            }
        }
        Ok(())
    }

    fn hold(
        &self,
        context: &mut Context<'_>,
        ticket: &TicketId,
        order: OrderId,
    ) -> Result<(), ProcessorError> {
        if context.get(self.stores.ended_orders, &order)?.is_some() {
            return Ok(());
        }
        let Some(existing) = context.get(self.stores.tickets, ticket)? else {
            let early = context.get(self.stores.early_holders, ticket)?;
            let mut early = early.unwrap_or_default();
            if early.orders.contains(&order) {
                return Ok(());
            }
            early.orders.push(order);
            return context.put(self.stores.early_holders, ticket, &early);
        };
        match rules::hold(existing.ticket, &order) {
            Some(changed) => self.publish(context, changed, existing.creation).map(drop),
            None => Ok(()),
        }
    }

    fn release(
        &self,
        context: &mut Context<'_>,
        ticket: &TicketId,
        order: &OrderId,
    ) -> Result<(), ProcessorError> {
        context.put(self.stores.ended_orders, order, &())?;
        if let Some(existing) = context.get(self.stores.tickets, ticket)? {
            return match rules::release(existing.ticket, order) {
                Some(changed) => self.publish(context, changed, existing.creation).map(drop),
                None => Ok(()),
            };
        }
        let Some(mut early) = context.get(self.stores.early_holders, ticket)? else {
            return Ok(());
        };
        early.orders.retain(|holder| holder != order);
        if early.orders.is_empty() {
            return context.delete(self.stores.early_holders, ticket);
        }
        context.put(self.stores.early_holders, ticket, &early)
    }

    /// Stores a ticket that has changed, and publishes it.
    fn publish(
        &self,
        context: &mut Context<'_>,
        changed: Changed,
        creation: Option<Decision>,
    ) -> Result<TicketEntry, ProcessorError> {
        let Changed { ticket, event } = changed;
        let entry = TicketEntry { ticket, creation };
        let id = &entry.ticket.id;
        context.put(self.stores.tickets, id, &entry)?;
        context.send(self.published, id.as_str(), &event)?;
        Ok(entry)
    }
}

/// What was done about a command.
enum Done {
    /// A ticket was created, whose row has the outcome.
    Created,
    /// What the answer says.
    Answered(Answer),
}
