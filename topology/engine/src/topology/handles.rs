//! Typed handles: what a builder gives out and processors hold.
//!
//! A handle is the index of a node and the type that flows through it. Handles
//! exist only for nodes that exist, so an edge to nowhere does not compile.

use std::fmt;
use std::marker::PhantomData;

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($parameter:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($parameter),+> {
            pub(crate) index: usize,
            marker: PhantomData<fn() -> ($($parameter,)+)>,
        }

        impl<$($parameter),+> $name<$($parameter),+> {
            pub(crate) fn new(index: usize) -> Self {
                Self { index, marker: PhantomData }
            }
        }

        impl<$($parameter),+> Clone for $name<$($parameter),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($parameter),+> Copy for $name<$($parameter),+> {}

        impl<$($parameter),+> fmt::Debug for $name<$($parameter),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.index)
            }
        }
    };
}

handle! {
    /// A state store with keys `K` and values `V`.
    Store<K, V>
}

handle! {
    /// A topic that messages of type `T` are sent to.
    Sink<T>
}

handle! {
    /// A way from a processor to others in the same task.
    Outlet<T>
}

/// Where the messages of a [`Stream`] come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// A source node.
    Source(usize),
    /// What a processor forwards to an outlet.
    Outlet(usize),
}

/// Messages of type `T` that processors can take as an input.
pub struct Stream<T> {
    pub(crate) from: StreamEnd,
    marker: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    pub(crate) fn new(from: StreamEnd) -> Self {
        Self {
            from,
            marker: PhantomData,
        }
    }
}

impl<T> Clone for Stream<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Stream<T> {}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.from)
    }
}
