//! Runs inputs on a target and repeats what looks like a finding.
//!
//! LibAFL's executor, observers and feedbacks are not used: they ask for an observer's whole map
//! after each run and carry the host's errors as text, whereas a [`Target`] names the few blocks
//! that are new. Decides whether a finding is true; never whether it is worth keeping.

use std::time::Duration;

use crate::comparison::Comparison;
use crate::target::{CrashFacts, Execution, ExitKind, Inputs, Target, TargetError, Uninteresting};

/// What a repeated run shows about a finding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// The input finishes, after all or only slowly.
    Finishes,
    /// It crashes.
    Crashes(CrashFacts),
    /// It reaches even twice the time limit.
    Hangs,
    /// It does something else each time.
    Unsteady,
}

/// A target counts wrong.
#[derive(Debug, thiserror::Error)]
#[error("the target reported {runs} runs of {inputs} inputs")]
struct MoreRunsThanInputs {
    runs: usize,
    inputs: usize,
}

/// A target, with the counts and limits that belong to running it.
pub(crate) struct Executor<'t> {
    target: &'t mut dyn Target,
    limit: Duration,
    /// Runs so far.
    pub(crate) execs: u64,
    /// Blocks of the last interesting run.
    pub(crate) blocks: Vec<u32>,
    /// Time of the last run.
    pub(crate) last: Duration,
    /// Longest run that finished on the fast path.
    pub(crate) slowest: Duration,
}

impl<'t> Executor<'t> {
    /// Takes `target`; `execs` runs were made before.
    pub(crate) fn new(target: &'t mut dyn Target, limit: Duration, execs: u64) -> Self {
        target.set_timeout(limit);
        let zero = Duration::ZERO;
        Self { target, limit, execs, blocks: Vec::new(), last: zero, slowest: zero }
    }

    /// Sets the time limit of a run.
    pub(crate) fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
        self.target.set_timeout(limit);
    }

    /// Time limit of a run.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Runs `input` on the fast path. `None`, by far the most frequent answer, says that it
    /// finished and reached nothing new; otherwise its new blocks are in [`blocks`](Self::blocks).
    pub(crate) fn run(&mut self, input: &[u8]) -> Result<Option<ExitKind>, TargetError> {
        self.execs += 1;
        let run = self.target.run(input)?;
        if matches!(run.exit_kind, ExitKind::Finished) {
            self.slowest = self.slowest.max(run.duration);
            if run.blocks.is_empty() {
                self.last = run.duration;
                return Ok(None);
            }
        }
        Ok(Some(note(run, &mut self.last, &mut self.blocks)))
    }

    /// How many inputs are best run at once.
    pub(crate) fn batch_len(&self) -> usize {
        self.target.batch_len()
    }

    /// Runs `inputs` as long as they are uninteresting; how many were.
    pub(crate) fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<usize, TargetError> {
        let Uninteresting { runs, duration } = self.target.run_uninteresting(inputs)?;
        if runs > inputs.len() {
            return Err(TargetError::new(MoreRunsThanInputs { runs, inputs: inputs.len() }));
        }
        self.execs += runs as u64;
        self.last = duration;
        Ok(runs)
    }

    /// Runs `input`; all its blocks are in [`blocks`](Self::blocks).
    pub(crate) fn trace(&mut self, input: &[u8]) -> Result<ExitKind, TargetError> {
        self.execs += 1;
        let run = self.target.trace(input)?;
        Ok(note(run, &mut self.last, &mut self.blocks))
    }

    /// As [`trace`](Self::trace), on the exact path.
    fn confirm(&mut self, input: &[u8]) -> Result<ExitKind, TargetError> {
        self.execs += 1;
        let run = self.target.confirm(input)?;
        Ok(note(run, &mut self.last, &mut self.blocks))
    }

    /// What `input` compares.
    pub(crate) fn comparisons(&mut self, input: &[u8]) -> Result<Vec<Comparison>, TargetError> {
        let comparisons = self.target.comparisons(input)?;
        self.execs += u64::from(!comparisons.is_empty());
        Ok(comparisons)
    }

    /// Interruptions of a run that is one of many at once.
    pub(crate) fn exits_per_run(&self) -> Option<f64> {
        self.target.exits_per_run()
    }

    /// Calls that the last trace made.
    pub(crate) fn calls(&self) -> u64 {
        self.target.calls()
    }

    /// Repeats on the exact path an input that crashed.
    pub(crate) fn confirm_crash(&mut self, input: &[u8]) -> Result<Confirmation, TargetError> {
        Ok(match self.confirm(input)? {
            ExitKind::Crashed(facts) => Confirmation::Crashes(facts),
            ExitKind::Finished
            | ExitKind::TimedOut
            | ExitKind::OutOfMemory
            | ExitKind::Unsupported(_) => Confirmation::Unsteady,
        })
    }

    /// Repeats on the exact path, with `limit`, an input that reached the time limit.
    pub(crate) fn confirm_hang(
        &mut self,
        input: &[u8],
        limit: Duration,
    ) -> Result<Confirmation, TargetError> {
        self.target.set_timeout(limit);
        let confirmation = self.confirm(input).and_then(|exit_kind| match exit_kind {
            ExitKind::TimedOut => Ok(Confirmation::Hangs),
            ExitKind::Finished => Ok(Confirmation::Finishes),
            // Seen once now, as a crash.
            ExitKind::Crashed(_) => self.confirm_crash(input),
            ExitKind::OutOfMemory | ExitKind::Unsupported(_) => Ok(Confirmation::Unsteady),
        });
        self.target.set_timeout(self.limit);
        confirmation
    }

    /// Lets the target know that the queue reaches `blocks`.
    pub(crate) fn known(&mut self, blocks: &[u32]) {
        self.target.known_blocks(blocks);
    }

    /// Asks the target to report `blocks` once more.
    pub(crate) fn forget(&mut self, blocks: &[u32]) {
        if !blocks.is_empty() {
            self.target.forget_blocks(blocks);
        }
    }
}

