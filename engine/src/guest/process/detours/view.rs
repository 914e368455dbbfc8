//! What batches have of rewritten code for themselves. Never runs a batch.

use super::watch::Watch;
use crate::coverage::Breakpoints;
use crate::rewind::Patches;

/// What batches have of their own.
#[derive(Debug, Default)]
pub(super) struct BatchView {
    /// Blocks that do not mark themselves.
    pub breakpoints: Breakpoints,
    /// Where breakpoints stand: a rewind does not come here.
    pub armed: Patches,
    /// Which of them are wanted has changed.
    pub is_stale: bool,
    pub watch: Watch,
    /// The agent's tables show it.
    pub is_shown: bool,
}

impl BatchView {
    pub(super) fn new(breakpoints: Breakpoints) -> Self {
        Self { breakpoints, is_stale: true, ..Self::default() }
    }
}
