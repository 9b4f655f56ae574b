//! The processor of Tickets and its place in the topology.

use turnstile_engine::{
    Context, Processor, ProcessorError, PunctuationType, Sink, Store, TopologyBuilder,
};

use super::rules::{self, Changed};
use super::ticket::Ticket;
use crate::commands::{Command, TicketCommand};
use crate::events::{OrderChange, OrderEvent, TicketEvent};
use crate::ids::{OrderId, TicketId};
use crate::outcome::{Answer, Outcome, OutcomeKey};
use crate::outcomes::{Outcomes, SWEEP_INTERVAL, Undecided};
use crate::sources::{Sources, id_bytes};
use crate::topics;

/// The stores of Tickets, keyed by ticket id.
#[derive(Debug, Clone, Copy)]
pub struct TicketsStores {
    /// The tickets.
    pub tickets: Store<TicketId, Ticket>,
    /// What became of `ticket.create` and `ticket.update`.
    pub outcomes: Store<OutcomeKey, Outcome>,
    /// The orders that have ended. A row for each, for ever: an `order.created` may
    /// be read long after its order's end, and must reserve nothing then.
    ended_orders: Store<OrderId, ()>,
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
            Input::Command(command) => {
                let Some(undecided) = self.outcomes.begin(context, &command)? else {
                    return Ok(());
                };
                self.decide(context, undecided, &command)
            }
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
        undecided: Undecided,
        command: &Command<TicketCommand>,
    ) -> Result<(), ProcessorError> {
        let ticket = command.body.ticket_id();
        let existing = context.get(self.stores.tickets, ticket)?;
        let (decided, answer): (_, fn(Ticket) -> Answer) = match &command.body {
            TicketCommand::Create(write) => (
                rules::create(existing.as_ref(), write),
                Answer::TicketCreated,
            ),
            TicketCommand::Update(write) => (rules::edit(existing, write), Answer::TicketUpdated),
            TicketCommand::Order(_) => unreachable!("the source passes over commands of Orders"),
        };
        match decided {
            Err(refused) => self.outcomes.keep(context, undecided, command, refused),
            Ok(changed) => {
                self.outcomes
                    .keep(context, undecided, command, answer(changed.ticket.clone()))?;
                let is_new = changed.ticket.version == 0;
                self.publish(context, &changed)?;
                if is_new {
                    self.admit_early_holders(context, changed.ticket)
                } else {
                    Ok(())
                }
            }
        }
    }

    fn admit_early_holders(
        &self,
        context: &mut Context<'_>,
        mut ticket: Ticket,
    ) -> Result<(), ProcessorError> {
        let Some(early) = context.get(self.stores.early_holders, &ticket.id)? else {
            return Ok(());
        };
        context.delete(self.stores.early_holders, &ticket.id)?;
        for order in early.orders {
            if let Some(changed) = rules::hold(ticket.clone(), &order) {
                self.publish(context, &changed)?;
                ticket = changed.ticket;
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
            early.orders.push(order);
            return context.put(self.stores.early_holders, ticket, &early);
        };
        match rules::hold(existing, &order) {
            Some(changed) => self.publish(context, &changed),
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
            return match rules::release(existing, order) {
                Some(changed) => self.publish(context, &changed),
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

    fn publish(&self, context: &mut Context<'_>, changed: &Changed) -> Result<(), ProcessorError> {
        let id = &changed.ticket.id;
        context.put(self.stores.tickets, id, &changed.ticket)?;
        context.send(self.published, id.as_str(), &changed.event)
    }
}
