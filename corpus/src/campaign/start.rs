//! The start of a campaign: what the output folder holds already, the seeds, the time limit.
//!
//! A file that cannot be used is reported and passed over. Never mutates anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use libafl::mutators::Tokens;
use libafl_bolts::rands::random_seed;

use super::batch::MutantBatch;
use super::clock::Clock;
use super::error::{CampaignError, library};
use super::findings::{Disposition, Source};
use super::options::Options;
use super::state::{CampaignState, Counts, TIMEOUT_MAX};
use crate::coverage::{BlockSet, Reached};
use crate::crash::{CrashBook, ReadBook};
use crate::executor::Executor;
use crate::out::{self, OutFolder, Stored};
use crate::replacements::Sites;
use crate::report;
use crate::schedule::Queue;
use crate::seeds::{self, Seed, Seeds, SkipReason, SkippedSeed};
use crate::stats::{Event, IgnoredReason, Progress, StopReason};
use crate::target::{ExitKind, Target};

/// How many times as long as the slowest seed a run may take, as in AFL.
const TIMEOUT_FACTOR: u64 = 5;

/// Steps of a time limit taken from the seeds, and the least one.
const TIMEOUT_STEP_MS: u64 = 20;

/// Spreads the bits of a number: 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// Takes a time limit from the slowest seed.
fn limit_from(slowest: Duration) -> Duration {
    let slowest_ms = slowest.min(TIMEOUT_MAX).as_millis() as u64;
    let steps = (slowest_ms * TIMEOUT_FACTOR).div_ceil(TIMEOUT_STEP_MS).max(1);
    Duration::from_millis(steps * TIMEOUT_STEP_MS).min(TIMEOUT_MAX)
}

impl<'a> CampaignState<'a> {
    /// A campaign with an empty queue, and with the counts that the output folder holds.
    pub(super) fn new(
        options: &'a Options,
        out: &'a mut OutFolder,
        tokens: Tokens,
        target: &'a mut dyn Target,
        progress: &'a mut dyn Progress,
    ) -> Result<Self, CampaignError> {
        let stats = out::read_if_exists(&out.fuzzer_stats())?;
        let earlier = stats.as_deref().map(|text| report::parse(&String::from_utf8_lossy(text)));
        let damaged = matches!(earlier, Some(None));
        let mut earlier = earlier.flatten().unwrap_or_default();
        if earlier.timeout >= TIMEOUT_MAX && options.timeout.is_none() {
            // Perhaps only the limit before calibration, of a campaign stopped during its start.
            earlier.timeout = Duration::ZERO;
        }
        let rng_seed = options.seed.unwrap_or_else(random_seed);
        // A resumed campaign must not make the same mutants once more.
        let mixed = rng_seed ^ earlier.execs.wrapping_mul(GOLDEN_RATIO);
        let (blocks_total, shape) = (target.blocks_total(), target.shape());
        let queue = Queue::new(mixed, options.max_len, tokens, shape.places())
            .map_err(library("create the queue"))?;
        let limit = options.timeout.or(Some(earlier.timeout).filter(|limit| !limit.is_zero()));
        let executor = Executor::new(target, limit.unwrap_or(TIMEOUT_MAX), earlier.execs);
        let counts = Counts {
            timeouts: earlier.timeouts,
            unreproducible: earlier.unreproducible,
            unsupported: earlier.unsupported,
            ..Counts::default()
        };
        let mut state = Self {
            options,
            out,
            progress,
            executor,
            queue,
            entry_ids: Vec::new(),
            next_entry: 0,
            current: 0,
            covered: Reached::new(blocks_total, shape),
            covered_by_hangs: BlockSet::new(shape.places()),
            next_hang: 0,
            crashes: CrashBook::default(),
            new_crashes: Vec::new(),
            batch: MutantBatch::default(),
            sites: Sites::default(),
            tokens_found: 0,
            counts,
            unsupported_reasons: BTreeSet::new(),
            clock: Clock::new(options.duration, &earlier),
            execs_end: u64::MAX,
            earlier,
            rng_seed,
        };
        state.notify(&Event::Started { seed: rng_seed });
        if damaged {
            let path = state.out.fuzzer_stats();
            state.notify(&Event::Ignored { path: &path, reason: IgnoredReason::Damaged });
        }
        Ok(state)
    }

