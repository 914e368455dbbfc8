//! What to do with the input of an interesting run: keep it, save it, fold it, or not believe it.
//!
//! Nothing is believed that a second run does not show. Never chooses an input.

use std::time::Duration;

use libafl::corpus::CorpusId;

use super::error::{CampaignError, library};
use super::state::{CampaignState, TIMEOUT_MAX};
use crate::atomic;
use crate::crash;
use crate::executor::{Confirmation, hang_limit};
use crate::names::{self, Moment, Operation, Origin};
use crate::out::OutError;
use crate::stats::{Event, Finding};
use crate::target::{CrashFacts, ExitKind};

/// Unique crashes saved. Where there are more, stacks do not set crashes apart.
const CRASHES_MAX: u64 = 10_000;

/// Hangs saved, as in AFL.
const HANGS_MAX: u64 = 500;

/// Inputs that are a little too slow, after which the time limit is twice as long: each of them is
/// run twice over, and what it reaches is lost.
const SLOW_MAX: u32 = 16;

/// Reasons of unsupported runs that are reported.
const REASONS_MAX: usize = 64;

/// Where an input comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    /// A seed, by its file name.
    Seed(&'a str),
    /// A mutant of a queue entry.
    Mutant(CorpusId),
    /// A queue entry with an operand of a comparison replaced.
    Replaced(CorpusId),
}

/// What was done with an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disposition {
    /// It is in the queue now.
    Kept,
    /// It is in the queue although it reaches nothing new.
    Uninteresting,
    /// It crashes.
    Crash,
    /// It reaches the time limit, and that of a hang.
    Hang,
    /// It reaches the time limit, but not that of a hang.
    Slow,
    /// A second run did not show the same.
    Unreproducible,
    /// The target cannot run it.
    Unsupported(String),
}

