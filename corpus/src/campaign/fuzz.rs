//! The loop of a campaign, its pace, and its numbers.
//!
//! A run that finds nothing costs no allocation, no file and no clock: the clock is read after so
//! many runs, or so much time in them. Never decides what a finding is.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libafl::corpus::CorpusId;
use libafl::inputs::{BytesInput, HasMutatorBytes};

use super::findings::Source;
use super::{CampaignError, Live, Options, library};
use crate::atomic;
use crate::report::{self, Earlier, Frame};
use crate::schedule::{Place, Turn};
use crate::stats::{Stats, StopReason};
use crate::target::Inputs;

/// Runs after which the clock is read.
const RUNS_UNWATCHED: u32 = 64;

/// Time in runs after which the clock is read.
const TIME_UNWATCHED: Duration = Duration::from_millis(5);

/// Time between updates for people.
const UPDATE: Duration = Duration::from_millis(250);

/// Time between writing the numbers to the output folder.
const SAVE: Duration = Duration::from_secs(5);

/// Time over which the recent speed is taken.
const RATE: Duration = Duration::from_secs(2);

/// Bytes of the mutants made at once: those that are made in vain cost time, too.
const BATCH_BYTES: usize = 1 << 20;

/// Mutants made at once. Made once and used again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    inputs: Inputs,
    /// Beside each mutant, the random numbers' place and the tries left after it was made.
    marks: Vec<(Place, usize)>,
}

impl Batch {
    fn clear(&mut self) {
        self.inputs.clear();
        self.marks.clear();
    }

    fn has_room(&self, len: usize) -> bool {
        self.inputs.len() < len && self.inputs.bytes() < BATCH_BYTES
    }

    fn push(&mut self, input: &[u8], place: Place, left: usize) {
        self.inputs.push(input);
        self.marks.push((place, left));
    }
}

/// Everything about a campaign that depends on a clock.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    /// Run time before this start.
    earlier: Duration,
    /// Executions before this start.
    execs_earlier: u64,
    /// Executions at which to stop; none while the queue is loaded.
    execs_end: u64,
    duration: Option<Duration>,
    runs_unwatched: u32,
    time_unwatched: Duration,
    updated: Instant,
    saved: Instant,
    /// When the recent speed was last taken, and the executions then.
    rated: (Instant, u64),
    rate: Option<f64>,
    /// Seconds since 1970, or 0 for never.
    last_find: u64,
    last_crash: u64,
    last_hang: u64,
}

impl Pace {
    pub(super) fn new(options: &Options, earlier: &Earlier) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            earlier: earlier.run_time,
            execs_earlier: earlier.execs,
            execs_end: u64::MAX,
            duration: options.duration,
            runs_unwatched: 0,
            time_unwatched: Duration::ZERO,
            updated: now,
            saved: now,
            rated: (now, earlier.execs),
            rate: None,
            last_find: earlier.last_find,
            last_crash: earlier.last_crash,
            last_hang: earlier.last_hang,
        }
    }

    /// Time the campaign has run.
    pub(super) fn run_time(&self) -> Duration {
        self.earlier.saturating_add(self.start.elapsed())
    }

    pub(super) fn found(&mut self) {
        self.last_find = unix_now();
    }

    pub(super) fn crashed(&mut self) {
        self.last_crash = unix_now();
    }

    pub(super) fn hung(&mut self) {
        self.last_hang = unix_now();
    }

    /// Counts a run that took `time`; says whether the clock is due.
    fn watch(&mut self, time: Duration) -> bool {
        self.runs_unwatched += 1;
        self.time_unwatched = self.time_unwatched.saturating_add(time);
        self.runs_unwatched >= RUNS_UNWATCHED || self.time_unwatched >= TIME_UNWATCHED
    }

    /// Executions per second since this start, and recently.
    fn rates(&mut self, execs: u64) -> (f64, f64) {
        let per_sec = |execs: u64, time: Duration| execs as f64 / time.as_secs_f64().max(1e-6);
        let overall = per_sec(execs - self.execs_earlier, self.start.elapsed());
        let since = self.rated.0.elapsed();
        if since >= RATE {
            self.rate = Some(per_sec(execs - self.rated.1, since));
            self.rated = (Instant::now(), execs);
        }
        (overall, self.rate.unwrap_or(overall))
    }
}

