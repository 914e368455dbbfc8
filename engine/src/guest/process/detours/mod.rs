//! A program whose blocks mark themselves, beside the one that does not.
//!
//! Pages of rewritten code (`coverage::detours`), their trampolines and maps lie in a memory slot of
//! their own, which is no part of any snapshot; page tables of their own show them to the program in
//! place of the snapshot's code. A run under these tables tells which blocks it reached; the
//! snapshot's own pages and tables are as they were, and going from one to the other costs nothing.
//!
//! Detours are for one of two purposes: to mark blocks, or to log comparisons. Functions that
//! compare strings have breakpoints that stay ([`hooks`]).
//!
//! What a run under them does that would show the difference is for the machine to notice, by
//! [`Detours::hold`] and [`Detours::has_moved`]; such a run is worth nothing, and is made again
//! without detours. The maps can be written by the program: what is in them is a hint.
//!
//! Never runs a vCPU, and never decides where a detour is sound.

mod around;
mod batches;
mod code;
mod config;
mod draft;
mod error;
mod hook_sites;
mod hooks;
mod install;
mod purpose;
mod region;
mod view;
mod watch;

pub use code::DetourCounts;
pub(crate) use code::{Detours, Trap};
pub(crate) use config::DetourConfig;
pub use error::DetourError;
pub(crate) use hooks::Hooked;
pub(crate) use install::install;
pub(crate) use purpose::Purpose;
