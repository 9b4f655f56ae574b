//! Lists, a page at a time: by partition, then by id, a stable order without gaps.
//!
//! A cursor says after which row to go on. It is opaque: hex of a version byte, a
//! letter for the list, the partition (4 bytes, big-endian), and the id of the row,
//! which is empty at the beginning of a partition.

use serde::{Deserialize, Serialize};
use turnstile_engine::Partition;
use utoipa::{IntoParams, ToSchema};

use super::problem::{Problem, ProblemKind};
use crate::application::{Application, Listing, Unavailable};

/// How many items a page has where nobody says.
const LIMIT_DEFAULT: usize = 50;

/// How many items a page has at most.
pub const LIMIT_MAX: usize = 200;

const VERSION: u8 = 1;

/// The part of a list that is wanted.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items at most: 1 to 200, or 50 where it is not said.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 200)]
    limit: Option<String>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; absent at the end. A page can be short, or empty,
    /// and still have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page with other items.
    #[must_use]
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(map).collect(),
            next: self.next,
        }
    }
}

/// Where in a list a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// In which partition.
    pub partition: Partition,
    /// After which id; at the beginning of the partition where there is none.
    pub after: Option<String>,
}

impl PageQuery {
    /// The number of items that are wanted.
    ///
    /// # Errors
    ///
    /// 400 if it is none from 1 to 200.
    pub fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = &self.limit else {
            return Ok(LIMIT_DEFAULT);
        };
        let limit = text
            .parse()
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| {
            let detail = format!("limit takes a number from 1 to {LIMIT_MAX}");
            Problem::with_detail(ProblemKind::InvalidParameter, detail)
        })
    }

    /// Where the page begins.
    ///
    /// # Errors
    ///
    /// 400 for a cursor that was not given out for this list.
    pub fn position(&self, listing: Listing) -> Result<Position, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(Position {
                partition: Partition(0),
                after: None,
            });
        };
        Position::read(listing, cursor).ok_or_else(|| {
            let detail = "cursor takes the next of a page of this list";
            Problem::with_detail(ProblemKind::InvalidParameter, detail)
        })
    }
}

impl Position {
    /// The position as a cursor.
    #[must_use]
    pub fn cursor(&self, listing: Listing) -> String {
        let mut bytes = vec![VERSION, letter(listing)];
        bytes.extend_from_slice(&self.partition.0.to_be_bytes());
        bytes.extend_from_slice(self.after.as_deref().unwrap_or_default().as_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn read(listing: Listing, cursor: &str) -> Option<Self> {
        let bytes = unhex(cursor)?;
        let (head, rest) = bytes.split_at_checked(2)?;
        if head != [VERSION, letter(listing)] {
            return None;
        }
        let (partition, after) = rest.split_first_chunk::<4>()?;
        let partition = i32::from_be_bytes(*partition);
        let after = std::str::from_utf8(after).ok()?;
        let after = (!after.is_empty()).then(|| after.to_owned());
        (partition >= 0).then_some(Self {
            partition: Partition(partition),
            after,
        })
    }
}

/// The page of at most `limit` items that begins at `position`; `rows` are those of a
/// partition after an id, at most so many. A partition that cannot be read now ends a
/// page that has items already, and is the beginning of the next.
///
/// # Errors
///
/// When the first partition of the page cannot be read.
pub fn read<T>(
    application: &dyn Application,
    listing: Listing,
    position: &Position,
    limit: usize,
    rows: impl Fn(Partition, Option<&str>, usize) -> Result<Vec<T>, Unavailable>,
    id: impl Fn(&T) -> String,
) -> Result<Page<T>, Unavailable> {
    let partitions = application.partitions(listing)?;
    let mut items: Vec<T> = Vec::new();
    let mut after = position.after.clone();
    for partition in (position.partition.0..partitions).map(Partition) {
        // One more than wanted shows whether anything follows.
        let wanted = limit.saturating_sub(items.len());
        let mut found = match rows(partition, after.as_deref(), wanted.saturating_add(1)) {
            Ok(found) => found,
            Err(_) if !items.is_empty() => {
                let next = Some(Position { partition, after }.cursor(listing));
                return Ok(Page { items, next });
            }
            Err(error) => return Err(error),
        };
        let more = found.len() > wanted;
        found.truncate(wanted);
        after = found.last().map(&id).or(after);
        items.append(&mut found);
        if more {
            let next = Some(Position { partition, after }.cursor(listing));
            return Ok(Page { items, next });
        }
        after = None;
    }
    Ok(Page { items, next: None })
}

fn letter(listing: Listing) -> u8 {
    match listing {
        Listing::Tickets => b't',
        Listing::Orders => b'o',
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(limit: Option<&str>, cursor: Option<&str>) -> PageQuery {
        PageQuery {
            limit: limit.map(str::to_owned),
            cursor: cursor.map(str::to_owned),
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(query(None, None).limit(), Ok(50));
        assert_eq!(query(Some("1"), None).limit(), Ok(1));
        assert_eq!(query(Some("200"), None).limit(), Ok(200));
        for bad in ["0", "201", "-1", "", "ten", "1.5"] {
            assert_eq!(
                query(Some(bad), None).limit().unwrap_err().kind(),
                ProblemKind::InvalidParameter
            );
        }
    }

    #[test]
    fn a_list_begins_at_its_first_partition() {
        let first = query(None, None).position(Listing::Tickets).unwrap();
        assert_eq!(
            first,
            Position {
                partition: Partition(0),
                after: None
            }
        );
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let cursor = Position {
            partition: Partition(1),
            after: None,
        }
        .cursor(Listing::Tickets);
        assert!(
            query(None, Some(&cursor))
                .position(Listing::Tickets)
                .is_ok()
        );
        assert!(
            query(None, Some(&cursor))
                .position(Listing::Orders)
                .is_err()
        );
        for bad in [
            "",
            "1",
            "zz",
            "0174",
            "017400000",
            "0274000000",
            "0174ffffffff",
            "017400000001ff",
        ] {
            assert!(
                query(None, Some(bad)).position(Listing::Tickets).is_err(),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn cursors_read_as_they_were_written(partition in 0..i32::MAX, after in proptest::option::of(".{1,40}")) {
            let position = Position { partition: Partition(partition), after };
            let cursor = position.cursor(Listing::Orders);
            prop_assert_eq!(query(None, Some(&cursor)).position(Listing::Orders), Ok(position));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in ".*") {
            let read = Position::read(Listing::Orders, &text);
            prop_assert!(read.is_none_or(|position| position.cursor(Listing::Orders) == text.to_lowercase()));
        }
    }
}
