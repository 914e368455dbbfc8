//! A campaign, from seeds to summary.
//!
//! LibAFL's pieces choose and mutate ([`schedule`](crate::schedule)); the loop around them is ours,
//! because a target's findings are confirmed, folded and saved in ways that LibAFL's fuzzer has no
//! place for. Nothing that a clock says changes which inputs run, or their order; only whether an
//! input reaches the time limit is up to the clock.
//!
//! `state` holds what a campaign is made of; `findings`, `compare`, `start` and `fuzz` act on it, each
//! only on what stands before it here.

mod batch;
mod clock;
mod compare;
mod error;
mod findings;
mod fuzz;
mod options;
mod start;
mod state;
#[cfg(test)]
mod tests;

pub use error::CampaignError;
pub use options::{DEFAULT_MAX_LEN, Options};

use libafl::mutators::Tokens;

use crate::dictionary;
use crate::mutator::CustomMutator;
use crate::out::OutFolder;
use crate::report;
use crate::seeds::{self, Seeds};
use crate::stats::{Progress, Summary};
use crate::target::Target;
use state::CampaignState;

/// A campaign that is ready to run: its output folder is locked, its seeds and dictionaries read.
#[derive(Debug)]
pub struct Campaign {
    options: Options,
    out: OutFolder,
    seeds: Seeds,
    tokens: Tokens,
    mutator: Option<Box<dyn CustomMutator>>,
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
        Ok(Self { options, out, seeds, tokens, mutator: None })
    }

    /// Has a share of the mutants made by `mutator`, and the others by LibAFL's havoc.
    pub fn set_mutator(&mut self, mutator: Box<dyn CustomMutator>) {
        self.mutator = Some(mutator);
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
        let mut state = CampaignState::new(&self.options, &mut self.out, tokens, target, progress)?;
        state.queue.set_mutator(self.mutator.take());
        let reason = state.start(seeds).and_then(|stop| match stop {
            Some(reason) => Ok(reason),
            None => state.fuzz(),
        });
        // Numbers are worth keeping after a failure too; the failure is what gets reported.
        let saved = state.save_numbers();
        let stats = state.stats();
        state.progress.update(&stats);
        let reason = reason?;
        saved?;
        let (seed, new_crashes) = (state.rng_seed, state.new_crashes);
        Ok(Summary { reason, seed, stats, new_crashes })
    }
}
