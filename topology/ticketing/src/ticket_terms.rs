//! What a ticket may be called and may cost: the one check, for HTTP and for raw commands.

use serde::Deserialize;
use thiserror::Error;

use crate::price::{Amount, Price};

/// The longest title, in characters.
pub const MAX_TITLE_CHARS: usize = 200;

/// The highest price.
pub const MAX_PRICE: u32 = 1_000_000_000;

/// Title and price as a caller asks for them; the body of `POST` and `PUT` of tickets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TicketDraft {
    /// The title.
    pub title: String,
    /// The price.
    pub price: Amount,
}

/// Title and price as a ticket may have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketTerms {
    /// The title, not blank.
    pub title: String,
    /// The price.
    pub price: Price,
}

/// Why a ticket cannot have a title or price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidTerms {
    /// There is nothing but blanks in the title.
    #[error("title is empty")]
    EmptyTitle,
    /// The title is too long.
    #[error("title has more than {MAX_TITLE_CHARS} characters")]
    LongTitle,
    /// The price is less than 0.
    #[error("price is less than 0")]
    NegativePrice,
    /// The price is too high.
    #[error("price is more than {MAX_PRICE}")]
    HighPrice,
}

impl TicketDraft {
    /// The draft as terms of a ticket.
    ///
    /// # Errors
    ///
    /// What a ticket cannot be called or cost.
    pub fn terms(&self) -> Result<TicketTerms, InvalidTerms> {
        if self.title.trim().is_empty() {
            return Err(InvalidTerms::EmptyTitle);
        }
        if self.title.chars().nth(MAX_TITLE_CHARS).is_some() {
            return Err(InvalidTerms::LongTitle);
        }
        let price = Price::try_from(self.price).map_err(|_| InvalidTerms::NegativePrice)?;
        if price.decimal() > MAX_PRICE.into() {
            return Err(InvalidTerms::HighPrice);
        }
        Ok(TicketTerms {
            title: self.title.clone(),
            price,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(title: &str, price: &str) -> Result<(), InvalidTerms> {
        let price = Amount::from_json(price).unwrap();
        TicketDraft {
            title: title.to_owned(),
            price,
        }
        .terms()
        .map(|_| ())
    }

    #[test]
    fn titles_and_prices_have_bounds() {
        assert_eq!(check("Concert", "0"), Ok(()));
        assert_eq!(check(&"é".repeat(200), "1000000000.00"), Ok(()));
        assert_eq!(check("", "1"), Err(InvalidTerms::EmptyTitle));
        assert_eq!(check(" \t", "1"), Err(InvalidTerms::EmptyTitle));
        assert_eq!(check(&"é".repeat(201), "1"), Err(InvalidTerms::LongTitle));
        assert_eq!(check("Concert", "-0.01"), Err(InvalidTerms::NegativePrice));
        assert_eq!(
            check("Concert", "1000000000.01"),
            Err(InvalidTerms::HighPrice)
        );
    }

    #[test]
    fn a_draft_is_read_from_json() {
        let draft: TicketDraft = serde_json::from_str(r#"{"title":"a","price":10.50}"#).unwrap();
        assert_eq!(draft.price.to_string(), "10.50");
        assert!(serde_json::from_str::<TicketDraft>(r#"{"title":"a","price":"10"}"#).is_err());
    }
}