/// Seconds since 1970. A clock before that is taken for 1970.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Live<'_> {
    /// Takes turns until something stops the campaign.
    pub(super) fn fuzz(&mut self) -> Result<StopReason, CampaignError> {
        if let Some(executions) = self.options.executions {
            self.pace.execs_end = self.executor.execs.saturating_add(executions);
        }
        let mut parent = Vec::new();
        let mut mutant = BytesInput::new(Vec::new());
        loop {
            // A turn whose mutants all come out unchanged makes no run, so ask here too.
            if let Some(reason) = self.look_at_clock()? {
                return Ok(reason);
            }
            let turn = self.queue.next().map_err(library("choose an entry of the queue"))?;
            self.current = self.entry_id(turn.entry);
            let load = self.queue.load(turn.entry, &mut parent);
            load.map_err(library("load an entry of the queue"))?;
            if let Some(reason) = self.take_turn(turn, &parent, &mut mutant)? {
                return Ok(reason);
            }
        }
    }

    /// Runs the mutants of one turn, many at once where the target can.
    ///
    /// The same mutants run in the same order however many the target is given at once: those
    /// behind one that has something to say are made anew.
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

    /// Makes at most `len` mutants in at most `left` tries and runs them up to the first that has
    /// something to say, which is judged. How many tries are left.
    fn run_batch(
        &mut self,
        entry: CorpusId,
        parent: &[u8],
        mutant: &mut BytesInput,
        mut left: usize,
        len: usize,
    ) -> Result<usize, CampaignError> {
        let until_end = self.pace.execs_end.saturating_sub(self.executor.execs).max(1);
        let len = len.min(usize::try_from(until_end).unwrap_or(usize::MAX));
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        while left > 0 && batch.has_room(len) {
            left -= 1;
            if self.make(parent, mutant)? {
                batch.push(mutant.mutator_bytes(), self.queue.place(), left);
            }
        }
        let dull = self.executor.run_dull(&batch.inputs).map_err(self.host_failed())?;
        if let Some(&(place, left_then)) = batch.marks.get(dull) {
            self.queue.go_back(place);
            left = left_then;
            self.run_mutant(batch.inputs.get(dull), entry)?;
        }
        self.batch = batch;
        Ok(left)
    }

    fn run_mutant(&mut self, input: &[u8], parent: CorpusId) -> Result<(), CampaignError> {
        let verdict = self.executor.run(input).map_err(self.host_failed())?;
        if let Some(verdict) = verdict {
            self.judge(input, verdict, Source::Mutant(parent))?;
        }
        Ok(())
    }

    /// Asked after each run: whether to stop, and why.
    pub(super) fn stop_reason(&mut self) -> Result<Option<StopReason>, CampaignError> {
        let reason = self.stop_at_once();
        if reason.is_some() || !self.pace.watch(self.executor.last) {
            return Ok(reason);
        }
        self.look_at_clock()
    }

    fn stop_at_once(&self) -> Option<StopReason> {
        if self.options.until_crash && !self.new_crashes.is_empty() {
            return Some(StopReason::Crash);
        }
        if self.executor.execs >= self.pace.execs_end {
            return Some(StopReason::Executions);
        }
        self.options.stop.load(Ordering::Relaxed).then_some(StopReason::Requested)
    }

    /// Reads the clock and does what it says is due.
    fn look_at_clock(&mut self) -> Result<Option<StopReason>, CampaignError> {
        self.pace.runs_unwatched = 0;
        self.pace.time_unwatched = Duration::ZERO;
        let now = Instant::now();
        if now - self.pace.updated >= UPDATE {
            self.pace.updated = now;
            let stats = self.snapshot();
            self.progress.update(&stats);
        }
        if now - self.pace.saved >= SAVE {
            self.pace.saved = now;
            self.save_numbers()?;
        }
        let over = self.pace.duration.is_some_and(|limit| now - self.pace.start >= limit);
        Ok(self.stop_at_once().or(over.then_some(StopReason::Duration)))
    }

    /// Number, in its file name, of a queue entry.
    pub(super) fn entry_id(&self, entry: CorpusId) -> u64 {
        self.entry_ids.get(entry.0).copied().unwrap_or_default()
    }

    /// The numbers now.
    pub(super) fn snapshot(&mut self) -> Stats {
        let now = unix_now();
        let age = |at: u64| (at > 0).then(|| Duration::from_secs(now.saturating_sub(at)));
        let (execs_per_sec, execs_per_sec_recent) = self.pace.rates(self.executor.execs);
        let queue = self.queue.counts();
        Stats {
            run_time: self.pace.run_time(),
            execs: self.executor.execs,
            execs_per_sec,
            execs_per_sec_recent,
            corpus: self.queue.len(),
            corpus_found: self.counts.found,
            favoured: queue.favoured,
            pending: queue.pending,
            pending_favoured: queue.pending_favoured,
            depth: queue.depth,
            current: self.current,
            cycles: self.earlier.cycles + self.queue.cycles(),
            blocks_reached: self.covered.len(),
            blocks_total: self.covered.total(),
            crashes_unique: self.crashes.unique(),
            crashes_total: self.crashes.total().saturating_add(self.counts.crashes_unsaved),
            hangs_unique: self.counts.hangs,
            timeouts_total: self.counts.timeouts,
            unreproducible: self.counts.unreproducible,
            unsupported: self.counts.unsupported,
            last_find: age(self.pace.last_find),
            last_crash: age(self.pace.last_crash),
            last_hang: age(self.pace.last_hang),
            timeout: self.executor.limit(),
            slowest: self.executor.slowest,
        }
    }

    /// Writes the numbers to the output folder.
    pub(super) fn save_numbers(&mut self) -> Result<(), CampaignError> {
        let stats = self.snapshot();
        let frame = Frame {
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
}
