//! Mutants that are made at once, for a target that runs many at once. Never runs one.

use crate::schedule::RngCheckpoint;
use crate::target::Inputs;

/// Bytes of the mutants made at once: making those that are never run costs time, too.
const BATCH_BYTES: usize = 1 << 20;

/// Mutants made at once. Made once and used again.
#[derive(Debug, Default)]
pub(super) struct MutantBatch {
    inputs: Inputs,
    /// One for each mutant.
    marks: Vec<Mark>,
}

/// How things stood right after a mutant was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// The random numbers.
    pub(super) rng: RngCheckpoint,
    /// Tries left in this turn.
    pub(super) tries_left: usize,
}

impl MutantBatch {
    pub(super) fn clear(&mut self) {
        self.inputs.clear();
        self.marks.clear();
    }

    /// Whether there is room for one more in a batch of `len`.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.inputs.len() < len && self.inputs.bytes() < BATCH_BYTES
    }

    pub(super) fn push(&mut self, mutant: &[u8], mark: Mark) {
        self.inputs.push(mutant);
        self.marks.push(mark);
    }

    /// The mutants.
    pub(super) fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The mutant with number `index`, and its mark; `None` past the last one.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], Mark)> {
        self.inputs.get(index).zip(self.marks.get(index).copied())
    }
}
