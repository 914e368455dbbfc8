//! Engine and corpus meet: a machine as the target of a campaign.
//!
//! Never judges a finding and never touches a file.

use crate::boot;
use crate::crash;
use crate::numbers::Numbers;
use crate::oracles::Oracles;
use crate::patience::Patience;
use dejavm_corpus::{
    Comparison, ComparisonKind, CrashFacts, Execution, ExitKind, Inputs, Shape, Target,
    TargetError, Uninteresting,
};
use dejavm_engine::coverage::Arm;
use dejavm_engine::coverage::comparisons::{Compared, ComparedKind};
use dejavm_engine::coverage::detours::{Detail, Image};
use dejavm_engine::linux::Process;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchPace, BatchReport, DetourCounts, ExitCounts, Limit, Machine,
    MachineError, RunReport,
};
use dejavm_engine::outcome::{Fault, Outcome};
use dejavm_engine::state::Difference;
use dejavm_engine::symbols::{CodeLocation, Symbolizer};
use std::time::Duration;

/// A machine that a campaign drives.
pub struct GuestTarget {
    machine: Machine,
    symbolizer: Symbolizer,
    /// What is a crash besides a fault.
    oracles: Oracles,
    /// Images that the symbolizer knows; a program may load more while it runs.
    images: usize,
    /// Which numbers need no report any more.
    numbers: Numbers,
    /// Numbers of what the current input hit.
    hits: Vec<u32>,
    /// With inputs whose marks were no news after all, while batches run through detours.
    marks: Option<Patience>,
    /// Why the last batch ended before its last input.
    batch_end: BatchEnd,
    /// For batches of one.
    single: Inputs,
    /// System calls of the last run by itself.
    calls: u64,
    limit: Duration,
    /// Runs between two verifications; 0 is never.
    verify_every: u64,
    runs: u64,
    /// With traces that detours were of no use to, while there are detours.
    detours: Option<Patience>,
    /// With runs whose comparisons could not be logged, while they are logged.
    comparisons: Option<Patience>,
    /// Many runs to one entry into the guest, if that is wanted and possible.
    batches: Option<BatchState>,
    /// What the exits of all batches were for.
    exits: ExitCounts,
    /// What a verification found.
    pub differences: Vec<Difference>,
}

/// What batches need from one to the next.
#[derive(Default)]
struct BatchState {
    batch: Batch,
    report: BatchReport,
    pace: BatchPace,
    /// With batches that did not even say how their first run ended.
    patience: Patience,
}

/// How much longer than others a run through detours may take, in which breakpoints are hit.
const TRACE_TIMES: u32 = 2;
const TRACE_TIME: Duration = Duration::from_millis(100);

/// Why a batch ended before its last input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BatchEnd {
    /// It did not, or nobody knows why.
    #[default]
    Unknown,
    /// A run had marks that are news.
    News,
    /// A run did not finish.
    Unfinished,
}

/// The least time limit of a run whose comparisons are logged.
const COMPARISONS_LIMIT: Duration = Duration::from_secs(1);

/// A rewind left the machine in another state than its snapshot's.
#[derive(Debug, thiserror::Error)]
#[error(
    "after run {run} the machine differs from its snapshot in {count} places, first in {first}"
)]
struct Differs {
    run: u64,
    count: usize,
    first: String,
}

impl GuestTarget {
    /// Takes a rewound machine in which `oracles` are installed, and puts a breakpoint at each of
    /// `blocks`.
    ///
    /// # Errors
    /// The host failed.
    pub fn new(
        mut machine: Machine,
        blocks: &[u64],
        oracles: Oracles,
        verify_every: u64,
    ) -> Result<Self, MachineError> {
        if !blocks.is_empty() {
            machine.set_blocks(blocks)?;
            machine.arm_blocks(Arm::Unknown);
        }
        Ok(Self {
            symbolizer: boot::symbolizer(machine.process()),
            images: image_count(&machine),
            machine,
            numbers: Numbers::new(Detail::Blocks, blocks.len(), 0),
            oracles,
            hits: Vec::new(),
            marks: None,
            batch_end: BatchEnd::default(),
            single: Inputs::default(),
            calls: 0,
            limit: Duration::MAX,
            verify_every,
            runs: 0,
            detours: None,
            comparisons: None,
            batches: None,
            exits: ExitCounts::default(),
            differences: Vec::new(),
        })
    }

    /// From now on runs many inputs to one entry into the guest.
    ///
    /// # Errors
    /// The machine cannot; it runs one by one.
    pub fn use_batches(&mut self) -> Result<(), MachineError> {
        self.machine.prepare_batches()?;
        self.batches = Some(BatchState::default());
        Ok(())
    }