    /// Fills the queue: from the output folder, then from the seeds. Says if it was stopped.
    pub(super) fn start(&mut self, seeds: Seeds) -> Result<Option<StopReason>, CampaignError> {
        for folder in std::mem::take(&mut self.out.cleaned) {
            self.notify(&Event::LeftoverRemoved { folder: &folder });
        }
        self.load_crashes()?;
        self.load_hangs()?;
        let calibrate = self.options.timeout.is_none() && self.earlier.timeout.is_zero();
        let mut start =
            Start { calibrate, slowest: Duration::ZERO, seen: BTreeMap::new(), skipped: None };
        if let Some(reason) = self.load_queue(&mut start)? {
            return Ok(Some(reason));
        }
        let (entries, crashes) = (self.queue.len(), self.crashes.unique());
        if entries > 0 {
            self.notify(&Event::Resumed { entries, crashes, hangs: self.counts.hangs });
        }
        if let Some(reason) = self.load_seeds(seeds, &mut start)? {
            return Ok(Some(reason));
        }
        if self.queue.len() == 0 {
            return Err(match &self.options.input {
                Some(folder) => start.nothing_usable(folder),
                None => CampaignError::NothingToResume { path: self.options.output.clone() },
            });
        }
        if calibrate {
            let timeout = limit_from(start.slowest);
            self.executor.set_limit(timeout);
            self.notify(&Event::Calibrated { timeout, slowest: start.slowest });
        }
        self.save_numbers()?;
        Ok(None)
    }

    fn load_crashes(&mut self) -> Result<(), CampaignError> {
        let listing = out::list(&self.out.crashes())?;
        self.report_foreign(&listing);
        let facts = self.out.crash_facts();
        let json = out::read_if_exists(&facts)?;
        let ReadBook { book, is_damaged } = CrashBook::read(json.as_deref(), &listing.stored);
        self.crashes = book;
        if is_damaged {
            self.notify(&Event::Ignored { path: &facts, reason: IgnoredReason::Damaged });
        }
        Ok(())
    }

    fn load_hangs(&mut self) -> Result<(), CampaignError> {
        let listing = out::list(&self.out.hangs())?;
        self.report_foreign(&listing);
        self.counts.hangs = listing.stored.len() as u64;
        let last = listing.stored.last().map(|stored| stored.parsed.id);
        self.next_hang = last.map_or(0, |id| id.saturating_add(1));
        let path = self.out.hang_blocks();
        let Some(json) = out::read_if_exists(&path)? else { return Ok(()) };
        match serde_json::from_slice::<Vec<usize>>(&json) {
            Ok(blocks) => {
                for block in blocks {
                    self.covered_by_hangs.insert(block);
                }
            }
            Err(_) => self.notify(&Event::Ignored { path: &path, reason: IgnoredReason::Damaged }),
        }
        Ok(())
    }

    fn report_foreign(&mut self, listing: &out::Listing) {
        for path in &listing.foreign {
            self.notify(&Event::Ignored { path, reason: IgnoredReason::ForeignName });
        }
    }

    /// Reads the queue back and traces each entry, since no file says what it reaches.
    fn load_queue(&mut self, start: &mut Start) -> Result<Option<StopReason>, CampaignError> {
        let listing = out::list(&self.out.queue())?;
        self.report_foreign(&listing);
        // All numbers in use are known before anything can be added.
        let last = listing.stored.last().map(|stored| stored.parsed.id);
        self.next_entry = last.map_or(0, |id| id.saturating_add(1));
        let mut loaded = HashMap::new();
        for stored in listing.stored {
            if let Some(reason) = self.stop_reason()? {
                return Ok(Some(reason));
            }
            match seeds::read_input(&stored.path, self.options.max_len) {
                Ok(bytes) => self.load_entry(stored, bytes, &mut loaded, start)?,
                Err(reason) => {
                    let reason = IgnoredReason::Unusable(&reason);
                    self.notify(&Event::Ignored { path: &stored.path, reason });
                }
            }
        }
        Ok(None)
    }

