//! What a driver keeps of comparisons that log themselves. Only data.

use crate::coverage::comparisons::Comparison;
use crate::guest::process::detours::Detours;

/// Detours of comparisons, while no run goes through them, and what they are about.
#[derive(Debug)]
pub(super) struct LoggedComparisons {
    /// In the driver's own place while a run goes through them; then this has those that mark blocks.
    pub(super) detours: Option<Box<Detours>>,
    pub(super) sites: Vec<Comparison>,
}
