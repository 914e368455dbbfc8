//! What an entry's comparisons are good for: the stage of replacements at its first turn, the
//! replacements that havoc starts from at every turn, tokens for the dictionary.
//!
//! Never decides which replacements there are.

use libafl::corpus::CorpusId;

use super::error::CampaignError;
use super::findings::{Disposition, Source};
use super::state::CampaignState;
use crate::harvest;
use crate::repeat::nestings;
use crate::replacements::{Replacement, replacements};
use crate::schedule::Turn;
use crate::stats::StopReason;
use crate::target::Inputs;

/// What is for no comparison.
const NO_SITE: u32 = u32::MAX;

/// Tokens in the dictionary that nobody gave.
const TOKENS_MAX: usize = 1024;

/// What came of inputs that were to run at once.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    /// How many, from the first on, are uninteresting.
    uninteresting: usize,
    /// How many there were.
    tried: usize,
}

impl CampaignState<'_> {
    /// At its first turn, asks what the entry compares, and tries all replacements.
    pub(super) fn compare(
        &mut self,
        turn: Turn,
        parent: &[u8],
    ) -> Result<Option<StopReason>, CampaignError> {
        if !self.options.comparisons || !turn.is_first {
            return Ok(None);
        }
        let comparisons = self.executor.comparisons(parent).map_err(self.host_failed())?;
        let max_len = self.options.max_len;
        let found = replacements(parent, &comparisons, max_len, &self.sites);
        tracing::debug!(
            target: "dejavm::campaign",
            entry = self.current,
            comparisons = comparisons.len(),
            replacements = found.len(),
        );
        for comparison in &comparisons {
            tracing::trace!(target: "dejavm::campaign", "{comparison:?}");
        }
        if self.options.auto_dictionary {
            let room = TOKENS_MAX.saturating_sub(self.tokens_found);
            let added = self.queue.add_tokens(harvest::tokens(parent, &comparisons), room);
            self.tokens_found += added;
        }
        let nestings = nestings(parent, max_len).into_iter();
        let nestings = nestings.map(|edit| Replacement { site: NO_SITE, edit });
        let all: Vec<_> = found.iter().cloned().chain(nestings).collect();
        self.queue.set_edits(turn.entry, found.into_iter().map(|replacement| replacement.edit));
        self.try_all(turn.entry, parent, &all)
    }

    /// Runs every replacement once, in order, many at once where the target can.
    fn try_all(
        &mut self,
        entry: CorpusId,
        parent: &[u8],
        all: &[Replacement],
    ) -> Result<Option<StopReason>, CampaignError> {
        let mut left = all;
        let mut mutant = Vec::new();
        while !left.is_empty() {
            let Ran { uninteresting, tried } = self.run_replacements(parent, left, &mut mutant)?;
            let (ran, rest) = left.split_at(uninteresting.min(left.len()));
            ran.iter().for_each(|replacement| self.sites.tried(replacement.site));
            left = rest;
            // The next one is interesting, or one by one is the way.
            let is_alone = uninteresting < tried || tried == 0;
            if let Some((next, rest)) = left.split_first().filter(|_| is_alone) {
                next.edit.apply(parent, &mut mutant);
                self.sites.tried(next.site);
                match self.run_input(&mutant, Source::Replaced(entry))? {
                    Some(Disposition::Kept) => self.sites.found(next.site),
                    Some(Disposition::Slow | Disposition::Hang) => self.sites.was_slow(next.site),
                    _ => {}
                }
                left = rest;
            }
            if let Some(reason) = self.stop_reason()? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Runs the first of `replacements` at once, where the target can, up to the first interesting
    /// one.
    fn run_replacements(
        &mut self,
        parent: &[u8],
        replacements: &[Replacement],
        mutant: &mut Vec<u8>,
    ) -> Result<Ran, CampaignError> {
        let len = self.executor.batch_len().min(self.execs_left());
        if len < 2 {
            return Ok(Ran::default());
        }
        let mut inputs = Inputs::default();
        for replacement in replacements.iter().take(len) {
            replacement.edit.apply(parent, mutant);
            inputs.push(mutant);
        }
        let uninteresting = self.executor.run_uninteresting(&inputs);
        Ok(Ran { uninteresting: uninteresting.map_err(self.host_failed())?, tried: inputs.len() })
    }

    /// Executions until the campaign ends, at least one.
    pub(super) fn execs_left(&self) -> usize {
        let left = self.execs_end.saturating_sub(self.executor.execs).max(1);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Runs `input` by itself; what was done with it, if it is interesting.
    pub(super) fn run_input(
        &mut self,
        input: &[u8],
        source: Source<'_>,
    ) -> Result<Option<Disposition>, CampaignError> {
        let exit_kind = self.executor.run(input).map_err(self.host_failed())?;
        exit_kind.map(|exit_kind| self.judge(input, exit_kind, source)).transpose()
    }
}
