//! The Orders service by ticket id: the single place where a ticket is given to an order.
//!
//! A ticket is given to the first `order.create` that finds it free, and is free again
//! when `released` names the order that has it. The catalog says which tickets there
//! are; since it comes through another topic than the commands, an order may be read
//! before its ticket:
//!
//! - The `ticket.create` that made the ticket lies in the partition of the order's
//!   command, before it. It is noted as an announcement, and orders for an announced
//!   ticket wait until the catalog has it.
//! - Tickets of a foreign service are not announced. There, an order for an unknown
//!   ticket waits for a short time.
//! - Everything else that the catalog does not have does not exist.
//!
//! The outcome of an order that has its ticket is kept in the row of the ticket, and moves to
//! those of refused orders when the order releases the ticket: one row less per order.

use std::time::Duration;

use turnstile_engine::{
    Context, Processor, ProcessorError, PunctuationType, Sink, Stream, Timer, TopologyBuilder,
};

use super::OrdersStores;
use super::catalog::{AwaitedTicket, CatalogEntry, Given, ListedTerms, ListedTicket};
use super::hand_off::{self, Placed, Released};
use super::order::OrderedTicket;
use crate::commands::{Command, OrderCreate, TicketCommand};
use crate::events::TicketEvent;
use crate::ids::TicketId;
use crate::outcome::{Answer, Conflict, Decision, OutcomeKey};
use crate::outcomes::{OUTCOME_KEPT, Outcomes, SWEEP_INTERVAL, Undecided};
use crate::sources::{Sources, id_bytes};
use crate::timer_key::{TimerKey, unexpected};
use crate::topics;
use crate::waiting::Waiting;

pub(super) fn declare(
    builder: &mut TopologyBuilder,
    sources: &mut Sources,
    stores: &OrdersStores,
    ticket_wait: Option<Duration>,
    released: Stream<Released>,
    placed: Sink<Placed>,
) {
    let stores = *stores;
    let tickets = sources.source(topics::TICKETS, topics::ORDERS_TICKETS, TicketEvent::decode);
    let tickets = tickets.keyed_by("tickets-for-orders", |event| id_bytes(&event.ticket_id));
    let tickets = builder.source(tickets);
    let commands = sources.shared(
        topics::TICKET_COMMANDS,
        topics::ORDERS_TICKETS,
        TicketCommand::decode,
        Asked::of,
    );
    let commands =
        builder.source(
            commands.keyed_by("ticket-commands-for-orders", |asked| match asked {
                Asked::Announced(ticket) => id_bytes(ticket),
                Asked::Order(command) => id_bytes(&command.body.ticket_id),
            }),
        );
    builder
        .processor("reservations", move || Reservations {
            stores,
            outcomes: Outcomes::new(stores.reservation_outcomes),
            ticket_wait,
            placed,
        })
        .input(tickets)
        .input(commands)
        .input(released)
        .store(stores.catalog)
        .store(stores.reservation_outcomes)
        .sink(placed)
        .timers()
        .punctuate(PunctuationType::WallClockTime, SWEEP_INTERVAL)
        .done();
}

/// What a command means for the reservations.
#[derive(Debug, Clone)]
enum Asked {
    /// A ticket is about to be created.
    Announced(TicketId),
    /// A ticket is to be reserved.
    Order(Command<OrderCreate>),
}

impl Asked {
    fn of(command: &Command<TicketCommand>) -> Option<Self> {
        match &command.body {
            // What Tickets will refuse announces nothing.
            TicketCommand::Create(write) => write
                .draft
                .terms()
                .is_ok()
                .then(|| Self::Announced(write.ticket_id.clone())),
            TicketCommand::Update(_) => None,
            TicketCommand::Order(body) => Some(Self::Order(command.with(body.clone()))),
        }
    }
}

enum Input {
    Ticket(TicketEvent),
    Asked(Asked),
    Released(Released),
}

impl From<TicketEvent> for Input {
    fn from(event: TicketEvent) -> Self {
        Self::Ticket(event)
    }
}

impl From<Asked> for Input {
    fn from(asked: Asked) -> Self {
        Self::Asked(asked)
    }
}

impl From<Released> for Input {
    fn from(released: Released) -> Self {
        Self::Released(released)
    }
}

struct Reservations {
    stores: OrdersStores,
    outcomes: Outcomes,
    ticket_wait: Option<Duration>,
    placed: Sink<Placed>,
}

impl Processor for Reservations {
    type In = Input;

    fn process(&mut self, context: &mut Context<'_>, input: Input) -> Result<(), ProcessorError> {
        match input {
            Input::Ticket(event) => self.list(context, event),
            Input::Asked(Asked::Announced(ticket)) => self.announce(context, &ticket),
            Input::Asked(Asked::Order(command)) => self.order(context, &command),
            Input::Released(released) => self.release(context, &released),
        }
    }

