//! Durable, keyed, one-shot timers of a processor in a task.
//!
//! [`Timers`] is the whole of it: every pending timer is a row of a store, and
//! the near ones are also in a [`wheel`], which knows in constant time what is due.
//! Bottom up:
//!
//! - [`tick`]: where a deadline lives in the wheel, as arithmetic.
//! - [`slots`]: the timers in those places, as lists in one block of memory.
//! - [`wheel`]: a hierarchical timer wheel: insert, cancel, advance.
//! - [`row`]: a pending timer as a key of the store.
//! - [`timers`]: the durable timers over the stores, with a wheel in front.
//!
//! Nothing here reads a clock: the caller says what time it is.

mod row;
mod slots;
mod tick;
mod timers;
mod wheel;

pub(crate) use timers::{DueTimer, Timers};
