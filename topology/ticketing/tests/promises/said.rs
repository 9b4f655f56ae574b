//! What services and callers say, as JSON.

use serde_json::{Value, json};

use crate::world::World;
use turnstile_ticketing::topics::{ORDER_COMMANDS, TICKET_COMMANDS};

/// The command under an id.
pub(crate) fn with_id(mut command: Value, id: &str) -> Value {
    let fields = command.as_object_mut().expect("commands are objects");
    fields.insert("commandId".to_owned(), id.into());
    command
}

pub(crate) fn ticket_create(ticket: &str) -> Value {
    json!({"type": "ticket.create", "id": ticket, "title": "Concert", "price": 10.5, "userId": "owner"})
}

pub(crate) fn ticket_update(ticket: &str, user: &str) -> Value {
    json!({"type": "ticket.update", "id": ticket, "title": "New", "price": 11, "userId": user})
}

pub(crate) fn order_create(ticket: &str, order: &str) -> Value {
    json!({"type": "order.create", "orderId": order, "ticketId": ticket, "userId": "buyer"})
}

pub(crate) fn order_cancel(order: &str, user: &str) -> Value {
    json!({"type": "order.cancel", "orderId": order, "userId": user})
}

pub(crate) fn payment_create(order: &str, token: &str) -> Value {
    json!({"type": "payment.create", "orderId": order, "userId": "buyer", "token": token})
}

pub(crate) fn order_created(order: &str, ticket: &str, expires_at: &str) -> Value {
    json!({"type": "order.created", "id": order, "userId": "buyer", "ticketId": ticket,
        "price": 10.5, "status": "created", "expiresAt": expires_at, "version": 0})
}

pub(crate) fn order_ended(kind: &str, order: &str, ticket: &str, version: u64) -> Value {
    json!({"type": format!("order.{kind}"), "id": order, "ticketId": ticket, "userId": "buyer",
        "status": kind, "version": version})
}

pub(crate) fn payment(kind: &str, order: &str, payment: &str) -> Value {
    json!({"type": format!("payment.{kind}"), "orderId": order, "paymentId": payment})
}

pub(crate) fn expired(order: &str) -> Value {
    json!({"type": "expiration.expired", "orderId": order})
}

/// Two minutes after a test begins, which is when orders of its beginning expire.
pub(crate) const IN_TWO_MINUTES: &str = "2026-01-31T09:32:00.000Z";

impl World {
    /// The owner creates a ticket.
    pub(crate) fn create_ticket(&mut self, ticket: &str) -> String {
        self.command(TICKET_COMMANDS, ticket, ticket_create(ticket))
    }

    /// The buyer orders a ticket.
    pub(crate) fn order(&mut self, ticket: &str, order: &str) -> String {
        self.command(TICKET_COMMANDS, ticket, order_create(ticket, order))
    }

    /// Somebody cancels an order.
    pub(crate) fn cancel(&mut self, order: &str, user: &str) -> String {
        self.command(ORDER_COMMANDS, order, order_cancel(order, user))
    }

    /// The buyer pays.
    pub(crate) fn pay(&mut self, order: &str, token: &str) -> String {
        self.command(ORDER_COMMANDS, order, payment_create(order, token))
    }
}
