//! What a step of a guest leads to. Never decides it.

use crate::outcome::Outcome;

/// What a step of a guest leads to.
pub(super) enum Flow {
    Continue,
    Interrupted,
    Stop(Stop),
}

impl Flow {
    pub(super) const fn end(outcome: Outcome) -> Self {
        Self::Stop(Stop::Ended(outcome))
    }
}

/// Why a guest stopped.
pub(super) enum Stop {
    Ended(Outcome),
    Snapshot,
    /// A run with detours came to where it would show them; it is worth nothing.
    OffDetours,
}
