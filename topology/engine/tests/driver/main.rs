//! Whole topologies without a broker, on a clock that the test sets.

mod components;
mod keyed_sources;
mod large_records;
mod outlets;
mod punctuators;
mod replay;
mod script;
mod sends;
mod timers;
mod transactions;
mod units;
