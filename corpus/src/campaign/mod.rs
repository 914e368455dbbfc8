//! A campaign: its options, its life from seeds to summary, and why it can fail.
//!
//! LibAFL's pieces choose and mutate ([`schedule`](crate::schedule)); the loop around them is ours,
//! because a target's findings are confirmed, folded and saved in ways that LibAFL's fuzzer has no
//! place for. Nothing that a clock says changes which inputs run, or their order; only whether an
//! input reaches the time limit is up to the clock.

mod findings;
mod fuzz;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use libafl::mutators::Tokens;

use crate::coverage::BlockSet;
use crate::crash::CrashBook;
use crate::dictionary::{self, DictionaryError};
use crate::executor::Executor;
use crate::out::{OutError, OutFolder};
use crate::report;
use crate::schedule::Queue;
use crate::seeds::{self, Seeds, SeedsError};
use crate::stats::{Event, Progress, Summary};
use crate::target::{Target, TargetError};

use fuzz::{Batch, Pace};

/// Longest input, in bytes, unless asked otherwise; AFL's limit.
pub const DEFAULT_MAX_LEN: usize = 1 << 20;

/// What a campaign is asked to do. The letters are AFL's.
#[derive(Debug, Clone)]
pub struct Options {
    /// `-i`: folder of seeds. Needed unless the output folder holds a campaign to go on with.
    pub input: Option<PathBuf>,
    /// `-o`: output folder; created if missing, gone on with if it holds a campaign.
    pub output: PathBuf,
    /// `-x`: dictionaries.
    pub dictionaries: Vec<PathBuf>,
    /// `-t`: time limit of one run. `None` takes five times the slowest seed, in steps of 20 ms,
    /// from 20 ms to 1 s.
    pub timeout: Option<Duration>,
    /// `-V`: stop after this time, counted from this start.
    pub duration: Option<Duration>,
    /// `-E`: stop after this many executions, counted from the moment the queue is loaded. The
    /// campaign may make a few more to confirm what the last one found.
    pub executions: Option<u64>,
    /// `-s`: seed of the random numbers. `None` takes a random one.
    pub seed: Option<u64>,
    /// Stop at the first new crash.
    pub until_crash: bool,
    /// Longest input, in bytes. Longer seeds are skipped, longer mutants are never made.
    pub max_len: usize,
    /// Stops the campaign once true; set it on Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// What the target is, for `fuzzer_stats`.
    pub target_mode: String,
    /// Name of the target, for `fuzzer_stats`.
    pub banner: String,
    /// The command, for `fuzzer_stats`.
    pub command_line: String,
}

impl Options {
    /// A campaign from the seeds in `input` to the folder `output`, without end.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: Some(input.into()),
            output: output.into(),
            dictionaries: Vec::new(),
            timeout: None,
            duration: None,
            executions: None,
            seed: None,
            until_crash: false,
            max_len: DEFAULT_MAX_LEN,
            stop: Arc::default(),
            target_mode: String::new(),
            banner: String::new(),
            command_line: String::new(),
        }
    }
}

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
    /// There is nothing to start from.
    #[error("no usable seed in {path}: {why}")]
    NoUsableSeed {
        /// The folder of seeds.
        path: PathBuf,
        /// What is wrong with the first of them, or that there is none.
        why: String,
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
    /// LibAFL failed.
    #[error("{operation} (LibAFL)")]
    Library {
        /// What it was asked to do.
        operation: &'static str,
        /// What it said.
        source: Box<libafl::Error>,
    },
}

impl From<crate::atomic::WriteError> for CampaignError {
    fn from(error: crate::atomic::WriteError) -> Self {
        Self::Out(error.into())
    }
}

/// Names what LibAFL was asked to do when it failed.
fn library(operation: &'static str) -> impl FnOnce(libafl::Error) -> CampaignError {
    move |source| CampaignError::Library { operation, source: Box::new(source) }
}

/// A campaign that is ready to run: its output folder is locked, its seeds and dictionaries read.
#[derive(Debug)]
pub struct Campaign {
    options: Options,
    out: OutFolder,
    seeds: Seeds,
    tokens: Tokens,
}

