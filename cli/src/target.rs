//! Engine and corpus meet: a machine as the target of a campaign.
//!
//! Never judges a finding and never touches a file.

use crate::boot;
use crate::crash;
use dejavm_corpus::{
    Comparison, ComparisonKind, CrashFacts, Execution, ExitKind, Inputs, Target, TargetError,
    Uninteresting,
};
use dejavm_engine::coverage::Arm;
use dejavm_engine::coverage::comparisons::{Compared, ComparedKind};
use dejavm_engine::coverage::detours::{Detail, Image};
use dejavm_engine::linux::Process;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchPace, BatchReport, DetourCounts, Limit, Machine, MachineError,
    RunReport,
};
use dejavm_engine::outcome::{Fault, Outcome};
use dejavm_engine::state::Difference;
use dejavm_engine::symbols::Symbolizer;
use std::time::Duration;

/// A machine that a campaign drives.
pub struct GuestTarget {
    machine: Machine,
    symbolizer: Symbolizer,
    /// Images that the symbolizer knows; a program may load more while it runs.
    images: usize,
    /// Which blocks need no report any more.
    known: Vec<bool>,
    /// Blocks that the current input hit.
    hits: Vec<u32>,
    /// System calls of the last run by itself.
    calls: u64,
    limit: Duration,
    /// Runs between two verifications; 0 is never.
    verify_every: u64,
    runs: u64,
    /// Traces in a row that detours were of no use to, while there are detours.
    detours: Option<u32>,
    /// Runs in a row whose comparisons could not be logged, while they are logged.
    comparisons: Option<u32>,
    /// Many runs to one entry into the guest, if that is wanted and possible.
    batches: Option<BatchState>,
    /// What a verification found.
    pub differences: Vec<Difference>,
}

/// What batches need from one to the next.
#[derive(Default)]
struct BatchState {
    batch: Batch,
    report: BatchReport,
    pace: BatchPace,
    /// Batches in a row that did not even say how their first run ended.
    fruitless: u32,
}