    fn on_timer(&mut self, context: &mut Context<'_>, timer: Timer) -> Result<(), ProcessorError> {
        match TimerKey::of(&timer)? {
            TimerKey::TicketWait(ticket) => self.give_up(context, ticket),
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

impl Reservations {
    fn list(&self, context: &mut Context<'_>, event: TicketEvent) -> Result<(), ProcessorError> {
        let ticket = event.ticket_id.clone();
        let terms = ListedTerms::of(event);
        let awaited = match context.get(self.stores.catalog, &ticket)? {
            Some(CatalogEntry::Listed(listed)) => {
                if !terms.replace(&listed.terms) {
                    return Ok(());
                }
                let listed = ListedTicket { terms, ..listed };
                return context.put(self.stores.catalog, &ticket, &CatalogEntry::Listed(listed));
            }
            Some(CatalogEntry::Awaited(awaited)) => awaited.orders,
            None => Waiting::none(),
        };
        let listed = ListedTicket { terms, given: None };
        context.put(self.stores.catalog, &ticket, &CatalogEntry::Listed(listed))?;
        if !awaited.is_empty() {
            context.cancel(&TimerKey::TicketWait(ticket).to_bytes())?;
        }
        for command in awaited.into_commands() {
            self.order(context, &command)?;
        }
        Ok(())
    }

    fn announce(&self, context: &mut Context<'_>, ticket: &TicketId) -> Result<(), ProcessorError> {
        let mut awaited = match context.get(self.stores.catalog, ticket)? {
            Some(CatalogEntry::Listed(_)) => return Ok(()),
            Some(CatalogEntry::Awaited(awaited)) => awaited,
            None => AwaitedTicket::unknown(),
        };
        awaited.announced = true;
        context.put(self.stores.catalog, ticket, &CatalogEntry::Awaited(awaited))
    }

    fn order(
        &self,
        context: &mut Context<'_>,
        command: &Command<OrderCreate>,
    ) -> Result<(), ProcessorError> {
        let OrderCreate {
            order_id,
            ticket_id,
            user_id,
        } = &command.body;
        let entry = context.get(self.stores.catalog, ticket_id)?;
        let decided = |entry: &CatalogEntry| entry.outcome_of(&command.id).is_some();
        if entry.as_ref().is_some_and(decided) {
            return Ok(());
        }
        let Some(undecided) = self.outcomes.begin(context, command)? else {
            return Ok(());
        };
        let mut listed = match entry {
            Some(CatalogEntry::Listed(listed)) => listed,
            Some(CatalogEntry::Awaited(awaited)) => {
                return self.wait(context, undecided, command, awaited);
            }
            None => return self.wait(context, undecided, command, AwaitedTicket::unknown()),
        };
        if listed.given.is_some() {
            let reserved = Answer::Conflict(Conflict::TicketReserved);
            return self.outcomes.keep(context, undecided, command, reserved);
        }
        listed.given = Some(Given {
            order_id: order_id.clone(),
            decision: Decision::on(command, context.now()),
        });
        let placed = Placed {
            order_id: order_id.clone(),
            user_id: user_id.clone(),
            ticket: OrderedTicket {
                id: ticket_id.clone(),
                title: listed.terms.title.clone(),
                price: listed.terms.price,
            },
        };
        context.put(
            self.stores.catalog,
            ticket_id,
            &CatalogEntry::Listed(listed),
        )?;
        hand_off::send(context, self.placed, order_id.as_str(), &placed)
    }

    fn wait(
        &self,
        context: &mut Context<'_>,
        undecided: Undecided,
        command: &Command<OrderCreate>,
        mut awaited: AwaitedTicket,
    ) -> Result<(), ProcessorError> {
        let wait = if awaited.announced {
            Some(OUTCOME_KEPT)
        } else {
            self.ticket_wait
        };
        let until = wait.map(|wait| context.now().plus(wait));
        if !until.is_some_and(|until| awaited.orders.add(command, until)) {
            // Before this one are as many as may wait for a ticket that is announced.
            let answer = if awaited.announced {
                Answer::Conflict(Conflict::TicketReserved)
            } else {
                Answer::NotFound
            };
            return self.outcomes.keep(context, undecided, command, answer);
        }
        self.await_on(context, command.body.ticket_id.clone(), awaited)
    }

    /// Orders that have waited long enough for `ticket` learn that there is none. One that was
    /// announced may come yet: others may wait for it.
    fn give_up(&self, context: &mut Context<'_>, ticket: TicketId) -> Result<(), ProcessorError> {
        let Some(CatalogEntry::Awaited(mut awaited)) = context.get(self.stores.catalog, &ticket)?
        else {
            return Ok(());
        };
        for command in awaited.orders.take_due(context.now()) {
            if let Some(undecided) = self.outcomes.begin(context, &command)? {
                self.outcomes
                    .keep(context, undecided, &command, Answer::NotFound)?;
            }
        }
        if awaited.orders.is_empty() && !awaited.announced {
            return context.delete(self.stores.catalog, &ticket);
        }
        self.await_on(context, ticket, awaited)
    }

    /// Keeps `ticket` awaited until the first of its orders gives up.
    fn await_on(
        &self,
        context: &mut Context<'_>,
        ticket: TicketId,
        awaited: AwaitedTicket,
    ) -> Result<(), ProcessorError> {
        let next = awaited.orders.next_deadline();
        context.put(
            self.stores.catalog,
            &ticket,
            &CatalogEntry::Awaited(awaited),
        )?;
        match next {
            Some(next) => context.schedule(&TimerKey::TicketWait(ticket).to_bytes(), next),
            None => Ok(()),
        }
    }

    fn release(
        &self,
        context: &mut Context<'_>,
        released: &Released,
    ) -> Result<(), ProcessorError> {
        let ticket = &released.ticket_id;
        let Some(CatalogEntry::Listed(mut listed)) = context.get(self.stores.catalog, ticket)?
        else {
            return Ok(());
        };
        let is_holder = |given: &mut Given| given.order_id == released.order_id;
        let Some(given) = listed.given.take_if(is_holder) else {
            return Ok(());
        };
        let outcome = given.outcome();
        let key = OutcomeKey {
            key: ticket.as_str().to_owned(),
            command: given.decision.command,
        };
        self.outcomes.take_over(context, &key, &outcome)?;
        context.put(self.stores.catalog, ticket, &CatalogEntry::Listed(listed))
    }
}
