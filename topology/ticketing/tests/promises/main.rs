//! Every promise of the wire contract is one test here, on the topology test driver.

mod audit;
mod commands;
mod delivery;
mod expiration;
mod model;
mod orders;
mod payments;
mod reading;
mod said;
mod services;
mod tickets;
mod world;
