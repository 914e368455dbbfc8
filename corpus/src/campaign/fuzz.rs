//! The loop of a campaign: an entry's turn, its mutants, their runs.
//!
//! A run that finds nothing costs no allocation, no file and no clock. Never decides what a finding
//! is.

use libafl::corpus::CorpusId;
use libafl::inputs::{BytesInput, HasMutatorBytes};

use super::batch::Mark;
use super::error::{CampaignError, library};
use super::findings::Source;
use super::state::CampaignState;
use crate::schedule::Turn;
use crate::stats::StopReason;

impl CampaignState<'_> {
    /// Takes turns until something stops the campaign.
    pub(super) fn fuzz(&mut self) -> Result<StopReason, CampaignError> {
        if let Some(executions) = self.options.executions {
            self.execs_end = self.executor.execs.saturating_add(executions);
        }
        let mut parent = Vec::new();
        let mut mutant = BytesInput::new(Vec::new());
        loop {
            // A turn whose mutants all come out unchanged makes no run, so ask here too.
            if let Some(reason) = self.on_tick()? {
                return Ok(reason);
            }
            let turn = self.queue.next().map_err(library("choose an entry of the queue"))?;
            self.current = self.entry_id(turn.entry)?;
            let load = self.queue.load(turn.entry, &mut parent);
            load.map_err(library("load an entry of the queue"))?;
            if let Some(reason) = self.compare(turn, &parent)? {
                return Ok(reason);
            }
            if let Some(reason) = self.take_turn(turn, &parent, &mut mutant)? {
                return Ok(reason);
            }
        }
    }

    /// Runs the mutants of one turn, many at once where the target can.
    ///
    /// The same mutants run in the same order however many the target is given at once: those
    /// after an interesting one are made anew.
    fn take_turn(
        &mut self,
        turn: Turn,
        parent: &[u8],
        mutant: &mut BytesInput,
    ) -> Result<Option<StopReason>, CampaignError> {
        let mut left = turn.energy;
        while left > 0 {
            let len = self.executor.batch_len();
            left = if len > 1 {
                self.run_batch(turn.entry, parent, mutant, left, len)?
            } else {
                if self.make(parent, mutant)? {
                    self.run_mutant(mutant.mutator_bytes(), turn.entry)?;
                }
                left - 1
            };
            if let Some(reason) = self.stop_reason()? {
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Makes a mutant; false if it came out unchanged.
    fn make(&mut self, parent: &[u8], mutant: &mut BytesInput) -> Result<bool, CampaignError> {
        self.queue.mutate(parent, mutant).map_err(library("mutate an input"))
    }

    /// Makes at most `len` mutants in at most `left` tries and runs them up to the first
    /// interesting one, which is judged. How many tries are left.
    fn run_batch(
        &mut self,
        entry: CorpusId,
        parent: &[u8],
        mutant: &mut BytesInput,
        mut left: usize,
        len: usize,
    ) -> Result<usize, CampaignError> {
        let len = len.min(self.execs_left());
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        while left > 0 && batch.has_room(len) {
            left -= 1;
            if self.make(parent, mutant)? {
                let mark = Mark { rng: self.queue.rng_checkpoint(), tries_left: left };
                batch.push(mutant.mutator_bytes(), mark);
            }
        }
        let uninteresting = self.executor.run_uninteresting(batch.inputs());
        let uninteresting = uninteresting.map_err(self.host_failed())?;
        if let Some((interesting, mark)) = batch.get(uninteresting) {
            self.queue.restore(mark.rng);
            left = mark.tries_left;
            self.run_mutant(interesting, entry)?;
        }
        self.batch = batch;
        Ok(left)
    }

    fn run_mutant(&mut self, input: &[u8], parent: CorpusId) -> Result<(), CampaignError> {
        self.run_input(input, Source::Mutant(parent))?;
        Ok(())
    }
}
