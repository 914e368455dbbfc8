//! Inputs, mutation, scheduling, crashes and statistics of a fuzzing campaign, on LibAFL.
//! Never knows what a VM is.

#![forbid(unsafe_code)]

mod target;

pub use target::{CrashFacts, Run, Target, TargetError, Verdict};
