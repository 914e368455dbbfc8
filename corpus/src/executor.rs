//! Runs inputs on a target and repeats what looks like a finding.
//!
//! LibAFL's executor, observers and feedbacks are not used: they ask for an observer's whole map
//! after each run and carry the host's errors as text, whereas a [`Target`] names the few blocks
//! that are new. Decides whether a finding is true; never whether it is worth keeping.

use std::time::Duration;

use crate::target::{CrashFacts, Inputs, Target, TargetError, Verdict};

/// What a repeated run shows about a finding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// The input finishes, after all or in truth only slowly.
    Finishes,
    /// It crashes.
    Crashes(CrashFacts),
    /// It reaches even twice the time limit.
    Hangs,
    /// It does something else each time.
    Unsteady,
}

/// A target, with the counts and limits that belong to running it.
pub(crate) struct Executor<'t> {
    target: &'t mut dyn Target,
    limit: Duration,
    /// Runs so far.
    pub(crate) execs: u64,
    /// Blocks of the last run that said something.
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
    pub(crate) fn run(&mut self, input: &[u8]) -> Result<Option<Verdict>, TargetError> {
        self.execs += 1;
        let run = self.target.run(input)?;
        self.last = run.duration;
        if matches!(run.verdict, Verdict::Finished) {
            self.slowest = self.slowest.max(run.duration);
            if run.blocks.is_empty() {
                return Ok(None);
            }
        }
        self.blocks.clear();
        self.blocks.extend_from_slice(run.blocks);
        Ok(Some(out_of_memory_is_a_crash(run.verdict)))
    }

    /// How many inputs are best run at once.
    pub(crate) fn batch_len(&self) -> usize {
        self.target.batch_len()
    }

    /// Runs `inputs` as long as they have nothing to say; how many did not.
    pub(crate) fn run_dull(&mut self, inputs: &Inputs) -> Result<usize, TargetError> {
        let dull = self.target.run_dull(inputs)?;
        let runs = dull.runs.min(inputs.len());
        self.execs += runs as u64;
        self.last = dull.duration;
        Ok(runs)
    }

    /// Runs `input` on the exact path; all its blocks are in [`blocks`](Self::blocks).
    pub(crate) fn trace(&mut self, input: &[u8]) -> Result<Verdict, TargetError> {
        self.execs += 1;
        let run = self.target.trace(input)?;
        self.last = run.duration;
        self.blocks.clear();
        self.blocks.extend_from_slice(run.blocks);
        Ok(out_of_memory_is_a_crash(run.verdict))
    }

    /// Repeats on the exact path an input that crashed.
    pub(crate) fn confirm_crash(&mut self, input: &[u8]) -> Result<Truth, TargetError> {
        Ok(match self.trace(input)? {
            Verdict::Crashed(facts) => Truth::Crashes(facts),
            _ => Truth::Unsteady,
        })
    }

    /// Repeats on the exact path, with `limit`, an input that reached the time limit.
    pub(crate) fn confirm_hang(
        &mut self,
        input: &[u8],
        limit: Duration,
    ) -> Result<Truth, TargetError> {
        self.target.set_timeout(limit);
        let truth = self.trace(input).and_then(|verdict| match verdict {
            Verdict::TimedOut => Ok(Truth::Hangs),
            Verdict::Finished => Ok(Truth::Finishes),
            // Seen once now, as a crash.
            Verdict::Crashed(_) => self.confirm_crash(input),
            Verdict::OutOfMemory | Verdict::Unsupported(_) => Ok(Truth::Unsteady),
        });
        self.target.set_timeout(self.limit);
        truth
    }

    /// Tells the target that the queue reaches `blocks`.
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

fn out_of_memory_is_a_crash(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::OutOfMemory => Verdict::Crashed(CrashFacts::out_of_memory()),
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
        assert_eq!(executor.run(b"x").unwrap(), Some(Verdict::Finished));
        assert_eq!(executor.blocks, [0]);
        assert_eq!(executor.run(b"y").unwrap(), None);
        assert_eq!(executor.execs, 2);
    }

    #[test]
    fn believes_a_hang_only_with_twice_the_time_and_restores_the_limit() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        // The maze needs 15 ms for this one, and for ever for the next.
        assert_eq!(executor.run(b"SLOW").unwrap(), Some(Verdict::TimedOut));
        assert_eq!(executor.confirm_hang(b"SLOW", LIMIT * 2).unwrap(), Truth::Finishes);
        assert_eq!(executor.confirm_hang(b"HANG", LIMIT * 2).unwrap(), Truth::Hangs);
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
        assert!(matches!(executor.run(b"FLAKY").unwrap(), Some(Verdict::Crashed(_))));
        assert_eq!(executor.confirm_crash(b"FLAKY").unwrap(), Truth::Unsteady);
    }

    #[test]
    fn tells_running_out_of_memory_as_a_crash() {
        let mut maze = Maze::new();
        let mut executor = Executor::new(&mut maze, LIMIT, 0);
        let verdict = executor.run(b"MEMORY").unwrap();
        assert_eq!(verdict, Some(Verdict::Crashed(CrashFacts::out_of_memory())));
    }
}
