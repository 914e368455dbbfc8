//! What an exit and a rewind cost on this host: rows of percentiles, each beside its floor.
//!
//! `exits`, `rewind`, `boot` and `campaign` measure; `table` words it for people. Never judges a
//! figure.

mod batches;
pub mod boot;
pub mod campaign;
mod code;
pub mod context;
mod copies;
pub mod exits;
pub mod figures;
pub mod fingerprint;
mod floor_vm;
mod guests;
mod interrupts;
mod methods;
pub mod rewind;
pub mod sample;
pub mod table;
