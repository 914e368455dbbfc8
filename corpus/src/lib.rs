//! Inputs, mutation, scheduling, crashes and statistics of a fuzzing campaign, on LibAFL.
//!
//! A [`Campaign`] drives a [`Target`]: it chooses inputs, repeats what looks like a finding, folds
//! crashes that are the same, and keeps everything in a folder that AFL's tools understand. It
//! tells a [`Progress`] how it goes. Never knows what a VM is.

#![forbid(unsafe_code)]

mod atomic;
mod campaign;
mod chain;
mod comparison;
mod coverage;
mod crash;
mod dictionary;
mod edit;
mod executor;
mod harvest;
mod joins;
#[cfg(test)]
mod mock;
mod mutator;
mod names;
mod out;
mod recorded;
mod repeat;
mod replacements;
mod report;
mod schedule;
mod seeds;
mod stats;
mod target;

pub use atomic::{WriteError, write as write_atomically};
pub use campaign::{Campaign, CampaignError, DEFAULT_MAX_LEN, Options};
pub use chain::ErrorChain;
pub use comparison::{Comparison, ComparisonKind};
pub use dictionary::{DictionaryError, LineProblem};
pub use executor::hang_limit;
pub use mutator::{Choices, CustomMutator};
pub use out::OutError;
pub use recorded::Recorded;
pub use seeds::{SeedsError, SkipReason};
pub use stats::{Event, Finding, IgnoredReason, Progress, Stats, StopReason, Summary};
pub use target::{
    CrashFacts, Execution, ExitKind, Inputs, Shape, Target, TargetError, Uninteresting,
};
