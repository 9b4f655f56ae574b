//! Bearer tokens for trying the API and for services: an HS256 JWT that names its caller.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;
use turnstile_engine::TimestampMs;

/// Which token is to be made.
#[derive(Clone, Args)]
pub struct TokenArgs {
    /// The caller that it names
    #[arg(long)]
    pub id: String,
    /// How long it is accepted, as 1h [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub expires: Option<Duration>,
    /// The key of the instances that are to accept it
    #[arg(long, env = "JWT_KEY", hide_env_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub jwt_key: String,
}

/// Leaves the key out.
impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs")
            .field("id", &self.id)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    id: &'a str,
    /// In seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// The token that `args` ask for, made at `now`.
///
/// # Errors
///
/// When it cannot be signed with this key.
pub fn token(args: &TokenArgs, now: TimestampMs) -> Result<String, jsonwebtoken::errors::Error> {
    let ends = |after| now.plus(after).0.div_euclid(1000);
    let claims = Claims {
        id: &args.id,
        exp: args.expires.map(ends),
    };
    let key = EncodingKey::from_secret(args.jwt_key.as_bytes());
    encode(&Header::default(), &claims, &key)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, header};
    use turnstile_engine::clock;

    use super::*;
    use crate::config::Authentication;
    use crate::http::caller::Authenticator;

    const HOUR: Duration = Duration::from_secs(3600);

    fn args(expires: Option<Duration>) -> TokenArgs {
        TokenArgs {
            id: "ada".to_owned(),
            expires,
            jwt_key: "0123456789abcdef".to_owned(),
        }
    }

    /// Who an instance with this key takes the bearer for.
    fn caller(token: &str, jwt_key: &str) -> Option<String> {
        let authentication = Authentication {
            jwt_key: Some(jwt_key.to_owned()),
            cluster_key: None,
            dev_auth: false,
        };
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {token}").parse().unwrap();
        headers.insert(header::AUTHORIZATION, bearer);
        let caller = Authenticator::new(&authentication).caller(&headers);
        caller.ok().map(|caller| caller.0.to_string())
    }

    #[test]
    fn a_token_names_its_caller_to_instances_with_the_same_key() {
        for expires in [None, Some(HOUR)] {
            let token = token(&args(expires), clock::now()).unwrap();
            assert_eq!(caller(&token, "0123456789abcdef").as_deref(), Some("ada"));
            assert_eq!(caller(&token, "fedcba9876543210"), None);
        }
    }

    #[test]
    fn a_token_ends_when_it_was_to() {
        let two_hours_ago = TimestampMs(clock::now().0 - 7_200_000);
        let ended = token(&args(Some(HOUR)), two_hours_ago).unwrap();
        assert_eq!(caller(&ended, "0123456789abcdef"), None);
        let endless = token(&args(None), two_hours_ago).unwrap();
        assert_eq!(caller(&endless, "0123456789abcdef").as_deref(), Some("ada"));
    }

    #[test]
    fn the_key_is_not_in_the_debug_output() {
        assert!(!format!("{:?}", args(None)).contains("0123456789abcdef"));
    }
}
