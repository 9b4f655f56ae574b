//! What instances ask each other: reads of rows, answered from local stores.
//!
//! Only instances are let in, by the token that they share; a client's token is not enough.
//! These requests have their own limit, so that clients that fill this instance do not
//! keep others from reading here, and two instances never wait for each other's capacity.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use turnstile_engine::runtime::StoreRead;

use super::Api;
use super::body::Body;
use super::limits::Room;
use super::page::LIMIT_MAX;
use super::problem::{Problem, ProblemKind};
use crate::peers::wire::{CALLER_HEADER, HOP, HOP_HEADER, REQUEST_ID_HEADER, decode, encode};
use crate::peers::{ReadReply, ReadRequest, Refusal};

/// How many reads of other instances are answered at once; most of them wait.
pub(super) const READS_MAX: usize = 32_768;

/// The most rows that one read of a range returns, whatever it asks for: those of a page,
/// and one more, which shows whether anything follows.
const ROWS_MAX: usize = LIMIT_MAX + 1;

/// Another instance; anybody else is answered 401.
pub struct Peer;

impl FromRequestParts<Api> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if !api.shared.cluster_key.admits(&parts.headers) {
            let detail = "only instances of this application read here";
            return Err(Problem::with_detail(ProblemKind::Unauthenticated, detail));
        }
        let hops = parts.headers.get(HOP_HEADER);
        if hops.is_none_or(|hops| hops != HOP) {
            let detail = format!("{HOP_HEADER} is {HOP}: whoever is asked asks no further");
            return Err(Problem::with_detail(ProblemKind::InvalidParameter, detail));
        }
        Ok(Self)
    }
}

/// Reads rows for another instance.
pub async fn read(
    State(api): State<Api>,
    _: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let mut read: ReadRequest = decode(body.bytes()).map_err(|error| {
        Problem::with_detail(ProblemKind::InvalidBody, format!("not a read: {error}"))
    })?;
    bound(&mut read.request.read);
    let reply = answer(&api, &read).await;
    let result = match &reply {
        ReadReply::Answer(_) => "ok",
        ReadReply::Refusal(refusal) => refusal.name(),
    };
    let took = read.wait.is_none().then(|| begun.elapsed());
    api.shared.peer_measures.received(result, took);
    tracing::debug!(
        request_id = text(&headers, REQUEST_ID_HEADER),
        caller = text(&headers, CALLER_HEADER),
        store = read.request.store,
        partition = read.request.partition.0,
        result,
        "read for another instance"
    );
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((content_type, encode(&reply)).into_response())
}

/// Limits the cost of a read; the number of keys is limited by the size of the body.
fn bound(read: &mut StoreRead) {
    match read {
        StoreRead::Keys(_) => {}
        StoreRead::Range(range) | StoreRead::Indexed { range, .. } => {
            range.limit = range.limit.min(ROWS_MAX);
        }
    }
}

async fn answer(api: &Api, read: &ReadRequest) -> ReadReply {
    let Some(_place) = Room::take(&api.shared.peer_room) else {
        return ReadReply::Refusal(Refusal::Busy);
    };
    match api.instance().application() {
        Ok(application) => {
            let is_stopping = || api.instance().is_stopping();
            application.rows().stores().answer(read, is_stopping).await
        }
        Err(why) => ReadReply::Refusal(Refusal::NotYet(why)),
    }
}

/// The text of a header, for the log; the token vouches for whoever wrote it.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use turnstile_engine::runtime::RowRange;
    use turnstile_state::{KeyRange, ScanDirection};

    use super::*;

    #[test]
    fn no_read_of_a_range_gives_more_rows_than_a_page_takes() {
        let range = |limit| RowRange::new(KeyRange::all(), ScanDirection::Forward, limit);
        let indexed = |limit| StoreRead::Indexed {
            range: range(limit),
            prefix_bytes: 1,
            rows: "orders".to_owned(),
        };
        for (asked, given) in [(1, 1), (LIMIT_MAX + 1, 201), (202, 201), (usize::MAX, 201)] {
            let mut read = StoreRead::Range(range(asked));
            bound(&mut read);
            assert_eq!(read, StoreRead::Range(range(given)));
            let mut read = indexed(asked);
            bound(&mut read);
            assert_eq!(read, indexed(given));
        }
    }
}
