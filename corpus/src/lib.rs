//! Inputs, mutation, scheduling, crashes and statistics of a fuzzing campaign, on LibAFL.
//!
//! A [`Campaign`] drives a [`Target`]: it chooses inputs, repeats what looks like a finding, folds
//! crashes that are the same, and keeps everything in a folder that AFL's tools understand. It
//! tells a [`Progress`] how it goes. Never knows what a VM is.

#![forbid(unsafe_code)]

mod atomic;
mod campaign;
mod chain;
mod coverage;
mod crash;
mod dictionary;
mod executor;
#[cfg(test)]
mod mock;
mod mutator;
mod names;
mod out;
mod recorded;
mod report;
mod schedule;
mod seeds;
mod stats;
mod target;

pub use atomic::{WriteError, write as write_atomically};
pub use campaign::{Campaign, CampaignError, DEFAULT_MAX_LEN, Options};
pub use chain::ErrorChain;
pub use dictionary::{DictionaryError, LineProblem};
pub use executor::hang_limit;
pub use mutator::{Choices, CustomMutator};
pub use out::OutError;
pub use recorded::Recorded;
pub use seeds::{SeedsError, SkipReason};
pub use stats::{Event, Finding, IgnoredReason, Progress, Stats, StopReason, Summary};
pub use target::{CrashFacts, Execution, ExitKind, Inputs, Target, TargetError, Uninteresting};
