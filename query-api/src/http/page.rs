//! Lists, a page at a time: by partition, then by id, a stable order without gaps.
//!
//! A cursor says after which row to continue. It is opaque: hex of a version byte, a
//! letter for the list, the partition (4 bytes, big-endian), and the id of the row,
//! which is empty at the beginning of a partition.
//!
//! Partitions are read in order, each at most once per page, and the emptier they turn
//! out to be, the more of them at a time. A partition that no instance can give at the
//! moment is named in the page, which goes on without it.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use turnstile_engine::Partition;
use turnstile_ticketing::ids::MAX_ID_BYTES;
use utoipa::{IntoParams, ToSchema};

use super::problem::{Problem, ProblemKind};
use crate::application::{BoxFuture, Found, Listing, Staleness, Unavailable};

/// How many items a page has where nobody says.
const LIMIT_DEFAULT: usize = 50;

/// How many items a page has at most.
pub const LIMIT_MAX: usize = 200;

const VERSION: u8 = 1;

/// How many partitions are read at a time at most.
const WINDOW_MAX: i32 = 16;

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
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; absent at the end. A page can be short, or empty,
    /// and still have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The partitions that could not be read, whose items are missing: the next page goes
    /// on after them. Absent where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_partitions: Vec<i32>,
}

impl<T> Page<T> {
    /// The page with other items.
    #[must_use]
    pub fn map<U>(self, map: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(map).collect(),
            next: self.next,
            missing_partitions: self.missing_partitions,
        }
    }
}

/// The items of a partition, while they are read.
pub type Reading<'a, T> = BoxFuture<'a, Result<Found<Vec<T>>, Unavailable>>;

/// The part of a list that makes a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    listing: Listing,
    position: Position,
    limit: usize,
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
    /// The part of `listing` that is wanted.
    ///
    /// # Errors
    ///
    /// 400 if a parameter is wrong.
    pub fn part(&self, listing: Listing) -> Result<Part, Problem> {
        Ok(Part {
            listing,
            position: self.position(listing)?,
            limit: self.limit()?,
        })
    }

    /// The number of items that are wanted.
    ///
    /// # Errors
    ///
    /// 400 if it is none from 1 to 200.
    fn limit(&self) -> Result<usize, Problem> {
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
    fn position(&self, listing: Listing) -> Result<Position, Problem> {
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
        let is_id = |after: &String| after.len() <= MAX_ID_BYTES;
        (partition >= 0 && after.as_ref().is_none_or(is_id)).then_some(Self {
            partition: Partition(partition),
            after,
        })
    }
}

impl Part {
    /// The page, of a list that has so many partitions; `read` gives the items of one
    /// after an id, at most so many.
    ///
    /// # Errors
    ///
    /// When a partition is broken, and when none of those that were tried can be read.
    pub async fn gather<'a, T>(
        &self,
        partitions: i32,
        read: impl Fn(Partition, Option<String>, usize) -> Reading<'a, T>,
        id: impl Fn(&T) -> String,
    ) -> Result<Found<Page<T>>, Unavailable> {
        let mut gathered = Gathered {
            page: Page {
                items: Vec::new(),
                next: None,
                missing_partitions: Vec::new(),
            },
            staleness: None,
        };
        let mut failure = None;
        let mut answered = false;
        let mut begin = self.position.partition.0;
        let mut window = 1;
        while begin < partitions {
            let end = partitions.min(begin.saturating_add(window));
            let wanted = self.limit.saturating_sub(gathered.page.items.len());
            // One more than wanted shows whether anything follows.
            let reads = (begin..end).map(Partition).map(|partition| {
                let after = self.after_in(partition);
                read(partition, after, wanted.saturating_add(1))
            });
            let found = join_all(reads).await;
            for (partition, found) in (begin..end).map(Partition).zip(found) {
                let wanted = self.limit.saturating_sub(gathered.page.items.len());
                let after = self.after_in(partition);
                match found {
                    Ok(found) => {
                        answered = true;
                        if let Some(last) = gathered.take(found, wanted, &id) {
                            let after = last.or(after);
                            return Ok(gathered.up_to(self.listing, partition, after));
                        }
                    }
                    // The page is full: the next one tries it.
                    Err(Unavailable::NotYet { .. }) if wanted == 0 => {
                        return Ok(gathered.up_to(self.listing, partition, after));
                    }
                    Err(error @ Unavailable::NotYet { .. }) => {
                        gathered.page.missing_partitions.push(partition.0);
                        failure = Some(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            begin = end;
            window = WINDOW_MAX.min(window.saturating_mul(2));
        }
        match failure {
            Some(failure) if !answered => Err(failure),
            _ => Ok(gathered.all()),
        }
    }

    /// After which id the part begins in a partition.
    fn after_in(&self, partition: Partition) -> Option<String> {
        let is_first = partition == self.position.partition;
        self.position.after.clone().filter(|_| is_first)
    }
}

struct Gathered<T> {
    page: Page<T>,
    staleness: Option<Staleness>,
}

impl<T> Gathered<T> {
    /// Adds what is wanted of a partition; where more follows, gives the last id of it
    /// that was added, if any was.
    fn take(
        &mut self,
        found: Found<Vec<T>>,
        wanted: usize,
        id: impl Fn(&T) -> String,
    ) -> Option<Option<String>> {
        let Found {
            value: mut items,
            staleness,
        } = found;
        let more = items.len() > wanted;
        items.truncate(wanted);
        let last = items.last().map(id);
        self.page.items.append(&mut items);
        self.staleness = match (self.staleness, staleness) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        };
        more.then_some(last)
    }

    fn up_to(
        mut self,
        listing: Listing,
        partition: Partition,
        after: Option<String>,
    ) -> Found<Page<T>> {
        self.page.next = Some(Position { partition, after }.cursor(listing));
        self.all()
    }

    fn all(self) -> Found<Page<T>> {
        Found {
            value: self.page,
            staleness: self.staleness,
        }
    }
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

    #[test]
    fn a_cursor_after_what_is_no_id_is_refused() {
        let after = |bytes| Position {
            partition: Partition(1),
            after: Some("x".repeat(bytes)),
        };
        let read = |bytes| Position::read(Listing::Orders, &after(bytes).cursor(Listing::Orders));
        assert_eq!(read(MAX_ID_BYTES), Some(after(MAX_ID_BYTES)));
        assert_eq!(read(MAX_ID_BYTES + 1), None);
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
