//! The `Idempotency-Key`: a retry is the same command, and changes nothing.
//!
//! The id of a command is derived from the caller and the key, and the ids of the
//! ticket or order that it creates from that of the command, so a retry names the same
//! things on every instance. If a caller gives no key, one is made up, which a 504
//! names so that the request can be retried with it.
//!
//! The owner of the outcome reliably detects that a key comes with another body, if both
//! commands have the same owner. For a new body that has another owner (another ticket,
//! another order), this instance remembers what its latest keys were used for.
//!
//! It also remembers for which of them the command was sent. A retry of such a request may
//! concern a command that is in the topic or may still get there, so only its owner may
//! refuse it. Another instance does not know that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use parking_lot::Mutex;
use turnstile_ticketing::commands::Fingerprint;
use turnstile_ticketing::ids::{AttemptId, CommandId, UserId};
use uuid::Uuid;

use super::Api;
use super::problem::{Problem, ProblemKind};

/// The header, in lower case.
pub const HEADER: &str = "idempotency-key";

/// The longest key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// How many keys an instance remembers.
const REMEMBERED: usize = 100_000;

/// How a caller named a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    text: String,
    given: bool,
}

impl IdempotencyKey {
    /// A key that nobody has used.
    #[must_use]
    pub fn made_up() -> Self {
        Self {
            text: Uuid::new_v4().to_string(),
            given: false,
        }
    }

    /// A key that a caller gave.
    ///
    /// # Errors
    ///
    /// 400 for one that is empty, too long, or not of visible ASCII characters.
    pub fn given(value: &[u8]) -> Result<Self, Problem> {
        let visible = value.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(value).ok();
        match text {
            Some(text) if visible && !value.is_empty() && value.len() <= KEY_BYTES_MAX => {
                Ok(Self {
                    text: text.to_owned(),
                    given: true,
                })
            }
            _ => Err(Problem::with_detail(
                ProblemKind::InvalidIdempotencyKey,
                format!("it takes 1 to {KEY_BYTES_MAX} visible ASCII characters"),
            )),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the caller chose it, and may have used it before.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.given
    }

    /// The command that the key names among those of `caller`.
    #[must_use]
    pub fn command(&self, caller: &UserId) -> CommandId {
        CommandId::of_idempotency_key(caller, &self.text)
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(Self::made_up()),
            (Some(value), None) => Self::given(value.as_bytes()),
            (Some(_), Some(_)) => Err(Problem::with_detail(
                ProblemKind::InvalidIdempotencyKey,
                "there is more than one",
            )),
        }
    }
}

/// An id for one request's attempt at a command.
#[must_use]
pub fn new_attempt() -> AttemptId {
    AttemptId::new(Uuid::new_v4().to_string()).expect("a UUID is neither empty nor long")
}

/// Which route a key was used on, and by which name.
type Use = (&'static str, CommandId);

/// How a key was used before, as far as this instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// Nothing was sent under it.
    New,
    /// A command with the same body was sent under it, and may yet be decided.
    Sent,
    /// It is bound to another body.
    OtherBody,
}

/// What a key was last used for.
struct LastUse {
    body: Fingerprint,
    /// Whether the command was handed to the producer.
    is_sent: bool,
    /// Whether another body may be used with the key.
    is_free: bool,
}

/// What the latest keys of this instance were used for.
#[derive(Default)]
pub struct KeyUses {
    uses: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    last: HashMap<Arc<Use>, LastUse>,
    oldest_first: VecDeque<Arc<Use>>,
}

impl KeyUses {
    /// Notes that a key is used on `route` to ask for `body`, unless it is bound to
    /// another one; returns how it was used before.
    pub fn note(&self, route: &'static str, command: &CommandId, body: Fingerprint) -> KeyUse {
        let mut uses = self.uses.lock();
        let key = Arc::new((route, command.clone()));
        if let Some(last) = uses.last.get_mut(&key) {
            if last.body == body {
                last.is_free = false;
                return if last.is_sent {
                    KeyUse::Sent
                } else {
                    KeyUse::New
                };
            }
            if !last.is_free {
                return KeyUse::OtherBody;
            }
        }
        let last = LastUse {
            body,
            is_sent: false,
            is_free: false,
        };
        uses.put(key, last);
        KeyUse::New
    }

    /// Notes that the command of a key is about to be written, or may have been.
    pub fn note_sent(&self, route: &'static str, command: &CommandId, body: Fingerprint) {
        let key = Arc::new((route, command.clone()));
        let last = LastUse {
            body,
            is_sent: true,
            is_free: false,
        };
        self.uses.lock().put(key, last);
    }

    /// Releases a key, whose outcome is not kept, for another body. What was sent under it
    /// is remembered.
    pub fn release(&self, route: &'static str, command: &CommandId) {
        let key = (route, command.clone());
        if let Some(last) = self.uses.lock().last.get_mut(&key) {
            last.is_free = true;
        }
    }

    /// Releases a key from `body`, which is not the one that its owner knows it by. If it was
    /// bound to another one since, it stays bound.
    pub fn release_from(&self, route: &'static str, command: &CommandId, body: Fingerprint) {
        let key = (route, command.clone());
        let mut uses = self.uses.lock();
        if let Some(last) = uses.last.get_mut(&key).filter(|last| last.body == body) {
            last.is_free = true;
        }
    }

