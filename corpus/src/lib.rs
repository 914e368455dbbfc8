//! Inputs, mutation, scheduling, crashes and statistics of a fuzzing campaign, on LibAFL.
//! Never knows what a VM is.

#![forbid(unsafe_code)]

mod atomic;
mod coverage;
mod dictionary;
mod names;
mod schedule;
mod seeds;
mod target;

pub use atomic::WriteError;
pub use dictionary::{DictionaryError, LineProblem};
pub use seeds::{SeedsError, SkipReason};
pub use target::{CrashFacts, Run, Target, TargetError, Verdict};
