//! Why a campaign cannot start or go on. What an input does is never an error.

use std::path::PathBuf;

use crate::atomic::WriteError;
use crate::dictionary::DictionaryError;
use crate::out::OutError;
use crate::seeds::{SeedsError, SkipReason};
use crate::target::TargetError;

/// A campaign could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The output folder could not be used.
    #[error(transparent)]
    Out(#[from] OutError),
    /// The folder of seeds could not be read.
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    /// A dictionary could not be used.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// No input may have any byte.
    #[error("the longest input allowed is 0 bytes")]
    MaxLenZero,
    /// A run may take no time.
    #[error("the time limit of a run is zero")]
    TimeoutZero,
    /// There is no seed to start from.
    #[error("no usable seed in {path}: it holds no file")]
    NoSeed {
        /// The folder of seeds.
        path: PathBuf,
    },
    /// No seed can be started from.
    #[error("no usable seed in {path}: {name}")]
    NoUsableSeed {
        /// The folder of seeds.
        path: PathBuf,
        /// File name of the first of them.
        name: String,
        /// What is wrong with that one.
        source: SkipReason,
    },
    /// There is nothing to go on with.
    #[error("{path} holds no queue to resume, and no folder of seeds was given")]
    NothingToResume {
        /// The output folder.
        path: PathBuf,
    },
    /// The host failed to run an input.
    #[error("run an input on the target (execution {execs})")]
    Target {
        /// Number of the execution.
        execs: u64,
        /// What the target said.
        source: TargetError,
    },
    /// The target reported a block that it does not have.
    #[error("the target reported block {block}, but has {total} blocks")]
    BlockOutOfRange {
        /// The block.
        block: u32,
        /// Number of blocks it has.
        total: usize,
    },
    /// This crate is wrong about itself.
    #[error("an invariant of the campaign is broken: {0}")]
    Invariant(&'static str),
    /// LibAFL failed.
    #[error("{operation} (LibAFL)")]
    Library {
        /// What it was asked to do.
        operation: &'static str,
        /// What it said.
        source: Box<libafl::Error>,
    },
}

impl From<WriteError> for CampaignError {
    fn from(error: WriteError) -> Self {
        Self::Out(error.into())
    }
}

/// Names what LibAFL was asked to do when it failed.
pub(super) fn library(operation: &'static str) -> impl FnOnce(libafl::Error) -> CampaignError {
    move |source| CampaignError::Library { operation, source: Box::new(source) }
}
