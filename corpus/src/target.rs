//! What a campaign drives: something that runs one input and says what happened.
//!
//! The only door between this crate and whatever executes inputs. It never knows what executes
//! them, and nothing in here runs anything.

use std::error::Error;
use std::time::Duration;

use crate::comparison::Comparison;

/// Runs inputs, one at a time, and reports which coverage blocks they reach.
///
/// What an input does is a [`ExitKind`]; a [`TargetError`] says that the host failed, and ends the
/// campaign.
pub trait Target {
    /// Number of coverage blocks, or of whatever else [`shape`](Self::shape) says that the target
    /// reports in their place. Every one is below it.
    fn blocks_total(&self) -> usize;

    /// What the reported numbers stand for; basic blocks, by default.
    fn shape(&self) -> Shape {
        Shape { blocks: self.blocks_total(), edges: 0, classes: 1 }
    }

    /// Runs `input` on the fast path: reports only blocks that no earlier `run` has reported and
    /// that [`known_blocks`](Self::known_blocks) has not named. Each block is reported once.
    ///
    /// # Errors
    ///
    /// The host failed; the campaign ends.
    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError>;

    /// How many inputs the target would best be given at once; 1 (the default) is one at a time,
    /// by [`run`](Self::run).
    fn batch_len(&self) -> usize {
        1
    }

    /// Runs `inputs` from the first one on, as long as each is uninteresting: it finishes and
    /// reaches no block that [`run`](Self::run) would report. Returns how many those were. Whether
    /// the next one, if there is one, was run does not matter: it is given to `run`, which reports
    /// on it as if it had not been.
    ///
    /// # Errors
    ///
    /// The host failed; the campaign ends.
    fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<Uninteresting, TargetError> {
        let _ = inputs;
        Ok(Uninteresting::default())
    }

    /// Reports every block that `input` reaches, each once, known or not. Leaves what later calls
    /// of [`run`](Self::run) report as it was. The time that tracing itself costs does not count
    /// against the limit of the run. What does not finish was run on the exact path.
    ///
    /// # Errors
    ///
    /// The host failed; the campaign ends.
    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError>;

    /// As [`trace`](Self::trace), always on the exact path: decides on findings. Where a trace always
    /// is that, they are one (the default).
    ///
    /// # Errors
    ///
    /// The host failed; the campaign ends.
    fn confirm(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.trace(input)
    }

    /// How many calls the last [`trace`](Self::trace) made that cost the target time of its own,
    /// such as system calls: entries with few of them get more of a campaign. The same input must
    /// make the same number each time. 0, the default, is that they cost nothing.
    fn calls(&self) -> u64 {
        0
    }

    /// Runs `input` once more, and tells what it compares: with that a campaign passes comparisons
    /// that havoc does not. It must be the same each time, and leaves what later calls of
    /// [`run`](Self::run) report as it was. None, the default, costs nothing.
    ///
    /// # Errors
    ///
    /// The host failed; the campaign ends.
    fn comparisons(&mut self, input: &[u8]) -> Result<Vec<Comparison>, TargetError> {
        let _ = input;
        Ok(Vec::new())
    }

    /// How often, on average, a run that is one of many at once was interrupted because something
    /// had to be done for it outside; `None`, the default, is that there was no such run yet.
    fn exits_per_run(&self) -> Option<f64> {
        None
    }

    /// Names blocks that need no report from [`run`](Self::run) any more.
    fn known_blocks(&mut self, blocks: &[u32]);

    /// Asks for `blocks` to be reported once more, although a `run` has reported them.
    ///
    /// The campaign calls it with the blocks first reached by an input that it does not keep
    /// because it crashed or ran out of time. A target that ignores it (the default) stays
    /// correct, but later inputs are not guided through those blocks.
    fn forget_blocks(&mut self, blocks: &[u32]) {
        let _ = blocks;
    }

    /// Sets the time limit of one run, from now on.
    fn set_timeout(&mut self, limit: Duration);
}

/// What the numbers stand for that a target reports.
///
/// A place is a block or an edge; each has `classes` numbers, one after another, such as AFL's classes
/// of how often it was passed. New is what has a new number. Entries are preferred, and coverage is
/// shown, by places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Basic blocks: the first places.
    pub blocks: usize,
    /// Edges between them: the places behind.
    pub edges: usize,
    /// Numbers of each place; at least 1.
    pub classes: usize,
}

impl Shape {
    /// Blocks and edges.
    #[must_use]
    pub const fn places(self) -> usize {
        self.blocks.saturating_add(self.edges)
    }

    /// The place that a number belongs to.
    #[must_use]
    pub const fn place_of(self, number: u32) -> u32 {
        match self.classes as u32 {
            0 | 1 => number,
            classes => number / classes,
        }
    }
}

/// The runs of a batch before its first interesting one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uninteresting {
    /// How many; the first ones of the batch.
    pub runs: usize,
    /// Time that they took together.
    pub duration: Duration,
}

/// Inputs for a batch, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Inputs {
    /// Adds an input.
    pub fn push(&mut self, input: &[u8]) {
        self.bytes.extend_from_slice(input);
        self.ends.push(self.bytes.len());
    }

    /// Takes all inputs out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Number of inputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no input.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all inputs together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The input with number `index`; `None` past the last one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.bytes.get(start..end)
    }

    /// All inputs in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

/// What one run of an input showed. Borrows the target's own list of blocks, so that a run that
/// finds nothing allocates nothing.
#[derive(Debug)]
pub struct Execution<'a> {
    /// Why the run ended.
    pub exit_kind: ExitKind,
    /// Blocks reached, without repetition, in any order.
    pub blocks: &'a [u32],
    /// Time the input took, without the cost of coverage and rewind where the target can tell.
    pub duration: Duration,
}

/// Why a run ended. LibAFL's enum of the same name has no room for the facts of a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitKind {
    /// The input was processed.
    Finished,
    /// The program faulted or aborted.
    Crashed(CrashFacts),
    /// The time limit was reached.
    TimedOut,
    /// The memory limit was reached.
    OutOfMemory,
    /// The program asked for something that the target does not offer; what, in words.
    Unsupported(String),
}

/// The facts of a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashFacts {
    /// The kind of fault, such as `SIGSEGV-write` or `SIGABRT`. Becomes part of a file name.
    pub kind: String,
    /// Call stack, innermost frame first, symbolised or as module and offset. Two runs of the same
    /// input must give the same text, so no absolute address of a randomised mapping.
    pub stack: Vec<String>,
    /// One line for people.
    pub summary: String,
    /// The rule by which it is a crash, where that is not a fault: what a replay must be told too,
    /// in the target's own words. Does not set crashes apart.
    pub rule: Option<String>,
}

impl CrashFacts {
    /// Running out of memory, as a crash: it is saved and folded like one.
    #[must_use]
    pub fn out_of_memory() -> Self {
        Self {
            kind: "OOM".to_owned(),
            stack: Vec::new(),
            summary: "the memory limit was reached".to_owned(),
            rule: None,
        }
    }
}

/// The host failed to run an input. Says nothing about the input.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TargetError(Box<dyn Error + Send + Sync + 'static>);

impl TargetError {
    /// Wraps the error of the machinery that a target is made of.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync + 'static>>) -> Self {
        Self(source.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_come_back_as_they_went_in_and_there_is_none_past_the_last() {
        let mut inputs = Inputs::default();
        for input in [&b"one"[..], b"", b"three"] {
            inputs.push(input);
        }
        assert_eq!(inputs.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!((inputs.get(1), inputs.get(3)), (Some(&b""[..]), None));
    }
}
