//! A campaign that runs: what it holds, its numbers, and when it stops.
//!
//! Never chooses an input, and never decides what a finding is.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use libafl::corpus::CorpusId;

use super::batch::MutantBatch;
use super::clock::{Clock, Due, unix_now};
use super::error::CampaignError;
use super::options::Options;
use crate::atomic;
use crate::coverage::{BlockSet, Reached};
use crate::crash::CrashBook;
use crate::executor::Executor;
use crate::out::{OutError, OutFolder};
use crate::replacements::Sites;
use crate::report::{self, Earlier, StatsFrame};
use crate::schedule::Queue;
use crate::stats::{Event, Progress, Stats, StopReason};
use crate::target::TargetError;

/// Time limit of a run as long as there is no other, and the highest one that is found out.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Counts that nothing else holds.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Queue entries that are no seeds.
    pub(super) found: u64,
    pub(super) hangs: u64,
    pub(super) timeouts: u64,
    /// Of those, since the limit was set, the inputs that finish within twice as long.
    pub(super) slow: u32,
    pub(super) unreproducible: u64,
    pub(super) unsupported: u64,
    /// New crashes that were not saved because there are too many.
    pub(super) crashes_unsaved: u64,
}

/// A campaign that runs.
pub(super) struct CampaignState<'a> {
    pub(super) options: &'a Options,
    pub(super) out: &'a mut OutFolder,
    pub(super) progress: &'a mut dyn Progress,
    pub(super) executor: Executor<'a>,
    pub(super) queue: Queue,
    /// Number, in its file name, of each queue entry.
    pub(super) entry_ids: Vec<u64>,
    /// Number of the next queue entry.
    pub(super) next_entry: u64,
    /// Number of the entry whose turn it is.
    pub(super) current: u64,
    /// What the queue reaches.
    pub(super) covered: Reached,
    /// Blocks that saved hangs reach.
    pub(super) covered_by_hangs: BlockSet,
    pub(super) next_hang: u64,
    pub(super) crashes: CrashBook,
    pub(super) new_crashes: Vec<PathBuf>,
    pub(super) counts: Counts,
    /// What unsupported runs needed, as far as it was reported.
    pub(super) unsupported_reasons: BTreeSet<String>,
    pub(super) clock: Clock,
    /// Executions at which to stop; none while the queue is loaded.
    pub(super) execs_end: u64,
    pub(super) batch: MutantBatch,
    /// What became of replacements.
    pub(super) sites: Sites,
    /// Tokens that came from comparisons.
    pub(super) tokens_found: usize,
    pub(super) earlier: Earlier,
    pub(super) rng_seed: u64,
}

impl CampaignState<'_> {
    /// Tells people, and the log, that something happened.
    pub(super) fn notify(&mut self, event: &Event<'_>) {
        tracing::debug!(target: "dejavm::campaign", "{event}");
        self.progress.event(event);
    }

    /// Checks the blocks of the last run.
    pub(super) fn check_blocks(&self, blocks: &[u32]) -> Result<(), CampaignError> {
        let numbers = self.covered.numbers();
        let total = numbers.total();
        match numbers.foreign(blocks) {
            Some(block) => Err(CampaignError::BlockOutOfRange { block, total }),
            None => Ok(()),
        }
    }

    /// Says which execution a target failed at.
    pub(super) fn host_failed(&self) -> impl FnOnce(TargetError) -> CampaignError + use<> {
        let execs = self.executor.execs;
        move |source| CampaignError::Target { execs, source }
    }

    /// Number, in its file name, of a queue entry.
    pub(super) fn entry_id(&self, entry: CorpusId) -> Result<u64, CampaignError> {
        let id = self.entry_ids.get(entry.0).copied();
        id.ok_or(CampaignError::Invariant("each queue entry has a file of its own"))
    }

    /// Asked after each run: whether to stop, and why.
    pub(super) fn stop_reason(&mut self) -> Result<Option<StopReason>, CampaignError> {
        let reason = self.stop_at_once();
        if reason.is_some() || !self.clock.watch(self.executor.last) {
            return Ok(reason);
        }
        self.on_tick()
    }

    fn stop_at_once(&self) -> Option<StopReason> {
        if self.options.until_crash && !self.new_crashes.is_empty() {
            return Some(StopReason::Crash);
        }
        if self.executor.execs >= self.execs_end {
            return Some(StopReason::Executions);
        }
        self.options.stop.load(Ordering::Relaxed).then_some(StopReason::Requested)
    }

    /// Reads the clock and does what is due.
    pub(super) fn on_tick(&mut self) -> Result<Option<StopReason>, CampaignError> {
        let Due { update, save, end } = self.clock.tick();
        if update {
            let stats = self.stats();
            self.progress.update(&stats);
        }
        if save {
            self.save_numbers()?;
        }
        Ok(self.stop_at_once().or(end.then_some(StopReason::Duration)))
    }

    /// The numbers now.
    pub(super) fn stats(&mut self) -> Stats {
        let now = unix_now();
        let age = |at: u64| (at > 0).then(|| Duration::from_secs(now.saturating_sub(at)));
        let rates = self.clock.rates(self.executor.execs);
        let queue = self.queue.counts();
        Stats {
            run_time: self.clock.run_time(),
            execs: self.executor.execs,
            execs_per_sec: rates.overall,
            execs_per_sec_recent: rates.recent,
            corpus: self.queue.len(),
            corpus_found: self.counts.found,
            favoured: queue.favoured,
            pending: queue.pending,
            pending_favoured: queue.pending_favoured,
            depth: queue.depth,
            current: self.current,
            cycles: self.earlier.cycles + self.queue.cycles(),
            blocks_reached: self.covered.blocks(),
            blocks_total: self.covered.shape().blocks,
            edges_reached: self.covered.edges(),
            edges_total: self.covered.shape().edges,
            crashes_unique: self.crashes.unique(),
            crashes_total: self.crashes.total().saturating_add(self.counts.crashes_unsaved),
            hangs_unique: self.counts.hangs,
            timeouts_total: self.counts.timeouts,
            unreproducible: self.counts.unreproducible,
            unsupported: self.counts.unsupported,
            last_find: age(self.clock.last_find),
            last_crash: age(self.clock.last_crash),
            last_hang: age(self.clock.last_hang),
            timeout: self.executor.limit(),
            slowest: self.executor.slowest,
            exits_per_run: self.executor.exits_per_run(),
        }
    }

    /// Writes the numbers to the output folder.
    pub(super) fn save_numbers(&mut self) -> Result<(), CampaignError> {
        let stats = self.stats();
        let frame = StatsFrame {
            now: unix_now(),
            rng_seed: self.rng_seed,
            target_mode: &self.options.target_mode,
            banner: &self.options.banner,
            command_line: &self.options.command_line,
        };
        let text = report::fuzzer_stats(&stats, frame);
        atomic::write(&self.out.fuzzer_stats(), text.as_bytes())?;
        if self.crashes.unique() > 0 {
            self.save_crash_facts()?;
        }
        Ok(self.out.plot(&report::plot_line(&stats))?)
    }

    /// Writes what is known of each crash to the output folder.
    pub(super) fn save_crash_facts(&self) -> Result<(), CampaignError> {
        let path = self.out.crash_facts();
        let encode = |source| OutError::Encode { path: path.clone(), source };
        let json = self.crashes.to_json().map_err(encode)?;
        Ok(atomic::write(&path, &json)?)
    }
}
