//! What may happen to a ticket, as functions of the ticket and the event.
//!
//! Each returns the changed ticket and what is to be published, or says why nothing
//! happens. Versions grow by one with each published event, without a gap.

use super::ticket::Ticket;
use crate::commands::TicketWrite;
use crate::events::{TicketChange, TicketEvent};
use crate::ids::{OrderId, UserId};
use crate::outcome::{Answer, Conflict};
use crate::ticket_terms::TicketTerms;

/// A ticket and what is published about its change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) ticket: Ticket,
    pub(super) event: TicketEvent,
}

/// The owner creates it.
pub(super) fn create(existing: Option<&Ticket>, write: &TicketWrite) -> Result<Changed, Answer> {
    let TicketTerms { title, price } = terms(write)?;
    if existing.is_some() {
        return Err(Answer::Conflict(Conflict::TicketExists));
    }
    let owner = write.user_id.clone();
    let id = write.ticket_id.clone();
    let ticket = Ticket {
        id,
        title,
        price,
        user_id: owner.clone(),
        version: 0,
        holders: Vec::new(),
    };
    let event = ticket.event(TicketChange::Created { owner: Some(owner) });
    Ok(Changed { ticket, event })
}

/// The owner edits it, while it is not reserved.
pub(super) fn edit(existing: Option<Ticket>, write: &TicketWrite) -> Result<Changed, Answer> {
    let TicketTerms { title, price } = terms(write)?;
    let ticket = existing.ok_or(Answer::NotFound)?;
    if ticket.user_id != write.user_id {
        return Err(Answer::Forbidden);
    }
    if ticket.held_by().is_some() {
        return Err(Answer::Conflict(Conflict::TicketReserved));
    }
    Ok(next(
        Ticket {
            title,
            price,
            ..ticket
        },
        Some(write.user_id.clone()),
    ))
}

/// An order begins to hold it.
pub(super) fn hold(mut ticket: Ticket, order: &OrderId) -> Option<Changed> {
    if ticket.holders.contains(order) {
        return None;
    }
    ticket.holders.push(order.clone());
    Some(next(ticket, None))
}

/// An order lets go of it.
pub(super) fn release(mut ticket: Ticket, order: &OrderId) -> Option<Changed> {
    let place = ticket.holders.iter().position(|holder| holder == order)?;
    ticket.holders.remove(place);
    Some(next(ticket, None))
}

fn terms(write: &TicketWrite) -> Result<TicketTerms, Answer> {
    write
        .draft
        .terms()
        .map_err(|error| Answer::Invalid(error.to_string()))
}

fn next(mut ticket: Ticket, editor: Option<UserId>) -> Changed {
    ticket.version += 1;
    let event = ticket.event(TicketChange::Updated { editor });
    Changed { ticket, event }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TicketId;
    use crate::price::Amount;
    use crate::ticket_terms::TicketDraft;

    fn write(user: &str, title: &str, price: &str) -> TicketWrite {
        let price = Amount::from_json(price).unwrap();
        TicketWrite {
            ticket_id: TicketId::new("t").unwrap(),
            draft: TicketDraft {
                title: title.to_owned(),
                price,
            },
            user_id: UserId::new(user).unwrap(),
        }
    }

    fn order(id: &str) -> OrderId {
        OrderId::new(id).unwrap()
    }

    fn held_by(holders: &[&str]) -> Ticket {
        let ticket = create(None, &write("owner", "Concert", "10"))
            .unwrap()
            .ticket;
        Ticket {
            version: 4,
            holders: holders.iter().map(|id| order(id)).collect(),
            ..ticket
        }
    }

    #[test]
    fn creating() {
        let changed = create(None, &write("owner", "Concert", "10.50")).unwrap();
        assert_eq!(changed.event.version, 0);
        assert_eq!(changed.event.owner().map(UserId::as_str), Some("owner"));
        assert_eq!(changed.ticket.held_by(), None);
        let again = create(Some(&changed.ticket), &write("owner", "Concert", "10.50"));
        assert_eq!(again, Err(Answer::Conflict(Conflict::TicketExists)));
        let invalid = create(None, &write("owner", "", "10"));
        assert_eq!(invalid, Err(Answer::Invalid("title is empty".to_owned())));
    }

    #[test]
    fn editing() {
        let edited = edit(Some(held_by(&[])), &write("owner", "New", "11")).unwrap();
        assert_eq!(
            (edited.event.title.as_str(), edited.event.version),
            ("New", 5)
        );
        assert_eq!(edited.event.owner().map(UserId::as_str), Some("owner"));
        for (existing, by, price, refused) in [
            (None, "owner", "11", Answer::NotFound),
            (Some(held_by(&[])), "other", "11", Answer::Forbidden),
            (
                Some(held_by(&["o"])),
                "owner",
                "11",
                Answer::Conflict(Conflict::TicketReserved),
            ),
            (Some(held_by(&["o"])), "other", "11", Answer::Forbidden),
            (
                Some(held_by(&[])),
                "owner",
                "-1",
                Answer::Invalid("price is less than 0".into()),
            ),
        ] {
            assert_eq!(edit(existing, &write(by, "New", price)), Err(refused));
        }
    }

    #[test]
    fn holders_come_and_go_in_any_order() {
        let cases: [(&[&str], &str, &[&str]); 5] = [
            (&[], "+a", &["a"]),
            (&["a"], "+b", &["a", "b"]),
            (&["a", "b"], "-a", &["b"]),
            (&["a", "b"], "-b", &["a"]),
            (&["a"], "-a", &[]),
        ];
        for (before, step, after) in cases {
            let (sign, id) = step.split_at(1);
            let apply = if sign == "+" { hold } else { release };
            let changed = apply(held_by(before), &order(id)).unwrap();
            assert_eq!(
                changed.ticket.holders,
                held_by(after).holders,
                "{before:?} {step}"
            );
            assert_eq!(changed.event.version, 5);
            assert_eq!(changed.event.held_by.as_ref(), changed.ticket.held_by());
            assert_eq!(changed.event.owner(), None);
        }
        assert_eq!(hold(held_by(&["a", "b"]), &order("a")), None);
        assert_eq!(release(held_by(&["a"]), &order("b")), None);
    }
}
