//! Inputs, mutation, scheduling, crashes and statistics of a fuzzing campaign, on LibAFL.
//! Never knows what a VM is.

#![forbid(unsafe_code)]

mod atomic;
mod coverage;
mod crash;
mod dictionary;
mod executor;
#[cfg(test)]
mod mock;
mod names;
mod out;
mod report;
mod schedule;
mod seeds;
mod stats;
mod target;

pub use atomic::WriteError;
pub use dictionary::{DictionaryError, LineProblem};
pub use out::OutError;
pub use seeds::{SeedsError, SkipReason};
pub use stats::{Event, Finding, IgnoredReason, Progress, Stats, StopReason, Summary};
pub use target::{CrashFacts, Run, Target, TargetError, Verdict};
