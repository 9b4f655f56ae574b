//! Orders' copy of a ticket.

use crate::events::TicketEvent;
use crate::ids::{OrderId, UserId};
use crate::price::Price;
use crate::row::{row, stored};

/// A ticket as Orders knows it: what the highest version said, gap or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// Its title.
    pub title: String,
    /// Its price.
    pub price: Price,
    /// The version that said so.
    pub version: u64,
    /// Its owner, once an event has named it.
    pub user_id: Option<UserId>,
    /// The order that holds it as Tickets sees it, which lags behind the reservations.
    pub held_by: Option<OrderId>,
}

row!(CatalogEntry {
    title,
    price,
    version,
    user_id,
    held_by
});
stored!(CatalogEntry, 1);

impl CatalogEntry {
    /// The entry after `event`, if that changes it.
    pub(super) fn after(existing: Option<Self>, event: TicketEvent) -> Option<Self> {
        let owner = event.owner().cloned();
        let Some(existing) = existing else {
            return Some(Self {
                title: event.title,
                price: event.price,
                version: event.version,
                user_id: owner,
                held_by: event.held_by,
            });
        };
        // Owners never change, so an event names the owner even if it is an old one.
        let user_id = existing.user_id.clone().or(owner);
        if event.version > existing.version {
            return Some(Self {
                title: event.title,
                price: event.price,
                version: event.version,
                user_id,
                held_by: event.held_by,
            });
        }
        let learned = user_id != existing.user_id;
        learned.then_some(Self {
            user_id,
            ..existing
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::TicketChange;
    use crate::ids::TicketId;
    use crate::price::Amount;

    fn event(version: u64, title: &str, owner: Option<&str>) -> TicketEvent {
        let user = owner.map(|owner| UserId::new(owner).unwrap());
        let change = if version == 0 {
            TicketChange::Created { owner: user }
        } else {
            TicketChange::Updated { editor: user }
        };
        TicketEvent {
            ticket_id: TicketId::new("t").unwrap(),
            title: title.to_owned(),
            price: Price::try_from(Amount::from_json("10").unwrap()).unwrap(),
            version,
            held_by: None,
            change,
        }
    }

    fn after(events: &[(u64, &str, Option<&str>)]) -> (u64, String, Option<String>) {
        let entry = events.iter().fold(
            None,
            |entry: Option<CatalogEntry>, (version, title, owner)| {
                CatalogEntry::after(entry.clone(), event(*version, title, *owner)).or(entry)
            },
        );
        let entry = entry.unwrap();
        (
            entry.version,
            entry.title,
            entry.user_id.map(|user| user.to_string()),
        )
    }

    #[test]
    fn the_highest_version_wins_whatever_is_missing_and_whatever_comes_late() {
        let owner = Some("u".to_owned());
        let cases: [&[(u64, &str, Option<&str>)]; 4] = [
            &[(0, "a", Some("u")), (1, "b", None), (5, "c", None)],
            &[(5, "c", None), (0, "a", Some("u"))],
            &[
                (5, "c", None),
                (0, "a", Some("u")),
                (5, "x", None),
                (4, "y", None),
            ],
            &[(0, "a", Some("u")), (5, "c", None), (0, "a", Some("u"))],
        ];
        for events in cases {
            assert_eq!(
                after(events),
                (5, "c".to_owned(), owner.clone()),
                "{events:?}"
            );
        }
        assert_eq!(after(&[(5, "c", None)]).2, None);
    }

    #[test]
    fn an_event_that_says_nothing_new_changes_nothing() {
        let entry = CatalogEntry::after(None, event(3, "a", Some("u")));
        assert_eq!(
            CatalogEntry::after(entry.clone(), event(3, "a", Some("u"))),
            None
        );
        assert_eq!(CatalogEntry::after(entry, event(2, "b", None)), None);
    }
}