impl CampaignState<'_> {
    /// Decides about `input`, whose run on the fast path gave `exit_kind` and the executor's
    /// blocks.
    pub(super) fn judge(
        &mut self,
        input: &[u8],
        exit_kind: ExitKind,
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        let reported = std::mem::take(&mut self.executor.blocks);
        self.check_blocks(&reported)?;
        if exit_kind != ExitKind::Finished {
            // No entry will lead there, so a later input that does should still be noticed.
            self.executor.forget(&reported);
        }
        match exit_kind {
            ExitKind::Finished => self.finished(input, &reported, source),
            ExitKind::Crashed(facts) => self.crashed(input, &facts, source),
            ExitKind::TimedOut => self.timed_out(input, source),
            ExitKind::OutOfMemory => self.crashed(input, &CrashFacts::out_of_memory(), source),
            ExitKind::Unsupported(reason) => Ok(self.unsupported(reason)),
        }
    }

    /// Traces an input and checks what the target says.
    pub(super) fn trace(&mut self, input: &[u8]) -> Result<ExitKind, CampaignError> {
        let exit_kind = self.executor.trace(input).map_err(self.host_failed())?;
        self.check_blocks(&self.executor.blocks)?;
        Ok(exit_kind)
    }

    fn finished(
        &mut self,
        input: &[u8],
        reported: &[u32],
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        let exit_kind = self.trace(input)?;
        let blocks = std::mem::take(&mut self.executor.blocks);
        let fresh = blocks.iter().any(|&block| !self.covered.numbers().contains(block as usize));
        // The target will not report them again, whether or not they come back.
        for &block in reported {
            self.covered.insert(block);
        }
        match exit_kind {
            ExitKind::Finished if fresh || matches!(source, Source::Seed(_)) => {}
            // Seen once now, as something else.
            ExitKind::Crashed(facts) => return self.crashed(input, &facts, source),
            ExitKind::TimedOut => return self.timed_out(input, source),
            ExitKind::Finished | ExitKind::OutOfMemory | ExitKind::Unsupported(_) => {
                return Ok(self.unreproducible(Finding::Coverage));
            }
        }
        let (id, parent) = (self.next_entry, self.parent(source));
        let name = names::queue(id, self.origin(source)?, self.moment());
        atomic::write(&self.out.queue().join(name), input)?;
        self.next_entry += 1;
        self.enqueue(input, &blocks, parent, id)?;
        if !matches!(source, Source::Seed(_)) {
            self.counts.found += 1;
            self.clock.found();
        }
        Ok(if fresh { Disposition::Kept } else { Disposition::Uninteresting })
    }

    /// Adds an input that is saved with the number `id`, and was traced last, to the queue.
    pub(super) fn enqueue(
        &mut self,
        input: &[u8],
        blocks: &[u32],
        parent: Option<CorpusId>,
        id: u64,
    ) -> Result<CorpusId, CampaignError> {
        let shape = self.covered.shape();
        let mut places = Vec::with_capacity(blocks.len());
        for &block in blocks {
            self.covered.insert(block);
            places.push(shape.place_of(block));
        }
        self.executor.known(blocks);
        self.entry_ids.push(id);
        let calls = self.executor.calls();
        self.queue.add(input, &places, calls, parent).map_err(library("add an entry to the queue"))
    }

    fn crashed(
        &mut self,
        input: &[u8],
        facts: &CrashFacts,
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        // One that looks like a known crash changes nothing, so it need not be repeated.
        if self.crashes.fold(&crash::key(facts)) {
            return Ok(Disposition::Crash);
        }
        match self.executor.confirm_crash(input).map_err(self.host_failed())? {
            Confirmation::Crashes(facts) => self.save_crash(input, &facts, source),
            Confirmation::Finishes | Confirmation::Hangs | Confirmation::Unsteady => {
                Ok(self.unreproducible(Finding::Crash(facts)))
            }
        }
    }

    fn timed_out(
        &mut self,
        input: &[u8],
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        self.counts.timeouts += 1;
        // Most inputs that are over the limit once are not at a second try, and most others hang
        // where a saved one does: only a new one is given the time that it takes to be believed.
        let limit = self.executor.limit();
        let mut confirmation = self.confirm_hang(input, limit.saturating_mul(2))?;
        if confirmation == Confirmation::Finishes {
            self.was_slow();
        }
        if confirmation == Confirmation::Hangs && self.hangs_anew() {
            confirmation = self.confirm_hang(input, hang_limit(limit))?;
        }
        match confirmation {
            Confirmation::Hangs => self.save_hang(input, source),
            Confirmation::Finishes => Ok(Disposition::Slow),
            Confirmation::Crashes(facts) => self.save_crash(input, &facts, source),
            Confirmation::Unsteady => Ok(self.unreproducible(Finding::Timeout)),
        }
    }

    fn confirm_hang(
        &mut self,
        input: &[u8],
        limit: Duration,
    ) -> Result<Confirmation, CampaignError> {
        self.executor.confirm_hang(input, limit).map_err(self.host_failed())
    }

    /// Counts an input that finishes within twice the limit, and doubles it when there are many,
    /// unless the user has set it.
    fn was_slow(&mut self) {
        let timeout = self.executor.limit().saturating_mul(2).min(TIMEOUT_MAX);
        if self.options.timeout.is_some() || timeout <= self.executor.limit() {
            return;
        }
        self.counts.slow += 1;
        if self.counts.slow >= SLOW_MAX {
            self.counts.slow = 0;
            self.executor.set_limit(timeout);
            self.notify(&Event::Slowed { timeout });
        }
    }

    /// Whether the last run reached a block that no saved hang reaches.
    fn hangs_anew(&self) -> bool {
        let shape = self.covered.shape();
        let is_new = |block: &u32| !self.covered_by_hangs.contains(shape.place_of(*block) as usize);
        self.counts.hangs == 0 || self.executor.blocks.iter().any(is_new)
    }

    /// Saves a crash that is believed, unless one like it is known.
    fn save_crash(
        &mut self,
        input: &[u8],
        facts: &CrashFacts,
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        let key = crash::key(facts);
        if self.crashes.fold(&key) {
            return Ok(Disposition::Crash);
        }
        if self.crashes.unique() >= CRASHES_MAX {
            if self.counts.crashes_unsaved == 0 {
                let folder = self.out.crashes();
                self.notify(&Event::Full { folder: &folder });
            }
            self.counts.crashes_unsaved += 1;
            return Ok(Disposition::Crash);
        }
        let id = self.crashes.next_id();
        let name = names::crash(id, &key, self.origin(source)?, self.moment());
        let path = self.out.crashes().join(&name);
        atomic::write(&path, input)?;
        self.crashes.add(key, facts, name);
        self.save_crash_facts()?;
        self.clock.crashed();
        self.notify(&Event::NewCrash { path: &path, facts });
        self.new_crashes.push(path);
        Ok(Disposition::Crash)
    }

    /// Saves a hang that is believed, if it reaches a block that no saved one reaches, as AFL does.
    fn save_hang(
        &mut self,
        input: &[u8],
        source: Source<'_>,
    ) -> Result<Disposition, CampaignError> {
        let blocks = std::mem::take(&mut self.executor.blocks);
        self.check_blocks(&blocks)?;
        let mut new = self.counts.hangs == 0;
        for block in blocks {
            let place = self.covered.shape().place_of(block);
            new |= self.covered_by_hangs.insert(place as usize);
        }
        if !new || self.counts.hangs >= HANGS_MAX {
            return Ok(Disposition::Hang);
        }
        let name = names::hang(self.next_hang, self.origin(source)?, self.moment());
        let path = self.out.hangs().join(name);
        atomic::write(&path, input)?;
        self.save_hang_blocks()?;
        self.next_hang += 1;
        self.counts.hangs += 1;
        self.clock.hung();
        self.notify(&Event::NewHang { path: &path });
        Ok(Disposition::Hang)
    }

    fn save_hang_blocks(&self) -> Result<(), CampaignError> {
        let path = self.out.hang_blocks();
        let encode = |source| OutError::Encode { path: path.clone(), source };
        let json = serde_json::to_vec(&self.covered_by_hangs.to_vec()).map_err(encode)?;
        Ok(atomic::write(&path, &json)?)
    }

    fn unreproducible(&mut self, finding: Finding<'_>) -> Disposition {
        self.counts.unreproducible += 1;
        self.notify(&Event::Unreproducible { finding });
        Disposition::Unreproducible
    }

    fn unsupported(&mut self, reason: String) -> Disposition {
        self.counts.unsupported += 1;
        let reported = &mut self.unsupported_reasons;
        if reported.len() < REASONS_MAX && reported.insert(reason.clone()) {
            self.notify(&Event::Unsupported { reason: &reason });
        }
        Disposition::Unsupported(reason)
    }

    fn parent(&self, source: Source<'_>) -> Option<CorpusId> {
        match source {
            Source::Seed(_) => None,
            Source::Mutant(parent) | Source::Replaced(parent) => Some(parent),
        }
    }

    fn origin<'n>(&self, source: Source<'n>) -> Result<Origin<'n>, CampaignError> {
        Ok(match source {
            Source::Seed(name) => Origin::Seed(name),
            Source::Mutant(parent) => Origin::Entry(self.entry_id(parent)?, Operation::Havoc),
            Source::Replaced(parent) => {
                Origin::Entry(self.entry_id(parent)?, Operation::InputToState)
            }
        })
    }

    fn moment(&self) -> Moment {
        Moment { time: self.clock.run_time(), execs: self.executor.execs }
    }
}
