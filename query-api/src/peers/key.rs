//! How instances know each other: a secret that all of them have.
//!
//! The secret is `CLUSTER_KEY` or, if that is not set, derived from `JWT_KEY`, which
//! all instances have too. In development without either it is the application id, which
//! is not secret. The key itself is never sent: what goes over the wire is a bearer token
//! that is derived from it, for one application.
//!
//! A token does not expire, and whoever can read the traffic has it: between hosts whose
//! network is not trusted, encrypt it.

use axum::http::{HeaderMap, HeaderValue, header};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::Authentication;

/// The label with which the root of a cluster is derived from a JWT key.
const ROOT_LABEL: &[u8] = b"turnstile: root of the instances of a cluster, version 1";

/// The label with which the token is derived from the root, before the application id.
const TOKEN_LABEL: &[u8] = b"turnstile: bearer token between instances, version 1: ";

/// The bearer token of the instances of an application.
#[derive(Clone)]
pub struct ClusterKey {
    /// With its scheme, as it is sent.
    authorization: HeaderValue,
    is_secret: bool,
}

/// Says whether it is a secret, but does not show it.
impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterKey")
            .field("is_secret", &self.is_secret)
            .finish_non_exhaustive()
    }
}

impl ClusterKey {
    /// The key of the instances of `application_id` that share this authentication.
    #[must_use]
    pub fn new(authentication: &Authentication, application_id: &str) -> Self {
        let Authentication {
            cluster_key,
            jwt_key,
            ..
        } = authentication;
        let root = match (cluster_key, jwt_key) {
            (Some(key), _) => key.as_bytes().to_vec(),
            (None, Some(key)) => derived(key.as_bytes(), &[ROOT_LABEL]),
            (None, None) => derived(application_id.as_bytes(), &[ROOT_LABEL]),
        };
        let token = derived(&root, &[TOKEN_LABEL, application_id.as_bytes()]);
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).expect("hex can be in a header");
        authorization.set_sensitive(true);
        Self {
            authorization,
            is_secret: cluster_key.is_some() || jwt_key.is_some(),
        }
    }

    /// Whether it is known only to those who were told a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.is_secret
    }

    /// What an instance sends.
    #[must_use]
    pub fn authorization(&self) -> HeaderValue {
        self.authorization.clone()
    }

    /// Whether these headers are those of an instance. The check takes as long for a token that is
    /// almost right as for any other.
    #[must_use]
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let mut said = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(said), None) = (said.next(), said.next()) else {
            return false;
        };
        said.as_bytes().ct_eq(self.authorization.as_bytes()).into()
    }
}

fn derived(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cluster_key: Option<&str>, jwt_key: Option<&str>, application: &str) -> ClusterKey {
        let authentication = Authentication {
            jwt_key: jwt_key.map(str::to_owned),
            cluster_key: cluster_key.map(str::to_owned),
            dev_auth: true,
        };
        ClusterKey::new(&authentication, application)
    }

    fn admits(key: &ClusterKey, other: &ClusterKey) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, other.authorization());
        key.admits(&headers)
    }

    #[test]
    fn instances_know_each_other_by_the_same_key_and_application_only() {
        let keys = [
            key(Some("c"), Some("j"), "app"),
            key(Some("d"), Some("j"), "app"),
            key(None, Some("j"), "app"),
            key(None, Some("c"), "app"),
            key(None, None, "app"),
            key(Some("c"), Some("j"), "other"),
            key(None, None, "other"),
        ];
        for (number, one) in keys.iter().enumerate() {
            for (other_number, other) in keys.iter().enumerate() {
                assert_eq!(admits(one, other), number == other_number);
            }
        }
        // The JWT key does not matter if there is a cluster key.
        let same = key(Some("c"), Some("another"), "app");
        assert!(admits(&keys[0], &same));
        let secret: Vec<bool> = keys.iter().map(ClusterKey::is_secret).collect();
        assert_eq!(secret, [true, true, true, true, false, true, false]);
    }

    #[test]
    fn anything_but_the_token_is_refused() {
        let key = key(Some("secret"), None, "app");
        let right = key.authorization();
        let right = right.to_str().unwrap();
        let headers = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            headers
        };
        assert!(key.admits(&headers(&[right])));
        for wrong in [
            &[][..],
            &[""],
            &["Bearer "],
            &["Bearer secret"],
            &[&right[..right.len() - 1]],
            &[&right.replace("Bearer", "Basic")],
            &[right, right],
        ] {
            assert!(!key.admits(&headers(wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn neither_the_key_nor_the_token_is_shown() {
        let key = key(Some("secret"), None, "app");
        let authorization = key.authorization();
        assert!(!authorization.to_str().unwrap().contains("secret"));
        let shown = format!("{key:?} {authorization:?}");
        let token = authorization.to_str().unwrap().replace("Bearer ", "");
        assert!(
            !shown.contains("\"secret\"") && !shown.contains(&token),
            "{shown}"
        );
    }
}
