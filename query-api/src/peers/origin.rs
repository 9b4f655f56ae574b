//! On whose behalf an instance asks: the request that is being answered.
//!
//! It is attached to the task that answers the request, so that code that asks another
//! instance on the way can name it there.

use std::sync::OnceLock;

use axum::http::HeaderValue;
use turnstile_ticketing::ids::UserId;

tokio::task_local! {
    static ORIGIN: Origin;
}

/// The request that is being answered.
#[derive(Debug, Default)]
pub struct Origin {
    request_id: Option<HeaderValue>,
    caller: OnceLock<UserId>,
    has_hopped: bool,
}

impl Origin {
    /// A request; `has_hopped` if an instance made it: it must not be passed on.
    #[must_use]
    pub fn new(request_id: HeaderValue, has_hopped: bool) -> Self {
        Self {
            request_id: Some(request_id),
            caller: OnceLock::new(),
            has_hopped,
        }
    }

    /// Answers the request.
    pub async fn scope<T>(self, answer: impl Future<Output = T>) -> T {
        ORIGIN.scope(self, answer).await
    }
}

/// Notes who made the request that is being answered.
pub fn set_caller(caller: &UserId) {
    let noted = ORIGIN.try_with(|origin| origin.caller.set(caller.clone()));
    if !matches!(noted, Ok(Ok(()))) {
        tracing::trace!("the caller is known already, or there is no request");
    }
}

/// Whether another instance may be asked for what is not here.
#[must_use]
pub fn may_ask() -> bool {
    ORIGIN.try_with(|origin| !origin.has_hopped).unwrap_or(true)
}

/// The id of the request that is being answered.
#[must_use]
pub fn request_id() -> Option<HeaderValue> {
    let id = ORIGIN.try_with(|origin| origin.request_id.clone());
    id.ok().flatten()
}

/// Who made the request that is being answered, if that is known and can be sent.
#[must_use]
pub fn caller() -> Option<HeaderValue> {
    let caller = ORIGIN.try_with(|origin| {
        let caller = origin.caller.get()?;
        HeaderValue::from_bytes(caller.as_str().as_bytes()).ok()
    });
    caller.ok().flatten()
}