/// Batches, and traces through detours, in a row that may be of no use before there are no more of
/// them.
const FRUITLESS_MAX: u32 = 64;

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
    /// Takes a rewound machine, and puts a breakpoint at each of `blocks`.
    ///
    /// # Errors
    /// The host failed.
    pub fn new(
        mut machine: Machine,
        blocks: &[u64],
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
            known: vec![false; blocks.len()],
            hits: Vec::new(),
            calls: 0,
            limit: Duration::MAX,
            verify_every,
            runs: 0,
            detours: None,
            comparisons: None,
            batches: None,
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

    /// From now on traces through detours, by which the blocks of `images` mark themselves; how many
    /// do.
    ///
    /// # Errors
    /// The program cannot have any; it is traced by breakpoints.
    pub fn use_detours(&mut self, images: &[Image<'_>]) -> Result<DetourCounts, MachineError> {
        let counts = self.machine.install_detours(images, Detail::Blocks)?;
        self.detours = Some(0);
        Ok(counts)
    }

    /// From now on tells what an input compares in `images`, and in functions that compare strings;
    /// how many instructions are logged.
    ///
    /// # Errors
    /// The program cannot have detours; nothing is logged.
    pub fn log_comparisons(&mut self, images: &[Image<'_>]) -> Result<DetourCounts, MachineError> {
        let counts = self.machine.install_comparisons(images)?;
        self.comparisons = Some(0);
        Ok(counts)
    }

    /// As [`trace`](Target::trace), through detours, if that is possible.
    fn trace_detoured(&mut self, input: &[u8]) -> Result<Option<Duration>, TargetError> {
        let Some(in_vain) = self.detours else { return Ok(None) };
        let traced =
            self.machine.trace(input, Limit::time(self.limit)).map_err(TargetError::new)?;
        let Some(report) = traced else {
            self.detours = (in_vain + 1 < FRUITLESS_MAX).then_some(in_vain + 1);
            return Ok(None);
        };
        self.detours = Some(0);
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
        let known = &self.known;
        let is_unknown = |block: &&u32| known.get(**block as usize) == Some(&false);
        let unknown: Vec<u32> = self.hits.iter().filter(is_unknown).copied().collect();
        self.machine.forget_blocks(&unknown);
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

    /// One run from the snapshot and back; what it hit is added to `hits`.
    fn once(&mut self, input: &[u8]) -> Result<(ExitKind, Duration), TargetError> {
        let report = self.machine.run(input, Limit::time(self.limit)).map_err(TargetError::new)?;
        let exit_kind = self.exit_kind(&report);
        self.go_back(&report)?;
        Ok((exit_kind, report.duration))
    }

    /// Keeps what a run cost and hit, and rewinds.
    fn go_back(&mut self, report: &RunReport) -> Result<(), TargetError> {
        self.hits.extend_from_slice(self.machine.blocks_hit());
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
        match &report.outcome {
            Outcome::Exited { .. } | Outcome::Halted => ExitKind::Finished,
            Outcome::Crashed(fault) => ExitKind::Crashed(self.crash_facts(fault, report)),
            Outcome::TimedOut => ExitKind::TimedOut,
            Outcome::OutOfMemory => ExitKind::OutOfMemory,
            Outcome::Unsupported(what) => ExitKind::Unsupported(what.to_string()),
        }
    }

    fn crash_facts(&mut self, fault: &Fault, report: &RunReport) -> CrashFacts {
        let Self { machine, symbolizer, images, .. } = self;
        if machine.process().is_none() {
            return crash::bare_facts(fault);
        }
        let count = image_count(machine);
        if *images != count {
            *images = count;
            *symbolizer = boot::symbolizer(machine.process());
        }
        let stack = crash::stack(symbolizer, report, &mut |at, out| machine.read_virtual(at, out));
        crash::facts(fault, &stack)
    }
}

fn image_count(machine: &Machine) -> usize {
    machine.process().map_or(0, |process| process.images().len())
}

impl Target for GuestTarget {
    fn blocks_total(&self) -> usize {
        self.known.len()
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.hits.clear();
        let (exit_kind, duration) = self.once(input)?;
        if let Some(batches) = &mut self.batches {
            batches.pace.ran_alone();
        }
        know(&mut self.known, &self.hits, true);
        Ok(Execution { exit_kind, blocks: &self.hits, duration })
    }

    fn batch_len(&self) -> usize {
        self.batches.as_ref().map_or(1, |batches| batches.pace.batch_len())
    }

    fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<Uninteresting, TargetError> {
        let Some(mut batches) = self.batches.take() else { return Ok(Uninteresting::default()) };
        let BatchState { batch, report, pace, fruitless } = &mut batches;
        batch.clear();
        for input in inputs.iter() {
            // One that is too long for any batch ends this one.
            if !batch.push(input) {
                break;
            }
        }
        let options = BatchOptions { limit: Some(self.limit), stop_at_finding: true };
        self.machine.run_batch(batch, options, report).map_err(TargetError::new)?;
        let hit = report.hits.iter().map(|hit| hit.run as usize).min();
        let finished = |run: &&Option<Outcome>| matches!(run, Some(Outcome::Exited { .. }));
        let runs = report.runs.iter().take_while(finished).count().min(hit.unwrap_or(usize::MAX));
        // Breakpoints are hit once, and their exits say nothing of the runs to come.
        if report.hits.is_empty() {
            pace.ran(report.runs.len(), report.duration);
        }
        // `run` shall report them, of the same input.
        let blocks: Vec<u32> = report.hits.iter().map(|hit| hit.block).collect();
        if !blocks.is_empty() {
            self.machine.forget_blocks(&blocks);
            self.machine.arm_blocks(Arm::Unknown);
        }
        let is_unknown = report.is_distrusted || matches!(report.runs.first(), Some(None));
        *fruitless = if is_unknown && runs == 0 { *fruitless + 1 } else { 0 };
        let duration = report.duration;
        if *fruitless < FRUITLESS_MAX {
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
        let Some(in_vain) = self.comparisons else { return Ok(Vec::new()) };
        // Of an entry, which is known to end: what a busy host makes late must not be missing.
        let limit = Limit::time(self.limit.saturating_mul(10).max(COMPARISONS_LIMIT));
        let found = self.machine.comparisons(input, limit).map_err(TargetError::new)?;
        self.comparisons = match found {
            Some(_) => Some(0),
            None => (in_vain + 1 < FRUITLESS_MAX).then_some(in_vain + 1),
        };
        self.ran(1)?;
        Ok(found.unwrap_or_default().into_iter().map(comparison).collect())
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        know(&mut self.known, blocks, true);
        self.machine.know_blocks(blocks);
        self.machine.arm_blocks(Arm::Unknown);
    }

    fn forget_blocks(&mut self, blocks: &[u32]) {
        know(&mut self.known, blocks, false);
        self.machine.forget_blocks(blocks);
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

fn know(known: &mut [bool], blocks: &[u32], is_known: bool) {
    for &block in blocks {
        if let Some(mark) = known.get_mut(block as usize) {
            *mark = is_known;
        }
    }
}
