//! Typed handles: what a builder gives out and processors hold.
//!
//! A handle is the index of a node, the type that flows through it, and the key of its topology: a
//! number unique to each builder. Handles exist only for nodes that exist, so an edge to nowhere
//! does not compile; a handle of another builder is a fault, rather than being taken for whatever
//! has the same index here.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinguishes the topologies of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopologyKey(u64);

impl TopologyKey {
    /// A key that no other topology has.
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($parameter:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($parameter),+> {
            pub(crate) topology: TopologyKey,
            pub(crate) index: usize,
            marker: PhantomData<fn() -> ($($parameter,)+)>,
        }

        impl<$($parameter),+> $name<$($parameter),+> {
            pub(crate) fn new(topology: TopologyKey, index: usize) -> Self {
                Self { topology, index, marker: PhantomData }
            }

            /// Its index in the topology with that key; `None` if it belongs to another one.
            pub(crate) fn index_in(self, topology: TopologyKey) -> Option<usize> {
                (self.topology == topology).then_some(self.index)
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
    /// A path from a processor to others in the same task.
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
    pub(crate) topology: TopologyKey,
    pub(crate) from: StreamEnd,
    marker: PhantomData<fn() -> T>,
}

impl<T> Stream<T> {
    pub(crate) fn new(topology: TopologyKey, from: StreamEnd) -> Self {
        Self {
            topology,
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