impl Campaign {
    /// Reads everything that a campaign needs, and locks its output folder.
    ///
    /// # Errors
    ///
    /// An option makes no sense, a folder or a dictionary cannot be used, or the output folder
    /// belongs to something else.
    pub fn new(options: Options) -> Result<Self, CampaignError> {
        if options.max_len == 0 {
            return Err(CampaignError::MaxLenZero);
        }
        if options.timeout.is_some_and(|limit| limit.is_zero()) {
            return Err(CampaignError::TimeoutZero);
        }
        let tokens = dictionary::read(&options.dictionaries)?;
        let seeds = match &options.input {
            Some(folder) => seeds::read(folder, options.max_len)?,
            None => Seeds::default(),
        };
        let out = OutFolder::open(&options.output, report::PLOT_HEADER)?;
        Ok(Self { options, out, seeds, tokens })
    }

    /// Runs the campaign on `target` until something stops it.
    ///
    /// # Errors
    ///
    /// The host failed: at running an input, or at the output folder. What was found before is
    /// saved.
    pub fn run(
        mut self,
        target: &mut dyn Target,
        progress: &mut dyn Progress,
    ) -> Result<Summary, CampaignError> {
        let seeds = std::mem::take(&mut self.seeds);
        let tokens = std::mem::take(&mut self.tokens);
        let mut live = Live::new(&self.options, &mut self.out, tokens, target, progress)?;
        let reason = live.start(seeds).and_then(|stop| match stop {
            Some(reason) => Ok(reason),
            None => live.fuzz(),
        });
        // Numbers are worth keeping after a failure too; the failure is what gets reported.
        let saved = live.save_numbers();
        let stats = live.snapshot();
        live.progress.update(&stats);
        let reason = reason?;
        saved?;
        let (seed, new_crashes) = (live.rng_seed, live.new_crashes);
        Ok(Summary { reason, seed, stats, new_crashes })
    }
}

/// Counts that nothing else holds.
#[derive(Debug, Default)]
struct Counts {
    /// Queue entries that are no seeds.
    found: u64,
    hangs: u64,
    timeouts: u64,
    unreproducible: u64,
    unsupported: u64,
    /// New crashes that were not saved because there are too many.
    crashes_unsaved: u64,
}

/// A campaign that runs.
struct Live<'a> {
    options: &'a Options,
    out: &'a mut OutFolder,
    progress: &'a mut dyn Progress,
    executor: Executor<'a>,
    queue: Queue,
    /// Number, in its file name, of each queue entry.
    entry_ids: Vec<u64>,
    /// Number of the next queue entry.
    next_entry: u64,
    /// Number of the entry whose turn it is.
    current: u64,
    /// Blocks that the queue reaches.
    covered: BlockSet,
    /// Blocks that saved hangs reach.
    covered_by_hangs: BlockSet,
    next_hang: u64,
    crashes: CrashBook,
    new_crashes: Vec<PathBuf>,
    counts: Counts,
    /// Unsupported things that were told.
    told: BTreeSet<String>,
    pace: Pace,
    batch: Batch,
    earlier: report::Earlier,
    rng_seed: u64,
}

impl Live<'_> {
    /// Tells people, and the log, that something happened.
    fn tell(&mut self, event: &Event<'_>) {
        tracing::debug!(target: "dejavm::campaign", "{event}");
        self.progress.event(event);
    }

    /// Checks the blocks of the last run.
    fn check_blocks(&self, blocks: &[u32]) -> Result<(), CampaignError> {
        let total = self.covered.total();
        match self.covered.foreign(blocks) {
            Some(block) => Err(CampaignError::BlockOutOfRange { block, total }),
            None => Ok(()),
        }
    }

    /// Says which execution a target failed at.
    fn host_failed(&self) -> impl FnOnce(TargetError) -> CampaignError + use<> {
        let execs = self.executor.execs;
        move |source| CampaignError::Target { execs, source }
    }
}
