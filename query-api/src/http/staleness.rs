//! Answers that may be stale, for readers who ask for it: `Cache-Control: max-stale[=<seconds>]`.
//!
//! As in RFC 9111, no number means any staleness. Anything that is not exactly that directive
//! is ignored. A stale answer says so: `Age`, in seconds rounded up, and `X-Records-Behind`,
//! the number of changes that it may miss, if that is known.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};

use utoipa::IntoParams;

use crate::application::{Found, Staleness};

/// How many changes a stale answer may miss.
pub const RECORDS_BEHIND: HeaderName = HeaderName::from_static("x-records-behind");

/// How stale an answer may be; nothing: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxStale(pub Option<Duration>);

impl MaxStale {
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::CACHE_CONTROL).iter();
        let directives = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|directive| Self::directive(directive.trim()));
        // Of several, the strictest counts.
        Self(directives.min())
    }

    fn directive(directive: &str) -> Option<Duration> {
        let (name, seconds) = match directive.split_once('=') {
            Some((name, seconds)) => (name, Some(seconds)),
            None => (directive, None),
        };
        if !name.eq_ignore_ascii_case("max-stale") {
            return None;
        }
        let Some(seconds) = seconds else {
            return Some(Duration::MAX);
        };
        let digits = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too large to read is as good as none.
        digits.then(|| seconds.parse().map_or(Duration::MAX, Duration::from_secs))
    }
}

/// The header, for the OpenAPI document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(
    dead_code,
    reason = "it is only described: its text is read by MaxStale"
)]
pub struct MaxStaleParameter {
    /// `max-stale`, or `max-stale=<seconds>`: a standby may answer where the owner does
    /// not at once.
    #[param(rename = "Cache-Control", value_type = Option<String>)]
    cache_control: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for MaxStale {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

impl IntoResponseParts for Staleness {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        let age = self.age.as_secs() + u64::from(self.age.subsec_nanos() > 0);
        let headers = parts.headers_mut();
        headers.insert(header::AGE, HeaderValue::from(age));
        if let Some(records) = self.records_behind {
            headers.insert(RECORDS_BEHIND, HeaderValue::from(records));
        }
        Ok(parts)
    }
}

impl<T: IntoResponse> IntoResponse for Found<T> {
    fn into_response(self) -> Response {
        match self.staleness {
            Some(staleness) => (staleness, self.value).into_response(),
            None => self.value.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max_stale(values: &[&'static str]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        MaxStale::of(&headers).0
    }

    #[test]
    fn only_the_directive_itself_lets_an_answer_be_stale() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (values, expected) in [
            (&["max-stale"][..], Some(Duration::MAX)),
            (&["max-stale=5"], seconds(5)),
            (&["Max-Stale=0"], seconds(0)),
            (&["no-transform , max-stale=5"], seconds(5)),
            (&["max-stale=7, max-stale=5"], seconds(5)),
            (&["max-stale", "max-stale=5"], seconds(5)),
            (&["max-stale=99999999999999999999"], Some(Duration::MAX)),
            (&[], None),
            (&[""], None),
            (&["max-stale="], None),
            (&["max-stale=-1"], None),
            (&["max-stale=+1"], None),
            (&["max-stale=1.5"], None),
            (&["max-stale=\"5\""], None),
            (&["max-stale=five"], None),
            (&["max-stale =5"], None),
            (&["max-staleness=5"], None),
            (&["max-age=5"], None),
        ] {
            assert_eq!(max_stale(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_stale_answer_says_how_stale_and_another_says_nothing() {
        let headers = |staleness| {
            let found = Found {
                value: "text",
                staleness,
            };
            found.into_response().headers().clone()
        };
        let mut staleness = Staleness {
            age: Duration::from_millis(1_001),
            records_behind: Some(7),
        };
        let stale = headers(Some(staleness));
        assert_eq!(
            (&stale[header::AGE], &stale[RECORDS_BEHIND]),
            (&"2".parse().unwrap(), &"7".parse().unwrap())
        );
        staleness.age = Duration::from_secs(1);
        staleness.records_behind = None;
        let stale = headers(Some(staleness));
        assert_eq!(stale[header::AGE], "1");
        assert!(!stale.contains_key(RECORDS_BEHIND));
        assert!(!headers(None).contains_key(header::AGE));
    }
}