/// How long an input must run to be saved as a hang in a campaign whose runs may take `limit`:
/// twice as long, and at least a second, as AFL has it, because on a busy host a run that took
/// tens of milliseconds may only have waited for the CPU.
#[must_use]
pub fn hang_limit(limit: Duration) -> Duration {
    limit.saturating_mul(2).max(Duration::from_secs(1))
}

/// Keeps what a run showed, for which running out of memory is a crash.
fn note(run: Execution<'_>, last: &mut Duration, blocks: &mut Vec<u32>) -> ExitKind {
    *last = run.duration;
    blocks.clear();
    blocks.extend_from_slice(run.blocks);
    out_of_memory_is_a_crash(run.exit_kind)
}

fn out_of_memory_is_a_crash(exit_kind: ExitKind) -> ExitKind {
    match exit_kind {
        ExitKind::OutOfMemory => ExitKind::Crashed(CrashFacts::out_of_memory()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Maze;

    const LIMIT: Duration = Duration::from_millis(10);

    #[test]
    fn says_nothing_about_a_run_that_finds_nothing() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        assert_eq!(executor.run(b"x").unwrap(), Some(ExitKind::Finished));
        assert_eq!(executor.blocks, [0]);
        assert_eq!(executor.run(b"y").unwrap(), None);
        assert_eq!(executor.execs, 2);
    }

    #[test]
    fn believes_a_hang_only_with_twice_the_time_and_restores_the_limit() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        // The maze needs 15 ms for this one, and for ever for the next.
        assert_eq!(executor.run(b"SLOW").unwrap(), Some(ExitKind::TimedOut));
        assert_eq!(executor.confirm_hang(b"SLOW", LIMIT * 2).unwrap(), Confirmation::Finishes);
        assert_eq!(executor.confirm_hang(b"HANG", LIMIT * 2).unwrap(), Confirmation::Hangs);
        assert_eq!(maze.limit, LIMIT);
    }

    #[test]
    fn a_hang_takes_a_second_at_least() {
        assert_eq!(hang_limit(Duration::from_millis(20)), Duration::from_secs(1));
        assert_eq!(hang_limit(Duration::from_secs(3)), Duration::from_secs(6));
    }

    #[test]
    fn does_not_believe_a_crash_that_does_not_come_back() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        assert!(matches!(executor.run(b"FLAKY").unwrap(), Some(ExitKind::Crashed(_))));
        assert_eq!(executor.confirm_crash(b"FLAKY").unwrap(), Confirmation::Unsteady);
    }

    #[test]
    fn refuses_a_target_that_reports_more_runs_than_it_was_given() {
        struct Liar;
        impl Target for Liar {
            fn blocks_total(&self) -> usize {
                0
            }
            fn run(&mut self, _: &[u8]) -> Result<Execution<'_>, TargetError> {
                let duration = Duration::ZERO;
                Ok(Execution { exit_kind: ExitKind::Finished, blocks: &[], duration })
            }
            fn run_uninteresting(&mut self, _: &Inputs) -> Result<Uninteresting, TargetError> {
                Ok(Uninteresting { runs: 3, duration: Duration::ZERO })
            }
            fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
                self.run(input)
            }
            fn known_blocks(&mut self, _: &[u32]) {}
            fn set_timeout(&mut self, _: Duration) {}
        }
        let mut inputs = Inputs::default();
        inputs.push(b"a");
        inputs.push(b"b");
        let error = Executor::new(&mut Liar, LIMIT, 0).run_uninteresting(&inputs).unwrap_err();
        assert_eq!(error.to_string(), "the target reported 3 runs of 2 inputs");
    }

    #[test]
    fn findings_are_decided_on_the_exact_path() {
        /// Whose traces see no crash.
        struct Blind;
        impl Target for Blind {
            fn blocks_total(&self) -> usize {
                1
            }
            fn run(&mut self, _: &[u8]) -> Result<Execution<'_>, TargetError> {
                let exit_kind = ExitKind::Crashed(CrashFacts::out_of_memory());
                Ok(Execution { exit_kind, blocks: &[0], duration: Duration::ZERO })
            }
            fn trace(&mut self, _: &[u8]) -> Result<Execution<'_>, TargetError> {
                let duration = Duration::ZERO;
                Ok(Execution { exit_kind: ExitKind::Finished, blocks: &[], duration })
            }
            fn confirm(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
                self.run(input)
            }
            fn known_blocks(&mut self, _: &[u32]) {}
            fn set_timeout(&mut self, _: Duration) {}
        }
        let mut blind = Blind;
        let mut executor = Executor::new(&mut blind, LIMIT, 0);
        let crashes = Confirmation::Crashes(CrashFacts::out_of_memory());
        assert_eq!(executor.trace(b"x").unwrap(), ExitKind::Finished);
        assert_eq!(executor.confirm_crash(b"x").unwrap(), crashes);
        assert_eq!(executor.blocks, [0]);
        assert_eq!(executor.confirm_hang(b"x", LIMIT).unwrap(), crashes);
    }

    #[test]
    fn running_out_of_memory_is_a_crash() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        let exit_kind = executor.run(b"MEMORY").unwrap();
        assert_eq!(exit_kind, Some(ExitKind::Crashed(CrashFacts::out_of_memory())));
    }
}