    /// Forgets a key whose command is decided, if the outcome is not kept.
    pub fn forget(&self, route: &'static str, command: &CommandId) {
        // Its place in the queue stays: at worst the next use of the key is forgotten early.
        let key = (route, command.clone());
        self.uses.lock().last.remove(&key);
    }
}

impl Remembered {
    fn put(&mut self, key: Arc<Use>, last: LastUse) {
        if !self.last.contains_key(&key) {
            if self.oldest_first.len() >= REMEMBERED
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.last.remove(&oldest);
            }
            self.oldest_first.push_back(key.clone());
        }
        self.last.insert(key, last);
    }
}

#[cfg(test)]
mod tests {
    use turnstile_ticketing::commands::{Command, OrderCreate};
    use turnstile_ticketing::ids::{OrderId, TicketId};

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn body(command: &CommandId, ticket: &str) -> Fingerprint {
        let body = OrderCreate {
            order_id: OrderId::named_by(command),
            ticket_id: TicketId::new(ticket).unwrap(),
            user_id: user("u"),
        };
        Command {
            id: command.clone(),
            attempt: None,
            body,
        }
        .fingerprint()
    }

    #[test]
    fn a_retry_is_the_same_command_and_another_caller_is_not() {
        let key = IdempotencyKey::given(b"again").unwrap();
        let retry = IdempotencyKey::given(b"again").unwrap();
        assert_eq!(key.command(&user("u")), retry.command(&user("u")));
        assert_ne!(key.command(&user("u")), key.command(&user("v")));
        let made_up = || IdempotencyKey::made_up().command(&user("u"));
        assert_ne!(made_up(), made_up());
    }

    #[test]
    fn keys_are_visible_and_bounded() {
        assert!(IdempotencyKey::given(&[b'k'; 255]).is_ok());
        for bad in [
            &b""[..],
            &[b'k'; 256],
            b"a b",
            b"a\tb",
            b"\xc3\xa9",
            b"\xff",
        ] {
            assert!(IdempotencyKey::given(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn another_body_under_the_same_key_is_noticed_until_it_is_forgotten() {
        let uses = KeyUses::default();
        let command = IdempotencyKey::given(b"k").unwrap().command(&user("u"));
        let note = |route, ticket| uses.note(route, &command, body(&command, ticket));
        assert_eq!(note("orders", "a"), KeyUse::New);
        assert_eq!(note("orders", "a"), KeyUse::New);
        assert_eq!(note("orders", "b"), KeyUse::OtherBody);
        assert_eq!(note("payments", "b"), KeyUse::New);
        uses.forget("orders", &command);
        assert_eq!(note("orders", "b"), KeyUse::New);
        assert_eq!(note("orders", "a"), KeyUse::OtherBody);
    }

    #[test]
    fn what_was_sent_is_known_until_it_is_decided_or_another_body_comes() {
        let uses = KeyUses::default();
        let command = IdempotencyKey::given(b"k").unwrap().command(&user("u"));
        let note = |ticket| uses.note("orders", &command, body(&command, ticket));
        let send = |ticket| uses.note_sent("orders", &command, body(&command, ticket));
        assert_eq!(note("a"), KeyUse::New);
        send("a");
        assert_eq!(note("a"), KeyUse::Sent);
        assert_eq!(note("b"), KeyUse::OtherBody);
        uses.release("orders", &command);
        assert_eq!(note("a"), KeyUse::Sent);
        assert_eq!(note("b"), KeyUse::OtherBody);
        uses.release("orders", &command);
        assert_eq!(note("b"), KeyUse::New);
        assert_eq!(note("a"), KeyUse::OtherBody);
        send("b");
        uses.forget("orders", &command);
        assert_eq!(note("b"), KeyUse::New);
        // A key that was made up is first seen when its command was sent.
        uses.forget("orders", &command);
        send("a");
        assert_eq!(note("a"), KeyUse::Sent);
    }

    #[test]
    fn a_key_is_freed_from_the_body_that_was_wrong_and_from_no_other() {
        let uses = KeyUses::default();
        let command = IdempotencyKey::given(b"k").unwrap().command(&user("u"));
        let note = |ticket| uses.note("orders", &command, body(&command, ticket));
        let release_from = |ticket| uses.release_from("orders", &command, body(&command, ticket));
        assert_eq!(note("wrong"), KeyUse::New);
        assert_eq!(note("right"), KeyUse::OtherBody);
        release_from("wrong");
        assert_eq!(note("right"), KeyUse::New);
        // Somebody asked with the wrong one at the same time, and learns of it later.
        release_from("wrong");
        assert_eq!(note("wrong"), KeyUse::OtherBody);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let uses = KeyUses::default();
        for number in 0..=REMEMBERED {
            let command = CommandId::new(number.to_string()).unwrap();
            uses.note("orders", &command, body(&command, "a"));
        }
        assert_eq!(uses.uses.lock().last.len(), REMEMBERED);
        assert_eq!(uses.uses.lock().oldest_first.len(), REMEMBERED);
    }
}
