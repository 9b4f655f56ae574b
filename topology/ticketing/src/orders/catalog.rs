//! What Orders knows about a ticket, and who has it: one row.

use turnstile_engine::CodecError;

use crate::commands::OrderCreate;
use crate::events::TicketEvent;
use crate::ids::{CommandId, OrderId};
use crate::outcome::{Answer, Decision, Outcome};
use crate::price::Price;
use crate::row::{Row, RowReader, row, stored};
use crate::waiting::Waiting;

/// A ticket in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogEntry {
    /// Tickets has not published it yet.
    Awaited(AwaitedTicket),
    /// It can be ordered.
    Listed(ListedTicket),
}

/// A ticket that Tickets has not published yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwaitedTicket {
    /// Whether a `ticket.create` for it was read.
    pub(super) announced: bool,
    /// The orders that wait for it.
    pub(super) orders: Waiting<OrderCreate>,
}

/// A ticket that Tickets has published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTicket {
    /// What the highest version said, even after a gap.
    pub terms: ListedTerms,
    /// To whom it was given.
    pub given: Option<Given>,
}

/// To whom a ticket was given: an order, and the command that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The order.
    pub order_id: OrderId,
    /// The `order.create`.
    pub decision: Decision,
}

/// What a ticket is, as of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTerms {
    /// Its title.
    pub title: String,
    /// Its price.
    pub price: Price,
    /// The version that said so. The next one may have said the same.
    pub version: u64,
}

row!(AwaitedTicket { announced, orders });
row!(ListedTicket { terms, given });
row!(Given { order_id, decision });
row!(ListedTerms {
    title,
    price,
    version
});
stored!(CatalogEntry, 1);

impl CatalogEntry {
    /// The ticket, if it can be ordered.
    #[must_use]
    pub fn listed(self) -> Option<ListedTicket> {
        match self {
            Self::Listed(listed) => Some(listed),
            Self::Awaited(_) => None,
        }
    }

    /// The outcome of `command`, if the ticket was given to its order and not released since:
    /// then it is kept here and nowhere else.
    #[must_use]
    pub fn outcome_of(&self, command: &CommandId) -> Option<Outcome> {
        let Self::Listed(listed) = self else {
            return None;
        };
        let given = listed.given.as_ref()?;
        (given.decision.command == *command).then(|| given.outcome())
    }
}

impl AwaitedTicket {
    /// A ticket of which nothing is known except that somebody wants it.
    pub(super) fn unknown() -> Self {
        Self {
            announced: false,
            orders: Waiting::none(),
        }
    }
}

impl ListedTicket {
    /// The order that has the ticket.
    #[must_use]
    pub fn given_to(&self) -> Option<&OrderId> {
        self.given.as_ref().map(|given| &given.order_id)
    }
}

impl Given {
    /// What became of the command.
    pub(super) fn outcome(&self) -> Outcome {
        let placed = Answer::OrderPlaced(self.order_id.clone());
        self.decision.outcome(placed)
    }
}

impl ListedTerms {
    pub(super) fn of(event: TicketEvent) -> Self {
        Self {
            title: event.title,
            price: event.price,
            version: event.version,
        }
    }

    /// Whether these are to be kept instead of `known`.
    ///
    /// A version that follows directly and says the same is not, which saves a write
    /// whenever a ticket is reserved. Only that version itself can then come late.
    pub(super) fn replace(&self, known: &Self) -> bool {
        self.version > known.version && !known.covers(self.version, &self.title, self.price)
    }

    /// Whether nothing but these was published up to `version`, which says `title`
    /// and `price`.
    #[must_use]
    pub fn covers(&self, version: u64, title: &str, price: Price) -> bool {
        let follows = self.version.checked_add(1) == Some(version);
        self.version >= version || follows && self.title == title && self.price == price
    }
}

impl Row for CatalogEntry {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Awaited(awaited) => {
                out.push(0);
                awaited.write(out);
            }
            Self::Listed(listed) => {
                out.push(1);
                listed.write(out);
            }
        }
    }

    fn read(from: &mut RowReader<'_>) -> Result<Self, CodecError> {
        Ok(match from.byte()? {
            0 => Self::Awaited(Row::read(from)?),
            1 => Self::Listed(Row::read(from)?),
            other => return Err(from.fault(format!("{other} is no entry of the catalog"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::Amount;

    fn price(price: &str) -> Price {
        Price::try_from(Amount::from_json(price).unwrap()).unwrap()
    }

    fn terms(version: u64, title: &str) -> ListedTerms {
        ListedTerms {
            title: title.to_owned(),
            price: price("10"),
            version,
        }
    }

    fn after(events: &[(u64, &str)]) -> (u64, String) {
        let mut said = events.iter().map(|(version, title)| terms(*version, title));
        let first = said.next().unwrap();
        let known = said.fold(
            first,
            |known, said| {
                if said.replace(&known) { said } else { known }
            },
        );
        (known.version, known.title)
    }

    #[test]
    fn the_highest_version_wins_whatever_is_missing_and_whatever_comes_late() {
        let cases: [&[(u64, &str)]; 6] = [
            &[(0, "a"), (1, "b"), (5, "c")],
            &[(5, "c"), (0, "a")],
            &[(5, "c"), (0, "a"), (5, "x"), (4, "y")],
            &[(0, "a"), (5, "c"), (0, "a")],
            &[(1, "c"), (5, "c"), (3, "b"), (2, "a")],
            &[(3, "c"), (4, "c"), (5, "c"), (4, "c"), (2, "b")],
        ];
        for events in cases {
            assert_eq!(after(events), (5, "c".to_owned()), "{events:?}");
        }
    }

    #[test]
    fn what_follows_and_says_the_same_is_not_written() {
        assert_eq!(after(&[(3, "a"), (4, "a")]), (3, "a".to_owned()));
        assert_eq!(after(&[(3, "a"), (4, "a"), (5, "b")]), (5, "b".to_owned()));
        // What was skipped comes again, and what came before it.
        let again = [(3, "a"), (4, "a"), (4, "a"), (3, "a"), (2, "b")];
        assert_eq!(after(&again), (3, "a".to_owned()));

        let known = terms(3, "a");
        assert!(known.covers(3, "whatever", price("1")));
        assert!(known.covers(4, "a", price("10.0")));
        assert!(!known.covers(4, "a", price("11")));
        assert!(!known.covers(4, "b", price("10")));
        assert!(!known.covers(5, "a", price("10")));
    }
}