    fn load_entry(
        &mut self,
        stored: Stored,
        bytes: Vec<u8>,
        loaded: &mut HashMap<u64, libafl::corpus::CorpusId>,
        start: &mut Start,
    ) -> Result<(), CampaignError> {
        if self.trace(&bytes)? != ExitKind::Finished {
            let reason = IgnoredReason::NoLongerFinishes;
            self.notify(&Event::Ignored { path: &stored.path, reason });
            return Ok(());
        }
        let parent = stored.parsed.src.and_then(|src| loaded.get(&src).copied());
        let blocks = std::mem::take(&mut self.executor.blocks);
        let id = self.enqueue(&bytes, &blocks, parent, stored.parsed.id)?;
        loaded.insert(stored.parsed.id, id);
        self.counts.found += u64::from(!stored.parsed.seed);
        self.time(&bytes, start)?;
        start.seen.insert(bytes, Seen::InQueue);
        Ok(())
    }

    fn load_seeds(
        &mut self,
        seeds: Seeds,
        start: &mut Start,
    ) -> Result<Option<StopReason>, CampaignError> {
        for skipped in seeds.skipped {
            self.skip_seed(start, skipped);
        }
        for seed in seeds.usable {
            if let Some(reason) = self.stop_reason()? {
                return Ok(Some(reason));
            }
            // A seed that an earlier start put into the queue is no news; the same seed twice is.
            if start.seen.get(&seed.bytes) == Some(&Seen::InQueue) {
                continue;
            }
            if let Some(reason) = self.load_seed(&seed, start)? {
                self.skip_seed(start, SkippedSeed { path: seed.path, reason });
            }
        }
        Ok(None)
    }

    fn skip_seed(&mut self, start: &mut Start, skipped: SkippedSeed) {
        let SkippedSeed { path, reason } = &skipped;
        self.notify(&Event::SeedSkipped { path, reason });
        start.skipped.get_or_insert(skipped);
    }

    /// Runs a seed like any other input, but keeps it even if it reaches nothing new: crossover
    /// has use for it.
    fn load_seed(
        &mut self,
        seed: &Seed,
        start: &mut Start,
    ) -> Result<Option<SkipReason>, CampaignError> {
        if start.seen.insert(seed.bytes.clone(), Seen::AsSeed).is_some() {
            return Ok(Some(SkipReason::Duplicate));
        }
        self.executor.blocks.clear();
        let exit_kind = self.executor.run(&seed.bytes).map_err(self.host_failed())?;
        // A run that says nothing has finished.
        let exit_kind = exit_kind.unwrap_or(ExitKind::Finished);
        Ok(match self.judge(&seed.bytes, exit_kind, Source::Seed(&seed.name))? {
            Disposition::Kept | Disposition::Uninteresting => {
                self.time(&seed.bytes, start)?;
                None
            }
            Disposition::Crash => Some(SkipReason::Crashes),
            Disposition::Hang => Some(SkipReason::Hangs),
            Disposition::Slow => Some(SkipReason::Slow { limit: self.executor.limit() }),
            Disposition::Unreproducible => Some(SkipReason::Unreproducible),
            Disposition::Unsupported(reason) => Some(SkipReason::Unsupported(reason)),
        })
    }

    /// Measures an entry if the time limit depends on it. Only now are all its blocks known, so
    /// that no breakpoint disturbs the time.
    fn time(&mut self, input: &[u8], start: &mut Start) -> Result<(), CampaignError> {
        if start.calibrate {
            self.executor.run(input).map_err(self.host_failed())?;
            start.slowest = start.slowest.max(self.executor.last);
        }
        Ok(())
    }
}

/// What is known at the start only.
struct Start {
    /// The time limit is to be taken from the seeds.
    calibrate: bool,
    slowest: Duration,
    /// Bytes of what was tried.
    seen: BTreeMap<Vec<u8>, Seen>,
    /// The first seed that is not used.
    skipped: Option<SkippedSeed>,
}

/// Where an input was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// In the queue that an earlier start left.
    InQueue,
    /// Among the seeds of this start.
    AsSeed,
}

impl Start {
    /// Why there is nothing to start from in the folder of seeds.
    fn nothing_usable(self, folder: &Path) -> CampaignError {
        let path = folder.to_owned();
        match self.skipped {
            None => CampaignError::NoSeed { path },
            Some(SkippedSeed { path: seed, reason: source }) => {
                let name = seed.file_name().unwrap_or(seed.as_os_str()).display().to_string();
                CampaignError::NoUsableSeed { path, name, source }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_five_times_the_slowest_seed_between_20_ms_and_1_s() {
        let limit_ms = |ms| limit_from(Duration::from_millis(ms)).as_millis();
        assert_eq!([0, 3, 5, 30, 900].map(limit_ms), [20, 20, 40, 160, 1000]);
    }
}
