//! Who calls: the bearer of a token, or whoever `X-User-Id` names in development.
//!
//! A token is an HS256 JWT; the caller is its claim `id`, or `sub` if there is no
//! `id`. `exp` and `nbf` are checked if present, without leeway. Nothing here issues
//! tokens, and no other algorithm is accepted, above all not `none`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use turnstile_ticketing::ids::UserId;

use super::Api;
use super::problem::{Problem, ProblemKind};
use crate::config::Authentication;
use crate::peers::origin;

/// The header that is believed in development.
const DEV_HEADER: HeaderName = HeaderName::from_static("x-user-id");

/// Finds out who calls.
pub struct Authenticator {
    tokens: Option<(DecodingKey, Validation)>,
    dev_auth: bool,
}

/// Who calls; a request without one is answered 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(pub UserId);

#[derive(Deserialize)]
struct Claims {
    id: Option<Name>,
    sub: Option<Name>,
}

/// Issuers name users by text or by number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(i64),
}

impl Authenticator {
    /// An authenticator that believes what `authentication` says.
    #[must_use]
    pub fn new(authentication: &Authentication) -> Self {
        let tokens = authentication.jwt_key.as_ref().map(|key| {
            let mut validation = Validation::new(Algorithm::HS256);
            validation.leeway = 0;
            // A token has expired already in the second that it names (RFC 7519).
            validation.reject_tokens_expiring_in_less_than = 1;
            validation.validate_nbf = true;
            // Tokens of other issuers may have an audience, which we cannot know.
            validation.validate_aud = false;
            validation.required_spec_claims.clear();
            (DecodingKey::from_secret(key.as_bytes()), validation)
        });
        Self {
            tokens,
            dev_auth: authentication.dev_auth,
        }
    }

    /// The caller that the headers name.
    ///
    /// # Errors
    ///
    /// 401, saying why.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let refused = |why: String| Problem::with_detail(ProblemKind::Unauthenticated, why);
        if let (Some((key, validation)), Some(token)) = (&self.tokens, bearer_token(headers)) {
            let token = decode::<Claims>(token, key, validation)
                .map_err(|error| refused(format!("the bearer token is not accepted: {error}")))?;
            let name = token.claims.id.or(token.claims.sub);
            let name =
                name.ok_or_else(|| refused("the token has neither id nor sub".to_owned()))?;
            let text = match name {
                Name::Text(text) => text,
                Name::Number(number) => number.to_string(),
            };
            return user(&text).map_err(refused);
        }
        if !self.dev_auth {
            return Err(refused("a bearer token is needed".to_owned()));
        }
        let text = headers
            .get(DEV_HEADER)
            .and_then(|value| value.to_str().ok());
        let text = text.ok_or_else(|| refused("the header X-User-Id is needed".to_owned()))?;
        user(text).map_err(refused)
    }
}

fn user(text: &str) -> Result<Caller, String> {
    UserId::new(text)
        .map(Caller)
        .map_err(|invalid| format!("the caller's id cannot be used: {invalid}"))
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = api.authenticator().caller(&parts.headers)?;
        origin::set_caller(&caller.0);
        Ok(caller)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = "a key that nobody guesses, of 32 bytes";
    const DISTANT: i64 = 33_000_000_000;

    fn token(algorithm: Algorithm, key: &str, claims: &Value) -> String {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(key.as_bytes()),
        )
        .unwrap()
    }

    fn caller_of(authorization: &str) -> Result<String, Problem> {
        let authentication = Authentication {
            jwt_key: Some(KEY.to_owned()),
            cluster_key: None,
            dev_auth: false,
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_str(authorization).unwrap(),
        );
        headers.insert(DEV_HEADER, HeaderValue::from_static("intruder"));
        Authenticator::new(&authentication)
            .caller(&headers)
            .map(|Caller(user)| user.to_string())
    }

    fn caller(claims: &Value) -> Result<String, Problem> {
        caller_of(&format!("Bearer {}", token(Algorithm::HS256, KEY, claims)))
    }

    #[test]
    fn the_caller_is_id_or_else_sub() {
        assert_eq!(caller(&json!({"id": "a", "sub": "b"})).unwrap(), "a");
        assert_eq!(
            caller(&json!({"sub": "b", "aud": "x", "iss": "y"})).unwrap(),
            "b"
        );
        assert_eq!(caller(&json!({"id": null, "sub": "b"})).unwrap(), "b");
        assert_eq!(caller(&json!({"id": 42})).unwrap(), "42");
        for claims in [
            json!({}),
            json!({"id": ""}),
            json!({"id": true}),
            json!({"id": "x".repeat(513)}),
        ] {
            assert_eq!(
                caller(&claims).unwrap_err().kind(),
                ProblemKind::Unauthenticated,
                "{claims}"
            );
        }
    }

    #[test]
    fn the_times_of_a_token_count() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(caller(&json!({"id": "a", "exp": DISTANT, "nbf": 1})).is_ok());
        for claims in [
            json!({"id": "a", "exp": now - 5}),
            json!({"id": "a", "exp": now}),
            json!({"id": "a", "exp": 0}),
            json!({"id": "a", "exp": 1}),
            json!({"id": "a", "nbf": now + 60}),
            json!({"id": "a", "nbf": DISTANT}),
            json!({"id": "a", "exp": "soon"}),
            json!({"id": "a", "exp": -1}),
        ] {
            assert!(caller(&claims).is_err(), "{claims}");
        }
    }

    #[test]
    fn only_our_key_and_algorithm_are_accepted() {
        let claims = json!({"id": "a"});
        assert!(caller_of(&format!("bearer {}", token(Algorithm::HS256, KEY, &claims))).is_ok());
        let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJpZCI6ImEifQ.";
        for authorization in [
            format!(
                "Bearer {}",
                token(
                    Algorithm::HS256,
                    "another key, of more than 32 bytes",
                    &claims
                )
            ),
            format!("Bearer {}", token(Algorithm::HS384, KEY, &claims)),
            format!("Bearer {unsigned}"),
            "Bearer nonsense".to_owned(),
            "Bearer ".to_owned(),
            "Basic YTpi".to_owned(),
        ] {
            assert!(caller_of(&authorization).is_err(), "{authorization}");
        }
    }

    #[test]
    fn the_header_is_believed_in_development_only() {
        let mut headers = HeaderMap::new();
        headers.insert(DEV_HEADER, HeaderValue::from_static("ada"));
        let caller = |jwt_key: Option<&str>, dev_auth| {
            let authentication = Authentication {
                jwt_key: jwt_key.map(str::to_owned),
                cluster_key: None,
                dev_auth,
            };
            Authenticator::new(&authentication).caller(&headers)
        };
        let ada = Caller(UserId::new("ada").unwrap());
        assert_eq!(caller(None, true), Ok(ada.clone()));
        assert_eq!(caller(Some(KEY), true), Ok(ada));
        assert!(caller(Some(KEY), false).is_err());
        assert!(caller(None, false).is_err());
        assert!(
            Authenticator::new(&Authentication {
                jwt_key: None,
                cluster_key: None,
                dev_auth: true
            })
            .caller(&HeaderMap::new())
            .is_err()
        );
    }
}
