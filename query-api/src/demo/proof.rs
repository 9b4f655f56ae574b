//! The judgement from outside: was any ticket sold twice?
//!
//! An order certainly held its ticket from the moment its 201 came until the last moment
//! at which it was known not to have ended. Two orders for which these times overlap were
//! given the same ticket, whatever they say later. An order that had ended when its 201
//! came, or may have, has no such time.

use std::fmt;

use super::race::{FinalTicket, Played, Won, holds};

/// Something that must not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Violation {
    /// Two orders held a ticket at once.
    HeldTwice { ticket: String, orders: [String; 2] },
    /// Nobody holds a ticket in the end, though everybody wanted it.
    Unsold { ticket: String },
    /// A ticket names another order than the one that holds it.
    Disagrees {
        ticket: String,
        names: Option<String>,
        holder: Option<String>,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = |order: &Option<String>| order.clone().unwrap_or_else(|| "no order".to_owned());
        match self {
            Self::HeldTwice {
                ticket,
                orders: [one, other],
            } => {
                write!(
                    f,
                    "ticket {ticket} was held by order {one} and by order {other} at once"
                )
            }
            Self::Unsold { ticket } => write!(f, "ticket {ticket} is held by no order in the end"),
            Self::Disagrees {
                ticket,
                names,
                holder,
            } => {
                write!(
                    f,
                    "ticket {ticket} names {}, but is held by {}",
                    order(names),
                    order(holder)
                )
            }
        }
    }
}

/// All that is wrong.
pub(super) fn violations(played: &Played) -> Vec<Violation> {
    played
        .tickets
        .iter()
        .flat_map(|ticket| violations_of(ticket, &played.orders))
        .collect()
}

fn violations_of(ticket: &FinalTicket, orders: &[Won]) -> Vec<Violation> {
    let orders: Vec<_> = orders
        .iter()
        .filter(|order| order.ticket == ticket.id)
        .collect();
    let mut violations = Vec::new();
    for (number, one) in orders.iter().enumerate() {
        for other in orders.iter().skip(number + 1) {
            let live_together = holds(one) && holds(other);
            if live_together || overlap(one, other) {
                let orders = [one.id.clone(), other.id.clone()];
                violations.push(Violation::HeldTwice {
                    ticket: ticket.id.clone(),
                    orders,
                });
            }
        }
    }
    let holder = orders
        .iter()
        .find(|order| holds(order))
        .map(|order| order.id.clone());
    if holder.is_none() {
        violations.push(Violation::Unsold {
            ticket: ticket.id.clone(),
        });
    }
    if holder != ticket.order {
        let (ticket, names) = (ticket.id.clone(), ticket.order.clone());
        violations.push(Violation::Disagrees {
            ticket,
            names,
            holder,
        });
    }
    violations
}

/// Whether there was a moment at which both certainly held their ticket.
fn overlap(one: &Won, other: &Won) -> bool {
    match (one.held_until, other.held_until) {
        (Some(one_until), Some(other_until)) => {
            one.held_from <= other_until && other.held_from <= one_until
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Orders of one ticket: id, status, the second of their 201, and for how long they certainly
    /// held it from then on.
    type Orders<'a> = [(&'a str, &'a str, u64, Option<u64>)];

    fn judge(orders: &Orders<'_>, names: Option<&str>) -> Vec<Violation> {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let order = |(id, status, from, held): &(&str, &str, u64, Option<u64>)| Won {
            id: (*id).to_owned(),
            buyer: "b".to_owned(),
            ticket: "t".to_owned(),
            held_from: at(*from),
            held_until: held.map(|seconds| at(from + seconds)),
            payment_asked: None,
            status: (*status).to_owned(),
        };
        let ticket = FinalTicket {
            id: "t".to_owned(),
            order: names.map(str::to_owned),
        };
        violations(&Played {
            tickets: vec![ticket],
            orders: orders.iter().map(order).collect(),
        })
    }

    fn twice(one: &str, other: &str) -> Violation {
        Violation::HeldTwice {
            ticket: "t".to_owned(),
            orders: [one.to_owned(), other.to_owned()],
        }
    }

    #[test]
    fn one_after_the_other_is_right() {
        let orders = [
            ("a", "cancelled", 0, Some(3)),
            ("b", "failed", 4, Some(1)),
            ("c", "completed", 6, Some(3)),
        ];
        assert_eq!(judge(&orders, Some("c")), []);
    }

    #[test]
    fn two_that_are_live_in_the_end_are_found() {
        let orders = [
            ("a", "completed", 0, Some(1)),
            ("b", "completed", 5, Some(1)),
        ];
        assert_eq!(judge(&orders, Some("a")), [twice("a", "b")]);
    }

    #[test]
    fn two_that_were_live_at_once_are_found_though_one_has_ended() {
        let orders = [
            ("a", "cancelled", 0, Some(6)),
            ("b", "completed", 5, Some(4)),
        ];
        assert_eq!(judge(&orders, Some("b")), [twice("a", "b")]);
    }

    #[test]
    fn one_that_had_ended_when_its_answer_came_is_not_in_the_way() {
        let orders = [("a", "cancelled", 5, None), ("b", "completed", 4, Some(5))];
        assert_eq!(judge(&orders, Some("b")), []);
        // Unless it turns out to have been live after all.
        let orders = [("a", "completed", 5, None), ("b", "completed", 4, Some(5))];
        assert_eq!(judge(&orders, Some("a")), [twice("a", "b")]);
    }

    #[test]
    fn a_ticket_that_disagrees_is_found() {
        let holder = Some("a".to_owned());
        let disagrees = |names| Violation::Disagrees {
            ticket: "t".to_owned(),
            names,
            holder: holder.clone(),
        };
        let orders = [("a", "completed", 0, Some(1))];
        assert_eq!(judge(&orders, None), [disagrees(None)]);
        assert_eq!(judge(&orders, Some("z")), [disagrees(Some("z".to_owned()))]);
    }

    #[test]
    fn a_ticket_that_nobody_holds_is_found() {
        let unsold = [Violation::Unsold {
            ticket: "t".to_owned(),
        }];
        assert_eq!(judge(&[("a", "failed", 0, Some(1))], None), unsold);
        assert_eq!(judge(&[], None), unsold);
    }
}
