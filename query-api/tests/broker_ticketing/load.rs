//! Commands as foreign clients would write them: races, payments, cancellations,
//! things left to expire, and half of it said twice.
//!
//! Which order gets which treatment goes by its number, so that every run has all of
//! them; what comes of it depends on who wins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use turnstile_ticketing::topics::{ORDER_COMMANDS, TICKET_COMMANDS};

use crate::broker::Broker;
use crate::pause;

/// How many orders want each ticket.
const CONTENDERS: usize = 3;

/// The load that is sent by and by.
pub(crate) struct Load<'b> {
    broker: &'b Broker,
    seed: &'static str,
    tickets: usize,
    sent: usize,
}

impl<'b> Load<'b> {
    /// For this many tickets, by ids that begin with `seed`.
    pub(crate) fn new(broker: &'b Broker, seed: &'static str, tickets: usize) -> Self {
        Self {
            broker,
            seed,
            tickets,
            sent: 0,
        }
    }

    pub(crate) fn ticket(&self, ticket: usize) -> String {
        format!("{}-t{ticket}", self.seed)
    }

    /// Sends all of it, with a pause of `gap` after each ticket, until `enough`;
    /// gives the tickets that were sent.
    pub(crate) fn send(mut self, gap: Duration, enough: &AtomicBool) -> Vec<String> {
        let mut tickets = Vec::new();
        // Orders are paid or cancelled a few tickets after they were made.
        let behind = 5;
        for number in 0..self.tickets + behind {
            if number < self.tickets && !enough.load(Ordering::Relaxed) {
                self.create(number);
                tickets.push(self.ticket(number));
            } else if number >= tickets.len() + behind {
                break;
            }
            if let Some(number) = number.checked_sub(behind).filter(|n| *n < tickets.len()) {
                for contender in 0..CONTENDERS {
                    self.treat(number, contender);
                }
            }
            pause(gap);
        }
        self.broker.flush();
        tickets
    }

    fn create(&mut self, number: usize) {
        let ticket = self.ticket(number);
        self.say(
            TICKET_COMMANDS,
            &ticket,
            json!({"type": "ticket.create", "id": ticket, "title": format!("Concert {number}"),
                "price": 12.5, "userId": "seller"}),
        );
        for contender in 0..CONTENDERS {
            let order = self.order(number, contender);
            self.say(
                TICKET_COMMANDS,
                &ticket,
                json!({"type": "order.create", "orderId": order, "ticketId": ticket,
                    "userId": buyer(contender)}),
            );
        }
    }

    /// Pays, declines, cancels, does both at once, lets the gateway hang, or does nothing.
    fn treat(&mut self, number: usize, contender: usize) {
        let order = self.order(number, contender);
        let buyer = buyer(contender);
        let pay = |token: &str| json!({"type": "payment.create", "orderId": order, "userId": buyer, "token": token});
        let cancel = json!({"type": "order.cancel", "orderId": order, "userId": buyer});
        let commands = match number % 6 {
            0 => vec![pay("tok_visa")],
            1 => vec![pay("tok_chargeDeclined")],
            2 => vec![cancel],
            3 => vec![pay("tok_visa"), cancel],
            4 => vec![pay("tok_timeout"), cancel],
            _ => Vec::new(),
        };
        for command in commands {
            self.say(ORDER_COMMANDS, &order, command);
        }
    }

    fn order(&self, number: usize, contender: usize) -> String {
        format!("{}-o{number}-{contender}", self.seed)
    }

    /// Sends a command; every second one twice.
    fn say(&mut self, topic: &str, key: &str, mut command: Value) {
        self.sent += 1;
        command["commandId"] = format!("{}-{}", self.seed, self.sent).into();
        for _ in 0..=self.sent % 2 {
            self.broker.send(topic, key, &command);
        }
    }
}

fn buyer(contender: usize) -> String {
    format!("buyer-{contender}")
}