    /// From now on traces through detours, by which the blocks of `images` mark themselves, and where
    /// there are batches has these compare as much as `wanted`; how many marks there are.
    ///
    /// # Errors
    /// The program cannot have any; it is traced by breakpoints.
    pub fn use_detours(
        &mut self,
        images: &[Image<'_>],
        wanted: Detail,
    ) -> Result<DetourCounts, MachineError> {
        let detail = if self.batches.is_some() { wanted } else { Detail::Blocks };
        let counts = self.machine.install_detours(images, detail)?;
        self.detours = Some(Patience::default());
        if detail == Detail::Blocks {
            return Ok(counts);
        }
        if !self.machine.compare_in_batches(true)? {
            return self.machine.install_detours(images, Detail::Blocks);
        }
        let blocks = self.numbers.shape().blocks;
        self.numbers = Numbers::new(detail, blocks, counts.edges_total);
        self.marks = Some(Patience::default());
        Ok(counts)
    }

    /// From now on tells what an input compares in `images`, and in functions that compare strings;
    /// how many instructions are logged.
    ///
    /// # Errors
    /// The program cannot have detours; nothing is logged.
    pub fn log_comparisons(&mut self, images: &[Image<'_>]) -> Result<DetourCounts, MachineError> {
        let counts = self.machine.install_comparisons(images)?;
        self.comparisons = Some(Patience::default());
        Ok(counts)
    }

    /// What is told of a run.
    pub fn detail(&self) -> Detail {
        self.numbers.detail()
    }

    /// Batches run the program's own code from now on: blocks alone are told.
    fn do_without_marks(&mut self) -> Result<(), TargetError> {
        self.marks = None;
        self.machine.compare_in_batches(false).map_err(TargetError::new)?;
        Ok(())
    }

    /// One run, whose marks tell what is new.
    fn run_marked(&mut self, input: &[u8]) -> Result<(ExitKind, Duration), TargetError> {
        if self.batch_len() == 1 && self.batch_end == BatchEnd::Unknown {
            let mut single = std::mem::take(&mut self.single);
            single.clear();
            single.push(input);
            let ran = self.run_uninteresting(&single);
            self.single = single;
            let Uninteresting { runs, duration } = ran?;
            if runs == 1 {
                return Ok((ExitKind::Finished, duration));
            }
        }
        let traced = match self.batch_end {
            BatchEnd::Unfinished => None,
            BatchEnd::News | BatchEnd::Unknown => self.trace_detoured(input)?,
        };
        match traced {
            Some(duration) => Ok((ExitKind::Finished, duration)),
            None => self.once(input),
        }
    }

    /// Takes into account what a run by itself says of the marks that had to be looked at.
    fn judge_marks(&mut self, exit_kind: &ExitKind) -> Result<(), TargetError> {
        let was_news = std::mem::take(&mut self.batch_end) == BatchEnd::News;
        let Some(patience) = &mut self.marks else { return Ok(()) };
        let is_vain = was_news && self.hits.is_empty() && *exit_kind == ExitKind::Finished;
        if was_news && !is_vain {
            patience.renew();
        }
        if is_vain && !patience.lasts() || self.batches.is_none() {
            tracing::warn!("edges and counts are of no use with this program: only blocks guide");
            self.do_without_marks()?;
        }
        Ok(())
    }

    /// As [`trace`](Target::trace), through detours, if that is possible.
    fn trace_detoured(&mut self, input: &[u8]) -> Result<Option<Duration>, TargetError> {
        let Some(patience) = &mut self.detours else { return Ok(None) };
        // What does not mark itself has its price, which is not the input's.
        let limit = self.limit.saturating_mul(TRACE_TIMES).saturating_add(TRACE_TIME);
        let traced = self.machine.trace(input, Limit::time(limit)).map_err(TargetError::new)?;
        let Some(report) = traced else {
            if !patience.lasts() {
                self.detours = None;
            }
            return Ok(None);
        };
        patience.renew();
        if self.oracles.is_finding(&report.outcome) {
            self.machine.rewind().map_err(TargetError::new)?;
            return Ok(None);
        }
        self.hits.clear();
        self.go_back(&report)?;
        Ok(Some(report.duration))
    }

    /// One run with a breakpoint at every block.
    fn trace_exactly(&mut self, input: &[u8]) -> Result<(ExitKind, Duration), TargetError> {
        self.machine.arm_blocks(Arm::All);
        self.hits.clear();
        let (exit_kind, duration) = self.once(input)?;
        // A hit makes the engine regard a block as known; for the campaign only `run` does.
        let unknown = self.numbers.unknown(&self.hits);
        self.machine.forget_blocks(&self.numbers.blocks(&unknown));
        self.machine.arm_blocks(Arm::Unknown);
        // As through detours, which a busy host may make too slow for the time limit: a campaign
        // must not depend on which of the two it was.
        self.hits.sort_unstable();
        Ok((exit_kind, duration))
    }

    /// Number of blocks that can never be seen to be reached.
    pub fn blocks_unseen(&self) -> usize {
        self.machine.blocks_unmapped()
    }

    /// Names of the system calls that were answered with ENOSYS.
    pub fn unsupported_calls(&self) -> Vec<String> {
        self.machine.process().map(Process::unsupported_calls).unwrap_or_default()
    }

    /// What the exits of the runs in batches were for.
    pub const fn exits(&self) -> &ExitCounts {
        &self.exits
    }

    /// One run from the snapshot and back; what it hit is added to `hits`.
    fn once(&mut self, input: &[u8]) -> Result<(ExitKind, Duration), TargetError> {
        let report = self.machine.run(input, Limit::time(self.limit)).map_err(TargetError::new)?;
        let exit_kind = self.exit_kind(&report);
        self.go_back(&report)?;
        Ok((exit_kind, report.duration))
    }

    /// Keeps what a run cost and hit, and rewinds.
    fn go_back(&mut self, report: &RunReport) -> Result<(), TargetError> {
        let Self { machine, numbers, hits, .. } = self;
        // Only a trace tells places.
        match machine.places_hit() {
            [] => hits.extend(machine.blocks_hit().iter().map(|block| numbers.of_block(*block))),
            places => hits.extend(places.iter().map(|hit| numbers.of_place(hit))),
        }
        self.calls = report.system_calls;
        self.machine.rewind().map_err(TargetError::new)?;
        self.ran(1)
    }

    /// Counts runs, and verifies when it is time to.
    fn ran(&mut self, runs: usize) -> Result<(), TargetError> {
        let before = self.runs;
        self.runs += runs as u64;
        if self.verify_every > 0 && before / self.verify_every != self.runs / self.verify_every {
            self.verify()?;
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), TargetError> {
        self.differences = self.machine.verify().map_err(TargetError::new)?;
        match self.differences.first() {
            None => Ok(()),
            Some(first) => Err(TargetError::new(Differs {
                run: self.runs,
                count: self.differences.len(),
                first: first.field.clone(),
            })),
        }
    }

    fn exit_kind(&mut self, report: &RunReport) -> ExitKind {
        if self.oracles.is_finding(&report.outcome) {
            let stack = self.stack(report);
            let outputs = [self.machine.stdout(), self.machine.stderr()];
            let facts = self.oracles.facts(report, &stack, outputs);
            return facts.map_or(ExitKind::Finished, ExitKind::Crashed);
        }
        match &report.outcome {
            Outcome::Exited { .. } | Outcome::Halted => ExitKind::Finished,
            Outcome::Crashed(fault) => ExitKind::Crashed(self.crash_facts(fault, report)),
            Outcome::TimedOut => ExitKind::TimedOut,
            Outcome::OutOfMemory => ExitKind::OutOfMemory,
            // The rules know what it is, and their findings are gone from here.
            Outcome::OutputLimit | Outcome::OutputMatched => {
                ExitKind::Unsupported(report.outcome.to_string())
            }
            Outcome::Unsupported(what) => ExitKind::Unsupported(what.to_string()),
        }
    }

    fn crash_facts(&mut self, fault: &Fault, report: &RunReport) -> CrashFacts {
        if self.machine.process().is_none() {
            return crash::bare_facts(fault);
        }
        crash::facts(fault, &self.stack(report))
    }

    /// The stack of a guest that was stopped; none of a bare guest.
    fn stack(&mut self, report: &RunReport) -> Vec<CodeLocation> {
        let count = image_count(&self.machine);
        if self.images != count {
            self.images = count;
            self.symbolizer = boot::symbolizer(self.machine.process());
        }
        crash::stack_in(&mut self.machine, &self.symbolizer, report)
    }
}

fn image_count(machine: &Machine) -> usize {
    machine.process().map_or(0, |process| process.images().len())
}

impl Target for GuestTarget {
    fn blocks_total(&self) -> usize {
        self.numbers.total()
    }

    fn shape(&self) -> Shape {
        self.numbers.shape()
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.hits.clear();
        let ran = if self.marks.is_some() { self.run_marked(input) } else { self.once(input) };
        let (exit_kind, duration) = ran?;
        if let Some(batches) = &mut self.batches {
            batches.pace.ran_alone();
        }
        self.hits = self.numbers.unknown(&self.hits);
        self.judge_marks(&exit_kind)?;
        self.numbers.know(&self.hits, true);
        self.machine.know_places(self.numbers.places(&self.hits));
        Ok(Execution { exit_kind, blocks: &self.hits, duration })
    }

    fn batch_len(&self) -> usize {
        self.batches.as_ref().map_or(1, |batches| batches.pace.batch_len())
    }

    fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<Uninteresting, TargetError> {
        let Some(mut batches) = self.batches.take() else { return Ok(Uninteresting::default()) };
        let BatchState { batch, report, pace, patience } = &mut batches;
        batch.clear();
        for input in inputs.iter() {
            // One that is too long for any batch ends this one.
            if !batch.push(input) {
                break;
            }
        }
        let options = BatchOptions {
            limit: Some(self.limit),
            stop_at_finding: true,
            finding_statuses: self.oracles.statuses,
        };
        self.machine.run_batch(batch, options, report).map_err(TargetError::new)?;
        self.exits.add(&report.exits);
        let hit = report.hits.iter().map(|hit| hit.run).chain(report.news.iter().copied()).min();
        let hit = hit.map(|run| run as usize);
        let finished = |run: &&Option<Outcome>| options.is_plain(run.as_ref());
        let runs = report.runs.iter().take_while(finished).count().min(hit.unwrap_or(usize::MAX));
        let is_news = report.news.first().is_some_and(|run| *run as usize == runs);
        self.batch_end = match report.runs.get(runs) {
            _ if is_news => BatchEnd::News,
            Some(Some(end)) if !options.is_plain(Some(end)) => BatchEnd::Unfinished,
            _ => BatchEnd::Unknown,
        };
        // Breakpoints are hit once, and what the agent has learned it need not learn again: their
        // exits say nothing of the runs to come.
        if report.hits.is_empty() && !report.has_learned {
            pace.ran(report.runs.len(), report.duration);
        }
        // `run` shall report them, of the same input; by marks it does without breakpoints.
        let blocks: Vec<u32> = report.hits.iter().map(|hit| hit.block).collect();
        if !blocks.is_empty() && self.marks.is_none() {
            self.machine.forget_blocks(&blocks);
            self.machine.arm_blocks(Arm::Unknown);
        }
        let is_unknown = report.is_distrusted || matches!(report.runs.first(), Some(None));
        let is_vain = is_unknown && runs == 0;
        if !is_vain {
            patience.renew();
        }
        let duration = report.duration;
        if !is_vain || patience.lasts() {
            self.batches = Some(batches);
        } else {
            tracing::warn!("batches are of no use with this program: one run to an entry");
        }
        self.ran(runs)?;
        Ok(Uninteresting { runs, duration })
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let (exit_kind, duration) = match self.trace_detoured(input)? {
            Some(duration) => (ExitKind::Finished, duration),
            None => self.trace_exactly(input)?,
        };
        Ok(Execution { exit_kind, blocks: &self.hits, duration })
    }

    fn confirm(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let (exit_kind, duration) = self.trace_exactly(input)?;
        Ok(Execution { exit_kind, blocks: &self.hits, duration })
    }

    fn comparisons(&mut self, input: &[u8]) -> Result<Vec<Comparison>, TargetError> {
        let Some(patience) = &mut self.comparisons else { return Ok(Vec::new()) };
        // Of an entry, which is known to end: what a busy host makes late must not be missing.
        let limit = Limit::time(self.limit.saturating_mul(10).max(COMPARISONS_LIMIT));
        let found = self.machine.comparisons(input, limit).map_err(TargetError::new)?;
        match found {
            Some(_) => patience.renew(),
            None if patience.lasts() => {}
            None => self.comparisons = None,
        }
        self.ran(1)?;
        Ok(found.unwrap_or_default().into_iter().map(comparison).collect())
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn exits_per_run(&self) -> Option<f64> {
        self.exits.per_run()
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        let unknown = self.numbers.unknown(blocks);
        self.machine.know_places(self.numbers.places(&unknown));
        self.numbers.know(blocks, true);
        self.machine.know_blocks(&self.numbers.blocks(blocks));
        self.machine.arm_blocks(Arm::Unknown);
    }

    fn forget_blocks(&mut self, blocks: &[u32]) {
        self.numbers.know(blocks, false);
        self.machine.forget_places(self.numbers.places(blocks));
        self.machine.forget_blocks(&self.numbers.blocks(blocks));
        self.machine.arm_blocks(Arm::Unknown);
    }

    fn set_timeout(&mut self, limit: Duration) {
        self.limit = limit;
    }
}

fn comparison(compared: Compared) -> Comparison {
    let Compared { site, kind, left, right } = compared;
    let kind = match kind {
        ComparedKind::Integer { is_ordering } => ComparisonKind::Integer { is_ordering },
        ComparedKind::Float => ComparisonKind::Float,
        ComparedKind::Bytes => ComparisonKind::Bytes,
        ComparedKind::Text => ComparisonKind::Text,
    };
    Comparison { site, kind, left, right }
}
